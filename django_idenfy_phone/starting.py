"""A request to start a verification, and the user id of any caller."""

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, Self

from django.contrib.auth import get_user_model
from django.core.exceptions import (
    MultipleObjectsReturned,
    ObjectDoesNotExist,
    ValidationError,
)
from django.db.models import Q
from django.db.models.fields import AutoFieldMixin, IntegerField

from . import phone
from .edge import hide_values
from .exceptions import UnknownUser

# PostgreSQL stores no NUL, and no database half of a surrogate pair.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


class Caller(Protocol):
    """Who calls: a user of Django, an AnonymousUser, or the user of a token."""

    @property
    def pk(self) -> Any: ...

    @property
    def is_authenticated(self) -> bool: ...


def user_id_of(user: Caller | None) -> Any:
    """The primary key of a logged-in user; None for None or an anonymous user.

    By primary key, so that users who exist only in a token work. Raises UnknownUser for
    a key that no user of this project can have, and for a login without a key.
    """
    if user is None or not user.is_authenticated:
        return None
    field = _key_field()
    with suppress(ValidationError, ValueError, OverflowError):
        user_id = field.to_python(user.pk)
        field.run_validators(user_id)
        if _is_possible(field, user_id, user.pk):
            return user_id
    raise UnknownUser


def find_user(text: str) -> Any:
    """The user with this primary key or USERNAME_FIELD. Raises UnknownUser.

    Also where the text is the key of one user and the name of another.
    """
    if _UNSTORABLE.search(text):
        raise UnknownUser
    users = get_user_model()._base_manager
    known = Q(**{get_user_model().USERNAME_FIELD: text})
    with suppress(ValidationError, ValueError, OverflowError):
        known |= Q(pk=_key_field().to_python(text))
    with suppress(MultipleObjectsReturned, ObjectDoesNotExist):
        return users.get(known)
    raise UnknownUser


def _key_field() -> Any:
    """The primary key of the user model; its parent's where it inherits one."""
    field: Any = get_user_model()._meta.pk
    while field.remote_field:
        field = field.target_field
    return field


def _is_possible(field: Any, user_id: Any, written: object) -> bool:
    if user_id in field.empty_values:
        return False
    if isinstance(field, AutoFieldMixin) and user_id < 1:
        # An automatic key begins at 1, and MySQL refuses a 0.
        return False
    if isinstance(field, IntegerField):
        # int() takes True, 1.9 and a UUID too: they would be another user's key.
        return str(user_id) == str(written)
    return not _UNSTORABLE.search(str(user_id))


@dataclass(frozen=True, repr=False)
class StartRequest:
    """Who asks for a code, and for which number.

    ``phone_number`` is E.164 and ``region`` its ISO region. ``user_id`` is None for an
    anonymous start. ``network`` is an IPv4 address, an IPv6 /64, or "" where the limits
    by network do not apply. ``idempotency_key`` is None, or as the client sent it.
    """

    phone_number: str
    region: str
    user_id: Any
    network: str
    purpose: str
    idempotency_key: str | None

    @classmethod
    @hide_values
    def build(
        cls,
        phone_number: str | phone.Number,
        *,
        user: Caller | None,
        network: str,
        purpose: str,
        idempotency_key: str | None,
    ) -> Self:
        """Build it from a number as typed or parsed, and a user object or None.

        Raises NumberNotSupported or UnknownUser.
        """
        number = phone_number
        if not isinstance(number, phone.Number):
            number = phone.parse(number)
        return cls(
            phone_number=number.e164,
            region=number.region,
            user_id=user_id_of(user),
            network=network,
            purpose=purpose,
            idempotency_key=idempotency_key,
        )

    @property
    def number_block(self) -> str:
        """The numbers that differ in the last four digits only."""
        return self.phone_number[:-4]

    def value_of(self, kind: str) -> Any:
        """Whose sends a limit of this kind counts: a number, block, user or network."""
        return {
            "number": self.phone_number,
            "block": self.number_block,
            "user": self.user_id,
            "network": self.network,
        }[kind]

    def __repr__(self) -> str:
        # An error report shows the variables of each frame.
        return "StartRequest(...)"
