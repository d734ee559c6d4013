"""Idempotency keys: a repeated start gives the first verification for a day."""

import re
from datetime import timedelta

from django.utils import timezone

from .edge import hide_values
from .exceptions import IdempotencyKeyReused, InvalidIdempotencyKey
from .hashing import keyed_hashes
from .models import PhoneVerification
from .starting import StartRequest

WINDOW = timedelta(days=1)
SALT = "django_idenfy_phone.idempotency_key"


def hash_key(start: StartRequest) -> list[str]:
    """Keyed hashes of user, purpose and key; none without a key or without a login.

    Raises InvalidIdempotencyKey for a key other than 16 to 64 visible ASCII characters.
    """
    key = start.idempotency_key
    # Without a login, a key would give one stranger the id of another.
    if key is None or start.user_id is None:
        return []
    if not re.fullmatch("[!-~]{16,64}", key):
        raise InvalidIdempotencyKey
    return keyed_hashes(SALT, f"{start.user_id}\n{start.purpose}\n{key}")


@hide_values
def find(start: StartRequest) -> PhoneVerification | None:
    """The row that this key started within WINDOW, None where there is none.

    Raises InvalidIdempotencyKey; IdempotencyKeyReused where that row is for another
    number.
    """
    key_hashes = hash_key(start)
    if not key_hashes:
        return None
    since = timezone.now() - WINDOW
    rows = PhoneVerification.objects.filter(idempotency_key__in=key_hashes)
    row = rows.filter(created_at__gt=since).order_by("-created_at").first()
    if row is not None:
        if row.phone_number.as_e164 != start.phone_number:
            raise IdempotencyKeyReused
        row.is_repeated = True
    return row


def release(key_hashes: list[str]) -> None:
    """Free a key that was used before WINDOW, so that another row can take it."""
    rows = PhoneVerification.objects.filter(idempotency_key__in=key_hashes)
    used_before = timezone.now() - WINDOW
    rows.filter(created_at__lte=used_before).update(idempotency_key=None)
