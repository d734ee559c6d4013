"""The sandbox follows the rules that iDenfy documents for its two endpoints."""

import base64
import http.client
import json
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, timedelta

import pytest

from django_idenfy_phone.sandbox.server import SandboxServer
from django_idenfy_phone.sandbox.state import Channel, Message, SandboxState
from sandbox.steps import (
    BASIC,
    CHECK,
    SEND,
    START,
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

REQUEST_ID = re.compile("[0-9a-f]{32}")


def test_send_answers_request_id_and_bills_one_sms(
    server: SandboxServer, call: Call
) -> None:
    status, body = status_and_body(send(call))
    [message] = server.state.messages
    assert (status, body) == (200, {"request_id": message.request_id})
    assert message == Message(
        phone_number=NUMBER,
        code=message.code,
        text=f"The iDenfy code: {message.code}. Valid for 5 minutes.",
        sender_name="iDenfy",
        request_id=message.request_id,
        sent_at=START,
        arrives_at=START,
        channel=Channel.SMS,
    )
    assert REQUEST_ID.fullmatch(message.request_id)
    assert server.state.billed(NUMBER) == 1


def test_text_contains_sender_name(server: SandboxServer, call: Call) -> None:
    call(SEND, {"phone_number": NUMBER, "sender_name": "Eleven Char"})
    [message] = server.state.messages
    assert message.sender_name == "Eleven Char"
    assert message.text == (
        f"The Eleven Char code: {message.code}. Valid for 5 minutes."
    )


def test_codes_have_four_digits_and_may_begin_with_zero() -> None:
    state = SandboxState()
    codes = {state.send(NUMBER).code for _ in range(300)}
    assert all(re.fullmatch("[0-9]{4}", code) for code in codes)
    assert any(code.startswith("0") for code in codes)


def test_sent_at_is_in_utc_when_clock_is_not() -> None:
    state = SandboxState(now=lambda: START.astimezone())
    assert state.send(NUMBER).sent_at.tzinfo is UTC


def test_right_code_is_accepted_once(server: SandboxServer, call: Call) -> None:
    request_id = send(call).json()["request_id"]
    code = server.state.code_for(NUMBER)
    assert check(call, request_id, code) == (200, {"is_verified": True})
    assert check(call, request_id, code) == (200, {"is_verified": False})


def test_right_code_is_accepted_after_two_wrong_codes(
    server: SandboxServer, call: Call
) -> None:
    request_id = send(call).json()["request_id"]
    code = server.state.code_for(NUMBER)
    for _ in range(2):
        assert check(call, request_id, wrong_code(code)) == (
            200,
            {"is_verified": False},
        )
    assert check(call, request_id, code) == (200, {"is_verified": True})


def test_right_code_is_refused_after_three_wrong_codes(
    server: SandboxServer, call: Call
) -> None:
    request_id = send(call).json()["request_id"]
    code = server.state.code_for(NUMBER)
    for _ in range(3):
        check(call, request_id, wrong_code(code))
    assert check(call, request_id, code) == (200, {"is_verified": False})
    assert server.state.checks_for(request_id) == 4


@pytest.mark.parametrize(
    ("age", "verdict"),
    [(timedelta(minutes=4, seconds=59), True), (timedelta(minutes=5), False)],
)
def test_code_expires_after_five_minutes(
    server: SandboxServer, call: Call, clock: Clock, age: timedelta, verdict: bool
) -> None:
    request_id = send(call).json()["request_id"]
    clock.move(age)
    code = server.state.code_for(NUMBER)
    assert check(call, request_id, code) == (200, {"is_verified": verdict})


def test_code_is_accepted_only_for_its_own_request(
    server: SandboxServer, call: Call
) -> None:
    first, second = (send(call).json()["request_id"] for _ in range(2))
    newest, oldest = (message.code for message in server.state.messages)
    expected = newest == oldest
    assert check(call, first, newest) == (200, {"is_verified": expected})
    assert check(call, second, newest) == (200, {"is_verified": True})


def test_first_code_stays_valid_after_second_send(
    server: SandboxServer, call: Call
) -> None:
    request_id = send(call).json()["request_id"]
    code = server.state.code_for(NUMBER)
    send(call)
    assert check(call, request_id, code) == (200, {"is_verified": True})


def test_check_of_unknown_request_answers_false(
    server: SandboxServer, call: Call
) -> None:
    assert check(call, "0" * 32, "1234") == (200, {"is_verified": False})
    assert server.state.checks_for("0" * 32) == 0


def test_parallel_checks_accept_code_once(server: SandboxServer, call: Call) -> None:
    request_id = send(call).json()["request_id"]
    code = server.state.code_for(NUMBER)
    with ThreadPoolExecutor(8) as pool:
        verdicts = pool.map(lambda _: server.state.check(request_id, code), range(40))
    assert sum(verdicts) == 1


def test_parallel_sends_are_all_billed(server: SandboxServer) -> None:
    def post(_: int) -> bytes:
        with connect(server) as client:
            client.sendall(raw_send(NUMBER))
            return client.recv(12)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(post, range(50)))
    assert answers == [b"HTTP/1.1 200"] * 50
    assert (server.state.billed(NUMBER), server.state.sends) == (50, 50)


def test_messages_are_listed_newest_first(server: SandboxServer, call: Call) -> None:
    ids = [send(call).json()["request_id"] for _ in range(3)]
    assert [each.request_id for each in server.state.messages] == ids[::-1]


def test_code_for_returns_newest_code_of_number(server: SandboxServer) -> None:
    server.state.send(NUMBER)
    newest = server.state.send(NUMBER)
    server.state.send("+37069999999")
    assert server.state.code_for(NUMBER) == newest.code
    assert server.state.billed(NUMBER) == 2


def test_code_for_raises_lookup_error_without_sms(server: SandboxServer) -> None:
    with pytest.raises(LookupError) as caught:
        server.state.code_for(NUMBER)
    assert str(caught.value) == "No SMS was sent to this number."


def test_every_request_is_counted(server: SandboxServer, call: Call) -> None:
    send(call)
    send(call, auth=("key", "wrong"))
    call(SEND, {})
    call(SEND, method="GET")
    check(call, "short", "1234")
    check(call, "0" * 32, "1234", auth=("key", "wrong"))
    assert (server.state.sends, server.state.checks) == (4, 2)
    assert server.state.billed(NUMBER) == 1


def test_reset_deletes_messages_and_counts(server: SandboxServer, call: Call) -> None:
    request_id = send(call).json()["request_id"]
    check(call, request_id, "1234")
    server.state.reset()
    assert (server.state.messages, server.state.sends, server.state.checks) == (
        [],
        0,
        0,
    )
    assert server.state.checks_for(request_id) == 0


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "MISSING_VALUE"),
        ({"sender_name": "Shop"}, "MISSING_VALUE"),
        ({"phone_number": None}, "BAD_VALUE"),
        ({"phone_number": 37061234567}, "BAD_VALUE"),
        ({"phone_number": [NUMBER]}, "BAD_VALUE"),
        ({"phone_number": ""}, "BAD_VALUE"),
        ({"phone_number": "37061234567"}, "BAD_VALUE"),
        ({"phone_number": "+07061234567"}, "BAD_VALUE"),
        ({"phone_number": "+370 612 34567"}, "BAD_VALUE"),
        ({"phone_number": NUMBER + "\n"}, "BAD_VALUE"),
        ({"phone_number": "+3706123456\u0667"}, "BAD_VALUE"),
        ({"phone_number": "+1234567890123456"}, "BAD_VALUE"),
        ({"phone_number": NUMBER, "sender_name": "Twelve chars"}, "BAD_VALUE"),
        ({"phone_number": NUMBER, "sender_name": None}, "BAD_VALUE"),
        ([NUMBER], "JSON_ERROR"),
        ("text", "JSON_ERROR"),
    ],
)
def test_invalid_send_is_refused_and_not_billed(
    server: SandboxServer, call: Call, body: object, error: str
) -> None:
    assert status_and_error(call(SEND, body)) == (400, error)
    assert server.state.messages == []


@pytest.mark.parametrize(
    ("request_id", "code", "error"),
    [
        (None, "1234", "BAD_VALUE"),
        ("a" * 31, "1234", "BAD_VALUE"),
        ("a" * 41, "1234", "BAD_VALUE"),
        ("a" * 32, None, "BAD_VALUE"),
        ("a" * 32, 1234, "BAD_VALUE"),
        ("a" * 32, "123", "BAD_VALUE"),
        ("a" * 32, "12345", "BAD_VALUE"),
        ("a" * 32, "12a4", "BAD_VALUE"),
        ("a" * 32, "1234\n", "BAD_VALUE"),
        ("a" * 32, "\u0661\u0662\u0663\u0664", "BAD_VALUE"),
    ],
)
def test_invalid_check_is_refused(
    call: Call, request_id: object, code: object, error: str
) -> None:
    body = {"request_id": request_id, "received_code": code}
    assert status_and_error(call(CHECK, body)) == (400, error)


@pytest.mark.parametrize("absent", ["request_id", "received_code"])
def test_check_needs_both_values(call: Call, absent: str) -> None:
    body = {"request_id": "a" * 40, "received_code": "1234"}
    del body[absent]
    assert status_and_error(call(CHECK, body)) == (400, "MISSING_VALUE")


def test_invalid_check_is_not_counted_for_its_request(
    server: SandboxServer, call: Call
) -> None:
    request_id = send(call).json()["request_id"]
    check(call, request_id, "12345")
    assert server.state.checks_for(request_id) == 0


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "JSON_ERROR"),
        (b"phone_number=%2B37061234567", "JSON_ERROR"),
        (b"[" * 60_000, "JSON_ERROR"),
        (b'{"phone_number": ' + b"9" * 5_000 + b"}", "JSON_ERROR"),
        (b'{"phone_number": "\xff"}', "ENCODING_ERROR"),
    ],
    ids=["empty", "form", "deep", "long number", "not utf-8"],
)
def test_body_that_is_not_json_is_refused(call: Call, data: bytes, error: str) -> None:
    assert status_and_error(call(SEND, data=data)) == (400, error)


@pytest.mark.parametrize(
    "header",
    [
        "X-No: length",
        "Content-Length: 65537",
        "Content-Length: -1",
        "Content-Length: " + "9" * 5000,
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
    ],
    ids=["absent", "too long", "negative", "huge", "chunked"],
)
def test_body_without_valid_length_is_refused(
    server: SandboxServer, header: str
) -> None:
    head = f"POST {SEND} HTTP/1.1\r\nAuthorization: {BASIC}\r\n{header}\r\n\r\n"
    with connect(server) as client:
        client.sendall(head.encode())
        answer = client.makefile("rb").read()  # the server ends the connection
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'{"identifier": "JSON_ERROR", "message"' in answer


def test_body_of_64_kib_is_accepted(call: Call) -> None:
    start = b'{"phone_number": "' + NUMBER.encode() + b'"'
    data = start.ljust(64 * 1024 - 1) + b"}"
    assert call(SEND, data=data).status_code == 200


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Basic",
        "Basic !",
        "Basic \xff",
        BASIC[:-4],
        BASIC.replace("Basic", "Bearer"),
        "Basic " + base64.b64encode(b"key:wrong").decode(),
        "Basic " + base64.b64encode(b"wrong:secret").decode(),
    ],
)
def test_wrong_or_missing_key_is_refused(
    server: SandboxServer, authorization: str
) -> None:
    body = b'{"phone_number": "%s"}' % NUMBER.encode()
    headers = {"Authorization": authorization}
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, 5)) as client:
        client.request("POST", SEND, body, headers)
        answer = client.getresponse()
        assert (answer.status, json.load(answer)) == (
            401,
            {
                "identifier": "UNAUTHORIZED",
                "message": "The API key or secret is wrong or absent.",
            },
        )
    assert server.state.messages == []


@pytest.mark.parametrize("path", [SEND, CHECK, "/sandbox/redirected"])
def test_key_is_checked_before_method_and_body(call: Call, path: str) -> None:
    for method in ("GET", "POST"):
        answer = call(path, method=method, data=b"bad", auth=("key", "no"))
        assert status_and_error(answer) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize("path", [SEND, CHECK])
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_other_methods_are_refused(call: Call, path: str, method: str) -> None:
    answer = call(path, {"phone_number": NUMBER}, method=method)
    assert status_and_error(answer) == (405, "METHOD_NOT_ALLOWED")


def test_head_is_refused_with_empty_response_body(call: Call) -> None:
    answer = call(SEND, {}, method="HEAD")
    assert (answer.status_code, answer.content) == (405, b"")


@pytest.mark.parametrize(
    "path", [SEND + "/", CHECK + "/", "/fraud", "/inbox", "/favicon.ico"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unknown_path_is_not_found(call: Call, path: str, method: str) -> None:
    answer = call(path, {}, method=method)
    assert (answer.status_code, answer.text) == (404, "Not found.\n")
