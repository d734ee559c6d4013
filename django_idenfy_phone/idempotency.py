"""Idempotency keys: a repeated start gives the first verification for a day."""

import re
from datetime import timedelta

from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.views.decorators.debug import sensitive_variables

from .exceptions import IdempotencyKeyReused, InvalidIdempotencyKey
from .models import PhoneVerification
from .starting import StartRequest

WINDOW = timedelta(days=1)
SALT = "django_idenfy_phone.idempotency_key"


@sensitive_variables("key", "value")
def hash_key(start: StartRequest) -> str | None:
    """A keyed hash of user, purpose and key; None without a key or without a login.

    Raises InvalidIdempotencyKey for a key other than 16 to 64 visible ASCII characters.
    """
    key = start.idempotency_key
    # Without a login, a key would give one stranger the id of another.
    if key is None or start.user_id is None:
        return None
    if not re.fullmatch("[!-~]{16,64}", key):
        raise InvalidIdempotencyKey
    value = f"{start.user_id}\n{start.purpose}\n{key}"
    return salted_hmac(SALT, value, algorithm="sha256").hexdigest()


@sensitive_variables("key_hash")
def find(start: StartRequest, key_hash: str | None) -> PhoneVerification | None:
    """The row that this key started within WINDOW, None where there is none.

    Raises IdempotencyKeyReused where that row is for another number.
    """
    if key_hash is None:
        return None
    since = timezone.now() - WINDOW
    rows = PhoneVerification.objects.filter(idempotency_key=key_hash)
    row = rows.filter(created_at__gt=since).first()
    if row is not None and row.phone_number.as_e164 != start.phone_number:
        raise IdempotencyKeyReused
    return row


@sensitive_variables("key_hash")
def release(key_hash: str) -> None:
    """Free a key that was used before WINDOW, so that another row can take it."""
    rows = PhoneVerification.objects.filter(idempotency_key=key_hash)
    rows.update(idempotency_key=None)
