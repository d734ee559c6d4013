"""The inbox shows every message and request, to this machine only."""

import re
from datetime import timedelta

import pytest
import requests

from django_idenfy_phone.sandbox.scenarios import SCENARIOS
from django_idenfy_phone.sandbox.server import SandboxServer
from django_idenfy_phone.sandbox.state import KEPT_EXCHANGES
from sandbox.steps import (
    SEND,
    Call,
    check,
    rows_of,
    send,
    status_and_error,
    wrong_code,
)
from support.clock import Clock
from support.constants import NUMBER


def test_inbox_json_lists_full_messages_newest_first(
    server: SandboxServer, call: Call, clock: Clock
) -> None:
    server.state.send(NUMBER)
    clock.move(timedelta(seconds=1))
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
            "arrives_at": "2026-01-02T03:04:06+00:00",
            "channel": "SMS",
        },
        {
            "phone_number": NUMBER,
            "code": oldest.code,
            "text": f"The iDenfy code: {oldest.code}. Valid for 5 minutes.",
            "sender_name": "iDenfy",
            "request_id": oldest.request_id,
            "sent_at": "2026-01-02T03:04:05+00:00",
            "arrives_at": "2026-01-02T03:04:05+00:00",
            "channel": "SMS",
        },
    ]


def test_inbox_page_lists_messages_newest_first(
    server: SandboxServer, call: Call
) -> None:
    for _ in range(3):
        server.state.send(NUMBER)
    page = call("/", method="GET")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert re.findall("The iDenfy code: [0-9]{4}", page.text) == [
        f"The iDenfy code: {message.code}" for message in server.state.messages
    ]


def test_new_inbox_page_says_that_it_is_empty(call: Call) -> None:
    assert rows_of(call, "messages") == ["No messages yet."]
    assert rows_of(call, "requests") == ["No requests yet."]
    assert rows_of(call, "pauses") == []


def test_inbox_page_escapes_sender_name(server: SandboxServer, call: Call) -> None:
    call(SEND, {"phone_number": NUMBER, "sender_name": "<b>&\ud800$x"})
    code = server.state.code_for(NUMBER)
    text = f"The &lt;b&gt;&amp;?$x code: {code}. Valid for 5 minutes."
    assert rows_of(call, "messages") == [f"03:04:05 SMS to {NUMBER} {text}"]


def test_inbox_page_escapes_refused_number(call: Call) -> None:
    call(SEND, {"phone_number": "<b>&\ud800$x"})
    [row] = rows_of(call, "requests")
    assert row == "03:04:05 Send to &lt;b&gt;&amp;?$x 400 BAD_VALUE"


def test_inbox_page_shows_refused_requests(server: SandboxServer, call: Call) -> None:
    server.state.fail_next("INTERNAL_ERROR")
    call(SEND, {"phone_number": NUMBER})
    call(SEND, {"phone_number": NUMBER}, auth=("key", "wrong"))
    call(SEND, method="GET")
    call("/nowhere", {})
    assert rows_of(call, "requests") == [
        "03:04:05 Send to an unknown number 405 METHOD_NOT_ALLOWED",
        "03:04:05 Send to an unknown number 401 UNAUTHORIZED",
        f"03:04:05 Send to {NUMBER} 400 INTERNAL_ERROR",
    ]


def test_inbox_page_shows_how_codes_were_judged(
    server: SandboxServer, call: Call
) -> None:
    request_id = send(call).json()["request_id"]
    code = server.state.code_for(NUMBER)
    for each in (wrong_code(code), code, code):
        check(call, request_id, each)
    check(call, "?" * 32, code)
    verified = "200 {&quot;is_verified&quot;: true}"
    false = verified.replace("true", "false")
    assert rows_of(call, "requests") == [
        f"03:04:05 Check for an unknown number: unknown request_id {false}",
        f"03:04:05 Check for {NUMBER}: code already validated {false}",
        f"03:04:05 Check for {NUMBER}: right code {verified}",
        f"03:04:05 Check for {NUMBER}: wrong code {false}",
        f"03:04:05 Send to {NUMBER} 200",
    ]


def test_inbox_page_shows_request_without_answer(call: Call) -> None:
    with pytest.raises(requests.ReadTimeout):
        send(call, "+12025550107", timeout=0.2)
    assert rows_of(call, "requests") == ["03:04:05 Send to +12025550107 no answer"]


def test_inbox_keeps_newest_requests(server: SandboxServer, call: Call) -> None:
    for _ in range(KEPT_EXCHANGES):
        server.state.count_request("send")
    send(call)
    rows = rows_of(call, "requests")
    assert (len(rows), rows[0]) == (KEPT_EXCHANGES, f"03:04:05 Send to {NUMBER} 200")


def test_inbox_page_loads_nothing_external(call: Call) -> None:
    page = call("/", method="GET").text
    assert re.findall(r'(?:href|src)="([^"]*)"|//', page) == ["data:,", "/inbox.json"]


def test_inbox_page_describes_each_magic_number(call: Call) -> None:
    page = call("/", method="GET").text
    rows = re.findall("<dt>(.*?)</dt> <dd>(Send|Check): [^<]+\\.</dd>", page)
    sends = [(f"+120255501{last:02}", "Send") for last in range(1, 17)]
    checks = [(f"+120255501{last:02}", "Check") for last in range(20, 26)]
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
def test_inbox_is_served_only_for_loopback_host_names(
    server: SandboxServer, call: Call, path: str, host: str, status: int
) -> None:
    server.state.send(NUMBER)
    answer = call(path, method="GET", headers={"Host": host})
    assert answer.status_code == status
    assert (NUMBER in answer.text) == (status == 200)


@pytest.mark.parametrize("path", ["/", "/inbox.json"])
def test_inbox_refuses_post(call: Call, path: str) -> None:
    assert status_and_error(call(path, {})) == (405, "METHOD_NOT_ALLOWED")
