import threading
import uuid
from collections import Counter
from datetime import timedelta
from itertools import pairwise

import pytest
from django.utils import timezone

from django_idenfy_phone import delivery, maintenance, services
from django_idenfy_phone.exceptions import ProviderUnavailable
from django_idenfy_phone.models import PhoneVerification, ProviderGate
from django_idenfy_phone.testing import age
from support import wire as w
from support.constants import NUMBER

pytestmark = pytest.mark.django_db
rows = PhoneVerification.objects
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def idenfy(wire):
    """Every send succeeds, each with a request_id of its own."""
    numbers = iter(range(10**6))
    lock = threading.Lock()

    def send(sock):
        with lock:
            request_id = f"{next(numbers):032}"
        w.answer(200, {"request_id": request_id})(sock)

    wire.will(send)
    return wire


def statuses():
    return Counter(rows.values_list("status", flat=True))


def wait(row):
    row.refresh_from_db()
    return (row.next_send_at - timezone.now()).total_seconds()


def gate(**fields):
    ProviderGate.objects.update_or_create(pk=1, defaults=fields)


# The pace, slow enough that the seconds of a test do not count


@pytest.fixture
def slowly(settings):
    settings.IDENFY_PHONE_SEND_RATE = "1/m"
    settings.IDENFY_PHONE_SEND_DEADLINE = timedelta(hours=1)


@pytest.fixture
def queued(make):
    """Make a row that has an hour to be sent in."""
    return lambda: make("queued", send_by=timezone.now() + 60 * MINUTE)


def used_up(minutes):
    """A gate whose burst is used up; its next slot is so many minutes away."""
    gate(next_slot_at=timezone.now() + (19 + minutes) * MINUTE)


def gaps():
    """Minutes between the slots that were given to waiting rows."""
    held = rows.filter(slot_held=True).order_by("next_send_at")
    slots = list(held.values_list("next_send_at", flat=True))
    return [(later - earlier) / MINUTE for earlier, later in pairwise(slots)]


def test_a_burst_of_20_leaves_at_once_then_one_at_a_time(queued, idenfy, slowly):
    made = [queued() for _ in range(25)]
    delays = [delivery.deliver(row.pk) for row in made]
    assert delays[:20] == [None] * 20
    assert 50 < delays[20] <= 60
    assert gaps() == [1, 1, 1, 1]
    assert statuses() == {"sent": 20, "queued": 5}


def test_a_slot_is_held_until_it_comes(queued, idenfy, slowly):
    used_up(6)
    row = queued()
    assert 350 < delivery.deliver(row.pk) <= 360
    assert delivery.deliver(row.pk) is None
    age(row, 6 * MINUTE)
    assert delivery.deliver(row.pk) is None
    row.refresh_from_db()
    assert (row.status, row.slot_held) == ("sent", False)


def test_duplicate_hints_take_one_slot(queued, idenfy, slowly):
    used_up(6)
    row, next_row = queued(), queued()
    for _ in range(5):
        delivery.deliver(row.pk)
    delivery.deliver(next_row.pk)
    assert gaps() == [1]


@pytest.mark.parametrize("minutes", [60, 61])
def test_a_slot_at_or_past_the_deadline_is_too_late_and_not_taken(
    queued, idenfy, slowly, clock, minutes
):
    used_up(minutes)
    row, before = queued(), ProviderGate.look().next_slot_at
    assert delivery.deliver(row.pk) is None
    row.refresh_from_db()
    assert (row.failure, idenfy.requests) == ("too_late", [])
    assert ProviderGate.look().next_slot_at == before


def test_without_a_rate_nothing_waits(make, idenfy, settings):
    settings.IDENFY_PHONE_SEND_RATE = None
    for row in [make("queued") for _ in range(30)]:
        delivery.deliver(row.pk)
    assert statuses() == {"sent": 30}
    assert ProviderGate.look().next_slot_at is None


def test_another_rate_is_another_pace(queued, idenfy, settings):
    settings.IDENFY_PHONE_SEND_RATE = "1/2m"
    for _ in range(23):
        delivery.deliver(queued().pk)
    assert gaps() == [2, 2]


def test_the_sweep_hints_as_many_as_can_be_sent(make, settings):
    settings.IDENFY_PHONE_SEND_RATE = "10/s"
    rows.bulk_create(_copies(make("queued"), 319))
    assert len(maintenance.due()) == 300
    settings.IDENFY_PHONE_SEND_RATE = "1/m"
    assert len(maintenance.due()) == 200
    settings.IDENFY_PHONE_SEND_RATE = None
    assert len(maintenance.due()) == 320


def _copies(row, count):
    fields = {f.attname: getattr(row, f.attname) for f in row._meta.concrete_fields}
    return [PhoneVerification(**fields | {"id": uuid.uuid4()}) for _ in range(count)]


@pytest.mark.django_db(transaction=True)
def test_50_workers_share_one_pace(queued, idenfy, slowly, at_once):
    at_once(delivery.deliver, [queued().pk for _ in range(50)])
    assert len(idenfy.requests) == 20
    assert gaps() == [1] * 29


@pytest.mark.django_db(transaction=True)
def test_50_hints_for_one_row_take_one_slot(queued, idenfy, slowly, at_once):
    used_up(6)
    at_once(delivery.deliver, [queued().pk] * 50)
    delivery.deliver(queued().pk)
    assert gaps() == [1]


# Pauses


def test_after_a_rate_limit_the_others_wait_too_and_do_not_stampede(make, wire, clock):
    wire.will(w.refusal(429, "TOO_MANY_REQUESTS", Retry_After="7"))
    first, *others = (make("queued") for _ in range(4))
    assert delivery.deliver(first.pk) == 7
    delays = [delivery.deliver(row.pk) for row in others]
    assert delays[0] == 7
    assert gaps() == [1 / 60, 1 / 60]
    assert len(wire.requests) == 1


def test_a_held_slot_does_not_outrun_a_pause(make, idenfy):
    row = make("queued", slot_held=True)
    gate(sends_paused_until=timezone.now() + 9 * SECOND)
    assert 5 < delivery.deliver(row.pk) <= 9
    age(row, 9 * SECOND)
    delivery.deliver(row.pk)
    assert statuses() == {"sent": 1}


def test_a_longer_pause_is_not_cut_short():
    now = timezone.now()
    for seconds in (60, 5):
        ProviderGate.change(lambda gate, s=seconds: gate.pause_sends(now + s * SECOND))
    assert ProviderGate.look().sends_paused_until == now + MINUTE


@pytest.mark.parametrize(
    ("act", "faults"),
    [
        (w.refusal(401, "UNAUTHORIZED"), 1),
        (w.answer(401), 1),
        (w.refusal(400, "UNAUTHORIZED"), 1),
        (w.answer(403), 3),
        (w.answer(404), 3),
        (w.answer(405), 3),
        (w.refusal(400, "PERMISSIONS_ERROR"), 3),
        (w.refusal(400, "PARTNER_CONTRACT_ERROR"), 3),
    ],
)
def test_a_broken_account_pauses_sends_for_a_minute(make, wire, act, faults):
    wire.will(act)
    for _ in range(5):
        delivery.deliver(make("queued").pk)
    assert len(wire.requests) == faults
    assert statuses() == {"failed": faults, "queued": 5 - faults}


def test_faults_with_a_success_between_pause_nothing(make, wire):
    sent = [w.answer(200, {"request_id": f"{n:032}"}) for n in range(2)]
    refused = w.answer(403)
    wire.will(refused, refused, sent[0], refused, refused, sent[1])
    for _ in range(6):
        delivery.deliver(make("queued").pk)
    assert len(wire.requests) == 6


def test_sends_go_on_by_themselves_after_an_account_fault(make, wire):
    wire.will(w.answer(401), w.answer(200, {"request_id": "r" * 32}))
    delivery.deliver(make("queued").pk)
    row = make("queued")
    assert 55 < delivery.deliver(row.pk) <= 60
    age(row, MINUTE)
    delivery.deliver(row.pk)
    row.refresh_from_db()
    assert (row.status, ProviderGate.look().account_faults) == ("sent", 0)


# Start


def start(user, number):
    return services.start_verification(number, user=user)


def post_start(api):
    answer = api.post("/phone/start/", {"phone_number": NUMBER}, format="json")
    wait = answer.json().get("retry_after")
    assert answer.get("Retry-After") == (wait and str(wait))
    return answer.status_code, wait


@pytest.mark.parametrize(
    ("act", "wait"),
    [
        (w.refusal(401, "UNAUTHORIZED"), 60),
        # A pause of 300 s, and a new row has 180 s: the slot at its end is too late.
        (w.refusal(429, "TOO_MANY_REQUESTS", Retry_After="86400"), 121),
    ],
)
def test_starts_are_refused_until_a_code_could_be_sent_in_time(
    make, api, wire, clock, act, wait
):
    wire.will(act)
    delivery.deliver(make("queued", phone_number="+37061234568").pk)
    assert post_start(api) == (503, wait)
    clock.now += (wait - 2) * SECOND
    assert post_start(api) == (503, 2)
    assert rows.count() == 1
    clock.now += 2 * SECOND
    assert post_start(api) == (202, None)


def test_the_longer_of_two_pauses_is_told(user, wire, clock):
    gate(
        account_paused_until=clock.now + 10 * SECOND,
        sends_paused_until=clock.now + 300 * SECOND,
    )
    with pytest.raises(ProviderUnavailable) as caught:
        start(user, NUMBER)
    assert caught.value.retry_after == 120.001


def test_codes_are_checked_while_sends_wait(make, user, wire):
    until = timezone.now() + MINUTE
    gate(sends_paused_until=until, next_slot_at=until + 60 * MINUTE)
    wire.will(w.answer(200, {"is_verified": True}))
    row = make("sent")
    assert services.confirm_verification(row.pk, "1234", user=user).is_verified


@pytest.mark.parametrize(
    "fields",
    [
        {"sends_paused_until": timedelta(minutes=4)},
        {"next_slot_at": timedelta(minutes=4, seconds=19)},
    ],
    ids=["pause", "queue"],
)
def test_a_start_that_could_not_be_sent_in_time_is_refused(user, idenfy, clock, fields):
    now = clock.now
    gate(**{name: now + wait for name, wait in fields.items()})
    with pytest.raises(ProviderUnavailable) as caught:
        start(user, "+37061234567")
    assert caught.value.retry_after == 60.001
    passed = timedelta(seconds=caught.value.retry_after)
    gate(**{name: now - passed + wait for name, wait in fields.items()})
    row = start(user, "+37061234567")
    assert delivery.deliver(row.pk) < 180


def test_a_start_that_waits_a_little_is_accepted(user, wire):
    gate(sends_paused_until=timezone.now() + 2 * MINUTE)
    assert start(user, "+37061234567").status == "queued"


# Clocks


@pytest.mark.parametrize("minutes", [4, 10, 60, -4, -10])
def test_slots_of_a_host_whose_clock_is_wrong_stop_no_other(
    make, api, idenfy, clock, minutes
):
    clock.now += minutes * MINUTE
    for _ in range(25):
        elsewhere = {"phone_number": "+37060012345", "number_block": "", "user": None}
        delivery.deliver(make("queued", **elsewhere).pk)
    clock.now -= minutes * MINUTE
    assert post_start(api) == (202, None)
    row = rows.get(phone_number=NUMBER)
    assert delivery.deliver(row.pk) is None
    row.refresh_from_db()
    assert row.status == "sent"


@pytest.mark.parametrize("minutes", [10, 60, -10])
def test_pauses_of_a_host_whose_clock_is_wrong_stop_no_other(
    make, api, idenfy, clock, minutes
):
    elsewhere = clock.now + minutes * MINUTE
    gate(
        account_paused_until=elsewhere + MINUTE,
        sends_paused_until=elsewhere + 5 * MINUTE,
        checks_paused_until=elsewhere + 5 * MINUTE,
    )
    assert post_start(api) == (202, None)
    row = rows.get(phone_number=NUMBER)
    assert delivery.deliver(row.pk) is None
    answer = api.post(f"/phone/{row.pk}/confirm/", {"code": "1234"}, format="json")
    assert answer.json()["code"] == "check_unknown"
    assert len(idenfy.requests) == 2


def test_a_pause_that_a_wrong_clock_wrote_is_replaced(wire, clock):
    gate(
        sends_paused_until=clock.now + 60 * MINUTE,
        checks_paused_until=clock.now + 60 * MINUTE,
        next_slot_at=clock.now + 60 * MINUTE,
    )
    ProviderGate.change(lambda gate: gate.pause_sends(clock.now + 7 * SECOND))
    ProviderGate.change(lambda gate: gate.pause_checks(clock.now + 7 * SECOND))
    found = ProviderGate.look()
    now = clock.now
    for resumes_at in (found.next_slot(now), found.end_of_pause("checks", now)):
        assert resumes_at == now + 7 * SECOND


# After an outage


def test_what_cannot_be_sent_in_time_fails_and_costs_nothing(queued, idenfy, slowly):
    template = queued()
    rows.bulk_create(_copies(template, 99))
    for pk in list(rows.values_list("pk", flat=True)):
        delivery.deliver(pk)
    assert len(idenfy.requests) == 20
    # 20 at once, and one in each of the minutes before the deadline.
    assert statuses()["queued"] in (58, 59)
    failures = rows.filter(status="failed").values_list("failure", flat=True)
    assert set(failures) == {"too_late"}
