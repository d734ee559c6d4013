from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from django_idenfy_phone.models import ProviderGate
from django_idenfy_phone.testing import age

pytestmark = pytest.mark.django_db
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
    assert lines[5:] == [
        "Last hour: locked: 1",
        "Last hour: sent: 2",
        "Last hour: unknown: 1",
        "Last hour: verified: 1",
    ]
    assert code == 0


def test_a_queue_that_nobody_works_needs_a_person(make, capsys):
    make("queued")
    age(make("queued"), timedelta(seconds=90))
    code, lines = status(capsys)
    assert lines[:2] == ["Queued: 2", "Oldest due for: 90 s"]
    assert (code, lines[-1][:22]) == (1, "A row waits too long: ")


def test_a_short_queue_needs_nobody(make, capsys):
    make("queued", next_send_at=timezone.now() + timedelta(seconds=30))
    code, lines = status(capsys)
    assert (code, lines[:2]) == (0, ["Queued: 1", "Oldest due for: 0 s"])


def test_a_broken_account_needs_a_person(capsys):
    until = timezone.now() + timedelta(seconds=50.9)
    ProviderGate.objects.create(account_faults=1, account_paused_until=until)
    code, lines = status(capsys)
    assert lines[2] in ("Account paused: 51 s", "Account paused: 50 s")
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
