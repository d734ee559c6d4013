from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from django_idenfy_phone.models import ProviderGate
from django_idenfy_phone.testing import age

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("wire")]
HOUR = timedelta(hours=1)


def status(capsys):
    """Exit status and lines."""
    try:
        call_command("idenfy_phone_status")
        code = 0
    except SystemExit as error:
        code = error.code
    return code, capsys.readouterr().out.splitlines()


def test_nothing_to_say(capsys):
    assert status(capsys) == (
        0,
        [
            "Queued: 0",
            "Next slot in: 0 s",
            "Sends paused: no",
            "Account paused: no",
            "Checks paused: no",
            "Account faults in a row: 0",
        ],
    )


def test_the_last_hour_is_counted_by_outcome(make, capsys):
    for state in ("sent", "sent", "verified", "locked"):
        make(state)
    make("failed", failure="unknown")
    age(make("expired"), HOUR)
    code, lines = status(capsys)
    assert lines[6:] == [
        "Last hour: locked: 1",
        "Last hour: sent: 2",
        "Last hour: unknown: 1",
        "Last hour: verified: 1",
    ]
    assert code == 0


def test_a_queue_that_nobody_works_needs_a_person(make, clock, capsys):
    age(make("queued"), timedelta(seconds=90))
    make("queued")
    code, lines = status(capsys)
    assert lines[:3] == ["Queued: 2", "Oldest queued for: 90 s", "Oldest due for: 90 s"]
    assert (code, lines[-1][:22]) == (1, "A row waits too long: ")


def test_a_short_queue_needs_nobody(make, clock, capsys):
    long_ago = timezone.now() - timedelta(seconds=100)
    due_at = timezone.now() + timedelta(seconds=30)
    make("queued", created_at=long_ago, next_send_at=due_at)
    code, lines = status(capsys)
    assert lines[:3] == [
        "Queued: 1",
        "Oldest queued for: 100 s",
        "Oldest due for: 0 s",
    ]
    assert code == 0


@pytest.mark.parametrize(("seconds", "code"), [(60, 0), (106, 1)])
def test_a_lease_that_nobody_ends_needs_a_person(make, capsys, seconds, code):
    age(make("sending"), timedelta(seconds=seconds))
    assert status(capsys)[0] == code


@pytest.mark.parametrize(("seconds", "code"), [(30, 0), (61, 1)])
def test_a_signal_that_nobody_sends_needs_a_person(make, capsys, seconds, code):
    announce_at = timezone.now() - timedelta(seconds=seconds)
    make("verified", verified_at=timezone.now(), announce_at=announce_at)
    assert status(capsys)[0] == code


def test_the_next_slot_tells_how_long_a_new_row_waits(capsys):
    next_slot_at = timezone.now() + timedelta(seconds=19 + 60.9)
    ProviderGate.objects.create(next_slot_at=next_slot_at)
    code, lines = status(capsys)
    assert lines[1] in ("Next slot in: 61 s", "Next slot in: 60 s")
    assert code == 0


def test_a_missing_key_needs_a_person(capsys, settings):
    settings.IDENFY_PHONE_API_KEY = ""
    code, lines = status(capsys)
    assert (code, lines[-1][:30]) == (1, "The API key or secret is not s")


def test_a_broken_account_needs_a_person(capsys):
    until = timezone.now() + timedelta(seconds=50.9)
    ProviderGate.objects.create(account_faults=1, account_paused_until=until)
    code, lines = status(capsys)
    assert lines[3] in ("Account paused: 51 s", "Account paused: 50 s")
    assert (code, lines[-1][:27]) == (1, "iDenfy refuses the account:")


def test_rows_that_came_too_late_need_a_person(make, capsys):
    make("failed", failure="too_late")
    code, lines = status(capsys)
    assert (code, lines[-1][:22]) == (1, "Rows were not sent in ")


@pytest.mark.parametrize(("days", "code"), [(0.9, 0), (1.1, 1)])
def test_receivers_that_fail_for_a_day_need_a_person(make, capsys, days, code):
    row = make("verified", verified_at=timezone.now())
    age(row, timedelta(days=days))
    assert status(capsys)[0] == code


@pytest.mark.parametrize("failure", ["unknown", "rate_limited", "unreachable"])
@pytest.mark.parametrize(
    ("others", "code"), [([], 0), (["failed"], 1), (["failed", "sent"], 0)]
)
def test_sends_that_all_fail_need_a_person(make, capsys, failure, others, code):
    for status_ in ["failed", "failed", *others]:
        make(status_, failure=failure if status_ == "failed" else "")
    found, lines = status(capsys)
    assert found == code
    assert lines[-1].startswith("No send succeeded") == code


def test_a_pause_that_a_wrong_clock_wrote_is_not_told(capsys):
    ProviderGate.objects.create(sends_paused_until=timezone.now() + HOUR)
    code, lines = status(capsys)
    assert (code, lines[2]) == (0, "Sends paused: no")
