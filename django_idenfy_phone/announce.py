"""Sends the signals, so that every receiver runs. The sweep repeats what failed.

The signal of an older verification may be repeated after that of a newer one. A
receiver is code of the host, and may never return. A request waits for it, but no
worker and no sweep does: those call receivers ``in_background``.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial

from django.db import connections, transaction
from django.utils import timezone

from .alarms import alarm
from .conf import conf
from .edge import hide, hide_values
from .models import PhoneVerification, primary_alias
from .ownership import keep_by_setting
from .pacing import RECEIVER_GRACE
from .processes import PerProcess
from .querysets import PhoneVerificationQuerySet
from .signals import name_of, phone_verified, send_failed

logger = logging.getLogger(__name__)

MAX_THREADS = 2
THREAD_NAME = "idenfy-phone-receivers"
# Long enough for a thread to become free, unless receivers never return.
THREAD_WAIT_SECONDS = 1
NOT_ANNOUNCED = "Verification %s could not be announced."
NO_THREAD = (
    "No thread is free for receivers, so signals are not sent: does a receiver of "
    "phone_verified or send_failed never return?"
)

Call = Callable[[], object]


def is_needed() -> bool:
    """Whether anybody learns of a proof: a receiver, or the model that OWNER names."""
    return bool(conf.OWNER) or phone_verified.has_listeners(PhoneVerification)


def verified(row: PhoneVerification) -> None:
    """Keep the number, and send ``phone_verified`` unless another account holds it.

    Never raises: the sweep tries again what failed. Only for a row whose announcement
    the caller has taken, by T8 or T12.
    """
    try:
        failure = _keep_and_send(row)
        if not failure:
            PhoneVerification.objects.mark_announced(row)
            return
        PhoneVerification.objects.note_announce_failure(row, failure)
        if row.verified_at and timezone.now() - row.verified_at >= RECEIVER_GRACE:
            text = "Verification %s was not announced for %s: %s."
            alarm(logger.critical, text, row.reference, RECEIVER_GRACE, failure)
    except Exception as error:
        hide(error)
        alarm(logger.exception, NOT_ANNOUNCED, row.reference)


def _keep_and_send(row: PhoneVerification) -> str:
    """What failed, as "accounts.receivers.remember (ValueError)"; "" for nothing."""
    try:
        keep_by_setting(row)
    except Exception as error:
        hide(error)
        alarm(logger.exception, NOT_ANNOUNCED, row.reference)
        return f"IDENFY_PHONE_OWNER ({type(error).__name__})"
    # Without receivers, the user need not be fetched.
    if row.number_taken or not phone_verified.has_listeners(PhoneVerification):
        return ""
    answers = phone_verified.send_robust(
        PhoneVerification, verification=row, user=row.user
    )
    return ", ".join(
        f"{name_of(receiver)} ({type(answer).__name__})"
        for receiver, answer in answers
        if isinstance(answer, Exception)
    )


def verified_again(pk: uuid.UUID) -> None:
    """T12: send ``phone_verified`` for a row that is due. Never raises."""
    try:
        row = PhoneVerification.objects.take_announcement(pk)
        if row is not None:
            verified(row)
    except Exception as error:
        hide(error)
        reference = PhoneVerification(pk=pk).reference
        alarm(logger.exception, NOT_ANNOUNCED, reference)


def failed(pks: Iterable[uuid.UUID]) -> None:
    """Send ``send_failed`` for rows that just failed. Best effort, never raises."""
    if not send_failed.has_listeners(PhoneVerification):
        return
    try:
        for row in PhoneVerification.objects.filter(pk__in=list(pks)):
            send_failed.send_robust(
                PhoneVerification, verification=row, failure=row.failure
            )
    except Exception as error:
        hide(error)
        alarm(logger.exception, "send_failed could not be sent.")


def settle_and_announce(rows: PhoneVerificationQuerySet) -> bool:
    """End those of ``rows`` that are late, and announce which of them failed.

    Returns whether any failed.
    """
    pks = rows.settle()
    failed(pks)
    return bool(pks)


def in_background(calls: Sequence[Call], give_up_at: float) -> None:
    """As ``one_by_one``, but wait only until ``give_up_at`` for a call to return.

    The calls run in one of MAX_THREADS daemon threads of this process, which has
    database connections of its own. Nothing runs where all are busy: that is logged.
    Inside TestCase, whose rows no other connection sees, they run in this thread.
    """
    if transaction.get_connection(primary_alias()).in_atomic_block:
        one_by_one(calls, give_up_at)
    elif calls:
        _threads.get().run(calls, give_up_at)


def one_by_one(calls: Sequence[Call], give_up_at: float) -> None:
    """Make the first call, and go on until ``give_up_at``, by ``time.monotonic()``."""
    for call in calls:
        call()
        if time.monotonic() > give_up_at:
            break


class _Threads:
    """The threads of this process that run receivers: at most MAX_THREADS at once."""

    def __init__(self) -> None:
        self._free = threading.Semaphore(MAX_THREADS)

    def run(self, calls: Sequence[Call], give_up_at: float) -> None:
        thread = self._start(calls, give_up_at)
        if thread is None:
            alarm(logger.critical, NO_THREAD)
        else:
            thread.join(max(0, give_up_at - time.monotonic()))

    def _start(
        self, calls: Sequence[Call], give_up_at: float
    ) -> threading.Thread | None:
        """Start a thread; None where all are busy, or the system starts no more."""
        if not self._free.acquire(timeout=THREAD_WAIT_SECONDS):
            return None
        work = partial(self._work, calls, give_up_at)
        thread = threading.Thread(target=work, name=THREAD_NAME, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._free.release()
            return None
        return thread

    @hide_values
    def _work(self, calls: Sequence[Call], give_up_at: float) -> None:
        with ExitStack() as stack:
            stack.callback(self._free.release)
            stack.callback(connections.close_all)
            one_by_one(calls, give_up_at)


_threads = PerProcess(_Threads)
