"""System checks of the model that holds proven numbers."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from django.contrib.auth import get_user_model
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.exceptions import FieldDoesNotExist
from django.db import router
from django.db.models import DateTimeField, Model

from .conf import PREFIX, conf
from .models import primary_alias
from .ownership import Owners, owner_model
from .rules import APP
from .signals import phone_released

OWNER, TAKEN_NUMBER = PREFIX + "OWNER", PREFIX + "TAKEN_NUMBER"


def _error(number: int, problem: str, hint: str) -> Error:
    return Error(problem, hint=hint, id=f"{APP}.E{number:03}")


@register
def check_owner(**kwargs: Any) -> Iterator[CheckMessage]:
    if conf.OWNER is None:
        return
    model = _owner_of_one_user()
    if model is None:
        yield _error(
            20,
            f"{OWNER} names no model that holds the number of one user.",
            'Such as "accounts.User" for the user model, or "accounts.Profile.user" '
            "for a model with a one-to-one field to it.",
        )
    else:
        yield from _check_fields(model)
        if router.db_for_write(model) != primary_alias():
            yield _error(
                25,
                f"{OWNER}: {model._meta.label} and phone verifications live in "
                "different databases.",
                "Route both to one: a number is kept in a transaction.",
            )


def _owner_of_one_user() -> type[Model] | None:
    """The model that OWNER names, or None where it is not as it must be."""
    try:
        model, user_field = owner_model()
        if user_field == "pk":
            return model if model is get_user_model() else None
        field: Any = model._meta.get_field(user_field)
    except (ValueError, LookupError, FieldDoesNotExist):
        return None
    holds_one_user = field.concrete and field.unique
    is_to_user = field.related_model is get_user_model()
    return model if holds_one_user and is_to_user else None


class _Fields:
    """The two fields of a model that holds numbers."""

    def __init__(self, model: type[Model]) -> None:
        self.model, self.owners = model, Owners(model)
        fields = {field.name: field for field in model._meta.concrete_fields}
        self.number = fields.get(self.owners.number)
        self.confirmed_at = fields.get(self.owners.confirmed_at)

    def exist(self) -> bool:
        return self.number is not None and isinstance(self.confirmed_at, DateTimeField)

    def can_be_null(self) -> bool:
        return all(field and field.null for field in (self.number, self.confirmed_at))

    def are_unique(self) -> bool:
        """Whether the database itself refuses a second such number, at once."""
        constraints = self.model._meta.total_unique_constraints
        alone = [each for each in constraints if each.fields == (self.owners.number,)]
        is_field_unique = self.number is not None and self.number.unique
        return is_field_unique or any(each.deferrable is None for each in alone)

    def keep_logins(self) -> bool:
        """Whether nobody loses the name to log in with."""
        login = getattr(self.model, "USERNAME_FIELD", "")
        return conf.TAKEN_NUMBER != "move" or login != self.owners.number


class FieldRule(NamedTuple):
    """What the two fields must be. ``number`` is that of the check's id."""

    number: int
    is_kept: Callable[[_Fields], bool]
    problem: str
    hint: str

    def error(self, fields: _Fields) -> Error:
        owners, label = fields.owners, fields.model._meta.label
        names = {"number": owners.number, "confirmed_at": owners.confirmed_at}
        problem = self.problem.format(label=label, **names)
        return _error(self.number, f"{OWNER}: {problem}", self.hint)


EXISTENCE = FieldRule(
    21,
    _Fields.exist,
    "{label} has no field {number}, or no DateTimeField {confirmed_at}.",
    "Inherit PhoneOwner, or name your own fields by PHONE_NUMBER_FIELD and "
    "PHONE_CONFIRMED_AT_FIELD.",
)
FIELD_RULES = (
    FieldRule(
        22,
        _Fields.can_be_null,
        "{number} or {confirmed_at} of {label} cannot be null.",
        "An account without a number has null in both.",
    ),
    FieldRule(
        23,
        _Fields.are_unique,
        "{number} of {label} is not unique by itself.",
        "Set unique=True. Where several accounts may hold a number, leave the "
        "setting out and use the signal phone_verified.",
    ),
    FieldRule(
        26,
        _Fields.keep_logins,
        "{number} is the USERNAME_FIELD of {label}, and numbers move.",
        f'Whoever loses it could not log in: set {TAKEN_NUMBER} to "refuse".',
    ),
)


def _check_fields(model: type[Model]) -> Iterator[CheckMessage]:
    fields = _Fields(model)
    rules = FIELD_RULES if EXISTENCE.is_kept(fields) else (EXISTENCE,)
    for rule in rules:
        if not rule.is_kept(fields):
            yield rule.error(fields)


@register
def check_taken_number(**kwargs: Any) -> Iterator[CheckMessage]:
    if conf.TAKEN_NUMBER not in ("refuse", "move"):
        yield _error(
            24,
            f"{TAKEN_NUMBER} must be a policy.",
            'Choose from "refuse" and "move".',
        )
    elif conf.TAKEN_NUMBER == "move" and not phone_released.receivers:
        yield Warning(
            f'{TAKEN_NUMBER} is "move", and phone_released has no receiver.',
            hint="Four digits then take the number from another account, which does "
            "not learn of it: connect a receiver that tells its user.",
            id=f"{APP}.W012",
        )
