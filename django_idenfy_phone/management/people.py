"""How commands are told of which person: --number or --user."""

from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.core.management.base import CommandError
from django.utils.translation import gettext as _

from ..exceptions import NumberNotSupported, UnknownUser
from ..starting import find_user


def add_arguments(parser: ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--number", help=_("a phone number, in any form"))
    group.add_argument("--user", help=_("a user's primary key or login name"))


def named(options: Mapping[str, Any]) -> dict[str, Any]:
    """The person as ``maintenance`` takes it. Raises CommandError."""
    if options["number"] is not None:
        return {"phone_number": options["number"]}
    return {"user": find_named_user(options["user"])}


@contextmanager
def refusing_what_is_no_number() -> Iterator[None]:
    try:
        yield
    except NumberNotSupported:
        raise CommandError(_("This is not a phone number.")) from None


def find_named_user(text: str) -> Any:
    """As ``find_user``. Raises CommandError."""
    try:
        return find_user(text)
    except UnknownUser:
        text = _("No user, or more than one, has this primary key or login name.")
        raise CommandError(text) from None
