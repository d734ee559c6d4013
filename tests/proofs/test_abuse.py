"""An attacker cannot cause more SMS in a month than README.rst says.

The tests do not wait: they make all stored rows older by one UPDATE.
"""

import math
from datetime import timedelta
from itertools import cycle

import pytest
from django.db.models import F

from django_idenfy_phone import delivery, services
from django_idenfy_phone.exceptions import CooldownActive, LimitReached
from django_idenfy_phone.models import PhoneVerification, ProviderGate
from support.constants import NUMBER
from support.steps import start

pytestmark = pytest.mark.django_db
rows = PhoneVerification.objects

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MONTH = timedelta(days=30)
WINDOWS = {"10 minutes": 10 * MINUTE, "hour": HOUR, "day": DAY, "30 days": MONTH}

NETWORKS = [f"8.8.8.{n}" for n in range(20)]
# Each number is in its own block.
NUMBERS = [f"+3706{n:03}5678" for n in range(1_000)]


def pass_time(by):
    """Move only the times that the limits of sent rows depend on."""
    rows.update(created_at=F("created_at") - by)
    names = ("theoretical_arrival_at", "sent_arrival_at")
    ProviderGate.objects.update(**{name: F(name) - by for name in names})


def attempt(user, number, network=""):
    """Start and send. Return the row, or None and the Retry-After of the refusal."""
    try:
        row = start(user, number, network=network)
    except (CooldownActive, LimitReached) as error:
        return None, timedelta(seconds=math.ceil(error.retry_after.total_seconds()))
    delivery.deliver(row.pk)
    return row, timedelta(0)


def attack(attempt_once, longest_pauses):
    """Attempt again and again for a month.

    ``attempt_once`` returns how long to wait, but the attacker returns earlier where
    ``longest_pauses`` says so: pairs of an elapsed time and the pause until then.
    """
    elapsed = timedelta(0)
    while elapsed < MONTH:
        wait = attempt_once()
        longest = next(pause for until, pause in longest_pauses if elapsed < until)
        pause = min(wait, longest)
        if pause:
            pass_time(pause)
            elapsed += pause


def count_in_windows():
    """Count the rows in the first and in the busiest window of each length."""
    times = sorted(rows.values_list("created_at", flat=True))

    def count(begin, window):
        return sum(begin <= time < begin + window for time in times)

    first = {name: count(times[0], window) for name, window in WINDOWS.items()}
    busiest = {
        name: max(count(begin, window) for begin in times)
        for name, window in WINDOWS.items()
    }
    return first, busiest


def guess_until_locked(row, user, sandbox):
    """Confirm wrong codes until no more checks are allowed."""
    right = sandbox.state.code_for(NUMBER)
    wrong = iter(f"{(int(right) + n) % 10_000:04}" for n in range(1, 10))
    while row.status in ("queued", "sent"):
        row = services.confirm_verification(row.pk, next(wrong), user=user)


def test_40_accounts_cause_at_most_15_sms_a_month_to_one_number(
    idenfy_sandbox, django_user_model
):
    """They use 20 networks, and each is deleted and created again after its SMS."""

    def create(n):
        return django_user_model.objects.create_user(f"attacker{n}")

    def attempt_once():
        n, network = next(turns), next(networks)
        row, wait = attempt(accounts[n], NUMBER, network)
        if row:
            guess_until_locked(row, accounts[n], idenfy_sandbox)
            accounts[n].delete()
            accounts[n] = create(n)
        return wait

    accounts = [create(n) for n in range(40)]
    turns, networks = cycle(range(40)), cycle(NETWORKS)
    attack(attempt_once, [(HOUR, 2 * MINUTE), (DAY, 2 * HOUR), (MONTH, 12 * HOUR)])

    first, busiest = count_in_windows()
    print("SMS to one number, from 40 accounts and 20 networks:", first)
    assert first == {"10 minutes": 3, "hour": 5, "day": 5, "30 days": 15}
    assert busiest == first
    billed = idenfy_sandbox.state.billed(NUMBER)
    assert billed == idenfy_sandbox.state.sends == rows.count()
    # 3 guesses per SMS, each at one of 10,000 codes.
    assert idenfy_sandbox.state.checks == 3 * billed


def test_one_account_causes_at_most_300_sms_a_month(idenfy_sandbox, user):
    """It takes another number each time, so that only its own limit counts."""

    def attempt_once():
        return attempt(user, next(numbers), NETWORKS[0])[1]

    numbers = iter(NUMBERS)
    attack(attempt_once, [(HOUR, 10 * MINUTE), (DAY, 3 * HOUR), (MONTH, DAY)])

    first, busiest = count_in_windows()
    print("SMS by one account, to 1,000 numbers:", first)
    assert first == {"10 minutes": 5, "hour": 5, "day": 10, "30 days": 300}
    assert busiest == first
    assert idenfy_sandbox.state.sends == rows.count()
