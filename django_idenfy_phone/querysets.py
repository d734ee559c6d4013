"""Queries of verifications, and the transitions that need only time.

See ``transitions`` for their table, and for those of one row.
"""

import uuid
from datetime import datetime
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from . import events
from .conf import conf
from .events import Event
from .starting import Caller
from .statuses import KEY_REFUSED, OPEN_STATUSES, UNCOUNTED_FAILURES, Failure, Status
from .transactions import Bounds, bounded_locks, durable_transaction, retry_on_abort
from .transitions import due_terms, unannounced_terms

if TYPE_CHECKING:
    from .models import PhoneVerification

# How many rows the sweep ends at once: a lock is held for that long.
SLICE = 500


class Ending(NamedTuple):
    """A transition that needs only time: the rows of ``condition`` get ``changes``."""

    condition: Q
    changes: dict[str, str]


class PhoneVerificationQuerySet(models.QuerySet["PhoneVerification"]):
    """Verifications: who may see them, which of them count, and which are late."""

    def verified(self, *, user: Caller, phone_number: str) -> Self:
        """Rows in which this user proved this number.

        ``phone_number`` is E.164. Rows are purged after a time: keep the fact on a
        model of your own.
        """
        return self.exclude(user=None).filter(
            user_id=user.pk, phone_number=phone_number, status=Status.VERIFIED
        )

    def counted(self, *, with_account_refusals: bool = False) -> Self:
        """Rows that sent, may have sent, or may still send an SMS.

        ``with_account_refusals`` adds those that iDenfy refused for contract or
        credits, but not for the key.
        """
        uncounted = Q(status=Status.FAILED, failure__in=UNCOUNTED_FAILURES)
        if with_account_refusals:
            refused = Q(failure=Failure.ACCOUNT) & ~Q(provider_code=KEY_REFUSED)
            uncounted &= ~refused
        return self.exclude(uncounted)

    def due(self, now: datetime) -> Self:
        """Rows that may be sent now, if the gate gives a slot."""
        return self.filter(**due_terms(now))

    def live(self, user_id: Any, purpose: str) -> Self:
        """This user's rows for this purpose whose code is on its way or awaited.

        Newest first; none without a login.
        """
        if user_id is None:
            return self.none()
        late = [ending.condition for ending in self._endings(timezone.now())]
        own = self.filter(user_id=user_id, purpose=purpose, status__in=OPEN_STATUSES)
        return own.exclude(reduce(or_, late)).order_by("-created_at")

    def unannounced(self) -> Self:
        """Verified rows whose signal is to be sent now."""
        return self.filter(**unannounced_terms(timezone.now()))

    def redeemable(self, user_id: Any, purpose: str) -> Self:
        """Fresh proofs for this purpose, of this user or of no user yet."""
        proofs = Q(is_anonymous=True, user=None)
        if user_id is not None:
            proofs |= Q(user_id=user_id)
        return self.filter(
            proofs,
            status=Status.VERIFIED,
            redeemed_at=None,
            purpose=purpose,
            verified_at__gt=timezone.now() - conf.REDEEM_WITHIN,
        )

    def redeem(self, pk: uuid.UUID, user_id: Any, purpose: str) -> bool:
        """T13: spend a proof, once. Joins the caller's transaction."""
        with bounded_locks(self.db) as bounds:
            redeemable = self.redeemable(user_id, purpose).filter(bounds or Q(), pk=pk)
            return redeemable.update(redeemed_at=timezone.now(), user_id=user_id) > 0

    def settle(self) -> list[uuid.UUID]:
        """T5, T6 and T11 for a few rows. Returns the ids of those that failed."""
        now, open_rows = timezone.now(), self.filter(status__in=OPEN_STATUSES)
        if not any(row.is_late(now) for row in open_rows):
            return []
        _ended, failed = self.settle_slice()
        return failed

    def settle_slice(self) -> tuple[int, list[uuid.UUID]]:
        """As ``settle``, for at most SLICE rows of each ending, in one transaction.

        Returns how many rows ended, and the ids of those that failed. Rows that another
        process has locked are left for the next slice.
        """

        def settle() -> "list[PhoneVerification]":
            with durable_transaction(self.db) as bounds:
                endings = self._endings(timezone.now())
                return [row for each in endings for row in self._end(each, bounds)]

        ended = retry_on_abort(settle, self.db)
        for row in ended:
            events.log_row(Event(row.status), row, row.failure)
        return len(ended), [row.pk for row in ended if row.failure]

    def _end(self, ending: Ending, bounds: Bounds) -> "list[PhoneVerification]":
        """End at most SLICE rows. Joins the transaction."""
        late = self.filter(ending.condition, bounds).order_by()
        locked = late.select_for_update(skip_locked=True)
        rows = list(locked.only("status", "failure", "purpose", "region")[:SLICE])
        late.filter(pk__in=[row.pk for row in rows]).update(**ending.changes)
        for row in rows:
            row.apply(ending.changes)
        return rows

    def _endings(self, now: datetime) -> list[Ending]:
        idle = Q(checking_until=None) | Q(checking_until__lte=now)
        # As PhoneVerification.checks_left, in SQL.
        not_refunded = Q(checks__lt=F("checks_refunded") + conf.MAX_CHECKS)
        has_checks_left = not_refunded & Q(checks__lt=2 * conf.MAX_CHECKS)
        return [
            Ending(
                Q(status=Status.SENDING, lease_until__lte=now),
                {"status": Status.FAILED, "failure": Failure.UNKNOWN},
            ),
            Ending(
                Q(status=Status.QUEUED, send_by__lte=now),
                {"status": Status.FAILED, "failure": Failure.TOO_LATE},
            ),
            Ending(
                Q(status=Status.SENT) & idle & ~has_checks_left,
                {"status": Status.LOCKED},
            ),
            Ending(
                Q(status=Status.SENT, expires_at__lte=now) & idle,
                {"status": Status.EXPIRED},
            ),
        ]
