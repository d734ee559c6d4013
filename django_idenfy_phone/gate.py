"""The provider gate: reads, and writes of slots, pauses and account faults.

There is one row for all workers. Each write locks that row, so no slot is given twice
and no pause is shortened. No lock is held while iDenfy is asked.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from django.utils import timezone

from . import pacing
from .conf import Limit, conf
from .exceptions import ProviderUnavailable
from .hashing import keyed_hashes
from .models import GATE_ID, PhoneVerification, ProviderGate, primary_alias
from .pacing import Pause
from .statements import Table
from .transactions import (
    Bounds,
    bounding_sql,
    durable_statement,
    durable_transaction,
    retry_on_abort,
)

T = TypeVar("T")

MIN_FAULTY_NUMBERS = 3
MIN_FAULTY_OWNERS = 2
# How many sources of one run are remembered.
KEPT = 20
SALT = "django_idenfy_phone.gate"
ALARM_INTERVAL = timedelta(minutes=1)


def current() -> ProviderGate:
    """The gate as it is stored now, not locked."""
    return _table().read(GATE_ID) or ProviderGate(pk=GATE_ID)


def acquire(bounds: Bounds) -> ProviderGate:
    """The gate, made on demand and locked until the caller's transaction ends.

    ``bounds`` is what the durable transaction yields.
    """
    table, now = _table(), timezone.now()
    sql = table.upsert_sql(
        ["id", "acquired_at", "account_faults", "account_fault_sources"],
        [f"({GATE_ID}, {bounding_sql(bounds)}, 0, '')"],
        changed="acquired_at",
        returning=table.columns,
    )
    with table.connection.cursor() as cursor:
        cursor.execute(sql, [table.value("acquired_at", now)])
        return table.instance(cursor.fetchone()) if table.returns_rows else current()


def _table() -> Table[ProviderGate]:
    return Table(primary_alias(), ProviderGate)


def reserve_slot(gate: ProviderGate, row: PhoneVerification, now: datetime) -> datetime:
    """When a due row may be sent: ``now``, or a later slot that is reserved for it.

    A row that comes in its slot is sent if the sends before it leave room, as after an
    outage many come at once. Else it gets a late slot. One that comes in a pause gets a
    new slot. A slot at ``row.send_by`` or later is not reserved: the row is too late.
    The caller has acquired the gate, and keeps it afterwards.
    """
    resumes_at, rate = gate.sends_resume_at(now), conf.SEND_RATE
    if rate is None:
        return resumes_at
    sent_arrival = gate.sent_arrival(now, rate)
    if row.slot_reserved and resumes_at <= now:
        slot = pacing.slot_for(sent_arrival, resumes_at, rate)
        if slot > now:
            return _late_slot(gate, row, slot, rate)
    else:
        arrival = gate.theoretical_arrival(now, rate)
        slot = pacing.slot_for(arrival, resumes_at, rate)
        if slot < row.send_by:
            gate.theoretical_arrival_at = arrival + rate.interval
            if resumes_at <= now and pacing.is_idle(sent_arrival, now, rate):
                slot = now
    if slot <= now:
        gate.sent_arrival_at = sent_arrival + rate.interval
    return slot


def _late_slot(
    gate: ProviderGate, row: PhoneVerification, free_at: datetime, rate: Limit
) -> datetime:
    """A slot for a row that came in its own and found no room before ``free_at``.

    Late slots follow each other at the rate. Where none is left before ``row.send_by``,
    a random time still may find room.
    """
    longest = conf.SEND_DEADLINE
    slot = max(free_at, pacing.plausible_or_now(gate.late_slot_at, free_at, longest))
    if slot >= row.send_by:
        return pacing.random_slot(free_at, row.send_by)
    gate.late_slot_at = slot + rate.interval
    return slot


def keep_slots(gate: ProviderGate) -> None:
    """Store what ``reserve_slot`` changed, while the gate is still acquired."""
    names = ("theoretical_arrival_at", "sent_arrival_at", "late_slot_at")
    _table().update({"id": GATE_ID}, {name: getattr(gate, name) for name in names})


def useful_at(gate: ProviderGate, now: datetime) -> dict[Pause, datetime]:
    """When a new start makes sense: it may have passed.

    By Pause.SENDS, when its row could be sent by its deadline, as pauses and waiting
    rows tell. By Pause.ACCOUNT, when the account is no longer paused.
    """
    # A slot at the very deadline is too late.
    tick = timedelta(milliseconds=1)
    return {
        Pause.SENDS: gate.next_slot(now) - conf.SEND_DEADLINE + tick,
        Pause.ACCOUNT: gate.pause_ends_at(Pause.ACCOUNT, now),
    }


def require_capacity(gate: ProviderGate) -> None:
    """Raise ProviderUnavailable where a new start makes no sense now."""
    now = timezone.now()
    if (latest := max(useful_at(gate, now).values())) > now:
        raise ProviderUnavailable(retry_after=latest - now)


def time_to_checks(paused_until: datetime | None, now: datetime) -> timedelta:
    """How long checks are still paused; timedelta(0) where they are not."""
    return pacing.pause_ends_at(Pause.CHECKS, paused_until, now) - now


def pause_sends(until: datetime) -> None:
    """Pause all sends, and allow no burst afterwards. Never shortens a pause."""

    def pause(gate: ProviderGate) -> None:
        now = timezone.now()
        gate.sends_paused_until = max(until, gate.pause_ends_at(Pause.SENDS, now))
        if rate := conf.SEND_RATE:
            earliest = pacing.arrival_after_pause(gate.sends_paused_until, rate)
            gate.theoretical_arrival_at = max(
                gate.theoretical_arrival(now, rate), earliest
            )
            gate.sent_arrival_at = max(gate.sent_arrival(now, rate), earliest)

    _change(pause)


def pause_checks(until: datetime) -> None:
    """Pause all checks. Never shortens a pause."""

    def pause(gate: ProviderGate) -> None:
        paused_until = gate.pause_ends_at(Pause.CHECKS, timezone.now())
        gate.checks_paused_until = max(until, paused_until)

    _change(pause)


def note_account_fault(
    row: PhoneVerification, now: datetime, *, is_key_refused: bool
) -> bool:
    """Count a refusal of the account.

    All sends pause at once for a refused key. Otherwise they pause after refusals in a
    row of MIN_FAULTY_NUMBERS numbers and MIN_FAULTY_OWNERS owners: fewer may concern
    one destination, or one attacker. After a pause the run starts at zero. Returns
    whether to log an alarm, at most once in ALARM_INTERVAL.
    """

    def note(gate: ProviderGate) -> bool:
        run = _FaultRun(gate)
        run.add(row)
        if is_key_refused or run.concerns_many():
            gate.account_paused_until = now + pacing.ACCOUNT_PAUSE
            run.end()
        alarmed_at = gate.alarmed_at
        if alarmed_at and timedelta(0) <= now - alarmed_at < ALARM_INTERVAL:
            return False
        gate.alarmed_at = now
        return True

    return _change(note)


class _FaultRun:
    """The refusals of the account in a row, as an acquired gate holds them."""

    def __init__(self, gate: ProviderGate) -> None:
        self.gate = gate

    def add(self, row: PhoneVerification) -> None:
        self.gate.account_faults += 1
        sources, source = self.gate.account_fault_sources.split(), self._source_of(row)
        if source not in sources:
            self.gate.account_fault_sources = " ".join([*sources, source][-KEPT:])

    def concerns_many(self) -> bool:
        """Whether too many numbers and owners were refused for one to be the cause."""
        sources = self.gate.account_fault_sources.split()
        numbers = {each.partition(":")[0] for each in sources}
        owners = {each.partition(":")[2] for each in sources}
        return len(numbers) >= MIN_FAULTY_NUMBERS and len(owners) >= MIN_FAULTY_OWNERS

    def end(self) -> None:
        self.gate.account_faults, self.gate.account_fault_sources = 0, ""

    @staticmethod
    def _source_of(row: PhoneVerification) -> str:
        """Keyed hashes of number and owner: its user, or its network without a user.

        Under the oldest key, which both releases know while keys are rotated.
        """
        number, user = row.phone_number.as_e164, row.user_id
        owner = f"network {row.network}" if user is None else f"user {user}"
        return ":".join(keyed_hashes(SALT, each)[-1] for each in (number, owner))


def end_fault_run() -> None:
    """After a send that worked, or an erasure: forget the account faults in a row."""
    faulty = {"id": GATE_ID, "account_faults__gt": 0}
    changes = {"account_faults": 0, "account_fault_sources": ""}
    with durable_statement(primary_alias()) as bounds:
        _table().update(faulty, changes, bounds)


def _change(change: Callable[[ProviderGate], T]) -> T:
    """Change the gate under its lock, in a transaction of its own."""

    def acquire_and_change() -> T:
        with durable_transaction(primary_alias()) as bounds:
            gate = acquire(bounds)
            result = change(gate)
            gate.save(using=primary_alias())
            return result

    return retry_on_abort(acquire_and_change, primary_alias())
