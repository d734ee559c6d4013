"""The worker's half: hand one row to iDenfy, once. The mirror of ``checking``."""

import logging
import time
import uuid
from collections.abc import Callable
from copy import copy
from datetime import timedelta
from functools import partial
from typing import TypeVar

from django.db import IntegrityError, OperationalError
from django.utils import timezone

from . import announce, events, gate, pacing
from .alarms import alarm
from .client import IdenfyClient
from .conf import conf
from .edge import hide_values
from .events import Event
from .exceptions import (
    AccountRefused,
    IdenfyError,
    InsideTransaction,
    KeyRefused,
    NeverSent,
    NumberRefused,
    OutcomeUnknown,
    RateLimited,
)
from .models import PhoneVerification, primary_alias
from .phone import is_readable
from .statements import Table
from .statuses import KEY_REFUSED, Failure, Status
from .transactions import (
    durable_statement,
    durable_transaction,
    give_back_connection,
    in_transaction,
    is_lock_timeout,
    retry_on_abort,
    retry_on_lost_connection,
)
from .transitions import MAX_SEND_ATTEMPTS, SEND_LEASE

logger = logging.getLogger(__name__)
T = TypeVar("T")

# After any other error, an SMS may have been sent.
FAILURES: dict[type[IdenfyError], Failure] = {
    NeverSent: Failure.UNREACHABLE,
    RateLimited: Failure.RATE_LIMITED,
    AccountRefused: Failure.ACCOUNT,
    KeyRefused: Failure.ACCOUNT,
    NumberRefused: Failure.NUMBER_REFUSED,
}
# After these a send is safe to repeat.
Repeatable = NeverSent | RateLimited
AFTER_LOCK_TIMEOUT = timedelta(seconds=2)
# How long a worker waits for receivers of send_failed.
RECEIVER_SECONDS = 2


@hide_values
def deliver(pk: uuid.UUID) -> timedelta | None:
    """Send one queued row. Safe to call any number of times, at once or again.

    Returns how long to wait before calling again, or None where there is no need to.
    Raises InsideTransaction.
    """
    using = primary_alias()
    if in_transaction(using):
        raise InsideTransaction
    row = Table(using, PhoneVerification).read(pk)
    if row is None:
        reference = PhoneVerification(pk=pk).reference
        logger.warning("Verification %s is gone: nothing is sent.", reference)
        return None
    try:
        if row.is_late(timezone.now()):
            _announce_failed(PhoneVerification.objects.filter(pk=pk).settle())
            return None
        claimed = claim(row)
    except OperationalError as error:
        if not is_lock_timeout(error):
            raise
        text = "Verification %s waits: another process holds a lock."
        logger.warning(text, row.reference)
        return AFTER_LOCK_TIMEOUT
    return _go_on(claimed) if claimed else None


def _go_on(row: PhoneVerification) -> timedelta | None:
    """Do what a claim decided."""
    match row.status:
        case Status.FAILED:
            events.log_row(Event.FAILED, row, row.failure)
            _announce_failed([row.pk])
        case Status.QUEUED:
            return max(timedelta(0), row.next_send_at - timezone.now())
        case _:
            return _Attempt(row).run()
    return None


def claim(row: PhoneVerification) -> PhoneVerification | None:
    """T1, T1b or T6: take a due row for sending, or reserve its slot.

    ``row`` is as it was read just now. Returns the changed row: sending for SEND_LEASE,
    queued until its slot, or failed where that slot comes too late. None where the row
    is not due, or no longer as it was read.
    """
    if not row.is_due(timezone.now()):
        return None
    # A try that is aborted must not change the row.
    return retry_on_abort(lambda: _take_slot(copy(row)), primary_alias())


def _take_slot(row: PhoneVerification) -> PhoneVerification | None:
    using, rate = primary_alias(), conf.SEND_RATE
    # Without a rate no slot is given, so nobody waits for the gate's lock.
    with (durable_transaction if rate else durable_statement)(using) as bounds:
        provider_gate = gate.acquire(bounds) if rate else gate.current()
        now = timezone.now()
        slot = gate.reserve_slot(provider_gate, row, now)
        has_changed = PhoneVerification.objects.take_slot(row, slot, now, bounds)
        if has_changed and rate:
            gate.keep_slots(provider_gate)
    return row if has_changed else None


def _announce_failed(pks: list[uuid.UUID]) -> None:
    """Send ``send_failed``, but go on with the next row while a receiver hangs."""
    calls = [partial(announce.failed, [pk]) for pk in pks]
    announce.in_background(calls, time.monotonic() + RECEIVER_SECONDS)


class _Attempt:
    """One attempt to send a claimed row, and what the row becomes by it."""

    def __init__(self, row: PhoneVerification) -> None:
        self.row = row

    def run(self) -> timedelta | None:
        """Returns how long to wait for another attempt; None where there is none."""
        give_back_connection(primary_alias())
        try:
            request_id = self._ask_idenfy()
        except (NeverSent, RateLimited) as error:
            return self._retry(error)
        except IdenfyError as error:
            self._fail(error)
        except Exception as error:
            # Such as a soft time limit in the middle of the request.
            self._fail(OutcomeUnknown(type(error).__name__))
            raise
        else:
            self._record_sent(request_id)
        return None

    def _ask_idenfy(self) -> str:
        claimed_at, number = self.row.claimed_at, self.row.phone_number
        if claimed_at is None or timezone.now() > claimed_at + SEND_LEASE / 2:
            raise NeverSent("the worker was frozen before it connected")
        if not is_readable(number):
            raise NumberRefused("the stored number cannot be read")
        return IdenfyClient().send_sms(number.as_e164)

    def _retry(self, error: Repeatable) -> timedelta | None:
        """T3, or T4 where no attempts or no time are left."""
        row, delay = self.row, self._delay_after(error)
        next_send_at = timezone.now() + delay
        is_last = row.send_attempts >= MAX_SEND_ATTEMPTS or next_send_at >= row.send_by
        if is_last:
            self._fail(error)
        else:
            logger.warning("Verification %s: %s, trying again.", row.reference, error)
            requeue = partial(PhoneVerification.objects.requeue, row, next_send_at)
            is_last = not _write(requeue)
        if isinstance(error, RateLimited):
            _write(partial(gate.pause_sends, next_send_at))
        return None if is_last else delay

    def _delay_after(self, error: Repeatable) -> timedelta:
        if isinstance(error, RateLimited) and error.retry_after is not None:
            return error.retry_after
        return pacing.retry_delay(self.row.send_attempts)

    def _fail(self, error: IdenfyError) -> None:
        """T4 or T5."""
        row, failure = self.row, FAILURES.get(type(error), Failure.UNKNOWN)
        logger.warning("Verification %s: %s (%s).", row.reference, failure.value, error)
        # A status 401 may come without an identifier, and the limits look for it.
        code = KEY_REFUSED if isinstance(error, KeyRefused) else error.identifier
        has_failed = _write(partial(PhoneVerification.objects.fail, row, failure, code))
        if isinstance(error, AccountRefused):
            self._note_account_fault(error)
        if has_failed:
            events.log_row(Event.FAILED, row, failure.value)
            _announce_failed([row.pk])

    def _note_account_fault(self, error: AccountRefused) -> None:
        is_key_refused = isinstance(error, KeyRefused)
        note = partial(gate.note_account_fault, self.row, timezone.now())
        if _write(partial(note, is_key_refused=is_key_refused)):
            logger.critical("iDenfy refuses the account (%s).", error)

    def _record_sent(self, request_id: str) -> None:
        """T2, or T5 for the request_id of another row, which proves nothing here."""
        try:
            mark = partial(PhoneVerification.objects.mark_sent, self.row, request_id)
            if _write(mark):
                events.log_row(Event.SENT, self.row)
            _write(gate.end_fault_run)
        except IntegrityError:
            text = "iDenfy gave verification %s a request_id twice."
            alarm(logger.critical, text, self.row.reference)
            self._fail(OutcomeUnknown("request_id seen before"))


def _write(write: Callable[[], T]) -> T:
    """Write down what iDenfy did, also when the connection is lost: it is paid."""
    return retry_on_lost_connection(write, primary_alias())
