"""Which account holds a number: one at most, under any race.

Each write is judged by the database, by the unique number and by UPDATEs of rows that
are as they were read. Where one changes nothing, another account was faster, and all
is looked at again.
"""

import logging
from datetime import datetime
from functools import partial
from typing import Any

from django.apps import apps
from django.db import IntegrityError, models, transaction
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from . import events
from .alarms import alarm
from .conf import conf
from .edge import hide_values
from .events import Event
from .exceptions import NotVerified, NumberTaken, UnknownUser
from .models import PhoneVerification, primary_alias
from .phone import MAX_E164, E164Field, PhoneNumber, written
from .signals import phone_released
from .statuses import Status
from .transactions import (
    code_of,
    in_transaction,
    joining_transaction,
    retry_on_abort,
)

logger = logging.getLogger(__name__)

# PostgreSQL, MariaDB and MySQL, SQLite.
UNIQUE_CODES = {"23505", 1062, "SQLITE_CONSTRAINT_UNIQUE"}
# Each look after the first one means that another account was faster.
MAX_LOOKS = 50


class PhoneOwner(models.Model):
    """The number that an account holds, for new fields of a user or a profile.

    A model with fields of its own inherits nothing: its PHONE_NUMBER_FIELD and
    PHONE_CONFIRMED_AT_FIELD name them. Only ``keep_number`` and ``release_number``
    write them: ``phone_confirmed_at`` is when ``phone_number`` was proven.
    """

    phone_number: "models.Field[PhoneNumber | str | None, PhoneNumber | None]" = (
        E164Field(
            _("phone number"),
            max_length=MAX_E164,
            unique=True,
            null=True,
            blank=True,
            editable=False,
        )
    )
    phone_confirmed_at = models.DateTimeField(
        _("phone confirmed at"), null=True, blank=True, editable=False
    )

    class Meta:
        abstract = True


class _Changed(Exception):
    """Another process changed what was read."""


class Owners:
    """The accounts of a model that holds numbers, by its own names of the two fields.

    Each change is that of rows as they were read, else it raises _Changed.
    """

    def __init__(self, model: type[models.Model]) -> None:
        self.model = model
        self.number = getattr(model, "PHONE_NUMBER_FIELD", "phone_number")
        self.confirmed_at = getattr(
            model, "PHONE_CONFIRMED_AT_FIELD", "phone_confirmed_at"
        )

    @property
    def rows(self) -> models.QuerySet[Any]:
        # The base manager also finds an owner that the default one hides.
        return self.model._base_manager.using(primary_alias())

    def values(self, number: str | None, confirmed_at: Any) -> dict[str, Any]:
        """Values of the two fields, as keywords of ``filter`` or ``update``."""
        return {self.number: number, self.confirmed_at: confirmed_at}

    def holds_since(self, owner: models.Model) -> datetime | None:
        """When the number of this row was proven; None where it was not."""
        moment: datetime | None = getattr(owner, self.confirmed_at)
        return moment

    def with_number(self, owner: models.Model, number: str) -> models.QuerySet[Any]:
        """An owner, and all who hold this number, in the order of their keys."""
        holders = Q(pk=owner.pk) | Q(**{self.number: number})
        return self.rows.filter(holders).order_by("pk")

    def release(
        self, held: models.QuerySet[Any], owner: models.Model, number: str
    ) -> None:
        """Take a number from a row in ``held``, and signal it after the commit."""
        nothing = self.values(None, None)
        if not held.filter(pk=owner.pk).update(**nothing):
            raise _Changed
        _set(owner, nothing)
        note = partial(events.log, Event.RELEASED, reason="number")
        transaction.on_commit(note, held.db)
        send = partial(phone_released.send_robust, self.model)
        transaction.on_commit(partial(send, owner=owner, phone_number=number), held.db)


@hide_values
def keep_number(owner: models.Model, verification: PhoneVerification) -> bool:
    """Store a proven number on a saved owner. Joins the caller's transaction.

    Returns False, and changes nothing, where the owner holds a newer proof or the
    verification's user has a newer one of the same purpose; where numbers move, also
    where the number has a newer one. Raises NotVerified; UnknownUser for an owner that
    is not in the database; NumberTaken where another account holds the number: with
    "refuse", where it is confirmed there; with "move", only where the caller's
    transaction cannot see who took it just now.
    """
    if not verification.is_verified or verification.verified_at is None:
        raise NotVerified
    keeping = _Keeping(owner, verification)
    for looks in range(MAX_LOOKS):
        try:
            look = partial(keeping.look, is_first=not looks)
            return retry_on_abort(look, primary_alias())
        except _Changed:
            continue
    raise NumberTaken


class _Keeping:
    """A proven number on its way to an owner."""

    def __init__(self, owner: models.Model, verification: PhoneVerification) -> None:
        self.owner, self.verification = owner, verification
        self.owners = Owners(owner._meta.model)
        self.number = written(verification.phone_number)
        self.values = self.owners.values(self.number, verification.verified_at)

    def look(self, *, is_first: bool) -> bool:
        """Look who holds the number, and store it. Returns False for a newer proof.

        Raises _Changed, NumberTaken or UnknownUser.
        """
        is_joined = in_transaction(primary_alias())
        try:
            # Without locks, the caller's snapshot would show the same again.
            is_kept = self._look_and_move(with_locks=is_joined and not is_first)
        except IntegrityError as error:
            if code_of(error) not in UNIQUE_CODES:
                raise
            # MariaDB leaves a lock to a caller's transaction: a second look may
            # deadlock.
            is_last_look = is_joined and conf.TAKEN_NUMBER != "move"
            raise (NumberTaken if is_last_look else _Changed) from None
        if is_kept:
            _set(self.owner, self.values)
        return is_kept

    def _look_and_move(self, *, with_locks: bool) -> bool:
        rows = self.owners.with_number(self.owner, self.number)
        if with_locks:
            rows = rows.select_for_update()
        with joining_transaction(primary_alias()) as bounds:
            found = {row.pk: row for row in rows}
            if self.owner.pk not in found:
                raise UnknownUser
            own, others = found.pop(self.owner.pk), list(found.values())
            may_keep = self._may_keep(own, others)
            if may_keep:
                self._move(own, others, bounds or Q())
        return may_keep

    def _may_keep(self, own: models.Model, others: list[Any]) -> bool:
        """Whether no newer proof is in the way. Raises NumberTaken."""
        moves, proven_at = conf.TAKEN_NUMBER == "move", self.verification.verified_at
        assert proven_at is not None
        own_since, *others_since = map(self.owners.holds_since, (own, *others))
        if own_since and own_since > proven_at:
            return False
        if has_newer(self.verification, or_number=moves):
            return False
        if any(others_since) and not moves:
            raise NumberTaken
        return not any(since and since > proven_at for since in others_since)

    def _move(self, own: models.Model, others: list[Any], bounds: Any) -> None:
        """Take the number from the others, and give it to its owner."""
        owners = self.owners
        for holder in others:
            held = owners.values(self.number, owners.holds_since(holder))
            owners.release(owners.rows.filter(bounds, **held), holder, self.number)
        as_read = {"pk": own.pk, owners.confirmed_at: owners.holds_since(own)}
        if not owners.rows.filter(bounds, **as_read).update(**self.values):
            raise _Changed


def has_newer(verification: PhoneVerification, *, or_number: bool) -> bool:
    """Whether the user, or the number too, has a newer proof of this purpose."""
    of_user = Q(user=verification.user_id, user__isnull=False)
    of_number = Q(phone_number=verification.phone_number)
    newer = PhoneVerification.objects.filter(
        of_user | of_number if or_number else of_user,
        status=Status.VERIFIED,
        purpose=verification.purpose,
        verified_at__gt=verification.verified_at,
    )
    return newer.exists()


@hide_values
def release_number(owner: models.Model) -> None:
    """Take the number from a saved owner. Joins the caller's transaction."""
    owners = Owners(owner._meta.model)

    def release() -> None:
        with joining_transaction(primary_alias()) as bounds:
            own = owners.rows.filter(bounds or Q(), pk=owner.pk).order_by()
            locked = own.select_for_update()
            number = locked.values_list(owners.number, flat=True).first()
            if number:
                owners.release(owners.rows, owner, written(number))

    retry_on_abort(release, primary_alias())


def _set(owner: models.Model, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(owner, name, value)


def owner_model() -> tuple[type[models.Model], str]:
    """The model that OWNER names, and its field that holds the user, or "pk".

    Raises ValueError where OWNER is malformed, and LookupError for an unknown model.
    """
    parts = str(conf.OWNER).split(".")
    app_label, model_name, user_field = parts if len(parts) != 2 else [*parts, "pk"]
    return apps.get_model(app_label, model_name), user_field


def keep_by_setting(row: PhoneVerification) -> None:
    """Keep a number that a logged-in user proved, once, where OWNER is set.

    Sets ``row.number_taken``.
    """
    if not conf.OWNER or row.number_taken is not None:
        return
    if row.user_id is None or row.is_anonymous or row.purpose:
        return
    model, user_field = owner_model()
    owner = Owners(model).rows.filter(**{user_field: row.user_id}).first()
    if owner is None:
        text = "Verification %s: its user has no %s, so its number was not kept."
        alarm(logger.error, text, row.reference, model._meta.label)
        return
    try:
        keep_number(owner, row)
        is_taken = False
    except NumberTaken:
        is_taken = True
    PhoneVerification.objects.note_keeping(row, is_taken=is_taken)
