"""How many sends a number, user, network, block and site may have, to the microsecond.

The clock stands still here, so each wait is compared as a whole.
"""

import json
import logging
import re
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from django.utils import timezone

from django_idenfy_phone import services
from django_idenfy_phone.conf import DEFAULT_SEND_LIMITS, Limit, conf, parse_limit
from django_idenfy_phone.exceptions import (
    CooldownActive,
    LimitReached,
    NumberNotSupported,
)
from django_idenfy_phone.limits import Claim
from django_idenfy_phone.models import PhoneVerification, StartLock
from support.constants import NUMBER

pytestmark = pytest.mark.django_db
rows = PhoneVerification.objects

KINDS = ["number", "user", "network", "block", "site"]
NETWORK = "9.9.9.9"
OTHER = "+37069999999"
# A send that shares nothing with the next start but the site.
STRANGE = {
    "user": None,
    "is_anonymous": True,
    "phone_number": OTHER,
    "number_block": OTHER[:-4],
    "region": "LT",
    "network": "8.8.8.8",
    "status": "expired",
}
MOMENT = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class Clock:
    """What Django takes for the time."""

    def __init__(self):
        self.now = datetime(2025, 3, 29, 12, 30, tzinfo=UTC)

    def __call__(self):
        return self.now

    def move(self, by):
        self.now += by


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timezone, "now", clock)
    return clock


@pytest.fixture(autouse=True)
def _account(settings):
    settings.IDENFY_PHONE_API_KEY = "test-key"
    settings.IDENFY_PHONE_API_SECRET = "test-secret"


@pytest.fixture
def no_cooldown(settings):
    settings.IDENFY_PHONE_RESEND_COOLDOWN = (0,)


@pytest.fixture
def only(settings, no_cooldown):
    """Have these limits and no other."""

    def only(**limits):
        settings.IDENFY_PHONE_SEND_LIMITS = dict.fromkeys(KINDS, ()) | limits

    return only


@pytest.fixture
def shared(user):
    """What a row of this kind has in common with the next start."""
    return {
        "number": {"phone_number": NUMBER},
        "user": {"user": user},
        "network": {"network": NETWORK},
        "block": {"number_block": NUMBER[:-4]},
        "site": {},
    }


@pytest.fixture
def start(user):
    """Start, and leave the row as if its SMS had been sent long ago."""

    def start(user=user, number=NUMBER, network=NETWORK):
        row = services.start_verification(number, user=user, network=network)
        rows.filter(pk=row.pk).update(status="expired")
        return row

    return start


@pytest.fixture
def refusal(start):
    """The code of a refused start, and its wait."""

    def refusal(*args, **kwargs):
        with pytest.raises((CooldownActive, LimitReached)) as caught:
            start(*args, **kwargs)
        return caught.value.code, timedelta(seconds=caught.value.retry_after)

    return refusal


def store(count, window, **fields):
    """Rows at equal steps over a window, the newest of them now."""
    now = timezone.now()
    rows.bulk_create(
        PhoneVerification(
            created_at=now - window * n / count, send_by=now, **STRANGE | fields
        )
        for n in range(count)
    )


# At, below and beyond a limit


@pytest.mark.parametrize("kind", KINDS)
def test_below_a_limit_a_start_is_let_in(only, shared, start, kind):
    only(**{kind: ("3/h",)})
    store(2, HOUR, **shared[kind])
    assert start().status == "queued"


@pytest.mark.parametrize("kind", KINDS)
def test_at_a_limit_a_start_waits_for_the_oldest_row(only, shared, refusal, kind):
    only(**{kind: ("3/h",)})
    store(3, HOUR, **shared[kind])
    assert refusal() == ("limit_reached", 20 * MINUTE)


@pytest.mark.parametrize("kind", KINDS)
def test_beyond_a_limit_a_start_waits_for_the_nth_newest(only, shared, refusal, kind):
    only(**{kind: ("3/h",)})
    store(6, HOUR, **shared[kind])
    assert refusal() == ("limit_reached", 40 * MINUTE)


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_what_others_did_is_not_counted(only, start, kind):
    only(**{kind: ("3/h",)})
    store(5, HOUR)
    assert start().status == "queued"


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_slides_to_the_microsecond(only, shared, start, refusal, clock, kind):
    only(**{kind: ("3/h",)})
    store(3, HOUR, **shared[kind])
    clock.move(20 * MINUTE - MOMENT)
    assert refusal() == ("limit_reached", MOMENT)
    clock.move(MOMENT)
    start()


def test_a_full_window_lets_one_in_for_each_that_leaves(only, start, refusal, clock):
    only(number=("3/h",))
    for _ in range(3):
        start()
        clock.move(10 * MINUTE)
    waits = []
    for _ in range(3):
        waits.append(refusal()[1])
        clock.move(waits[-1])
        start()
    assert waits == [30 * MINUTE, 10 * MINUTE, 10 * MINUTE]


# The defaults

ABOVE = {"number": 16, "user": 11, "network": 101, "block": 21, "site": 1001}
DEFAULTS = [
    (kind, text) for kind, texts in DEFAULT_SEND_LIMITS.items() for text in texts
]


def test_the_defaults_are_those_of_the_readme():
    assert DEFAULTS == [
        ("number", "3/10m"),
        ("number", "5/d"),
        ("number", "15/30d"),
        ("user", "5/h"),
        ("user", "10/d"),
        ("network", "20/h"),
        ("network", "100/d"),
        ("block", "20/h"),
        ("site", "1000/h"),
    ]


@pytest.mark.parametrize(("kind", "text"), DEFAULTS)
def test_a_default_limit_is_reached_at_its_count(
    no_cooldown, shared, refusal, kind, text
):
    limit = parse_limit(text)
    store(limit.sends, limit.window, **shared[kind])
    code, wait = refusal()
    assert (code, round(wait / SECOND)) == (
        "limit_reached",
        round(limit.window / limit.sends / SECOND),
    )


@pytest.mark.parametrize(("kind", "text"), DEFAULTS)
def test_a_default_limit_is_not_reached_one_below(
    no_cooldown, shared, start, kind, text
):
    limit = parse_limit(text)
    store(limit.sends - 1, limit.window, **shared[kind])
    assert start().status == "queued"


def test_a_kind_that_is_left_out_keeps_its_default(settings):
    settings.IDENFY_PHONE_SEND_LIMITS = {"user": ("1/h",)}
    texts = DEFAULT_SEND_LIMITS | {"user": ("1/h",)}
    expected = {kind: tuple(map(parse_limit, texts[kind])) for kind in texts}
    limits = conf.SEND_LIMITS
    assert limits == expected


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_kind_has_no_limit(settings, no_cooldown, shared, start, kind):
    settings.IDENFY_PHONE_SEND_LIMITS = {kind: ()}
    fields = shared[kind]
    store(ABOVE[kind], 9 * MINUTE, **fields)
    assert start().status == "queued"


@pytest.mark.parametrize("kind", ["user", "network", "block"])
def test_an_empty_kind_lifts_no_other(settings, no_cooldown, shared, refusal, kind):
    settings.IDENFY_PHONE_SEND_LIMITS = {"number": (), "site": ()}
    store(ABOVE[kind], 9 * MINUTE, **shared[kind])
    assert refusal()[0] == "limit_reached"


# The text form


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("3/10m", (3, 10 * MINUTE)),
        ("5/d", (5, DAY)),
        ("15/30d", (15, 30 * DAY)),
        ("1000/h", (1000, HOUR)),
        ("1/s", (1, SECOND)),
        ("1/1s", (1, SECOND)),
        ("10/45s", (10, 45 * SECOND)),
        ("9999999/9999d", (9_999_999, 9999 * DAY)),
    ],
)
def test_a_limit_is_read(text, limit):
    assert parse_limit(text) == Limit(*limit)


@pytest.mark.parametrize(
    "text",
    [
        *["", "/", "3", "3/", "/m", "m", "3m", "3/10", "3/m10", "3//m", "3/10m/2"],
        *["0/m", "00/m", "03/m", "3/0m", "3/01m", "-3/m", "+3/m", "3/-1m", "3/+1m"],
        *["3.5/m", "3/1.5m", "1e3/m", "3,000/m", "1_000/m", "0x3/m", "inf/m"],
        *["3/M", "3/10min", "3/w", "3/y", "3/ms", "3/10mm", "three/m"],
        *[" 3/10m", "3/10m ", "3 /10m", "3/ 10m", "3/10 m", "3/10m\n", "3/10m\0"],
        *["٣/10m", "3/١m", "3\u2044m", "\uff13/m", "99999999/m", "3/10000m"],
    ],
)
def test_what_is_no_limit_is_refused(text):
    with pytest.raises(ValueError, match=r"^not a limit such as 3/10m$"):
        parse_limit(text)


# Which rows count

ENDS = [
    *[(status, "") for status in ("queued", "sending", "sent", "verified")],
    *[("expired", ""), ("locked", "")],
    *[("failed", "unknown"), ("failed", "number_refused")],
]
FREE = ["account", "unreachable", "rate_limited", "too_late"]


@pytest.mark.parametrize(("status", "failure"), ENDS)
def test_what_may_have_sent_counts(only, make, refusal, status, failure):
    only(number=("1/h",))
    make(status, failure=failure, verified_at=timezone.now())
    assert refusal() == ("limit_reached", HOUR)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("failure", FREE)
def test_what_sent_nothing_does_not_count(only, shared, start, kind, failure):
    only(**{kind: ("1/h",)})
    store(3, HOUR, status="failed", failure=failure, **shared[kind])
    assert start().status == "queued"


@pytest.mark.parametrize("failure", FREE)
def test_a_row_under_way_counts_whatever_befell_it_before(only, make, refusal, failure):
    only(number=("1/h",))
    make("queued", failure=failure)
    assert refusal() == ("limit_reached", HOUR)


def test_free_rows_are_stepped_over(only, refusal, shared, clock):
    only(number=("2/h",))
    store(2, HOUR, **shared["number"])
    clock.move(MINUTE)
    store(9, MINUTE, status="failed", failure="account", **shared["number"])
    assert refusal() == ("limit_reached", 29 * MINUTE)


# Several waits


def test_the_longest_wait_is_the_limits(settings, make, refusal, clock):
    settings.IDENFY_PHONE_SEND_LIMITS = {"number": ("1/h", "1/2h", "1/10m")}
    make()
    clock.move(SECOND)
    assert refusal() == ("limit_reached", 2 * HOUR - SECOND)


def test_the_longest_wait_is_the_cooldowns(settings, make, refusal, clock):
    settings.IDENFY_PHONE_SEND_LIMITS = {"number": ("1/30s",), "user": ("1/59s",)}
    make()
    clock.move(SECOND)
    assert refusal() == ("cooldown", 59 * SECOND)


def test_the_longest_wait_is_that_of_another_kind(only, shared, refusal, clock):
    only(number=("1/10m",), user=("1/20m",), network=("1/15m",), site=("1/5m",))
    for kind in KINDS:
        store(1, HOUR, **shared[kind])
    assert refusal() == ("limit_reached", 20 * MINUTE)


# A refusal stores nothing


@pytest.mark.parametrize("kind", KINDS)
def test_a_reached_limit_stores_no_row_and_no_lock(only, shared, refusal, kind):
    only(**{kind: ("3/h",)})
    store(3, HOUR, **shared[kind])
    refusal()
    assert (rows.count(), StartLock.objects.count()) == (3, 0)


def test_a_cooldown_stores_no_row_and_no_lock(make, refusal):
    make()
    refusal()
    assert (rows.count(), StartLock.objects.count()) == (1, 0)


def test_a_refusal_leaves_earlier_locks_as_they_were(start, refusal, clock):
    start()
    before = list(StartLock.objects.order_by("key").values())
    clock.move(SECOND)
    refusal()
    assert list(StartLock.objects.order_by("key").values()) == before


def test_a_refusal_leaves_the_callers_transaction_usable(make, refusal, user):
    make()
    with transaction.atomic():
        refusal()
        user.first_name = "Ona"
        user.save()
    user.refresh_from_db()
    assert user.first_name == "Ona"


def test_refusals_do_not_lengthen_the_wait(start, refusal, clock):
    start()
    for _ in range(20):
        refusal()
    clock.move(MINUTE)
    start()


# The alarm


def alarms(caplog):
    return [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.levelno >= logging.WARNING
    ]


@pytest.mark.parametrize("kind", ["block", "site"])
def test_a_reached_block_or_site_is_critical(only, shared, refusal, caplog, kind):
    only(**{kind: ("3/h",)})
    store(3, HOUR, **shared[kind])
    refusal()
    text = f"The limit of a {kind} is reached: 3 in 1:00:00."
    assert alarms(caplog) == [("CRITICAL", text)]


@pytest.mark.parametrize("kind", ["number", "user", "network"])
def test_one_reached_number_user_or_network_is_no_alarm(
    only, shared, refusal, caplog, kind
):
    only(**{kind: ("3/h",)})
    store(3, HOUR, **shared[kind])
    refusal()
    assert alarms(caplog) == []


@pytest.mark.parametrize("kind", ["block", "site"])
def test_one_below_its_limit_is_no_alarm(only, shared, start, caplog, kind):
    only(**{kind: ("3/h",)})
    store(2, HOUR, **shared[kind])
    start()
    assert alarms(caplog) == []


# The cooldown


@pytest.fixture
def no_limits(settings):
    settings.IDENFY_PHONE_SEND_LIMITS = dict.fromkeys(KINDS, ())


@pytest.mark.parametrize(
    ("steps", "waits"),
    [
        ((60, 120, 300), [60, 120, 300, 300, 300]),
        ([5], [5, 5, 5]),
        ((0, 30), [30, 30]),
    ],
)
def test_the_cooldown_grows_with_each_send(
    settings, no_limits, start, refusal, clock, steps, waits
):
    settings.IDENFY_PHONE_RESEND_COOLDOWN = steps
    for _ in range(not steps[0]):
        start()
    for seconds in waits:
        start()
        assert refusal() == ("cooldown", seconds * SECOND)
        clock.move(seconds * SECOND - MOMENT)
        assert refusal() == ("cooldown", MOMENT)
        clock.move(MOMENT)


def test_the_cooldown_shrinks_a_day_later(no_limits, start, refusal, clock):
    for _ in range(3):
        start()
        clock.move(HOUR)
    clock.move(DAY - 2 * HOUR)
    start()
    # The send of 23 hours ago still counts, those of 24 and 25 no longer.
    assert refusal() == ("cooldown", 120 * SECOND)


@pytest.mark.parametrize("failure", FREE)
def test_what_sent_nothing_does_not_lengthen_the_cooldown(
    no_limits, make, start, refusal, clock, failure
):
    for _ in range(3):
        make("failed", failure=failure)
    assert refusal() == ("cooldown", 10 * SECOND)
    clock.move(10 * SECOND)
    start()
    assert refusal() == ("cooldown", 60 * SECOND)


def test_a_send_that_failed_for_nothing_does_not_hide_the_one_before(
    no_limits, make, refusal, clock
):
    make("expired")
    clock.move(30 * SECOND)
    make("failed", failure="unreachable")
    assert refusal() == ("cooldown", 30 * SECOND)
    clock.move(25 * SECOND)
    assert refusal() == ("cooldown", 5 * SECOND)


def test_the_cooldown_after_nothing_sent_is_never_longer_than_after_a_send(
    settings, make, refusal
):
    settings.IDENFY_PHONE_RESEND_COOLDOWN = (3, 60)
    make("failed", failure="account")
    assert refusal() == ("cooldown", 3 * SECOND)


def test_a_cooldown_is_the_numbers_whoever_started(start, refusal, django_user_model):
    start(user=django_user_model.objects.create_user("rasa"), network="8.8.8.8")
    assert refusal() == ("cooldown", MINUTE)
    assert refusal(user=None, network="") == ("cooldown", MINUTE)


def test_resend_at_tells_of_this_row_alone(no_limits, make, start, refusal):
    for minutes in (30, 20, 10):
        make(user=None, created_at=timezone.now() - minutes * MINUTE)
    row = start()
    assert row.resend_at == row.created_at + MINUTE
    assert refusal() == ("cooldown", 5 * MINUTE)


def test_resend_at_is_not_moved_by_a_strangers_later_start(start, clock, user):
    row = start()
    clock.move(MINUTE)
    start(user=None)
    row = services.get_verification(row.pk, user=user)
    assert row.resend_at == row.created_at + MINUTE


# Over the API


def post(client, number=NUMBER):
    body = json.dumps({"phone_number": number}).encode()
    return client.post("/phone/start/", body, content_type="application/json")


def told(response):
    """The code and the wait of a refusal, which the body repeats."""
    body = response.json()
    assert response.status_code == 429
    assert re.fullmatch("[1-9][0-9]*", response["Retry-After"])
    assert int(response["Retry-After"]) == body["retry_after"]
    return body["code"], body["retry_after"]


@pytest.mark.parametrize(
    ("age", "seconds"),
    [
        (timedelta(0), 60),
        (MOMENT, 60),
        (SECOND - MOMENT, 60),
        (SECOND, 59),
        (58.5 * SECOND, 2),
        (MINUTE - MOMENT, 1),
    ],
)
def test_retry_after_is_the_next_whole_second(api, make, clock, age, seconds):
    make()
    clock.move(age)
    assert told(post(api)) == ("cooldown", seconds)


def test_a_start_at_its_retry_after_is_accepted(api, make, clock):
    make()
    clock.move(0.3 * SECOND)
    clock.move(timedelta(seconds=told(post(api))[1]))
    assert post(api).status_code == 202


def test_a_start_a_second_before_its_retry_after_is_refused(api, make, clock):
    make()
    clock.move(0.3 * SECOND)
    clock.move(timedelta(seconds=told(post(api))[1] - 1))
    assert told(post(api)) == ("cooldown", 1)


def test_a_client_that_obeys_retry_after_is_refused_once_a_start(api, clock, settings):
    settings.IDENFY_PHONE_SEND_LIMITS = {"user": ()}
    began, answers = clock.now, []
    while len(answers) < 31:
        response = post(api)
        rows.update(status="expired")
        answers.append(response.status_code)
        clock.move(timedelta(seconds=int(response.headers.get("Retry-After", 0))))
    assert answers == [202, 429] * 15 + [202]
    assert clock.now - began == 30 * DAY


@pytest.mark.parametrize("kind", KINDS)
def test_a_reached_limit_tells_no_kind(api, only, shared, kind):
    only(**{kind: ("3/h",)})
    store(3, HOUR, **shared[kind])
    response = api.post(
        "/phone/start/",
        json.dumps({"phone_number": NUMBER}).encode(),
        content_type="application/json",
        REMOTE_ADDR=NETWORK,
    )
    assert told(response) == ("limit_reached", 1200)
    text = "Too many codes were requested. Please try again later."
    assert response.json()["detail"] == text


# Who shares what


def test_two_users_share_the_limit_of_a_number(
    only, start, refusal, clock, django_user_model
):
    only(number=("2/h",))
    rasa = django_user_model.objects.create_user("rasa")
    start()
    clock.move(MINUTE)
    start(user=rasa)
    assert refusal() == refusal(user=rasa) == ("limit_reached", 59 * MINUTE)


def test_a_users_limit_follows_to_any_number_and_network(only, start, refusal):
    only(user=("2/h",))
    start(number=OTHER, network="8.8.8.8")
    start(number="+447400123456", network="2606:4700::/64")
    assert refusal() == ("limit_reached", HOUR)


def test_anonymous_starts_share_no_users_limit(only, start):
    only(user=("1/h",))
    start(user=None)
    start(user=None)
    assert start(user=None).status == "queued"


def test_starts_without_a_network_share_no_networks_limit(only, start):
    only(network=("1/h",))
    start(network="")
    assert start(network="").status == "queued"


@pytest.mark.parametrize(
    ("who", "locks"),
    [
        ({}, 3),
        ({"network": ""}, 2),
        ({"user": None}, 2),
        ({"user": None, "network": ""}, 1),
    ],
)
def test_only_what_is_limited_is_locked(start, who, locks):
    start(**who)
    assert StartLock.objects.count() == locks


def test_a_lock_of_one_kind_is_none_of_another():
    keys = Claim(NUMBER, NUMBER[:-4], NUMBER, NUMBER).lock_keys()
    assert len(set(keys)) == 3


def test_a_deleted_account_resets_no_limit_of_its_number(
    only, start, refusal, user, django_user_model
):
    only(number=("1/h",), network=("2/h",))
    start()
    start(number=OTHER)
    user.delete()
    reborn = django_user_model.objects.create_user("ona")
    assert refusal(user=reborn, network="") == ("limit_reached", HOUR)
    assert refusal(user=reborn, number="+447400123456") == ("limit_reached", HOUR)


def test_a_deleted_account_resets_no_cooldown(start, refusal, user):
    start()
    user.delete()
    assert refusal(user=None) == ("cooldown", MINUTE)


# Clearing a number


def test_a_cleared_number_starts_afresh(only, start, shared, clock):
    only(number=("3/h",))
    store(3, HOUR, **shared["number"])
    services.clear_number(NUMBER)
    assert start().status == "queued"


def test_clearing_ends_the_cooldown(start, refusal):
    start()
    assert refusal() == ("cooldown", MINUTE)
    services.clear_number(NUMBER)
    start()


def test_what_comes_after_the_clearing_counts(start, refusal, clock):
    start()
    services.clear_number(NUMBER)
    clock.move(SECOND)
    start()
    assert refusal() == ("cooldown", MINUTE)
    clock.move(MINUTE)
    start()
    assert refusal() == ("cooldown", 2 * MINUTE)


@pytest.mark.parametrize("kind", ["user", "network", "block", "site"])
def test_clearing_a_number_clears_nothing_else(only, shared, refusal, kind):
    only(**{kind: ("3/h",)})
    store(3, HOUR, **shared[kind] | {"phone_number": NUMBER})
    services.clear_number(NUMBER)
    assert refusal() == ("limit_reached", 20 * MINUTE)


def test_clearing_a_number_clears_no_other(make, refusal):
    make()
    services.clear_number(OTHER)
    assert refusal() == ("cooldown", MINUTE)


def test_a_number_can_be_cleared_before_its_first_start_and_again(start):
    services.clear_number(NUMBER)
    start()
    services.clear_number("+370 612 34567")
    start()
    assert rows.count() == 2


def test_clearing_deletes_no_row(start):
    row = start()
    services.clear_number(NUMBER)
    assert list(rows.all()) == [row]


def test_a_number_that_is_none_cannot_be_cleared():
    with pytest.raises(NumberNotSupported):
        services.clear_number("+3706123")
    assert not StartLock.objects.exists()


@pytest.mark.parametrize("number", [NUMBER, "+370 612 34567"])
def test_the_command_clears_a_number(start, number):
    start()
    out = StringIO()
    call_command("idenfy_phone_clear", number, stdout=out)
    assert out.getvalue() == "Earlier sends to this number no longer count.\n"
    start()


@pytest.mark.parametrize("number", ["+3706123", "61234", "nonsense", "", NUMBER + "9"])
def test_the_command_refuses_what_is_no_number_without_repeating_it(number):
    out, err = StringIO(), StringIO()
    with pytest.raises(CommandError) as caught:
        call_command("idenfy_phone_clear", number, stdout=out, stderr=err)
    assert str(caught.value) == str(NumberNotSupported.message)
    assert (out.getvalue(), err.getvalue()) == ("", "")
