"""How often what happened in each hour, for the figures of the operators.

A refused start leaves no row, so it is counted when it happens. What became of the
starts is counted by the sweep from their rows, again and again until it is final: a
count replaces the one before. So rows that are purged later stay counted.
"""

import logging
import random
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cache

from django.db import Error, connections
from django.db.models import Count
from django.utils import timezone

from . import events
from .alarms import alarm
from .conf import conf
from .edge import hide
from .events import Event
from .models import PhoneVerification, primary_alias
from .processes import AtMostEvery
from .records import Heartbeat, Tally
from .statements import Table
from .statuses import ACCEPTED_STATUSES
from .transactions import (
    bounding_sql,
    durable_statement,
    durable_transaction,
    in_transaction,
    retry_on_abort,
)
from .transitions import CHECK_LEASE, SEND_LEASE

logger = logging.getLogger(__name__)

HOUR = timedelta(hours=1)
SHARDS = 16
KEY = ["hour", "name", "reason", "region", "shard"]
# Reasons of refusals: START_GUARD raised, and iDenfy cannot be asked.
GUARD = "guard"
UNAVAILABLE = "unavailable"
# The heartbeat that says up to when the outcomes are counted.
MARKER = "tallies"
RECOUNT_INTERVAL = timedelta(minutes=1)
# How many hours one sweep counts beside those that are not final: after an outage, the
# next sweeps count the rest.
MAX_HOURS = 6
LONGEST_OUTAGE = timedelta(days=31)
# For clocks that differ, and for a sweep that comes late.
SLACK = timedelta(minutes=5)


def note_refusal(reason: str, region: str, purpose: str) -> None:
    """Log a refused start, and count it. Never raises.

    ``reason`` is that of StartRefused, the code of NumberNotSupported, GUARD or
    UNAVAILABLE. Inside a transaction, which may be rolled back, it is only logged.
    """
    events.log(Event.REFUSED, purpose=purpose, region=region, reason=reason)
    if in_transaction(primary_alias()):
        return
    try:
        retry_on_abort(lambda: _count_refusal(reason, region), primary_alias())
    except Error as failure:
        text = "A refused start was not counted (%s)."
        alarm(logger.warning, text, type(failure).__name__)


def _count_refusal(reason: str, region: str) -> None:
    using, hour = primary_alias(), hour_of(timezone.now())
    table, shard = Table(using, Tally), random.randrange(SHARDS)
    key = [table.value("hour", hour), Tally.Name.REFUSED.value, reason, region, shard]
    with durable_statement(using) as bounds, table.connection.cursor() as cursor:
        cursor.execute(_upsert_sql(using, bounding_sql(bounds)), key)


@cache
def _upsert_sql(using: str, hour: str) -> str:
    """An INSERT of a refusal; where its key is there, one more is counted.

    ``hour`` is the placeholder of the hour.
    """
    table, quote = Table(using, Tally), connections[using].ops.quote_name
    key, count = ", ".join(map(quote, KEY)), quote("count")
    is_mysql = connections[using].vendor == "mysql"
    conflict = "DUPLICATE KEY UPDATE" if is_mysql else f"CONFLICT ({key}) DO UPDATE SET"
    return (
        f"INSERT INTO {table.name} ({key}, {count}) "
        f"VALUES ({hour}, %s, %s, %s, %s, 1) "
        f"ON {conflict} {count} = {table.name}.{count} + 1"
    )


def recount() -> None:
    """Count the outcomes of the hours that may have changed. Never raises.

    At most once in RECOUNT_INTERVAL, however many sweeps run.
    """
    if not _recounts.is_due():
        return
    try:
        _recount(timezone.now())
    except Error as error:
        text = "The tallies could not be counted (%s)."
        alarm(logger.error, text, hide(error))


_recounts = AtMostEvery(RECOUNT_INTERVAL)


def _recount(now: datetime) -> None:
    """The marker only moves on, by one of two sweeps that count at once."""
    counted_until = _marker(now)
    # Half: another sweep of this process may come a little early.
    if abs(now - counted_until) < RECOUNT_INTERVAL / 2:
        return
    begin, last = hour_of(min(counted_until, now) - _time_to_final()), hour_of(now)
    most = MAX_HOURS + _time_to_final() // HOUR
    hours = [begin + n * HOUR for n in range(most) if begin + n * HOUR <= last]
    is_all = hours[-1] == last
    until = now if is_all else hours[-1] + HOUR + _time_to_final()
    tallies = [tally for hour in hours for tally in _count_outcomes(hour)]
    using = primary_alias()
    retry_on_abort(lambda: _replace(hours, tallies, counted_until, until), using)


def _time_to_final() -> timedelta:
    """After this time, no transition of a row changes a tally."""
    sending, checking = conf.SEND_DEADLINE + SEND_LEASE, conf.CODE_LIFETIME
    return sending + checking + CHECK_LEASE + SLACK


def _marker(now: datetime) -> datetime:
    """Rows that were final at this time are counted for ever."""
    using = primary_alias()
    marker = Heartbeat.objects.using(using).filter(name=MARKER)
    if (found := marker.first()) is not None:
        return found.beat_at
    rows = PhoneVerification.objects.order_by("created_at")
    oldest = rows.values_list("created_at", flat=True).first() or now
    begin = max(min(oldest, now) - HOUR, now - LONGEST_OUTAGE)
    with durable_statement(using):
        new = [Heartbeat(name=MARKER, beat_at=begin)]
        Heartbeat.objects.using(using).bulk_create(new, ignore_conflicts=True)
    return begin


def _count_outcomes(hour: datetime) -> Iterator[Tally]:
    rows = PhoneVerification.objects.order_by()
    rows = rows.filter(created_at__gte=hour, created_at__lt=hour + HOUR)
    groups = rows.values_list("status", "failure", "region").annotate(Count("pk"))
    counts: Counter[tuple[str, str, str]] = Counter()
    for status, failure, region, count in groups:
        for name in _names_of(status):
            reason = failure if name == Tally.Name.FAILED else ""
            counts[name, reason, region] += count
    for (name, reason, region), count in counts.items():
        yield Tally(hour=hour, name=name, reason=reason, region=region, count=count)


def _names_of(status: str) -> set[str]:
    """What a row of this status counts as."""
    names = {Tally.Name.STARTED.value}
    if status in ACCEPTED_STATUSES:
        names.add(Tally.Name.SENT.value)
    if status in Tally.Name:
        names.add(status)
    return names


def _replace(
    hours: list[datetime],
    tallies: list[Tally],
    counted_until: datetime,
    until: datetime,
) -> None:
    """Store the counts, unless another sweep did so since ``counted_until``."""
    using = primary_alias()
    marker = Heartbeat.objects.using(using).filter(name=MARKER, beat_at=counted_until)
    outcomes = Tally.objects.using(using).exclude(name=Tally.Name.REFUSED)
    with durable_transaction(using) as bounds:
        if marker.filter(bounds).update(beat_at=until):
            outcomes.filter(hour__in=hours).delete()
            Tally.objects.using(using).bulk_create(tallies)


def hour_of(moment: datetime) -> datetime:
    """The first moment of its hour."""
    return moment.replace(minute=0, second=0, microsecond=0)
