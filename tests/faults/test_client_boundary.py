"""NeverSent is told exactly where no byte of the request itself was written."""

import gc
import socket
import ssl

import pytest

from django_idenfy_phone.client import IdenfyClient
from django_idenfy_phone.exceptions import NeverSent, OutcomeUnknown
from support import brokers
from support import wire as w
from support.constants import NUMBER

# ssl leaves the socket to the garbage collector where the peer has reset it already.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <ssl:ResourceWarning")
REQUEST_ID = "3d50e1584e0946e789e0185c009aaadf"
CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"
CALLS = {
    "send": lambda: IdenfyClient().send_sms(NUMBER),
    "check": lambda: IdenfyClient().verify_sms(REQUEST_ID, "0042"),
}


@pytest.fixture(scope="module", autouse=True)
def _collect_sockets():
    yield
    gc.collect()


@pytest.fixture(params=CALLS)
def call(request, settings):
    settings.IDENFY_PHONE_API_KEY = "test-key"
    settings.IDENFY_PHONE_API_SECRET = "test-secret"
    settings.IDENFY_PHONE_TIMEOUT = 0.5
    return CALLS[request.param]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """The paths of a certificate and its key, for localhost and idenfy.test."""
    return brokers.self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def trusted(certificate, monkeypatch):
    """Wrap a server's socket in TLS, with a certificate that requests trusts."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return lambda sock: context.wrap_socket(sock, server_side=True)


def point_to(port, route, settings, monkeypatch):
    """Have requests reach this port in plain text, over TLS or as a proxy."""
    if route == "plain":
        settings.IDENFY_PHONE_API_URL = f"http://127.0.0.1:{port}"
    elif route == "TLS":
        settings.IDENFY_PHONE_API_URL = f"https://localhost:{port}"
    else:
        monkeypatch.setenv("HTTPS_PROXY", f"{route}://127.0.0.1:{port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        settings.IDENFY_PHONE_API_URL = "https://idenfy.test"


def after_hello(act):
    """Let ``act`` answer once the first byte of the TLS handshake was read."""

    def run(sock):
        sock.recv(1)
        act(sock)

    return run


# The first bytes of a TLS answer of 64 bytes.
SERVER_HELLO = b"\x16\x03\x03\x00\x40\x02\x00\x00\x3c\x03\x03"
HANDSHAKES = {
    "hang up": w.hang_up,
    "reset": w.reset,
    "hang up after a byte": after_hello(w.hang_up),
    "reset after a byte": after_hello(w.reset),
    "silence": w.silence,
    "drip": after_hello(w.drip(SERVER_HELLO * 9)),
    "cut": after_hello(lambda sock: sock.sendall(SERVER_HELLO)),
    "HTTP": after_hello(lambda sock: sock.sendall(b"HTTP/1.1 400 X\r\n\r\n")),
    "early HTTP": lambda sock: (sock.sendall(b"HTTP/1.1 200 X\r\n\r\n"), sock.recv(1)),
    "alert": after_hello(lambda sock: sock.sendall(b"\x15\x03\x03\0\2\2\x28")),
}


@pytest.mark.parametrize("act", HANDSHAKES.values(), ids=HANDSHAKES)
def test_failed_handshake_raises_never_sent(call, settings, monkeypatch, act):
    with w.serve(act) as port:
        point_to(port, "TLS", settings, monkeypatch)
        with pytest.raises(NeverSent):
            call()


@pytest.mark.parametrize("route", ["TLS", "http"])
def test_refused_certificate_raises_never_sent(
    call, settings, monkeypatch, trusted, route
):
    def shake_hands(sock):
        if route == "http":
            w.read_head(sock)
            sock.sendall(CONNECTED)
        with trusted(sock) as tls:
            tls.recv(1)

    with w.serve(shake_hands) as port:
        point_to(port, route, settings, monkeypatch)
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        with pytest.raises(NeverSent):
            call()


def answered(status, act=w.hang_up):
    """Answer CONNECT, then ``act``."""

    def run(sock):
        assert w.read_head(sock).startswith(b"CONNECT idenfy.test:443 ")
        sock.sendall(f"HTTP/1.1 {status} X\r\n\r\n".encode())
        act(sock)

    return run


PROXIES = {
    "407": answered(407),
    "403": answered(403),
    "429": answered(429),
    "500": answered(500),
    "502": answered(502),
    "302": answered(302),
    "hang up": w.hang_up,
    "reset": w.reset,
    "silence": w.silence,
    "hang up after CONNECT": w.read_head,
    "reset after CONNECT": lambda sock: (w.read_head(sock), w.reset(sock)),
    "early answer": lambda sock: (
        sock.sendall(b"HTTP/1.1 502 X\r\n\r\n"),
        w.reset(sock),
    ),
    "early 200": lambda sock: (sock.sendall(CONNECTED), w.reset(sock)),
    "drip": lambda sock: (w.read_head(sock), w.drip(CONNECTED)(sock)),
    "no HTTP": lambda sock: (w.read_head(sock), sock.sendall(b"\0" * 99)),
} | {f"200, then {name}": answered(200, act) for name, act in HANDSHAKES.items()}


@pytest.mark.parametrize("act", PROXIES.values(), ids=PROXIES)
def test_proxy_that_gives_no_tunnel_raises_never_sent(call, settings, monkeypatch, act):
    with w.serve(act) as port:
        point_to(port, "http", settings, monkeypatch)
        with pytest.raises(NeverSent):
            call()


@pytest.mark.parametrize("proxy", ["socks5", "socks5h", "socks4", "bad", "http://["])
def test_proxy_that_cannot_be_used_raises_never_sent(
    call, settings, monkeypatch, proxy
):
    with w.serve(w.hang_up) as port:
        point_to(port, proxy, settings, monkeypatch)
        with pytest.raises(NeverSent):
            call()


def read_nothing(sock):
    sock.recv(1) if isinstance(sock, ssl.SSLSocket) else sock.recv(1, socket.MSG_PEEK)


READS = {
    "nothing": read_nothing,
    "a byte": lambda sock: sock.recv(1),
    "half": lambda sock: [sock.recv(1) for _ in range(180)],
    "the head": w.read_head,
    "all": w.read_request,
}
ROUTES = ["plain", "TLS", "http"]
ENDS = [w.reset, w.hang_up, w.silence]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("route", ROUTES)
def test_request_of_which_a_byte_was_written_may_have_been_done(
    call, settings, monkeypatch, trusted, route, read, end
):
    def serve(sock):
        if route == "http":
            w.read_head(sock)
            sock.sendall(CONNECTED)
        with sock if route == "plain" else trusted(sock) as stream:
            read(stream)
            end(stream)

    with w.serve(serve) as port:
        point_to(port, route, settings, monkeypatch)
        with pytest.raises(OutcomeUnknown):
            call()
