"""Each limit refuses at its count, and until its window ends, to the microsecond."""

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from django.db import transaction
from django.utils import timezone

from django_idenfy_phone import limits
from django_idenfy_phone.conf import DEFAULT_SEND_LIMITS, Limit, conf, parse_limit
from django_idenfy_phone.exceptions import LimitReached
from django_idenfy_phone.models import PhoneVerification, StartLock
from django_idenfy_phone.starting import StartRequest
from support.constants import NUMBER
from support.steps import (
    UNSENT_FAILURES,
    code_and_wait,
    logged_messages,
    post_start,
    refusal_of,
    start,
    start_and_expire,
)

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.usefixtures("account", "before_summer_time"),
]
rows = PhoneVerification.objects

KINDS = ["number", "user", "network", "block", "site"]
NETWORK = "9.9.9.9"
OTHER = "+37069999999"
# A send that shares only the site with the next start.
UNRELATED = {
    "user": None,
    "is_anonymous": True,
    "phone_number": OTHER,
    "number_block": OTHER[:-4],
    "region": "LT",
    "network": "8.8.8.8",
    "status": "expired",
}
MICROSECOND = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
def no_cooldown(settings):
    settings.IDENFY_PHONE_RESEND_COOLDOWN = (0,)


@pytest.fixture
def set_limits(settings, no_cooldown):
    """Set these limits and no others."""

    def set_limits(**limits):
        settings.IDENFY_PHONE_SEND_LIMITS = dict.fromkeys(KINDS, ()) | limits

    return set_limits


@pytest.fixture
def shared(user):
    """For each kind, what a counted row has in common with the next start."""
    return {
        "number": {"phone_number": NUMBER},
        "user": {"user": user},
        "network": {"network": NETWORK},
        "block": {"number_block": NUMBER[:-4]},
        "site": {},
    }


@pytest.fixture
def refusal(user):
    """How the next start is refused. A test may give another user or number."""
    return partial(refusal_of, user=user, network=NETWORK)


def store_rows(count, window, **fields):
    """Store rows at equal steps over a window, the newest of them now."""
    now = timezone.now()
    rows.bulk_create(
        PhoneVerification(
            created_at=now - window * n / count, send_by=now, **UNRELATED | fields
        )
        for n in range(count)
    )


# Below, at and beyond a limit


@pytest.mark.parametrize("kind", KINDS)
def test_start_below_a_limit_is_accepted(set_limits, shared, user, kind):
    set_limits(**{kind: ("3/h",)})
    store_rows(2, HOUR, **shared[kind])
    assert start(user, network=NETWORK).status == "queued"


@pytest.mark.parametrize("kind", KINDS)
def test_refusal_names_its_limit_for_the_operator(set_limits, shared, user, kind):
    set_limits(**{kind: ("1/h",)})
    store_rows(1, HOUR, **shared[kind])
    with pytest.raises(LimitReached) as refused:
        start(user, network=NETWORK)
    assert refused.value.reason == kind


@pytest.mark.parametrize("kind", KINDS)
def test_start_at_a_limit_waits_for_the_oldest_row(set_limits, shared, refusal, kind):
    set_limits(**{kind: ("3/h",)})
    store_rows(3, HOUR, **shared[kind])
    assert refusal() == ("limit_reached", 20 * MINUTE)


@pytest.mark.parametrize("kind", KINDS)
def test_start_beyond_a_limit_waits_for_the_nth_newest_row(
    set_limits, shared, refusal, kind
):
    set_limits(**{kind: ("3/h",)})
    store_rows(6, HOUR, **shared[kind])
    assert refusal() == ("limit_reached", 40 * MINUTE)


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_unrelated_rows_are_not_counted(set_limits, user, kind):
    set_limits(**{kind: ("3/h",)})
    store_rows(5, HOUR)
    assert start(user, network=NETWORK).status == "queued"


@pytest.mark.parametrize("kind", KINDS)
def test_window_slides_to_the_microsecond(
    set_limits, shared, user, refusal, clock, kind
):
    set_limits(**{kind: ("3/h",)})
    store_rows(3, HOUR, **shared[kind])
    clock.move(20 * MINUTE - MICROSECOND)
    assert refusal() == ("limit_reached", MICROSECOND)
    clock.move(MICROSECOND)
    start(user, network=NETWORK)


def test_full_window_accepts_one_start_for_each_row_that_leaves(
    set_limits, user, refusal, clock
):
    set_limits(number=("3/h",))
    for _ in range(3):
        start_and_expire(user)
        clock.move(10 * MINUTE)
    waits = []
    for _ in range(3):
        waits.append(refusal()[1])
        clock.move(waits[-1])
        start_and_expire(user)
    assert waits == [30 * MINUTE, 10 * MINUTE, 10 * MINUTE]


# The defaults

ABOVE_DEFAULT = {"number": 16, "user": 11, "network": 101, "block": 21, "site": 1001}
DEFAULTS = [
    (kind, text) for kind, texts in DEFAULT_SEND_LIMITS.items() for text in texts
]


def test_defaults_are_those_of_the_readme():
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
def test_default_limit_is_reached_at_its_count(
    no_cooldown, shared, refusal, kind, text
):
    limit = parse_limit(text)
    store_rows(limit.sends, limit.window, **shared[kind])
    code, wait = refusal()
    assert (code, round(wait / SECOND)) == (
        "limit_reached",
        round(limit.window / limit.sends / SECOND),
    )


@pytest.mark.parametrize(("kind", "text"), DEFAULTS)
def test_default_limit_is_not_reached_one_below(no_cooldown, shared, user, kind, text):
    limit = parse_limit(text)
    store_rows(limit.sends - 1, limit.window, **shared[kind])
    assert start(user, network=NETWORK).status == "queued"


def test_omitted_kind_keeps_its_default(settings):
    settings.IDENFY_PHONE_SEND_LIMITS = {"user": ("1/h",)}
    texts = DEFAULT_SEND_LIMITS | {"user": ("1/h",)}
    expected = {kind: tuple(map(parse_limit, texts[kind])) for kind in texts}
    found = conf.SEND_LIMITS
    assert found == expected


@pytest.mark.parametrize("kind", KINDS)
def test_empty_kind_has_no_limit(settings, no_cooldown, shared, user, kind):
    settings.IDENFY_PHONE_SEND_LIMITS = {kind: ()}
    store_rows(ABOVE_DEFAULT[kind], 9 * MINUTE, **shared[kind])
    assert start(user, network=NETWORK).status == "queued"


@pytest.mark.parametrize("kind", ["user", "network", "block"])
def test_empty_kind_lifts_no_other_limit(settings, no_cooldown, shared, refusal, kind):
    settings.IDENFY_PHONE_SEND_LIMITS = {"number": (), "site": ()}
    store_rows(ABOVE_DEFAULT[kind], 9 * MINUTE, **shared[kind])
    assert refusal()[0] == "limit_reached"


# The text of a limit


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
def test_limit_is_parsed(text, limit):
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
def test_invalid_limit_is_refused(text):
    with pytest.raises(ValueError, match=r"^not a limit such as 3/10m$"):
        parse_limit(text)


# Which rows count

COUNTED = [
    *[(status, "") for status in ("queued", "sending", "sent", "verified")],
    *[("expired", ""), ("locked", "")],
    *[("failed", "unknown"), ("failed", "number_refused")],
]


@pytest.mark.parametrize(("status", "failure"), COUNTED)
def test_row_that_may_have_sent_counts(set_limits, make, refusal, status, failure):
    set_limits(number=("1/h",))
    make(status, failure=failure, verified_at=timezone.now())
    assert refusal() == ("limit_reached", HOUR)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("failure", UNSENT_FAILURES)
def test_unsent_row_does_not_count(set_limits, shared, user, kind, failure):
    set_limits(**{kind: ("1/h",)})
    fields = {"failure": failure, "provider_code": "UNAUTHORIZED"} | shared[kind]
    store_rows(3, HOUR, status="failed", **fields)
    assert start(user, network=NETWORK).status == "queued"


REFUSED = {"status": "failed", "failure": "account", "provider_code": "BAD_CONTRACT"}


@pytest.mark.parametrize("kind", ["number", "user", "network"])
def test_account_refusal_counts_for_who_caused_it_for_an_hour(
    set_limits, shared, refusal, kind
):
    set_limits(**{kind: ("3/h",)})
    store_rows(3, HOUR, **REFUSED, **shared[kind])
    assert refusal() == ("limit_reached", 20 * MINUTE)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("block", "3/h"),
        ("site", "3/h"),
        ("number", "3/2h"),
        ("user", "3/d"),
        ("network", "3/61m"),
    ],
)
def test_account_refusal_counts_for_no_other_limit(
    set_limits, shared, user, kind, text
):
    set_limits(**{kind: (text,)})
    store_rows(9, HOUR, **REFUSED, **shared[kind])
    assert start(user, network=NETWORK).status == "queued"


@pytest.mark.parametrize("failure", UNSENT_FAILURES)
def test_queued_row_counts_whatever_happened_before(set_limits, make, refusal, failure):
    set_limits(number=("1/h",))
    make("queued", failure=failure)
    assert refusal() == ("limit_reached", HOUR)


def test_unsent_rows_are_skipped(set_limits, refusal, shared, clock):
    set_limits(number=("2/h",))
    store_rows(2, HOUR, **shared["number"])
    clock.move(MINUTE)
    store_rows(9, MINUTE, status="failed", failure="too_late", **shared["number"])
    assert refusal() == ("limit_reached", 29 * MINUTE)


# Several waits


def test_longest_limit_of_a_number_wins(settings, make, refusal, clock):
    settings.IDENFY_PHONE_SEND_LIMITS = {"number": ("1/h", "1/2h", "1/10m")}
    make()
    clock.move(SECOND)
    assert refusal() == ("limit_reached", 2 * HOUR - SECOND)


def test_cooldown_wins_over_shorter_limits(settings, make, refusal, clock):
    settings.IDENFY_PHONE_SEND_LIMITS = {"number": ("1/30s",), "user": ("1/59s",)}
    make()
    clock.move(SECOND)
    assert refusal() == ("cooldown", 59 * SECOND)


def test_longest_limit_of_all_kinds_wins(set_limits, shared, refusal):
    set_limits(number=("1/10m",), user=("1/20m",), network=("1/15m",), site=("1/5m",))
    for kind in KINDS:
        store_rows(1, HOUR, **shared[kind])
    assert refusal() == ("limit_reached", 20 * MINUTE)


# A refusal stores nothing


@pytest.mark.parametrize("kind", KINDS)
def test_reached_limit_stores_no_row_and_no_lock(set_limits, shared, refusal, kind):
    set_limits(**{kind: ("3/h",)})
    store_rows(3, HOUR, **shared[kind])
    refusal()
    assert (rows.count(), StartLock.objects.count()) == (3, 0)


def test_cooldown_stores_no_row_and_no_lock(make, refusal):
    make()
    refusal()
    assert (rows.count(), StartLock.objects.count()) == (1, 0)


def test_refusal_leaves_earlier_locks_unchanged(user, refusal, clock):
    start(user, network=NETWORK)
    before = list(StartLock.objects.order_by("key").values())
    clock.move(SECOND)
    refusal()
    assert list(StartLock.objects.order_by("key").values()) == before


def test_refusal_leaves_the_callers_transaction_usable(make, refusal, user):
    make()
    with transaction.atomic():
        refusal()
        user.first_name = "Ona"
        user.save()
    user.refresh_from_db()
    assert user.first_name == "Ona"


def test_refusals_do_not_extend_the_wait(user, refusal, clock):
    start_and_expire(user, network=NETWORK)
    for _ in range(20):
        refusal()
    clock.move(MINUTE)
    start(user, network=NETWORK)


# What is logged and what is shown


@pytest.mark.parametrize(
    ("kind", "which"), [("block", "block +370**23****"), ("site", "site")]
)
def test_reached_block_or_site_limit_is_critical(
    set_limits, shared, refusal, caplog, kind, which
):
    set_limits(**{kind: ("3/h",)})
    store_rows(3, HOUR, **shared[kind])
    refusal()
    text = f"The limit of the {which} is reached: 3 in 1:00:00, until "
    [(level, message)] = logged_messages(caplog)
    assert (level, message[: len(text)]) == ("CRITICAL", text)


@pytest.mark.parametrize("kind", ["block", "site"])
def test_alarm_tells_when_a_limit_ends(
    set_limits, shared, refusal, caplog, clock, kind
):
    clock.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    set_limits(**{kind: ("1/h",)})
    store_rows(1, MINUTE, **shared[kind])
    refusal()
    [(_level, message)] = logged_messages(caplog)
    assert message.endswith(", until 2026-01-02T04:04:05+00:00.")


@pytest.mark.parametrize("kind", ["number", "user", "network"])
def test_reached_number_user_or_network_limit_logs_nothing(
    set_limits, shared, refusal, caplog, kind
):
    set_limits(**{kind: ("3/h",)})
    store_rows(3, HOUR, **shared[kind])
    refusal()
    assert logged_messages(caplog) == []


@pytest.mark.parametrize("kind", ["block", "site"])
def test_block_or_site_below_its_limit_logs_nothing(
    set_limits, shared, user, caplog, kind
):
    set_limits(**{kind: ("3/h",)})
    store_rows(2, HOUR, **shared[kind])
    start(user, network=NETWORK)
    assert logged_messages(caplog) == []


@pytest.mark.parametrize("kind", KINDS)
def test_reached_limit_does_not_tell_its_kind(api, set_limits, shared, kind):
    set_limits(**{kind: ("3/h",)})
    store_rows(3, HOUR, **shared[kind])
    response = post_start(api, REMOTE_ADDR=NETWORK)
    assert code_and_wait(response) == ("limit_reached", 1200)
    text = "Too many codes were requested. Please try again later."
    assert response.json()["detail"] == text


# Who shares a limit


def test_two_users_share_the_limit_of_a_number(
    set_limits, user, refusal, clock, django_user_model
):
    set_limits(number=("2/h",))
    rasa = django_user_model.objects.create_user("rasa")
    start_and_expire(user)
    clock.move(MINUTE)
    start_and_expire(rasa)
    assert refusal() == refusal(user=rasa) == ("limit_reached", 59 * MINUTE)


def test_user_limit_counts_all_numbers_and_networks(set_limits, user, refusal):
    set_limits(user=("2/h",))
    start_and_expire(user, OTHER, network="8.8.8.8")
    start_and_expire(user, "+447400123456", network="2606:4700::/64")
    assert refusal() == ("limit_reached", HOUR)


def test_user_limit_does_not_apply_to_anonymous_starts(set_limits):
    set_limits(user=("1/h",))
    start_and_expire(None, network=NETWORK)
    start_and_expire(None, network=NETWORK)
    assert start(None, network=NETWORK).status == "queued"


def test_network_limit_does_not_apply_without_a_network(set_limits, user):
    set_limits(network=("1/h",))
    start_and_expire(user, network="")
    assert start(user, network="").status == "queued"


@pytest.mark.parametrize(
    ("options", "locks"),
    [
        ({}, 4),
        ({"network": ""}, 3),
        ({"user": None}, 3),
        ({"user": None, "network": ""}, 2),
    ],
)
def test_number_block_user_and_network_are_locked_where_known(user, options, locks):
    start(**{"user": user, "network": NETWORK} | options)
    assert StartLock.objects.count() == locks


def test_locks_of_different_kinds_have_different_keys():
    alike = StartRequest(NUMBER, "LT", NUMBER[:-4], NUMBER, "", None)
    limits.lock_and_count(alike, [])
    assert StartLock.objects.count() == 4


def test_deleted_account_resets_no_limit_of_its_number(
    set_limits, refusal, user, django_user_model
):
    set_limits(number=("1/h",), network=("2/h",))
    start_and_expire(user, network=NETWORK)
    start_and_expire(user, OTHER, network=NETWORK)
    user.delete()
    new_user = django_user_model.objects.create_user("ona")
    assert refusal(user=new_user, network="") == ("limit_reached", HOUR)
    assert refusal(user=new_user, number="+447400123456") == ("limit_reached", HOUR)
