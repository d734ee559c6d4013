import sys
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand
from django.utils.translation import gettext as _

from ...health import health


class Command(BaseCommand):
    help = "Show the state of sending. The exit status is 1 when a person is needed."

    def handle(self, *args: Any, **options: Any) -> None:
        found = health()
        self._line(_("Queued"), found.queued)
        if found.oldest_queued is not None and found.oldest_due is not None:
            self._line(_("Oldest queued for"), _seconds(found.oldest_queued))
            self._line(_("Oldest due for"), _seconds(found.oldest_due))
        self._line(_("Next slot in"), _seconds(found.next_slot_in))
        for pause, left in found.pauses.items():
            self._line(str(pause.label), _seconds(left) if left else _("no"))
        self._line(_("Account faults in a row"), found.account_faults)
        for outcome, count in sorted(found.outcomes.items()):
            self._line(_("Last hour: %(outcome)s") % {"outcome": outcome}, count)
        for trouble in found.troubles:
            self.stdout.write(str(trouble.label))
        if found.troubles:
            sys.exit(1)

    def _line(self, title: str, value: object) -> None:
        self.stdout.write(f"{title}: {value}")


def _seconds(length: timedelta) -> str:
    return f"{length.total_seconds():.0f} s"
