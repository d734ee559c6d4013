"""The brake: regions where hardly anybody confirms, and what it stops."""

from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from django_idenfy_phone import brake, maintenance, services
from django_idenfy_phone.conf import Brake, Limit, conf
from django_idenfy_phone.exceptions import LimitReached
from django_idenfy_phone.explain import Reason, explain
from django_idenfy_phone.models import PhoneVerification, RegionBrake
from django_idenfy_phone.signals import send_failed
from support.constants import NUMBER
from support.steps import code_and_wait, logged_messages, post_start, start

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("account")]

MICROSECOND = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
BRITISH = "+447400123456"


@pytest.fixture
def enforced(settings):
    settings.IDENFY_PHONE_BRAKE = {"mode": "enforce"}
    settings.IDENFY_PHONE_SEND_LIMITS = {"site": ()}


@pytest.fixture
def send(clock):
    """Store sends to so many numbers of a region, the first of them confirmed."""

    def send(count, confirmed=0, region="LT", age=3 * MINUTE, number="", **fields):
        sent_at, first = clock.now - age, PhoneVerification.objects.count()
        PhoneVerification.objects.bulk_create(
            PhoneVerification(
                phone_number=number or f"+3706{first + n:07}",
                region=region,
                is_anonymous=True,
                status="verified" if n < confirmed else "expired",
                is_verified=n < confirmed,
                created_at=sent_at,
                send_by=sent_at + 3 * MINUTE,
                **{"claimed_at": sent_at, "sent_at": sent_at} | fields,
            )
            for n in range(count)
        )

    return send


@pytest.fixture
def look(clock):
    """Look as a sweep does. Return the regions whose brake is engaged."""

    def look():
        brake.look(conf.BRAKE)
        return [each.region for each in brake.engaged()]

    return look


def refusal(user=None, number=NUMBER):
    with pytest.raises(LimitReached) as refused:
        start(user, number)
    return refused.value.reason, refused.value.retry_after


# When it engages


def test_brake_observes_by_default(settings):
    expected = Brake(Limit(50, HOUR), 0.1, HOUR, "observe")
    assert expected == conf.BRAKE
    settings.IDENFY_PHONE_BRAKE = {"sends": "9/m", "mode": "enforce"}
    changed = {"sends": Limit(9, MINUTE), "mode": "enforce"}
    assert expected._replace(**changed) == conf.BRAKE


def test_200_unconfirmed_sends_engage_and_a_healthy_region_loses_nothing(
    enforced, send, look
):
    send(200)
    send(200, confirmed=20, region="GB")
    assert look() == ["LT"]
    assert refusal() == ("brake", HOUR)
    assert start(None, BRITISH).status == "queued"


@pytest.mark.parametrize(
    ("count", "confirmed", "regions"),
    [(49, 0, []), (50, 0, ["LT"]), (50, 4, ["LT"]), (50, 5, []), (70, 7, [])],
)
def test_brake_needs_enough_sends_and_too_few_confirmed(
    send, look, count, confirmed, regions
):
    send(count, confirmed)
    assert look() == regions


def test_each_number_counts_once(send, look):
    send(49)
    send(2, number=NUMBER)
    assert look() == ["LT"]


def test_many_sends_to_few_numbers_do_not_engage(send, look):
    send(48)
    send(50, number=NUMBER)
    assert look() == []


def test_number_that_confirmed_once_counts_as_confirmed(send, look):
    send(50)
    for n in range(5):
        send(1, confirmed=1, number=f"+3706{n:07}")
    assert look() == []


@pytest.mark.parametrize(
    ("fields", "regions"),
    [
        ({"status": "locked"}, ["LT"]),
        ({"status": "sent"}, ["LT"]),
        ({"status": "failed", "failure": "unknown"}, ["LT"]),
        ({"status": "failed", "failure": "number_refused"}, []),
        ({"status": "failed", "failure": "account"}, []),
        ({"status": "queued", "claimed_at": None}, []),
    ],
)
def test_only_what_may_have_been_sent_counts(send, look, fields, regions):
    send(50)
    PhoneVerification.objects.update(**fields)
    assert look() == regions


def test_people_have_three_minutes_to_confirm(send, look, clock):
    send(50, age=3 * MINUTE - MICROSECOND)
    assert look() == []
    clock.move(MICROSECOND)
    assert look() == ["LT"]


def test_send_that_left_late_has_three_minutes_too(send, look, clock):
    send(50, age=5 * MINUTE, claimed_at=clock.now - 2 * MINUTE)
    assert look() == []


@pytest.mark.parametrize(("age", "regions"), [(59, ["LT"]), (60, [])])
def test_window_slides(send, look, age, regions):
    send(50, age=age * MINUTE)
    assert look() == regions


def test_only_the_newest_rows_are_read(send, look, monkeypatch):
    monkeypatch.setattr(brake, "MAX_ROWS", 60)
    send(100, age=4 * MINUTE)
    send(60, confirmed=60, region="GB")
    assert look() == []


# What it refuses


@pytest.fixture
def engaged(enforced, send, look):
    send(200)
    assert look() == ["LT"]


def test_refusal_is_a_429_with_a_true_wait(engaged, api, clock):
    clock.move(20 * MINUTE)
    assert code_and_wait(post_start(api)) == ("limit_reached", 40 * 60)
    clock.move(40 * MINUTE)
    assert post_start(api).status_code == 202


def test_refusal_stores_nothing(engaged):
    before = PhoneVerification.objects.count()
    refusal()
    assert PhoneVerification.objects.count() == before


def test_user_who_verified_a_number_before_passes(engaged, make, user, clock):
    assert refusal(user) == ("brake", HOUR)
    make("verified", region="GB", phone_number=BRITISH, verified_at=clock.now)
    assert start(user).status == "queued"


def test_proof_of_another_user_lets_nobody_pass(engaged, make, django_user_model):
    make("verified", region="GB", phone_number=BRITISH)
    assert refusal(django_user_model.objects.create_user("eva"))[0] == "brake"


def test_limit_that_ends_later_names_the_wait(engaged, settings, make, clock):
    settings.IDENFY_PHONE_SEND_LIMITS = {"number": ("1/2h",)}
    make("expired")
    assert refusal() == ("number", 2 * HOUR)


@pytest.mark.parametrize("setting", [None, {"mode": "observe"}])
def test_setting_is_read_live(engaged, settings, setting):
    settings.IDENFY_PHONE_BRAKE = setting
    assert start(None).status == "queued"


def test_engaged_brake_refuses_once_it_is_enforced(settings, send, look):
    send(50)
    look()
    settings.IDENFY_PHONE_BRAKE = {"mode": "enforce"}
    assert refusal() == ("brake", HOUR)


# How it ends


def test_brake_ends_with_its_pause_and_old_sends_do_not_engage_it_again(
    enforced, settings, send, look, clock
):
    settings.IDENFY_PHONE_BRAKE["pause"] = 10 * MINUTE
    send(200)
    look()
    clock.move(10 * MINUTE)
    assert look() == []
    assert start(None).status == "queued"


def test_sends_after_the_pause_engage_it_again(engaged, send, look, clock):
    clock.move(HOUR + 5 * MINUTE)
    send(50)
    assert look() == ["LT"]
    assert refusal() == ("brake", HOUR)


def test_release_is_not_undone_by_the_next_sweep(engaged, look, clock):
    assert services.release_brake("LT")
    assert look() == []
    clock.move(MINUTE)
    maintenance.sweep(lambda pk: True)
    assert brake.engaged() == []
    assert start(None).status == "queued"


def test_sends_after_the_release_count(engaged, send, look, clock):
    services.release_brake("LT")
    clock.move(4 * MINUTE)
    send(50)
    assert look() == ["LT"]


def test_only_an_engaged_brake_is_released(engaged, caplog):
    caplog.clear()
    assert not services.release_brake("GB")
    assert services.release_brake("LT")
    assert not services.release_brake("LT")
    assert caplog.messages == ["released region=LT reason=brake"]


def test_engaged_brake_is_not_prolonged(engaged, send, look, clock):
    clock.move(4 * MINUTE)
    send(50)
    assert look() == ["LT"]
    assert refusal() == ("brake", HOUR - 4 * MINUTE)


# What is told


def test_observing_brake_only_logs_once(send, look, caplog, clock):
    send(200, confirmed=3)
    look()
    look()
    [(level, text)] = logged_messages(caplog)
    assert level == "WARNING"
    assert text == (
        "Hardly anybody confirms codes in region LT: 3 of 200 numbers. "
        f"The brake only observes, until {clock.now + HOUR}."
    )
    assert start(None).status == "queued"


def test_enforcing_brake_is_critical(enforced, send, look, caplog):
    send(50)
    look()
    [(level, text)] = logged_messages(caplog)
    assert level == "CRITICAL"
    assert " The brake refuses newcomers until " in text


def test_observing_brake_shows_what_it_would_have_refused(
    send, look, make, clock, user
):
    make("verified", verified_at=clock.now - MINUTE, created_at=clock.now - HOUR)
    send(50)
    look()
    clock.move(HOUR)
    send(7, age=HOUR)
    send(20, age=HOUR / 2)
    send(30, age=HOUR / 2, region="GB")
    send(40, age=HOUR / 2, user=user)
    clock.move(MINUTE)
    send(60, age=MINUTE / 2)
    look()
    [seen] = RegionBrake.objects.all()
    assert (seen.numbers, seen.confirmed, seen.starts) == (50, 0, 20)


def test_off_brake_does_nothing(settings, send):
    settings.IDENFY_PHONE_BRAKE = None
    send(200)
    maintenance.sweep(lambda pk: True)
    assert (brake.engaged(), RegionBrake.objects.count()) == ([], 0)


def test_sweep_looks_once_a_minute(send, clock):
    maintenance.sweep(lambda pk: True)
    send(50)
    clock.move(MINUTE - MICROSECOND)
    maintenance.sweep(lambda pk: True)
    assert brake.engaged() == []
    clock.move(MICROSECOND)
    maintenance.sweep(lambda pk: True)
    assert [each.region for each in brake.engaged()] == ["LT"]


def test_failure_to_look_stops_no_signal(make, clock, caplog):
    """As where another process holds a lock for too long."""

    def fail(execute, sql, *arguments):
        if "regionbrake" in sql:
            raise OperationalError("busy")
        return execute(sql, *arguments)

    def receiver(verification, **kwargs):
        failed.append(verification)

    failed, late = [], make("queued", send_by=clock.now)
    send_failed.connect(receiver)
    with connection.execute_wrapper(fail):
        maintenance.sweep(lambda pk: True, is_eager=True)
    send_failed.disconnect(receiver)
    assert failed == [late]
    [line] = logged_messages(caplog)
    assert line == (
        "ERROR",
        "The brake could not look at the sends (OperationalError).",
    )


def test_sweep_looks_again_after_the_clock_was_set_back(send, clock):
    maintenance.sweep(lambda pk: True)
    clock.move(-HOUR)
    send(50)
    maintenance.sweep(lambda pk: True)
    assert [each.region for each in brake.engaged()] == ["LT"]


def test_explain_tells_newcomers_of_the_brake(engaged, make, user, clock):
    reason = Reason("brake", clock.now + HOUR, 200, region="LT")
    assert explain(phone_number=NUMBER) == [reason]
    assert "since 0 of 200 numbers confirmed a code" in str(reason)
    assert explain(phone_number=NUMBER, user=user) == [reason]
    assert explain(phone_number=BRITISH) == []
    make("verified", region="GB", phone_number=BRITISH)
    assert explain(phone_number=NUMBER, user=user) == []


# Several at once


@pytest.mark.django_db(transaction=True)
def test_sweeps_at_once_give_one_state(send, at_once, caplog):
    send(50)
    at_once(lambda _: brake.look(conf.BRAKE), range(10))
    assert len(logged_messages(caplog)) == 1
    assert RegionBrake.objects.get().engaged_until == timezone.now() + HOUR


def test_sweep_that_comes_second_changes_nothing(send, look, clock, caplog):
    """Before its UPDATE, another one engages the brake, and an operator releases it."""
    ended = {"engaged_at": clock.now, "engaged_until": clock.now}

    def wrapper(execute, sql, params, many, context):
        if "UPDATE" in sql and not others.exists():
            others.create(region="GB")
            RegionBrake.objects.filter(region="LT").update(**ended)
        return execute(sql, params, many, context)

    send(50)
    others = RegionBrake.objects.filter(region="GB")
    with connection.execute_wrapper(wrapper):
        assert look() == []
    assert logged_messages(caplog) == []


@pytest.mark.django_db(transaction=True)
def test_release_beside_sweeps_is_never_undone(send, at_once):
    send(50)
    brake.look(conf.BRAKE)
    done = at_once(
        lambda n: brake.look(conf.BRAKE) if n else brake.release("LT"), range(10)
    )
    assert done[0] is True
    assert brake.engaged() == []
