import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from ... import maintenance
from .. import people


class Command(BaseCommand):
    help = "Write all that is held of a phone number or a user, as a list in JSON."

    def add_arguments(self, parser: ArgumentParser) -> None:
        people.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        person = people.named(options)
        with people.refusing_what_is_no_number():
            rows = maintenance.export(**person)
        count = 0
        for count, row in enumerate(rows, start=1):
            self.stdout.write("[" if count == 1 else ",")
            self.stdout.write(json.dumps(row, indent=2), ending="")
        if not count:
            raise CommandError(_("Nothing is held of this number or user."))
        self.stdout.write("\n]")
        # Beside the JSON, not in it.
        self.stderr.write(_("Verifications written: %d.") % count)
