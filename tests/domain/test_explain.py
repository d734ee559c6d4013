"""What explain tells is what a start meets, and it changes nothing."""

import random
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from django_idenfy_phone import limits
from django_idenfy_phone.conf import Limit
from django_idenfy_phone.exceptions import (
    NumberNotSupported,
    ProviderUnavailable,
    StartRefused,
)
from django_idenfy_phone.explain import Reason, explain
from django_idenfy_phone.models import (
    PhoneVerification,
    ProviderGate,
    RegionBrake,
    StartLock,
)
from django_idenfy_phone.pacing import Pause
from django_idenfy_phone.statuses import Failure, Status
from support.constants import NUMBER
from support.steps import start, start_and_expire

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("account")]

KINDS = ["number", "block", "user", "network", "site"]
NUMBERS = [NUMBER, "+37061234568", "+37069999999"]
NETWORKS = ["", "9.9.9.9", "2606:4700::/64"]
SIZES = ["1/10s", "2/5m", "3/h", "4/61m", "5/d", "12/d", "9/30d"]
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
def no_limits(settings):
    settings.IDENFY_PHONE_SEND_LIMITS = dict.fromkeys(KINDS, ())
    settings.IDENFY_PHONE_RESEND_COOLDOWN = (0,)


def test_nothing_refuses_at_first(user):
    assert explain(phone_number=NUMBER, user=user, network="9.9.9.9") == []


@pytest.mark.parametrize("kind", KINDS)
def test_limit_is_told_with_its_sends_and_its_end(
    settings, no_limits, make, user, clock, kind
):
    settings.IDENFY_PHONE_SEND_LIMITS[kind] = ("2/h",)
    for minutes in (1, 2, 3):
        row = {"network": "9.9.9.9", "created_at": clock.now - minutes * MINUTE}
        make("expired", **row)
    found = explain(phone_number=NUMBER, user=user, network="9.9.9.9")
    assert found == [Reason(kind, clock.now + 58 * MINUTE, 3, Limit(2, HOUR))]


def test_rows_that_go_between_two_statements_count_no_longer(
    settings, no_limits, make, clock
):
    """They are deleted once their limit was seen to be reached, as by an erasure."""

    def wrapper(execute, sql, params, many, context):
        if "COUNT(" in sql:
            deleted.append(PhoneVerification.objects.all()._raw_delete("default"))
        return execute(sql, params, many, context)

    settings.IDENFY_PHONE_SEND_LIMITS["number"] = ("1/h",)
    make("expired")
    deleted = []
    with connection.execute_wrapper(wrapper):
        found = explain(phone_number=NUMBER)
    assert deleted
    assert found == [Reason("number", clock.now + HOUR, 0, Limit(1, HOUR))]


@pytest.mark.parametrize("kind", ["number", "user", "network", "block"])
def test_limit_of_what_was_not_asked_for_is_not_told(settings, no_limits, make, kind):
    settings.IDENFY_PHONE_SEND_LIMITS[kind] = ("1/h",)
    make("expired", network="9.9.9.9")
    assert explain() == []


def test_cooldown_is_told_with_the_sends_of_the_day(user, clock):
    for wait in (60, 120):
        start_and_expire(user)
        clock.move(wait * SECOND)
    start_and_expire(user)
    assert explain(phone_number=NUMBER) == [
        Reason("cooldown", clock.now + 5 * MINUTE, 3),
        Reason("number", clock.now + 7 * MINUTE, 3, Limit(3, 10 * MINUTE)),
    ]


def test_cooldown_of_a_start_that_sent_nothing_is_told(make, clock):
    make("failed", failure="unreachable")
    expected = [Reason("cooldown", clock.now + 10 * SECOND, 0)]
    assert explain(phone_number=NUMBER) == expected


def test_row_that_is_too_late_counts_as_a_start_would_leave_it(make, clock, user):
    make("queued", created_at=clock.now - 4 * MINUTE, send_by=clock.now)
    assert explain(phone_number=NUMBER) == []
    start(user)


def test_late_row_of_another_number_counts_until_it_is_settled(
    settings, no_limits, make, clock, user
):
    settings.IDENFY_PHONE_SEND_LIMITS["user"] = ("1/h",)
    make("queued", phone_number="+37069999999", send_by=clock.now)
    [reason] = explain(phone_number=NUMBER, user=user)
    with pytest.raises(StartRefused) as refused:
        start(user)
    assert (reason.kind, reason.until) == ("user", clock.now + HOUR)
    assert refused.value.retry_after == HOUR


@pytest.mark.parametrize(
    ("field", "pause"),
    [("account_paused_until", Pause.ACCOUNT), ("sends_paused_until", Pause.SENDS)],
)
def test_pause_is_told(settings, clock, user, field, pause):
    settings.IDENFY_PHONE_SEND_DEADLINE = timedelta(seconds=1)
    ProviderGate.objects.create(**{field: clock.now + 50 * SECOND})
    reasons = {each.kind: each.until for each in explain()}
    with pytest.raises(ProviderUnavailable) as refused:
        start(user)
    assert pause in reasons
    assert max(reasons.values()) == clock.now + refused.value.retry_after


def test_missing_key_comes_last_and_never_ends(settings, make):
    make("expired")
    settings.IDENFY_PHONE_API_KEY = ""
    assert explain(phone_number=NUMBER)[-1] == Reason("key")


@pytest.mark.parametrize("number", ["+3706123", "nonsense", "+88161234567", "\0"])
def test_number_that_is_none_is_told(number):
    assert explain(phone_number=number) == [Reason("number_not_supported")]


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        ("+33612345678", Reason("REGIONS", region="FR")),
        ("+37052345678", Reason("NUMBER_TYPES", region="LT")),
    ],
)
def test_number_that_a_setting_forbids_is_told(user, number, reason):
    assert explain(phone_number=number) == [reason]
    with pytest.raises(NumberNotSupported):
        start(user, number)


def test_explain_writes_nothing(user, make):
    make("queued", send_by=timezone.now())

    def wrapper(execute, sql, params, many, context):
        assert sql.startswith("SELECT")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(wrapper):
        assert explain(phone_number=NUMBER, user=user, network="9.9.9.9") != []
    assert not StartLock.objects.exists()


# Random histories


def store_history(chance, users, now, count=40):
    rows = []
    for _ in range(count):
        number, status = chance.choice(NUMBERS), chance.choice(Status.values)
        age = chance.choice([10, 600, 3600, 86400, 30 * 86400])
        created_at = now - chance.random() * timedelta(seconds=age)
        user = chance.choice(users)
        rows.append(
            PhoneVerification(
                user=user,
                is_anonymous=user is None,
                phone_number=number,
                number_block=number[:-4],
                region="LT",
                network=chance.choice(NETWORKS),
                status=status,
                is_verified=status == "verified",
                failure=chance.choice(Failure.values) if status == "failed" else "",
                provider_code=chance.choice(["", "UNAUTHORIZED", "BAD_CONTRACT"]),
                created_at=created_at,
                send_by=created_at + 3 * MINUTE,
            )
        )
    PhoneVerification.objects.bulk_create(rows)


def unblock_some(chance, users, clock):
    now, user = clock.now, chance.choice(users)
    clock.now = now - timedelta(seconds=chance.choice([1, 300, 9000]))
    values = {"number": NUMBERS[0], "network": NETWORKS[1], "user": user and user.pk}
    limits.clear(dict(chance.sample(sorted(values.items()), chance.randrange(3))))
    clock.now = now


def wait_of_start(user, network):
    """How long a start has to wait; None where it is stored."""
    try:
        start(user, NUMBER, network=network)
    except (StartRefused, ProviderUnavailable) as error:
        return error.retry_after
    return None


@pytest.mark.parametrize("seed", range(60))
def test_explain_tells_what_a_start_meets(settings, django_user_model, clock, seed):
    chance = random.Random(seed)
    users = [None, *(django_user_model.objects.create_user(n) for n in ("ona", "eva"))]
    settings.IDENFY_PHONE_SEND_LIMITS = {
        kind: chance.sample(SIZES, chance.randrange(3)) for kind in KINDS
    }
    settings.IDENFY_PHONE_RESEND_COOLDOWN = chance.sample([1, 60, 300, 7200], 2)
    store_history(chance, users, clock.now, chance.choice([3, 15, 40]))
    unblock_some(chance, users, clock)
    user, network = chance.choice(users), chance.choice(NETWORKS)
    if chance.random() < 0.2:
        ProviderGate.objects.create(account_paused_until=clock.now + 30 * SECOND)
    settings.IDENFY_PHONE_BRAKE = {"mode": chance.choice(["enforce", "observe"])}
    until = clock.now + chance.choice([0, 5, 3600, 90_000]) * SECOND
    RegionBrake.objects.create(region="LT", engaged_until=until)
    found = explain(phone_number=NUMBER, user=user, network=network)
    # A start looks at the gate first.
    found = [each for each in found if each.kind in Pause.values] or found
    wait = wait_of_start(user, network)
    assert wait == (found[-1].until - clock.now if found else None)
