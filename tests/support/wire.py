"""A server that answers with scripted bytes, valid or not."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, Self

# Writes the answer to one request.
Responder = Callable[[socket.socket], object]
# Returned by a responder after which the connection stays open.
KEEP_OPEN = object()


class Request(NamedTuple):
    path: str
    headers: dict[str, str]
    body: Any


def answer(status: int, body: object = b"", **headers: str) -> Responder:
    """A complete response; ``body`` is bytes, or an object to send as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Content-Length": str(len(raw)), "Connection": "close"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    data = f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + raw
    return lambda sock: sock.sendall(data)


def keep_alive(status: int, body: object) -> Responder:
    respond = answer(status, body, Connection="keep-alive")

    def respond_and_keep_open(sock: socket.socket) -> object:
        respond(sock)
        return KEEP_OPEN

    return respond_and_keep_open


def refusal(status: int, identifier: str, **headers: str) -> Responder:
    """A response with iDenfy's documented error body."""
    return answer(status, {"identifier": identifier, "message": "no"}, **headers)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def hang_up(sock: socket.socket) -> None:
    """Close the connection without an answer, after the request was read."""


def silence(sock: socket.socket) -> None:
    time.sleep(3)


def drip(data: bytes, pause: float = 0.1) -> Responder:
    """Send ``data`` one byte at a time, with a pause in seconds after each byte."""

    def respond(sock: socket.socket) -> None:
        for byte in data:
            sock.sendall(bytes([byte]))
            time.sleep(pause)

    return respond


@contextmanager
def serve(handle: Callable[[socket.socket], object]) -> Iterator[int]:
    """Yield the port of a server that handles each connection in a thread."""

    def run(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            handle(sock)

    def accept() -> None:
        with suppress(OSError):
            while True:
                sock, _address = listener.accept()
                threading.Thread(target=run, args=[sock], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def read_head(sock: socket.socket) -> bytes:
    """Read a request up to the empty line, not a byte of what follows."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if not byte:
            break
        head += byte
    return head


def read_request(sock: socket.socket) -> bytes:
    head = read_head(sock)
    _before, _name, after = head.lower().partition(b"content-length: ")
    body, length = b"", int(after.split(b"\r\n")[0])
    while len(body) < length:
        body += sock.recv(length - len(body))
    return head + body


class Wire:
    """The next responder answers each request; the last one answers all the rest."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.responders: list[Responder] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def will(self, *responders: Responder) -> None:
        self.responders = list(responders)

    def _serve(self) -> None:
        while True:
            try:
                sock, _address = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._handle, args=[sock], daemon=True).start()

    def _handle(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as stream, suppress(OSError):
            self.connections += 1
            while line := stream.readline():
                self.requests.append(_read(line, stream))
                if len(self.responders) > 1:
                    respond = self.responders.pop(0)
                else:
                    respond = self.responders[0]
                if respond(sock) is not KEEP_OPEN:
                    return


def _read(line: bytes, stream: Any) -> Request:
    path = line.decode().split()[1]
    headers = {}
    while line := stream.readline().decode().strip():
        name, _colon, value = line.partition(": ")
        headers[name.lower()] = value
    body = stream.read(int(headers.get("content-length", 0)))
    return Request(path, headers, json.loads(body) if body else None)
