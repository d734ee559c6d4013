"""The options of a command that name a number, a user and a network."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _

from .. import phone
from ..exceptions import NumberNotSupported
from ..explain import Reason
from ..network import read_network
from .people import find_named_user


class WhomCommand(BaseCommand):
    """A command about a number, a user, a network, or several of them."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--number", help=_("A phone number in any form."))
        parser.add_argument("--user", help=_("A primary key or a login name."))
        parser.add_argument("--network", help=_("An IP address."))

    def is_given(self, options: dict[str, Any]) -> bool:
        return bool(options["number"] or options["user"] or options["network"])

    def read(self, options: dict[str, Any]) -> dict[str, Any]:
        """The arguments of ``explain`` and ``unblock``. Raises CommandError."""
        found: dict[str, Any] = {"phone_number": options["number"]}
        try:
            if options["user"]:
                found["user"] = find_named_user(options["user"])
            if options["network"]:
                found["network"] = read_network(options["network"])
        except ValueError:
            raise CommandError(_("This is no IP address.")) from None
        return found

    def write_reasons(self, number: str | None, reasons: Sequence[Reason]) -> None:
        if number:
            with suppress(NumberNotSupported):
                self.stdout.write(phone.mask(phone.read(number)[0].e164))
        for reason in reasons:
            self.stdout.write(str(reason))
        if not reasons:
            self.stdout.write(_("Nothing would refuse a start now."))
