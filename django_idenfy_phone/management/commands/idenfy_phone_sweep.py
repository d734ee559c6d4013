"""Run the sweep by hand or without beat: `manage.py idenfy_phone_sweep [--loop 30]`."""

import logging
import signal
import time
import uuid
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand
from django.db import close_old_connections
from django.utils.translation import gettext as _

from django_idenfy_phone import delivery, maintenance, tasks

logger = logging.getLogger(__name__)

DAY = 86_400
# How soon a pause ends for a signal.
SLICE = 0.2


class Command(BaseCommand):
    help = "Settle late verifications, announce again, and hint what still waits."
    is_stopped = False

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
        pass_on = deliver if options["deliver"] else tasks.hint_patiently
        if options["loop"] is None:
            maintenance.sweep(pass_on)
        else:
            self.sweep_every(options["loop"], pass_on)

    def sweep_every(self, seconds: float, pass_on: Callable[[uuid.UUID], bool]) -> None:
        # No KeyboardInterrupt: a row that is being sent is finished.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.stop)
        line = _("Sweeping every %(seconds)g s. Press Ctrl-C to stop.")
        self.stdout.write(line % {"seconds": seconds})
        self.stdout.flush()
        while not self.is_stopped:
            sweep_or_log(lambda pk: not self.is_stopped and pass_on(pk))
            self.pause(seconds)

    def stop(self, *args: object) -> None:
        # A flag and no Event: set() would wait for ever for a lock that the wait()
        # which the signal interrupts may hold.
        self.is_stopped = True

    def pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self.is_stopped and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, SLICE))


def deliver(pk: uuid.UUID) -> bool:
    delivery.deliver(pk)
    return True


def sweep_or_log(pass_on: Callable[[uuid.UUID], bool]) -> None:
    """The loop must outlive a database that is away for a while."""
    close_old_connections()
    try:
        maintenance.sweep(pass_on)
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
