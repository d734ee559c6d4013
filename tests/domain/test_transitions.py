"""Each term of each transition's WHERE: without it, a test here fails."""

import uuid
from datetime import timedelta

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import IntegrityError, transaction
from django.utils import timezone

from django_idenfy_phone.models import PhoneVerification

pytestmark = pytest.mark.django_db
rows = PhoneVerification.objects
SECOND = timedelta(seconds=1)
OTHERS = {
    "queued": {"sending", "sent", "verified", "failed", "expired", "locked"},
    "sending": {"queued", "sent", "verified", "failed", "expired", "locked"},
    "sent": {"queued", "sending", "verified", "failed", "expired", "locked"},
}


def ago(**kwargs):
    return timezone.now() - timedelta(**kwargs)


def ahead(**kwargs):
    return timezone.now() + timedelta(**kwargs)


def status_of(row):
    row.refresh_from_db()
    return row.failure or row.status


# T1 claim


def test_claim_takes_a_queued_row_for_45_seconds(make):
    row = rows.claim(make("queued").pk)
    assert (row.status, row.send_attempts) == ("sending", 1)
    assert row.lease_until - row.claimed_at == timedelta(seconds=45)


@pytest.mark.parametrize("status", OTHERS["queued"])
def test_claim_takes_nothing_but_queued_rows(make, status):
    assert rows.claim(make(status).pk) is None


def test_claim_takes_one_row_only(make):
    other = make("queued")
    rows.claim(make("queued").pk)
    assert status_of(other) == "queued"


@pytest.mark.parametrize(
    "fields",
    [
        {"next_send_at": ahead(hours=9)},
        {"send_by": ago(seconds=1)},
        {"send_attempts": 5},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_claim_leaves_rows_that_are_not_due(make, fields):
    assert rows.claim(make("queued", **fields).pk) is None


# T2 sent


@pytest.mark.parametrize(
    ("status", "failure"), [("sending", ""), ("failed", "unknown")]
)
def test_an_answer_makes_a_row_sent(make, status, failure):
    row = make(status, failure=failure)
    assert rows.mark_sent(row, "r" * 32)
    row.refresh_from_db()
    assert (row.status, row.failure, row.request_id) == ("sent", "", "r" * 32)
    assert row.expires_at == row.claimed_at + timedelta(minutes=10)


@pytest.mark.parametrize("status", OTHERS["sending"])
def test_an_answer_lifts_no_other_row(make, status):
    failure = "too_late" if status == "failed" else ""
    row = make(status, failure=failure, claimed_at=timezone.now(), send_attempts=1)
    assert not rows.mark_sent(row, "r" * 32)


def test_a_failure_alone_lifts_nothing(make):
    row = make("queued", failure="unknown", claimed_at=timezone.now())
    assert not rows.mark_sent(row, "r" * 32)


@pytest.mark.parametrize("move", ["mark_sent", "requeue", "fail"])
def test_only_the_newest_attempt_may_write(make, move):
    row = make("sending", send_attempts=2)
    row.send_attempts = 1
    arguments = {
        "mark_sent": ["r" * 32],
        "requeue": [timezone.now()],
        "fail": ["account", ""],
    }
    assert not getattr(rows, move)(row, *arguments[move])


@pytest.mark.parametrize("move", ["mark_sent", "requeue", "fail"])
def test_an_attempt_writes_its_own_row_only(make, move):
    other, row = make("sending"), make("sending")
    arguments = {
        "mark_sent": ["r" * 32],
        "requeue": [timezone.now()],
        "fail": ["account", ""],
    }
    assert getattr(rows, move)(row, *arguments[move])
    assert status_of(other) == "sending"


def test_a_request_id_belongs_to_one_row(make):
    first = make("sent")
    with pytest.raises(IntegrityError):
        rows.mark_sent(make("sending"), first.request_id)


# T3 again, T4 refused, T5 unknown


def test_requeue_waits(make):
    row, moment = make("sending"), ahead(seconds=9)
    assert rows.requeue(row, moment)
    row.refresh_from_db()
    assert (row.status, row.next_send_at) == ("queued", moment)


@pytest.mark.parametrize("status", OTHERS["sending"])
def test_requeue_and_fail_move_nothing_but_sending_rows(make, status):
    row = make(status, send_attempts=1)
    assert not rows.requeue(row, timezone.now())
    assert not rows.fail(row, "account", "")


def test_fail_says_why(make):
    row = make("sending")
    assert rows.fail(row, "account", "UNAUTHORIZED")
    row.refresh_from_db()
    assert (row.status, row.failure) == ("failed", "account")
    assert row.provider_code == "UNAUTHORIZED"


# T5, T6 and T11: settle


@pytest.mark.parametrize(
    ("status", "fields", "outcome"),
    [
        ("sending", {"lease_until": ago(seconds=1)}, "unknown"),
        ("queued", {"send_by": ago(seconds=1)}, "too_late"),
        ("sent", {"expires_at": ago(seconds=1)}, "expired"),
        ("sent", {"checks": 3}, "locked"),
        ("sent", {"checks": 6, "checks_refunded": 6}, "locked"),
        ("sent", {"checks": 3, "checking_until": ago(seconds=1)}, "locked"),
        (
            "sent",
            {"expires_at": ago(seconds=1), "checking_until": ago(seconds=1)},
            "expired",
        ),
    ],
)
def test_settle_ends_what_is_late(make, status, fields, outcome):
    row = make(status, **fields)
    failed = rows.settle()
    assert status_of(row) == outcome
    assert failed == ([row.pk] if status in ("sending", "queued") else [])


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        ("sending", {"lease_until": ahead(hours=9)}),
        ("queued", {"send_by": ahead(hours=9)}),
        ("queued", {"lease_until": ago(seconds=1)}),
        ("sending", {"send_by": ago(seconds=1)}),
        ("sent", {"expires_at": ahead(hours=9)}),
        ("sent", {"checks": 2}),
        ("sent", {"checks": 3, "checks_refunded": 1}),
        ("sent", {"checks": 5, "checks_refunded": 5}),
        ("sent", {"checks": 3, "checking_until": ahead(hours=9)}),
        ("sent", {"checks": 6, "checking_until": ahead(hours=9)}),
        (
            "sent",
            {"expires_at": ago(seconds=1), "checking_until": ahead(hours=9)},
        ),
        *[
            (status, {"expires_at": ago(seconds=1), "checks": 9})
            for status in ("queued", "sending", "verified", "expired", "locked")
        ],
        ("failed", {"lease_until": ago(seconds=1), "send_by": ago(seconds=1)}),
    ],
)
def test_settle_leaves_what_is_in_time(make, status, fields):
    row = make(status, **fields)
    assert rows.settle() == []
    assert status_of(row) == status


def test_settle_names_each_row_that_failed_by_it(make):
    late = {make("queued", send_by=ago(seconds=1)).pk for _ in range(2)}
    assert set(rows.settle()) == late


def test_settle_of_one_row_leaves_others(make):
    row, other = (make("queued", send_by=ago(seconds=1)) for _ in range(2))
    assert rows.filter(pk=row.pk).settle() == [row.pk]
    assert status_of(other) == "queued"


# T7 take a check


def test_a_check_is_taken_before_it_is_made(make, user):
    row = rows.take_check(make("sent").pk, user.pk)
    assert row.checks == 1
    left = row.checking_until - timezone.now()
    assert timedelta(seconds=19) < left <= timedelta(seconds=20)


def test_a_check_that_was_never_answered_blocks_for_20_seconds_only(make, user):
    row = make("sent", checks=1, checking_until=ago(seconds=1))
    assert rows.take_check(row.pk, user.pk).checks == 2


@pytest.mark.parametrize("status", OTHERS["sent"])
def test_only_a_sent_row_is_checked(make, user, status):
    row = make(status, expires_at=ahead(hours=9))
    assert rows.take_check(row.pk, user.pk) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"expires_at": ago(seconds=0)},
        {"checks": 3},
        {"checks": 6, "checks_refunded": 6},
        {"checking_until": ahead(hours=9)},
    ],
)
def test_a_check_is_refused(make, user, fields):
    row = make("sent", **fields)
    assert rows.take_check(row.pk, user.pk) is None


def test_a_refunded_check_can_be_made_again(make, user):
    row = make("sent", checks=3, checks_refunded=1)
    assert rows.take_check(row.pk, user.pk).checks == 4


def test_a_check_is_taken_of_one_row_only(make, user):
    other = make("sent")
    rows.take_check(make("sent").pk, user.pk)
    other.refresh_from_db()
    assert other.checks == 0


def test_nobody_checks_a_strangers_row(make, django_user_model):
    stranger = django_user_model.objects.create_user("rasa")
    row = make("sent")
    assert rows.take_check(row.pk, stranger.pk) is None
    assert rows.take_check(row.pk, None) is None


def test_the_row_of_a_deleted_user_belongs_to_nobody(make, user):
    row = make("sent")
    pk = user.pk
    user.delete()
    assert rows.take_check(row.pk, pk) is None
    assert rows.take_check(row.pk, None) is None


def test_an_anonymous_row_belongs_to_any_holder_of_its_id(make, user):
    row = make("sent", user=None, is_anonymous=True)
    assert rows.owned_by(None).get() == row
    assert rows.owned_by(user.pk).get() == row


def test_an_anonymous_row_that_got_a_user_is_the_users(make, user, django_user_model):
    stranger = django_user_model.objects.create_user("rasa")
    make("sent", user=user, is_anonymous=True)
    assert rows.owned_by(user.pk).exists()
    assert not rows.owned_by(stranger.pk).exists()
    assert not rows.owned_by(None).exists()


# T8 verified


@pytest.mark.parametrize("status", ["sent", "expired", "locked"])
def test_a_true_verifies(make, status):
    row = make(status, checking_until=ahead(seconds=9))
    assert rows.mark_verified(row)
    row.refresh_from_db()
    assert (row.status, row.is_verified, row.checking_until) == ("verified", True, None)
    assert row.verified_at == row.announce_at


@pytest.mark.parametrize("status", ["queued", "sending", "verified", "failed"])
def test_a_true_verifies_no_other_state(make, status):
    row = make(status, request_id="r" * 32)
    assert not rows.mark_verified(row)


def test_a_true_verifies_its_own_request_id_only(make):
    row = make("sent")
    row.request_id = "x" * 32
    assert not rows.mark_verified(row)


def test_a_true_verifies_its_own_row_only(make):
    row = make("sent")
    row.pk = uuid.uuid4()
    assert not rows.mark_verified(row)


def test_verified_says_when_and_nothing_else_may(make):
    row = make("sent")
    with pytest.raises(IntegrityError), transaction.atomic():
        rows.filter(pk=row.pk).update(is_verified=True)
    with pytest.raises(IntegrityError), transaction.atomic():
        rows.filter(pk=row.pk).update(status="verified")


# T9 wrong, T10 refund

COUNTERS = {"mark_wrong": "checks_wrong", "refund_check": "checks_refunded"}


@pytest.mark.parametrize("move", COUNTERS)
def test_a_judged_or_refunded_check_is_counted(make, user, move):
    row = rows.take_check(make("sent").pk, user.pk)
    assert getattr(rows, move)(row)
    row.refresh_from_db()
    assert (getattr(row, COUNTERS[move]), row.checking_until) == (1, None)


def test_a_lost_check_stays_spent(make, user):
    row = rows.take_check(make("sent").pk, user.pk)
    assert rows.lose_check(row)
    row.refresh_from_db()
    assert (row.checks, row.checking_until, row.has_lost_check) == (1, None, True)


@pytest.mark.parametrize("move", COUNTERS)
def test_a_check_that_is_over_is_not_counted_again(make, user, move):
    row = rows.take_check(make("sent").pk, user.pk)
    getattr(rows, move)(row)
    assert not getattr(rows, move)(row)


@pytest.mark.parametrize("move", COUNTERS)
def test_a_later_check_is_not_mine(make, move):
    row = make("sent", checks=2, checking_until=ahead(seconds=9))
    row.checks = 1
    assert not getattr(rows, move)(row)


@pytest.mark.parametrize("move", COUNTERS)
def test_a_check_counts_for_its_own_row_only(make, move):
    other, row = (
        make("sent", checks=1, checking_until=ahead(seconds=9)) for _ in range(2)
    )
    assert getattr(rows, move)(row)
    other.refresh_from_db()
    assert other.checking_until is not None


@pytest.mark.parametrize("move", COUNTERS)
@pytest.mark.parametrize("status", ["verified", "expired", "locked"])
def test_a_check_of_an_ended_row_is_not_counted(make, move, status):
    row = make(status, checks=1, checking_until=ahead(seconds=9))
    assert not getattr(rows, move)(row)


# T12 announce


def due(make, **fields):
    return make("verified", announce_at=ago(seconds=1), **fields)


@pytest.mark.parametrize(
    ("attempts", "minutes"), [(0, 1), (1, 2), (5, 32), (11, 1440), (60, 1440)]
)
def test_an_announcement_is_taken_with_a_growing_pause(make, attempts, minutes):
    row = rows.take_announcement(due(make, announce_attempts=attempts).pk)
    assert row.announce_attempts == attempts + 1
    pause = row.announce_at - timezone.now()
    assert timedelta(minutes=minutes) - SECOND < pause <= timedelta(minutes=minutes)


def test_an_announcement_is_taken_once(make):
    row = due(make)
    assert rows.take_announcement(row.pk)
    assert rows.take_announcement(row.pk) is None


def test_an_announced_row_is_not_announced_again(make):
    row = due(make, announced_at=ago(seconds=1))
    assert rows.take_announcement(row.pk) is None


def test_only_verified_rows_are_announced(make):
    row = make("sent", announce_at=ago(seconds=1))
    assert rows.take_announcement(row.pk) is None


def test_one_row_is_announced_at_a_time(make):
    other, row = due(make), due(make)
    rows.take_announcement(row.pk)
    other.refresh_from_db()
    assert other.announce_attempts == 0


def test_an_announcement_waits_by_its_own_row(make):
    first, second = uuid.UUID(int=1), uuid.UUID(int=2)
    due(make, pk=first, announce_attempts=9)
    due(make, pk=second)
    row = rows.take_announcement(second)
    assert row.announce_at - timezone.now() < timedelta(minutes=2)


def test_the_first_announcement_is_the_one_that_is_noted(make):
    row, other = due(make), due(make)
    assert rows.mark_announced(row)
    assert not rows.mark_announced(row)
    other.refresh_from_db()
    assert other.announced_at is None


# What a row says of itself


@pytest.mark.parametrize(
    ("status", "fields", "left"),
    [
        ("sent", {}, 3),
        ("sent", {"checks": 2}, 1),
        ("sent", {"checks": 2, "checks_refunded": 1}, 2),
        ("sent", {"checks": 5, "checks_refunded": 4}, 1),
        ("sent", {"checks": 4, "checks_refunded": 4}, 2),
        ("sent", {"checks": 3}, 0),
        ("queued", {}, 0),
        ("locked", {"checks": 3}, 0),
        ("verified", {"checks": 1}, 0),
    ],
)
def test_checks_left(make, status, fields, left):
    assert make(status, **fields).checks_left == left


@pytest.mark.parametrize(
    ("status", "fields", "spent"),
    [
        ("queued", {}, False),
        ("sent", {}, False),
        ("sent", {"checks": 2, "checks_wrong": 2}, False),
        ("sent", {"checks": 1, "checks_refunded": 1}, False),
        ("sent", {"checks": 1}, False),
        ("sent", {"checks": 2, "checks_wrong": 1}, True),
        (
            "sent",
            {"checks": 2, "checks_wrong": 1, "checking_until": ahead(hours=9)},
            False,
        ),
        ("verified", {"checks": 2, "checks_wrong": 1}, False),
        ("failed", {}, True),
        ("expired", {}, True),
        ("locked", {}, True),
    ],
)
def test_code_spent(make, status, fields, spent):
    assert make(status, **fields).code_spent is spent


@pytest.mark.parametrize(
    ("status", "failure", "counts"),
    [
        ("queued", "", True),
        ("sent", "", True),
        ("failed", "unknown", True),
        ("failed", "number_refused", True),
        ("failed", "account", False),
        ("failed", "unreachable", False),
        ("failed", "rate_limited", False),
        ("failed", "too_late", False),
    ],
)
def test_what_was_or_may_have_been_sent_is_counted(make, status, failure, counts):
    row = make(status, failure=failure)
    assert (rows.counted().exists(), row.is_counted) == (counts, counts)


def test_verified_rows_are_found_by_user_and_number(make, user, django_user_model):
    make("verified")
    stranger = django_user_model.objects.create_user("rasa")
    verified = rows.verified
    assert verified(user=user, phone_number="+37061234567").exists()
    assert not verified(user=user, phone_number="+37061234568").exists()
    assert not verified(user=stranger, phone_number="+37061234567").exists()


def test_nobody_has_no_verified_rows(make):
    make("verified", user=None)
    nobody = AnonymousUser()
    assert not rows.verified(user=nobody, phone_number="+37061234567").exists()


def test_an_unproven_row_is_not_verified(make, user):
    make("sent")
    assert not rows.verified(user=user, phone_number="+37061234567").exists()
