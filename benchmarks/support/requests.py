"""The requests of the load: each with a number, block, user and network of its own."""

from .database import CALLERS
from .load import Post


def caller(i: int) -> dict[str, str]:
    return {
        "X-User": str(i % CALLERS + 1),
        "X-Forwarded-For": f"11.0.{i // 256}.{i % 256}",
    }


def starts(
    count: int,
    path: str = "/phone/start/",
    first: int = 0,
    headers: dict[str, str] | None = None,
) -> list[Post]:
    """Those from ``first`` on, of 20,000: a block of numbers may have 20 an hour."""
    return [
        (
            path,
            caller(i) | (headers or {}),
            {"phone_number": f"+3706{i % 1000:03}{i // 1000:04}"},
        )
        for i in range(first, first + count)
    ]
