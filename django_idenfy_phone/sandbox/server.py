"""The sandbox as a real HTTP server on the loopback address."""

import base64
import hmac
import json
import re
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Self

from django_idenfy_phone.sandbox import inbox
from django_idenfy_phone.sandbox.scenarios import (
    DEFAULT,
    REDIRECT_PATH,
    SCENARIOS,
    Scenario,
)
from django_idenfy_phone.sandbox.state import (
    Exchange,
    Message,
    Refusal,
    SandboxState,
    Verdict,
    check_values,
    send_values,
    utc_now,
)

LOOPBACK = "127.0.0.1"
LOOPBACK_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?", re.IGNORECASE)
MAX_BODY_BYTES = 64 * 1024
MAX_SHOWN_BYTES = 100
MAX_SHOWN_NUMBER = 40
ARRIVAL_POLL_SECONDS = 0.1
# iDenfy's older pages send every error as 400. These two have their own status.
ERROR_STATUS = {"UNAUTHORIZED": 401, "METHOD_NOT_ALLOWED": 405}


class Handler(BaseHTTPRequestHandler):
    """Reads one request, calls its route and writes the answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Listener"
    # What the inbox tells of this request; None where it is not one to the API.
    exchange: Exchange | None = None

    def serve(self) -> None:
        self.exchange = None
        # Always read the body: the next request on this connection starts after it.
        body = self.read_body()
        route = ROUTES.get(self.path.partition("?")[0], not_found)
        try:
            route(self, body)
        except Refusal as refusal:
            status = ERROR_STATUS.get(refusal.identifier, 400)
            self.reply_error(status, refusal.identifier, refusal.message)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = serve

    def read_body(self) -> bytes | None:
        """Return the whole body, or None where its length is invalid or too long."""
        default = "0" if self.command == "GET" else ""
        length = self.headers.get("Content-Length", default)
        is_valid = re.fullmatch("[0-9]{1,5}", length) and int(length) <= MAX_BODY_BYTES
        if not is_valid or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            return None
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise ConnectionAbortedError("The client disconnected inside its request.")
        return body

    def reply_head(
        self, status: int, length: int, headers: Mapping[str, str] = {}
    ) -> None:
        if self.exchange:
            self.exchange.status = status
            if "Retry-After" in headers:
                self.exchange.retry_after = int(headers["Retry-After"])
        self.send_response(status)
        defaults = {
            "Content-Type": "application/json",
            "Content-Length": str(length),
            "Cache-Control": "no-store",
        }
        for name, value in {**defaults, **headers}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def reply(self, status: int, body: bytes, headers: Mapping[str, str] = {}) -> None:
        if self.exchange and len(body) <= MAX_SHOWN_BYTES:
            self.exchange.body = body.decode(errors="replace")
        self.reply_head(status, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def reply_json(
        self, status: int, value: object, headers: Mapping[str, str] = {}
    ) -> None:
        self.reply(status, json.dumps(value).encode(), headers)

    def reply_error(
        self,
        status: int,
        identifier: str,
        message: str,
        headers: Mapping[str, str] = {},
    ) -> None:
        if self.exchange:
            self.exchange.identifier = identifier
        body = {"identifier": identifier, "message": message}
        self.reply_json(status, body, headers)

    def reply_text(
        self, status: int, text: str, content_type: str = "text/plain"
    ) -> None:
        # A sender name may hold half a surrogate pair, which UTF-8 cannot encode.
        body = text.encode(errors="replace")
        self.reply(status, body, {"Content-Type": f"{content_type}; charset=utf-8"})

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: phone numbers and codes must never reach a log."""


def send_sms(handler: Handler, body: bytes | None) -> None:
    phone_number, sender_name = send_values(accept_request(handler, "send", body))
    scenario = SCENARIOS.get(phone_number, DEFAULT)
    run_send(handler, scenario, phone_number, sender_name)


def send_sms_after_redirect(handler: Handler, body: bytes | None) -> None:
    phone_number, sender_name = send_values(accept_request(handler, "redirect", body))
    run_send(handler, DEFAULT, phone_number, sender_name)


def run_send(
    handler: Handler, scenario: Scenario, phone_number: str, sender_name: str
) -> None:
    sandbox = handler.server.sandbox
    request_id = ""
    if scenario.sends_sms:
        message = sandbox.state.send(phone_number, sender_name, scenario.delivery)
        sandbox.deliver(message)
        request_id = message.request_id
    scenario.answer_send(handler, request_id)


def verify_sms(handler: Handler, body: bytes | None) -> None:
    request_id, code = check_values(accept_request(handler, "check", body))
    state = handler.server.sandbox.state
    scenario = SCENARIOS.get(state.number_of(request_id), DEFAULT)
    verdict = state.judge(request_id, code) if scenario.checks_code else None
    if handler.exchange:
        handler.exchange.verdict = verdict
    scenario.answer_check(handler, verdict is Verdict.RIGHT)


def accept_request(
    handler: Handler, endpoint: str, body: bytes | None
) -> dict[str, object]:
    """Log the request, check its key, then its method; return its JSON object."""
    sandbox = handler.server.sandbox
    handler.exchange = exchange = sandbox.state.count_request(endpoint)
    if not sandbox.is_authorized(handler.headers.get("Authorization", "")):
        raise Refusal("UNAUTHORIZED", "The API key or secret is wrong or absent.")
    require_method(handler, "POST")
    members = parse_json_object(body)
    exchange.phone_number = named_number(sandbox.state, members)
    sandbox.state.raise_failure()
    return members


def named_number(state: SandboxState, members: Mapping[str, object]) -> str:
    """The number that a request concerns, as it was written; "" where it has none."""
    number, request_id = members.get("phone_number"), members.get("request_id")
    if isinstance(request_id, str):
        return state.number_of(request_id)
    return number[:MAX_SHOWN_NUMBER] if isinstance(number, str) else ""


def require_method(handler: Handler, method: str) -> None:
    if handler.command != method:
        raise Refusal("METHOD_NOT_ALLOWED", f"Only {method} is allowed here.")


def parse_json_object(body: bytes | None) -> dict[str, object]:
    if body is None:
        message = f"The body needs a Content-Length of at most {MAX_BODY_BYTES} bytes."
        raise Refusal("JSON_ERROR", message)
    try:
        value = json.loads(body.decode())
    except UnicodeDecodeError as error:
        raise Refusal("ENCODING_ERROR", "The body is not UTF-8.") from error
    except (ValueError, RecursionError) as error:
        raise Refusal("JSON_ERROR", "The body is not JSON.") from error
    if not isinstance(value, dict):
        raise Refusal("JSON_ERROR", "The body is not a JSON object.")
    return value


def not_found(handler: Handler, _: bytes | None) -> None:
    # Plain text, since iDenfy documents no identifier for an unknown path.
    handler.reply_text(404, "Not found.\n")


def inbox_page(handler: Handler, _: bytes | None) -> None:
    if may_read_inbox(handler):
        page = inbox.render_page(handler.server.sandbox.state)
        handler.reply_text(200, page, "text/html")


def inbox_json(handler: Handler, _: bytes | None) -> None:
    if may_read_inbox(handler):
        messages = inbox.as_json(handler.server.sandbox.state.messages)
        handler.reply_json(200, messages)


def may_read_inbox(handler: Handler) -> bool:
    """Require GET. Return whether the host name is loopback; answer 403 if not."""
    require_method(handler, "GET")
    # A website whose name was rebound to 127.0.0.1 must not read the codes.
    is_loopback = bool(LOOPBACK_HOST.fullmatch(handler.headers.get("Host", "")))
    if not is_loopback:
        handler.reply_text(403, "Open the inbox at 127.0.0.1 or localhost.\n")
    return is_loopback


ROUTES: dict[str, Callable[[Handler, bytes | None], None]] = {
    "/fraud/send-sms": send_sms,
    "/fraud/verify-sms": verify_sms,
    REDIRECT_PATH: send_sms_after_redirect,
    "/": inbox_page,
    "/inbox.json": inbox_json,
}


class Listener(ThreadingHTTPServer):
    """Accepts connections, one thread each, until `close` ends them all."""

    request_queue_size = 128

    def __init__(self, sandbox: "SandboxServer") -> None:
        self.sandbox = sandbox
        self.connections: set[socket.socket] = set()
        super().__init__((LOOPBACK, sandbox.port), Handler)

    def server_bind(self) -> None:
        # HTTPServer.server_bind looks up the host name: seconds, with a slow DNS.
        TCPServer.server_bind(self)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Return the connection and the client's address."""
        connection, address = super().get_request()
        self.connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def close(self) -> None:
        # On Linux this wakes the serve_forever loop at once. Other systems may refuse
        # it, and then the loop ends at its next poll.
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.shutdown()
        self.server_close()
        for connection in tuple(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that disconnects is not an error of the sandbox.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class SandboxServer:
    """A stand-in for iDenfy at `url`, with its inbox in `state`.

    Port 0 takes a free port. `on_message` is called with each SMS and call: in the
    thread of its request, or in one of its own where it arrives later. `now` returns
    an aware datetime. The server can be stopped and started again: it keeps its port
    and its inbox.
    """

    def __init__(
        self,
        api_key: str,
        api_secret: str,
        port: int = 0,
        on_message: Callable[[Message], None] | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.port = port
        self.state = SandboxState(now)
        self.on_message = on_message or (lambda message: None)
        self.stopping = threading.Event()
        self._credentials = base64.b64encode(f"{api_key}:{api_secret}".encode())
        self._listener: Listener | None = None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def is_authorized(self, authorization: str) -> bool:
        scheme, _, credentials = authorization.partition(" ")
        same = hmac.compare_digest(credentials.strip().encode(), self._credentials)
        return same and scheme.lower() == "basic"

    def deliver(self, message: Message) -> None:
        """Call `on_message` when the message arrives, unless the server stops first."""
        if message.arrives_at <= self.state.now():
            self.on_message(message)
        else:
            threading.Thread(
                target=self._deliver_late,
                args=(message,),
                name="idenfy-late-message",
                daemon=True,
            ).start()

    def _deliver_late(self, message: Message) -> None:
        while self.state.now() < message.arrives_at:
            if self.stopping.wait(ARRIVAL_POLL_SECONDS):
                return
        self.on_message(message)

    def start(self) -> None:
        self.stopping.clear()
        self._listener = Listener(self)
        self.port = self._listener.server_address[1]
        threading.Thread(
            target=self._listener.serve_forever,
            kwargs={"poll_interval": 0.02},
            name="idenfy-sandbox",
            daemon=True,
        ).start()

    def stop(self) -> None:
        self.stopping.set()
        if self._listener:
            self._listener.close()
            self._listener = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
