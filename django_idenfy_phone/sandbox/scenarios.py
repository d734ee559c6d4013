"""The magic numbers: for each one, what the sandbox does and answers."""

import gzip
import json
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from django_idenfy_phone.sandbox.pauses import pause_after
from django_idenfy_phone.sandbox.state import NORMAL_DELIVERY, Channel, Delivery

if TYPE_CHECKING:
    from django_idenfy_phone.sandbox.server import Handler

BOMB_BYTES = 50 * 1024 * 1024
SECONDS_PER_BYTE = 0.5
LATE_SECONDS = 20
REDIRECT_PATH = "/sandbox/redirected"

# Answers a send, given its request_id ("" where no SMS was sent), or answers a check,
# given whether the code was right.
Responder = Callable[["Handler", Any], None]


def answer_request_id(handler: "Handler", request_id: str) -> None:
    handler.reply_json(200, {"request_id": request_id})


def answer_short_request_id(handler: "Handler", request_id: str) -> None:
    handler.reply_json(201, {"request_id": request_id[:8]})


def answer_html(handler: "Handler", _: object) -> None:
    handler.reply_text(200, "<h1>Down for maintenance</h1>\n", "text/html")


def answer_verdict(handler: "Handler", is_verified: bool) -> None:
    handler.reply_json(200, {"is_verified": is_verified})


def answer_false(handler: "Handler", _: object) -> None:
    handler.reply_json(200, {"is_verified": False})


def answer_text_true(handler: "Handler", _: object) -> None:
    handler.reply_json(200, {"is_verified": "true"})


def answer_duplicate_key(handler: "Handler", _: object) -> None:
    handler.reply(200, b'{"is_verified": false, "is_verified": true}')


def answer_redirect(handler: "Handler", _: object) -> None:
    handler.reply(307, b"", {"Location": REDIRECT_PATH})


def error(status: int, identifier: str, headers: Mapping[str, str] = {}) -> Responder:
    """Return a responder that answers with the documented error body."""

    def respond(handler: "Handler", _: object) -> None:
        message = "The number asked the sandbox for this error."
        handler.reply_error(status, identifier, message, headers)

    return respond


def never_answer(handler: "Handler", _: object) -> None:
    handler.close_connection = True
    # Ends when the client disconnects, or when stop() closes every connection.
    while handler.rfile.read1():
        pass


def never_answer_right_code(handler: "Handler", is_verified: bool) -> None:
    respond = never_answer if is_verified else answer_verdict
    respond(handler, is_verified)


def reset_connection(handler: "Handler", _: object) -> None:
    handler.close_connection = True
    # With a linger time of zero, close() sends a reset.
    linger_zero = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_zero)
    # Both must be closed here: the socket stays open as long as its reader does, and
    # socketserver would first shut the connection down without a reset.
    handler.rfile.close()
    handler.connection.close()


def answer_slowly(handler: "Handler", request_id: str) -> None:
    answer = json.dumps({"request_id": request_id}).encode()
    handler.reply_head(200, len(answer))
    for byte in answer:
        if handler.server.sandbox.stopping.wait(SECONDS_PER_BYTE):
            return
        handler.wfile.write(bytes([byte]))


def answer_gzip_bomb(handler: "Handler", request_id: str) -> None:
    # The worst case: for a client that decompresses all of it, the answer is valid.
    answer = gzip.compress(json.dumps({"request_id": request_id}).encode())
    handler.reply(200, answer + compressed_blanks(), {"Content-Encoding": "gzip"})


@cache
def compressed_blanks() -> bytes:
    return gzip.compress(b" " * BOMB_BYTES)


@dataclass(frozen=True)
class Scenario:
    """What the sandbox does with the sends to a number and the checks of its codes."""

    description: str
    sends_sms: bool = True
    delivery: Delivery = NORMAL_DELIVERY
    answer_send: Responder = answer_request_id
    checks_code: bool = True
    answer_check: Responder = answer_verdict


def refused(status: int, identifier: str, headers: Mapping[str, str] = {}) -> Scenario:
    """A send is answered with an error; nothing is sent or billed."""
    extra = "".join(f", {name}: {value}" for name, value in headers.items())
    pause = pause_sentence("send", status, identifier, headers)
    return Scenario(
        f"Send: {status} {identifier}{extra}. Nothing is sent.{pause}",
        sends_sms=False,
        answer_send=error(status, identifier, headers),
    )


def check_refused(status: int, identifier: str) -> Scenario:
    """A send works normally; its codes are not checked."""
    pause = pause_sentence("check", status, identifier)
    return Scenario(
        f"Check: {status} {identifier}, and the code is not checked.{pause}",
        checks_code=False,
        answer_check=error(status, identifier),
    )


def pause_sentence(
    endpoint: str, status: int, identifier: str, headers: Mapping[str, str] = {}
) -> str:
    wait = int(headers["Retry-After"]) if "Retry-After" in headers else None
    pause = pause_after(endpoint, status, identifier, wait)
    return f" {pause.sentence}" if pause else ""


def delivered(description: str, delivery: Delivery) -> Scenario:
    """A send is answered normally; its code arrives otherwise."""
    return Scenario(f"Send: {description}.", delivery=delivery)


def sent(description: str, responder: Responder) -> Scenario:
    """An SMS is sent and billed, then the responder answers."""
    return Scenario(
        f"Send: sent and billed, then {description}.", answer_send=responder
    )


def checked(description: str, responder: Responder) -> Scenario:
    """A send works normally; the responder answers the checks."""
    return Scenario(f"Check: {description}.", answer_check=responder)


DEFAULT = Scenario("Works normally.")
REDIRECT = Scenario(
    "Send: 307 to another path. Nothing is sent, unless the client follows.",
    sends_sms=False,
    answer_send=answer_redirect,
)
# By the phone number that a send names.
SCENARIOS = {
    "+12025550101": refused(400, "BAD_VALUE"),
    "+12025550102": refused(401, "UNAUTHORIZED"),
    "+12025550103": refused(400, "PARTNER_CONTRACT_ERROR"),
    "+12025550104": refused(429, "TOO_MANY_REQUESTS", {"Retry-After": "2"}),
    "+12025550105": refused(400, "TOO_MANY_REQUESTS"),
    "+12025550106": sent("500 INTERNAL_ERROR", error(500, "INTERNAL_ERROR")),
    "+12025550107": sent("no answer", never_answer),
    "+12025550108": sent("200 with an HTML page", answer_html),
    "+12025550109": sent("a connection reset", reset_connection),
    "+12025550110": refused(400, "INTERNAL_ERROR"),
    "+12025550111": REDIRECT,
    "+12025550112": sent("a slow answer, one byte each half second", answer_slowly),
    "+12025550113": sent("a gzip bomb", answer_gzip_bomb),
    "+12025550114": sent("201 with too short a request_id", answer_short_request_id),
    "+12025550115": delivered(
        f"the SMS arrives {LATE_SECONDS} seconds later",
        Delivery(delay=timedelta(seconds=LATE_SECONDS)),
    ),
    "+12025550116": delivered(
        "no SMS arrives, a call reads the code", Delivery(Channel.CALL)
    ),
    "+12025550120": checked(
        "a right code is used up, but gets no answer", never_answer_right_code
    ),
    "+12025550121": checked('always "true" as text', answer_text_true),
    "+12025550122": check_refused(429, "TOO_MANY_REQUESTS"),
    "+12025550123": checked(
        "both false and true, a duplicate key", answer_duplicate_key
    ),
    "+12025550124": checked("always false", answer_false),
    "+12025550125": Scenario(
        "Check: false, because the code has already expired when it arrives.",
        delivery=Delivery(code_life=timedelta(0)),
    ),
}
