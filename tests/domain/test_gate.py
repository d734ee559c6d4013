"""All workers share one pace and its pauses, and starts know what they allow."""

import threading
import uuid
from collections import Counter
from datetime import timedelta
from itertools import pairwise

import pytest
from django.utils import timezone

from django_idenfy_phone import delivery, gate, services
from django_idenfy_phone.exceptions import ProviderUnavailable
from django_idenfy_phone.models import PhoneVerification, ProviderGate
from django_idenfy_phone.pacing import Pause
from django_idenfy_phone.signals import send_failed
from django_idenfy_phone.testing import age
from support import wire as w
from support.constants import NUMBER
from support.steps import dispatched_by_sweep, post_start, start

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


def set_gate(**fields):
    ProviderGate.objects.update_or_create(pk=1, defaults=fields)


# The pace: so slow that the duration of a test does not matter


@pytest.fixture
def one_a_minute(settings):
    settings.IDENFY_PHONE_SEND_RATE = "1/m"
    settings.IDENFY_PHONE_SEND_DEADLINE = timedelta(hours=1)


@pytest.fixture
def queued(make):
    """Make a row that has an hour to be sent in."""
    return lambda **fields: make(
        "queued", send_by=timezone.now() + 60 * MINUTE, **fields
    )


def use_burst_up(minutes):
    """Use the burst up, and reserve the slots of the next minutes."""
    sent_arrival_at = timezone.now() + 19 * MINUTE
    set_gate(
        sent_arrival_at=sent_arrival_at,
        theoretical_arrival_at=sent_arrival_at + minutes * MINUTE,
    )


def gaps():
    """The minutes between the slots that are reserved for waiting rows."""
    reserved = rows.filter(slot_reserved=True).order_by("next_send_at")
    slots = list(reserved.values_list("next_send_at", flat=True))
    return [(later - earlier) / MINUTE for earlier, later in pairwise(slots)]


def test_burst_of_20_leaves_at_once_and_then_one_a_minute(queued, idenfy, one_a_minute):
    made = [queued() for _ in range(25)]
    delays = [delivery.deliver(row.pk) for row in made]
    assert delays[:20] == [None] * 20
    assert 50 * SECOND < delays[20] <= MINUTE
    assert gaps() == [1, 1, 1, 1]
    assert statuses() == {"sent": 20, "queued": 5}


def test_row_is_sent_in_its_reserved_slot(queued, idenfy, one_a_minute):
    use_burst_up(6)
    row = queued()
    assert 350 * SECOND < delivery.deliver(row.pk) <= 6 * MINUTE
    assert delivery.deliver(row.pk) is None
    age(row, 6 * MINUTE)
    assert delivery.deliver(row.pk) is None
    row.refresh_from_db()
    assert (row.status, row.slot_reserved) == ("sent", False)


def test_duplicate_messages_reserve_one_slot(queued, idenfy, one_a_minute):
    use_burst_up(6)
    row, next_row = queued(), queued()
    for _ in range(5):
        delivery.deliver(row.pk)
    delivery.deliver(next_row.pk)
    assert gaps() == [1]


@pytest.mark.parametrize("minutes", [60, 61])
def test_slot_at_or_past_the_deadline_is_not_reserved(
    queued, idenfy, one_a_minute, clock, minutes
):
    use_burst_up(minutes)
    row, before = queued(), gate.current().theoretical_arrival_at
    assert delivery.deliver(row.pk) is None
    row.refresh_from_db()
    assert (row.failure, idenfy.requests) == ("too_late", [])
    assert gate.current().theoretical_arrival_at == before


def test_without_a_rate_no_row_waits(make, idenfy, settings):
    settings.IDENFY_PHONE_SEND_RATE = None
    for row in [make("queued") for _ in range(30)]:
        delivery.deliver(row.pk)
    assert statuses() == {"sent": 30}
    assert gate.current().theoretical_arrival_at is None


def test_send_rate_sets_the_pace(queued, idenfy, settings):
    settings.IDENFY_PHONE_SEND_RATE = "1/2m"
    for _ in range(23):
        delivery.deliver(queued().pk)
    assert gaps() == [2, 2]


def test_sweep_dispatches_as_many_as_can_be_sent(make, settings):
    settings.IDENFY_PHONE_SEND_RATE = "10/s"
    rows.bulk_create(copies(make("queued"), 319))
    assert len(dispatched_by_sweep()) == 300
    settings.IDENFY_PHONE_SEND_RATE = "1/m"
    assert len(dispatched_by_sweep()) == 200
    settings.IDENFY_PHONE_SEND_RATE = None
    assert len(dispatched_by_sweep()) == 320


def copies(row, count):
    fields = {f.attname: getattr(row, f.attname) for f in row._meta.concrete_fields}
    return [PhoneVerification(**fields | {"id": uuid.uuid4()}) for _ in range(count)]


def test_row_takes_the_place_of_rows_that_do_not_come(queued, idenfy, one_a_minute):
    use_burst_up(6)
    set_gate(sent_arrival_at=timezone.now() + 4 * MINUTE)
    for _ in range(3):
        delivery.deliver(queued().pk)
    assert (statuses(), gaps()) == ({"sent": 1, "queued": 2}, [1])


def test_late_rows_get_slots_one_after_the_other(queued, idenfy, one_a_minute, clock):
    use_burst_up(6)
    late = [queued(slot_reserved=True) for _ in range(3)]
    set_gate(sent_arrival_at=clock.now + 20 * MINUTE)
    delays = [delivery.deliver(row.pk) for row in late]
    assert delays == [MINUTE, 2 * MINUTE, 3 * MINUTE]
    clock.now += MINUTE
    assert delivery.deliver(late[0].pk) is None
    assert gaps() == [1]


def test_late_row_without_a_slot_tries_again_in_time(queued, clock, one_a_minute):
    row = queued(slot_reserved=True)
    set_gate(
        sent_arrival_at=clock.now + 20 * MINUTE,
        late_slot_at=row.send_by,
    )
    left = row.send_by - clock.now - MINUTE
    assert MINUTE <= delivery.deliver(row.pk) <= MINUTE + left / 2


@pytest.mark.django_db(transaction=True)
def test_50_workers_share_one_pace(queued, idenfy, one_a_minute, at_once):
    at_once(delivery.deliver, [queued().pk for _ in range(50)])
    assert len(idenfy.requests) == 20
    assert gaps() == [1] * 29


@pytest.mark.django_db(transaction=True)
def test_50_workers_reserve_one_slot_for_a_row(queued, idenfy, one_a_minute, at_once):
    use_burst_up(6)
    at_once(delivery.deliver, [queued().pk] * 50)
    delivery.deliver(queued().pk)
    assert gaps() == [1]


# Pauses


def test_rate_limit_pauses_all_sends_without_a_burst_after_it(make, wire, clock):
    wire.will(w.refusal(429, "TOO_MANY_REQUESTS", Retry_After="7"))
    first, *others = (make("queued") for _ in range(4))
    assert delivery.deliver(first.pk) == 7 * SECOND
    delays = [delivery.deliver(row.pk) for row in others]
    assert delays[0] == 7 * SECOND
    assert gaps() == [1 / 60, 1 / 60]
    assert len(wire.requests) == 1


def test_reserved_slot_waits_for_the_end_of_a_pause(make, idenfy):
    row = make("queued", slot_reserved=True)
    set_gate(sends_paused_until=timezone.now() + 9 * SECOND)
    assert 5 * SECOND < delivery.deliver(row.pk) <= 9 * SECOND
    age(row, 9 * SECOND)
    delivery.deliver(row.pk)
    assert statuses() == {"sent": 1}


def test_shorter_pause_does_not_end_a_longer_one():
    now = timezone.now()
    for seconds in (60, 5):
        gate.pause_sends(now + seconds * SECOND)
    assert gate.current().sends_paused_until == now + MINUTE


@pytest.fixture
def queued_for(make, django_user_model):
    """Make a queued row for a number and an owner, both given as digits."""

    def queued_for(number, owner_number, owner="user"):
        fields = {"phone_number": f"+3706123456{number}", "user": None}
        if owner == "user":
            name = f"user{owner_number}"
            fields["user"], _is_new = django_user_model.objects.get_or_create(
                username=name
            )
        else:
            fields["network"] = f"9.9.9.{owner_number}"
        return make("queued", **fields)

    return queued_for


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
def test_account_faults_pause_sends_for_a_minute(queued_for, wire, act, faults):
    wire.will(act)
    for n in range(5):
        delivery.deliver(queued_for(n, n).pk)
    assert len(wire.requests) == faults
    assert statuses() == {"failed": faults, "queued": 5 - faults}


@pytest.mark.parametrize(
    ("sources", "requests"),
    [
        # Numbers and owners of each send.
        ([(n, 0) for n in range(9)], 9),
        ([(0, n) for n in range(9)], 9),
        ([(n % 2, n) for n in range(9)], 9),
        ([(0, 0), (1, 0), (2, 0), (3, 1), (4, 1)], 4),
        ([(0, 0), (0, 1), (1, 1), (2, 1), (3, 1)], 4),
    ],
)
@pytest.mark.parametrize("owner", ["user", "network"])
def test_only_faults_of_three_numbers_and_two_owners_pause_sends(
    queued_for, wire, owner, sources, requests
):
    wire.will(w.refusal(400, "PARTNER_CONTRACT_ERROR"))
    for source in sources:
        delivery.deliver(queued_for(*source, owner=owner).pk)
    assert len(wire.requests) == requests


def test_success_resets_the_count_of_account_faults(queued_for, wire):
    sent = [w.answer(200, {"request_id": f"{n:032}"}) for n in range(2)]
    refused = w.answer(403)
    wire.will(refused, refused, sent[0], refused, refused, sent[1])
    for n in range(6):
        delivery.deliver(queued_for(n, n).pk)
    assert len(wire.requests) == 6


def test_count_of_account_faults_starts_at_zero_after_a_pause(queued_for, wire):
    wire.will(w.answer(403))
    first = [queued_for(n, n) for n in range(3)]
    for row in first:
        delivery.deliver(row.pk)
    age(first[0], MINUTE)
    for n in range(3, 7):
        delivery.deliver(queued_for(n, n).pk)
    assert len(wire.requests) == 6


def test_one_account_that_is_refused_stops_no_other(api, make, wire, settings):
    settings.IDENFY_PHONE_RESEND_COOLDOWN = (0,)
    wire.will(w.refusal(400, "PARTNER_CONTRACT_ERROR"))
    statuses = []
    for n in range(9):
        statuses.append(post_start(api, number=f"+3706123456{n}").status_code)
        for row in rows.filter(status="queued"):
            delivery.deliver(row.pk)
    assert statuses == [202] * 5 + [429] * 4
    assert services.start_verification("+37069999999", user=None).status == "queued"


def test_account_is_paused_before_receivers_learn_of_the_failure(make, wire):
    def receiver(**kwargs):
        paused.append(gate.current().account_paused_until is not None)

    paused = []
    wire.will(w.answer(401))
    send_failed.connect(receiver)
    try:
        delivery.deliver(make("queued").pk)
    finally:
        send_failed.disconnect(receiver)
    assert paused == [True]


def test_sends_resume_after_an_account_pause(make, wire):
    wire.will(w.answer(401), w.answer(200, {"request_id": "r" * 32}))
    delivery.deliver(make("queued").pk)
    row = make("queued")
    assert 55 * SECOND < delivery.deliver(row.pk) <= MINUTE
    age(row, MINUTE)
    delivery.deliver(row.pk)
    row.refresh_from_db()
    assert (row.status, gate.current().account_faults) == ("sent", 0)


# Start


def status_and_wait(response):
    """The wait in seconds is equal in header and body, None in both without one."""
    wait = response.json().get("retry_after")
    assert response.get("Retry-After") == (wait and str(wait))
    return response.status_code, wait


@pytest.mark.parametrize(
    ("act", "wait"),
    [
        (w.refusal(401, "UNAUTHORIZED"), 60),
        # A pause of 300 s, and a new row has 180 s: the slot at its end is too late.
        (w.refusal(429, "TOO_MANY_REQUESTS", Retry_After="86400"), 121),
    ],
)
def test_start_is_refused_until_its_code_could_be_sent_in_time(
    make, api, wire, clock, act, wait
):
    wire.will(act)
    delivery.deliver(make("queued", phone_number="+37061234568").pk)
    assert status_and_wait(post_start(api)) == (503, wait)
    clock.now += (wait - 2) * SECOND
    assert status_and_wait(post_start(api)) == (503, 2)
    assert rows.count() == 1
    clock.now += 2 * SECOND
    assert status_and_wait(post_start(api)) == (202, None)


def test_refused_start_waits_for_the_longer_of_two_pauses(user, wire, clock):
    set_gate(
        account_paused_until=clock.now + 10 * SECOND,
        sends_paused_until=clock.now + 300 * SECOND,
    )
    with pytest.raises(ProviderUnavailable) as caught:
        start(user, NUMBER)
    assert caught.value.retry_after == 120.001 * SECOND


def test_codes_are_checked_while_sends_are_paused(make, user, wire):
    until = timezone.now() + MINUTE
    set_gate(sends_paused_until=until, theoretical_arrival_at=until + 60 * MINUTE)
    wire.will(w.answer(200, {"is_verified": True}))
    row = make("sent")
    assert services.confirm_verification(row.pk, "1234", user=user).is_verified


@pytest.mark.parametrize(
    "fields",
    [
        {"sends_paused_until": timedelta(minutes=4)},
        {
            "theoretical_arrival_at": timedelta(minutes=4, seconds=19),
            "sent_arrival_at": timedelta(seconds=79),
        },
    ],
    ids=["pause", "queue"],
)
def test_refused_start_succeeds_after_its_retry_after(user, idenfy, clock, fields):
    now = clock.now
    set_gate(**{name: now + wait for name, wait in fields.items()})
    with pytest.raises(ProviderUnavailable) as caught:
        start(user, "+37061234567")
    passed = caught.value.retry_after
    assert passed == 60.001 * SECOND
    set_gate(**{name: now - passed + wait for name, wait in fields.items()})
    row = start(user, "+37061234567")
    assert delivery.deliver(row.pk) < 3 * MINUTE


def test_start_during_a_short_pause_is_accepted(user, wire):
    set_gate(sends_paused_until=timezone.now() + 2 * MINUTE)
    assert start(user, "+37061234567").status == "queued"


# Clocks


@pytest.mark.parametrize("minutes", [4, 10, 60, -4, -10])
def test_slots_reserved_by_a_wrong_clock_stop_no_other_host(
    make, api, idenfy, clock, minutes
):
    clock.now += minutes * MINUTE
    for _ in range(25):
        elsewhere = {"phone_number": "+37060012345", "number_block": "", "user": None}
        delivery.deliver(make("queued", **elsewhere).pk)
    clock.now -= minutes * MINUTE
    assert status_and_wait(post_start(api)) == (202, None)
    row = rows.get(phone_number=NUMBER)
    assert delivery.deliver(row.pk) is None
    row.refresh_from_db()
    assert row.status == "sent"


@pytest.mark.parametrize("minutes", [10, 60, -10])
def test_pauses_written_by_a_wrong_clock_stop_no_other_host(
    make, api, idenfy, clock, minutes
):
    elsewhere = clock.now + minutes * MINUTE
    set_gate(
        account_paused_until=elsewhere + MINUTE,
        sends_paused_until=elsewhere + 5 * MINUTE,
        checks_paused_until=elsewhere + 5 * MINUTE,
    )
    assert status_and_wait(post_start(api)) == (202, None)
    row = rows.get(phone_number=NUMBER)
    assert delivery.deliver(row.pk) is None
    answer = api.post(f"/phone/{row.pk}/confirm/", {"code": "1234"}, format="json")
    assert answer.json()["code"] == "check_unknown"
    assert len(idenfy.requests) == 2


def test_pause_replaces_one_that_a_wrong_clock_wrote(wire, clock):
    set_gate(
        sends_paused_until=clock.now + 60 * MINUTE,
        checks_paused_until=clock.now + 60 * MINUTE,
        theoretical_arrival_at=clock.now + 60 * MINUTE,
    )
    now = clock.now
    gate.pause_sends(now + 7 * SECOND)
    gate.pause_checks(now + 7 * SECOND)
    found = gate.current()
    for resumes_at in (found.next_slot(now), found.pause_ends_at(Pause.CHECKS, now)):
        assert resumes_at == now + 7 * SECOND


# After an outage


def test_rows_without_a_slot_before_their_deadline_fail_unsent(
    queued, idenfy, one_a_minute
):
    template = queued()
    rows.bulk_create(copies(template, 99))
    for pk in list(rows.values_list("pk", flat=True)):
        delivery.deliver(pk)
    assert len(idenfy.requests) == 20
    # 20 at once, and one in each minute before the deadline.
    assert statuses()["queued"] in (58, 59)
    failures = rows.filter(status="failed").values_list("failure", flat=True)
    assert set(failures) == {"too_late"}
