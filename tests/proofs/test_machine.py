"""Users, workers, sweeps and time in any order, and a death between any two lines.

The machine plays iDenfy: a request waits until a later step answers it, so that
others come in between. A death is an exception that no code of ours catches, at any
line of ours, in a thread with a database connection of its own.
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

MAX_CHECKS = 3
OPEN = ("queued", "sending", "sent")
# T2 and T8.
LIFTS = {("unknown", "sent"), ("expired", "verified"), ("locked", "verified")}

SEND, CHECK = "/fraud/send-sms", "/fraud/verify-sms"
NOBODY_LISTENS = "http://127.0.0.1:1"
REFUSALS = {SEND: {"limit", "value", "account"}, CHECK: {"limit", "account"}}
ACTS = {
    "limit": w.refusal(429, "TOO_MANY_REQUESTS", Retry_After="2"),
    "value": w.refusal(400, "BAD_VALUE"),
    "account": w.refusal(401, "UNAUTHORIZED"),
    "error": w.refusal(500, "INTERNAL_ERROR"),
    "reset": w.reset,
    "html": w.answer(200, b"<html>"),
}
# "stale" is a request_id that another row has; None is an answer in a later step.
ANSWERS = ["plain"] * 9 + ["stale", *ACTS]
FATES = st.sampled_from(ANSWERS + [None] * 8)
# The lines of ours that an operation lives for; None is for ever.
LIVES = st.none() | st.none() | st.none() | st.integers(0, 150)
SECONDS = st.sampled_from([1, 1, 2, 2, 5, 5, 21, 21, 46, 61, 185, 605])
WHICH = st.integers(0, 15)
MOSTLY = st.sampled_from([True] * 5 + [False])

PACKAGE = Path(services.__file__).parent
MORTAL = {
    str(PACKAGE / f"{name}.py")
    for name in (
        "announce",
        "delivery",
        "maintenance",
        "models",
        "services",
        "transactions",
    )
}


def sweep():
    maintenance.sweep(lambda pk: True)


class Row:
    """The model: what the world saw of one row."""

    def __init__(self, pk, number):
        self.pk, self.number = pk, number
        self.calls = []
        self.is_proven = self.saw_death = False
        self.heard = 0
        self.status = "queued"

    def maybe_accepted(self, path):
        return sum(call.path == path and not call.is_refused for call in self.calls)

    def judge(self, record):
        checks = [call for call in self.calls if call.path == CHECK]
        assert self.maybe_accepted(SEND) <= 1, "billed twice"
        assert self.maybe_accepted(CHECK) <= MAX_CHECKS, "too many guesses"
        assert len(checks) <= 2 * MAX_CHECKS, "too many calls"
        assert record.is_verified <= self.is_proven, "falsely verified"
        assert self.saw_death or self.heard == record.is_verified, "signal"
        self.move_to(record.failure or record.status)

    def move_to(self, status):
        if status != self.status:
            move = (self.status, status)
            assert self.status in OPEN or move in LIFTS, move
            self.status = status

    def has_ended(self):
        return self.status not in OPEN and bool(self.heard) == self.is_verified()

    def is_verified(self):
        return self.status == "verified"


class Call:
    """A request that waits at iDenfy for its answer."""

    def __init__(self, request):
        self.path, self.body = request.path, request.body
        self.is_refused = False
        self.reply = queue.SimpleQueue()


class Death(BaseException):
    pass


class Operation(threading.Thread):
    """One process at work, until its end, its death or its request to iDenfy."""

    def __init__(self, work, lives, row=None):
        super().__init__(daemon=True)
        self.work, self.lives, self.row = work, lives, row
        self.news = queue.SimpleQueue()
        self.call = self.result = self.error = None

    def run(self):
        sys.settrace(self.trace)
        try:
            self.result = self.work()
        except (Death, Exception) as error:
            self.error = error
        finally:
            sys.settrace(None)
            connections.close_all()
            self.news.put(None)

    def trace(self, frame, event, arg):
        if frame.f_code.co_filename not in MORTAL:
            return None
        if event == "line" and self.lives is not None:
            self.lives -= 1
            if self.lives < 0:
                raise Death
        return self.trace

    def die(self):
        self.lives = 0
        self.call.reply.put(w.reset)
        self.join()

    def is_at_idenfy(self):
        """Whether it waits for an answer, rather than having ended."""
        self.call = self.news.get(timeout=60)
        if self.call is None and not isinstance(self.error, Death | VerificationError):
            assert self.error is None, repr(self.error)
        return self.call is not None


class Machine(RuleBasedStateMachine):
    seen = Counter()

    def __init__(self, wire, user, clock):
        super().__init__()
        for model in (PhoneVerification, ProviderGate, StartLock):
            model.objects.all().delete()
        self.wire, self.user, self.clock = wire, user, clock
        self.known, self.waiting = {}, []
        # No code ends there, so that a late answer may be true.
        self.idenfy = SandboxState(lambda began=clock.now: began)
        self.seen["examples"] += 1
        wire.will(self.hold)
        phone_verified.connect(self.hear)

    def hold(self, sock):
        call = Call(self.wire.requests[-1])
        self.running.news.put(call)
        while True:
            with suppress(queue.Empty):
                return call.reply.get(timeout=2)(sock)
            # Or the client's real clock would end its wait.
            sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def hear(self, verification, **kwargs):
        self.known[verification.pk].heard += 1

    # The steps

    @precondition(lambda self: self.has_room())
    @rule(lives=LIVES)
    def start(self, lives=None):
        number = f"+370612{len(self.known):05}"
        self.begin(lambda: services.start_verification(number, user=self.user), lives)
        # An id that is the same in each run, for the order of rows.
        pk = uuid.UUID(int=len(self.known))
        if PhoneVerification.objects.filter(phone_number=number).update(id=pk):
            self.known[pk] = Row(pk, number)

    @rule(which=WHICH, lives=LIVES, is_reachable=MOSTLY, fate=FATES)
    def deliver(self, which, lives, is_reachable, fate):
        if not self.rows("queued") and self.has_room():
            self.start()
        row = self.pick(which, "queued")
        work = partial(delivery.deliver, row.pk)
        self.begin(work, lives, row, is_reachable, fate)

    @rule(
        which=WHICH,
        lives=LIVES,
        is_reachable=MOSTLY,
        fate=FATES,
        is_right=st.sampled_from([True, False]),
    )
    def confirm(self, which, lives, is_reachable, fate, is_right):
        if not self.rows("sent") and self.has_room():
            self.deliver(0, None, True, "plain")
        row = self.pick(which, "sent")
        code = self.code_of(row, is_right)
        work = partial(services.confirm_verification, row.pk, code, user=self.user)
        self.begin(work, lives, row, is_reachable, fate)

    @precondition(lambda self: self.waiting)
    @rule(which=WHICH, fate=st.sampled_from(ANSWERS), lives=LIVES)
    def answer(self, which, fate, lives):
        operation = self.waiting.pop(which % len(self.waiting))
        operation.lives = lives
        self.respond(operation, fate)

    @rule(seconds=SECONDS)
    def pass_time(self, seconds):
        self.clock.now += timedelta(seconds=seconds)

    @rule(lives=LIVES)
    def sweep(self, lives):
        self.begin(sweep, lives)

    # What must hold

    @invariant()
    def all_rows_are_sound(self):
        self.seen["checked"] += 1
        self.judge_all()

    def judge_all(self):
        for record in PhoneVerification.objects.all():
            row = self.known[record.pk]
            before = row.status
            row.judge(record)
            self.seen[before, row.status] += 1

    def teardown(self):
        try:
            self.end_all()
            while self.waiting:
                self.answer(0, "plain", None)
                self.judge_all()
            self.end_all()
        finally:
            phone_verified.disconnect(self.hear)
            for operation in self.waiting:
                operation.die()

    def end_all(self):
        """A sweep past all deadlines: even those of what still waits for iDenfy."""
        self.clock.now += timedelta(days=2)
        self.begin(sweep, None)
        self.judge_all()
        assert all(row.has_ended() for row in self.known.values()), "stuck"

    # How it is done

    def begin(self, work, lives, row=None, is_reachable=True, fate=None):
        self.clock.now += timedelta(seconds=1)
        url = self.wire.url if is_reachable else NOBODY_LISTENS
        operation = self.running = Operation(work, lives, row)
        with override_settings(IDENFY_PHONE_API_URL=url):
            operation.start()
            self.go_on(operation, fate)

    def go_on(self, operation, fate=None):
        if not operation.is_at_idenfy():
            self.bury(operation)
            return
        operation.row.calls.append(operation.call)
        if fate is None:
            self.waiting.append(operation)
        else:
            self.respond(operation, fate)

    def bury(self, operation):
        if isinstance(operation.error, Death):
            self.seen["deaths"] += 1
            for row in [operation.row] if operation.row else self.known.values():
                row.saw_death = True

    def respond(self, operation, fate):
        self.seen[operation.call.path, fate] += 1
        operation.call.reply.put(self.obey(operation, fate))
        self.go_on(operation)

    def obey(self, operation, fate):
        row, call = operation.row, operation.call
        call.is_refused = fate in REFUSALS[call.path]
        if call.is_refused:
            return ACTS[fate]
        body = self.bill(row, call) if call.path == SEND else self.check(row, call)
        if fate == "stale":
            others = PhoneVerification.objects.exclude(request_id=None)
            body |= others.exclude(pk=row.pk).values("request_id").first() or {}
        row.is_proven |= body.get("is_verified", False) and fate not in ACTS
        return ACTS.get(fate, w.answer(200, body))

    def bill(self, row, call):
        assert call.body["phone_number"] == row.number
        return {"request_id": self.idenfy.send(row.number).request_id}

    def check(self, row, call):
        request_id = call.body["request_id"]
        assert self.idenfy.number_of(request_id) == row.number
        verdict = self.idenfy.check(request_id, call.body["received_code"])
        return {"is_verified": verdict}

    def rows(self, *statuses):
        return [row for row in self.known.values() if row.status in statuses]

    def has_room(self):
        return len(self.rows(*OPEN)) < 5

    def pick(self, which, status):
        """Mostly a row of this status; any other sometimes, or where there is none."""
        likely = self.rows(status) if which % 4 < 3 else []
        rows = likely or list(self.known.values())
        return rows[which // 4 % len(rows)]

    def code_of(self, row, is_right):
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
    Machine.seen.clear()
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
    steps = Machine.seen["checked"] - Machine.seen["examples"]
    print(f"{steps} steps:", dict(Machine.seen))
    assert steps >= 2000
