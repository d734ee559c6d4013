"""The transitions of a verification: each is one conditional UPDATE.

===  ==================================  =============================================
T    From → to                           Condition
===  ==================================  =============================================
T0   INSERT queued                       the locks are held, and the limits allow it
T1   queued → sending                    due, and the gate gives a slot now
T1b  queued → queued                     due, and the gate's next slot comes later: it
                                         is reserved, and next_send_at is its time
T2   sending, failed(unknown) → sent     own attempt; iDenfy gave a request_id
T3   sending → queued                    own attempt; the request surely never left, or
                                         surely was not accepted
T4   sending → failed                    own attempt; refused, or too late for T3
T5   sending → failed(unknown)           own attempt; maybe sent, or its lease has ended
T6   queued → failed(too_late)           send_by has passed, or comes before the slot
T7   sent → sent                         the caller owns it, before expires_at, checks
                                         are left, no check is in flight: spends one
T8   sent, expired, locked → verified    own request_id; iDenfy said true: takes the
                                         first announcement with it
T9   sent → sent, sent → locked          own check; iDenfy said false; locked where it
                                         was the last one
T10  sent → sent                         own check; iDenfy surely did not judge it: the
                                         check is refunded
T11  sent → locked, sent → expired       no check in flight, and no checks are left, or
                                         expires_at has passed
T12  verified → verified                 not announced, and announce_at has come: takes
                                         the next announcement. Also: notes a success
T13  verified → verified                 the caller may redeem it, once
===  ==================================  =============================================

An answer to a check that is uncertain only ends the check (``abandon_check``): it stays
spent.

T0 joins the start's transaction; T1, T1b and T6 of a claim join the claim's; T13 joins
the host's. All others commit by themselves before they return. When an UPDATE changes
no row, another process was faster, and nothing is forced.

"Own" is decided by counters that only grow: ``send_attempts`` identifies an attempt,
and ``checks`` identifies a check.
"""

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from . import pacing
from .conf import conf
from .statuses import KEY_REFUSED, OPEN_STATUSES, UNCOUNTED_FAILURES, Failure, Status
from .transactions import (
    Bounds,
    bounded_locks,
    durable_commit,
    durable_statement,
    durable_transaction,
    retry_on_abort,
)

if TYPE_CHECKING:
    from .models import PhoneVerification

SEND_LEASE = timedelta(seconds=45)
CHECK_LEASE = timedelta(seconds=20)
MAX_SEND_ATTEMPTS = 5
# How many rows the sweep ends at once: a lock is held for that long.
SLICE = 500


class Ending(NamedTuple):
    """A transition that needs only time: the rows of ``condition`` get ``changes``."""

    condition: Q
    changes: dict[str, str]


def _set(row: "PhoneVerification", changes: Mapping[str, Any]) -> bool:
    """Change ``row`` as its stored row was changed. Returns True."""
    for name, value in changes.items():
        setattr(row, name, value)
    return True


class PhoneVerificationQuerySet(models.QuerySet["PhoneVerification"]):
    """Verifications: who may see them, which of them count, and all transitions.

    A transition returns whether it changed a row, or the changed row, or None. Those
    that commit by themselves raise RuntimeError inside an open transaction.
    """

    def verified(self, *, user: Any, phone_number: str) -> Self:
        """Rows in which this user proved this number.

        ``phone_number`` is E.164. Rows are purged after a time: keep the fact on a
        model of your own.
        """
        return self.exclude(user=None).filter(
            user_id=user.pk, phone_number=phone_number, status=Status.VERIFIED
        )

    def owned_by(self, user_id: Any) -> Self:
        """Rows that this user may see; ``user_id`` is None without a login.

        Anybody who knows the id of an anonymous row may see it until it is redeemed.
        The row of a deleted user has no user and is not anonymous: it belongs to
        nobody.
        """
        anonymous = Q(is_anonymous=True, user=None, redeemed_at=None)
        return self.filter(
            anonymous if user_id is None else anonymous | Q(user_id=user_id)
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
        return self.filter(
            status=Status.QUEUED,
            next_send_at__lte=now,
            send_by__gt=now,
            send_attempts__lt=MAX_SEND_ATTEMPTS,
        )

    def _change_due_row(
        self, row: "PhoneVerification", now: datetime, bounds: Bounds, **changes: Any
    ) -> bool:
        """Change a due row that is as it was read. Joins the claim's transaction."""
        as_read = self.due(now).filter(
            bounds,
            durable_commit(self.db),
            pk=row.pk,
            send_attempts=row.send_attempts,
            slot_reserved=row.slot_reserved,
        )
        return as_read.update(**changes) > 0 and _set(row, changes)

    def _transition(self, **changes: Any) -> bool:
        """Return whether the UPDATE changed a row. Committed when it returns."""

        def update() -> bool:
            with durable_statement(self.db) as bounds:
                return self.filter(bounds).update(**changes) > 0

        return retry_on_abort(update, self.db)

    def _transition_of(self, row: "PhoneVerification", **changes: Any) -> bool:
        """As ``_transition``, and change ``row`` as its stored row was changed."""
        has_changed = self.filter(pk=row.pk)._transition(**changes)
        return has_changed and _set(row, changes)

    def start_sending(
        self, row: "PhoneVerification", now: datetime, bounds: Bounds
    ) -> bool:
        """T1: lease a due row for SEND_LEASE.

        The commit is durable: a crash that forgets it would send the row again.
        """
        return self._change_due_row(
            row,
            now,
            bounds,
            status=Status.SENDING,
            send_attempts=row.send_attempts + 1,
            claimed_at=now,
            lease_until=now + SEND_LEASE,
            slot_reserved=False,
        )

    def wait_for_slot(
        self, row: "PhoneVerification", slot: datetime, now: datetime, bounds: Bounds
    ) -> bool:
        """T1b: the gate reserved ``slot`` for it."""
        changes = {"next_send_at": slot, "slot_reserved": True}
        return self._change_due_row(row, now, bounds, **changes)

    def fail_as_late(
        self, row: "PhoneVerification", now: datetime, bounds: Bounds
    ) -> bool:
        """T6: its slot would come after send_by."""
        changes = {"status": Status.FAILED, "failure": Failure.TOO_LATE}
        return self._change_due_row(row, now, bounds, **changes)

    def _attempt(self, row: "PhoneVerification") -> Self:
        return self.filter(pk=row.pk, send_attempts=row.send_attempts)

    def mark_sent(self, row: "PhoneVerification", request_id: str) -> bool:
        """T2. A late answer lifts a row that was given up as unknown.

        Raises IntegrityError where another row has this request_id.
        """
        given_up = Q(status=Status.FAILED, failure=Failure.UNKNOWN)
        assert row.claimed_at is not None
        attempt = self._attempt(row).filter(Q(status=Status.SENDING) | given_up)
        return attempt._transition(
            status=Status.SENT,
            request_id=request_id,
            sent_at=timezone.now(),
            expires_at=row.claimed_at + conf.CODE_LIFETIME,
            failure="",
        )

    def requeue(self, row: "PhoneVerification", next_send_at: datetime) -> bool:
        """T3: give the row back, to be sent again from ``next_send_at`` on.

        Only where the request surely never left, or surely was not accepted.
        """
        attempt = self._attempt(row).filter(status=Status.SENDING)
        return attempt._transition(
            status=Status.QUEUED,
            next_send_at=next_send_at,
            slot_reserved=False,
            claimed_at=None,
            lease_until=None,
        )

    def fail(self, row: "PhoneVerification", failure: str, provider_code: str) -> bool:
        """T4 and T5: end an attempt.

        ``provider_code`` is the constant of iDenfy's error body, "" for none.
        """
        attempt = self._attempt(row).filter(status=Status.SENDING)
        return attempt._transition(
            status=Status.FAILED, failure=failure, provider_code=provider_code[:64]
        )

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

        def settle() -> tuple[int, list[uuid.UUID]]:
            ended, failed = 0, []
            with durable_transaction(self.db) as bounds:
                for ending in self._endings(timezone.now()):
                    late = self.filter(ending.condition, bounds).order_by()
                    locked = late.select_for_update(skip_locked=True)
                    pks = list(locked.values_list("pk", flat=True)[:SLICE])
                    ended += late.filter(pk__in=pks).update(**ending.changes)
                    if "failure" in ending.changes:
                        failed += pks
            return ended, failed

        return retry_on_abort(settle, self.db)

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

    def begin_check(self, row: "PhoneVerification") -> bool:
        """T7: spend one check before iDenfy is asked, one at a time.

        ``row`` is as its owner read it just now. Returns False, and spends nothing,
        where it has changed meanwhile, its code is not awaited or has expired, no
        checks are left, or a check is in flight. The commit is durable: a crash that
        forgets it would give a guess back.
        """
        now = timezone.now()
        if not row.checks_left or (row.checking_until or now) > now:
            return False
        as_read = self.filter(
            durable_commit(self.db),
            status=Status.SENT,
            expires_at__gt=now,
            user=row.user_id,
            checking_until=row.checking_until,
            checks=row.checks,
            checks_wrong=row.checks_wrong,
            checks_refunded=row.checks_refunded,
        )
        until = now + CHECK_LEASE
        return as_read._transition_of(row, checks=row.checks + 1, checking_until=until)

    def mark_verified(self, row: "PhoneVerification") -> bool:
        """T8. Only after iDenfy answered true for this row's own request_id.

        Takes the first announcement: the caller sends its signal.
        """
        now = timezone.now()
        liftable = (Status.SENT, Status.EXPIRED, Status.LOCKED)
        return self.filter(
            request_id=row.request_id, status__in=liftable
        )._transition_of(
            row,
            status=Status.VERIFIED,
            is_verified=True,
            verified_at=now,
            announce_attempts=1,
            announce_at=now + pacing.ANNOUNCE_LEASE,
            checking_until=None,
        )

    def _check_in_flight(self, row: "PhoneVerification") -> Self:
        in_flight = Q(status=Status.SENT, checking_until__isnull=False)
        return self.filter(in_flight, checks=row.checks)

    def mark_wrong(self, row: "PhoneVerification") -> bool:
        """T9: iDenfy judged this check and said false."""
        return self._check_in_flight(row)._transition_of(
            row,
            checks_wrong=row.checks_wrong + 1,
            checking_until=None,
            status=Status.SENT if row.checks_left else Status.LOCKED,
        )

    def abandon_check(self, row: "PhoneVerification") -> bool:
        """The answer was lost: the check stays spent, and the next one may begin."""
        return self._check_in_flight(row)._transition_of(row, checking_until=None)

    def refund_check(self, row: "PhoneVerification") -> bool:
        """T10: iDenfy surely did not judge this check."""
        return self._check_in_flight(row)._transition_of(
            row, checks_refunded=row.checks_refunded + 1, checking_until=None
        )

    def redeemable(self, user_id: Any, purpose: str) -> Self:
        """Fresh proofs for this purpose, of this user or of no user yet."""
        return self.owned_by(user_id).filter(
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

    def unannounced(self) -> Self:
        """Verified rows whose signal is to be sent now."""
        return self.filter(
            status=Status.VERIFIED, announced_at=None, announce_at__lte=timezone.now()
        )

    def take_announcement(self, pk: uuid.UUID) -> "PhoneVerification | None":
        """T12, first half: nobody else announces the row until its next try.

        Returns None where the row is not due.
        """
        row = self.unannounced().filter(pk=pk).first()
        if row is None:
            return None
        now, tries = timezone.now(), row.announce_attempts
        pause = pacing.announcement_pause(tries, row.verified_at or now, now)
        changes = {"announce_attempts": tries + 1, "announce_at": now + pause}
        is_taken = self.unannounced()._transition_of(row, **changes)
        return row if is_taken else None

    def mark_announced(self, row: "PhoneVerification") -> bool:
        """T12, second half: every receiver ran without a failure."""
        unannounced = self.filter(pk=row.pk, announced_at=None)
        return unannounced._transition(announced_at=timezone.now())
