import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand
from django.utils.translation import gettext as _

from ...health import Health, health
from ...heartbeats import DELIVERY, SWEEP
from ...statuses import Failure, Status

OUTCOMES = [*(each for each in Status if each != Status.FAILED), *Failure]


class Command(BaseCommand):
    help = "Show the state of sending. The exit status is 1 when a person is needed."

    def add_arguments(self, parser: ArgumentParser) -> None:
        text = _("Print one JSON object, for a monitor.")
        parser.add_argument("--json", action="store_true", help=text)

    def handle(self, *args: Any, **options: Any) -> None:
        found = health()
        if options["json"]:
            self.stdout.write(json.dumps(as_json(found)))
        else:
            self.print(found)
        if found.troubles:
            sys.exit(1)

    def print(self, found: Health) -> None:
        for title, value in self._facts(found):
            self.stdout.write(f"{title}: {value}")
        for trouble in found.troubles:
            self.stdout.write(str(trouble.label))

    def _facts(self, found: Health) -> Iterator[tuple[str, object]]:
        yield _("Queued"), found.queued
        if found.oldest_queued is not None and found.oldest_due is not None:
            yield _("Oldest queued for"), _seconds(found.oldest_queued)
            yield _("Oldest due for"), _seconds(found.oldest_due)
        yield _("Next slot in"), _seconds(found.next_slot_in)
        for pause, left in found.pauses.items():
            yield str(pause.label), _seconds(left) if left else _("no")
        yield _("Account faults in a row"), found.account_faults
        for name, title in ((SWEEP, _("Last sweep")), (DELIVERY, _("Last delivery"))):
            if name in found.heartbeats:
                age = _seconds(found.heartbeats[name])
                yield title, _("%(time)s ago") % {"time": age}
        if found.announce_failure:
            yield _("Not announced"), found.announce_failure
        for outcome, count in sorted(found.outcomes.items()):
            yield _("Last hour: %(outcome)s") % {"outcome": outcome}, count


def as_json(found: Health) -> dict[str, Any]:
    """The same as the text, under keys that stay; all times are in seconds."""
    ages = found.heartbeats
    return {
        "queued": found.queued,
        "oldest_queued": _number(found.oldest_queued),
        "oldest_due": _number(found.oldest_due),
        "next_slot_in": _number(found.next_slot_in),
        "pauses": {each.value: _number(left) for each, left in found.pauses.items()},
        "account_faults": found.account_faults,
        "heartbeats": {name: _number(ages.get(name)) for name in (SWEEP, DELIVERY)},
        "announce_failure": found.announce_failure,
        "last_hour": {each.value: found.outcomes.get(each, 0) for each in OUTCOMES},
        "troubles": [each.value for each in found.troubles],
    }


def _number(length: timedelta | None) -> float | None:
    return None if length is None else round(length.total_seconds(), 1)


def _seconds(length: timedelta) -> str:
    return f"{length.total_seconds():.0f} s"
