"""Each answer of iDenfy and each network fault raises the right error in time."""

import gzip
import json
import socket
import ssl
import threading
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from django_idenfy_phone import __version__
from django_idenfy_phone.client import IdenfyClient
from django_idenfy_phone.exceptions import (
    AccountRefused,
    IdenfyError,
    KeyRefused,
    NeverSent,
    NumberRefused,
    OutcomeUnknown,
    RateLimited,
)
from support import brokers
from support import wire as w
from support.constants import NUMBER

REQUEST_ID = "3d50e1584e0946e789e0185c009aaadf"
SENT = w.answer(200, {"request_id": REQUEST_ID})
DUPLICATE_KEY = b'{"request_id": "%s", "request_id": "%s"}' % (b"a" * 32, b"b" * 32)
HTML = b"<html>Bad gateway</html>"


def send():
    return IdenfyClient().send_sms(NUMBER)


def verify():
    return IdenfyClient().verify_sms(REQUEST_ID, "0042")


def test_send_is_the_documented_request(wire, settings):
    settings.IDENFY_PHONE_SENDER_NAME = "Acme"
    wire.will(SENT)
    assert send() == REQUEST_ID
    request = wire.requests[0]
    assert request.path == "/fraud/send-sms"
    assert request.body == {"phone_number": NUMBER, "sender_name": "Acme"}
    assert request.headers["authorization"] == "Basic dGVzdC1rZXk6dGVzdC1zZWNyZXQ="
    assert request.headers["user-agent"] == f"django-idenfy-phone/{__version__}"
    assert request.headers["accept-encoding"] == "identity"


def test_sender_name_is_sent_only_when_set(wire):
    wire.will(SENT)
    send()
    assert wire.requests[0].body == {"phone_number": NUMBER}


def test_check_is_the_documented_request(wire):
    wire.will(w.answer(200, {"is_verified": True}))
    assert verify() is True
    assert wire.requests[0].path == "/fraud/verify-sms"
    assert wire.requests[0].body == {"request_id": REQUEST_ID, "received_code": "0042"}


def test_any_2xx_with_the_documented_body_is_a_success(wire):
    wire.will(w.answer(201, {"request_id": REQUEST_ID, "more": 1}))
    assert send() == REQUEST_ID


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (w.refusal(429, "TOO_MANY_REQUESTS"), RateLimited),
        (w.refusal(400, "TOO_MANY_REQUESTS"), RateLimited),
        (w.refusal(200, "TOO_MANY_REQUESTS"), RateLimited),
        (w.answer(429, HTML), RateLimited),
        (w.refusal(401, "UNAUTHORIZED"), KeyRefused),
        (w.refusal(400, "UNAUTHORIZED"), KeyRefused),
        (w.refusal(400, "PERMISSIONS_ERROR"), AccountRefused),
        (w.refusal(400, "PARTNER_CONTRACT_ERROR"), AccountRefused),
        (w.answer(401), KeyRefused),
        (w.answer(403, HTML), AccountRefused),
        (w.answer(404, HTML), AccountRefused),
        (w.refusal(405, "METHOD_NOT_ALLOWED"), AccountRefused),
        (w.refusal(400, "BAD_VALUE"), NumberRefused),
        (w.refusal(422, "MISSING_VALUE"), NumberRefused),
        (w.refusal(404, "VALIDATION_ERROR"), NumberRefused),
        (w.refusal(200, "BAD_VALUE"), OutcomeUnknown),
        (w.refusal(500, "BAD_VALUE"), OutcomeUnknown),
        (w.refusal(400, "INTERNAL_ERROR"), OutcomeUnknown),
        (w.refusal(401, "INTERNAL_ERROR"), OutcomeUnknown),
        (w.refusal(429, "INTERNAL_ERROR"), OutcomeUnknown),
        (w.refusal(400, "JSON_ERROR"), OutcomeUnknown),
        (w.refusal(400, "NEVER_HEARD_OF"), OutcomeUnknown),
        (w.answer(400, HTML), OutcomeUnknown),
        (w.answer(409, HTML), OutcomeUnknown),
        (w.answer(500, HTML), OutcomeUnknown),
        (w.answer(502, HTML), OutcomeUnknown),
        (w.answer(503, HTML), OutcomeUnknown),
        (w.answer(504, HTML), OutcomeUnknown),
        (w.answer(200, HTML), OutcomeUnknown),
        (w.answer(200), OutcomeUnknown),
        (w.answer(200, []), OutcomeUnknown),
        (w.answer(200, None), OutcomeUnknown),
        (w.answer(200, b"{"), OutcomeUnknown),
        (w.answer(200, b"[" * 60_000), OutcomeUnknown),
        (w.answer(200, {}), OutcomeUnknown),
        (w.answer(200, {"request_id": 7}), OutcomeUnknown),
        (w.answer(200, {"request_id": "a" * 31}), OutcomeUnknown),
        (w.answer(200, {"request_id": "a" * 41}), OutcomeUnknown),
        (w.answer(200, {"request_id": "a" * 32 + "\n"}), OutcomeUnknown),
        (w.answer(400, {"request_id": REQUEST_ID}), OutcomeUnknown),
        (w.answer(200, DUPLICATE_KEY), OutcomeUnknown),
    ],
)
def test_each_answer_to_a_send_raises_its_own_error(wire, act, error):
    wire.will(act)
    with pytest.raises(IdenfyError) as caught:
        send()
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (w.refusal(429, "TOO_MANY_REQUESTS"), RateLimited),
        (w.refusal(400, "TOO_MANY_REQUESTS"), RateLimited),
        (w.refusal(401, "UNAUTHORIZED"), AccountRefused),
        (w.refusal(400, "UNAUTHORIZED"), AccountRefused),
        (w.answer(403), AccountRefused),
        (w.answer(404), OutcomeUnknown),
        (w.refusal(400, "PARTNER_CONTRACT_ERROR"), OutcomeUnknown),
        (w.refusal(400, "BAD_VALUE"), OutcomeUnknown),
        (w.answer(500), OutcomeUnknown),
        (w.answer(200, {"is_verified": "true"}), OutcomeUnknown),
        (w.answer(200, {"is_verified": 1}), OutcomeUnknown),
        (w.answer(200, {}), OutcomeUnknown),
        (w.answer(400, {"is_verified": True}), OutcomeUnknown),
        (w.answer(200, b'{"is_verified": false, "is_verified": true}'), OutcomeUnknown),
        (w.hang_up, OutcomeUnknown),
    ],
)
def test_each_answer_to_a_check_raises_its_own_error(wire, act, error):
    wire.will(act)
    with pytest.raises(IdenfyError) as caught:
        verify()
    assert type(caught.value) is error


def test_refusal_carries_its_identifier(wire):
    wire.will(w.refusal(400, "BAD_VALUE"))
    with pytest.raises(NumberRefused, match="HTTP 400 BAD_VALUE") as caught:
        send()
    assert caught.value.identifier == "BAD_VALUE"


@pytest.mark.parametrize("identifier", ["x" * 70, NUMBER, "A" * 65, ["A"], "A\nB"])
def test_identifier_that_is_not_a_constant_is_dropped(wire, identifier):
    wire.will(w.answer(400, {"identifier": identifier}))
    with pytest.raises(OutcomeUnknown) as caught:
        send()
    assert caught.value.identifier == ""


def http_date_in(seconds):
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("7", 7, 7),
        ("0", 1, 1),
        ("86400", 300, 300),
        ("9" * 400, None, None),
        (60, 55, 60),
        (-60, 1, 1),
        ("-5", None, None),
        ("soon", None, None),
        ("1.5", None, None),
        ("Mon, 01 Jan 2026 00:00:00 +99999999999999", None, None),
        ("\u0663", None, None),
    ],
)
def test_retry_after_is_clamped_or_ignored(wire, text, low, high):
    text = text if isinstance(text, str) else http_date_in(text)
    head = f"HTTP/1.1 429 X\r\nRetry-After: {text}\r\nContent-Length: 0\r\n\r\n"
    wire.will(lambda sock: sock.sendall(head.encode()))
    with pytest.raises(RateLimited) as caught:
        send()
    after = caught.value.retry_after and caught.value.retry_after.total_seconds()
    assert after == low if low is None else low <= after <= high


def test_missing_retry_after_is_none(wire):
    wire.will(w.answer(429))
    with pytest.raises(RateLimited) as caught:
        send()
    assert caught.value.retry_after is None


def test_refused_connection_raises_never_sent(wire, settings):
    settings.IDENFY_PHONE_API_URL = "http://127.0.0.1:1"
    with pytest.raises(NeverSent):
        send()
    with pytest.raises(NeverSent):
        verify()


def test_unknown_host_raises_never_sent(wire, settings):
    settings.IDENFY_PHONE_API_URL = "https://idenfy.invalid"
    with pytest.raises(NeverSent):
        send()


def test_dead_proxy_raises_never_sent(wire, settings, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    settings.IDENFY_PHONE_API_URL = "https://idenfy.invalid"
    with pytest.raises(NeverSent):
        send()


def test_full_backlog_raises_never_sent(wire, settings, full_backlog):
    settings.IDENFY_PHONE_API_URL = full_backlog
    settings.IDENFY_PHONE_TIMEOUT = 0.3
    with pytest.raises(NeverSent):
        send()


def test_refused_certificate_raises_never_sent(wire, settings, self_signed):
    settings.IDENFY_PHONE_API_URL = self_signed
    with pytest.raises(NeverSent):
        send()


@pytest.mark.parametrize("act", [w.reset, w.hang_up, w.silence])
def test_lost_answer_raises_outcome_unknown(wire, settings, act):
    settings.IDENFY_PHONE_TIMEOUT = 0.5
    wire.will(act)
    with pytest.raises(OutcomeUnknown):
        send()
    assert len(wire.requests) == 1


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n"


@pytest.mark.parametrize(
    "act",
    [
        w.drip(HEAD * 9),
        w.drip(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50),
        lambda sock: (sock.sendall(HEAD), w.drip(b"{" + b" " * 49)(sock)),
        lambda sock: sock.sendall(HEAD + b'{"request_id": "'),
    ],
    ids=["status drip", "header drip", "body drip", "cut body"],
)
def test_slow_or_cut_answer_to_a_send_ends_in_time(wire, settings, act):
    settings.IDENFY_PHONE_TIMEOUT = 0.6
    wire.will(act)
    started = time.monotonic()
    with pytest.raises(OutcomeUnknown):
        send()
    assert time.monotonic() - started < 3


def test_slow_answer_to_a_check_ends_in_time(wire, settings):
    settings.IDENFY_PHONE_TIMEOUT = 0.6
    wire.will(w.drip(HEAD))
    started = time.monotonic()
    with pytest.raises(OutcomeUnknown):
        verify()
    assert time.monotonic() - started < 3


def send_endless_body(sock):
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n{")
    for _ in range(10_000):
        sock.sendall(b" " * 65536)


@pytest.fixture
def peak_megabytes():
    """The peak of the memory that Python allocated."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1] / 10**6
    tracemalloc.stop()


def test_huge_body_is_not_read_to_its_end(wire, peak_megabytes):
    wire.will(send_endless_body)
    with pytest.raises(OutcomeUnknown, match="oversized"):
        send()
    assert peak_megabytes() < 5


ANSWER = json.dumps({"request_id": REQUEST_ID}).encode()


def test_answer_of_64_kib_is_read(wire):
    wire.will(w.answer(200, ANSWER.ljust(64 * 1024)))
    assert send() == REQUEST_ID


def test_answer_over_64_kib_is_refused(wire):
    wire.will(w.answer(200, ANSWER.ljust(64 * 1024 + 1)))
    with pytest.raises(OutcomeUnknown, match="oversized"):
        send()


def test_gzip_bomb_is_not_inflated(wire, peak_megabytes):
    bomb = gzip.compress(ANSWER.ljust(20_000_000))
    tracemalloc.reset_peak()
    wire.will(w.answer(200, bomb, Content_Encoding="gzip"))
    with pytest.raises(OutcomeUnknown):
        send()
    assert len(bomb) < 64 * 1024
    assert peak_megabytes() < 5


def test_gzip_bomb_of_the_sandbox_is_not_inflated(idenfy_sandbox):
    with pytest.raises(OutcomeUnknown):
        IdenfyClient().send_sms("+12025550113")
    assert idenfy_sandbox.state.sends == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(wire, status):
    with w.Wire() as other:
        other.will(SENT)
        wire.will(w.answer(status, Location=other.url))
        with pytest.raises(OutcomeUnknown):
            send()
        assert other.requests == []


@pytest.mark.parametrize("name", ["API_KEY", "API_SECRET"])
def test_nothing_is_sent_without_a_key_pair(wire, settings, name):
    setattr(settings, f"IDENFY_PHONE_{name}", "")
    with pytest.raises(AccountRefused, match="not set"):
        send()
    assert wire.requests == []


def test_each_send_opens_a_new_connection(wire):
    wire.will(w.keep_alive(200, {"request_id": REQUEST_ID}))
    send()
    send()
    assert wire.connections == 2


def test_checks_share_a_connection(wire):
    wire.will(w.keep_alive(200, {"is_verified": False}))
    verify()
    verify()
    assert wire.connections == 1


@pytest.fixture
def full_backlog():
    """The URL of a listener that answers no SYN."""
    with brokers.full_backlog() as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def self_signed(tmp_path):
    """The URL of a server with a certificate that nobody trusts."""
    certificate, key = brokers.self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def serve():
        try:
            sock, _address = listener.accept()
            context.wrap_socket(sock, server_side=True).close()
        except OSError:
            pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
