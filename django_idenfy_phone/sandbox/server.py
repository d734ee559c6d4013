"""The sandbox as a real HTTP server on the loopback address, with an inbox page."""

import base64
import gzip
import hmac
import json
import re
import socket
import struct
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from socketserver import TCPServer
from string import Template
from typing import Any, Self

from django_idenfy_phone.sandbox.state import (
    Message,
    Refusal,
    SandboxState,
    check_values,
    send_values,
    utc_now,
)

LOOPBACK = "127.0.0.1"
LOOPBACK_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?", re.IGNORECASE)
MAX_BODY = 64 * 1024
BOMB_SIZE = 50 * 1024 * 1024
DRIP_PAUSE = 0.5
REDIRECT_TARGET = "/sandbox/redirected"
# iDenfy's older pages send every error as 400; these two have a status of their own.
STATUS = {"UNAUTHORIZED": 401, "METHOD_NOT_ALLOWED": 405}
NO_HEADERS: Mapping[str, str] = {}


class Handler(BaseHTTPRequestHandler):
    """Reads one request, hands it to its route and writes the answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Listener"

    def serve(self) -> None:
        # Always read, or the next request on this connection would start inside it.
        body = self.read_body()
        route = ROUTES.get(self.path.partition("?")[0], not_found)
        try:
            route(self, body)
        except Refusal as refusal:
            status = STATUS.get(refusal.identifier, 400)
            self.reply_error(status, refusal.identifier, refusal.message)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = serve

    def read_body(self) -> bytes | None:
        """The whole body, or None where it has no usable length or is too long."""
        nothing = "0" if self.command == "GET" else ""
        length = self.headers.get("Content-Length", nothing)
        usable = re.fullmatch("[0-9]{1,5}", length) and int(length) <= MAX_BODY
        if not usable or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            return None
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise ConnectionAbortedError("The client hung up inside its request.")
        return body

    def reply_head(self, status: int, length: int, headers: Mapping[str, str]) -> None:
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

    def reply(
        self, status: int, body: bytes, headers: Mapping[str, str] = NO_HEADERS
    ) -> None:
        self.reply_head(status, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def reply_json(
        self, status: int, value: object, headers: Mapping[str, str] = NO_HEADERS
    ) -> None:
        self.reply(status, json.dumps(value).encode(), headers)

    def reply_error(
        self,
        status: int,
        identifier: str,
        message: str,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        body = {"identifier": identifier, "message": message}
        self.reply_json(status, body, headers)

    def reply_text(self, status: int, text: str, kind: str = "text/plain") -> None:
        # A sender name may hold half a surrogate pair, which UTF-8 cannot.
        body = text.encode(errors="replace")
        self.reply(status, body, {"Content-Type": f"{kind}; charset=utf-8"})

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: phone numbers and codes must never reach a log."""


# Answers a send, given its request_id ("" where nothing was sent), or a check,
# given the verdict on the code.
Act = Callable[[Handler, Any], None]


def answer_request_id(handler: Handler, request_id: str) -> None:
    handler.reply_json(200, {"request_id": request_id})


def answer_short_request_id(handler: Handler, request_id: str) -> None:
    handler.reply_json(201, {"request_id": request_id[:8]})


def answer_html(handler: Handler, _: object) -> None:
    handler.reply_text(200, "<h1>Down for maintenance</h1>\n", "text/html")


def answer_verdict(handler: Handler, is_verified: bool) -> None:
    handler.reply_json(200, {"is_verified": is_verified})


def answer_false(handler: Handler, _: object) -> None:
    handler.reply_json(200, {"is_verified": False})


def answer_text_true(handler: Handler, _: object) -> None:
    handler.reply_json(200, {"is_verified": "true"})


def answer_twice(handler: Handler, _: object) -> None:
    handler.reply(200, b'{"is_verified": false, "is_verified": true}')


def error(status: int, identifier: str, headers: Mapping[str, str] = NO_HEADERS) -> Act:
    def act(handler: Handler, _: object) -> None:
        message = "The number asked the sandbox for this error."
        handler.reply_error(status, identifier, message, headers)

    return act


def redirect(handler: Handler, _: object) -> None:
    handler.reply(307, b"", {"Location": REDIRECT_TARGET})


def fall_silent(handler: Handler, _: object) -> None:
    handler.close_connection = True
    # Ends when the client leaves, or when stop() shuts down every connection.
    while handler.rfile.read1():
        pass


def accept_in_silence(handler: Handler, is_verified: bool) -> None:
    act = fall_silent if is_verified else answer_verdict
    act(handler, is_verified)


def reset(handler: Handler, _: object) -> None:
    handler.close_connection = True
    linger_zero = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_zero)
    # A socket outlives its close() while its reader is open, and socketserver would
    # end the connection in good order first.
    handler.rfile.close()
    handler.connection.close()


def drip(handler: Handler, request_id: str) -> None:
    answer = json.dumps({"request_id": request_id}).encode()
    handler.reply_head(200, len(answer), NO_HEADERS)
    for byte in answer:
        if handler.server.sandbox.stopping.wait(DRIP_PAUSE):
            return
        handler.wfile.write(bytes([byte]))


def gzip_bomb(handler: Handler, request_id: str) -> None:
    # The worst of its kind: to a client that inflates it all, it is a valid answer.
    answer = gzip.compress(json.dumps({"request_id": request_id}).encode())
    handler.reply(200, answer + zipped_blanks(), {"Content-Encoding": "gzip"})


@cache
def zipped_blanks() -> bytes:
    return gzip.compress(b" " * BOMB_SIZE)


@dataclass(frozen=True)
class Deed:
    """What the sandbox does with a number."""

    meaning: str
    bills: bool = True
    send: Act = answer_request_id
    judges: bool = True
    check: Act = answer_verdict


def refused(
    status: int, identifier: str, headers: Mapping[str, str] = NO_HEADERS
) -> Deed:
    extra = "".join(f", {name}: {value}" for name, value in headers.items())
    meaning = f"Send: {status} {identifier}{extra}. Nothing is sent."
    return Deed(meaning, bills=False, send=error(status, identifier, headers))


def sent(meaning: str, act: Act) -> Deed:
    return Deed(f"Send: sent and billed, then {meaning}.", send=act)


def checked(meaning: str, act: Act, *, judges: bool = True) -> Deed:
    return Deed(f"Check: {meaning}.", judges=judges, check=act)


RATE_LIMIT = error(429, "TOO_MANY_REQUESTS")
ORDINARY = Deed("Works normally.")
ELSEWHERE = Deed(
    "Send: 307 to another path. Nothing is sent, unless the client follows.",
    bills=False,
    send=redirect,
)
MAGIC = {
    "+12025550101": refused(400, "BAD_VALUE"),
    "+12025550102": refused(401, "UNAUTHORIZED"),
    "+12025550103": refused(400, "PARTNER_CONTRACT_ERROR"),
    "+12025550104": refused(429, "TOO_MANY_REQUESTS", {"Retry-After": "2"}),
    "+12025550105": refused(400, "TOO_MANY_REQUESTS"),
    "+12025550106": sent("500 INTERNAL_ERROR", error(500, "INTERNAL_ERROR")),
    "+12025550107": sent("silence", fall_silent),
    "+12025550108": sent("200 with an HTML page", answer_html),
    "+12025550109": sent("a connection reset", reset),
    "+12025550110": refused(400, "INTERNAL_ERROR"),
    "+12025550111": ELSEWHERE,
    "+12025550112": sent("the answer drips, a byte each half second", drip),
    "+12025550113": sent("a gzip bomb", gzip_bomb),
    "+12025550114": sent("201 with too short a request_id", answer_short_request_id),
    "+12025550120": checked("a right code is used up in silence", accept_in_silence),
    "+12025550121": checked('always "true" as text', answer_text_true),
    "+12025550122": checked("429 TOO_MANY_REQUESTS", RATE_LIMIT, judges=False),
    "+12025550123": checked("both false and true, a duplicate key", answer_twice),
    "+12025550124": checked("always false", answer_false),
}


def send_sms(handler: Handler, body: bytes | None) -> None:
    phone_number, sender_name = send_values(admitted(handler, "send", body))
    perform(handler, MAGIC.get(phone_number, ORDINARY), phone_number, sender_name)


def redirected(handler: Handler, body: bytes | None) -> None:
    phone_number, sender_name = send_values(admitted(handler, "redirect", body))
    perform(handler, ORDINARY, phone_number, sender_name)


def perform(handler: Handler, deed: Deed, phone_number: str, sender_name: str) -> None:
    sandbox = handler.server.sandbox
    request_id = ""
    if deed.bills:
        message = sandbox.state.send(phone_number, sender_name)
        sandbox.on_message(message)
        request_id = message.request_id
    deed.send(handler, request_id)


def verify_sms(handler: Handler, body: bytes | None) -> None:
    request_id, code = check_values(admitted(handler, "check", body))
    state = handler.server.sandbox.state
    deed = MAGIC.get(state.number_of(request_id), ORDINARY)
    verdict = deed.judges and state.check(request_id, code)
    deed.check(handler, verdict)


def admitted(handler: Handler, endpoint: str, body: bytes | None) -> dict[str, object]:
    """Count the request, check its key, then its method, then read its JSON."""
    sandbox = handler.server.sandbox
    sandbox.state.arrived(endpoint)
    if not sandbox.admits(handler.headers.get("Authorization", "")):
        raise Refusal("UNAUTHORIZED", "The API key or secret is wrong or absent.")
    need_method(handler, "POST")
    return json_object(body)


def need_method(handler: Handler, method: str) -> None:
    if handler.command != method:
        raise Refusal("METHOD_NOT_ALLOWED", f"Only {method} is allowed here.")


def json_object(body: bytes | None) -> dict[str, object]:
    if body is None:
        need = f"The body needs a Content-Length of at most {MAX_BODY} bytes."
        raise Refusal("JSON_ERROR", need)
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
        page = render_inbox(handler.server.sandbox.state.messages)
        handler.reply_text(200, page, "text/html")


def inbox_json(handler: Handler, _: bytes | None) -> None:
    if may_read_inbox(handler):
        messages = handler.server.sandbox.state.messages
        handler.reply_json(200, [as_json(message) for message in messages])


def may_read_inbox(handler: Handler) -> bool:
    need_method(handler, "GET")
    # A site whose name was rebound to 127.0.0.1 must not read the codes.
    local = LOOPBACK_HOST.fullmatch(handler.headers.get("Host", ""))
    if not local:
        handler.reply_text(403, "Open the inbox at 127.0.0.1 or localhost.\n")
    return bool(local)


def as_json(message: Message) -> dict[str, str]:
    return {**asdict(message), "sent_at": message.sent_at.isoformat()}


def render_inbox(messages: list[Message]) -> str:
    file = resources.files("django_idenfy_phone.sandbox") / "inbox.html"
    return Template(file.read_text("utf-8")).substitute(
        messages="\n".join(
            table_row(f"{each.sent_at:%H:%M:%S}", each.phone_number, each.text)
            for each in messages
        )
        or table_row("", "", "No messages yet."),
        magic="\n".join(
            table_row(number, deed.meaning) for number, deed in MAGIC.items()
        ),
    )


def table_row(*cells: str) -> str:
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


ROUTES: dict[str, Callable[[Handler, bytes | None], None]] = {
    "/fraud/send-sms": send_sms,
    "/fraud/verify-sms": verify_sms,
    REDIRECT_TARGET: redirected,
    "/": inbox_page,
    "/inbox.json": inbox_json,
}


class Listener(ThreadingHTTPServer):
    """The socket side: a thread for each connection, all ended by `hang_up`."""

    request_queue_size = 128

    def __init__(self, sandbox: "SandboxServer") -> None:
        self.sandbox = sandbox
        self.connections: set[socket.socket] = set()
        super().__init__((LOOPBACK, sandbox.port), Handler)

    def server_bind(self) -> None:
        # HTTPServer's own asks for the host's name, and a slow DNS takes seconds.
        TCPServer.server_bind(self)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        # Where a listening socket may be shut down, that wakes the loop at once;
        # elsewhere it ends at its next poll.
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.shutdown()
        self.server_close()
        for connection in tuple(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that hangs up is no error of ours.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def ignore(message: Message) -> None:
    pass


class SandboxServer:
    """A stand-in of iDenfy at `url`, with its inbox in `state`.

    It may be stopped and started again: the port and the inbox stay.
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
        self.on_message = on_message or ignore
        self.stopping = threading.Event()
        self._credentials = base64.b64encode(f"{api_key}:{api_secret}".encode())
        self._listener: Listener | None = None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def admits(self, authorization: str) -> bool:
        scheme, _, credentials = authorization.partition(" ")
        same = hmac.compare_digest(credentials.strip().encode(), self._credentials)
        return same and scheme.lower() == "basic"

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
            self._listener.hang_up()
            self._listener = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
