"""Support is told in words why a customer cannot start, and lifts the limits."""

from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from django_idenfy_phone.exceptions import NumberNotSupported
from django_idenfy_phone.explain import TEXTS
from django_idenfy_phone.models import ProviderGate, RegionBrake, StartLock
from support.constants import NUMBER
from support.steps import MASKED_NUMBER, start

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("wire")]

KINDS = ["number", "block", "user", "network", "site"]
NOTHING = "Nothing would refuse a start now."
UNBLOCKED = "Earlier sends no longer count."
SECOND = timedelta(seconds=1)


@pytest.fixture
def run(clock):
    """Run a command at noon in Vilnius. Return its exit status and its lines."""
    clock.now = datetime(2026, 7, 1, 9, 0, tzinfo=UTC)

    def run(name, *options):
        out, status = StringIO(), 0
        try:
            call_command(f"idenfy_phone_{name}", *options, stdout=out)
        except SystemExit as exit:
            status = exit.code
        return status, out.getvalue().splitlines()

    return run


def test_explain_says_that_nothing_would_refuse(run):
    assert run("explain", "--number", NUMBER) == (0, [MASKED_NUMBER, NOTHING])


def test_explain_tells_each_reason_with_its_end(run, make, clock, settings):
    settings.IDENFY_PHONE_SEND_LIMITS = {"number": ("1/10m",), "block": ("1/2h",)}
    ProviderGate.objects.create(account_paused_until=clock.now + 30 * SECOND)
    make("expired", created_at=clock.now - SECOND / 2)
    lines = """+370******67
iDenfy refuses the account, so all starts pause. Until {day} 12:00:30 EEST.
The number has a cooldown (sends of the last day: 1). Until {day} 12:01:00 EEST.
The limit of the number is reached: 1 of 1 sends in 10 minutes. \
Until {day} 12:10:00 EEST.
The limit of the number's block, 10,000 numbers, is reached: \
1 of 1 sends in 2 hours. Until {day} 14:00:00 EEST."""
    expected = lines.format(day="2026-07-01").splitlines()
    assert run("explain", "--number", "+370 612 34567") == (1, expected)


@pytest.mark.parametrize(
    ("window", "text"),
    [("90s", "90 seconds"), ("1s", "1 second"), ("h", "1 hour"), ("30d", "30 days")],
)
def test_window_of_a_limit_is_told_in_words(run, make, settings, window, text):
    settings.IDENFY_PHONE_SEND_LIMITS = {"site": (f"1/{window}",)}
    make("expired")
    [line] = run("explain", "--network", "9.9.9.9")[1]
    assert f": 1 of 1 sends in {text}." in line


def test_explain_tells_a_number_that_is_not_supported(run):
    line = "Numbers of the region FR are not in IDENFY_PHONE_REGIONS."
    assert run("explain", "--number", "+33612345678") == (1, ["+33*******78", line])
    line = "This is no valid phone number."
    assert run("explain", "--number", "+3706123") == (1, [line])


def test_explain_tells_that_the_key_is_missing(run, settings):
    settings.IDENFY_PHONE_API_SECRET = ""
    line = "The API key or secret is not set: every start is refused."
    assert run("explain", "--number", NUMBER) == (1, [MASKED_NUMBER, line])


@pytest.mark.parametrize("attribute", ["pk", "username"])
def test_user_is_found_by_key_and_by_login_name(run, user, make, settings, attribute):
    settings.IDENFY_PHONE_SEND_LIMITS = {"user": ("1/h",)}
    make("expired")
    name = str(getattr(user, attribute))
    assert run("explain", "--user", name)[0] == 1
    assert run("unblock", "--user", name) == (0, [UNBLOCKED, NOTHING])


def test_network_is_explained_and_unblocked_by_an_address(run, make, settings):
    settings.IDENFY_PHONE_SEND_LIMITS = {"network": ("1/h",)}
    make("expired", network="2606:4700:1:2::/64")
    assert run("explain", "--network", "2606:4700:1:2::7")[0] == 1
    done = run("unblock", "--network", "2606:4700:1:2::7")
    assert done == (0, [UNBLOCKED, NOTHING])


def test_unblock_says_what_still_refuses(run, make, settings):
    settings.IDENFY_PHONE_SEND_LIMITS = {"block": ("1/h",)}
    make("expired")
    status, lines = run("unblock", "--number", "(+370) 612-34567")
    text = "The limit of the number's block, 10,000 numbers, is reached"
    assert (status, lines[:2]) == (0, [UNBLOCKED, MASKED_NUMBER])
    assert lines[2].startswith(text)


def test_all_are_unblocked_together(run, user, make):
    make("expired", network="9.9.9.9")
    options = ["--number", NUMBER, "--user", "ona", "--network", "9.9.9.9"]
    assert run("unblock", *options) == (0, [UNBLOCKED, MASKED_NUMBER, NOTHING])
    start(user, network="9.9.9.9")


NO_USER = "No user, or more than one, has this primary key or login name."
MISTAKES = [
    (["--user", "rasa"], NO_USER),
    (["--user", "99999999999999999999"], NO_USER),
    (["--user", "\0"], NO_USER),
    (["--network", "nonsense"], "This is no IP address."),
]


@pytest.mark.parametrize("command", ["explain", "unblock"])
@pytest.mark.parametrize(("options", "text"), MISTAKES)
def test_mistake_is_told(run, command, options, text):
    with pytest.raises(CommandError) as caught:
        run(command, *options)
    assert str(caught.value) == text
    assert not StartLock.objects.exists()


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("explain", "Give --number, --user or --network."),
        ("unblock", "Give --number, --user, --network or --region."),
    ],
)
def test_command_without_options_tells_them(run, command, text):
    with pytest.raises(CommandError) as caught:
        run(command)
    assert str(caught.value) == text


def test_brake_is_released(run, clock):
    until = clock.now + timedelta(minutes=1)
    RegionBrake.objects.create(region="LT", engaged_until=until)
    assert run("unblock", "--region", "LT") == (0, ["The brake is released."])
    assert run("unblock", "--region", "LT") == (0, ["No brake is engaged there."])


def test_brake_and_number_are_unblocked_together(run, clock, settings):
    settings.IDENFY_PHONE_BRAKE = {"mode": "enforce"}
    until = clock.now + timedelta(minutes=1)
    RegionBrake.objects.create(region="LT", engaged_until=until, numbers=60)
    engaged = {"region": "LT", "sends": 60, "confirmed": 0}
    assert run("explain", "--number", NUMBER)[1][1:] == [
        f"{TEXTS['brake'] % engaged} Until 2026-07-01 12:01:00 EEST."
    ]
    lines = ["The brake is released.", UNBLOCKED, MASKED_NUMBER, NOTHING]
    assert run("unblock", "--region", "LT", "--number", NUMBER) == (0, lines)


def test_name_that_is_the_key_of_another_user_is_refused(run, user, django_user_model):
    django_user_model.objects.create_user(str(user.pk))
    with pytest.raises(CommandError):
        run("unblock", "--user", str(user.pk))


@pytest.mark.parametrize("number", ["+3706123", "61234", "nonsense", NUMBER + "9"])
def test_unblock_refuses_invalid_number_without_printing_it(run, number):
    with pytest.raises(CommandError) as caught:
        run("unblock", "--number", number)
    assert str(caught.value) == str(NumberNotSupported.message)
