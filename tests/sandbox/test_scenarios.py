"""Each magic number makes the sandbox answer and bill as its description says."""

import gzip
import json
import time
from datetime import timedelta

import pytest
import requests

from django_idenfy_phone.sandbox.server import SandboxServer
from django_idenfy_phone.sandbox.state import Channel, Verdict
from sandbox.steps import (
    CHECK,
    Call,
    check,
    connect,
    raw_send,
    send,
    status_and_body,
    status_and_error,
    wrong_code,
)
from support.clock import Clock
from support.constants import NUMBER


@pytest.mark.parametrize(
    ("number", "status", "error", "retry_after"),
    [
        ("+12025550101", 400, "BAD_VALUE", None),
        ("+12025550102", 401, "UNAUTHORIZED", None),
        ("+12025550103", 400, "PARTNER_CONTRACT_ERROR", None),
        ("+12025550104", 429, "TOO_MANY_REQUESTS", "2"),
        ("+12025550105", 400, "TOO_MANY_REQUESTS", None),
        ("+12025550110", 400, "INTERNAL_ERROR", None),
    ],
)
def test_refused_number_is_not_billed(
    server: SandboxServer,
    call: Call,
    number: str,
    status: int,
    error: str,
    retry_after: str | None,
) -> None:
    answer = send(call, number)
    assert status_and_error(answer) == (status, error)
    assert answer.headers.get("Retry-After") == retry_after
    assert server.state.billed(number) == 0


def test_0106_answers_500_after_billing(server: SandboxServer, call: Call) -> None:
    assert status_and_error(send(call, "+12025550106")) == (500, "INTERNAL_ERROR")
    assert server.state.billed("+12025550106") == 1


def test_0107_never_answers_after_billing(server: SandboxServer, call: Call) -> None:
    with pytest.raises(requests.ReadTimeout):
        send(call, "+12025550107", timeout=0.2)
    assert server.state.billed("+12025550107") == 1


def test_0108_answers_html_after_billing(server: SandboxServer, call: Call) -> None:
    answer = send(call, "+12025550108")
    assert (answer.status_code, answer.headers["Content-Type"], answer.text) == (
        200,
        "text/html; charset=utf-8",
        "<h1>Down for maintenance</h1>\n",
    )
    assert server.state.billed("+12025550108") == 1


def test_0109_resets_connection_after_billing(server: SandboxServer) -> None:
    with connect(server) as client:
        client.sendall(raw_send("+12025550109"))
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert server.state.billed("+12025550109") == 1


def test_0111_redirects_without_billing(server: SandboxServer, call: Call) -> None:
    answer = send(call, "+12025550111")
    assert (answer.status_code, answer.headers["Location"], answer.content) == (
        307,
        "/sandbox/redirected",
        b"",
    )
    assert server.state.billed("+12025550111") == 0
    assert server.state.redirects_followed == 0


def test_0111_bills_client_that_follows_redirect(
    server: SandboxServer, call: Call
) -> None:
    answer = send(call, "+12025550111", allow_redirects=True)
    [message] = server.state.messages
    assert status_and_body(answer) == (200, {"request_id": message.request_id})
    assert (server.state.redirects_followed, server.state.sends) == (1, 1)


def test_0112_answers_slowly_after_billing(server: SandboxServer, call: Call) -> None:
    with send(call, "+12025550112", stream=True) as answer:
        [message] = server.state.messages
        body = json.dumps({"request_id": message.request_id})
        assert answer.headers["Content-Length"] == str(len(body))
        started = time.monotonic()
        assert answer.raw.read(1) == b"{"
    assert time.monotonic() - started > 0.3


def test_0113_answers_gzip_bomb_after_billing(
    server: SandboxServer, call: Call
) -> None:
    with send(call, "+12025550113", stream=True) as answer:
        compressed = answer.raw.read(decode_content=False)
    body = gzip.decompress(compressed)
    assert answer.headers["Content-Encoding"] == "gzip"
    assert (len(compressed) < 64 * 1024, len(body) >= 50_000_000) == (True, True)
    [message] = server.state.messages
    assert body.rstrip() == b'{"request_id": "%s"}' % message.request_id.encode()


def test_0114_answers_too_short_request_id_after_billing(
    server: SandboxServer, call: Call
) -> None:
    answer = send(call, "+12025550114")
    [message] = server.state.messages
    assert status_and_body(answer) == (201, {"request_id": message.request_id[:8]})


def test_0115_sms_arrives_late(server: SandboxServer, call: Call, clock: Clock) -> None:
    assert send(call, "+12025550115").status_code == 200
    clock.move(timedelta(seconds=19))
    assert (server.state.billed("+12025550115"), server.state.messages) == (1, [])
    clock.move(timedelta(seconds=1))
    [message] = server.state.messages
    assert (message.channel, message.arrives_at) == (Channel.SMS, clock.now)


def test_late_sms_comes_above_those_that_arrived_before(
    server: SandboxServer, call: Call, clock: Clock
) -> None:
    send(call, "+12025550115")
    clock.move(timedelta(seconds=10))
    send(call)
    clock.move(timedelta(seconds=10))
    numbers = [message.phone_number for message in server.state.messages]
    assert numbers == ["+12025550115", NUMBER]


def test_0116_gets_a_call_instead_of_sms(server: SandboxServer, call: Call) -> None:
    request_id, code = send_and_read_code(call, server, "+12025550116")
    [message] = server.state.messages
    text = f"A voice reads the code: {code}."
    assert (message.channel, message.text) == (Channel.CALL, text)
    assert check(call, request_id, code) == (200, {"is_verified": True})


def send_and_read_code(
    call: Call, server: SandboxServer, number: str
) -> tuple[str, str]:
    status, body = status_and_body(send(call, number))
    assert (status, server.state.billed(number)) == (200, 1)
    return str(body["request_id"]), server.state.code_for(number)


def test_0120_uses_up_right_code_without_answering(
    server: SandboxServer, call: Call
) -> None:
    request_id, code = send_and_read_code(call, server, "+12025550120")
    assert check(call, request_id, wrong_code(code)) == (200, {"is_verified": False})
    with pytest.raises(requests.ReadTimeout):
        check(call, request_id, code, timeout=0.2)
    assert check(call, request_id, code) == (200, {"is_verified": False})
    assert server.state.checks_for(request_id) == 3


def test_0121_answers_true_as_text(server: SandboxServer, call: Call) -> None:
    request_id, code = send_and_read_code(call, server, "+12025550121")
    assert check(call, request_id, code) == (200, {"is_verified": "true"})
    assert server.state.checks_for(request_id) == 1


def test_0122_answers_429_without_checking_code(
    server: SandboxServer, call: Call
) -> None:
    request_id, code = send_and_read_code(call, server, "+12025550122")
    body = {"request_id": request_id, "received_code": code}
    assert status_and_error(call(CHECK, body)) == (429, "TOO_MANY_REQUESTS")
    assert (server.state.checks, server.state.checks_for(request_id)) == (1, 0)


def test_0123_answers_duplicate_key(server: SandboxServer, call: Call) -> None:
    request_id, code = send_and_read_code(call, server, "+12025550123")
    answer = call(CHECK, {"request_id": request_id, "received_code": code})
    assert answer.text == '{"is_verified": false, "is_verified": true}'
    assert server.state.checks_for(request_id) == 1


def test_0124_always_answers_false(server: SandboxServer, call: Call) -> None:
    request_id, code = send_and_read_code(call, server, "+12025550124")
    assert check(call, request_id, code) == (200, {"is_verified": False})
    assert server.state.checks_for(request_id) == 1


def test_0125_code_has_expired(server: SandboxServer, call: Call) -> None:
    request_id, code = send_and_read_code(call, server, "+12025550125")
    assert check(call, request_id, code) == (200, {"is_verified": False})
    assert server.state.exchanges[0].verdict is Verdict.EXPIRED
