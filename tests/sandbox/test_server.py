"""The HTTP server starts, stops and survives clients that disconnect."""

import http.client
import socket
import threading
import time
from contextlib import closing
from datetime import timedelta

import pytest

from django_idenfy_phone.sandbox.server import SandboxServer
from django_idenfy_phone.sandbox.state import Message
from sandbox.steps import BASIC, SEND, Call, check, connect, eventually, raw_send, send
from support.clock import Clock
from support.constants import NUMBER


def test_server_listens_only_on_loopback(server: SandboxServer) -> None:
    assert server.url == f"http://127.0.0.1:{server.port}"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", server.port), timeout=1)


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


def test_on_message_is_called_for_each_sms() -> None:
    received: list[Message] = []
    with SandboxServer("key", "secret", on_message=received.append) as server:
        with connect(server) as client:
            client.sendall(raw_send(NUMBER) + raw_send("+12025550101"))
            assert client.recv(12) == b"HTTP/1.1 200"
        assert received == server.state.messages


def test_on_message_is_called_when_late_sms_arrives(
    server: SandboxServer, call: Call, clock: Clock
) -> None:
    received: list[Message] = []
    server.on_message = received.append
    send(call, "+12025550115")
    assert received == []
    clock.move(timedelta(seconds=20))
    assert eventually(lambda: received == server.state.messages != [])


def test_stopped_server_delivers_no_late_sms(
    server: SandboxServer, call: Call, clock: Clock
) -> None:
    received: list[Message] = []
    server.on_message = received.append
    send(call, "+12025550115")
    server.stop()
    assert eventually(lambda: "idenfy-late-message" not in thread_names())
    clock.move(timedelta(seconds=20))
    assert received == []


def thread_names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_start_and_stop_are_quick() -> None:
    started = time.monotonic()
    for _ in range(10):
        with SandboxServer("key", "secret"):
            pass
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("number", ["+12025550107", "+12025550112"])
def test_stop_is_quick_while_client_waits(server: SandboxServer, number: str) -> None:
    with connect(server) as client:
        client.sendall(raw_send(number))
        assert eventually(lambda: server.state.billed(number) == 1)
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 2
        client.makefile("rb").read()  # ends, since the server disconnected


def test_stopped_server_answers_no_request(server: SandboxServer) -> None:
    with connect(server) as client:
        client.sendall(raw_send("+12025550101"))
        assert client.recv(12) == b"HTTP/1.1 400"
        server.stop()
        assert client.makefile("rb").read().count(b"HTTP/1.1") == 0
    with pytest.raises(ConnectionRefusedError):
        connect(server)


def test_restarted_server_keeps_its_port_and_inbox(
    server: SandboxServer, call: Call
) -> None:
    url, request_id = server.url, send(call).json()["request_id"]
    server.stop()
    server.start()
    assert server.url == url
    code = server.state.code_for(NUMBER)
    assert check(call, request_id, code) == (200, {"is_verified": True})


def test_stop_works_without_start_and_twice(server: SandboxServer) -> None:
    SandboxServer("key", "secret").stop()
    server.stop()
    server.stop()


def test_waiting_thread_ends_when_its_client_disconnects(server: SandboxServer) -> None:
    before = set(threading.enumerate())
    with connect(server) as client:
        client.sendall(raw_send("+12025550107"))
        assert eventually(lambda: server.state.billed("+12025550107") == 1)
        [handler] = set(threading.enumerate()) - before
    handler.join(2)
    assert not handler.is_alive()


def test_clients_that_disconnect_cause_no_output(
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


def test_incomplete_request_is_not_processed(server: SandboxServer) -> None:
    cut = raw_send(NUMBER).replace(b"Content-Length: 32", b"Content-Length: 33")
    assert cut != raw_send(NUMBER)
    with connect(server) as client:
        client.sendall(cut)
        client.shutdown(socket.SHUT_WR)
        assert client.makefile("rb").read() == b""
    assert server.state.messages == []
