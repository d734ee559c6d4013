"""10,000 rows that waited for the broker or iDenfy to come back, on moved time."""

import heapq
import operator
import uuid
from datetime import timedelta
from itertools import islice

import pytest

from django_idenfy_phone import delivery, maintenance
from django_idenfy_phone.models import PhoneVerification
from support import wire as w

pytestmark = pytest.mark.django_db
rows = PhoneVerification.objects
SECOND = timedelta(seconds=1)


class Idenfy:
    """Notes when a request came; refuses all until ``opens_at``."""

    def __init__(self, clock):
        self.clock, self.opens_at = clock, clock.now
        self.sent, self.refused = [], []

    def __call__(self, sock):
        if self.clock.now < self.opens_at:
            self.refused.append(self.clock.now)
            act = w.refusal(429, "TOO_MANY_REQUESTS", Retry_After="7")
        else:
            self.sent.append(self.clock.now)
            act = w.answer(200, {"request_id": uuid.uuid4().hex})
        return act(sock)


@pytest.fixture
def idenfy(wire, clock):
    idenfy = Idenfy(clock)
    wire.will(idenfy)
    return idenfy


def fill(count, now):
    rows.bulk_create(
        PhoneVerification(
            phone_number=f"+370612{n:05}",
            region="LT",
            send_by=now + timedelta(minutes=3),
            next_send_at=now,
        )
        for n in range(count)
    )


def drain(clock):
    """What beat and workers do, until nothing waits any more."""
    hints, sweep_at = [], clock.now

    def hint(pk, due):
        heapq.heappush(hints, (due, pk))
        return True

    while rows.filter(status="queued").exists():
        if not hints or sweep_at <= hints[0][0]:
            clock.now = max(clock.now, sweep_at)
            sweep_at += maintenance.SWEEP_INTERVAL
            maintenance.sweep(lambda pk: hint(pk, clock.now))
        else:
            due, pk = heapq.heappop(hints)
            clock.now = max(clock.now, due)
            delay = delivery.deliver(pk)
            if delay is not None:
                hint(pk, clock.now + delay * SECOND)


def test_all_that_can_be_sent_in_time_is_and_the_rest_costs_nothing(idenfy, clock):
    fill(10_000, clock.now)
    drain(clock)
    # A burst of 20, then one a second; the slot at the very deadline is too late.
    assert len(idenfy.sent) == rows.filter(status="sent").count() == 20 + 179
    assert rows.filter(failure="too_late").count() == 10_000 - 199
    for count in (20, 60, 150):
        assert shortest(idenfy.sent, count) > (count - 20) * SECOND


def test_a_rate_limit_is_met_by_one_request_at_a_time(idenfy, clock):
    fill(1_000, clock.now)
    idenfy.opens_at = clock.now + 60 * SECOND
    drain(clock)
    # Once in the 7 seconds of each Retry-After, then one a second without a burst.
    assert len(idenfy.refused) == 9
    assert shortest(idenfy.refused, 1) >= 7 * SECOND
    assert shortest(idenfy.sent, 1) >= 0.999 * SECOND
    assert 110 <= len(idenfy.sent) == rows.filter(status="sent").count() <= 120
    assert rows.filter(failure="too_late").count() == 1_000 - len(idenfy.sent)


def shortest(moments, count):
    """The shortest time in which so many requests followed a first one."""
    return min(map(operator.sub, islice(moments, count, None), moments))
