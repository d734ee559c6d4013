"""The sandbox, judged from the outside against what iDenfy documents."""

import base64
import gzip
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from django.core.management import CommandError, call_command
from pytest_django import Settings

from django_idenfy_phone.sandbox.scenarios import SCENARIOS
from django_idenfy_phone.sandbox.server import SandboxServer
from django_idenfy_phone.sandbox.state import Message, SandboxState

NUMBER = "+37061234567"
SEND = "/fraud/send-sms"
CHECK = "/fraud/verify-sms"
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
REQUEST_ID = re.compile("[0-9a-f]{32}")
BASIC = "Basic " + base64.b64encode(b"key:secret").decode()

Call = Callable[..., requests.Response]


class Clock:
    time = START

    def __call__(self) -> datetime:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock: Clock) -> Iterator[SandboxServer]:
    with SandboxServer("key", "secret", now=clock) as server:
        yield server


@pytest.fixture
def call(server: SandboxServer) -> Iterator[Call]:
    """Send one JSON request with the right key; redirects are not followed."""
    with requests.Session() as session:
        session.trust_env = False
        session.auth = ("key", "secret")
        session.max_redirects = 3

        def call(path: str, body: object = None, **how: object) -> requests.Response:
            options = {"timeout": 5, "allow_redirects": False, "json": body, **how}
            method = str(options.pop("method", "POST"))
            return session.request(method, server.url + path, **options)  # type: ignore[arg-type]

        yield call


def send(call: Call, number: str = NUMBER, **how: object) -> requests.Response:
    return call(SEND, {"phone_number": number}, **how)


def check(
    call: Call, request_id: str, code: str, **how: object
) -> tuple[int, dict[str, object]]:
    body = {"request_id": request_id, "received_code": code}
    return whole(call(CHECK, body, **how))


def whole(response: requests.Response) -> tuple[int, dict[str, object]]:
    return response.status_code, response.json()


def identifier(response: requests.Response) -> tuple[int, str]:
    """Give status and identifier of an error that has the documented body."""
    body = response.json()
    assert body == {"identifier": body["identifier"], "message": body["message"]}
    assert isinstance(body["message"], str)
    return response.status_code, body["identifier"]


def wrong(code: str) -> str:
    return "1111" if code == "0000" else "0000"


def connect(server: SandboxServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=5)


def raw_send(number: str) -> bytes:
    body = json.dumps({"phone_number": number})
    return (
        f"POST {SEND} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {BASIC}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def eventually(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not true() and time.monotonic() < deadline:
        time.sleep(0.005)
    return true()


def test_a_send_answers_a_request_id_and_bills_one_sms(
    server: SandboxServer, call: Call
) -> None:
    status, body = whole(send(call))
    [message] = server.state.messages
    assert (status, body) == (200, {"request_id": message.request_id})
    assert message == Message(
        phone_number=NUMBER,
        code=message.code,
        text=f"The iDenfy code: {message.code}. Valid for 5 minutes.",
        sender_name="iDenfy",
        request_id=message.request_id,
        sent_at=START,
    )
    assert REQUEST_ID.fullmatch(message.request_id)
    assert server.state.billed(NUMBER) == 1


def test_the_sender_name_stands_in_the_text(server: SandboxServer, call: Call) -> None:
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


def test_the_sent_time_is_in_utc_whatever_the_clock_says() -> None:
    state = SandboxState(now=lambda: START.astimezone())
    assert state.send(NUMBER).sent_at.tzinfo is UTC


def test_the_right_code_is_true_once(server: SandboxServer, call: Call) -> None:
    request_id = send(call).json()["request_id"]
    code = server.state.code_for(NUMBER)
    assert check(call, request_id, code) == (200, {"is_verified": True})
    assert check(call, request_id, code) == (200, {"is_verified": False})


def test_two_wrong_codes_leave_the_right_one_good(
    server: SandboxServer, call: Call
) -> None:
    request_id = send(call).json()["request_id"]
    code = server.state.code_for(NUMBER)
    for _ in range(2):
        assert check(call, request_id, wrong(code)) == (200, {"is_verified": False})
    assert check(call, request_id, code) == (200, {"is_verified": True})


def test_three_wrong_codes_end_the_request(server: SandboxServer, call: Call) -> None:
    request_id = send(call).json()["request_id"]
    code = server.state.code_for(NUMBER)
    for _ in range(3):
        check(call, request_id, wrong(code))
    assert check(call, request_id, code) == (200, {"is_verified": False})
    assert server.state.checks_for(request_id) == 4


@pytest.mark.parametrize(
    ("age", "verdict"),
    [(timedelta(minutes=4, seconds=59), True), (timedelta(minutes=5), False)],
)
def test_a_code_lives_five_minutes(
    server: SandboxServer, call: Call, clock: Clock, age: timedelta, verdict: bool
) -> None:
    request_id = send(call).json()["request_id"]
    clock.time += age
    code = server.state.code_for(NUMBER)
    assert check(call, request_id, code) == (200, {"is_verified": verdict})


def test_a_code_counts_for_its_own_request_only(
    server: SandboxServer, call: Call
) -> None:
    first, second = (send(call).json()["request_id"] for _ in range(2))
    newest, oldest = (message.code for message in server.state.messages)
    expected = newest == oldest
    assert check(call, first, newest) == (200, {"is_verified": expected})
    assert check(call, second, newest) == (200, {"is_verified": True})


def test_a_second_send_leaves_the_first_code_good(
    server: SandboxServer, call: Call
) -> None:
    request_id = send(call).json()["request_id"]
    code = server.state.code_for(NUMBER)
    send(call)
    assert check(call, request_id, code) == (200, {"is_verified": True})


def test_an_unknown_request_is_false(server: SandboxServer, call: Call) -> None:
    assert check(call, "0" * 32, "1234") == (200, {"is_verified": False})
    assert server.state.checks_for("0" * 32) == 0


def test_parallel_checks_validate_a_code_once(
    server: SandboxServer, call: Call
) -> None:
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


def test_messages_come_newest_first(server: SandboxServer, call: Call) -> None:
    ids = [send(call).json()["request_id"] for _ in range(3)]
    assert [each.request_id for each in server.state.messages] == ids[::-1]


def test_the_newest_code_of_the_number_is_given(server: SandboxServer) -> None:
    server.state.send(NUMBER)
    newest = server.state.send(NUMBER)
    server.state.send("+37069999999")
    assert server.state.code_for(NUMBER) == newest.code
    assert server.state.billed(NUMBER) == 2


def test_a_number_without_sms_has_no_code(server: SandboxServer) -> None:
    with pytest.raises(LookupError) as caught:
        server.state.code_for(NUMBER)
    assert str(caught.value) == "No SMS was sent to this number."


def test_every_arrival_counts(server: SandboxServer, call: Call) -> None:
    send(call)
    send(call, auth=("key", "wrong"))
    call(SEND, {})
    call(SEND, method="GET")
    check(call, "short", "1234")
    check(call, "0" * 32, "1234", auth=("key", "wrong"))
    assert (server.state.sends, server.state.checks) == (4, 2)
    assert server.state.billed(NUMBER) == 1


def test_reset_forgets_everything(server: SandboxServer, call: Call) -> None:
    request_id = send(call).json()["request_id"]
    check(call, request_id, "1234")
    server.state.reset()
    assert (server.state.messages, server.state.sends, server.state.checks) == (
        [],
        0,
        0,
    )
    assert server.state.checks_for(request_id) == 0


def test_each_sms_is_handed_to_the_listener() -> None:
    heard: list[Message] = []
    with SandboxServer("key", "secret", on_message=heard.append) as server:
        with connect(server) as client:
            client.sendall(raw_send(NUMBER) + raw_send("+12025550101"))
            assert client.recv(12) == b"HTTP/1.1 200"
        assert heard == server.state.messages


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
def test_a_send_of_the_wrong_shape_is_refused_unbilled(
    server: SandboxServer, call: Call, body: object, error: str
) -> None:
    assert identifier(call(SEND, body)) == (400, error)
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
def test_a_check_of_the_wrong_shape_is_refused(
    call: Call, request_id: object, code: object, error: str
) -> None:
    body = {"request_id": request_id, "received_code": code}
    assert identifier(call(CHECK, body)) == (400, error)


@pytest.mark.parametrize("absent", ["request_id", "received_code"])
def test_a_check_needs_both_values(call: Call, absent: str) -> None:
    body = {"request_id": "a" * 40, "received_code": "1234"}
    del body[absent]
    assert identifier(call(CHECK, body)) == (400, "MISSING_VALUE")


def test_a_check_of_the_wrong_shape_is_not_judged(
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
def test_a_body_that_is_no_json_is_refused(call: Call, data: bytes, error: str) -> None:
    assert identifier(call(SEND, data=data)) == (400, error)


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
def test_a_body_of_no_usable_length_is_refused(
    server: SandboxServer, header: str
) -> None:
    head = f"POST {SEND} HTTP/1.1\r\nAuthorization: {BASIC}\r\n{header}\r\n\r\n"
    with connect(server) as client:
        client.sendall(head.encode())
        answer = client.makefile("rb").read()  # the server ends the connection
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'{"identifier": "JSON_ERROR", "message"' in answer


def test_a_body_of_64_kib_is_read(call: Call) -> None:
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
def test_a_wrong_or_absent_key_is_refused(
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
def test_the_key_is_checked_before_method_and_body(call: Call, path: str) -> None:
    for method in ("GET", "POST"):
        answer = call(path, method=method, data=b"bad", auth=("key", "no"))
        assert identifier(answer) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize("path", [SEND, CHECK])
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_another_method_is_refused(call: Call, path: str, method: str) -> None:
    answer = call(path, {"phone_number": NUMBER}, method=method)
    assert identifier(answer) == (405, "METHOD_NOT_ALLOWED")


def test_head_is_refused_without_a_body(call: Call) -> None:
    answer = call(SEND, {}, method="HEAD")
    assert (answer.status_code, answer.content) == (405, b"")


@pytest.mark.parametrize(
    "path", [SEND + "/", CHECK + "/", "/fraud", "/inbox", "/favicon.ico"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path_is_not_found(call: Call, path: str, method: str) -> None:
    answer = call(path, {}, method=method)
    assert (answer.status_code, answer.text) == (404, "Not found.\n")


def test_one_connection_serves_many_requests(server: SandboxServer) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, 5)) as client:
        client.connect()
        first = client.sock
        statuses = []
        for body in (b"{}", b'{"phone_number": "%s"}' % NUMBER.encode(), b"bad"):
            client.request("POST", SEND, body, {"Authorization": BASIC})
            answer = client.getresponse()
            assert answer.getheader("Content-Length") == str(len(answer.read()))
            statuses.append(answer.status)
        client.request("GET", "/nowhere")
        statuses.append(client.getresponse().status)
        assert client.sock is first
    assert statuses == [400, 200, 400, 404]


def test_the_server_listens_on_loopback_alone(server: SandboxServer) -> None:
    assert server.url == f"http://127.0.0.1:{server.port}"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", server.port), timeout=1)


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
def test_a_number_that_is_refused_is_not_billed(
    server: SandboxServer,
    call: Call,
    number: str,
    status: int,
    error: str,
    retry_after: str | None,
) -> None:
    answer = send(call, number)
    assert identifier(answer) == (status, error)
    assert answer.headers.get("Retry-After") == retry_after
    assert server.state.billed(number) == 0


def test_0106_answers_500_after_billing(server: SandboxServer, call: Call) -> None:
    assert identifier(send(call, "+12025550106")) == (500, "INTERNAL_ERROR")
    assert server.state.billed("+12025550106") == 1


def test_0107_falls_silent_after_billing(server: SandboxServer, call: Call) -> None:
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


def test_0109_resets_after_billing(server: SandboxServer) -> None:
    with connect(server) as client:
        client.sendall(raw_send("+12025550109"))
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert server.state.billed("+12025550109") == 1


def test_0111_redirects_unbilled(server: SandboxServer, call: Call) -> None:
    answer = send(call, "+12025550111")
    assert (answer.status_code, answer.headers["Location"], answer.content) == (
        307,
        "/sandbox/redirected",
        b"",
    )
    assert server.state.billed("+12025550111") == 0
    assert server.state.redirects_followed == 0


def test_0111_bills_a_client_that_follows(server: SandboxServer, call: Call) -> None:
    answer = send(call, "+12025550111", allow_redirects=True)
    [message] = server.state.messages
    assert whole(answer) == (200, {"request_id": message.request_id})
    assert (server.state.redirects_followed, server.state.sends) == (1, 1)


def test_0112_drips_after_billing(server: SandboxServer, call: Call) -> None:
    with send(call, "+12025550112", stream=True) as answer:
        [message] = server.state.messages
        body = json.dumps({"request_id": message.request_id})
        assert answer.headers["Content-Length"] == str(len(body))
        started = time.monotonic()
        assert answer.raw.read(1) == b"{"
    assert time.monotonic() - started > 0.3


def test_0113_is_a_gzip_bomb_after_billing(server: SandboxServer, call: Call) -> None:
    with send(call, "+12025550113", stream=True) as answer:
        wire = answer.raw.read(decode_content=False)
    inflated = gzip.decompress(wire)
    assert answer.headers["Content-Encoding"] == "gzip"
    assert (len(wire) < 64 * 1024, len(inflated) >= 50_000_000) == (True, True)
    [message] = server.state.messages
    assert inflated.rstrip() == b'{"request_id": "%s"}' % message.request_id.encode()


def test_0114_answers_too_short_a_request_id_after_billing(
    server: SandboxServer, call: Call
) -> None:
    answer = send(call, "+12025550114")
    [message] = server.state.messages
    assert whole(answer) == (201, {"request_id": message.request_id[:8]})


def started(call: Call, server: SandboxServer, number: str) -> tuple[str, str]:
    status, body = whole(send(call, number))
    assert (status, server.state.billed(number)) == (200, 1)
    return str(body["request_id"]), server.state.code_for(number)


def test_0120_uses_the_right_code_up_in_silence(
    server: SandboxServer, call: Call
) -> None:
    request_id, code = started(call, server, "+12025550120")
    assert check(call, request_id, wrong(code)) == (200, {"is_verified": False})
    with pytest.raises(requests.ReadTimeout):
        check(call, request_id, code, timeout=0.2)
    assert check(call, request_id, code) == (200, {"is_verified": False})
    assert server.state.checks_for(request_id) == 3


def test_0121_answers_true_as_text(server: SandboxServer, call: Call) -> None:
    request_id, code = started(call, server, "+12025550121")
    assert check(call, request_id, code) == (200, {"is_verified": "true"})
    assert server.state.checks_for(request_id) == 1


def test_0122_answers_429_unjudged(server: SandboxServer, call: Call) -> None:
    request_id, code = started(call, server, "+12025550122")
    body = {"request_id": request_id, "received_code": code}
    assert identifier(call(CHECK, body)) == (429, "TOO_MANY_REQUESTS")
    assert (server.state.checks, server.state.checks_for(request_id)) == (1, 0)


def test_0123_answers_a_key_twice(server: SandboxServer, call: Call) -> None:
    request_id, code = started(call, server, "+12025550123")
    answer = call(CHECK, {"request_id": request_id, "received_code": code})
    assert answer.text == '{"is_verified": false, "is_verified": true}'
    assert server.state.checks_for(request_id) == 1


def test_0124_is_always_false(server: SandboxServer, call: Call) -> None:
    request_id, code = started(call, server, "+12025550124")
    assert check(call, request_id, code) == (200, {"is_verified": False})
    assert server.state.checks_for(request_id) == 1


def test_the_json_inbox_lists_whole_messages_newest_first(
    server: SandboxServer, call: Call, clock: Clock
) -> None:
    server.state.send(NUMBER)
    clock.time += timedelta(seconds=1)
    server.state.send(NUMBER, "Shop")
    newest, oldest = server.state.messages
    assert call("/inbox.json", method="GET").json() == [
        {
            "phone_number": NUMBER,
            "code": newest.code,
            "text": f"The Shop code: {newest.code}. Valid for 5 minutes.",
            "sender_name": "Shop",
            "request_id": newest.request_id,
            "sent_at": "2026-01-02T03:04:06+00:00",
        },
        {
            "phone_number": NUMBER,
            "code": oldest.code,
            "text": f"The iDenfy code: {oldest.code}. Valid for 5 minutes.",
            "sender_name": "iDenfy",
            "request_id": oldest.request_id,
            "sent_at": "2026-01-02T03:04:05+00:00",
        },
    ]


def test_the_inbox_page_lists_messages_newest_first(
    server: SandboxServer, call: Call
) -> None:
    for _ in range(3):
        server.state.send(NUMBER)
    page = call("/", method="GET")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert re.findall("The iDenfy code: [0-9]{4}", page.text) == [
        f"The iDenfy code: {each.code}" for each in server.state.messages
    ]


def test_an_empty_inbox_page_says_so(call: Call) -> None:
    assert "<td>No messages yet.</td>" in call("/", method="GET").text


def test_the_inbox_page_escapes_what_a_client_sent(
    server: SandboxServer, call: Call
) -> None:
    call(SEND, {"phone_number": NUMBER, "sender_name": "<b>&\ud800$x"})
    code = server.state.code_for(NUMBER)
    text = f"The &lt;b&gt;&amp;?$x code: {code}. Valid for 5 minutes."
    assert f"<td>{text}</td>" in call("/?again", method="GET").text


def test_the_inbox_page_refreshes_and_loads_nothing_from_elsewhere(call: Call) -> None:
    page = call("/", method="GET").text
    assert '<meta http-equiv="refresh" content="2">' in page
    assert re.findall(r'(?:href|src)="([^"]*)"|//', page) == ["data:,", "/inbox.json"]


def test_the_inbox_page_explains_each_magic_number(call: Call) -> None:
    page = call("/", method="GET").text
    rows = re.findall(r"<td>(\+1202555\d{4})</td><td>(Send|Check): [^<]+\.</td>", page)
    sends = [(f"+120255501{last:02}", "Send") for last in range(1, 15)]
    checks = [(f"+120255501{last:02}", "Check") for last in range(20, 25)]
    assert rows == sends + checks
    assert list(SCENARIOS) == [number for number, _ in rows]


@pytest.mark.parametrize("path", ["/", "/inbox.json"])
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("LOCALHOST:8765", 200),
        ("[::1]:8765", 200),
        ("attacker.example", 403),
        ("attacker.example:8765", 403),
        ("127.0.0.1.attacker.example", 403),
        ("localhost@attacker.example", 403),
        ("", 403),
    ],
)
def test_the_inbox_is_for_loopback_names_alone(
    server: SandboxServer, call: Call, path: str, host: str, status: int
) -> None:
    server.state.send(NUMBER)
    answer = call(path, method="GET", headers={"Host": host})
    assert answer.status_code == status
    assert (NUMBER in answer.text) == (status == 200)


@pytest.mark.parametrize("path", ["/", "/inbox.json"])
def test_the_inbox_is_only_read(call: Call, path: str) -> None:
    assert identifier(call(path, {})) == (405, "METHOD_NOT_ALLOWED")


def test_starting_and_stopping_is_quick() -> None:
    started = time.monotonic()
    for _ in range(10):
        with SandboxServer("key", "secret"):
            pass
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("number", ["+12025550107", "+12025550112"])
def test_stop_is_quick_while_a_client_waits(server: SandboxServer, number: str) -> None:
    with connect(server) as client:
        client.sendall(raw_send(number))
        assert eventually(lambda: server.state.billed(number) == 1)
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 2
        client.makefile("rb").read()  # ends: the server hung up


def test_a_stopped_server_answers_nobody(server: SandboxServer) -> None:
    with connect(server) as client:
        client.sendall(raw_send("+12025550101"))
        assert client.recv(12) == b"HTTP/1.1 400"
        server.stop()
        assert client.makefile("rb").read().count(b"HTTP/1.1") == 0
    with pytest.raises(ConnectionRefusedError):
        connect(server)


def test_a_stopped_server_comes_back_with_its_port_and_inbox(
    server: SandboxServer, call: Call
) -> None:
    url, request_id = server.url, send(call).json()["request_id"]
    server.stop()
    server.start()
    assert server.url == url
    code = server.state.code_for(NUMBER)
    assert check(call, request_id, code) == (200, {"is_verified": True})


def test_stop_may_be_called_without_start_and_twice(server: SandboxServer) -> None:
    SandboxServer("key", "secret").stop()
    server.stop()
    server.stop()


def test_a_silent_handler_ends_when_its_client_leaves(server: SandboxServer) -> None:
    before = set(threading.enumerate())
    with connect(server) as client:
        client.sendall(raw_send("+12025550107"))
        assert eventually(lambda: server.state.billed("+12025550107") == 1)
        [handler] = set(threading.enumerate()) - before
    handler.join(2)
    assert not handler.is_alive()


def test_clients_that_hang_up_leave_no_word_on_the_terminal(
    server: SandboxServer, capfd: pytest.CaptureFixture[str]
) -> None:
    before = set(threading.enumerate())
    whole_request = raw_send("+12025550112")
    for data in (b"", b"POST", whole_request[:-5], whole_request, b"nonsense\r\n\r\n"):
        with connect(server) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.sendall(data)
            time.sleep(0.02)
    server.stop()
    assert eventually(lambda: before.issuperset(threading.enumerate()))
    assert capfd.readouterr() == ("", "")


def test_a_request_cut_short_is_not_carried_out(server: SandboxServer) -> None:
    cut = raw_send(NUMBER).replace(b"Content-Length: 32", b"Content-Length: 33")
    assert cut != raw_send(NUMBER)
    with connect(server) as client:
        client.sendall(cut)
        client.shutdown(socket.SHUT_WR)
        assert client.makefile("rb").read() == b""
    assert server.state.messages == []


@pytest.fixture
def command() -> Iterator[subprocess.Popen[str]]:
    tests = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH")]))
    settings = {"DJANGO_SETTINGS_MODULE": "hosts.project.settings", "PYTHONPATH": path}
    with subprocess.Popen(
        [sys.executable, "-m", "django", "idenfy_phone_sandbox", "--port", "0"],
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def test_the_command_prints_each_sms_until_it_is_told_to_end(
    command: subprocess.Popen[str],
) -> None:
    assert command.stdout
    lines = [command.stdout.readline() for _ in range(4)]
    url = lines[1].removeprefix("Sandbox: ").strip()
    body = {"phone_number": NUMBER, "sender_name": "Two\nlines"}
    auth = ("demo-key", "demo-secret")
    assert requests.post(url + SEND, json=body, auth=auth, timeout=5).ok
    [message] = requests.get(url + "/inbox.json", timeout=5).json()
    command.send_signal(signal.SIGTERM)
    rest, errors = command.communicate(timeout=30)
    assert (command.returncode, errors) == (0, "")
    assert "".join(lines) + rest == (
        'Using the API key "demo-key" and the secret "demo-secret". To use your own, '
        "set IDENFY_PHONE_API_KEY and IDENFY_PHONE_API_SECRET.\n"
        f"Sandbox: {url}\n"
        f"Inbox: {url}/\n"
        "Press Ctrl-C to stop.\n"
        f"SMS to {NUMBER}: The Two?lines code: {message['code']}. "
        "Valid for 5 minutes.\n"
    )


@pytest.mark.parametrize("port", [None, 65536])
def test_the_command_says_when_it_cannot_have_its_port(
    server: SandboxServer, settings: Settings, port: int | None
) -> None:
    settings.IDENFY_PHONE_API_KEY = settings.IDENFY_PHONE_API_SECRET = "own"
    port = port or server.port
    out = io.StringIO()
    with pytest.raises(CommandError) as caught:
        call_command("idenfy_phone_sandbox", port=port, stdout=out)
    assert out.getvalue() == ""
    assert str(caught.value) == (
        f"Cannot listen on port {port}: it is in use or not allowed. "
        "Choose another with --port."
    )
