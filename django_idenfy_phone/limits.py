"""How soon a number may have its next SMS, counted over our own rows."""

from datetime import timedelta

from django.utils import timezone
from django.utils.crypto import salted_hmac

from .conf import conf
from .exceptions import CooldownActive
from .models import PhoneVerification, StartLock


def _key(kind: str, value: str) -> str:
    """A keyed hash: locks outlive rows and hold no number in clear."""
    return salted_hmac(f"{__name__}.{kind}", value, algorithm="sha256").hexdigest()


def hold(phone_number: str) -> None:
    """Take the number's lock until the transaction ends, then count.

    Raises CooldownActive. Lock and count are two statements on purpose: in one, the
    count would see the rows from before the wait for the lock.
    """
    _lock(_key("number", phone_number))
    _judge_cooldown(phone_number)


def _lock(*keys: str) -> None:
    """One upsert creates and takes the locks, sorted so that nobody waits crosswise."""
    locks = StartLock.objects.using(PhoneVerification.objects.primary().db)
    now = timezone.now()
    locks.bulk_create(
        [StartLock(key=key, locked_at=now) for key in sorted(keys)],
        update_conflicts=True,
        update_fields=["locked_at"],
        unique_fields=["key"],
    )


def _judge_cooldown(phone_number: str) -> None:
    now = timezone.now()
    rows = list(
        PhoneVerification.objects.primary()
        .filter(phone_number=phone_number, created_at__gt=now - timedelta(days=1))
        .order_by("-created_at")
    )
    ends = [row.resend_at for row in rows[:1]]
    sends = [row for row in rows if row.is_counted]
    if sends:
        steps = conf.RESEND_COOLDOWN
        seconds = steps[min(len(sends), len(steps)) - 1]
        ends.append(sends[0].created_at + timedelta(seconds=seconds))
    wait = max(ends, default=now) - now
    if wait > timedelta(0):
        raise CooldownActive(retry_after=wait.total_seconds())
