"""Run the sweep by hand or without beat: `manage.py idenfy_phone_sweep [--loop 30]`."""

import logging
import signal
import threading
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand
from django.db import close_old_connections
from django.utils.translation import gettext as _

from django_idenfy_phone import delivery, maintenance, tasks

logger = logging.getLogger(__name__)

DAY = 86_400


class Command(BaseCommand):
    help = "Settle late verifications, announce again, and hint what still waits."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--loop",
            type=_seconds,
            metavar="SECONDS",
            help=_("Sweep every SECONDS until stopped, not once. 30 is a good pause."),
        )

        parser.add_argument(
            "--deliver",
            action="store_true",
            help=_("Send in this process, without a broker and a worker."),
        )

    def handle(self, *args: Any, **options: Any) -> None:
        sweep = sweep_and_deliver if options["deliver"] else tasks.sweep
        if options["loop"] is None:
            sweep()
        else:
            self.sweep_every(options["loop"], sweep)

    def sweep_every(self, seconds: float, sweep: Callable[[], None]) -> None:
        # An event and no KeyboardInterrupt: a sweep that has begun is finished.
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        line = _("Sweeping every %(seconds)g s. Press Ctrl-C to stop.")
        self.stdout.write(line % {"seconds": seconds})
        self.stdout.flush()
        while not stop.is_set():
            sweep_or_log(sweep)
            stop.wait(seconds)


def sweep_and_deliver() -> None:
    for pk in maintenance.sweep():
        delivery.deliver(pk)


def sweep_or_log(sweep: Callable[[], None]) -> None:
    """The loop must outlive a database that is away for a while."""
    close_old_connections()
    try:
        sweep()
    except Exception as error:
        # Not the text: a database's may hold values. A run without --loop shows it.
        logger.error("The sweep failed (%s); it goes on.", type(error).__name__)
    close_old_connections()


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= DAY:
        raise ArgumentTypeError(_("must be seconds, above 0 and up to a day"))
    return seconds
