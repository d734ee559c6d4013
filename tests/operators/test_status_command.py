"""idenfy_phone_status reports how sending goes; it exits with 1 when help is needed."""

import json
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from django_idenfy_phone import tallies
from django_idenfy_phone.models import PhoneVerification, ProviderGate, RegionBrake
from django_idenfy_phone.records import Heartbeat
from django_idenfy_phone.testing import age

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("wire")]
HOUR = timedelta(hours=1)


@pytest.fixture
def ran(clock):
    """Store when sweep and delivery last ran, each some minutes ago."""

    def ran(**minutes):
        for name, ago in minutes.items():
            beat_at = clock.now - timedelta(minutes=ago)
            Heartbeat.objects.create(name=name, beat_at=beat_at)

    return ran


def run_status(capsys, *options):
    """Return the exit status and the printed lines."""
    try:
        call_command("idenfy_phone_status", *options)
        exit_status = 0
    except SystemExit as error:
        exit_status = error.code
    return exit_status, capsys.readouterr().out.splitlines()


def test_exit_status_is_0_without_rows(capsys):
    assert run_status(capsys) == (
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


def test_last_hour_is_counted_by_outcome(make, ran, capsys):
    ran(sweep=0, delivery=0)
    for status in ("sent", "sent", "verified", "locked"):
        make(status)
    make("failed", failure="unknown")
    age(make("expired"), HOUR)
    exit_status, lines = run_status(capsys)
    assert lines[8:] == [
        "Last hour: locked: 1",
        "Last hour: sent: 2",
        "Last hour: unknown: 1",
        "Last hour: verified: 1",
    ]
    assert exit_status == 0


def test_exit_status_is_1_when_a_row_waits_too_long(make, clock, capsys):
    age(make("queued"), timedelta(seconds=90))
    make("queued")
    exit_status, lines = run_status(capsys)
    assert lines[:3] == ["Queued: 2", "Oldest queued for: 90 s", "Oldest due for: 90 s"]
    assert (exit_status, lines[-1][:22]) == (1, "A row waits too long: ")


def test_exit_status_is_0_when_no_row_is_overdue(make, clock, capsys):
    long_ago = timezone.now() - timedelta(seconds=100)
    due_at = timezone.now() + timedelta(seconds=30)
    make("queued", created_at=long_ago, next_send_at=due_at)
    exit_status, lines = run_status(capsys)
    assert lines[:3] == [
        "Queued: 1",
        "Oldest queued for: 100 s",
        "Oldest due for: 0 s",
    ]
    assert exit_status == 0


@pytest.mark.parametrize(("seconds", "exit_status"), [(60, 0), (106, 1)])
def test_exit_status_is_1_when_a_lease_is_overdue(make, capsys, seconds, exit_status):
    age(make("sending"), timedelta(seconds=seconds))
    assert run_status(capsys)[0] == exit_status


@pytest.mark.parametrize(("seconds", "exit_status"), [(30, 0), (61, 1)])
def test_exit_status_is_1_when_a_signal_is_overdue(make, capsys, seconds, exit_status):
    announce_at = timezone.now() - timedelta(seconds=seconds)
    make("verified", verified_at=timezone.now(), announce_at=announce_at)
    assert run_status(capsys)[0] == exit_status


def test_next_slot_tells_how_long_a_new_row_waits(capsys):
    arrival = timezone.now() + timedelta(seconds=19 + 60.9)
    ProviderGate.objects.create(theoretical_arrival_at=arrival)
    exit_status, lines = run_status(capsys)
    assert lines[1] in ("Next slot in: 61 s", "Next slot in: 60 s")
    assert exit_status == 0


def test_exit_status_is_1_without_an_api_key(capsys, settings):
    settings.IDENFY_PHONE_API_KEY = ""
    exit_status, lines = run_status(capsys)
    assert (exit_status, lines[-1][:30]) == (1, "The API key or secret is not s")


def test_exit_status_is_1_when_idenfy_refuses_the_account(capsys):
    until = timezone.now() + timedelta(seconds=50.9)
    ProviderGate.objects.create(account_faults=1, account_paused_until=until)
    exit_status, lines = run_status(capsys)
    assert lines[3] in ("Account paused: 51 s", "Account paused: 50 s")
    assert (exit_status, lines[-1][:27]) == (1, "iDenfy refuses the account:")


def test_exit_status_is_1_when_rows_were_too_late(make, capsys):
    make("failed", failure="too_late")
    exit_status, lines = run_status(capsys)
    assert (exit_status, lines[-1][:22]) == (1, "Rows were not sent in ")


def test_exit_status_is_0_until_a_crash_of_confirm_is_repaired(make, ran, capsys):
    ran(sweep=0)
    row = make("sent")
    PhoneVerification.objects.mark_verified(row, timezone.now())
    age(row, timedelta(minutes=2.5))
    assert run_status(capsys)[0] == 0


@pytest.fixture
def unannounced(make, ran):
    """Store a proof whose receiver fails."""

    def unannounced(**fields):
        ran(sweep=0, delivery=0)
        times = dict.fromkeys(("verified_at", "announce_at"), timezone.now())
        return make("verified", **times | fields)

    return unannounced


@pytest.mark.parametrize(("minutes", "expected"), [(4.9, 0), (5, 1), (2000, 1)])
def test_exit_status_is_1_when_receivers_fail_for_minutes(
    unannounced, capsys, minutes, expected
):
    later = timezone.now() + timedelta(days=2)
    age(unannounced(announce_at=later), timedelta(minutes=minutes))
    exit_status, lines = run_status(capsys)
    assert exit_status == expected
    assert lines[-1].startswith("A proof was not announced") == expected


def test_failure_is_named_though_that_of_an_earlier_proof_is_not_known(
    unannounced, make, capsys
):
    failure, at = "shop.receivers.remember (ValueError)", timezone.now()
    later = {"announce_at": at + timedelta(minutes=9), "announce_failure": failure}
    rows = unannounced(), make("verified", verified_at=at, **later)
    for row in rows:
        age(row, timedelta(minutes=5))
    assert f"Not announced: {failure}" in run_status(capsys)[1]


def test_receiver_that_fails_for_minutes_is_named(unannounced, capsys):
    failure = "shop.receivers.remember (ValueError)"
    row = unannounced(announce_failure=failure)
    assert failure not in str(run_status(capsys))
    age(row, timedelta(minutes=5))
    assert f"Not announced: {failure}" in run_status(capsys)[1]
    [line] = run_status(capsys, "--json")[1]
    assert json.loads(line)["announce_failure"] == failure


def test_erased_proof_is_missed_by_nobody(unannounced, capsys):
    row = unannounced(announce_at=None, erased_at=timezone.now())
    age(row, timedelta(minutes=5))
    assert run_status(capsys)[0] == 0


@pytest.mark.parametrize("failure", ["unknown", "rate_limited", "unreachable"])
@pytest.mark.parametrize(
    ("others", "expected"), [([], 0), (["failed"], 1), (["failed", "sent"], 0)]
)
def test_exit_status_is_1_when_all_sends_fail(make, capsys, failure, others, expected):
    for status in ["failed", "failed", *others]:
        make(status, failure=failure if status == "failed" else "")
    exit_status, lines = run_status(capsys)
    assert exit_status == expected
    assert lines[-1].startswith("No send succeeded") == expected


def test_pause_written_by_a_wrong_clock_is_not_reported(capsys):
    ProviderGate.objects.create(sends_paused_until=timezone.now() + HOUR)
    exit_status, lines = run_status(capsys)
    assert (exit_status, lines[2]) == (0, "Sends paused: no")


def test_heartbeats_are_shown(ran, capsys):
    ran(sweep=0.2, delivery=3)
    exit_status, lines = run_status(capsys)
    assert lines[6:] == ["Last sweep: 12 s ago", "Last delivery: 180 s ago"]
    assert exit_status == 0


SWEEP, DELIVERY = "No sweep ran for 2 minutes: ", "No worker sent or answered f"


@pytest.mark.parametrize(
    ("minutes", "trouble"),
    [
        ({"sweep": 2}, None),
        ({"sweep": 2.1}, SWEEP),
        ({"sweep": 1, "delivery": 10}, None),
        ({"sweep": 1, "delivery": 10.1}, DELIVERY),
        # Nobody asks the worker.
        ({"delivery": 600}, None),
        ({"sweep": 600, "delivery": 600}, SWEEP),
    ],
)
def test_exit_status_is_1_when_a_heartbeat_is_missing(ran, capsys, minutes, trouble):
    ran(**minutes)
    exit_status, lines = run_status(capsys)
    assert exit_status == bool(trouble)
    assert trouble is None or lines[-1].startswith(trouble)


@pytest.mark.parametrize(
    ("minutes", "beats", "trouble"),
    [
        (2, {}, None),
        (2.1, {}, SWEEP),
        (10, {"sweep": 1}, None),
        (10.1, {"sweep": 1}, DELIVERY),
        (10.1, {"sweep": 3}, SWEEP),
    ],
)
def test_what_never_ran_is_missed_once_something_was_started(
    make, ran, capsys, minutes, beats, trouble
):
    ran(**beats)
    age(make("sent"), timedelta(minutes=minutes))
    exit_status, lines = run_status(capsys)
    assert exit_status == bool(trouble)
    assert trouble is None or lines[-1].startswith(trouble)


def test_status_takes_four_statements(make, ran, capsys, django_assert_num_queries):
    make("sent")
    ran(sweep=1)
    with django_assert_num_queries(4):
        run_status(capsys)


@pytest.mark.parametrize(("minutes", "expected"), [(0, 1), (39, 1), (40, 0)])
@pytest.mark.parametrize("kind", ["block", "site"])
def test_exit_status_is_1_when_a_limit_of_many_refuses(
    clock, capsys, kind, minutes, expected
):
    clock.now = clock.now.replace(minute=30, second=0, microsecond=0)
    tallies.note_refusal(kind, "LT", "")
    clock.move(timedelta(minutes=minutes))
    exit_status, lines = run_status(capsys)
    assert exit_status == expected
    assert ("refuses starts: " in lines[-1]) == expected


@pytest.mark.parametrize(("minutes", "expected"), [(1, 1), (-1, 0)])
def test_exit_status_is_1_while_a_brake_is_engaged(capsys, minutes, expected):
    until = timezone.now() + timedelta(minutes=minutes)
    RegionBrake.objects.create(region="LT", engaged_until=until)
    assert run_status(capsys)[0] == expected


def test_limit_of_one_number_is_no_problem(capsys):
    tallies.note_refusal("number", "LT", "")
    assert run_status(capsys)[0] == 0


ENDS = "number_refused account rate_limited unreachable unknown too_late"
NONE = dict.fromkeys(f"queued sending sent verified expired locked {ENDS}".split(), 0)


def test_json_has_every_key_without_rows(capsys):
    exit_status, [line] = run_status(capsys, "--json")
    assert json.loads(line) == {
        "queued": 0,
        "oldest_queued": None,
        "oldest_due": None,
        "next_slot_in": 0,
        "pauses": {"sends": 0, "account": 0, "checks": 0},
        "account_faults": 0,
        "heartbeats": {"sweep": None, "delivery": None},
        "announce_failure": "",
        "last_hour": NONE,
        "troubles": [],
    }
    assert exit_status == 0


def test_json_tells_the_same_as_the_text(make, ran, capsys):
    age(make("queued"), timedelta(seconds=90))
    make("failed", failure="unknown")
    ran(sweep=3, delivery=4.5)
    exit_status, [line] = run_status(capsys, "--json")
    found = json.loads(line)
    assert (found["queued"], found["oldest_queued"], found["oldest_due"]) == (1, 90, 90)
    assert found["heartbeats"] == {"sweep": 180, "delivery": 270}
    assert found["last_hour"] == NONE | {"queued": 1, "unknown": 1}
    assert found["troubles"] == ["queue", "sweep"]
    assert exit_status == 1
