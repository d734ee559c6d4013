"""A check takes an idle connection only where it is surely still open."""

import time

import pytest

from django_idenfy_phone.client import IdenfyClient
from django_idenfy_phone.exceptions import OutcomeUnknown
from support import wire as w

REQUEST_ID = "3d50e1584e0946e789e0185c009aaadf"
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{"is_verified": true}'


def verify():
    return IdenfyClient().verify_sms(REQUEST_ID, "0042")


@pytest.fixture
def serve_twice(settings):
    """Answer the first request of each connection; then act as the test says."""
    settings.IDENFY_PHONE_API_KEY = "test-key"
    settings.IDENFY_PHONE_API_SECRET = "test-secret"
    settings.IDENFY_PHONE_TIMEOUT = 1
    connections = []

    def serve(act):
        def run(sock):
            connections.append(sock)
            w.read_request(sock)
            sock.sendall(ANSWER)
            act(sock)

        return w.serve(run)

    serve.connections = connections
    return serve


def test_connection_that_a_gateway_forgot_is_not_used_again(serve_twice, settings):
    with serve_twice(lambda sock: time.sleep(9)) as port:
        settings.IDENFY_PHONE_API_URL = f"http://127.0.0.1:{port}"
        assert verify() is True
        time.sleep(4.1)
        assert verify() is True
    assert len(serve_twice.connections) == 2


@pytest.mark.parametrize("act", [w.hang_up, w.reset], ids=["hang up", "reset"])
def test_connection_that_the_server_closed_is_not_used_again(
    serve_twice, settings, act
):
    with serve_twice(act) as port:
        settings.IDENFY_PHONE_API_URL = f"http://127.0.0.1:{port}"
        assert verify() is True
        time.sleep(0.2)
        assert verify() is True


READS = {
    "a byte": lambda sock: sock.recv(1),
    "half": lambda sock: [sock.recv(1) for _ in range(180)],
    "the head": w.read_head,
    "all": w.read_request,
}


@pytest.mark.parametrize("end", [w.reset, w.hang_up, w.silence])
@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_lost_check_on_a_reused_connection_stays_unknown(
    serve_twice, settings, read, end
):
    with serve_twice(lambda sock: (read(sock), end(sock))) as port:
        settings.IDENFY_PHONE_API_URL = f"http://127.0.0.1:{port}"
        assert verify() is True
        with pytest.raises(OutcomeUnknown):
            verify()
    assert len(serve_twice.connections) == 1
