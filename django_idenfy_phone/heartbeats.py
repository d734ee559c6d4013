"""When the sweep and the delivery last ran, so that a dead one is seen early."""

import logging
from datetime import datetime, timedelta

from django.db import Error, transaction
from django.utils import timezone

from .alarms import alarm
from .models import primary_alias
from .processes import AtMostEvery
from .records import Heartbeat
from .statements import Table
from .transactions import bounding_sql, durable_statement

logger = logging.getLogger(__name__)

SWEEP, DELIVERY = "sweep", "delivery"
# How often each process writes one.
INTERVAL = timedelta(seconds=10)
# After this time without a delivery, the sweep asks whether a worker runs.
IDLE = timedelta(minutes=5)
IDLE_CHECK_INTERVAL = timedelta(minutes=1)
# A heartbeat older than this needs a person.
LONGEST_SILENCE = {SWEEP: timedelta(minutes=2), DELIVERY: timedelta(minutes=10)}

_beats = {name: AtMostEvery(INTERVAL) for name in (SWEEP, DELIVERY)}
_idle_checks = AtMostEvery(IDLE_CHECK_INTERVAL)


def beat(name: str) -> None:
    """Note that SWEEP or DELIVERY runs. Never raises.

    Not inside a transaction, so a test of a host that counts its queries meets none.
    """
    is_inside = transaction.get_connection(primary_alias()).in_atomic_block
    if is_inside or not _beats[name].is_due():
        return
    try:
        _write(name, timezone.now())
    except Error as error:
        text = "A heartbeat was not written (%s)."
        alarm(logger.warning, text, type(error).__name__)


def _write(name: str, now: datetime) -> None:
    table = Table(primary_alias(), Heartbeat)
    with durable_statement(table.using) as bounds, table.connection.cursor() as cursor:
        sql = table.upsert_sql(
            ["name", "beat_at"],
            [f"(%s, {bounding_sql(bounds)})"],
            changed="beat_at",
            returning=["name"],
        )
        cursor.execute(sql, [name, table.value("beat_at", now)])


def is_delivery_idle() -> bool:
    """Whether to ask if a worker runs: at most once in IDLE_CHECK_INTERVAL.

    Never raises. Logs an alarm where there was no answer for too long.
    """
    if not _idle_checks.is_due():
        return False
    try:
        beats = Heartbeat.objects.using(primary_alias()).filter(name=DELIVERY)
        beat_at = beats.values_list("beat_at", flat=True).first()
    except Error as error:
        text = "The heartbeats could not be read (%s)."
        alarm(logger.warning, text, type(error).__name__)
        return False
    if beat_at is None:
        return True
    silence = timezone.now() - beat_at
    if silence > LONGEST_SILENCE[DELIVERY]:
        text = "Nothing was delivered for %d minutes: does a worker run?"
        alarm(logger.critical, text, silence // timedelta(minutes=1))
    return silence >= IDLE


def forget() -> None:
    """Make all due, between two tests."""
    for each in (*_beats.values(), _idle_checks):
        each.reset()
