"""A backlog of up to 10,000 rows drains within all rates after an outage."""

import heapq
import operator
import uuid
from datetime import timedelta
from functools import partial
from itertools import islice

import pytest

from django_idenfy_phone import delivery, maintenance, services
from django_idenfy_phone.models import PhoneVerification
from support import wire as w
from support.steps import outcome

pytestmark = pytest.mark.django_db
rows = PhoneVerification.objects
SECOND = timedelta(seconds=1)


class Idenfy:
    """Records the time of each send; refuses those before ``opens_at``."""

    def __init__(self, clock, requests):
        self.clock, self.opens_at, self.requests = clock, clock.now, requests
        self.sent, self.refused = [], []

    def __call__(self, sock):
        if self.requests[-1].path.endswith("verify-sms"):
            respond = w.answer(200, {"is_verified": True})
        elif self.clock.now < self.opens_at:
            self.refused.append(self.clock.now)
            respond = w.refusal(429, "TOO_MANY_REQUESTS", Retry_After="7")
        else:
            self.sent.append(self.clock.now)
            respond = w.answer(200, {"request_id": uuid.uuid4().hex})
        return respond(sock)


@pytest.fixture
def idenfy(wire, clock):
    idenfy = Idenfy(clock, wire.requests)
    wire.will(idenfy)
    return idenfy


def queue_rows(count, now):
    rows.bulk_create(
        PhoneVerification(
            phone_number=f"+370612{n:05}",
            region="LT",
            send_by=now + timedelta(minutes=3),
            next_send_at=now,
        )
        for n in range(count)
    )


def drain(clock, lost_until=None, frozen_until=None, copies=1, meanwhile=None):
    """Sweep and deliver, as beat and workers do, until no row is queued.

    Messages that are published before ``lost_until`` are lost, but for those of the
    first sweep. After the first second, workers stand still until ``frozen_until``.
    ``meanwhile`` is called once, after 30 seconds.
    """
    messages, began_at, sweep_at = [], clock.now, clock.now

    def publish(pk, due):
        is_lost = lost_until and clock.now < lost_until and due > began_at
        for _ in range(0 if is_lost else copies):
            heapq.heappush(messages, (due, pk))
        return True

    while rows.filter(status="queued").exists():
        if meanwhile and clock.now >= began_at + 30 * SECOND:
            meanwhile()
            meanwhile = None
        if not messages or sweep_at <= messages[0][0]:
            clock.now = max(clock.now, sweep_at)
            sweep_at += maintenance.SWEEP_INTERVAL
            maintenance.sweep(lambda pk: publish(pk, clock.now))
        else:
            due, pk = heapq.heappop(messages)
            clock.now = max(clock.now, due)
            if frozen_until and clock.now > began_at + SECOND:
                clock.now = max(clock.now, frozen_until)
            delay = delivery.deliver(pk)
            if delay is not None:
                publish(pk, clock.now + delay)


def confirm(row):
    assert rows.filter(status="queued").count() > 900
    services.confirm_verification(row.pk, "1234", user=row.user)


def test_backlog_is_sent_at_full_rate_until_deadline(idenfy, clock, make):
    queue_rows(10_000, clock.now)
    checked = make("sent")
    drain(clock, meanwhile=partial(confirm, checked))
    assert outcome(checked) == "verified"
    # A burst of 20, then one a second. A slot exactly at the deadline is too late.
    assert len(idenfy.sent) == rows.filter(status="sent").count() == 20 + 179
    assert rows.filter(failure="too_late").count() == 10_000 - 199
    for count in (20, 60, 150):
        assert shortest_span(idenfy.sent, count) > (count - 20) * SECOND


@pytest.mark.parametrize("outage", ["frozen_until", "lost_until"])
@pytest.mark.parametrize("copies", [1, 2])
def test_slots_that_passed_in_an_outage_are_paced_again(idenfy, clock, outage, copies):
    queue_rows(100, clock.now)
    drain(clock, **{outage: clock.now + 60 * SECOND}, copies=copies)
    assert len(idenfy.sent) == rows.filter(status="sent").count() == 100
    for count in (20, 25, 50, 79):
        assert shortest_span(idenfy.sent, count) > (count - 20) * SECOND


@pytest.mark.parametrize("outage", ["frozen_until", "lost_until"])
def test_fast_backlog_loses_no_row_to_pacing(idenfy, clock, settings, outage):
    settings.IDENFY_PHONE_SEND_RATE = "20/s"
    queue_rows(600, clock.now)
    drain(clock, **{outage: clock.now + 25 * SECOND})
    assert len(idenfy.sent) == rows.filter(status="sent").count() == 600
    for count in (20, 100, 300):
        assert shortest_span(idenfy.sent, count) > (count - 20) * SECOND / 20


def test_rate_limited_backlog_sends_one_request_at_a_time(idenfy, clock, make):
    queue_rows(1_000, clock.now)
    idenfy.opens_at = clock.now + 60 * SECOND
    checked = make("sent")
    drain(clock, meanwhile=partial(confirm, checked))
    assert outcome(checked) == "verified"
    # One request per Retry-After of 7 seconds, then one a second without a burst.
    assert len(idenfy.refused) == 9
    assert shortest_span(idenfy.refused, 1) >= 7 * SECOND
    assert shortest_span(idenfy.sent, 1) >= 0.999 * SECOND
    assert 110 <= len(idenfy.sent) == rows.filter(status="sent").count() <= 120
    assert rows.filter(failure="too_late").count() == 1_000 - len(idenfy.sent)


def shortest_span(times, count):
    """Return the shortest time between a request and the ``count``-th one after it."""
    return min(map(operator.sub, islice(times, count, None), times))
