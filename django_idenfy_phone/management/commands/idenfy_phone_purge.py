from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from ... import maintenance
from ...retention import Deleted


class Command(BaseCommand):
    help = "Delete verifications older than IDENFY_PHONE_RETENTION, and unused locks."
    deleted = Deleted()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--dry-run", action="store_true", help=_("Only count what would go.")
        )

    def handle(self, *args: Any, **options: Any) -> None:
        is_dry = options["dry_run"]
        text = _("Would be purged: %s.") if is_dry else _("Purged: %s.")
        try:
            self.deleted = maintenance.purge(dry_run=is_dry, progress=self.show)
        except KeyboardInterrupt:
            self.write_last_line(text)
            line = _("Stopped: run it again for the rest.")
            raise CommandError(line, returncode=130) from None
        self.write_last_line(text)

    def show(self, deleted: Deleted) -> None:
        self.deleted = deleted
        if self.stdout.isatty():
            self.stdout.write(f"\r{deleted}", ending="")
            self.stdout.flush()

    def write_last_line(self, text: str) -> None:
        if self.stdout.isatty():
            self.stdout.write("")
        self.stdout.write(text % self.deleted)
