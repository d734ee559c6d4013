"""The request's half and the public verbs. Each is one short story."""

import re
import uuid
from functools import partial
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from . import announce, limits, phone, tasks
from .client import IdenfyClient
from .conf import conf
from .exceptions import (
    AccountRefused,
    CheckInProgress,
    CheckUnknown,
    IdenfyError,
    InsideTransaction,
    InvalidCode,
    NeverSent,
    NotSentYet,
    ProviderUnavailable,
    RateLimited,
    VerificationError,
    VerificationExpired,
    VerificationFailed,
    VerificationLocked,
    VerificationNotFound,
)
from .models import PhoneVerification, Status

A_MOMENT = 2.0


@sensitive_variables("phone_number", "number")
def start_verification(
    phone_number: str, *, user: Any = None, purpose: str = ""
) -> PhoneVerification:
    """Store a start; the SMS leaves after the commit. Joins a caller's transaction.

    ``user`` is None or not logged in for an anonymous start. Raises
    NumberNotSupported, CooldownActive or ProviderUnavailable; then nothing is stored.
    """
    number = phone.parse(phone_number)
    if not (conf.API_KEY and conf.API_SECRET):
        raise ProviderUnavailable
    user_id = _user_id(user)
    rows = PhoneVerification.objects.primary()
    if not _in_transaction(rows.db):
        announce.failed(rows.filter(phone_number=number.e164).settle())
    with transaction.atomic(using=rows.db):
        limits.hold(number.e164)
        now = timezone.now()
        row = rows.create(
            user_id=user_id,
            is_anonymous=user_id is None,
            phone_number=number.e164,
            region=number.region,
            purpose=purpose,
            created_at=now,
            next_send_at=now,
            send_by=now + conf.SEND_DEADLINE,
        )
        transaction.on_commit(partial(tasks.hint, row.pk), using=rows.db)
    return row


def get_verification(verification_id: uuid.UUID, *, user: Any) -> PhoneVerification:
    """The caller's row as it is now. Raises VerificationNotFound."""
    rows = PhoneVerification.objects.primary().filter(pk=verification_id)
    announce.failed(rows.owned_by(_user_id(user)).settle())
    row = rows.owned_by(_user_id(user)).first()
    if row is None:
        raise VerificationNotFound
    return row


@sensitive_variables("code")
def confirm_verification(
    verification_id: uuid.UUID, code: str, *, user: Any = None
) -> PhoneVerification:
    """Have iDenfy judge a code: the row's ``is_verified`` tells what it said.

    Each call spends one of the row's checks before it asks, and gives it back only
    where iDenfy surely did not judge it. Raises InvalidCode, VerificationNotFound,
    NotSentYet, CheckInProgress, VerificationExpired, VerificationLocked,
    VerificationFailed, ProviderUnavailable, CheckUnknown, or InsideTransaction.
    """
    if not (isinstance(code, str) and re.fullmatch("[0-9]{4}", code)):
        raise InvalidCode
    rows = PhoneVerification.objects.primary()
    if _in_transaction(rows.db):
        raise InsideTransaction
    taken = rows.take_check(verification_id, _user_id(user))
    if taken is None:
        row = get_verification(verification_id, user=user)
        if row.is_verified:
            return row
        raise _why_no_check(row)
    if _judge(taken, code):
        rows.mark_verified(taken)
        announce.verified(taken.pk)
    else:
        rows.mark_wrong(taken)
    return get_verification(verification_id, user=user)


@sensitive_variables("code")
def _judge(row: PhoneVerification, code: str) -> bool:
    assert row.request_id is not None
    try:
        return IdenfyClient().verify_sms(row.request_id, code)
    except (NeverSent, RateLimited, AccountRefused) as error:
        PhoneVerification.objects.primary().refund_check(row)
        retry_after = getattr(error, "retry_after", None)
        raise ProviderUnavailable(retry_after=retry_after) from error
    except IdenfyError as error:
        raise CheckUnknown from error


def _why_no_check(row: PhoneVerification) -> VerificationError:
    match row.status:
        case Status.QUEUED | Status.SENDING:
            return NotSentYet(retry_after=A_MOMENT)
        case Status.EXPIRED:
            return VerificationExpired()
        case Status.LOCKED:
            return VerificationLocked()
        case Status.FAILED:
            return VerificationFailed()
    return CheckInProgress(retry_after=A_MOMENT)


def _user_id(user: Any) -> Any:
    """By primary key, so that users who live only in a token work."""
    return user.pk if user is not None and user.is_authenticated else None


def _in_transaction(using: str) -> bool:
    connection = transaction.get_connection(using)
    # Like atomic(durable=True): the block that TestCase wraps around a test is none.
    return (
        connection.in_atomic_block and not connection.atomic_blocks[-1]._from_testcase
    )
