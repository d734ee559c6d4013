"""Verification works in any TIME_ZONE, without USE_TZ and when clocks change."""

from datetime import datetime, timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from django_idenfy_phone import delivery, services, tasks
from django_idenfy_phone.exceptions import CooldownActive
from support import wire as w
from support.constants import NUMBER
from support.steps import START_URL, dispatched_by_sweep, outcome, post_json, start

pytestmark = pytest.mark.django_db(transaction=True)
SENT = w.answer(200, {"request_id": "r" * 32})
LIMITED = w.refusal(429, "TOO_MANY_REQUESTS", Retry_After="7")
TRUE = w.answer(200, {"is_verified": True})
FALSE = w.answer(200, {"is_verified": False})
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/St_Johns", "UTC"])
@pytest.mark.parametrize("use_tz", [True, False])
def test_another_time_zone_changes_nothing(user, wire, settings, zone, use_tz):
    settings.TIME_ZONE, settings.USE_TZ = zone, use_tz
    wire.will(SENT, FALSE, TRUE)
    row = start(user)
    delivery.deliver(row.pk)
    for expected in (False, True):
        confirmed = services.confirm_verification(row.pk, "1234", user=user)
        assert confirmed.is_verified is expected
    assert confirmed.sent_at <= timezone.now() < confirmed.expires_at


def test_times_follow_a_setting_that_changes(user, wire, settings):
    row = start(user)
    for use_tz in (False, True):
        settings.USE_TZ = use_tz
        found = services.get_verification(row.pk, user=user)
        assert timezone.is_aware(found.send_by) is use_tz


@pytest.fixture
def naive_clock(settings, clock):
    """USE_TZ is off, and the clock shows naive local time."""
    settings.TIME_ZONE, settings.USE_TZ = "Europe/Vilnius", False
    clock.now = timezone.make_naive(clock.now)
    return clock


def test_all_times_are_right_without_use_tz(api, user, wire, naive_clock, capsys):
    body = {"phone_number": NUMBER}
    wire.will(LIMITED, SENT, FALSE, TRUE)
    first = post_json(api, START_URL, body)
    assert first.json()["created_at"].endswith("Z")
    row = user.phone_verifications.get()
    assert delivery.deliver(row.pk) == 7 * SECOND
    naive_clock.move(6 * SECOND)
    assert dispatched_by_sweep() == []
    naive_clock.move(SECOND)
    assert dispatched_by_sweep() == [row.pk]
    tasks.send_code(str(row.pk))
    again = post_json(api, START_URL, body)
    assert (again.status_code, again["Retry-After"]) == (429, "53")
    for is_verified in (False, True):
        response = post_json(api, f"/phone/{row.pk}/confirm/", {"code": "1234"})
        assert response.json()["is_verified"] is is_verified
    call_command("idenfy_phone_status")
    assert "Last hour: verified: 1" in capsys.readouterr().out


# At 04:00 the clocks go back to 03:00.
BACK = "2026-10-25T03:59", "2026-10-25T03:00"
# At 03:00 the clocks go forward to 04:00.
FORWARD = "2027-03-28T02:59", "2027-03-28T04:00"


def test_code_expires_an_hour_late_when_clocks_go_back(user, wire, naive_clock):
    wire.will(SENT, FALSE)
    naive_clock.now, after = map(datetime.fromisoformat, BACK)
    row = start(user)
    for _ in range(3):
        delivery.deliver(row.pk)
    naive_clock.now = after
    tasks.sweep()
    delivery.deliver(row.pk)
    with pytest.raises(CooldownActive) as caught:
        start(user)
    assert HOUR <= caught.value.retry_after <= 2 * HOUR
    confirmed = services.confirm_verification(row.pk, "1234", user=user)
    assert (confirmed.is_verified, confirmed.status) == (False, "sent")
    assert len(wire.requests) == 2


def test_one_sms_is_sent_when_clocks_go_forward(user, wire, naive_clock):
    def send_while_clocks_change(sock):
        naive_clock.now = after
        SENT(sock)

    wire.will(send_while_clocks_change)
    naive_clock.now, after = map(datetime.fromisoformat, FORWARD)
    row = start(user)
    for _ in range(3):
        delivery.deliver(row.pk)
    tasks.sweep()
    # PostgreSQL moves local times that fall into the skipped hour.
    assert outcome(row) in ("expired", "sent")
    assert len(wire.requests) == 1


def test_queued_row_sends_at_most_one_sms_when_clocks_go_forward(
    user, wire, naive_clock
):
    wire.will(SENT)
    naive_clock.now, after = map(datetime.fromisoformat, FORWARD)
    row = start(user)
    naive_clock.now = after
    tasks.sweep()
    for _ in range(3):
        delivery.deliver(row.pk)
    assert (outcome(row), len(wire.requests)) in [("too_late", 0), ("sent", 1)]
