"""Another TIME_ZONE, USE_TZ off, and the nights when the clocks change."""

from datetime import datetime, timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from django_idenfy_phone import delivery, maintenance, services, tasks
from django_idenfy_phone.exceptions import CooldownActive
from support import wire as w
from support.constants import NUMBER

pytestmark = pytest.mark.django_db(transaction=True)
SENT = w.answer(200, {"request_id": "r" * 32})
LIMITED = w.refusal(429, "TOO_MANY_REQUESTS", Retry_After="7")
TRUE = w.answer(200, {"is_verified": True})
FALSE = w.answer(200, {"is_verified": False})
SECOND = timedelta(seconds=1)


def started(user):
    return services.start_verification(NUMBER, user=user)


def outcome(row):
    row.refresh_from_db()
    return row.failure or row.status


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/St_Johns", "UTC"])
@pytest.mark.parametrize("use_tz", [True, False])
def test_another_time_zone_changes_nothing(user, wire, settings, zone, use_tz):
    settings.TIME_ZONE, settings.USE_TZ = zone, use_tz
    wire.will(SENT, FALSE, TRUE)
    row = started(user)
    delivery.deliver(row.pk)
    for expected in (False, True):
        confirmed = services.confirm_verification(row.pk, "1234", user=user)
        assert confirmed.is_verified is expected
    assert confirmed.sent_at <= timezone.now() < confirmed.expires_at


@pytest.fixture
def no_zones(settings, clock):
    """Naive local times, and a clock to be set to them."""
    settings.TIME_ZONE, settings.USE_TZ = "Europe/Vilnius", False
    clock.now = timezone.make_naive(clock.now)
    return clock


def test_with_use_tz_off_all_keeps_its_time(api, user, wire, no_zones, capsys):
    clock, body = no_zones, {"phone_number": NUMBER}
    wire.will(LIMITED, SENT, FALSE, TRUE)
    first = api.post("/phone/start/", body, format="json")
    assert first.json()["created_at"].endswith("Z")
    row = user.phone_verifications.get()
    assert delivery.deliver(row.pk) == 7
    clock.now += 6 * SECOND
    assert maintenance.due() == []
    clock.now += SECOND
    assert maintenance.due() == [row.pk]
    tasks.send_code(str(row.pk))
    again = api.post("/phone/start/", body, format="json")
    assert (again.status_code, again["Retry-After"]) == (429, "53")
    for is_verified in (False, True):
        answer = api.post(
            f"/phone/{row.pk}/confirm/", {"code": "1234"}, format="json"
        ).json()
        assert answer["is_verified"] is is_verified
    call_command("idenfy_phone_status")
    assert "Last hour: verified: 1" in capsys.readouterr().out


# 4:00 becomes 3:00.
BACK = "2026-10-25T03:59", "2026-10-25T03:00"
# 3:00 becomes 4:00.
FORWARD = "2027-03-28T02:59", "2027-03-28T04:00"


def test_when_clocks_go_back_a_code_ends_an_hour_late(user, wire, no_zones):
    wire.will(SENT, FALSE)
    no_zones.now, after = map(datetime.fromisoformat, BACK)
    row = started(user)
    for _ in range(3):
        delivery.deliver(row.pk)
    no_zones.now = after
    tasks.sweep()
    delivery.deliver(row.pk)
    with pytest.raises(CooldownActive) as caught:
        started(user)
    assert 3600 <= caught.value.retry_after <= 7200
    confirmed = services.confirm_verification(row.pk, "1234", user=user)
    assert (confirmed.is_verified, confirmed.status) == (False, "sent")
    assert len(wire.requests) == 2


def test_when_clocks_go_forward_a_code_is_paid_once(user, wire, no_zones):
    def spring(sock):
        no_zones.now = after
        SENT(sock)

    wire.will(spring)
    no_zones.now, after = map(datetime.fromisoformat, FORWARD)
    row = started(user)
    for _ in range(3):
        delivery.deliver(row.pk)
    tasks.sweep()
    # PostgreSQL knows the night, and moves the times that are in the hour left out.
    assert outcome(row) in ("expired", "sent")
    assert len(wire.requests) == 1


def test_when_clocks_go_forward_what_waited_is_paid_once_at_most(user, wire, no_zones):
    wire.will(SENT)
    no_zones.now, after = map(datetime.fromisoformat, FORWARD)
    row = started(user)
    no_zones.now = after
    tasks.sweep()
    for _ in range(3):
        delivery.deliver(row.pk)
    assert (outcome(row), len(wire.requests)) in [("too_late", 0), ("sent", 1)]
