"""The load client: a process of its own, so that its CPU time is not the server's.

Reads one JSON object from standard input: ``port``, ``clients`` (how many requests
are under way at once, each on a connection that is kept), ``rate`` (how many begin
each second; null is as fast as the clients can) and ``requests`` (path, headers, body).
Prints one JSON object: ``seconds``, and ``latencies`` and ``statuses`` of each request.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from .provider import content_length

# A path, headers, and an object to post as JSON.
Post = tuple[str, dict[str, str], Any]


def raw(request: Post) -> bytes:
    path, headers, body = request
    data = json.dumps(body).encode()
    fields = {
        "Host": "localhost",
        "Accept": "application/json",
        "Content-Type": "application/json",
        "Content-Length": str(len(data)),
    } | headers
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + data


async def client(
    port: int, waiting: Iterator[tuple[float, bytes]], done: list[tuple[float, int]]
) -> None:
    """Post what waits, one after another; note latency and status of each."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for due, data in waiting:
        await asyncio.sleep(max(0, due - time.perf_counter()))
        began = time.perf_counter()
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(content_length(head))
        done.append((time.perf_counter() - began, int(head.split(b" ", 2)[1])))
    writer.close()


async def run(
    port: int, clients: int, rate: float | None, requests: list[Post]
) -> dict[str, Any]:
    done: list[tuple[float, int]] = []
    began = time.perf_counter()
    gap = 1 / rate if rate else 0
    # Shared by all clients: each takes the next.
    waiting = iter([(began + i * gap, raw(each)) for i, each in enumerate(requests)])
    await asyncio.gather(*(client(port, waiting, done) for _ in range(clients)))
    latencies, statuses = zip(*done, strict=True)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "latencies": latencies, "statuses": statuses}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(**json.load(sys.stdin)))))
