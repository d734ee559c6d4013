"""A SOCKS proxy carries requests within the same deadline."""

import socket
import threading
import time
from contextlib import contextmanager, suppress
from importlib.util import find_spec

import pytest

from django_idenfy_phone.client import IdenfyClient
from django_idenfy_phone.exceptions import NeverSent, OutcomeUnknown
from support import wire as w
from support.constants import NUMBER

REQUEST_ID = "3d50e1584e0946e789e0185c009aaadf"
CONNECTED, REFUSED = b"\5\0\0\1" + bytes(6), b"\5\5\0\1" + bytes(6)


def copy(source, target):
    with suppress(OSError):
        while data := source.recv(4096):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def relay(sock, url):
    with socket.create_connection(("127.0.0.1", int(url.split(":")[-1]))) as server:
        threading.Thread(target=copy, args=(sock, server), daemon=True).start()
        copy(server, sock)


@pytest.fixture
def socks(wire, settings, monkeypatch):
    """A SOCKS 5 proxy of the environment, whose names all lead to the wire."""

    @contextmanager
    def socks(answer, pause=0.0):
        def handle(sock):
            _version, methods = sock.recv(2)
            sock.recv(methods)
            sock.sendall(b"\5\0")
            names.append(sock.recv(sock.recv(5)[-1] + 2)[:-2])
            w.drip(answer, pause)(sock)
            if answer == CONNECTED:
                relay(sock, wire.url)

        names = []
        with w.serve(handle) as port:
            monkeypatch.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{port}")
            yield names

    for name in ("HTTP_PROXY", "http_proxy", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    settings.IDENFY_PHONE_API_URL = "http://idenfy.invalid"
    settings.IDENFY_PHONE_TIMEOUT = 1
    return socks


def send():
    return IdenfyClient().send_sms(NUMBER)


@pytest.fixture
def _library():
    pytest.importorskip("socks", reason="pip install pysocks to run this")


@pytest.mark.usefixtures("_library")
def test_socks_proxy_resolves_the_name_and_carries_the_request(wire, socks):
    wire.will(w.answer(200, {"request_id": REQUEST_ID}))
    with socks(CONNECTED) as names:
        assert send() == REQUEST_ID
    assert (names, len(wire.requests)) == ([b"idenfy.invalid"], 1)


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize(("answer", "pause"), [(REFUSED, 0), (CONNECTED, 0.3)])
def test_nothing_is_sent_where_the_handshake_fails_or_is_late(
    wire, socks, answer, pause
):
    began = time.monotonic()
    with socks(answer, pause), pytest.raises(NeverSent):
        send()
    assert time.monotonic() - began < 1.5
    assert wire.requests == []


@pytest.mark.usefixtures("_library")
def test_silence_behind_a_socks_proxy_ends_in_time(wire, socks):
    wire.will(w.silence)
    began = time.monotonic()
    with socks(CONNECTED), pytest.raises(OutcomeUnknown):
        send()
    assert time.monotonic() - began < 1.5


def test_nothing_is_sent_without_the_library(wire, socks):
    if find_spec("socks"):
        pytest.skip("pip uninstall pysocks to run this")
    with socks(CONNECTED) as names, pytest.raises(NeverSent):
        send()
    assert (names, wire.requests) == ([], [])
