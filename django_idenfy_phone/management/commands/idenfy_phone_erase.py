from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from ... import maintenance
from ...limits import longest_window
from ...privacy import Erased
from ...retention import KINDS_OF_ERASED
from .. import people


class Command(BaseCommand):
    help = "Erase a phone number or a user from the verifications."

    def add_arguments(self, parser: ArgumentParser) -> None:
        people.add_arguments(parser)
        parser.add_argument(
            "--now",
            action="store_true",
            help=_("Delete also what the limits count: they start anew."),
        )

    def handle(self, *args: Any, **options: Any) -> None:
        person = people.named(options)
        with people.refusing_what_is_no_number():
            erased = maintenance.erase(**person, now=options["now"])
        if not erased.rows and not erased.deleted.locks:
            raise CommandError(_("Nothing is held of this number or user."))
        for line in self.lines(erased, options["now"]):
            self.stdout.write(line)

    def lines(self, erased: Erased, is_now: bool) -> Iterator[str]:
        yield _("Deleted: %s.") % erased.deleted
        left = erased.rows - erased.deleted.rows
        if left and not is_now:
            days = longest_window(KINDS_OF_ERASED).days
            yield _(
                "%(left)d verifications lost user and network. The limits need the "
                "rest: the purge deletes it when they do not, within %(days)d days."
            ) % {"left": left, "days": days}
        if is_now:
            yield _("The limits of this number or user start anew.")
