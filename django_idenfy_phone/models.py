"""The row is the queue, the limit and the proof; each transition is one UPDATE."""

import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import reduce
from operator import or_
from typing import Any, Self, TypeVar

from django.conf import settings
from django.db import models, router, transaction
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .conf import Limit, conf
from .phone import E164Field, mask
from .transactions import retried

T = TypeVar("T")

SEND_LEASE = timedelta(seconds=45)
CHECK_LEASE = timedelta(seconds=20)
MAX_SEND_ATTEMPTS = 5
A_DAY = timedelta(days=1)
MINUTES_A_DAY = A_DAY // timedelta(minutes=1)
# So long may receivers fail before a person is called.
ANNOUNCE_PATIENCE = A_DAY
SEND_BURST = 20
MAX_ACCOUNT_FAULTS = 3
ACCOUNT_PAUSE = timedelta(seconds=60)
ALARM_PAUSE = timedelta(seconds=60)
# Clocks that differ by less are taken as right.
CLOCKS_DIFFER = timedelta(minutes=1)
# The client cuts a Retry-After at 5 minutes.
LONGEST_PAUSES = {
    "sends": timedelta(minutes=5),
    "checks": timedelta(minutes=5),
    "account": ACCOUNT_PAUSE,
}


class Status(models.TextChoices):
    QUEUED = "queued", _("queued")
    # Stored, not yet handed to iDenfy.
    SENDING = "sending", _("sending")
    # One worker holds it, until lease_until.
    SENT = "sent", _("sent")
    # iDenfy gave a request_id; the code is awaited.
    VERIFIED = "verified", _("verified")
    # iDenfy said is_verified: true for this row's own request_id.
    FAILED = "failed", _("failed")
    # No usable code came of it; failure says why.
    EXPIRED = "expired", _("expired")
    # Sent, and nobody proved it in time.
    LOCKED = "locked", _("locked")
    # Sent, and all its checks are used up.


OPEN = (Status.QUEUED, Status.SENDING, Status.SENT)


class Failure(models.TextChoices):
    NUMBER_REFUSED = "number_refused", _("number refused by iDenfy")
    ACCOUNT = "account", _("key, contract or credits: for the operator")
    RATE_LIMITED = "rate_limited", _("rate limit of iDenfy")
    UNREACHABLE = "unreachable", _("iDenfy could not be reached")
    UNKNOWN = "unknown", _("it may have been sent")
    # Never sent again by a machine: the SMS may have left and is paid.
    TOO_LATE = "too_late", _("not sent in time")


# Nothing was sent, through no fault of the user's: such a row holds its number up for
# seconds only.
FREE = (Failure.ACCOUNT, Failure.UNREACHABLE, Failure.RATE_LIMITED, Failure.TOO_LATE)
FREE_COOLDOWN = timedelta(seconds=10)


class PhoneVerificationQuerySet(models.QuerySet["PhoneVerification"]):
    def primary(self) -> Self:
        """The database that judges every race, whatever replicas a router reads."""
        return self.using(router.db_for_write(self.model))

    def verified(self, *, user: Any, phone_number: str) -> Self:
        """Rows in which this user proved this number.

        Rows are purged after a time: keep the fact on a model of your own.
        """
        return self.exclude(user=None).filter(
            user_id=user.pk, phone_number=phone_number, status=Status.VERIFIED
        )

    def owned_by(self, user_id: Any) -> Self:
        """A user's rows; an anonymous row is any holder's of its id until redeemed.

        ``user_id`` is None for a caller who is not logged in. The rows of a deleted
        user have neither a user nor ``is_anonymous``: they belong to nobody.
        """
        anonymous = Q(is_anonymous=True, user=None, redeemed_at=None)
        return self.filter(
            anonymous if user_id is None else anonymous | Q(user_id=user_id)
        )

    def counted(self) -> Self:
        """Rows that sent, may have sent, or are still under way."""
        return self.exclude(status=Status.FAILED, failure__in=FREE)

    def _move(self, **changes: Any) -> bool:
        """Whether this UPDATE changed a row. Committed when it returns."""

        def move() -> bool:
            with transaction.atomic(using=self.db, durable=True):
                return self.update(**changes) > 0

        return retried(move, self.db)

    def _move_and_read(
        self, pk: uuid.UUID, **changes: Any
    ) -> "PhoneVerification | None":
        def move() -> "PhoneVerification | None":
            with transaction.atomic(using=self.db, durable=True):
                moved = self.filter(pk=pk).update(**changes)
                return self.model.objects.using(self.db).get(pk=pk) if moved else None

        return retried(move, self.db)

    def claim(self, pk: uuid.UUID) -> "PhoneVerification | None":
        """T1, T1b or T6: take a due row for sending, or the gate's next slot for it.

        Returns the row as it was left: sending for SEND_LEASE, queued until its slot,
        or failed where that comes too late. None where there was nothing to do.
        """

        def claim() -> "PhoneVerification | None":
            with transaction.atomic(using=self.db, durable=True):
                gate = ProviderGate.hold(self.db)
                now = timezone.now()
                due = self.filter(
                    pk=pk,
                    status=Status.QUEUED,
                    next_send_at__lte=now,
                    send_by__gt=now,
                    send_attempts__lt=MAX_SEND_ATTEMPTS,
                )
                row = due.first()
                if row is None or not due.update(**gate.admit(row, now)):
                    return None
                gate.save(using=self.db)
                return self.model.objects.using(self.db).get(pk=pk)

        return retried(claim, self.db)

    def _attempt(self, row: "PhoneVerification") -> Self:
        # send_attempts only grows, so it tells whether the attempt is still mine.
        return self.filter(pk=row.pk, send_attempts=row.send_attempts)

    def mark_sent(self, row: "PhoneVerification", request_id: str) -> bool:
        """T2. A late answer lifts a row that was given up as unknown.

        Raises IntegrityError where another row has this request_id.
        """
        given_up = Q(status=Status.FAILED, failure=Failure.UNKNOWN)
        assert row.claimed_at is not None
        return (
            self._attempt(row)
            .filter(Q(status=Status.SENDING) | given_up)
            ._move(
                status=Status.SENT,
                request_id=request_id,
                sent_at=timezone.now(),
                expires_at=row.claimed_at + conf.CODE_LIFETIME,
                failure="",
            )
        )

    def requeue(self, row: "PhoneVerification", next_send_at: datetime) -> bool:
        """T3: only when the request provably never left or never counted."""
        return (
            self._attempt(row)
            .filter(status=Status.SENDING)
            ._move(
                status=Status.QUEUED,
                next_send_at=next_send_at,
                slot_held=False,
                claimed_at=None,
                lease_until=None,
            )
        )

    def fail(self, row: "PhoneVerification", failure: str, provider_code: str) -> bool:
        """T4 and T5: end an attempt."""
        return (
            self._attempt(row)
            .filter(status=Status.SENDING)
            ._move(
                status=Status.FAILED, failure=failure, provider_code=provider_code[:64]
            )
        )

    def settle(self) -> list[uuid.UUID]:
        """T5, T6 and T11: end what is late. Returns the ids that failed by it."""
        now = timezone.now()
        idle = Q(checking_until=None) | Q(checking_until__lte=now)
        no_checks_left = Q(checks__gte=F("checks_refunded") + conf.MAX_CHECKS) | Q(
            checks__gte=2 * conf.MAX_CHECKS
        )
        endings: list[tuple[Q, dict[str, str]]] = [
            (
                Q(status=Status.SENDING, lease_until__lte=now),
                {"status": Status.FAILED, "failure": Failure.UNKNOWN},
            ),
            (
                Q(status=Status.QUEUED, send_by__lte=now),
                {"status": Status.FAILED, "failure": Failure.TOO_LATE},
            ),
            (Q(status=Status.SENT) & idle & no_checks_left, {"status": Status.LOCKED}),
            (
                Q(status=Status.SENT, expires_at__lte=now) & idle,
                {"status": Status.EXPIRED},
            ),
        ]
        # One SELECT an ending, so that the index of open rows serves.
        first, *others = (
            self.filter(ending).order_by().values_list("pk", flat=True)
            for ending, _ in endings
        )
        failed = []
        for pk in list(first.union(*others)):
            for where, changes in endings:
                if self.filter(where, pk=pk)._move(**changes):
                    failed += [pk] if "failure" in changes else []
                    break
        return failed

    def take_check(self, pk: uuid.UUID, user_id: Any) -> "PhoneVerification | None":
        """T7: spend one check before iDenfy is asked, one at a time."""
        now = timezone.now()
        return (
            self.owned_by(user_id)
            .filter(
                Q(checking_until=None) | Q(checking_until__lte=now),
                status=Status.SENT,
                expires_at__gt=now,
                checks__lt=F("checks_refunded") + conf.MAX_CHECKS,
            )
            .filter(checks__lt=2 * conf.MAX_CHECKS)
            ._move_and_read(
                pk, checks=F("checks") + 1, checking_until=now + CHECK_LEASE
            )
        )

    def mark_verified(self, row: "PhoneVerification") -> bool:
        """T8: only after iDenfy's own true for this row's request_id."""
        now = timezone.now()
        return self.filter(
            pk=row.pk,
            request_id=row.request_id,
            status__in=(Status.SENT, Status.EXPIRED, Status.LOCKED),
        )._move(
            status=Status.VERIFIED,
            is_verified=True,
            verified_at=now,
            announce_at=now,
            checking_until=None,
        )

    def _check(self, row: "PhoneVerification") -> Self:
        return self.filter(
            pk=row.pk,
            status=Status.SENT,
            checks=row.checks,
            checking_until__isnull=False,
        )

    def mark_wrong(self, row: "PhoneVerification") -> bool:
        """T9: iDenfy judged this check and said false."""
        return self._check(row)._move(
            checks_wrong=F("checks_wrong") + 1, checking_until=None
        )

    def lose_check(self, row: "PhoneVerification") -> bool:
        """The answer was lost: the check stays spent, and the next one may be made."""
        return self._check(row)._move(checking_until=None)

    def refund_check(self, row: "PhoneVerification") -> bool:
        """T10: iDenfy provably did not judge this check."""
        return self._check(row)._move(
            checks_refunded=F("checks_refunded") + 1, checking_until=None
        )

    def redeemable(self, user_id: Any, purpose: str) -> Self:
        """Fresh proofs of this user, or of nobody yet, that were not spent."""
        return self.owned_by(user_id).filter(
            status=Status.VERIFIED,
            redeemed_at=None,
            purpose=purpose,
            verified_at__gt=timezone.now() - conf.REDEEM_WITHIN,
        )

    def redeem(self, pk: uuid.UUID, user_id: Any, purpose: str) -> bool:
        """T13: spend a proof, once. Joins a caller's transaction."""
        redeemable = self.redeemable(user_id, purpose).filter(pk=pk)
        return redeemable.update(redeemed_at=timezone.now(), user_id=user_id) > 0

    def unannounced(self) -> Self:
        return self.filter(
            status=Status.VERIFIED,
            announced_at=None,
            announce_at__lte=timezone.now(),
        )

    def take_announcement(self, pk: uuid.UUID) -> "PhoneVerification | None":
        """T12, first half. The next try waits a minute, then ever twice as long.

        One comes when ANNOUNCE_PATIENCE ends, and from then on one a day.
        """
        row = self.unannounced().filter(pk=pk).first()
        if row is None:
            return None
        now = timezone.now()
        patience = (row.verified_at or now) + ANNOUNCE_PATIENCE - now
        pause = timedelta(minutes=min(2**row.announce_attempts, MINUTES_A_DAY))
        pause = min(pause, patience) if patience > timedelta(0) else A_DAY
        return self.unannounced()._move_and_read(
            pk, announce_attempts=F("announce_attempts") + 1, announce_at=now + pause
        )

    def mark_announced(self, row: "PhoneVerification") -> bool:
        """T12, second half: every receiver ran without a failure."""
        return self.filter(pk=row.pk, announced_at=None)._move(
            announced_at=timezone.now()
        )


class PhoneVerification(models.Model):
    """One row is one SMS. A resend is a new row."""

    Status = Status
    Failure = Failure

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("user"),
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="phone_verifications",
    )
    is_anonymous = models.BooleanField(_("started without a login"), default=False)
    phone_number = E164Field(_("phone number"), max_length=16)
    region = models.CharField(_("region"), max_length=3)
    # The number less its last four digits.
    number_block = models.CharField(_("number block"), max_length=12)
    purpose = models.SlugField(_("purpose"), default="", blank=True, db_index=False)
    # An IPv4 address, or an IPv6 network of 64 bits.
    network = models.CharField(_("network"), max_length=43, default="", blank=True)
    status = models.CharField(
        _("status"), max_length=8, choices=Status, default=Status.QUEUED
    )
    is_verified = models.BooleanField(_("verified"), default=False)
    failure = models.CharField(
        _("failure"), max_length=14, choices=Failure, default="", blank=True
    )
    provider_code = models.CharField(
        _("iDenfy's identifier"), max_length=64, default="", blank=True
    )
    # Whoever holds it can have codes checked: it never leaves the server.
    request_id = models.CharField(max_length=64, null=True, unique=True, editable=False)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    send_by = models.DateTimeField(_("send by"))
    next_send_at = models.DateTimeField(_("next send at"), default=timezone.now)
    # The gate gave it next_send_at as its own slot.
    slot_held = models.BooleanField(_("slot held"), default=False)
    claimed_at = models.DateTimeField(_("claimed at"), null=True)
    lease_until = models.DateTimeField(_("leased until"), null=True)
    send_attempts = models.PositiveSmallIntegerField(_("send attempts"), default=0)
    sent_at = models.DateTimeField(_("sent at"), null=True)
    expires_at = models.DateTimeField(_("expires at"), null=True)
    checks = models.PositiveSmallIntegerField(_("checks"), default=0)
    checks_wrong = models.PositiveSmallIntegerField(_("wrong checks"), default=0)
    checks_refunded = models.PositiveSmallIntegerField(_("refunded checks"), default=0)
    checking_until = models.DateTimeField(_("checking until"), null=True)
    verified_at = models.DateTimeField(_("verified at"), null=True)
    announced_at = models.DateTimeField(_("announced at"), null=True)
    announce_at = models.DateTimeField(_("announce at"), null=True)
    announce_attempts = models.PositiveSmallIntegerField(
        _("announcements tried"), default=0
    )
    redeemed_at = models.DateTimeField(_("redeemed at"), null=True)
    # A keyed hash of user, purpose and key.
    idempotency_key = models.CharField(
        max_length=64, null=True, unique=True, editable=False
    )

    objects = PhoneVerificationQuerySet.as_manager()

    class Meta:
        verbose_name = _("phone verification")
        verbose_name_plural = _("phone verifications")
        constraints = [
            # Nobody, not even a script, stores one without the other.
            models.CheckConstraint(
                name="idenfy_phone_is_verified",
                condition=Q(status=Status.VERIFIED, is_verified=True)
                | (~Q(status=Status.VERIFIED) & Q(is_verified=False)),
            ),
        ]
        indexes = [
            # The limits count the newest rows of each.
            models.Index(
                fields=["phone_number", "created_at"], name="idenfy_phone_number"
            ),
            models.Index(fields=["user", "created_at"], name="idenfy_phone_user"),
            models.Index(fields=["network", "created_at"], name="idenfy_phone_network"),
            models.Index(
                fields=["number_block", "created_at"], name="idenfy_phone_block"
            ),
            models.Index(fields=["created_at"], name="idenfy_phone_site"),
            # The sweep looks for open rows, and for those that nobody was told of.
            # MariaDB knows no conditions and makes plain ones.
            models.Index(
                fields=["status", "next_send_at"],
                # And not status__in, which SQLite finds in no query.
                condition=reduce(or_, (Q(status=status) for status in OPEN)),
                name="idenfy_phone_open",
            ),
            models.Index(
                fields=["announced_at", "announce_at"],
                condition=Q(status=Status.VERIFIED, announced_at=None),
                name="idenfy_phone_unannounced",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.pk} ({self.status})"

    @property
    def masked_number(self) -> str:
        """Such as "+370******67"."""
        return mask(self.phone_number.as_e164)

    @property
    def checks_left(self) -> int:
        """How many more codes can be tried: 0 unless a code is awaited."""
        if self.status != Status.SENT:
            return 0
        left = conf.MAX_CHECKS - (self.checks - self.checks_refunded)
        return max(0, min(left, 2 * conf.MAX_CHECKS - self.checks))

    @property
    def has_lost_check(self) -> bool:
        """Whether a check was made whose answer is not known.

        It may have used the code up: iDenfy answers false to a code "already
        validated".
        """
        under_way = self.checking_until and self.checking_until > timezone.now()
        unanswered = self.checks - self.checks_wrong - self.checks_refunded
        return unanswered > bool(under_way) and not self.is_verified

    @property
    def code_spent(self) -> bool:
        """Whether only a new code can help."""
        ended = self.status in (Status.FAILED, Status.EXPIRED, Status.LOCKED)
        return ended or (self.has_lost_check and self.checks_wrong > 0)

    @property
    def is_counted(self) -> bool:
        """Whether it sent, may have sent, or is still under way."""
        return self.status != Status.FAILED or self.failure not in FREE

    @property
    def resend_at(self) -> datetime:
        """When this row alone allows a new start for its number."""
        cooldown = timedelta(seconds=conf.RESEND_COOLDOWN[0])
        if not self.is_counted:
            cooldown = min(cooldown, FREE_COOLDOWN)
        return self.created_at + cooldown


class StartLock(models.Model):
    """What a start holds while it counts: a number, a user or a network."""

    key = models.CharField(max_length=64, primary_key=True)
    locked_at = models.DateTimeField()
    # Set by an operator: a number's earlier rows no longer count.
    cleared_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name = _("start lock")
        verbose_name_plural = _("start locks")

    def __str__(self) -> str:
        return self.key[:8]


class ProviderGate(models.Model):
    """How fast all workers together may ask iDenfy. One row, made on demand.

    Sends are paced by GCRA: ``next_slot_at`` is the theoretical arrival time.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    held_at = models.DateTimeField(null=True)
    next_slot_at = models.DateTimeField(null=True)
    sends_paused_until = models.DateTimeField(null=True)
    account_paused_until = models.DateTimeField(null=True)
    checks_paused_until = models.DateTimeField(null=True)
    account_faults = models.PositiveIntegerField(default=0)
    alarmed_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name = _("provider gate")
        verbose_name_plural = _("provider gates")

    def __str__(self) -> str:
        return str(_("provider gate"))

    @classmethod
    def hold(cls, using: str) -> "ProviderGate":
        """The gate, locked until the transaction ends, on SQLite too."""
        gates = cls.objects.using(using).filter(pk=1)
        now = timezone.now()
        if not gates.update(held_at=now):
            fresh = [ProviderGate(pk=1)]
            ProviderGate.objects.using(using).bulk_create(fresh, ignore_conflicts=True)
            gates.update(held_at=now)
        return gates.get()

    @classmethod
    def look(cls) -> "ProviderGate":
        """The gate as it is now, not locked."""
        rows = cls.objects.using(PhoneVerification.objects.primary().db)
        return rows.filter(pk=1).first() or cls()

    def admit(self, row: PhoneVerification, now: datetime) -> dict[str, Any]:
        """What becomes of a due row: T1, T1b or T6. Takes a slot unless it is T6."""
        paused = self.resumes_at(now) > now
        if row.slot_held and not paused:
            return _sending(now)
        slot = self.next_slot(now)
        if slot >= row.send_by:
            return {"status": Status.FAILED, "failure": Failure.TOO_LATE}
        self._take_slot(now)
        if slot <= now:
            return _sending(now)
        return {"next_send_at": slot, "slot_held": True}

    def resumes_at(self, now: datetime) -> datetime:
        """When sends may go on; ``now`` where nothing pauses them."""
        return max(self.end_of_pause("sends", now), self.end_of_pause("account", now))

    def end_of_pause(self, kind: str, now: datetime) -> datetime:
        """Of "sends", "account" or "checks"; ``now`` where there is none."""
        until: datetime | None = getattr(self, f"{kind}_paused_until")
        return _ahead(until, now, LONGEST_PAUSES[kind])

    def next_slot(self, now: datetime) -> datetime:
        """When the next send may leave."""
        earliest = self.resumes_at(now)
        rate = conf.SEND_RATE
        if rate is None:
            return earliest
        burst = rate.interval * (SEND_BURST - 1)
        return max(earliest, self._arrival(now, rate) - burst)

    def _arrival(self, now: datetime, rate: Limit) -> datetime:
        earliest = self.resumes_at(now)
        longest = max(earliest - now, conf.SEND_DEADLINE) + rate.interval * SEND_BURST
        return max(earliest, _ahead(self.next_slot_at, now, longest))

    def _take_slot(self, now: datetime) -> None:
        if rate := conf.SEND_RATE:
            self.next_slot_at = self._arrival(now, rate) + rate.interval

    def unavailable_for(self, now: datetime) -> float | None:
        """Seconds until a start makes sense: its row could not be sent in time."""
        # A slot at the very deadline is too late.
        useful_at = self.next_slot(now) - conf.SEND_DEADLINE + timedelta(milliseconds=1)
        useful_at = max(useful_at, self.end_of_pause("account", now))
        return (useful_at - now).total_seconds() if useful_at > now else None

    @classmethod
    def change(cls, change: Callable[["ProviderGate"], T]) -> T:
        """Change the gate under its lock, in a transaction of its own."""
        using = PhoneVerification.objects.primary().db

        def work() -> T:
            with transaction.atomic(using=using, durable=True):
                gate = cls.hold(using)
                result = change(gate)
                gate.save(using=using)
                return result

        return retried(work, using)

    def pause_sends(self, until: datetime) -> None:
        """No sends until then, and no burst after it."""
        now = timezone.now()
        self.sends_paused_until = max(until, self.end_of_pause("sends", now))
        if rate := conf.SEND_RATE:
            burst = rate.interval * (SEND_BURST - 1)
            arrival = self._arrival(now, rate)
            self.next_slot_at = max(arrival, self.sends_paused_until + burst)

    def pause_checks(self, until: datetime) -> None:
        paused_until = self.end_of_pause("checks", timezone.now())
        self.checks_paused_until = max(until, paused_until)

    def note_account_fault(self, now: datetime, *, is_certain: bool) -> bool:
        """Whether to alarm: once a minute.

        A pause at once where the key is refused; else after three in a row, since one
        may concern one destination only.
        """
        self.account_faults += 1
        if is_certain or self.account_faults >= MAX_ACCOUNT_FAULTS:
            self.account_paused_until = now + ACCOUNT_PAUSE
        if self.alarmed_at and timedelta(0) <= now - self.alarmed_at < ALARM_PAUSE:
            return False
        self.alarmed_at = now
        return True

    @classmethod
    def note_success(cls) -> None:
        """Account faults in a row start anew."""
        gates = cls.objects.using(PhoneVerification.objects.primary().db)
        gates.filter(pk=1, account_faults__gt=0).update(account_faults=0)


def _ahead(moment: datetime | None, now: datetime, longest: timedelta) -> datetime:
    """``moment``, or ``now`` where it is past, or further ahead than it can be.

    Then a host whose clock is wrong wrote it, or all clocks were set back since: it
    must not stop the others.
    """
    is_true = moment is not None and now < moment <= now + longest + CLOCKS_DIFFER
    return moment if moment and is_true else now


def _sending(now: datetime) -> dict[str, Any]:
    return {
        "status": Status.SENDING,
        "send_attempts": F("send_attempts") + 1,
        "claimed_at": now,
        "lease_until": now + SEND_LEASE,
        "slot_held": False,
    }
