"""The deadline of a request holds under threads, gevent and eventlet."""

import json
import subprocess
import sys

import pytest

from support import brokers
from support import wire as w

SETUPS = {
    "threads": "",
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}
POOLS = [
    "threads",
    pytest.param("gevent", marks=pytest.mark.extra_server),
    pytest.param("eventlet", marks=pytest.mark.extra_server),
]
SCRIPT = """
import json, sys, threading, time
from django.conf import settings
settings.configure(
    IDENFY_PHONE_API_URL=sys.argv[1],
    IDENFY_PHONE_API_KEY="test-key",
    IDENFY_PHONE_API_SECRET="test-secret",
    IDENFY_PHONE_TIMEOUT=1,
)
from django_idenfy_phone.client import IdenfyClient

outcomes = []
def send():
    began = time.monotonic()
    try:
        outcome = IdenfyClient().send_sms("+37060012345")
    except Exception as error:
        outcome = type(error).__name__
    outcomes.append([outcome, time.monotonic() - began])

threads = [threading.Thread(target=send) for _ in range(5)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps(outcomes))
"""
# The first bytes of a TLS answer.
SERVER_HELLO = b"\x16\x03\x03\x00\x40\x02\x00\x00\x3c\x03\x03"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
REQUEST_ID = "3d50e1584e0946e789e0185c009aaadf"
ANSWER = w.answer(200, {"request_id": REQUEST_ID})
REQUESTS = {
    "answer": (w.read_request, ANSWER, REQUEST_ID),
    "silence": (w.read_request, w.silence, "OutcomeUnknown"),
    "header drip": (w.read_request, w.drip(HEAD * 2), "OutcomeUnknown"),
    "body drip": (w.read_request, w.drip(HEAD + b" " * 30, 0.03), "OutcomeUnknown"),
    "lost": (w.read_request, w.reset, "OutcomeUnknown"),
    "silent handshake": (bool, w.silence, "NeverSent"),
    "dripping handshake": (bool, w.drip(SERVER_HELLO + b"\0" * 20), "NeverSent"),
}


# The system's resolver takes 3 s: it is a call into C, which no pool can interrupt.
SLOW_RESOLVER = """
import _socket, time
def resolve(host, *args, real=_socket.getaddrinfo, sleep=time.sleep):
    # An address needs no resolver.
    sleep(3 if host.isalpha() else 0)
    return real(host, *args)
_socket.getaddrinfo = resolve
"""


def outcomes_in(pool, url, before="", **environment):
    script = "\n".join([before, SETUPS[pool], SCRIPT])
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, url],
        env=brokers.environment() | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("pool", POOLS)
def test_requests_end_in_time_in_each_pool(pool, name):
    if pool != "threads":
        pytest.importorskip(pool, reason=f"pip install {pool} to run this")
    read, act, expected = REQUESTS[name]
    scheme = "https" if "handshake" in name else "http"
    with w.serve(lambda sock: (read(sock), act(sock))) as port:
        outcomes = outcomes_in(pool, f"{scheme}://127.0.0.1:{port}")
    assert [outcome for outcome, _seconds in outcomes] == [expected] * 5
    assert max(seconds for _outcome, seconds in outcomes) < 1.5


@pytest.mark.parametrize("greendns", ["yes", "no"])
@pytest.mark.parametrize("pool", POOLS)
def test_slow_resolver_holds_up_no_request_in_any_pool(pool, greendns):
    if pool != "threads":
        pytest.importorskip(pool, reason=f"pip install {pool} to run this")
    environment = {"EVENTLET_NO_GREENDNS": "no" if greendns == "yes" else "yes"}
    url = "http://name"
    outcomes = outcomes_in(pool, url, before=SLOW_RESOLVER, **environment)
    assert [outcome for outcome, _seconds in outcomes] == ["NeverSent"] * 5
    assert max(seconds for _outcome, seconds in outcomes) < 1.5
