"""The request's half and the public verbs. Each is one short story."""

import logging
import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.views.decorators.debug import sensitive_variables

from . import announce, limits, phone, tasks, transactions
from .client import IdenfyClient
from .conf import conf
from .exceptions import (
    AccountRefused,
    AlreadyRedeemed,
    CheckInProgress,
    CheckUnknown,
    IdempotencyKeyReused,
    IdenfyError,
    InsideTransaction,
    InvalidCode,
    InvalidIdempotencyKey,
    NeverSent,
    NotSentYet,
    NotVerified,
    ProviderUnavailable,
    RateLimited,
    UnknownUser,
    VerificationError,
    VerificationExpired,
    VerificationFailed,
    VerificationLocked,
    VerificationNotFound,
)
from .models import PhoneVerification, ProviderGate, Status

logger = logging.getLogger(__name__)
T = TypeVar("T")

A_MOMENT = 2.0
CHECK_PAUSE = 5.0
CLOCK_TOLERANCE = timedelta(minutes=10)
IDEMPOTENCY_WINDOW = timedelta(days=1)


@sensitive_variables("phone_number", "idempotency_key", "number", "row", "key")
def start_verification(
    phone_number: str,
    *,
    user: Any = None,
    network: str = "",
    purpose: str = "",
    idempotency_key: str | None = None,
) -> PhoneVerification:
    """Store a start; the SMS leaves after the commit. Joins a caller's transaction.

    ``user`` is None or not logged in for an anonymous start. ``network`` is an IPv4
    address, an IPv6 /64 or "". With ``idempotency_key`` (16 to 64 visible ASCII
    characters; ignored without a login) a repetition within a day returns the first
    row. Raises NumberNotSupported, CooldownActive, LimitReached, ProviderUnavailable,
    InvalidIdempotencyKey or IdempotencyKeyReused; then nothing is stored.
    """
    row, _is_new = start_or_repeat(
        phone_number,
        user=user,
        network=network,
        purpose=purpose,
        idempotency_key=idempotency_key,
    )
    return row


@sensitive_variables("phone_number", "idempotency_key", "number", "row", "key")
def start_or_repeat(
    phone_number: str,
    *,
    user: Any,
    network: str,
    purpose: str,
    idempotency_key: str | None,
) -> tuple[PhoneVerification, bool]:
    """``start_verification``, and whether the row is a new one."""
    number = phone.parse(phone_number)
    if not (conf.API_KEY and conf.API_SECRET):
        raise ProviderUnavailable
    user_id = _user_id(user)
    key = _hash_key(idempotency_key, user_id, purpose)
    rows = PhoneVerification.objects.primary()
    if not transactions.is_open(rows.db):
        announce.failed(rows.filter(phone_number=number.e164).settle())
    row = PhoneVerification(
        user_id=user_id,
        is_anonymous=user_id is None,
        phone_number=number.e164,
        region=number.region,
        number_block=number.e164[:-4],
        network=network,
        purpose=purpose,
        idempotency_key=key,
    )
    try:
        return transactions.retried(partial(_store, row), rows.db)
    except IntegrityError:
        # A token may outlive its user. Not chained: the text holds values.
        raise UnknownUser from None


@sensitive_variables("claim")
def _store(row: PhoneVerification) -> tuple[PhoneVerification, bool]:
    """T0: locks, then limits, then the row."""
    rows = PhoneVerification.objects.primary()
    claim = limits.Claim(
        row.phone_number.as_e164, row.number_block, row.user_id, row.network
    )
    with transaction.atomic(using=rows.db):
        limits.lock(claim)
        if repeated := _repeated(row.idempotency_key, claim.phone_number):
            return repeated, False
        _refuse_what_comes_too_late()
        limits.judge(claim)
        row.created_at = timezone.now()
        # A worker's clock may be behind: a new row is due on every host.
        row.next_send_at = row.created_at - CLOCK_TOLERANCE
        row.send_by = row.created_at + conf.SEND_DEADLINE
        if row.idempotency_key:
            # After a day the key is free again.
            rows.filter(idempotency_key=row.idempotency_key).update(
                idempotency_key=None
            )
        row.save(using=rows.db, force_insert=True)
        transaction.on_commit(partial(tasks.hint, row.pk), using=rows.db)
    return row, True


def _refuse_what_comes_too_late() -> None:
    wait = ProviderGate.look().unavailable_for(timezone.now())
    if wait is not None:
        raise ProviderUnavailable(retry_after=wait)


@sensitive_variables("phone_number", "idempotency_key", "key")
def find_repeated_start(
    phone_number: str, *, user: Any, purpose: str, idempotency_key: str | None
) -> PhoneVerification | None:
    """The row that this key started within a day, if any.

    For a look before a guard that cannot be asked twice, such as a captcha.
    """
    key = _hash_key(idempotency_key, _user_id(user), purpose)
    return _repeated(key, phone.parse(phone_number).e164)


@sensitive_variables("text", "value")
def _hash_key(text: str | None, user_id: Any, purpose: str) -> str | None:
    # Without a login a key would hand one stranger another's id.
    if text is None or user_id is None:
        return None
    if not re.fullmatch("[!-~]{16,64}", text):
        raise InvalidIdempotencyKey
    value = f"{user_id}\n{purpose}\n{text}"
    return salted_hmac(f"{__name__}.key", value, algorithm="sha256").hexdigest()


@sensitive_variables("phone_number", "key")
def _repeated(key: str | None, phone_number: str) -> PhoneVerification | None:
    if key is None:
        return None
    since = timezone.now() - IDEMPOTENCY_WINDOW
    rows = PhoneVerification.objects.primary()
    row = rows.filter(idempotency_key=key, created_at__gt=since).first()
    if row is not None and row.phone_number.as_e164 != phone_number:
        raise IdempotencyKeyReused
    return row


def get_verification(verification_id: uuid.UUID, *, user: Any) -> PhoneVerification:
    """The caller's row as it is now. Raises VerificationNotFound.

    Inside a transaction a late row is not settled first.
    """
    rows = PhoneVerification.objects.primary().filter(pk=verification_id)
    if not transactions.is_open(rows.db):
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
    if transactions.is_open(rows.db):
        raise InsideTransaction
    pause = _pause_of_checks()
    taken = None if pause else rows.take_check(verification_id, _user_id(user))
    if taken is None:
        row = get_verification(verification_id, user=user)
        if row.is_verified:
            return row
        raise _why_no_check(row, pause)
    is_verified = _judge(taken, code)
    mark = rows.mark_verified if is_verified else rows.mark_wrong
    _persist(partial(mark, taken))
    if is_verified:
        announce.verified(taken.pk)
    return _persist(partial(get_verification, verification_id, user=user))


def _persist(work: Callable[[], T]) -> T:
    """After a check, which stays spent where the database stays away."""
    try:
        return transactions.persisted(work, PhoneVerification.objects.primary().db)
    except transactions.LOST as error:
        raise CheckUnknown from error


def _pause_of_checks() -> float:
    """Seconds until iDenfy may be asked again; 0 where it may be now."""
    now = timezone.now()
    return (ProviderGate.look().end_of_pause("checks", now) - now).total_seconds()


@sensitive_variables("code")
def _judge(row: PhoneVerification, code: str) -> bool:
    assert row.request_id is not None
    try:
        return IdenfyClient().verify_sms(row.request_id, code)
    except IdenfyError as error:
        logger.error("The check of verification %s failed (%s).", row.pk, error)
        raise _after_failed_check(row, error) from error


def _after_failed_check(
    row: PhoneVerification, error: IdenfyError
) -> VerificationError:
    """T10 where iDenfy surely did not judge the code; else the check stays spent."""
    rows = PhoneVerification.objects.primary()
    if not isinstance(error, NeverSent | RateLimited | AccountRefused):
        _persist(partial(rows.lose_check, row))
        return CheckUnknown()
    wait = A_MOMENT
    if isinstance(error, RateLimited):
        wait = error.retry_after or CHECK_PAUSE
        until = timezone.now() + timedelta(seconds=wait)
        _persist(lambda: ProviderGate.change(lambda gate: gate.pause_checks(until)))
    _persist(partial(rows.refund_check, row))
    return ProviderUnavailable(retry_after=wait)


def _why_no_check(row: PhoneVerification, pause: float) -> VerificationError:
    match row.status:
        case Status.QUEUED | Status.SENDING:
            return NotSentYet(retry_after=A_MOMENT)
        case Status.EXPIRED:
            return VerificationExpired()
        case Status.LOCKED:
            return VerificationLocked()
        case Status.FAILED:
            return VerificationFailed()
    if pause:
        return ProviderUnavailable(retry_after=pause)
    return CheckInProgress(retry_after=A_MOMENT)


def get_proof(
    verification_id: uuid.UUID, *, user: Any, purpose: str = ""
) -> PhoneVerification:
    """A verification that ``redeem_verification`` would take now.

    Verified within REDEEM_WITHIN, by this user or anonymously, for this purpose, and
    not spent. Raises NotVerified.
    """
    rows = PhoneVerification.objects.primary()
    row = rows.redeemable(_user_id(user), purpose).filter(pk=verification_id).first()
    if row is None:
        raise NotVerified
    return row


def redeem_verification(
    verification: PhoneVerification, *, user: Any, purpose: str = ""
) -> PhoneVerification:
    """Spend a proof for a saved user: exactly once, rolled back with your transaction.

    Call it inside the ``atomic()`` block that saves the user. Raises AlreadyRedeemed,
    or NotVerified where it was no fresh proof of this user for this purpose.
    """
    rows = PhoneVerification.objects.primary()
    redeemed = rows.redeem(verification.pk, user.pk, purpose)
    row = rows.filter(pk=verification.pk).first()
    if redeemed and row is not None:
        return row
    raise AlreadyRedeemed if row is not None and row.redeemed_at else NotVerified


@sensitive_variables("phone_number", "number")
def clear_number(phone_number: str) -> None:
    """Let a number start afresh. Raises NumberNotSupported."""
    limits.clear(phone.parse(phone_number).e164)


def _user_id(user: Any) -> Any:
    """By primary key, so that users who live only in a token work.

    Raises UnknownUser for a key that no user of this project can have.
    """
    if user is None or not user.is_authenticated:
        return None
    try:
        return get_user_model()._meta.pk.to_python(user.pk)
    except ValidationError:
        raise UnknownUser from None
