import sys
from typing import Any

from django.core.management.base import BaseCommand
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_idenfy_phone import statistics

PAUSES = {
    "sends": gettext_lazy("Sends paused"),
    "account": gettext_lazy("Account paused"),
    "checks": gettext_lazy("Checks paused"),
}
TROUBLES = {
    "key": gettext_lazy("The API key or secret is not set: every start is refused."),
    "account": gettext_lazy("iDenfy refuses the account: look at key and credits."),
    "failing": gettext_lazy(
        "No send succeeded in the last hour: is iDenfy down, or out of reach?"
    ),
    "queue": gettext_lazy("A row waits too long: are worker and sweep running?"),
    "late": gettext_lazy("Rows were not sent in time in the last hour."),
    "receivers": gettext_lazy("Receivers of phone_verified have failed for a day."),
}


class Command(BaseCommand):
    help = "Say how sending goes. The exit status is 1 when a person is needed."

    def handle(self, *args: Any, **options: Any) -> None:
        health = statistics.health()
        self._line(_("Queued"), health.queued)
        if health.oldest_queued is not None and health.oldest_due is not None:
            self._line(_("Oldest queued for"), _seconds(health.oldest_queued))
            self._line(_("Oldest due for"), _seconds(health.oldest_due))
        self._line(_("Next slot in"), _seconds(health.next_slot_in))
        for kind, left in health.pauses.items():
            self._line(str(PAUSES[kind]), _seconds(left) if left else _("no"))
        self._line(_("Account faults in a row"), health.account_faults)
        for outcome, count in sorted(health.outcomes.items()):
            self._line(_("Last hour: %(outcome)s") % {"outcome": outcome}, count)
        for trouble in health.troubles:
            self.stdout.write(str(TROUBLES[trouble]))
        if health.troubles:
            sys.exit(1)

    def _line(self, title: str, value: object) -> None:
        self.stdout.write(f"{title}: {value}")


def _seconds(length: Any) -> str:
    return f"{length.total_seconds():.0f} s"
