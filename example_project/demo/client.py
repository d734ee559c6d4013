"""A minimal browser: it keeps cookies and sends the CSRF token back."""

import json
import re
from http.client import HTTPMessage
from http.cookiejar import CookieJar
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, ProxyHandler, Request, build_opener


class Response(NamedTuple):
    status: int
    url: str
    headers: HTTPMessage
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    def __str__(self) -> str:
        if self.headers.get_content_type() != "application/json":
            return f"{self.status} at {self.url}"
        shown = ("status", "is_verified", "checks_left", "detail", "code")
        members = {key: self.json[key] for key in shown if key in self.json}
        return f"{self.status} {json.dumps(members)}"


class Client:
    def __init__(self, site: str) -> None:
        self.site = site
        self.cookies = CookieJar()
        # Loopback is never behind a proxy, whatever the environment says.
        cookie_processor = HTTPCookieProcessor(self.cookies)
        self.opener = build_opener(ProxyHandler({}), cookie_processor)

    def get(self, path: str) -> Response:
        return self._send(Request(self.site + path))

    def submit(self, path: str, **fields: str) -> Response:
        """Fill in a page's form, submit it and follow redirects."""
        page = self.get(path).text
        token = re.search('name="csrfmiddlewaretoken" value="([^"]+)"', page)
        hidden = {"csrfmiddlewaretoken": token[1]} if token else {}
        body = urlencode(hidden | fields).encode()
        return self._send(Request(self.site + path, body))

    def post(self, path: str, **members: str) -> Response:
        """Send JSON, as a page's script would."""
        cookies = {cookie.name: cookie.value or "" for cookie in self.cookies}
        token = cookies.get("csrftoken", "")
        headers = {"Content-Type": "application/json", "X-CSRFToken": token}
        body = json.dumps(members).encode()
        return self._send(Request(self.site + path, body, headers))

    def _send(self, request: Request) -> Response:
        try:
            response = self.opener.open(request, timeout=20)
        except HTTPError as error:
            response = error
        with response:
            text = response.read().decode()
            return Response(response.status, response.url, response.headers, text)
