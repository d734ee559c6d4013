"""The page of one attempt tells its story, and what to tell the customer."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from django_idenfy_phone import services
from django_idenfy_phone.admin import timeline, words
from django_idenfy_phone.admin.advice import advice
from django_idenfy_phone.signals import phone_verified
from django_idenfy_phone.statuses import Failure, Status
from support.constants import NUMBER
from support.steps import MASKED_NUMBER, named_cases
from support.wire import answer

pytestmark = pytest.mark.django_db

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def page_of(client, row):
    url = reverse("admin:django_idenfy_phone_phoneverification_change", args=[row.pk])
    response = client.get(url)
    assert response.status_code == 200
    return response.content.decode()


def reveal_url(row):
    name = "admin:django_idenfy_phone_phoneverification_full_number"
    return reverse(name, args=[row.pk])


@pytest.fixture
def noon(clock, settings):
    settings.TIME_ZONE = "UTC"
    clock.now = datetime(2026, 11, 30, 12, tzinfo=UTC)
    return clock


def seconds(gap):
    return None if gap is None else round(gap / SECOND, 3)


@pytest.fixture
def story(make, noon):
    """Return the steps of a row as texts; its times are seconds after noon."""

    def story(status, **fields):
        fields = {
            name: noon.now + value * SECOND if name.endswith("_at") else value
            for name, value in fields.items()
        }
        row = make(status, **fields)
        steps = timeline.steps(row, noon.now)
        return [
            (text, at and (at - noon.now) / SECOND, seconds(gap))
            for text, at, gap in steps
        ]

    return story


QUEUED = ("Started, and put in the queue", 0, None)
CLAIMED = ("Claimed by a worker", 0.5, 0.5)
SENT = ("Handed to iDenfy, which accepted it", 1.7, 1.2)
SENDS = {"claimed_at": 0.5, "sent_at": 1.7}
VERIFIED = ("Verified: iDenfy said that the code is right", 60, 58.3)
NOT_TOLD = ("Not yet told to the site: tried 3 times", None, None)
FAILURE = "shop.receivers.remember (ValueError)"
RUNS = (
    "Nothing failed in the last try so far: a receiver runs or hangs, or its process "
    "ended"
)
PROVEN = SENDS | {"verified_at": 60}
STORIES = {
    "queued": ("queued", {}, [QUEUED, ("Waits for a worker", None, None)]),
    "waits": (
        "queued",
        {"claimed_at": 0.5, "send_attempts": 1, "next_send_at": 10},
        [QUEUED, CLAIMED, ("Next try to send", 10, 9.5)],
    ),
    "tried again": (
        "sending",
        {"claimed_at": 4, "send_attempts": 2},
        [QUEUED, ("Claimed by a worker, try 2", 4, 4)],
    ),
    "refused": (
        "failed",
        {"failure": "number_refused", "claimed_at": 0.5},
        [QUEUED, CLAIMED, ("Failed: number refused by iDenfy", None, None)],
    ),
    "wrong codes": (
        "sent",
        SENDS | {"checks": 3, "checks_wrong": 1, "checks_refunded": 1},
        [
            *(QUEUED, CLAIMED, SENT, ("1 wrong code", None, None)),
            ("1 check given back: iDenfy did not judge it", None, None),
            ("iDenfy's answer to a check was lost", None, None),
        ],
    ),
    "locked": (
        "locked",
        SENDS | {"checks": 3, "checks_wrong": 3},
        [
            *(QUEUED, CLAIMED, SENT, ("3 wrong codes", None, None)),
            ("Locked: no checks are left", None, None),
        ],
    ),
    "expired": (
        "expired",
        SENDS | {"expires_at": 600.5},
        [
            *(QUEUED, CLAIMED, SENT),
            ("Expired: no right code came in time", 600.5, 598.8),
        ],
    ),
    "told": (
        "verified",
        PROVEN | {"announced_at": 60.1, "announce_attempts": 1, "number_taken": False},
        [
            *(QUEUED, CLAIMED, SENT, VERIFIED),
            ("Kept as the number of the user's account", None, None),
            ("Told to the site", 60.1, 0.1),
        ],
    ),
    "told late, and redeemed": (
        "verified",
        PROVEN | {"announced_at": 180, "announce_attempts": 2, "redeemed_at": 240},
        [
            *(QUEUED, CLAIMED, SENT, VERIFIED),
            ("Told to the site, at try 2", 180, 120),
            ("Proof redeemed", 240, 60),
        ],
    ),
    "not told": (
        "verified",
        PROVEN | {"announce_attempts": 3, "announce_at": 500},
        [
            *(QUEUED, CLAIMED, SENT, VERIFIED, NOT_TOLD, (RUNS, None, None)),
            ("Next try to tell it", 500, 440),
        ],
    ),
    "receiver failed": (
        "verified",
        PROVEN
        | {"announce_attempts": 3, "announce_at": 500}
        | {"announce_failure": FAILURE},
        [
            *(QUEUED, CLAIMED, SENT, VERIFIED, NOT_TOLD),
            (f"Failed in the last try: {FAILURE}", None, None),
            ("Next try to tell it", 500, 440),
        ],
    ),
    "taken": (
        "verified",
        PROVEN | {"announced_at": 60.1, "announce_attempts": 1, "number_taken": True},
        [
            *(QUEUED, CLAIMED, SENT, VERIFIED),
            ("Not kept: another account holds this number", None, None),
            ("Nobody to tell: the site was not called", 60.1, 0.1),
        ],
    ),
    "clock behind": (
        "sent",
        {"claimed_at": -2, "sent_at": -1},
        [
            *(QUEUED, ("Claimed by a worker", -2, 0)),
            ("Handed to iDenfy, which accepted it", -1, 1),
        ],
    ),
}


@pytest.mark.parametrize(("status", "fields", "expected"), **named_cases(STORIES))
def test_timeline_tells_what_happened(story, status, fields, expected):
    assert story(status, **fields) == expected


# What a sweep would write, before it did.
LATE = {
    "queued": ("queued", 3 * MINUTE, Failure.TOO_LATE),
    "sending": ("sending", 45 * SECOND, Failure.UNKNOWN),
    "sent": ("sent", 10 * MINUTE, Status.EXPIRED),
}


@pytest.mark.parametrize(("status", "later", "expected"), **named_cases(LATE))
def test_outcome_is_true_before_a_sweep(make, noon, status, later, expected):
    row = make(status)
    assert timeline.outcome(row, noon.now + later - SECOND) == status
    assert timeline.outcome(row, noon.now + later) == expected


def test_outcome_is_locked_where_no_check_is_left(make, noon):
    row = make("sent", checks=3, checks_wrong=3)
    assert timeline.outcome(row, noon.now) == Status.LOCKED


def test_time_of_a_late_row_is_its_deadline(make, noon):
    row = make("failed", failure="too_late", claimed_at=None)
    *_, last = timeline.steps(row, noon.now)
    assert last == ("Failed: not sent in time", row.send_by, 3 * MINUTE)


AGAIN = "ask for a new one on the site, from 2026-11-30 12:01:00 UTC on."
ADVICE = {
    "queued": ({}, "The code is on its way: please wait a moment."),
    "sending": ({}, "The code is on its way: please wait a moment."),
    "sent": (
        {},
        (
            "The code was sent at 2026-11-30 12:00:00 UTC: look at the phone. A call "
            "that reads the code may follow. It can be entered until 2026-11-30 "
            "12:10:00 UTC."
        ),
    ),
    "sent, spent": (
        {"checks": 2, "checks_wrong": 1},
        f"The code may be used up: {AGAIN}",
    ),
    "expired": ({}, f"The code has expired: {AGAIN}"),
    "locked": ({}, f"Too many wrong codes were entered: {AGAIN}"),
    "verified": (
        {"announced_at": timezone.now()},
        "The number is confirmed: nothing is left to do.",
    ),
    "verified, taken": (
        {"announced_at": timezone.now(), "number_taken": True},
        (
            "The number is confirmed, but another account holds it: it must be "
            "released there first, or another number used."
        ),
    ),
    "verified, not told": (
        {},
        (
            "The number is confirmed, but the site does not know it yet: wait. If that "
            "lasts, the operator must look at what failed, as told below."
        ),
    ),
    "failed, refused": (
        {"failure": "number_refused"},
        (
            "iDenfy refused this number, so no code comes: check the number, or use "
            "another one."
        ),
    ),
    "failed, account": (
        {"failure": "account"},
        (
            "No code comes, and the customer can do nothing: the operator must look at "
            "the site's key, contract and credits at iDenfy."
        ),
    ),
    "failed, rate": (
        {"failure": "rate_limited"},
        (
            f"iDenfy took no more requests from this site, so no code comes: {AGAIN} "
            "The operator must act if this happens often."
        ),
    ),
    "failed, unreachable": (
        {"failure": "unreachable"},
        (
            f"iDenfy could not be reached, so no code comes: {AGAIN} The operator "
            "must act if this happens often."
        ),
    ),
    "failed, unknown": (
        {"failure": "unknown"},
        f"A code may have come, but it cannot be confirmed: {AGAIN}",
    ),
    "failed, late": (
        {"failure": "too_late"},
        (
            f"The code could not be sent in time and does not come: {AGAIN} The "
            "operator must look at worker and sweep if this happens often."
        ),
    ),
}


@pytest.mark.parametrize("case", ADVICE)
def test_advice_for_each_state(make, noon, case):
    fields, expected = ADVICE[case]
    row = make(case.partition(",")[0], **fields)
    assert advice(row, noon.now, noon.now + MINUTE) == expected


def test_every_outcome_has_an_advice():
    told = {
        fields.get("failure") or case.partition(",")[0]
        for case, (fields, _) in ADVICE.items()
    }
    assert told == {*Status.values, *Failure.values} - {"failed"}


def test_advice_names_no_time_that_has_passed(make, noon):
    told = advice(make("expired"), noon.now, noon.now)
    assert told == "The code has expired: ask for a new one on the site."


DURATIONS = [
    (-SECOND, "0.0 s"),
    (1.23 * SECOND, "1.2 s"),
    (59.4 * SECOND, "59 s"),
    (59.6 * SECOND, "1 min 0 s"),
    (185 * SECOND, "3 min 5 s"),
    (123 * MINUTE, "2 h 3 min"),
    (timedelta(days=4, hours=1, minutes=59), "4 d 1 h"),
]


@pytest.mark.parametrize(("length", "text"), DURATIONS)
def test_durations_have_two_units_at_most(length, text):
    assert words.duration(length) == text


def test_times_are_shown_without_use_tz(settings):
    settings.USE_TZ, settings.TIME_ZONE = False, "UTC"
    assert words.moment(datetime(2026, 11, 30, 12)) == "2026-11-30 12:00:00 UTC"  # noqa: DTZ001


def test_attempt_page_tells_story_and_advice(admin_client, make, noon):
    row = make("failed", failure="account", provider_code="PARTNER_CONTRACT_ERROR")
    page = unescape(page_of(admin_client, row))
    assert "the operator must look at the site's key" in page
    assert "Failed: key, contract or credits: for the operator" in page
    assert "<td>PARTNER_CONTRACT_ERROR</td>" in page


def test_attempt_page_names_the_receiver_that_failed(
    admin_client, make, user, wire, caplog
):
    def remember(**kwargs):
        raise ValueError("told-by-ona")

    wire.will(answer(200, {"is_verified": True}))
    row = make("sent")
    phone_verified.connect(remember)
    services.confirm_verification(row.pk, "1234", user=user)
    phone_verified.disconnect(remember)
    page = unescape(page_of(admin_client, row))
    name = f"{__name__}.{remember.__qualname__}"
    assert f"Failed in the last try: {name} (ValueError)" in page
    assert "told-by-ona" not in page


def test_attempt_page_tells_when_to_ask_again(admin_client, make, noon):
    page = page_of(admin_client, make("expired"))
    assert "ask for a new one on the site, from 2026-11-30 12:01:00 UTC on." in page


def test_attempt_page_shows_no_next_send_before_the_start(admin_client, make, noon):
    new = make("queued", next_send_at=noon.now - 10 * MINUTE)
    retried = make("queued", next_send_at=noon.now + MINUTE)
    assert "Next send at" not in page_of(admin_client, new)
    assert "<td>2026-11-30 12:01:00 UTC</td>" in page_of(admin_client, retried)


def test_attempt_page_links_others_of_number_and_user(admin_client, make, admin_user):
    row = make("sent")
    of_number = make("expired", user=admin_user)
    of_user = make("locked", phone_number="+37061234568")
    stranger = make("sent", user=admin_user, phone_number="+37061234569")
    page = page_of(admin_client, row)
    assert f"/{of_number.pk}/change/" in page
    assert f"/{of_user.pk}/change/" in page
    assert f"/{stranger.pk}/change/" not in page
    assert f"/{row.pk}/change/" not in page


def test_attempt_page_lists_ten_others_at_most(admin_client, make):
    rows = [make("expired") for _ in range(12)]
    page = page_of(admin_client, rows[0])
    of_number = re.split("<h2>Other attempts of this (?:number|user)", page)[1]
    assert len(re.findall("<li><a href", of_number)) == 10
    assert "Only the newest are listed." in of_number


def test_attempt_page_has_neither_style_nor_script_in_its_markup(admin_client, make):
    page = page_of(admin_client, make("sent"))
    assert re.findall("<style|style=|<script>|onclick", page) == []


@pytest.fixture
def support(client, django_user_model):
    """Log somebody in who has only these permissions of ours."""

    def support(*codenames):
        user = django_user_model.objects.create_user("eva", is_staff=True)
        ours = Permission.objects.filter(content_type__app_label="django_idenfy_phone")
        user.user_permissions.set(ours.filter(codename__in=codenames))
        client.force_login(user)
        return client

    return support


VIEW, FULL = "view_phoneverification", "view_full_number"


def test_attempt_page_takes_few_statements(support, make):
    row, *_ = [make("expired") for _ in range(3)]
    client = support(VIEW, FULL)
    with CaptureQueriesContext(connection) as found:
        page_of(client, row)
    assert len(found) <= 12


def test_full_number_is_shown_on_request(support, make):
    row = make("sent")
    client = support(VIEW, FULL)
    assert f'formaction="{reveal_url(row)}"' in page_of(client, row)
    page = client.post(reveal_url(row)).content.decode()
    assert NUMBER in page


def test_full_number_is_written_down_masked(support, make, caplog):
    caplog.set_level("INFO", "django_idenfy_phone")
    row = make("sent")
    support(VIEW, FULL).post(reveal_url(row))
    entry = LogEntry.objects.get()
    assert (entry.user.username, entry.object_id) == ("eva", str(row.pk))
    assert entry.get_change_message() == f"Saw the full number {MASKED_NUMBER}"
    [record] = [r for r in caplog.records if r.name.startswith("django_idenfy_phone")]
    text = f"Verification {row.reference}: its full number was shown."
    assert (record.levelname, record.getMessage()) == ("INFO", text)


@pytest.mark.parametrize("permissions", [[VIEW], [FULL], []])
def test_full_number_needs_both_permissions(support, make, permissions):
    row = make("sent")
    response = support(*permissions).post(reveal_url(row))
    assert response.status_code == 403
    assert NUMBER not in response.content.decode()
    assert not LogEntry.objects.exists()


def test_button_is_missing_without_the_permission(support, make):
    row = make("sent")
    assert reveal_url(row) not in page_of(support(VIEW), row)


def test_full_number_is_not_shown_to_a_get(admin_client, make):
    response = admin_client.get(reveal_url(make("sent")))
    assert response.status_code == 405
    assert not LogEntry.objects.exists()


def test_full_number_needs_a_csrf_token(admin_user, make):
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    assert client.post(reveal_url(make("sent"))).status_code == 403
    assert not LogEntry.objects.exists()


def test_full_number_of_an_unknown_row_is_not_found(admin_client, make):
    row = make("sent")
    row.delete()
    row.pk = "00000000-0000-0000-0000-000000000007"
    assert admin_client.post(reveal_url(row)).status_code == 404
