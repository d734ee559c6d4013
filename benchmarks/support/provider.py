"""A stand-in for iDenfy that answers after a set delay: the two calls' successes.

``python -m benchmarks.support.provider PORT``. ``POST /reset`` with {"delay": seconds}
sets the delay and forgets the sends; ``GET /sends`` lists when each of them came, in
seconds of a clock that only grows.
"""

import asyncio
import json
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

RIGHT_CODE = "1234"


class Provider:
    def __init__(self) -> None:
        self.delay = 0.0
        self.sends: list[float] = []

    def answer(self, path: str, body: Any) -> tuple[float, Any]:
        """The seconds to wait, and the JSON to answer then."""
        match path:
            case "/fraud/send-sms":
                self.sends.append(time.monotonic())
                return self.delay, {"request_id": uuid.uuid4().hex}
            case "/fraud/verify-sms":
                return self.delay, {"is_verified": body["received_code"] == RIGHT_CODE}
            case "/reset":
                self.delay, self.sends = body["delay"], []
        return 0, self.sends


class Connection(asyncio.Protocol):
    """HTTP/1.1, kept alive until the client closes it."""

    transport: asyncio.Transport

    def __init__(self, answer: Callable[[str, Any], tuple[float, Any]]) -> None:
        self.answer, self.data = answer, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, found, body = self.data.partition(b"\r\n\r\n")
        if not found or len(body) < content_length(head):
            return
        self.data = b""
        path = head.split(b" ", 2)[1].decode()
        delay, answer = self.answer(path, json.loads(body or b"null"))
        if delay:
            asyncio.get_running_loop().call_later(delay, self.respond, answer)
        else:
            self.respond(answer)

    def respond(self, answer: Any) -> None:
        body = json.dumps(answer).encode()
        fields = f"Content-Type: application/json\r\nContent-Length: {len(body)}"
        self.transport.write(f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode() + body)


def content_length(head: bytes) -> int:
    """The length of the body that the head of a request or a response announces."""
    found = head.lower().partition(b"\r\ncontent-length:")[2]
    return int(found.split(b"\r\n", 1)[0] or 0)


async def serve(port: int) -> None:
    provider = Provider()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(provider.answer), "127.0.0.1", port, backlog=1024
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
