"""One typed live property per ``IDENFY_PHONE_*`` setting, its default beside it."""

import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache
from typing import Any, NamedTuple, TypeVar

from django.conf import settings
from django.http import HttpRequest
from django.utils.module_loading import import_string

PREFIX = "IDENFY_PHONE_"
T = TypeVar("T")


def _get(name: str, default: T) -> T:
    value: T = getattr(settings, PREFIX + name, default)
    return value


def _get_callable(name: str) -> Callable[..., Any] | None:
    """A callable, or its dotted path, so that settings need not import it."""
    value: Any = _get(name, None)
    function: Callable[..., Any] | None
    function = import_string(value) if isinstance(value, str) else value
    return function


class Limit(NamedTuple):
    """At most ``sends`` sends in any ``window``."""

    sends: int
    window: timedelta

    @property
    def interval(self) -> timedelta:
        """The time between two sends at an even rate."""
        return self.window / self.sends


UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
DEFAULT_SEND_LIMITS: dict[str, Sequence[str]] = {
    "number": ("3/10m", "5/d", "15/30d"),
    "user": ("5/h", "10/d"),
    "network": ("20/h", "100/d"),
    "block": ("20/h",),
    "site": ("1000/h",),
}
# What the brake does.
OBSERVE, ENFORCE = "observe", "enforce"
DEFAULT_BRAKE: dict[str, Any] = {
    "sends": "50/h",
    "confirmed_below": 0.1,
    "pause": timedelta(hours=1),
    "mode": OBSERVE,
}
# 3,600 sends an hour leave 6,400 for checks: iDenfy allows an account 10,000 requests
# an hour (documentation.idenfy.com, TOO_MANY_REQUESTS).
DEFAULT_SEND_RATE: str | None = "1/s"


@cache
def parse_limit(text: str) -> Limit:
    """Read "3/10m": a count, and a window in s, m, h or d. Raises ValueError."""
    match = re.fullmatch("([1-9][0-9]{0,6})/([1-9][0-9]{0,3})?([smhd])", text)
    if match is None:
        raise ValueError("not a limit such as 3/10m")
    count, length, unit = match.groups()
    return Limit(int(count), timedelta(**{UNITS[unit]: int(length or 1)}))


@cache
def parse_limits(texts: tuple[str, ...]) -> tuple[Limit, ...]:
    """Read each of them: see ``parse_limit``."""
    return tuple(map(parse_limit, texts))


class Brake(NamedTuple):
    """When the brake of a region engages, for how long, and whether it refuses.

    It engages at ``sends`` numbers in its window of which less than the share
    ``confirmed_below`` confirmed. ``mode`` is OBSERVE or ENFORCE.
    """

    sends: Limit
    confirmed_below: float
    pause: timedelta
    mode: str


class Settings:
    """Read at each access, so ``override_settings`` works everywhere."""

    @property
    def API_KEY(self) -> str:
        """The key of iDenfy's API key pair; "" where it is not set."""
        return _get("API_KEY", "") or ""

    @property
    def API_SECRET(self) -> str:
        """The secret of iDenfy's API key pair; "" where it is not set."""
        return _get("API_SECRET", "") or ""

    @property
    def has_credentials(self) -> bool:
        """Whether both halves of the key pair are set."""
        return bool(self.API_KEY and self.API_SECRET)

    @property
    def API_URL(self) -> str:
        """Scheme and host of iDenfy's API, without a path."""
        return _get("API_URL", "https://ivs.idenfy.com")

    @property
    def SENDER_NAME(self) -> str | None:
        """Who an SMS is from, in at most 11 characters; None is iDenfy's default."""
        return _get("SENDER_NAME", None)

    @property
    def REGIONS(self) -> Sequence[str] | None:
        """ISO 3166-1 codes of the regions allowed, such as "LT"; None allows all."""
        return _get("REGIONS", None)

    @property
    def NUMBER_TYPES(self) -> Sequence[str]:
        """Names of ``phonenumbers.PhoneNumberType``, in lower case with hyphens."""
        return _get("NUMBER_TYPES", ("mobile", "fixed-line-or-mobile"))

    @property
    def CODE_LIFETIME(self) -> timedelta:
        """How long a code can be confirmed, counted from ``claimed_at``.

        10 minutes cover the two calls that iDenfy makes after the SMS
        (documentation.idenfy.com/other-fraud/PhoneVerification).
        """
        return _get("CODE_LIFETIME", timedelta(minutes=10))

    @property
    def MAX_CHECKS(self) -> int:
        """How many codes can be tried for one SMS."""
        return _get("MAX_CHECKS", 3)

    @property
    def RESEND_COOLDOWN(self) -> Sequence[int]:
        """Seconds to wait after a number's first, second, … send of the last day."""
        return _get("RESEND_COOLDOWN", (60, 120, 300))

    @property
    def SEND_LIMITS(self) -> dict[str, tuple[Limit, ...]]:
        """The limits of a number, user, network, block of numbers and site.

        A kind that the setting leaves out keeps its default; an empty one has none.
        """
        return {kind: self.limits_of(kind) for kind in DEFAULT_SEND_LIMITS}

    def limits_of(self, kind: str) -> tuple[Limit, ...]:
        """Those of SEND_LIMITS for one kind."""
        chosen: dict[str, Sequence[str]] = _get("SEND_LIMITS", {})
        return parse_limits(tuple(chosen.get(kind, DEFAULT_SEND_LIMITS[kind])))

    @property
    def SEND_RATE(self) -> Limit | None:
        """How fast all workers together send; None is as fast as they can."""
        text = _get("SEND_RATE", DEFAULT_SEND_RATE)
        return parse_limit(text) if text is not None else None

    @property
    def BRAKE(self) -> Brake | None:
        """When newcomers of a region have to wait; None is never.

        A key that the setting leaves out keeps its default.
        """
        chosen: dict[str, Any] | None = _get("BRAKE", {})
        if chosen is None:
            return None
        given = DEFAULT_BRAKE | chosen
        return Brake(**given | {"sends": parse_limit(given["sends"])})

    @property
    def REDEEM_WITHIN(self) -> timedelta:
        """How long a proof can be redeemed after it was verified."""
        return _get("REDEEM_WITHIN", timedelta(minutes=15))

    @property
    def RETENTION(self) -> timedelta:
        """How long rows are kept: at least the longest window of SEND_LIMITS."""
        return _get("RETENTION", timedelta(days=90))

    @property
    def START_GUARD(self) -> Callable[[HttpRequest, str], object] | None:
        """Called with the request and the E.164 number before anything is stored."""
        return _get_callable("START_GUARD")

    @property
    def CLIENT_NETWORK(self) -> Callable[[HttpRequest], str] | None:
        """Called with the request; returns the client's address."""
        return _get_callable("CLIENT_NETWORK")

    @property
    def SEND_DEADLINE(self) -> timedelta:
        """How long after a start its code may still be sent."""
        return _get("SEND_DEADLINE", timedelta(minutes=3))

    @property
    def DELIVERY(self) -> str:
        """Who sends: Celery's workers, told by a message, or the sweep itself."""
        return _get("DELIVERY", "celery")

    @property
    def TIMEOUT(self) -> float:
        """Seconds that one request to iDenfy may take in all, at most 12."""
        return _get("TIMEOUT", 12)

    @property
    def ALLOW_ANONYMOUS(self) -> bool:
        """Whether visitors without a login may start."""
        return _get("ALLOW_ANONYMOUS", False)

    @property
    def OWNER(self) -> str | None:
        """The model that holds proven numbers: "app.User", or "app.Profile.user".

        In the second form, "user" is its one-to-one field to the user.
        """
        return _get("OWNER", None)

    @property
    def TAKEN_NUMBER(self) -> str:
        """What a number that another account holds does: "refuse" or "move"."""
        return _get("TAKEN_NUMBER", "refuse")


conf = Settings()
