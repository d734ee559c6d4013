"""The inbox shows every SMS, as a page and as JSON, to this machine only."""

import re
from datetime import timedelta

import pytest

from django_idenfy_phone.sandbox.scenarios import SCENARIOS
from django_idenfy_phone.sandbox.server import SandboxServer
from sandbox.steps import SEND, Call, status_and_error
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


def test_empty_inbox_page_says_that_it_has_no_messages(call: Call) -> None:
    assert "<td>No messages yet.</td>" in call("/", method="GET").text


def test_inbox_page_escapes_sender_name(server: SandboxServer, call: Call) -> None:
    call(SEND, {"phone_number": NUMBER, "sender_name": "<b>&\ud800$x"})
    code = server.state.code_for(NUMBER)
    text = f"The &lt;b&gt;&amp;?$x code: {code}. Valid for 5 minutes."
    assert f"<td>{text}</td>" in call("/?again", method="GET").text


def test_inbox_page_refreshes_and_loads_nothing_external(call: Call) -> None:
    page = call("/", method="GET").text
    assert '<meta http-equiv="refresh" content="2">' in page
    assert re.findall(r'(?:href|src)="([^"]*)"|//', page) == ["data:,", "/inbox.json"]


def test_inbox_page_describes_each_magic_number(call: Call) -> None:
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
