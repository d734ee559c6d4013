"""Erasure and access: what is held about a person goes, or is handed out."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from django.db.models import Case, F, Field, Value, When
from django.utils import timezone

from . import gate, limits, phone
from .edge import hide, hide_values
from .exceptions import InsideTransaction, UnknownUser
from .look import FIELDS
from .models import PhoneVerification, primary_alias
from .querysets import PhoneVerificationQuerySet
from .retention import BATCH, Deleted, delete, outdated_erased
from .starting import Caller, user_id_of
from .statuses import Status
from .transactions import durable_statement, in_transaction, retry_on_abort

# Not about the person: whoever holds the first can have codes checked, and the second
# is a hash.
UNEXPORTED = ("request_id", "idempotency_key")


class Person(NamedTuple):
    """``kind`` is "number" or "user", and ``value`` an E.164 number or a user's key."""

    kind: str
    value: Any

    @classmethod
    def named(cls, phone_number: str | None, user: Caller | None) -> "Person":
        """Raises NumberNotSupported for what is no number, UnknownUser or TypeError."""
        if (phone_number is None) == (user is None):
            raise TypeError("It takes either phone_number or user.")
        if phone_number is not None:
            return cls("number", phone.to_e164(phone_number))
        if (user_id := user_id_of(user)) is None:
            raise UnknownUser
        return cls("user", user_id)

    @property
    def rows(self) -> PhoneVerificationQuerySet:
        rows: PhoneVerificationQuerySet = PhoneVerification.objects.all()
        return rows.filter(**{FIELDS[self.kind]: self.value})

    def __repr__(self) -> str:
        # An error report shows the variables of each frame.
        return "Person(...)"


class Erased(NamedTuple):
    """How many rows lost user and network, and which of them were deleted too."""

    rows: int
    deleted: Deleted


@hide_values
def erase(
    *, phone_number: str | None = None, user: Caller | None = None, now: bool = False
) -> Erased:
    """Erase a number in any form, or a user, from all rows.

    Each row loses user, network, key and ``request_id``. It is deleted where no limit
    counts it any more, else by the first purge after that; with ``now`` at once, and
    then the limits start anew. Nobody can confirm or redeem an erased row, and a queued
    one is not sent. Raises NumberNotSupported for what is no number, UnknownUser,
    InsideTransaction.
    """
    if in_transaction(primary_alias()):
        raise InsideTransaction
    person, deleted = Person.named(phone_number, user), Deleted()
    if now:
        # First, so that the row of a start that holds one is found below.
        deleted.locks = limits.forget(person.kind, person.value)
        gate.end_fault_run()
    pks = list(person.rows.values_list("pk", flat=True))
    unneeded = PhoneVerification.objects.all() if now else outdated_erased()
    for begin in range(0, len(pks), BATCH):
        batch = pks[begin : begin + BATCH]
        retry_on_abort(partial(_strip, batch), primary_alias())
        delete(unneeded, batch, deleted)
    return Erased(len(pks), deleted)


def _strip(pks: Sequence[Any]) -> None:
    """Keep of these rows only what the limits need. Settling ends the open ones."""
    now = timezone.now()
    with durable_statement(primary_alias()) as bounds:
        PhoneVerification.objects.filter(bounds, pk__in=pks, erased_at=None).update(
            erased_at=now,
            user=None,
            # An anonymous row is anybody's who knows its id.
            is_anonymous=False,
            network="",
            idempotency_key=None,
            request_id=None,
            # No receiver learns of it any more.
            announce_at=None,
            send_by=_now_if(Status.QUEUED, "send_by", now),
            expires_at=_now_if(Status.SENT, "expires_at", now),
        )


def _now_if(status: Status, name: str, now: datetime) -> Case:
    return Case(When(status=status, then=Value(now)), default=F(name))


@hide_values
def export(
    *, phone_number: str | None = None, user: Caller | None = None
) -> Iterator[dict[str, Any]]:
    """All that is held of a number in any form, or of a user: a dict for each row.

    Oldest first, read as it is iterated over. The values are those of JSON: times in
    ISO 8601 and UTC, and ``user`` is a primary key. Raises NumberNotSupported for what
    is no number, UnknownUser.
    """
    return _as_dicts(Person.named(phone_number, user).rows.order_by("created_at"))


def _as_dicts(rows: PhoneVerificationQuerySet) -> Iterator[dict[str, Any]]:
    try:
        yield from map(_as_json, rows.iterator())
    except Exception as error:
        # Error trackers show the variables of this frame.
        del rows
        hide(error)
        raise


def _as_json(row: PhoneVerification) -> dict[str, Any]:
    fields: list[Field[Any, Any]] = list(row._meta.concrete_fields)
    return {
        field.name: _plain(field.value_from_object(row))
        for field in fields
        if field.name not in UNEXPORTED
    }


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if value is None or isinstance(value, bool | int | str):
        return value
    return phone.written(value) if isinstance(value, phone.PhoneNumber) else str(value)
