"""What an answer makes the app stop for a while, for every number."""

from dataclasses import dataclass
from datetime import timedelta

# What django-idenfy-phone does, which the sandbox cannot see.
ACCOUNT_PAUSE = timedelta(seconds=60)
LONGEST_SEND_PAUSE = timedelta(seconds=30)
CHECK_PAUSE = timedelta(seconds=5)
TRIES = 5


@dataclass(frozen=True)
class Pause:
    """A stop of all sends or of all checks, for ``duration`` or, not exact, less."""

    endpoint: str
    duration: timedelta
    is_exact: bool = True
    is_repeated: bool = False

    @property
    def effect(self) -> str:
        return {
            "send": "sends nothing to any number",
            "check": "checks no code of any number",
        }[self.endpoint]

    @property
    def sentence(self) -> str:
        length = f"{self.duration.total_seconds():g} s"
        if not self.is_exact:
            length = f"up to {length}"
        if self.is_repeated:
            length += f" after each of up to {TRIES} tries"
        return f"The app then {self.effect} for {length}."


def pause_after(
    endpoint: str, status: int | None, identifier: str, retry_after: int | None
) -> Pause | None:
    """The pause that one answer causes by itself, None where it causes none."""
    wait = None if retry_after is None else timedelta(seconds=retry_after)
    is_rate_limit = identifier == "TOO_MANY_REQUESTS" or status == 429
    if endpoint == "check":
        return Pause("check", wait or CHECK_PAUSE) if is_rate_limit else None
    if is_rate_limit:
        longest = wait or LONGEST_SEND_PAUSE
        return Pause("send", longest, is_exact=wait is not None, is_repeated=True)
    if identifier == "UNAUTHORIZED" or status == 401:
        return Pause("send", ACCOUNT_PAUSE)
    return None
