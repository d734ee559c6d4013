"""What pauses the app, the sandbox says: for what, and for how long."""

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from django_idenfy_phone import delivery, gate, services
from django_idenfy_phone.exceptions import VerificationError
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.pacing import JITTER_CAP, Pause
from django_idenfy_phone.sandbox import pauses
from django_idenfy_phone.sandbox.scenarios import SCENARIOS
from django_idenfy_phone.sandbox.server import SandboxServer
from django_idenfy_phone.transitions import MAX_SEND_ATTEMPTS
from sandbox.steps import Call, check, rows_of, send
from support.clock import Clock
from support.constants import NUMBER

# Longer ones are random, up to JITTER_CAP.
PAUSES = {
    "+12025550102": (Pause.ACCOUNT, 60),
    "+12025550104": (Pause.SENDS, 2),
    "+12025550122": (Pause.CHECKS, 5),
}
RANDOM_PAUSE = "+12025550105"


def pauses_after_use(
    make: Callable[..., PhoneVerification], number: str
) -> set[tuple[Pause, float]]:
    """Send to the number and check a code. Return (pause, seconds) of all pauses."""
    row = make("queued", phone_number=number)
    delivery.deliver(row.pk)
    with suppress(VerificationError):
        services.confirm_verification(row.pk, "0000", user=row.user)
    now, stored = timezone.now(), gate.current()
    left = {each: (stored.pause_ends_at(each, now) - now) for each in Pause}
    return {(each, wait.total_seconds()) for each, wait in left.items() if wait}


@pytest.mark.django_db
@pytest.mark.usefixtures("idenfy_sandbox", "clock")
@pytest.mark.parametrize("number", sorted(SCENARIOS.keys() - {RANDOM_PAUSE}))
def test_magic_number_pauses_the_app_as_it_says(
    make: Callable[..., PhoneVerification], settings: Any, number: str
) -> None:
    settings.IDENFY_PHONE_TIMEOUT = 0.5
    found = pauses_after_use(make, number)
    assert found == ({PAUSES[number]} if number in PAUSES else set())
    said = re.findall("The app then .* for ([0-9]+) s", SCENARIOS[number].description)
    assert said == [f"{seconds:g}" for _, seconds in found]


def test_longest_waits_and_tries_are_those_of_the_app() -> None:
    assert pauses.LONGEST_SEND_PAUSE == JITTER_CAP
    assert pauses.TRIES == MAX_SEND_ATTEMPTS
    text = SCENARIOS[RANDOM_PAUSE].description
    assert text.endswith(" for up to 30 s after each of up to 5 tries.")


@pytest.mark.parametrize(
    ("number", "answer", "seconds", "until"),
    [
        ("+12025550102", "401 UNAUTHORIZED", 60, "about 03:05:05"),
        ("+12025550104", "429 TOO_MANY_REQUESTS", 2, "about 03:04:07"),
        ("+12025550105", "400 TOO_MANY_REQUESTS", 30, "at most 03:04:35"),
    ],
)
def test_inbox_says_why_nothing_is_sent_while_it_lasts(
    call: Call, clock: Clock, number: str, answer: str, seconds: int, until: str
) -> None:
    send(call, number)
    [notice] = rows_of(call, "pauses")
    assert notice == (
        f"The app now sends nothing to any number until {until}, because a send to "
        f"{number} was answered {answer}."
    )
    clock.move(timedelta(seconds=seconds))
    assert rows_of(call, "pauses") == []


def test_inbox_says_why_no_code_is_checked_while_it_lasts(
    server: SandboxServer, call: Call, clock: Clock
) -> None:
    request_id = send(call, "+12025550122").json()["request_id"]
    check(call, request_id, "1234")
    [notice] = rows_of(call, "pauses")
    assert notice == (
        "The app now checks no code of any number until about 03:04:10, because a "
        "check for +12025550122 was answered 429 TOO_MANY_REQUESTS."
    )
    clock.move(timedelta(seconds=5))
    assert rows_of(call, "pauses") == []


def test_inbox_names_the_pause_that_ends_last(call: Call, clock: Clock) -> None:
    send(call, "+12025550102")
    clock.move(timedelta(seconds=1))
    send(call, "+12025550104")
    [notice] = rows_of(call, "pauses")
    assert "+12025550102 was answered 401" in notice


def test_inbox_tells_of_a_wrong_key(call: Call) -> None:
    call("/fraud/send-sms", {"phone_number": NUMBER}, auth=("key", "wrong"))
    [notice] = rows_of(call, "pauses")
    assert notice.endswith("a send to an unknown number was answered 401 UNAUTHORIZED.")


def test_other_refusals_show_no_pause(call: Call) -> None:
    for number in ("+12025550101", "+12025550103", "+12025550106", "+12025550110"):
        send(call, number)
    assert rows_of(call, "pauses") == []
