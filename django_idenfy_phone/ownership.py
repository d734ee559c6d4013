"""Which account holds a number: one at most, under any race.

Each write is judged by the database, by the unique number and by UPDATEs of rows that
are as they were read. Where one changes nothing, another account was faster, and all
is looked at again.
"""

import logging
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from django.apps import apps
from django.db import IntegrityError, models, transaction
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from .conf import conf
from .edge import hide_values
from .exceptions import NotVerified, NumberTaken, UnknownUser
from .models import PhoneVerification, primary_alias
from .phone import MAX_E164, E164Field, written
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

    phone_number = E164Field(
        _("phone number"),
        max_length=MAX_E164,
        unique=True,
        null=True,
        blank=True,
        editable=False,
    )
    phone_confirmed_at = models.DateTimeField(
        _("phone confirmed at"), null=True, blank=True, editable=False
    )

    class Meta:
        abstract = True


@dataclass(frozen=True)
class OwnerFields:
    """The names of an owner's two fields."""

    number: str
    confirmed_at: str

    def named(self, number: str | None, confirmed_at: Any) -> dict[str, Any]:
        """Values of the two as keywords of ``filter`` or ``update``."""
        return {self.number: number, self.confirmed_at: confirmed_at}


def fields_of(model: type[models.Model]) -> OwnerFields:
    return OwnerFields(
        getattr(model, "PHONE_NUMBER_FIELD", "phone_number"),
        getattr(model, "PHONE_CONFIRMED_AT_FIELD", "phone_confirmed_at"),
    )


class _Changed(Exception):
    """Another process changed what was read."""


@hide_values
def keep_number(owner: models.Model, verification: PhoneVerification) -> bool:
    """Store a proven number on a saved owner. Joins the caller's transaction.

    Returns False, and changes nothing, where the owner holds a newer proof or the
    verification's user has a newer one of the same purpose; where numbers move, also
    where the number has a newer one. Raises NotVerified; UnknownUser for an owner that
    is not in the database; NumberTaken where numbers do not move, and another account
    holds this one confirmed, or where they move, and the snapshot of the caller's
    transaction cannot show who took this one just now.
    """
    if not verification.is_verified:
        raise NotVerified
    for looks in range(MAX_LOOKS):
        try:
            keep = partial(_keep, owner, verification, is_first_look=not looks)
            return retry_on_abort(keep, primary_alias())
        except _Changed:
            continue
    raise NumberTaken


def _keep(
    owner: models.Model, verification: PhoneVerification, *, is_first_look: bool
) -> bool:
    using, model = primary_alias(), owner._meta.model
    is_joined, refuses = in_transaction(using), conf.TAKEN_NUMBER != "move"
    fields, number = fields_of(model), written(verification.phone_number)
    look = _rows_of(model).filter(Q(pk=owner.pk) | Q(**{fields.number: number}))
    if is_joined and not is_first_look:
        # The snapshot of the caller's transaction would show the same again.
        look = look.select_for_update()
    try:
        with joining_transaction(using) as bounds:
            found = {row.pk: row for row in look.order_by("pk")}
            if owner.pk not in found:
                raise UnknownUser
            own, others = found.pop(owner.pk), list(found.values())
            may_keep = _may_keep(own, others, verification, refuses)
            if may_keep:
                _move(own, others, verification, bounds or Q())
    except IntegrityError as error:
        if code_of(error) not in UNIQUE_CODES:
            raise
        # MariaDB leaves a lock to a caller's transaction: a second look may deadlock.
        raise (NumberTaken if is_joined and refuses else _Changed) from None
    if may_keep:
        _set(owner, fields.named(number, verification.verified_at))
    return may_keep


def _may_keep(
    own: models.Model,
    others: list[Any],
    verification: PhoneVerification,
    refuses: bool,
) -> bool:
    """Whether no newer proof is in the way. Raises NumberTaken."""
    confirmed_at = fields_of(own._meta.model).confirmed_at
    proven_at = verification.verified_at
    if _is_newer(getattr(own, confirmed_at), proven_at):
        return False
    if _has_newer(verification, or_number=not refuses):
        return False
    held_since = [getattr(holder, confirmed_at) for holder in others]
    if refuses and any(held_since):
        raise NumberTaken
    return not any(_is_newer(moment, proven_at) for moment in held_since)


def _move(
    own: models.Model, others: list[Any], verification: PhoneVerification, bounds: Any
) -> None:
    """Take the number from others and give it to its owner, as they were read."""
    owners, fields = _rows_of(own._meta.model), fields_of(own._meta.model)
    number = written(verification.phone_number)
    for holder in others:
        held = fields.named(number, getattr(holder, fields.confirmed_at))
        _release(owners.filter(bounds, **held), holder, number)
    as_read = {"pk": own.pk, fields.confirmed_at: getattr(own, fields.confirmed_at)}
    values = fields.named(number, verification.verified_at)
    if not owners.filter(bounds, **as_read).update(**values):
        raise _Changed


def _is_newer(confirmed_at: datetime | None, proven_at: datetime | None) -> bool:
    return bool(confirmed_at and proven_at and confirmed_at > proven_at)


def _has_newer(verification: PhoneVerification, *, or_number: bool) -> bool:
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
    retry_on_abort(partial(_release_own, owner), primary_alias())


def _release_own(owner: models.Model) -> None:
    fields, owners = fields_of(owner._meta.model), _rows_of(owner._meta.model)
    with joining_transaction(primary_alias()) as bounds:
        own = owners.filter(bounds or Q(), pk=owner.pk).order_by()
        number = own.select_for_update().values_list(fields.number, flat=True).first()
        if number:
            _release(owners, owner, written(number))


def _release(held: models.QuerySet[Any], owner: models.Model, number: str) -> None:
    """Take a number from its owner's row in ``held``, and signal it after the commit.

    Raises _Changed where the row is not there.
    """
    nothing = fields_of(owner._meta.model).named(None, None)
    if not held.filter(pk=owner.pk).update(**nothing):
        raise _Changed
    _set(owner, nothing)
    send = partial(phone_released.send_robust, owner._meta.model)
    transaction.on_commit(partial(send, owner=owner, phone_number=number), held.db)


def _rows_of(model: type[models.Model]) -> models.QuerySet[Any]:
    # The base manager also finds an owner that the default one hides.
    return model._base_manager.using(primary_alias())


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
    owner = _rows_of(model).filter(**{user_field: row.user_id}).first()
    if owner is None:
        text = "Verification %s: its user has no %s, so its number was not kept."
        logger.error(text, row.reference, model._meta.label)
        return
    try:
        keep_number(owner, row)
        is_taken = False
    except NumberTaken:
        is_taken = True
    PhoneVerification.objects.note_keeping(row, is_taken=is_taken)
