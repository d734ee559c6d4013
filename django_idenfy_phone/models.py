"""The tables of verifications, start locks, brakes and the provider gate.

The row of a verification is the entry of the queue, the counted send and the proof at
once. Only ``transitions`` changes its status.
"""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import reduce
from operator import or_
from typing import Any, Self, TypeVar

from django.conf import settings
from django.core.validators import validate_slug
from django.db import models, router
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from . import pacing
from .conf import Limit, conf
from .fields import CountingIndex, ExactCharField
from .pacing import Pause
from .phone import E164Field, PhoneNumber, mask
from .querysets import PhoneVerificationQuerySet
from .records import Heartbeat, Tally  # noqa: F401 - Django looks for models here.
from .starting import StartRequest
from .statuses import (
    ENDED_STATUSES,
    KEY_REFUSED,
    OPEN_STATUSES,
    UNCOUNTED_FAILURES,
    Failure,
    Status,
)
from .transitions import MAX_SEND_ATTEMPTS, RowTransitions

M = TypeVar("M", bound=models.Model)
# A worker whose clock is behind must take a new row at once.
DUE_BACKDATE = timedelta(minutes=10)
# The primary key of the only ProviderGate.
GATE_ID = 1


def primary_alias() -> str:
    """The database that judges every race, whatever replicas a router reads from."""
    return router.db_for_write(PhoneVerification)


class PrimaryManager(models.Manager[M]):
    """Reads from the database that the app writes to, also in the admin and relations.

    A replica that lags behind would answer wrongly. ``using()`` still chooses another.
    """

    @property
    def db(self) -> str:
        return self._db or primary_alias()

    def get_queryset(self) -> models.QuerySet[M]:
        return super().get_queryset().using(self.db)


_Manager = PrimaryManager.from_queryset(PhoneVerificationQuerySet)


class PhoneVerificationManager(RowTransitions, _Manager["PhoneVerification"]):
    """The queries of the queryset, and the transitions of one row."""


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
        # An index of (user, created_at) serves as well.
        db_index=False,
    )
    is_anonymous = models.BooleanField(_("started without a login"), default=False)
    phone_number: "models.Field[PhoneNumber | str, PhoneNumber]" = E164Field(
        _("phone number"), max_length=16
    )
    region = models.CharField(_("region"), max_length=3)
    # The number less its last four digits.
    number_block = models.CharField(_("number block"), max_length=12)
    purpose: "models.Field[str, str]" = ExactCharField(
        _("purpose"), max_length=50, default="", blank=True, validators=[validate_slug]
    )
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
    request_id = ExactCharField(max_length=64, null=True, unique=True, editable=False)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    send_by = models.DateTimeField(_("send by"))
    next_send_at = models.DateTimeField(_("next send at"), default=timezone.now)
    # The gate gave it next_send_at as its own slot.
    slot_reserved = models.BooleanField(_("slot reserved"), default=False)
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
    # What failed in the last try, as "accounts.receivers.remember (ValueError)".
    announce_failure = models.CharField(
        _("why not announced"), max_length=200, default="", blank=True
    )
    redeemed_at = models.DateTimeField(_("redeemed at"), null=True)
    # Whether another account held the number; None where ownership was not asked.
    number_taken = models.BooleanField(_("number taken"), null=True)
    # A keyed hash of user, purpose and key.
    idempotency_key = ExactCharField(
        max_length=64, null=True, unique=True, editable=False
    )
    # When user and network were erased: it goes when no limit counts it any more.
    erased_at = models.DateTimeField(_("erased at"), null=True)

    # When its caller may start again: set where it is known. See services.resend_at.
    resend_at: datetime | None = None
    # The path of its status view: set by the views.
    url: str | None = None
    # Whether a start returned it for an Idempotency-Key that was used before.
    is_repeated = False

    objects = PhoneVerificationManager()

    class Meta:
        verbose_name = _("phone verification")
        verbose_name_plural = _("phone verifications")
        # Rows are written by the app alone: nobody may add, change or delete one.
        default_permissions = ("view",)
        permissions = [
            ("view_full_number", _("Can see full phone numbers")),
            ("unblock", _("Can unblock numbers, users and networks")),
        ]
        constraints = [
            # The two must agree, also when a script writes the row.
            models.CheckConstraint(
                name="idenfy_phone_is_verified",
                condition=Q(status=Status.VERIFIED, is_verified=True)
                | (~Q(status=Status.VERIFIED) & Q(is_verified=False)),
            ),
        ]
        indexes = [
            # The limits count the rows of each within a window.
            CountingIndex(
                fields=["phone_number", "created_at"], name="idenfy_phone_number"
            ),
            CountingIndex(fields=["user", "created_at"], name="idenfy_phone_user"),
            CountingIndex(
                fields=["network", "created_at"], name="idenfy_phone_network"
            ),
            CountingIndex(
                fields=["number_block", "created_at"], name="idenfy_phone_block"
            ),
            CountingIndex(fields=["created_at"], name="idenfy_phone_site"),
            # The sweep looks for open rows, and for rows that were not announced.
            # MariaDB makes plain indexes of the two, since it has no partial ones.
            models.Index(
                fields=["status", "next_send_at"],
                # Not status__in: SQLite would use such an index for no query.
                condition=reduce(or_, (Q(status=status) for status in OPEN_STATUSES)),
                name="idenfy_phone_open",
            ),
            models.Index(
                fields=["announced_at", "announce_at"],
                condition=Q(status=Status.VERIFIED, announced_at=None),
                name="idenfy_phone_unannounced",
            ),
            # The purge looks for erased rows, which are few.
            models.Index(
                fields=["erased_at", "created_at"],
                condition=Q(erased_at__isnull=False),
                name="idenfy_phone_erased",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.reference} ({self.status})"

    @classmethod
    def from_start(cls, start: StartRequest, key_hashes: Sequence[str]) -> Self:
        """A new row, queued and not yet stored. It holds the first of the hashes."""
        now = timezone.now()
        return cls(
            user_id=start.user_id,
            is_anonymous=start.user_id is None,
            phone_number=start.phone_number,
            region=start.region,
            number_block=start.number_block,
            network=start.network,
            purpose=start.purpose,
            idempotency_key=next(iter(key_hashes), None),
            created_at=now,
            next_send_at=now - DUE_BACKDATE,
            send_by=now + conf.SEND_DEADLINE,
        )

    @property
    def reference(self) -> str:
        """The first 8 digits of the id, for logs: the whole id opens the row."""
        return str(self.pk)[:8]

    @property
    def masked_number(self) -> str:
        """Such as "+370******67"."""
        return mask(self.phone_number)

    @property
    def checks_left(self) -> int:
        """How many more codes can be tried: 0 unless a code is awaited.

        MAX_CHECKS less the checks that were not refunded. With the refunded ones, no
        row gets more than twice MAX_CHECKS checks.
        """
        if self.status != Status.SENT:
            return 0
        left = conf.MAX_CHECKS - (self.checks - self.checks_refunded)
        return max(0, min(left, 2 * conf.MAX_CHECKS - self.checks))

    def apply(self, changes: Mapping[str, Any]) -> bool:
        """Change the instance as its stored row was changed. Returns True."""
        for name, value in changes.items():
            setattr(self, name, value)
        return True

    def is_shown_to(self, user_id: Any) -> bool:
        """Whether this user may see it; ``user_id`` is None without a login.

        Anybody who knows the id of an anonymous row may see it until it is redeemed.
        The row of a deleted user has no user and is not anonymous, or was redeemed: it
        belongs to nobody.
        """
        if self.user_id is not None:
            return bool(self.user_id == user_id)
        return self.is_anonymous and self.redeemed_at is None

    def is_counted(self, *, with_account_refusals: bool = False) -> bool:
        """Whether the limits count it: the queryset's ``counted``, for one row."""
        if self.status != Status.FAILED or self.failure not in UNCOUNTED_FAILURES:
            return True
        is_refused = self.failure == Failure.ACCOUNT
        return (
            with_account_refusals and is_refused and self.provider_code != KEY_REFUSED
        )

    def is_due(self, now: datetime) -> bool:
        """Whether it may be sent now, if the gate gives a slot."""
        return (
            self.status == Status.QUEUED
            and self.next_send_at <= now < self.send_by
            and self.send_attempts < MAX_SEND_ATTEMPTS
        )

    def is_late(self, now: datetime) -> bool:
        """Whether ``settle`` would end it."""
        match self.status:
            case Status.QUEUED:
                return self.send_by <= now
            case Status.SENDING:
                return self.lease_until is not None and self.lease_until <= now
            case Status.SENT:
                has_ended = self.expires_at is not None and self.expires_at <= now
                is_idle = self.checking_until is None or self.checking_until <= now
                return is_idle and (has_ended or not self.checks_left)
        return False

    @property
    def has_lost_check(self) -> bool:
        """Whether a check was made whose answer is not known.

        It may have used the code up: iDenfy answers false to a code "already
        validated".
        """
        in_flight = self.checking_until and self.checking_until > timezone.now()
        unanswered = self.checks - self.checks_wrong - self.checks_refunded
        lost = unanswered - 1 if in_flight else unanswered
        return lost > 0 and not self.is_verified

    @property
    def code_spent(self) -> bool:
        """Whether only a new code can help."""
        may_be_used_up = self.has_lost_check and self.checks_wrong > 0
        return self.status in ENDED_STATUSES or may_be_used_up


class StartLock(models.Model):
    """What a start locks while it counts: a number, block, user or network."""

    # A keyed hash: see limits.
    key = ExactCharField(max_length=64, primary_key=True)
    locked_at = models.DateTimeField()
    # Set by an operator: earlier rows no longer count.
    cleared_at = models.DateTimeField(null=True)

    objects = PrimaryManager["StartLock"]()

    class Meta:
        verbose_name = _("start lock")
        verbose_name_plural = _("start locks")
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.key)[:8]


class RegionBrake(models.Model):
    """The brake of a region: see brake. Made when it engages for the first time."""

    region = ExactCharField(max_length=3, primary_key=True)
    engaged_at = models.DateTimeField(null=True)
    # Its end, also by an operator: only later sends count.
    engaged_until = models.DateTimeField(null=True)
    # Of these numbers, so many confirmed when it engaged.
    numbers = models.PositiveIntegerField(default=0)
    confirmed = models.PositiveIntegerField(default=0)
    # Those of newcomers since then: what it would have refused where it only observes.
    starts = models.PositiveIntegerField(default=0)

    objects = PrimaryManager["RegionBrake"]()

    class Meta:
        verbose_name = _("brake of a region")
        verbose_name_plural = _("brakes of regions")
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.region)


class ProviderGate(models.Model):
    """How fast all workers together may ask iDenfy. One row, made on demand.

    Its methods only read: they hand the stored times to ``pacing``. ``gate`` writes.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=GATE_ID)
    acquired_at = models.DateTimeField(null=True)
    # GCRA's theoretical arrival times: by the slots so far, and by the sends so far.
    theoretical_arrival_at = models.DateTimeField(null=True)
    sent_arrival_at = models.DateTimeField(null=True)
    # The next slot for rows that came in their own and found no room.
    late_slot_at = models.DateTimeField(null=True)
    sends_paused_until = models.DateTimeField(null=True)
    account_paused_until = models.DateTimeField(null=True)
    checks_paused_until = models.DateTimeField(null=True)
    # Refusals of the account in a row, and where they came from: see gate.
    account_faults = models.PositiveIntegerField(default=0)
    account_fault_sources = models.TextField(default="")
    alarmed_at = models.DateTimeField(null=True)

    objects = PrimaryManager["ProviderGate"]()

    class Meta:
        verbose_name = _("provider gate")
        verbose_name_plural = _("provider gates")
        default_permissions = ()

    def __str__(self) -> str:
        return str(_("provider gate"))

    def pause_ends_at(self, pause: Pause, now: datetime) -> datetime:
        """When this pause ends; ``now`` where there is none."""
        until = {
            Pause.SENDS: self.sends_paused_until,
            Pause.ACCOUNT: self.account_paused_until,
            Pause.CHECKS: self.checks_paused_until,
        }[pause]
        return pacing.pause_ends_at(pause, until, now)

    def sends_resume_at(self, now: datetime) -> datetime:
        """When both pauses of sends are over; ``now`` where there is none."""
        return max(
            self.pause_ends_at(Pause.SENDS, now),
            self.pause_ends_at(Pause.ACCOUNT, now),
        )

    def theoretical_arrival(self, now: datetime, rate: Limit) -> datetime:
        """GCRA's theoretical arrival time of the next slot."""
        by_slots = pacing.theoretical_arrival(
            self.theoretical_arrival_at,
            self.sends_resume_at(now),
            now,
            rate,
            conf.SEND_DEADLINE,
        )
        return max(by_slots, self.sent_arrival(now, rate))

    def sent_arrival(self, now: datetime, rate: Limit) -> datetime:
        """GCRA's theoretical arrival time of the next send that has a slot."""
        return pacing.theoretical_arrival(
            self.sent_arrival_at, self.sends_resume_at(now), now, rate
        )

    def next_slot(self, now: datetime) -> datetime:
        """When the next send may leave: ``now``, or later."""
        resumes_at = self.sends_resume_at(now)
        if (rate := conf.SEND_RATE) is None:
            return resumes_at
        return pacing.slot_for(self.theoretical_arrival(now, rate), resumes_at, rate)
