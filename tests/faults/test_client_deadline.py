"""A request ends in time, and nothing of it is written once its time is over."""

import multiprocessing
import socket
import threading
import time

import pytest

from django_idenfy_phone import transport
from django_idenfy_phone.client import IdenfyClient
from django_idenfy_phone.exceptions import IdenfyError, NeverSent, OutcomeUnknown
from support import brokers
from support import wire as w
from support.constants import NUMBER

REQUEST_ID = "3d50e1584e0946e789e0185c009aaadf"
ANSWER = w.answer(200, {"request_id": REQUEST_ID, "is_verified": True})
CALLS = {
    "send": lambda: IdenfyClient().send_sms(NUMBER),
    "check": lambda: IdenfyClient().verify_sms(REQUEST_ID, "0042"),
}
send = CALLS["send"]


@pytest.fixture(params=CALLS)
def call(request):
    return CALLS[request.param]


class Resolver:
    """Answers for the host "idenfy.test", after a pause."""

    def __init__(self):
        self.real, self.lookups, self.finished = socket.getaddrinfo, 0, 0
        self.pause, self.ports = 0, []

    def __call__(self, host, *args, **kwargs):
        if host != "idenfy.test":
            return self.real(host, *args, **kwargs)
        self.lookups += 1
        time.sleep(self.pause)
        self.finished += 1
        head = socket.AF_INET, socket.SOCK_STREAM, 6, ""
        return [(*head, ("127.0.0.1", port)) for port in self.ports]


@pytest.fixture
def resolver(wire, settings, monkeypatch):
    """iDenfy is found by a name, which is slow to resolve or has dead addresses."""
    wire.will(ANSWER)
    resolver = Resolver()
    resolver.ports = [int(wire.url.rpartition(":")[2])]
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    settings.IDENFY_PHONE_API_URL = "http://idenfy.test"
    settings.IDENFY_PHONE_TIMEOUT = 0.5
    yield resolver
    brokers.wait_until(lambda: resolver.finished == resolver.lookups)


def outcome_of(call):
    """Return the type of its error, None without one, and how many seconds it took."""
    began = time.monotonic()
    error = None
    try:
        call()
    except IdenfyError as caught:
        error = type(caught)
    return error, time.monotonic() - began


def test_nothing_is_written_after_a_slow_name_resolution(wire, resolver, call):
    resolver.pause = 1
    error, seconds = outcome_of(call)
    time.sleep(1)
    assert (error, seconds < 0.8, wire.connections) == (NeverSent, True, 0)


def test_callers_of_one_host_wait_for_one_resolution(wire, resolver, at_once):
    resolver.pause = 1
    outcomes = at_once(lambda _: outcome_of(send), range(10))
    assert {error for error, _seconds in outcomes} == {NeverSent}
    assert max(seconds for _error, seconds in outcomes) < 0.9
    assert resolver.lookups == 1


def test_resolution_is_not_remembered(wire, resolver):
    send()
    send()
    assert resolver.lookups == 2


def test_failed_resolution_is_never_sent_and_not_remembered(wire, resolver):
    ports, resolver.ports = resolver.ports, []
    assert outcome_of(send)[0] is NeverSent
    resolver.ports = ports
    assert send() == REQUEST_ID


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_host_that_is_no_name_is_never_sent(wire, settings, scheme):
    settings.IDENFY_PHONE_API_URL = f"{scheme}://{'a' * 64}.test"
    assert outcome_of(send)[0] is NeverSent


@pytest.fixture
def dead_port():
    with brokers.full_backlog() as port:
        yield port


@pytest.mark.parametrize("dead", [1, 2, 4, 9])
def test_dead_addresses_leave_time_for_a_good_one(
    resolver, settings, dead_port, call, dead
):
    settings.IDENFY_PHONE_TIMEOUT = 2
    resolver.ports = [dead_port] * dead + resolver.ports
    error, seconds = outcome_of(call)
    assert (error, seconds < 2) == (None, True)


@pytest.mark.parametrize("dead", [1, 4])
def test_dead_addresses_alone_end_in_time(resolver, dead_port, call, dead):
    resolver.ports = [dead_port] * dead
    error, seconds = outcome_of(call)
    assert (error, seconds < 0.7) == (NeverSent, True)


def test_resolution_and_addresses_share_the_time(resolver, settings, dead_port):
    settings.IDENFY_PHONE_TIMEOUT = 1
    resolver.pause, resolver.ports = 0.6, [dead_port] * 4 + resolver.ports
    error, seconds = outcome_of(send)
    assert (error, seconds < 1) == (None, True)


# The first bytes of a TLS answer.
SERVER_HELLO = b"\x16\x03\x03\x00\x40\x02\x00\x00\x3c\x03\x03"
SLOW = {
    "silent handshake": w.silence,
    "dripping handshake": w.drip(SERVER_HELLO + b"\0" * 90),
}


@pytest.mark.parametrize("act", SLOW.values(), ids=SLOW)
@pytest.mark.parametrize("by_proxy", [False, True])
def test_slow_handshake_is_never_sent_in_time(
    settings, account_keys, monkeypatch, call, act, by_proxy
):
    def tunnel(sock):
        w.read_head(sock)
        sock.sendall(b"HTTP/1.1 200 X\r\n\r\n")
        act(sock)

    with w.serve(tunnel if by_proxy else act) as port:
        host = f"127.0.0.1:{port}"
        monkeypatch.setenv("HTTPS_PROXY", f"http://{host}")
        settings.IDENFY_PHONE_API_URL = f"https://{'x.test' if by_proxy else host}"
        error, seconds = outcome_of(call)
    assert (error, seconds < 0.8) == (NeverSent, True)


def test_dripping_answer_of_a_proxy_is_never_sent_in_time(
    settings, account_keys, monkeypatch, call
):
    act = w.drip(b"HTTP/1.1 200 X\r\n" + b"a: b\r\n" * 9)
    with w.serve(lambda sock: (w.read_head(sock), act(sock))) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        settings.IDENFY_PHONE_API_URL = "https://x.test"
        error, seconds = outcome_of(call)
    assert (error, seconds < 0.8) == (NeverSent, True)


@pytest.fixture
def account_keys(settings, monkeypatch):
    settings.IDENFY_PHONE_API_KEY = "test-key"
    settings.IDENFY_PHONE_API_SECRET = "test-secret"
    settings.IDENFY_PHONE_TIMEOUT = 0.5
    monkeypatch.delenv("NO_PROXY", raising=False)


def in_a_fork(call):
    """Run it in a forked process, and return its outcome."""
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    child = context.Process(target=lambda: results.put(outcome_of(call)))
    child.start()
    child.join(10)
    child.kill()
    child.join()
    assert not results.empty()
    return results.get()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_resolution_of_the_parent_is_forgotten_after_a_fork(wire, resolver):
    resolver.pause = 1
    assert outcome_of(send)[0] is NeverSent
    resolver.pause = 0
    assert in_a_fork(send)[0] is None


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_answer_is_cut_off_in_time_after_a_fork(wire, settings, call):
    settings.IDENFY_PHONE_TIMEOUT = 0.5
    wire.will(ANSWER, w.drip(b"HTTP/1.1 200 OK\r\n" * 9))
    send()
    error, seconds = in_a_fork(call)
    assert (error, seconds < 0.8) == (OutcomeUnknown, True)


def test_later_request_with_an_earlier_deadline_is_cut_off_in_time(
    wire, settings, at_once
):
    def send_within(seconds):
        time.sleep(0.2 if seconds < 1 else 0)
        settings.IDENFY_PHONE_TIMEOUT = seconds
        return outcome_of(send)

    wire.will(w.drip(b"HTTP/1.1 200 OK\r\n" * 9))
    (_, first), (error, second) = at_once(send_within, [2, 0.5])
    assert (error, second < 0.8, first > 1) == (OutcomeUnknown, True, True)


def test_many_requests_are_cut_off_in_time(wire, settings, at_once):
    settings.IDENFY_PHONE_TIMEOUT = 0.5
    wire.will(w.drip(b"HTTP/1.1 200 OK\r\n" * 9))
    outcomes = at_once(lambda _: outcome_of(send), range(20))
    assert {error for error, _seconds in outcomes} == {OutcomeUnknown}
    assert max(seconds for _error, seconds in outcomes) < 1.2
    names = [thread.name for thread in threading.enumerate()]
    assert names.count(transport.WATCHDOG_THREAD) == 1
