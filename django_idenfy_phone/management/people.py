"""How commands are told of which person: --number or --user."""

from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError
from django.utils.translation import gettext as _

from ..exceptions import NumberNotSupported


def add_arguments(parser: ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--number", help=_("a phone number, in any form"))
    group.add_argument("--user", help=_("a user's primary key or login name"))


def named(options: Mapping[str, Any]) -> dict[str, Any]:
    """The person as ``maintenance`` takes it. Raises CommandError."""
    if options["number"] is not None:
        return {"phone_number": options["number"]}
    return {"user": _find_user(options["user"])}


@contextmanager
def refusing_what_is_no_number() -> Iterator[None]:
    try:
        yield
    except NumberNotSupported:
        raise CommandError(_("This is not a phone number.")) from None


def _find_user(text: str) -> Any:
    users = get_user_model()._base_manager
    found: set[Any] = set()
    for name in ("pk", get_user_model().USERNAME_FIELD):
        # A name is no primary key.
        with suppress(ValueError, ValidationError):
            found |= set(users.filter(**{name: text}))
    if len(found) > 1:
        raise CommandError(
            _("This is the primary key of one user and the login name of another.")
        )
    if not found:
        raise CommandError(_("No user has this primary key or login name."))
    return found.pop()
