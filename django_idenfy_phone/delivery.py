"""The worker's half: hand one row to iDenfy, once."""

import logging
import random
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from django.db import IntegrityError
from django.utils import timezone

from . import announce
from .client import IdenfyClient
from .exceptions import (
    AccountRefused,
    IdenfyError,
    KeyRefused,
    NeverSent,
    NumberRefused,
    OutcomeUnknown,
    RateLimited,
)
from .models import (
    MAX_SEND_ATTEMPTS,
    SEND_LEASE,
    Failure,
    PhoneVerification,
    ProviderGate,
    Status,
)
from .transactions import persisted

logger = logging.getLogger(__name__)
T = TypeVar("T")

JITTER_BASE = 2.0
JITTER_CAP = 30.0


def deliver(pk: uuid.UUID) -> float | None:
    """Send one queued row. Safe to call any number of times, at once or again.

    Returns the seconds after which to call again, or None when there is no need to.
    """
    rows = PhoneVerification.objects.primary()
    row = rows.claim(pk)
    if row is None:
        announce.failed(rows.filter(pk=pk).settle())
        if not rows.filter(pk=pk).exists():
            logger.warning("Verification %s is gone: nothing is sent.", pk)
    elif row.status == Status.FAILED:
        announce.failed([pk])
    elif row.status == Status.QUEUED:
        return max(0.0, (row.next_send_at - timezone.now()).total_seconds())
    else:
        return _send(row)
    return None


def _send(row: PhoneVerification) -> float | None:
    try:
        if row.claimed_at is None or timezone.now() > row.claimed_at + SEND_LEASE / 2:
            raise OutcomeUnknown("the worker was frozen before it connected")
        request_id = IdenfyClient().send_sms(row.phone_number.as_e164)
    except (NeverSent, RateLimited) as error:
        return _send_again(row, error)
    except IdenfyError as error:
        _end(row, error)
    except Exception as error:
        # Such as a soft time limit in the middle of the request.
        _end(row, OutcomeUnknown(type(error).__name__))
        raise
    else:
        _complete_sent(row, request_id)
    return None


def _send_again(row: PhoneVerification, error: NeverSent | RateLimited) -> float | None:
    """T3, or T4 when that would be too late."""
    delay = _delay(row, error)
    next_send_at = timezone.now() + timedelta(seconds=delay)
    is_last = row.send_attempts >= MAX_SEND_ATTEMPTS or next_send_at >= row.send_by
    if is_last:
        _end(row, error)
    else:
        logger.warning("Verification %s: %s, trying again.", row.pk, error)
        rows = PhoneVerification.objects.primary()
        is_last = not _complete(lambda: rows.requeue(row, next_send_at))
    if isinstance(error, RateLimited):
        _complete(
            lambda: ProviderGate.change(lambda gate: gate.pause_sends(next_send_at))
        )
    return None if is_last else delay


def _delay(row: PhoneVerification, error: NeverSent | RateLimited) -> float:
    if isinstance(error, RateLimited) and error.retry_after is not None:
        return error.retry_after
    longest = min(JITTER_CAP, JITTER_BASE * 2**row.send_attempts)
    return random.uniform(0, longest)


def _end(row: PhoneVerification, error: IdenfyError) -> None:
    """T4 or T5."""
    failure = _failure(error)
    logger.warning("Verification %s: %s (%s).", row.pk, failure.value, error)
    rows = PhoneVerification.objects.primary()
    if _complete(lambda: rows.fail(row, failure, error.identifier)):
        announce.failed([row.pk])
    if isinstance(error, AccountRefused):
        _note_account_fault(error)


def _note_account_fault(error: AccountRefused) -> None:
    now, is_certain = timezone.now(), isinstance(error, KeyRefused)
    if _complete(
        lambda: ProviderGate.change(
            lambda gate: gate.note_account_fault(now, is_certain=is_certain)
        )
    ):
        logger.critical("iDenfy refuses the account (%s): nothing is sent.", error)


def _failure(error: IdenfyError) -> Failure:
    match error:
        case NeverSent():
            return Failure.UNREACHABLE
        case RateLimited():
            return Failure.RATE_LIMITED
        case AccountRefused():
            return Failure.ACCOUNT
        case NumberRefused():
            return Failure.NUMBER_REFUSED
        case _:
            return Failure.UNKNOWN


def _complete_sent(row: PhoneVerification, request_id: str) -> None:
    """T2. A request_id of another row proves nothing about this one: T5."""
    rows = PhoneVerification.objects.primary()
    try:
        _complete(lambda: rows.mark_sent(row, request_id))
        _complete(ProviderGate.note_success)
    except IntegrityError:
        logger.critical("iDenfy gave verification %s a request_id twice.", row.pk)
        _end(row, OutcomeUnknown("request_id seen before"))


def _complete(write: Callable[[], T]) -> T:
    return persisted(write, PhoneVerification.objects.primary().db)
