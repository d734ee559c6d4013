"""How many sends a number, user, network, block and site may have.

Counted over our own rows, so windows slide exactly and survive a cache flush.
"""

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import connections
from django.utils import timezone
from django.utils.crypto import salted_hmac

from .conf import Limit, conf
from .exceptions import CooldownActive, LimitReached, VerificationError
from .models import PhoneVerification, PhoneVerificationQuerySet, StartLock

logger = logging.getLogger(__name__)


class Claim(NamedTuple):
    """Who asks for a send. ``user_id`` None and ``network`` "" are not limited."""

    phone_number: str
    number_block: str
    user_id: Any
    network: str

    def __repr__(self) -> str:
        # An error report shows each frame's variables.
        return "Claim(...)"

    def lock_keys(self) -> list[str]:
        keys = [_key("number", self.phone_number)]
        if self.user_id is not None:
            keys.append(_key("user", str(self.user_id)))
        if self.network:
            keys.append(_key("network", self.network))
        return keys


def _key(kind: str, value: str) -> str:
    """A keyed hash: locks outlive rows and hold no number in clear."""
    return salted_hmac(f"{__name__}.{kind}", value, algorithm="sha256").hexdigest()


def lock(claim: Claim) -> None:
    """Hold number, user and network until the transaction ends.

    One upsert creates and takes the locks, in sorted order so that nobody waits
    crosswise. Counting is another statement on purpose: in one, the count would see
    the rows from before the wait for the lock.
    """
    now = timezone.now()
    _upsert(
        [StartLock(key=key, locked_at=now) for key in sorted(claim.lock_keys())],
        ["locked_at"],
    )


def clear(phone_number: str) -> None:
    """Let a number start afresh: its earlier rows no longer count."""
    now = timezone.now()
    row = StartLock(key=_key("number", phone_number), locked_at=now, cleared_at=now)
    _upsert([row], ["locked_at", "cleared_at"])


def _upsert(locks: list[StartLock], update_fields: list[str]) -> None:
    alias = PhoneVerification.objects.primary().db
    wants_target = connections[alias].features.supports_update_conflicts_with_target
    StartLock.objects.using(alias).bulk_create(
        locks,
        update_conflicts=True,
        update_fields=update_fields,
        unique_fields=["key"] if wants_target else None,
    )


def judge(claim: Claim) -> None:
    """Raise CooldownActive or LimitReached with a true ``retry_after``: a start after
    it succeeds, unless somebody else starts in between."""
    now = timezone.now()
    refusals = [*_cooldown(claim, now), *_limits(claim, now)]
    if refusals:
        end, error = max(refusals, key=lambda refusal: refusal[0])
        raise error(retry_after=(end - now).total_seconds())


Refusal = tuple[datetime, type[VerificationError]]


def _of_number(claim: Claim) -> PhoneVerificationQuerySet:
    rows = PhoneVerification.objects.primary().filter(phone_number=claim.phone_number)
    locks = StartLock.objects.using(rows.db)
    cleared_at = (
        locks.filter(key=_key("number", claim.phone_number))
        .values_list("cleared_at", flat=True)
        .first()
    )
    return rows.filter(created_at__gt=cleared_at) if cleared_at else rows


def _cooldown(claim: Claim, now: datetime) -> Iterator[Refusal]:
    rows = list(
        _of_number(claim)
        .filter(created_at__gt=now - timedelta(days=1))
        .order_by("-created_at")
    )
    ends = [row.resend_at for row in rows[:1]]
    sends = [row for row in rows if row.is_counted]
    if sends:
        steps = conf.RESEND_COOLDOWN
        seconds = steps[min(len(sends), len(steps)) - 1]
        ends.append(sends[0].created_at + timedelta(seconds=seconds))
    yield from ((end, CooldownActive) for end in ends if end > now)


def _limits(claim: Claim, now: datetime) -> Iterator[Refusal]:
    """The n-th newest row within a window holds a limit of n until it leaves it."""
    everything = PhoneVerification.objects.primary()
    rows = {
        "number": _of_number(claim),
        "user": everything.filter(user_id=claim.user_id),
        "network": everything.filter(network=claim.network),
        "block": everything.filter(number_block=claim.number_block),
        "site": everything,
    }
    if claim.user_id is None:
        del rows["user"]
    if not claim.network:
        del rows["network"]
    for kind, counted in rows.items():
        for limit in conf.SEND_LIMITS[kind]:
            for created_at in _nth_newest(counted, limit, now):
                _alarm(kind, limit)
                yield created_at + limit.window, LimitReached


def _nth_newest(
    rows: PhoneVerificationQuerySet, limit: Limit, now: datetime
) -> Iterator[datetime]:
    times = (
        rows.counted()
        .filter(created_at__gt=now - limit.window)
        .order_by("-created_at")
        .values_list("created_at", flat=True)
    )
    yield from times[limit.sends - 1 : limit.sends]


def _alarm(kind: str, limit: Limit) -> None:
    """A person must look: somebody attacks, or the host outgrew its limits."""
    if kind in ("block", "site"):
        logger.critical("The limit of a %s is reached: %s in %s.", kind, *limit)
