"""Each term of each transition's WHERE is needed: without it, a test here fails."""

import uuid
from datetime import timedelta

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from django_idenfy_phone import delivery
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.statuses import Failure, Status
from support.constants import NUMBER
from support.steps import outcome

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


# T1 claim


def test_claim_leases_a_queued_row_for_45_seconds(make):
    row = delivery.claim(make("queued"))
    assert (row.status, row.send_attempts) == ("sending", 1)
    assert row.lease_until - row.claimed_at == timedelta(seconds=45)


@pytest.mark.parametrize("status", OTHERS["queued"])
def test_claim_takes_only_queued_rows(make, status):
    assert delivery.claim(make(status)) is None


def test_claim_takes_only_its_row(make):
    other = make("queued")
    delivery.claim(make("queued"))
    assert outcome(other) == "queued"


NOT_DUE = [
    {"next_send_at": ahead(hours=9)},
    {"send_by": ago(seconds=1)},
    {"send_attempts": 5},
]
CHANGED = [
    *NOT_DUE,
    *[
        {"status": status, "is_verified": status == "verified"}
        for status in OTHERS["queued"]
    ],
    {"send_attempts": 1},
    {"slot_reserved": True},
]


@pytest.mark.parametrize("fields", NOT_DUE)
def test_claim_takes_only_due_rows(make, fields):
    assert delivery.claim(make("queued", **fields)) is None
    assert not rows.due(timezone.now()).exists()


@pytest.mark.parametrize("fields", CHANGED)
@pytest.mark.parametrize("rate", ["1/s", None])
def test_claim_takes_no_row_that_changed_since_it_was_read(
    make, settings, fields, rate
):
    settings.IDENFY_PHONE_SEND_RATE = rate
    row = make("queued")
    rows.filter(pk=row.pk).update(**fields)
    assert delivery.claim(row) is None
    assert rows.filter(pk=row.pk, **fields).exists()


def test_claim_changes_the_row_as_it_is_stored(make):
    claimed = delivery.claim(make("queued"))
    stored = rows.values().get(pk=claimed.pk)
    assert {name: getattr(claimed, name) for name in stored} == stored


@pytest.mark.parametrize("change", ["wait_for_slot", "fail_as_late"])
def test_only_its_own_due_row_waits_or_fails(make, change):
    other, row = make("queued"), make("queued")
    times = [ahead(seconds=9)] * (change == "wait_for_slot") + [timezone.now(), Q()]
    assert getattr(rows, change)(row, *times)
    assert not getattr(rows, change)(row, *times)
    assert other == rows.due(timezone.now()).get()


# T2 sent


@pytest.mark.parametrize(
    ("status", "failure"), [("sending", ""), ("failed", "unknown")]
)
def test_mark_sent_starts_the_lifetime_of_the_code(make, status, failure):
    row = make(status, failure=failure)
    assert rows.mark_sent(row, "r" * 32)
    row.refresh_from_db()
    assert (row.status, row.failure, row.request_id) == ("sent", "", "r" * 32)
    assert row.expires_at == row.claimed_at + timedelta(minutes=10)


@pytest.mark.parametrize("status", OTHERS["sending"])
def test_mark_sent_changes_no_row_in_another_state(make, status):
    failure = "too_late" if status == "failed" else ""
    row = make(status, failure=failure, claimed_at=timezone.now(), send_attempts=1)
    assert not rows.mark_sent(row, "r" * 32)


def test_mark_sent_needs_the_failed_status_beside_the_failure(make):
    row = make("queued", failure="unknown", claimed_at=timezone.now())
    assert not rows.mark_sent(row, "r" * 32)


ATTEMPT_ENDINGS = {
    "mark_sent": ["r" * 32],
    "requeue": [timezone.now()],
    "fail": ["account", ""],
}


@pytest.mark.parametrize("transition", ATTEMPT_ENDINGS)
def test_only_the_newest_attempt_changes_the_row(make, transition):
    row = make("sending", send_attempts=2)
    row.send_attempts = 1
    assert not getattr(rows, transition)(row, *ATTEMPT_ENDINGS[transition])


@pytest.mark.parametrize("transition", ATTEMPT_ENDINGS)
def test_attempt_changes_only_its_own_row(make, transition):
    other, row = make("sending"), make("sending")
    assert getattr(rows, transition)(row, *ATTEMPT_ENDINGS[transition])
    assert outcome(other) == "sending"


def test_second_row_with_a_request_id_is_refused(make):
    first = make("sent")
    with pytest.raises(IntegrityError):
        rows.mark_sent(make("sending"), first.request_id)


# T3 requeue, T4 and T5 fail


def test_requeue_sets_the_next_send(make):
    row, moment = make("sending"), ahead(seconds=9)
    assert rows.requeue(row, moment)
    row.refresh_from_db()
    assert (row.status, row.next_send_at) == ("queued", moment)


@pytest.mark.parametrize("status", OTHERS["sending"])
def test_requeue_and_fail_change_only_sending_rows(make, status):
    row = make(status, send_attempts=1)
    assert not rows.requeue(row, timezone.now())
    assert not rows.fail(row, "account", "")


def test_fail_stores_failure_and_provider_code(make):
    row = make("sending")
    assert rows.fail(row, "account", "UNAUTHORIZED")
    row.refresh_from_db()
    assert (row.status, row.failure) == ("failed", "account")
    assert row.provider_code == "UNAUTHORIZED"


# T5, T6 and T11: settle


@pytest.mark.parametrize(
    ("status", "fields", "end"),
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
def test_settle_ends_late_rows(make, status, fields, end):
    row = make(status, **fields)
    failed = rows.settle()
    assert outcome(row) == end
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
def test_settle_changes_no_other_rows(make, status, fields):
    row = make(status, **fields)
    assert rows.settle() == []
    assert outcome(row) == status


def test_settle_slice_ends_rows_as_settle_does(make):
    failing = {make("queued", send_by=ago(seconds=1)).pk for _ in range(2)}
    failing.add(make("sending", lease_until=ago(seconds=1)).pk)
    ending = [make("sent", checks=3), make("sent", expires_at=ago(seconds=1))]
    kept = [make("queued"), make("sending"), make("sent"), make("verified")]
    ended, failed = rows.settle_slice()
    assert (ended, set(failed)) == (5, failing)
    assert [outcome(row) for row in ending] == ["locked", "expired"]
    assert [outcome(row) for row in kept] == ["queued", "sending", "sent", "verified"]
    assert rows.settle_slice() == (0, [])


def test_settle_slice_ends_at_most_500_rows_of_a_kind():
    late = ago(seconds=1)
    rows.bulk_create(
        PhoneVerification(phone_number=NUMBER, region="LT", send_by=late)
        for _ in range(501)
    )
    assert [rows.settle_slice()[0] for _ in range(3)] == [500, 1, 0]


def test_settle_returns_each_row_that_it_failed(make):
    late = {make("queued", send_by=ago(seconds=1)).pk for _ in range(2)}
    assert set(rows.settle()) == late


def test_settle_changes_only_the_rows_of_its_queryset(make):
    row, other = (make("queued", send_by=ago(seconds=1)) for _ in range(2))
    assert rows.filter(pk=row.pk).settle() == [row.pk]
    assert outcome(other) == "queued"


# T7 begin a check


def checking(row, user):
    """The stored row, after a check of it could begin."""
    assert rows.begin_check(row)
    return rows.get(pk=row.pk)


def test_begin_check_spends_a_check_for_20_seconds(make, user):
    row = checking(make("sent"), user)
    assert row.checks == 1
    left = row.checking_until - timezone.now()
    assert timedelta(seconds=19) < left <= timedelta(seconds=20)


def test_unanswered_check_blocks_the_next_for_20_seconds(make, user):
    row = make("sent", checks=1, checking_until=ago(seconds=1))
    assert checking(row, user).checks == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"expires_at": ago(seconds=0)},
        {"checks": 3},
        {"checks": 6, "checks_refunded": 6},
        {"checking_until": ahead(hours=9)},
        *[{"status": status} for status in OTHERS["sent"]],
    ],
)
def test_begin_check_refuses(make, fields):
    row = make(**{"expires_at": ahead(hours=9)} | fields)
    assert not rows.begin_check(row)


def test_refunded_check_can_be_used_again(make, user):
    row = make("sent", checks=3, checks_refunded=1)
    assert checking(row, user).checks == 4


@pytest.mark.parametrize(
    "fields",
    [
        {"checks": 1},
        {"checks_wrong": 1},
        {"checks_refunded": 1},
        {"checking_until": ago(seconds=1)},
        {"expires_at": ago(seconds=0)},
        {"user": None},
        *[{"status": s, "is_verified": s == "verified"} for s in OTHERS["sent"]],
    ],
)
def test_begin_check_needs_the_row_as_it_was_read(make, fields):
    row = make("sent")
    rows.filter(pk=row.pk).update(**fields)
    assert not rows.begin_check(row)
    assert rows.filter(pk=row.pk, **fields).exists()


def test_transition_changes_the_row_as_it_is_stored(make, user):
    row = make("sent")
    for transition in (
        lambda: rows.begin_check(row),
        lambda: rows.mark_wrong(row),
    ):
        assert transition()
        stored = rows.values().get(pk=row.pk)
        assert {name: getattr(row, name) for name in stored} == stored


def test_begin_check_changes_only_its_row(make, user):
    other = make("sent")
    checking(make("sent"), user)
    other.refresh_from_db()
    assert other.checks == 0


def test_row_belongs_to_no_other_user_and_no_visitor(make, user, django_user_model):
    stranger = django_user_model.objects.create_user("rasa")
    row = make("sent")
    assert row.is_shown_to(user.pk)
    assert not row.is_shown_to(stranger.pk)
    assert not row.is_shown_to(None)


@pytest.mark.parametrize("was_redeemed", [False, True])
def test_row_of_a_deleted_user_belongs_to_nobody(make, user, was_redeemed):
    """A redeemed row may have been an anonymous one."""
    redeemed = {"is_anonymous": True, "redeemed_at": timezone.now()}
    row = make("sent", **redeemed if was_redeemed else {})
    pk = user.pk
    user.delete()
    assert not rows.begin_check(row)
    row.refresh_from_db()
    assert not row.is_shown_to(pk)
    assert not row.is_shown_to(None)


def test_anonymous_row_belongs_to_anybody_with_its_id(make, user):
    row = make("sent", user=None, is_anonymous=True)
    assert row.is_shown_to(None)
    assert row.is_shown_to(user.pk)


# T8 verified


@pytest.mark.parametrize("status", ["sent", "expired", "locked"])
def test_mark_verified_verifies(make, status):
    row = make(status, checking_until=ahead(seconds=9))
    assert rows.mark_verified(row, timezone.now())
    row.refresh_from_db()
    assert (row.status, row.is_verified, row.checking_until) == ("verified", True, None)


def test_mark_verified_takes_the_first_announcement(make):
    row = make("sent")
    rows.mark_verified(row, timezone.now())
    row.refresh_from_db()
    assert row.announce_attempts == 1
    assert row.announce_at - row.verified_at == timedelta(minutes=2)
    assert rows.take_announcement(row.pk) is None


@pytest.mark.parametrize("status", ["queued", "sending", "verified", "failed"])
def test_mark_verified_changes_no_other_state(make, status):
    row = make(status, request_id="r" * 32)
    assert not rows.mark_verified(row, timezone.now())


def test_mark_verified_needs_the_same_request_id(make):
    row = make("sent")
    row.request_id = "x" * 32
    assert not rows.mark_verified(row, timezone.now())


def test_mark_verified_changes_only_its_row(make):
    row = make("sent")
    row.pk = uuid.uuid4()
    assert not rows.mark_verified(row, timezone.now())


def test_database_keeps_status_and_is_verified_equal(make):
    row = make("sent")
    with pytest.raises(IntegrityError), transaction.atomic():
        rows.filter(pk=row.pk).update(is_verified=True)
    with pytest.raises(IntegrityError), transaction.atomic():
        rows.filter(pk=row.pk).update(status="verified")


# T9 wrong, T10 refund

COUNTERS = {"mark_wrong": "checks_wrong", "refund_check": "checks_refunded"}


@pytest.mark.parametrize("transition", COUNTERS)
def test_judged_or_refunded_check_is_counted(make, user, transition):
    row = checking(make("sent"), user)
    assert getattr(rows, transition)(row)
    row.refresh_from_db()
    assert (getattr(row, COUNTERS[transition]), row.checking_until) == (1, None)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"checks": 1}, "sent"),
        ({"checks": 2}, "locked"),
        ({"checks": 2, "checks_refunded": 1}, "sent"),
        ({"checks": 5, "checks_refunded": 5}, "locked"),
    ],
)
def test_last_wrong_check_locks_the_row(make, user, fields, status):
    row = checking(make("sent", **fields), user)
    rows.mark_wrong(row)
    assert outcome(row) == status


def test_abandoned_check_stays_spent(make, user):
    row = checking(make("sent"), user)
    assert rows.abandon_check(row)
    row.refresh_from_db()
    assert (row.checks, row.checking_until, row.has_lost_check) == (1, None, True)


@pytest.mark.parametrize("transition", COUNTERS)
def test_finished_check_is_not_counted_again(make, user, transition):
    row = checking(make("sent"), user)
    getattr(rows, transition)(row)
    assert not getattr(rows, transition)(row)


@pytest.mark.parametrize("transition", COUNTERS)
def test_only_the_newest_check_is_counted(make, transition):
    row = make("sent", checks=2, checking_until=ahead(seconds=9))
    row.checks = 1
    assert not getattr(rows, transition)(row)


@pytest.mark.parametrize("transition", COUNTERS)
def test_check_is_counted_only_for_its_row(make, transition):
    other, row = (
        make("sent", checks=1, checking_until=ahead(seconds=9)) for _ in range(2)
    )
    assert getattr(rows, transition)(row)
    other.refresh_from_db()
    assert other.checking_until is not None


@pytest.mark.parametrize("transition", COUNTERS)
@pytest.mark.parametrize("status", ["verified", "expired", "locked"])
def test_check_of_an_ended_row_is_not_counted(make, transition, status):
    row = make(status, checks=1, checking_until=ahead(seconds=9))
    assert not getattr(rows, transition)(row)


# T12 announce


def due(make, **fields):
    return make("verified", announce_at=ago(seconds=1), **fields)


@pytest.mark.parametrize(
    ("attempts", "minutes"), [(0, 2), (1, 4), (4, 32), (10, 1440), (60, 1440)]
)
def test_pause_between_announcements_grows(make, attempts, minutes):
    row = rows.take_announcement(due(make, announce_attempts=attempts).pk)
    assert row.announce_attempts == attempts + 1
    pause = row.announce_at - timezone.now()
    assert timedelta(minutes=minutes) - SECOND < pause <= timedelta(minutes=minutes)


def test_pause_is_never_shorter_than_a_lease(make, clock):
    almost_a_day_ago = clock.now - timedelta(days=1) + SECOND
    row = rows.take_announcement(due(make, verified_at=almost_a_day_ago).pk)
    assert row.announce_at - clock.now == timedelta(minutes=2)


def test_announcement_is_taken_once(make):
    row = due(make)
    assert rows.take_announcement(row.pk)
    assert rows.take_announcement(row.pk) is None


def test_announced_row_is_not_announced_again(make):
    row = due(make, announced_at=ago(seconds=1))
    assert rows.take_announcement(row.pk) is None


def test_only_verified_rows_are_announced(make):
    row = make("sent", announce_at=ago(seconds=1))
    assert rows.take_announcement(row.pk) is None


def test_take_announcement_changes_only_its_row(make):
    other, row = due(make), due(make)
    rows.take_announcement(row.pk)
    other.refresh_from_db()
    assert other.announce_attempts == 0


def test_pause_grows_with_the_attempts_of_its_own_row(make):
    first, second = uuid.UUID(int=1), uuid.UUID(int=2)
    due(make, pk=first, announce_attempts=9)
    due(make, pk=second)
    row = rows.take_announcement(second)
    assert row.announce_at - timezone.now() <= timedelta(minutes=2)


def test_next_try_forgets_what_failed(make):
    row = rows.take_announcement(due(make, announce_failure="first").pk)
    assert row.announce_failure == ""
    row.refresh_from_db()
    assert row.announce_failure == ""


def test_failure_is_noted_at_its_own_row_and_cut(make):
    row, other = due(make, announce_attempts=1), due(make, announce_attempts=1)
    assert rows.note_announce_failure(row, "x" * 300)
    for each in (row, other):
        each.refresh_from_db()
    assert (row.announce_failure, other.announce_failure) == ("x" * 200, "")
    assert row.announced_at is None


def test_failure_of_an_older_try_is_not_noted(make):
    row = due(make, announce_attempts=1)
    rows.take_announcement(row.pk)
    assert not rows.note_announce_failure(row, "late")


def test_failure_is_not_noted_once_another_try_succeeded(make):
    row = due(make, announce_attempts=1)
    rows.mark_announced(row)
    assert not rows.note_announce_failure(row, "late")


def test_mark_announced_forgets_what_failed_in_another_try(make):
    row = due(make, announce_failure="late")
    assert rows.mark_announced(row)
    row.refresh_from_db()
    assert row.announce_failure == ""


def test_second_mark_announced_changes_nothing(make):
    row, other = due(make), due(make)
    assert rows.mark_announced(row)
    assert not rows.mark_announced(row)
    other.refresh_from_db()
    assert other.announced_at is None


# Properties of a row


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


@pytest.mark.parametrize("refunded", range(5))
@pytest.mark.parametrize("checks", range(8))
def test_begin_check_agrees_with_checks_left(make, user, checks, refunded):
    row = make("sent", checks=checks, checks_refunded=refunded)
    has_checks_left = row.checks_left > 0
    assert rows.begin_check(row) == has_checks_left


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
def test_sent_or_maybe_sent_row_is_counted(make, status, failure, counts):
    make(status, failure=failure)
    assert rows.counted().exists() is counts


@pytest.mark.parametrize(
    ("failure", "provider_code", "counts"),
    [
        ("account", "PARTNER_CONTRACT_ERROR", True),
        ("account", "", True),
        ("account", "UNAUTHORIZED", False),
        ("too_late", "", False),
        ("rate_limited", "TOO_MANY_REQUESTS", False),
    ],
)
def test_account_refusal_is_counted_on_request(make, failure, provider_code, counts):
    make("failed", failure=failure, provider_code=provider_code)
    assert rows.counted(with_account_refusals=True).exists() is counts


def test_verified_rows_are_found_by_user_and_number(make, user, django_user_model):
    make("verified")
    stranger = django_user_model.objects.create_user("rasa")
    verified = rows.verified
    assert verified(user=user, phone_number=NUMBER).exists()
    assert not verified(user=user, phone_number="+37061234568").exists()
    assert not verified(user=stranger, phone_number=NUMBER).exists()


def test_anonymous_user_has_no_verified_rows(make):
    make("verified", user=None)
    user = AnonymousUser()
    assert not rows.verified(user=user, phone_number=NUMBER).exists()


def test_unproven_row_is_not_verified(make, user):
    make("sent")
    assert not rows.verified(user=user, phone_number=NUMBER).exists()


# What a row knows of itself is what queries find


@pytest.mark.parametrize("with_account_refusals", [True, False])
@pytest.mark.parametrize("code", ["", "UNAUTHORIZED", "PARTNER_CONTRACT_ERROR"])
@pytest.mark.parametrize("failure", ["", *Failure.values])
@pytest.mark.parametrize("status", ["queued", "sent", "failed"])
def test_row_counts_as_the_query_tells(
    make, status, failure, code, with_account_refusals
):
    row = make(status, failure=failure, provider_code=code)
    found = rows.counted(with_account_refusals=with_account_refusals)
    known = row.is_counted(with_account_refusals=with_account_refusals)
    assert known == found.exists()


@pytest.mark.parametrize("status", Status.values)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"send_by": ago(seconds=0)},
        {"lease_until": ago(seconds=0)},
        {"expires_at": ago(seconds=0)},
        {"expires_at": ago(seconds=0), "checking_until": ahead(hours=9)},
        {"expires_at": ago(seconds=0), "checking_until": ago(seconds=0)},
        {"checks": 3},
        {"checks": 3, "checking_until": ahead(hours=9)},
        {"checks": 6, "checks_refunded": 6},
    ],
)
def test_row_is_late_as_settle_tells(make, status, fields):
    times = {"lease_until": ahead(hours=9), "expires_at": ahead(hours=9)}
    row = make(status, **times | fields)
    is_late = row.is_late(timezone.now())
    ended, _failed = rows.settle_slice()
    assert is_late == bool(ended)
