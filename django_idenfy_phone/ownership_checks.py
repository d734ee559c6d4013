"""System checks of the model that holds proven numbers."""

from collections.abc import Iterator
from typing import Any

from django.contrib.auth import get_user_model
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.exceptions import FieldDoesNotExist
from django.db import router
from django.db.models import DateTimeField, Model

from .conf import PREFIX, conf
from .models import primary_alias
from .ownership import Owners, owner_model
from .signals import phone_released

APP = "django_idenfy_phone"
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


def _check_fields(model: type[Model]) -> Iterator[CheckMessage]:
    label, names = model._meta.label, Owners(model)
    number, confirmed_at = names.number, names.confirmed_at
    fields = {field.name: field for field in model._meta.concrete_fields}
    is_moment = isinstance(fields.get(confirmed_at), DateTimeField)
    if number not in fields or not is_moment:
        yield _error(
            21,
            f"{OWNER}: {label} has no field {number}, or no DateTimeField "
            f"{confirmed_at}.",
            "Inherit PhoneOwner, or name your own fields by PHONE_NUMBER_FIELD and "
            "PHONE_CONFIRMED_AT_FIELD.",
        )
        return
    if not (fields[number].null and fields[confirmed_at].null):
        yield _error(
            22,
            f"{OWNER}: {number} or {confirmed_at} of {label} cannot be null.",
            "An account without a number has null in both.",
        )
    if not _is_unique(model, number):
        yield _error(
            23,
            f"{OWNER}: {number} of {label} is not unique by itself.",
            "Set unique=True. Where several accounts may hold a number, leave the "
            "setting out and use the signal phone_verified.",
        )
    if conf.TAKEN_NUMBER == "move" and number == getattr(model, "USERNAME_FIELD", ""):
        yield _error(
            26,
            f"{OWNER}: {number} is the USERNAME_FIELD of {label}, and numbers move.",
            f'Whoever loses it could not log in: set {TAKEN_NUMBER} to "refuse".',
        )


def _is_unique(model: type[Model], name: str) -> bool:
    """Whether the database itself refuses a second such value, at once."""
    constraints = model._meta.total_unique_constraints
    alone = [each for each in constraints if each.fields == (name,)]
    is_field_unique = model._meta.get_field(name).unique  # type: ignore[union-attr]
    return is_field_unique or any(each.deferrable is None for each in alone)


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
