"""What an attacker can cost in a month, measured in SMS that the sandbox billed.

Nobody waits here: each step makes everything that is stored older by one UPDATE. The
README's table of what abuse can cost holds the figures of this file.
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

pytestmark = pytest.mark.django_db
rows = PhoneVerification.objects

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MONTH = timedelta(days=30)
WINDOWS = {"10 minutes": 10 * MINUTE, "hour": HOUR, "day": DAY, "30 days": MONTH}

NETWORKS = [f"8.8.8.{n}" for n in range(20)]
# Each in a block of its own.
NUMBERS = [f"+3706{n:03}5678" for n in range(1_000)]


def pass_time(by):
    """Enough for rows that were sent; the other times of a row no longer matter."""
    rows.update(created_at=F("created_at") - by)
    ProviderGate.objects.update(next_slot_at=F("next_slot_at") - by)


def attempt(user, number, network=""):
    """Start, and have the SMS sent: the row, or how long Retry-After would say."""
    try:
        row = services.start_verification(number, user=user, network=network)
    except (CooldownActive, LimitReached) as error:
        return None, timedelta(seconds=math.ceil(error.retry_after))
    delivery.deliver(row.pk)
    return row, timedelta(0)


def attack(act, patience):
    """Attempt again and again for a month.

    After a refusal the attacker comes back as soon as it said, and also before that:
    ``patience`` is how long they wait at most, by how long they have been at it.
    """
    elapsed = timedelta(0)
    while elapsed < MONTH:
        wait = act()
        longest = next(pause for since, pause in patience if elapsed < since)
        pause = min(wait, longest)
        if pause:
            pass_time(pause)
            elapsed += pause


def measure():
    """How many rows the first and the busiest window of each length hold."""
    times = sorted(rows.values_list("created_at", flat=True))

    def since(start, window):
        return sum(start <= moment < start + window for moment in times)

    first = {name: since(times[0], window) for name, window in WINDOWS.items()}
    busiest = {
        name: max(since(start, window) for start in times)
        for name, window in WINDOWS.items()
    }
    return first, busiest


def guess_until_locked(row, user, sandbox):
    """Wrong codes, as many as are let through."""
    right = sandbox.state.code_for(NUMBER)
    wrong = iter(f"{(int(right) + n) % 10_000:04}" for n in range(1, 10))
    while row.status in ("queued", "sent"):
        row = services.confirm_verification(row.pk, next(wrong), user=user)


def test_40_accounts_and_20_networks_against_one_number(
    idenfy_sandbox, django_user_model
):
    """Every account that got an SMS sent is deleted and made anew."""

    def create(n):
        return django_user_model.objects.create_user(f"attacker{n}")

    def act():
        n, network = next(turn), next(networks)
        row, wait = attempt(accounts[n], NUMBER, network)
        if row:
            guess_until_locked(row, accounts[n], idenfy_sandbox)
            accounts[n].delete()
            accounts[n] = create(n)
        return wait

    accounts = [create(n) for n in range(40)]
    turn, networks = cycle(range(40)), cycle(NETWORKS)
    attack(act, [(HOUR, 2 * MINUTE), (DAY, 2 * HOUR), (MONTH, 12 * HOUR)])

    first, busiest = measure()
    print("SMS to one number, from 40 accounts and 20 networks:", first)
    assert first == {"10 minutes": 3, "hour": 5, "day": 5, "30 days": 15}
    assert busiest == first
    billed = idenfy_sandbox.state.billed(NUMBER)
    assert billed == idenfy_sandbox.state.sends == rows.count()
    # 3 guesses at 10,000 codes an SMS.
    assert idenfy_sandbox.state.checks == 3 * billed


def test_one_account_against_1000_numbers(idenfy_sandbox, user):
    """Never the same number twice, so no limit of a number is in the way."""

    def act():
        return attempt(user, next(numbers), NETWORKS[0])[1]

    numbers = iter(NUMBERS)
    attack(act, [(HOUR, 10 * MINUTE), (DAY, 3 * HOUR), (MONTH, DAY)])

    first, busiest = measure()
    print("SMS by one account, to 1,000 numbers:", first)
    assert first == {"10 minutes": 5, "hour": 5, "day": 10, "30 days": 300}
    assert busiest == first
    assert idenfy_sandbox.state.sends == rows.count()
