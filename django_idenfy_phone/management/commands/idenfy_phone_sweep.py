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

from ... import maintenance, tasks
from ...alarms import alarm

logger = logging.getLogger(__name__)

DAY_SECONDS = 86_400
# How soon a pause ends after a signal.
STOP_CHECK_SECONDS = 0.2


class Command(BaseCommand):
    help = "Settle late verifications, notify workers of waiting ones, announce again."
    is_stopped = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--loop",
            type=_seconds,
            metavar="SECONDS",
            help=_("Sweep every SECONDS until stopped, not once. 30 is a good value."),
        )
        parser.add_argument(
            "--deliver",
            action="store_true",
            help=_("Send in this process, without a broker and a worker."),
        )

    def handle(self, *args: Any, **options: Any) -> None:
        dispatch, ping = tasks.dispatch, tasks.ping_worker
        if options["deliver"]:
            dispatch, ping = tasks.deliver_here, tasks.note_delivery
        if options["loop"] is None:
            maintenance.sweep(dispatch, ping=ping)
        else:
            self.sweep_every(options["loop"], dispatch, ping)

    def sweep_every(
        self,
        seconds: float,
        dispatch: Callable[[uuid.UUID], bool],
        ping: Callable[[], None],
    ) -> None:
        # Not KeyboardInterrupt, which would interrupt a send.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.stop)
        line = _("Sweeping every %(seconds)g s. Press Ctrl-C to stop.")
        self.stdout.write(line % {"seconds": seconds})
        self.stdout.flush()
        while not self.is_stopped:
            sweep_or_log(lambda pk: not self.is_stopped and dispatch(pk), ping)
            self.pause(seconds)

    def stop(self, *args: object) -> None:
        # A flag, not an Event: the signal may interrupt wait(), which holds the lock
        # that set() needs.
        self.is_stopped = True

    def pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self.is_stopped and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, STOP_CHECK_SECONDS))


def sweep_or_log(
    dispatch: Callable[[uuid.UUID], bool], ping: Callable[[], None]
) -> None:
    """One sweep of a loop, which must survive an outage of the database."""
    close_old_connections()
    try:
        maintenance.sweep(dispatch, ping=ping)
    except Exception as error:
        # Not the text: a database error may hold values. A run without --loop shows it.
        text = "A sweep failed (%s); the loop continues."
        alarm(logger.error, text, type(error).__name__)
    close_old_connections()


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= DAY_SECONDS:
        raise ArgumentTypeError(_("must be seconds, above 0 and up to a day"))
    return seconds
