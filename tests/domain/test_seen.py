"""One UPDATE begins a check exactly where a SELECT and an UPDATE would."""

import threading
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from django_idenfy_phone import seen
from django_idenfy_phone.models import PhoneVerification, ProviderGate
from django_idenfy_phone.pacing import LONGEST_PAUSES, MAX_CLOCK_SKEW, Pause
from django_idenfy_phone.statements import Table
from django_idenfy_phone.statuses import Status
from support.brokers import wait_until
from support.databases import is_waited_for

pytestmark = pytest.mark.django_db
# A later end was written by a host whose clock is wrong.
LONGEST_PAUSE = LONGEST_PAUSES[Pause.CHECKS] + MAX_CLOCK_SKEW
PAST, FUTURE = timedelta(seconds=-1), timedelta(hours=9)
MOMENTS = ("expires_at", "checking_until", "redeemed_at", "erased_at")
ANONYMOUS = {"user": None, "is_anonymous": True}


@pytest.fixture(params=[True, False], ids=["one statement", "two statements"])
def begin_check(request, monkeypatch):
    """As on PostgreSQL, and as on other databases."""
    if request.param and connection.vendor == "mysql":
        pytest.skip("An UPDATE of this database returns no rows.")
    monkeypatch.setattr(Table, "updates_and_returns", request.param)
    return seen.begin_check


def stored(row):
    return PhoneVerification.objects.values().get(pk=row.pk)


def make_at(make, **fields):
    """``make``, whose moments are told as the time from now on."""
    now = timezone.now()
    moments = {name: now + fields[name] for name in MOMENTS if name in fields}
    return make(**fields | moments)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"checks": 1, "checks_wrong": 1},
        {"checks": 3, "checks_refunded": 1},
        {"checks": 5, "checks_refunded": 5},
        {"checking_until": PAST},
        ANONYMOUS,
    ],
)
def test_check_begins(make, user, begin_check, fields):
    row = make_at(make, **fields)
    other = make_at(make, **fields)
    before = stored(other)
    found = begin_check(row.pk, user.pk)
    assert found.row.checks == row.checks + 1
    left = found.row.checking_until - timezone.now()
    assert timedelta(seconds=19) < left <= timedelta(seconds=20)
    after = stored(row)
    assert {name: getattr(found.row, name) for name in after} == after
    assert stored(other) == before
    assert found.has_others == (row.user is not None)


@pytest.mark.parametrize(
    "fields",
    [
        *[{"status": each, "expires_at": FUTURE} for each in Status if each != "sent"],
        {"expires_at": PAST},
        {"checking_until": FUTURE},
        {"checks": 3, "checks_wrong": 3},
        {"checks": 4, "checks_refunded": 1},
        {"checks": 6, "checks_refunded": 6},
        {"user": None},
        ANONYMOUS | {"redeemed_at": PAST},
        ANONYMOUS | {"erased_at": PAST, "is_anonymous": False},
    ],
)
def test_check_does_not_begin(make, user, begin_check, fields):
    row = make_at(make, **fields)
    before = stored(row)
    assert begin_check(row.pk, user.pk) is None
    assert stored(row) == before


def test_only_its_user_begins_a_check(make, user, django_user_model, begin_check):
    stranger = django_user_model.objects.create(username="stranger")
    # An anonymous one gets its user when it is redeemed.
    for row in (make("sent"), make("sent", is_anonymous=True)):
        assert begin_check(row.pk, stranger.pk) is None
        assert begin_check(row.pk, None) is None
        assert begin_check(row.pk, user.pk)


def test_visitor_begins_a_check_of_an_anonymous_row(make, begin_check):
    assert begin_check(make("sent", **ANONYMOUS).pk, None)


@pytest.mark.parametrize(
    ("pause", "begins"),
    [
        (None, True),
        (PAST, True),
        (timedelta(seconds=9), False),
        (LONGEST_PAUSE - timedelta(seconds=1), False),
        (LONGEST_PAUSE + timedelta(seconds=9), True),
    ],
)
def test_pause_of_checks_that_counts_stops_them(make, user, begin_check, pause, begins):
    until = timezone.now() + pause if pause is not None else None
    ProviderGate.objects.create(checks_paused_until=until)
    found = begin_check(make("sent").pk, user.pk)
    assert (found is not None) == begins


@pytest.mark.parametrize("refunded", range(5))
@pytest.mark.parametrize("checks", range(8))
def test_check_begins_while_checks_are_left(make, user, begin_check, checks, refunded):
    row = make("sent", checks=checks, checks_refunded=refunded)
    has_checks_left = row.checks_left > 0
    assert (begin_check(row.pk, user.pk) is not None) == has_checks_left


@pytest.mark.django_db(transaction=True)
def test_check_that_waited_for_a_refund_does_not_pass_its_pause(make, user, at_once):
    """As where another check was answered with 429 meanwhile."""
    if connection.vendor != "postgresql":
        pytest.skip("set DATABASE_URL to a PostgreSQL server to run this")
    row, until = make(checks=1), timezone.now() + timedelta(minutes=1)

    def refund():
        with transaction.atomic():
            PhoneVerification.objects.filter(pk=row.pk).update(checks_refunded=1)
            has_lock.set()
            wait_until(is_waited_for)
            ProviderGate.objects.create(checks_paused_until=until)

    def check():
        has_lock.wait()
        return seen.begin_check(row.pk, user.pk)

    has_lock = threading.Event()
    assert at_once(lambda act: act(), [refund, check]) == [None, None]
    assert stored(row)["checks"] == 1
