"""No order of users, workers, sweeps, time and crashes loses or repeats anything.

The machine plays iDenfy: a request waits until a later step answers it, so that other
steps come in between. A crash is an exception that our code does not catch. It is
raised at any line of our code, in a thread with its own database connection.
"""

import queue
import sys
import threading
import uuid
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

import hypothesis
import pytest
from django.db import connections
from django.test import override_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from django_idenfy_phone import delivery, maintenance, services
from django_idenfy_phone.exceptions import VerificationError
from django_idenfy_phone.models import PhoneVerification, ProviderGate, StartLock
from django_idenfy_phone.sandbox.state import SandboxState
from django_idenfy_phone.signals import phone_verified
from support import wire as w
from support.steps import start

MAX_CHECKS = 3
OPEN = ("queued", "sending", "sent")
# T2 and T8: the only changes of a row that has ended.
LATE_CHANGES = {("unknown", "sent"), ("expired", "verified"), ("locked", "verified")}

SEND, CHECK = "/fraud/send-sms", "/fraud/verify-sms"
UNREACHABLE = "http://127.0.0.1:1"
REFUSALS = {SEND: {"limit", "value", "account"}, CHECK: {"limit", "account"}}
FAULTS = {
    "limit": w.refusal(429, "TOO_MANY_REQUESTS", Retry_After="2"),
    "value": w.refusal(400, "BAD_VALUE"),
    "account": w.refusal(401, "UNAUTHORIZED"),
    "error": w.refusal(500, "INTERNAL_ERROR"),
    "reset": w.reset,
    "html": w.answer(200, b"<html>"),
}
# "stale" is the request_id of another row.
ANSWERS = ["normal"] * 9 + ["stale", *FAULTS]
# None: a later step answers.
ANSWERS_OR_NONE = st.sampled_from(ANSWERS + [None] * 8)
# How many lines of our code run before the crash; None: no crash.
LINES_LEFT = st.none() | st.none() | st.none() | st.integers(0, 150)
SECONDS = st.sampled_from([1, 1, 2, 2, 5, 5, 21, 21, 46, 61, 185, 605])
POSITIONS = st.integers(0, 15)
MOSTLY_TRUE = st.sampled_from([True] * 5 + [False])

PACKAGE = Path(services.__file__).parent
CRASHABLE_FILES = {
    str(PACKAGE / f"{name}.py")
    for name in (
        "announce",
        "checking",
        "delivery",
        "gate",
        "idempotency",
        "limits",
        "maintenance",
        "models",
        "services",
        "transactions",
        "transitions",
    )
}


def sweep():
    # Eager: a crash is raised only in the thread of its operation.
    maintenance.sweep(lambda pk: True, is_eager=True)


class Row:
    """What the machine knows about one row, to compare it with the database."""

    def __init__(self, pk, number):
        self.pk, self.number = pk, number
        self.calls = []
        self.is_proven = self.saw_crash = False
        self.signals = 0
        self.status = "queued"

    def maybe_accepted(self, path):
        return sum(call.path == path and not call.is_refused for call in self.calls)

    def compare(self, record):
        checks = [call for call in self.calls if call.path == CHECK]
        assert self.maybe_accepted(SEND) <= 1, "billed twice"
        assert self.maybe_accepted(CHECK) <= MAX_CHECKS, "too many guesses"
        assert len(checks) <= 2 * MAX_CHECKS, "too many calls"
        assert record.is_verified <= self.is_proven, "falsely verified"
        assert self.saw_crash or self.signals == record.is_verified, "signal"
        self.change_status(record.failure or record.status)

    def change_status(self, status):
        if status != self.status:
            change = (self.status, status)
            assert self.status in OPEN or change in LATE_CHANGES, change
            self.status = status

    def has_ended(self):
        return self.status not in OPEN and bool(self.signals) == self.is_verified()

    def is_verified(self):
        return self.status == "verified"


class Call:
    """A request that waits at iDenfy for its answer."""

    def __init__(self, request):
        self.path, self.body = request.path, request.body
        self.is_refused = False
        self.answer = queue.SimpleQueue()


class Crash(BaseException):
    pass


class Operation(threading.Thread):
    """One process that works until its end, its crash or its request to iDenfy."""

    def __init__(self, work, lines_left, row=None):
        super().__init__(daemon=True)
        self.work, self.lines_left, self.row = work, lines_left, row
        # Each call, and None at the end.
        self.calls = queue.SimpleQueue()
        self.call = self.result = self.error = None

    def run(self):
        sys.settrace(self.trace)
        try:
            self.result = self.work()
        except (Crash, Exception) as error:
            self.error = error
        finally:
            sys.settrace(None)
            connections.close_all()
            self.calls.put(None)

    def trace(self, frame, event, arg):
        if frame.f_code.co_filename not in CRASHABLE_FILES:
            return None
        if event == "line" and self.lines_left is not None:
            self.lines_left -= 1
            if self.lines_left < 0:
                raise Crash
        return self.trace

    def crash(self):
        self.lines_left = 0
        self.call.answer.put(w.reset)
        self.join()

    def waits_for_idenfy(self):
        """Return True once it waits for an answer, or False once it has ended."""
        self.call = self.calls.get(timeout=60)
        if self.call is None and not isinstance(self.error, Crash | VerificationError):
            assert self.error is None, repr(self.error)
        return self.call is not None


class Machine(RuleBasedStateMachine):
    counts = Counter()

    def __init__(self, wire, user, clock):
        super().__init__()
        for model in (PhoneVerification, ProviderGate, StartLock):
            model.objects.all().delete()
        self.wire, self.user, self.clock = wire, user, clock
        self.known, self.waiting = {}, []
        # No code expires at iDenfy, so that a late answer may be true.
        self.idenfy = SandboxState(lambda began=clock.now: began)
        self.counts["examples"] += 1
        wire.will(self.hold)
        phone_verified.connect(self.receive)

    def hold(self, sock):
        call = Call(self.wire.requests[-1])
        self.running.calls.put(call)
        while True:
            with suppress(queue.Empty):
                return call.answer.get(timeout=2)(sock)
            # Without this the client would time out by its real clock.
            sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def receive(self, verification, **kwargs):
        self.known[verification.pk].signals += 1

    @precondition(lambda self: self.has_room())
    @rule(lines_left=LINES_LEFT)
    def start(self, lines_left=None):
        number = f"+370612{len(self.known):05}"
        self.begin(partial(start, self.user, number), lines_left)
        # The id decides the order of rows, so it must be the same in each run.
        pk = uuid.UUID(int=len(self.known))
        if PhoneVerification.objects.filter(phone_number=number).update(id=pk):
            self.known[pk] = Row(pk, number)

    @rule(
        position=POSITIONS,
        lines_left=LINES_LEFT,
        is_reachable=MOSTLY_TRUE,
        answer=ANSWERS_OR_NONE,
    )
    def deliver(self, position, lines_left, is_reachable, answer):
        if not self.rows("queued") and self.has_room():
            self.start()
        row = self.pick(position, "queued")
        work = partial(delivery.deliver, row.pk)
        self.begin(work, lines_left, row, is_reachable, answer)

    @rule(
        position=POSITIONS,
        lines_left=LINES_LEFT,
        is_reachable=MOSTLY_TRUE,
        answer=ANSWERS_OR_NONE,
        is_right=st.sampled_from([True, False]),
    )
    def confirm(self, position, lines_left, is_reachable, answer, is_right):
        if not self.rows("sent") and self.has_room():
            self.deliver(0, None, True, "normal")
        row = self.pick(position, "sent")
        code = self.code_for(row, is_right)
        work = partial(services.confirm_verification, row.pk, code, user=self.user)
        self.begin(work, lines_left, row, is_reachable, answer)

    @precondition(lambda self: self.waiting)
    @rule(position=POSITIONS, answer=st.sampled_from(ANSWERS), lines_left=LINES_LEFT)
    def answer_waiting(self, position, answer, lines_left):
        operation = self.waiting.pop(position % len(self.waiting))
        operation.lines_left = lines_left
        self.answer(operation, answer)

    @rule(seconds=SECONDS)
    def pass_time(self, seconds):
        self.clock.move(timedelta(seconds=seconds))

    @rule(lines_left=LINES_LEFT)
    def sweep(self, lines_left):
        self.begin(sweep, lines_left)

    @invariant()
    def all_rows_are_right(self):
        self.counts["checked"] += 1
        self.compare_all()

    def compare_all(self):
        for record in PhoneVerification.objects.all():
            row = self.known[record.pk]
            before = row.status
            row.compare(record)
            self.counts[before, row.status] += 1

    def teardown(self):
        try:
            self.end_all()
            while self.waiting:
                self.answer_waiting(0, "normal", None)
                self.compare_all()
            self.end_all()
        finally:
            phone_verified.disconnect(self.receive)
            for operation in self.waiting:
                operation.crash()

    def end_all(self):
        """Sweep after all deadlines, also those of rows that wait for iDenfy."""
        self.clock.move(timedelta(days=2))
        self.begin(sweep, None)
        self.compare_all()
        assert all(row.has_ended() for row in self.known.values()), "stuck"

    def begin(self, work, lines_left, row=None, is_reachable=True, answer=None):
        self.clock.move(timedelta(seconds=1))
        url = self.wire.url if is_reachable else UNREACHABLE
        operation = self.running = Operation(work, lines_left, row)
        with override_settings(IDENFY_PHONE_API_URL=url):
            operation.start()
            self.go_on(operation, answer)

    def go_on(self, operation, answer=None):
        if not operation.waits_for_idenfy():
            self.note_crash(operation)
            return
        operation.row.calls.append(operation.call)
        if answer is None:
            self.waiting.append(operation)
        else:
            self.answer(operation, answer)

    def note_crash(self, operation):
        if isinstance(operation.error, Crash):
            self.counts["crashes"] += 1
            for row in [operation.row] if operation.row else self.known.values():
                row.saw_crash = True

    def answer(self, operation, answer):
        self.counts[operation.call.path, answer] += 1
        operation.call.answer.put(self.make_answer(operation, answer))
        self.go_on(operation)

    def make_answer(self, operation, answer):
        row, call = operation.row, operation.call
        call.is_refused = answer in REFUSALS[call.path]
        if call.is_refused:
            return FAULTS[answer]
        body = self.send(row, call) if call.path == SEND else self.check(row, call)
        if answer == "stale":
            others = PhoneVerification.objects.exclude(request_id=None)
            body |= others.exclude(pk=row.pk).values("request_id").first() or {}
        row.is_proven |= body.get("is_verified", False) and answer not in FAULTS
        return FAULTS.get(answer, w.answer(200, body))

    def send(self, row, call):
        assert call.body["phone_number"] == row.number
        return {"request_id": self.idenfy.send(row.number).request_id}

    def check(self, row, call):
        request_id = call.body["request_id"]
        assert self.idenfy.number_of(request_id) == row.number
        is_verified = self.idenfy.check(request_id, call.body["received_code"])
        return {"is_verified": is_verified}

    def rows(self, *statuses):
        return [row for row in self.known.values() if row.status in statuses]

    def has_room(self):
        return len(self.rows(*OPEN)) < 5

    def pick(self, position, status):
        """Pick mostly a row of this status, but sometimes any row."""
        likely = self.rows(status) if position % 4 < 3 else []
        rows = likely or list(self.known.values())
        return rows[position // 4 % len(rows)]

    def code_for(self, row, is_right):
        try:
            code = int(self.idenfy.code_for(row.number))
        except LookupError:
            code = 0
        return f"{code if is_right else (code + 1) % 10_000:04}"


@pytest.mark.django_db(transaction=True)
def test_nothing_is_lost_or_paid_or_proven_twice(wire, settings, user, clock):
    settings.IDENFY_PHONE_TIMEOUT = 600
    settings.IDENFY_PHONE_SEND_LIMITS = dict.fromkeys(
        ("number", "user", "network", "block", "site"), ()
    )
    Machine.counts.clear()
    run_state_machine_as_test(
        lambda: Machine(wire, user, clock),
        settings=hypothesis.settings(
            max_examples=50,
            stateful_step_count=50,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
            suppress_health_check=list(hypothesis.HealthCheck),
        ),
    )
    steps = Machine.counts["checked"] - Machine.counts["examples"]
    print(f"{steps} steps:", dict(Machine.counts))
    assert steps >= 2000
