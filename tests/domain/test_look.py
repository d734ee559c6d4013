"""The SQL by hand finds what plain queries of the ORM find, over random histories."""

import random
from datetime import timedelta

import pytest
from django.utils import timezone

from django_idenfy_phone import limits
from django_idenfy_phone.conf import conf
from django_idenfy_phone.exceptions import VerificationError
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.site import SiteCounter
from django_idenfy_phone.starting import StartRequest
from django_idenfy_phone.statuses import Failure, Status

pytestmark = pytest.mark.django_db
rows = PhoneVerification.objects

NUMBERS = ["+37061234567", "+37061234568", "+37069999999"]
NETWORKS = ["", "9.9.9.9", "2606:4700::/64"]
SIZES = ["1/10s", "2/5m", "3/h", "4/61m", "5/d", "12/d", "9/30d"]
KINDS = ["number", "block", "user", "network", "site"]
SEEDS = range(40)


@pytest.fixture
def users(django_user_model):
    return [None, *(django_user_model.objects.create_user(n) for n in ("ona", "rasa"))]


def random_limits(chance):
    return {kind: chance.sample(SIZES, chance.randrange(4)) for kind in KINDS}


def store_history(chance, users, now, count=60):
    """Rows of the last days, most of them of the last hours."""
    ages = [chance.choice([10, 600, 3600, 86400, 30 * 86400]) for _ in range(count)]
    rows.bulk_create(
        random_row(chance, users, now - chance.random() * timedelta(seconds=age))
        for age in ages
    )


def random_row(chance, users, created_at):
    number, status = chance.choice(NUMBERS), chance.choice(Status.values)
    user = chance.choice(users)
    return PhoneVerification(
        user=user,
        is_anonymous=user is None,
        phone_number=number,
        number_block=number[:-4],
        region="LT",
        network=chance.choice(NETWORKS),
        status=status,
        is_verified=status == "verified",
        failure=chance.choice(Failure.values) if status == "failed" else "",
        provider_code=chance.choice(["", "UNAUTHORIZED", "PARTNER_CONTRACT_ERROR"]),
        created_at=created_at,
        send_by=created_at + timedelta(minutes=3),
    )


def random_start(chance, users):
    user = chance.choice(users)
    return StartRequest(
        phone_number=chance.choice(NUMBERS),
        region="LT",
        user_id=user and user.pk,
        network=chance.choice(NETWORKS),
        purpose="",
        idempotency_key=None,
    )


def clear_some(chance, start, now, clock):
    """When an operator unblocked what of a start, by kind."""
    known = {
        "number": start.phone_number,
        "user": start.user_id,
        "network": start.network,
    }
    cleared_at = {}
    for kind in [kind for kind in known if known[kind] and chance.random() < 0.4]:
        age = timedelta(seconds=chance.choice([1, 300, 9000]))
        clock.now = cleared_at[kind] = now - age
        limits.clear({kind: known[kind]})
    clock.now = now
    return cleared_at


def times_of_kind(start, kind, cleared_at):
    """Conditions and times of the rows that a limit of this kind may count."""
    found = {
        "number": rows.filter(phone_number=start.phone_number),
        "block": rows.filter(number_block=start.number_block),
        "user": rows.filter(user_id=start.user_id),
        "network": rows.filter(network=start.network),
        "site": rows.all(),
    }[kind]
    since = cleared_at.get(kind)
    return found.filter(created_at__gt=since) if since else found


def times(queryset):
    found = queryset.order_by("-created_at")
    return list(found.values_list("created_at", flat=True))


def plain_end_of_cooldown(start, cleared_at, now):
    of_number = times_of_kind(start, "number", cleared_at)
    newest = times(of_number.filter(created_at__gt=now - timedelta(seconds=10)))[:1]
    sends = times(of_number.counted().filter(created_at__gt=now - timedelta(days=1)))
    return max(limits.cooldown_ends(newest, sends), default=now)


def plain_ends_of_limits(start, cleared_at, now):
    for kind in KINDS:
        known = {"user": start.user_id, "network": start.network}.get(kind, True)
        for limit in conf.SEND_LIMITS[kind] if known else ():
            is_short = limit.window <= timedelta(hours=1)
            counts = is_short and kind in ("number", "user", "network")
            found = times_of_kind(start, kind, cleared_at)
            if kind == "site":
                found = found.exclude(status="queued", send_by__lte=now)
            counted = found.counted(with_account_refusals=counts)
            newest = times(counted.filter(created_at__gt=now - limit.window))
            if len(newest) >= limit.sends:
                yield newest[limit.sends - 1] + limit.window


def found_end(start, now):
    """When the start that was refused may come again; ``now`` where it may come."""
    try:
        limits.enforce(start, *limits.lock_and_count(start, []))
    except VerificationError as error:
        return now + error.retry_after
    return now


@pytest.mark.parametrize("seed", SEEDS)
def test_limits_refuse_as_plain_queries_tell(settings, users, clock, seed):
    chance = random.Random(seed)
    settings.IDENFY_PHONE_SEND_LIMITS = random_limits(chance)
    settings.IDENFY_PHONE_RESEND_COOLDOWN = chance.sample([1, 60, 300, 7200], 2)
    now = clock.now = timezone.now()
    store_history(chance, users, now)
    start = random_start(chance, users)
    cleared_at = clear_some(chance, start, now, clock)
    ends = [plain_end_of_cooldown(start, cleared_at, now)]
    ends += plain_ends_of_limits(start, cleared_at, now)
    assert found_end(start, now) == max(ends)


@pytest.mark.parametrize("seed", SEEDS)
def test_kept_counts_of_the_site_agree_with_plain_queries(settings, users, clock, seed):
    chance, counter = random.Random(seed), SiteCounter()
    sizes = chance.sample(SIZES, 3)
    settings.IDENFY_PHONE_SEND_LIMITS = dict.fromkeys(KINDS, ()) | {"site": sizes}
    start = random_start(chance, users)
    for _ in range(12):
        clock.now += timedelta(seconds=chance.choice([1, 9, 70, 400, 4000]))
        now, count = clock.now, chance.randrange(4)
        # Rows are counted as they are when they are counted for the first time.
        rows.bulk_create(random_row(chance, users, now) for _ in range(count))
        counter.recount(now)
        ends = [
            created_at + limit.window
            for limit in conf.SEND_LIMITS["site"]
            if (created_at := counter.nth_newest(limit, now))
        ]
        expected = plain_ends_of_limits(start, {}, now)
        assert sorted(ends) == sorted(expected)
