"""The user's half: have iDenfy judge one code, once. The mirror of ``delivery``."""

import logging
import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from django.utils import timezone

from . import announce, events, gate, phone, seen
from .alarms import alarm
from .client import IdenfyClient
from .events import Event
from .exceptions import (
    AccountRefused,
    CheckUnknown,
    IdenfyError,
    InvalidCode,
    NeverSent,
    ProviderUnavailable,
    RateLimited,
    VerificationError,
    VerificationNotFound,
)
from .models import PhoneVerification, primary_alias
from .seen import Seen
from .statuses import Status
from .transactions import (
    LOST_CONNECTION_ERRORS,
    give_back_connection,
    retry_on_lost_connection,
)

logger = logging.getLogger(__name__)
T = TypeVar("T")

RETRY_SOON = timedelta(seconds=2)
# After a 429 to a check that gives no time.
DEFAULT_CHECK_PAUSE = timedelta(seconds=5)


def validate_code(code: object) -> str:
    """The code in ASCII. Raises InvalidCode unless it is a text of four digits.

    They may be of any script, with spaces as people paste them.
    """
    if not isinstance(code, str):
        raise InvalidCode
    digits = phone.fold(code.strip(" \r\n")).replace(" ", "")
    if not re.fullmatch("[0-9]{4}", digits):
        raise InvalidCode
    return digits


def check(pk: uuid.UUID, user_id: Any, code: str) -> Seen | None:
    """Spend one check to have iDenfy judge a code; announce a proof.

    Returns the row as it is stored then, or None where no check could begin. Raises
    ProviderUnavailable where iDenfy surely did not judge the code, CheckUnknown where
    it may have, and VerificationNotFound where the row was erased meanwhile.
    """
    found = seen.begin_check(pk, user_id)
    if found is None:
        return None
    begun = _Check(found.row)
    if begun.ask_idenfy(code):
        begun.record_proof()
    else:
        begun.record_wrong_code()
    return found


class _Check:
    """A check that has begun for a row, and what the row becomes by it."""

    def __init__(self, row: PhoneVerification) -> None:
        self.row = row

    def ask_idenfy(self, code: str) -> bool:
        row = self.row
        assert row.request_id is not None
        give_back_connection(primary_alias())
        try:
            return IdenfyClient().verify_sms(row.request_id, code)
        except IdenfyError as error:
            text = "The check of verification %s failed (%s)."
            logger.warning(text, row.reference, error)
            if isinstance(error, AccountRefused):
                alarm(logger.critical, "iDenfy refuses the account (%s).", error)
            raise self._refund_or_abandon(error) from error

    def _refund_or_abandon(self, error: IdenfyError) -> VerificationError:
        """T10 if iDenfy surely did not judge the code; else the check stays spent."""
        rows = PhoneVerification.objects
        if not isinstance(error, NeverSent | RateLimited | AccountRefused):
            retry_or_check_unknown(partial(rows.abandon_check, self.row))
            return CheckUnknown()
        wait = RETRY_SOON
        if isinstance(error, RateLimited):
            wait = error.retry_after or DEFAULT_CHECK_PAUSE
            retry_or_check_unknown(partial(gate.pause_checks, timezone.now() + wait))
        retry_or_check_unknown(partial(rows.refund_check, self.row))
        return ProviderUnavailable(retry_after=wait)

    def record_proof(self) -> None:
        now, needs_announcing = timezone.now(), announce.is_needed()
        mark = partial(
            PhoneVerification.objects.mark_verified,
            now=now,
            announced_at=None if needs_announcing else now,
        )
        # Where the row has our own time, our commit worked: its answer was lost.
        is_own = self.record(mark) or self.row.verified_at == now
        if is_own:
            events.log_row(Event.VERIFIED, self.row)
        if is_own and needs_announcing:
            announce.verified(self.row)

    def record_wrong_code(self) -> None:
        if self.record(PhoneVerification.objects.mark_wrong):
            events.log_row(Event.WRONG_CODE, self.row)
            if self.row.status == Status.LOCKED:
                events.log_row(Event.LOCKED, self.row)

    def record(self, write: Callable[[PhoneVerification], bool]) -> bool:
        """Store what iDenfy said, and return whether the stored row changed."""
        has_changed = retry_or_check_unknown(partial(write, self.row))
        if not has_changed:
            # Another process was faster, or the answer to our own commit was lost.
            refresh = partial(self.row.refresh_from_db, using=primary_alias())
            try:
                retry_or_check_unknown(refresh)
            except PhoneVerification.DoesNotExist:
                raise VerificationNotFound from None
            if self.row.erased_at:
                raise VerificationNotFound
        return has_changed


def retry_or_check_unknown(work: Callable[[], T]) -> T:
    """Run ``work`` again while the connection to the database is lost.

    Raises CheckUnknown where that lasts too long: the check stays spent.
    """
    try:
        return retry_on_lost_connection(work, primary_alias())
    except LOST_CONNECTION_ERRORS as error:
        raise CheckUnknown from error
