"""A server that answers with scripted bytes, for what no honest server would send."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, Self

Act = Callable[[socket.socket], object]
KEEP_OPEN = object()


class Request(NamedTuple):
    path: str
    headers: dict[str, str]
    body: Any


def answer(status: int, body: object = b"", **headers: str) -> Act:
    """A whole answer; ``body`` is bytes, or an object to send as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Content-Length": str(len(raw)), "Connection": "close"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    data = f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + raw
    return lambda sock: sock.sendall(data)


def keep_alive(status: int, body: object) -> Act:
    act = answer(status, body, Connection="keep-alive")

    def send(sock: socket.socket) -> object:
        act(sock)
        return KEEP_OPEN

    return send


def refusal(status: int, identifier: str, **headers: str) -> Act:
    return answer(status, {"identifier": identifier, "message": "no"}, **headers)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def hang_up(sock: socket.socket) -> None:
    """Close without a word, after the request was read."""


def silence(sock: socket.socket) -> None:
    time.sleep(3)


def drip(data: bytes, pause: float = 0.1) -> Act:
    def send(sock: socket.socket) -> None:
        for byte in data:
            sock.sendall(bytes([byte]))
            time.sleep(pause)

    return send


class Wire:
    """Each request is answered by the next act; the last one stays."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.acts: list[Act] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def will(self, *acts: Act) -> None:
        self.acts = list(acts)

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
                act = self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]
                if act(sock) is not KEEP_OPEN:
                    return


def _read(line: bytes, stream: Any) -> Request:
    path = line.decode().split()[1]
    headers = {}
    while line := stream.readline().decode().strip():
        name, _colon, value = line.partition(": ")
        headers[name.lower()] = value
    body = stream.read(int(headers.get("content-length", 0)))
    return Request(path, headers, json.loads(body))
