"""Steps that the sandbox tests share: requests, raw bytes and short waits."""

import base64
import json
import re
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime

import requests

from django_idenfy_phone.sandbox.server import SandboxServer
from support.constants import NUMBER

SEND = "/fraud/send-sms"
CHECK = "/fraud/verify-sms"
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BASIC = "Basic " + base64.b64encode(b"key:secret").decode()

Call = Callable[..., requests.Response]


def send(call: Call, number: str = NUMBER, **options: object) -> requests.Response:
    return call(SEND, {"phone_number": number}, **options)


def check(
    call: Call, request_id: str, code: str, **options: object
) -> tuple[int, dict[str, object]]:
    body = {"request_id": request_id, "received_code": code}
    return status_and_body(call(CHECK, body, **options))


def status_and_body(response: requests.Response) -> tuple[int, dict[str, object]]:
    return response.status_code, response.json()


def status_and_error(response: requests.Response) -> tuple[int, str]:
    """Check that the body is the documented error; return (status, identifier)."""
    body = response.json()
    assert body == {"identifier": body["identifier"], "message": body["message"]}
    assert isinstance(body["message"], str)
    return response.status_code, body["identifier"]


def wrong_code(code: str) -> str:
    return "1111" if code == "0000" else "0000"


def rows_of(call: Call, name: str) -> list[str]:
    """The texts of one list of the inbox page, a row each."""
    page = call("/?again", method="GET").text
    [rows] = re.findall(rf'<(?:ul|div) id="{name}".*?>(.*?)</(?:ul|div)>', page, re.S)
    texts = re.findall("<(?:li|p) .*?>(.*?)</(?:li|p)>", rows)
    return [re.sub("<[^>]*>", "", text) for text in texts]


def connect(server: SandboxServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=5)


def raw_send(number: str) -> bytes:
    body = json.dumps({"phone_number": number})
    return (
        f"POST {SEND} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {BASIC}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def eventually(is_true: Callable[[], bool]) -> bool:
    """Wait up to ten seconds until it is true; return whether it is."""
    deadline = time.monotonic() + 10
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.005)
    return is_true()
