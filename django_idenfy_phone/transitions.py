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
                                         the next announcement. Also: notes a success,
                                         or what failed
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
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from . import pacing
from .conf import conf
from .statements import Table
from .statuses import Failure, Status
from .transactions import (
    Bounds,
    durable_commit,
    durable_statement,
    retry_on_abort,
)

if TYPE_CHECKING:
    from .models import PhoneVerification

SEND_LEASE = timedelta(seconds=45)
CHECK_LEASE = timedelta(seconds=20)
MAX_SEND_ATTEMPTS = 5


def due_terms(now: datetime) -> dict[str, Any]:
    """What holds for a row that may be sent now, if the gate gives a slot."""
    return {
        "status": Status.QUEUED,
        "next_send_at__lte": now,
        "send_by__gt": now,
        "send_attempts__lt": MAX_SEND_ATTEMPTS,
    }


def unannounced_terms(now: datetime) -> dict[str, Any]:
    """What holds for a verified row whose signal is to be sent now."""
    return {"status": Status.VERIFIED, "announced_at": None, "announce_at__lte": now}


class RowTransitions:
    """The transitions of one row, as methods of the manager.

    Each returns whether it changed the stored row. Those that commit by themselves
    raise RuntimeError inside an open transaction.
    """

    # Of the manager.
    db: str
    model: "type[PhoneVerification]"

    @property
    def _table(self) -> "Table[PhoneVerification]":
        return Table(self.db, self.model)

    def _transition(
        self, where: Mapping[str, Any], changes: Mapping[str, Any], *conditions: Bounds
    ) -> bool:
        """One UPDATE, which is committed when this returns."""

        def update() -> bool:
            with durable_statement(self.db) as bounds:
                terms = (bounds, *conditions)
                return self._table.update(where, changes, *terms)

        return retry_on_abort(update, self.db)

    def _change_due_row(
        self,
        row: "PhoneVerification",
        now: datetime,
        bounds: Bounds,
        changes: dict[str, Any],
    ) -> bool:
        """Change a due row that is as it was read. Joins the claim's transaction."""
        where = due_terms(now) | {
            "id": row.pk,
            "send_attempts": row.send_attempts,
            "slot_reserved": row.slot_reserved,
        }
        terms = (bounds, durable_commit(self.db))
        has_changed = self._table.update(where, changes, *terms)
        return has_changed and row.apply(changes)

    def start_sending(
        self, row: "PhoneVerification", now: datetime, bounds: Bounds
    ) -> bool:
        """T1: lease a due row for SEND_LEASE.

        The commit is durable: a crash that forgets it would send the row again.
        """
        changes = {
            "status": Status.SENDING,
            "send_attempts": row.send_attempts + 1,
            "claimed_at": now,
            "lease_until": now + SEND_LEASE,
            "slot_reserved": False,
        }
        return self._change_due_row(row, now, bounds, changes)

    def wait_for_slot(
        self, row: "PhoneVerification", slot: datetime, now: datetime, bounds: Bounds
    ) -> bool:
        """T1b: the gate reserved ``slot`` for it."""
        changes = {"next_send_at": slot, "slot_reserved": True}
        return self._change_due_row(row, now, bounds, changes)

    def fail_as_late(
        self, row: "PhoneVerification", now: datetime, bounds: Bounds
    ) -> bool:
        """T6: its slot would come after send_by."""
        changes = {"status": Status.FAILED, "failure": Failure.TOO_LATE}
        return self._change_due_row(row, now, bounds, changes)

    def take_slot(
        self, row: "PhoneVerification", slot: datetime, now: datetime, bounds: Bounds
    ) -> bool:
        """T1, T1b or T6, by when the slot comes that the gate gave to the row."""
        if slot <= now:
            return self.start_sending(row, now, bounds)
        if slot < row.send_by:
            return self.wait_for_slot(row, slot, now, bounds)
        return self.fail_as_late(row, now, bounds)

    def mark_sent(self, row: "PhoneVerification", request_id: str) -> bool:
        """T2. A late answer lifts a row that was given up as unknown.

        Raises IntegrityError where another row has this request_id.
        """
        assert row.claimed_at is not None
        where = {
            "id": row.pk,
            "send_attempts": row.send_attempts,
            "status__in": (Status.SENDING, Status.FAILED),
            # "" is that of a row that is sending.
            "failure__in": ("", Failure.UNKNOWN),
        }
        changes = {
            "status": Status.SENT,
            "request_id": request_id,
            "sent_at": timezone.now(),
            "expires_at": row.claimed_at + conf.CODE_LIFETIME,
            "failure": "",
        }
        return self._transition(where, changes)

    def _end_attempt(self, row: "PhoneVerification", **changes: Any) -> bool:
        where = {
            "id": row.pk,
            "send_attempts": row.send_attempts,
            "status": Status.SENDING,
        }
        return self._transition(where, changes)

    def requeue(self, row: "PhoneVerification", next_send_at: datetime) -> bool:
        """T3: give the row back, to be sent again from ``next_send_at`` on.

        Only where the request surely never left, or surely was not accepted.
        """
        return self._end_attempt(
            row,
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
        return self._end_attempt(
            row, status=Status.FAILED, failure=failure, provider_code=provider_code
        )

    def begin_check(self, row: "PhoneVerification") -> bool:
        """T7: spend one check before iDenfy is asked, one at a time.

        ``row`` is as its owner read it just now. Returns False, and spends nothing,
        where it has changed meanwhile, its code is not awaited or has expired, no
        checks are left, or a check is in flight. The commit is durable: a crash that
        forgets it would give a guess back. On PostgreSQL, ``seen`` does the same in one
        statement.
        """
        now = timezone.now()
        if not row.checks_left or (row.checking_until or now) > now:
            return False
        where = {
            "id": row.pk,
            "status": Status.SENT,
            "expires_at__gt": now,
            "user": row.user_id,
            "checking_until": row.checking_until,
            "checks": row.checks,
            "checks_wrong": row.checks_wrong,
            "checks_refunded": row.checks_refunded,
        }
        changes = {"checks": row.checks + 1, "checking_until": now + CHECK_LEASE}
        has_begun = self._transition(where, changes, durable_commit(self.db))
        return has_begun and row.apply(changes)

    def mark_verified(
        self,
        row: "PhoneVerification",
        now: datetime,
        announced_at: datetime | None = None,
    ) -> bool:
        """T8. Only after iDenfy answered true for this row's own request_id.

        Takes the first announcement: the caller sends its signal. With
        ``announced_at``, there is nobody to send it to.
        """
        where = {
            "id": row.pk,
            "request_id": row.request_id,
            "status__in": (Status.SENT, Status.EXPIRED, Status.LOCKED),
        }
        changes = {
            "status": Status.VERIFIED,
            "is_verified": True,
            "verified_at": now,
            "announce_attempts": 1,
            "announce_at": now + pacing.ANNOUNCE_LEASE,
            "announced_at": announced_at,
            "checking_until": None,
        }
        return self._transition(where, changes) and row.apply(changes)

    def _end_check(self, row: "PhoneVerification", **changes: Any) -> bool:
        where = {
            "id": row.pk,
            "status": Status.SENT,
            "checks": row.checks,
            "checking_until__isnull": False,
        }
        changes["checking_until"] = None
        return self._transition(where, changes) and row.apply(changes)

    def mark_wrong(self, row: "PhoneVerification") -> bool:
        """T9: iDenfy judged this check and said false."""
        status = Status.SENT if row.checks_left else Status.LOCKED
        wrong = row.checks_wrong + 1
        return self._end_check(row, checks_wrong=wrong, status=status)

    def abandon_check(self, row: "PhoneVerification") -> bool:
        """The answer was lost: the check stays spent, and the next one may begin."""
        return self._end_check(row)

    def refund_check(self, row: "PhoneVerification") -> bool:
        """T10: iDenfy surely did not judge this check."""
        return self._end_check(row, checks_refunded=row.checks_refunded + 1)

    def take_announcement(self, pk: uuid.UUID) -> "PhoneVerification | None":
        """T12, first half: nobody else announces the row until its next try.

        Returns None where the row is not due.
        """
        now, row = timezone.now(), self._table.read(pk)
        if row is None:
            return None
        tries = row.announce_attempts
        pause = pacing.announcement_pause(tries, row.verified_at or now, now)
        where = unannounced_terms(now) | {"id": pk}
        changes = {
            "announce_attempts": tries + 1,
            "announce_at": now + pause,
            "announce_failure": "",
        }
        is_taken = self._transition(where, changes) and row.apply(changes)
        return row if is_taken else None

    def mark_announced(self, row: "PhoneVerification") -> bool:
        """T12, second half: every receiver ran without a failure."""
        where = {"id": row.pk, "announced_at": None}
        # Another try of the same time may have noted what failed.
        changes = {"announced_at": timezone.now(), "announce_failure": ""}
        return self._transition(where, changes)

    def note_announce_failure(self, row: "PhoneVerification", failure: str) -> bool:
        """Part of T12: what failed in this try, if it is still the last one."""
        where = {
            "id": row.pk,
            "announced_at": None,
            "announce_attempts": row.announce_attempts,
        }
        return self._transition(where, {"announce_failure": failure[:200]})

    def note_keeping(self, row: "PhoneVerification", *, is_taken: bool) -> bool:
        """Part of T12: whether the number was another account's, so was not kept."""
        changes = {"number_taken": is_taken}
        return self._transition({"id": row.pk}, changes) and row.apply(changes)
