import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand
from django.utils.translation import gettext as _

from ...health import Health, health


class Command(BaseCommand):
    help = "Show the state of sending. The exit status is 1 when a person is needed."

    def handle(self, *args: Any, **options: Any) -> None:
        found = health()
        for title, value in self._facts(found):
            self.stdout.write(f"{title}: {value}")
        for trouble in found.troubles:
            self.stdout.write(str(trouble.label))
        if found.troubles:
            sys.exit(1)

    def _facts(self, found: Health) -> Iterator[tuple[str, object]]:
        yield _("Queued"), found.queued
        if found.oldest_queued is not None and found.oldest_due is not None:
            yield _("Oldest queued for"), _seconds(found.oldest_queued)
            yield _("Oldest due for"), _seconds(found.oldest_due)
        yield _("Next slot in"), _seconds(found.next_slot_in)
        for pause, left in found.pauses.items():
            yield str(pause.label), _seconds(left) if left else _("no")
        yield _("Account faults in a row"), found.account_faults
        for outcome, count in sorted(found.outcomes.items()):
            yield _("Last hour: %(outcome)s") % {"outcome": outcome}, count


def _seconds(length: timedelta) -> str:
    return f"{length.total_seconds():.0f} s"
