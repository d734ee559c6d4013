"""How many sends a number, user, network, block and site may have.

The sends are counted in our own rows, so windows slide exactly and survive a cache
flush.
"""

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db import connections
from django.utils import timezone
from django.utils.crypto import salted_hmac

from .conf import Limit, conf
from .exceptions import CooldownActive, LimitReached, VerificationError
from .models import PhoneVerification, StartLock, primary_alias
from .starting import StartRequest
from .transitions import PhoneVerificationQuerySet

logger = logging.getLogger(__name__)

SALT = "django_idenfy_phone.limits"

# When a limit or cooldown ends, and the error to raise until then.
Refusal = tuple[datetime, type[VerificationError]]


def lock(start: StartRequest) -> None:
    """Lock number, user and network until the caller's transaction ends.

    One upsert creates and takes the locks, in sorted order so that two starts cannot
    deadlock. Lock and count are two statements on purpose: in one, the count would see
    the rows from before the wait for the lock.
    """
    keys = [_lock_key("number", start.phone_number)]
    if start.user_id is not None:
        keys.append(_lock_key("user", str(start.user_id)))
    if start.network:
        keys.append(_lock_key("network", start.network))
    now = timezone.now()
    _upsert(
        [StartLock(key=key, locked_at=now) for key in sorted(keys)],
        update_fields=["locked_at"],
    )


def clear(phone_number: str) -> None:
    """Reset the limits of an E.164 number: its earlier rows no longer count."""
    now = timezone.now()
    key = _lock_key("number", phone_number)
    _upsert(
        [StartLock(key=key, locked_at=now, cleared_at=now)],
        update_fields=["locked_at", "cleared_at"],
    )


def _lock_key(kind: str, value: str) -> str:
    """A keyed hash: locks outlive rows, and hold no number in clear."""
    return salted_hmac(f"{SALT}.{kind}", value, algorithm="sha256").hexdigest()


def _upsert(locks: list[StartLock], update_fields: list[str]) -> None:
    features = connections[primary_alias()].features
    wants_target = features.supports_update_conflicts_with_target
    StartLock.objects.bulk_create(
        locks,
        update_conflicts=True,
        update_fields=update_fields,
        unique_fields=["key"] if wants_target else None,
    )


def enforce(start: StartRequest) -> None:
    """Raise CooldownActive or LimitReached where this start has to wait.

    A start after its ``retry_after`` succeeds, unless somebody else starts in between.
    """
    now = timezone.now()
    refusals = [*_cooldowns(start, now), *_reached_limits(start, now)]
    if refusals:
        end, error = max(refusals, key=lambda refusal: refusal[0])
        raise error(retry_after=end - now)


def _rows_of_number(start: StartRequest) -> PhoneVerificationQuerySet:
    rows = PhoneVerification.objects.filter(phone_number=start.phone_number)
    lock = StartLock.objects.filter(key=_lock_key("number", start.phone_number))
    cleared_at = lock.values_list("cleared_at", flat=True).first()
    return rows.filter(created_at__gt=cleared_at) if cleared_at else rows


def _cooldowns(start: StartRequest, now: datetime) -> Iterator[Refusal]:
    last_day = _rows_of_number(start).filter(created_at__gt=now - timedelta(days=1))
    rows = list(last_day.order_by("-created_at"))
    ends = [row.resend_at for row in rows[:1]]
    sends = [row for row in rows if row.is_counted]
    if sends:
        steps = conf.RESEND_COOLDOWN
        seconds = steps[min(len(sends), len(steps)) - 1]
        ends.append(sends[0].created_at + timedelta(seconds=seconds))
    yield from ((end, CooldownActive) for end in ends if end > now)


def _reached_limits(start: StartRequest, now: datetime) -> Iterator[Refusal]:
    """A limit of n is reached until the n-th newest row of its window has left it."""
    for kind, rows in _rows_by_kind(start).items():
        for limit in conf.SEND_LIMITS[kind]:
            nth_newest = _nth_newest(rows, limit, now)
            if nth_newest is not None:
                # A person must look: it is an attack, or the host outgrew its limits.
                if kind in ("block", "site"):
                    logger.critical(
                        "The limit of a %s is reached: %s in %s.", kind, *limit
                    )
                yield nth_newest + limit.window, LimitReached


def _rows_by_kind(start: StartRequest) -> dict[str, PhoneVerificationQuerySet]:
    """The rows that each kind of limit counts, without the kinds that do not apply."""
    rows = PhoneVerification.objects.all()
    kinds = {
        "number": _rows_of_number(start),
        "block": rows.filter(number_block=start.number_block),
        "site": rows,
    }
    if start.user_id is not None:
        kinds["user"] = rows.filter(user_id=start.user_id)
    if start.network:
        kinds["network"] = rows.filter(network=start.network)
    return kinds


def _nth_newest(
    rows: PhoneVerificationQuerySet, limit: Limit, now: datetime
) -> datetime | None:
    """When the n-th newest row of the window was created; None if there are fewer."""
    newest = rows.counted().filter(created_at__gt=now - limit.window)
    times = newest.order_by("-created_at").values_list("created_at", flat=True)
    return times[limit.sends - 1 : limit.sends].first()
