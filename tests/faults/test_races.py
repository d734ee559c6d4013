"""Limits, keys and proofs are exact when 50 threads use them at the same moment."""

from collections import Counter
from functools import partial

import pytest
from django.db import transaction
from django.utils import timezone
from rest_framework.test import APIClient

from django_idenfy_phone import services
from django_idenfy_phone.exceptions import VerificationError
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.transactions import retry_on_abort
from support.constants import NUMBER
from support.steps import START_URL, post_json, start

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("idenfy_sandbox"),
]
rows = PhoneVerification.objects

NETWORK = "9.9.9.9"
KEY = "3f1c9a4e-key-of-a-form"
# Each number is in its own block.
NUMBERS = [f"+3706{n:03}4567" for n in range(100, 150)]


@pytest.fixture
def users(django_user_model):
    return django_user_model.objects.bulk_create(
        django_user_model(username=f"user{n}") for n in range(50)
    )


@pytest.fixture
def no_cooldown(settings):
    settings.IDENFY_PHONE_RESEND_COOLDOWN = (0,)


def result_or_code(function):
    """Return the result of ``function``, or the code of the error that it raises."""
    try:
        return function()
    except VerificationError as error:
        return error.code


def status_or_code(user, number=NUMBER, **options):
    return result_or_code(lambda: start(user, number, **options).status)


def post_as(user, url, key=None, **body):
    client = APIClient()
    client.force_authenticate(user)
    headers = {"HTTP_IDEMPOTENCY_KEY": key} if key else {}
    response = post_json(client, url, body, REMOTE_ADDR=NETWORK, **headers)
    return response.status_code, response.json()


def start_over_api(user, number=NUMBER):
    status, body = post_as(user, START_URL, phone_number=number)
    return body.get("code", status)


def test_50_users_cannot_exceed_number_limit(users, at_once, no_cooldown):
    results = at_once(status_or_code, users)
    assert Counter(results) == {"queued": 3, "limit_reached": 47}
    assert rows.count() == 3


def test_50_requests_cannot_exceed_number_limit(
    users, at_once, no_cooldown, atomic_requests
):
    results = at_once(start_over_api, users)
    assert Counter(results) == {202: 3, "limit_reached": 47}
    assert rows.count() == 3


@pytest.mark.usefixtures("eager")
def test_50_starts_for_one_number_send_one_sms(users, at_once, idenfy_sandbox):
    at_once(status_or_code, users)
    assert (idenfy_sandbox.state.sends, idenfy_sandbox.state.billed(NUMBER)) == (1, 1)


def test_50_starts_cannot_exceed_user_limit(user, at_once):
    results = at_once(partial(status_or_code, user), NUMBERS)
    assert Counter(results) == {"queued": 5, "limit_reached": 45}
    assert rows.count() == 5


def test_50_starts_cannot_exceed_network_limit(users, at_once):
    def attempt(pair):
        return status_or_code(*pair, network=NETWORK)

    results = at_once(attempt, zip(users, NUMBERS, strict=True))
    assert Counter(results) == {"queued": 20, "limit_reached": 30}
    assert rows.count() == 20


def test_50_requests_cannot_exceed_network_limit(users, at_once, atomic_requests):
    def attempt(pair):
        return start_over_api(*pair)

    results = at_once(attempt, zip(users, NUMBERS, strict=True))
    assert Counter(results) == {202: 20, "limit_reached": 30}


def test_starts_with_crossing_locks_exceed_no_limit(
    users, at_once, settings, no_cooldown
):
    """Ten users share five numbers and two networks.

    In any order of the starts, both networks reach their limit in the end.
    """
    limits = {"phone_number": 5, "user": 4, "network": 6}

    def attempt(n):
        network = f"8.8.8.{n % 2}"
        return status_or_code(users[n // 5], NUMBERS[n % 5], network=network)

    settings.IDENFY_PHONE_SEND_LIMITS = {
        "number": ("5/h",),
        "user": ("4/h",),
        "network": ("6/h",),
    }
    results = at_once(attempt, range(50))
    assert Counter(results) == {"queued": 12, "limit_reached": 38}
    for field, limit in limits.items():
        assert max(Counter(rows.values_list(field, flat=True)).values()) <= limit


def test_50_starts_cannot_exceed_block_limit(users, at_once, settings):
    settings.IDENFY_PHONE_SEND_LIMITS = {"block": ("3/h",)}
    numbers = [f"{NUMBER[:-2]}{n}" for n in range(10, 60)]

    def attempt(pair):
        return status_or_code(*pair)

    results = at_once(attempt, zip(users, numbers, strict=True))
    assert Counter(results) == {"queued": 3, "limit_reached": 47}


def test_clearing_number_between_starts_loses_no_lock(users, at_once, no_cooldown):
    def clear_or_start(n):
        if n % 10 == 0:
            services.unblock(phone_number=NUMBER)
            return None
        return status_or_code(users[n])

    results = Counter(at_once(clear_or_start, range(50)))
    assert set(results) <= {None, "queued", "limit_reached"}
    # At most three starts before the first clearing, and three after each of the five.
    assert 3 <= results["queued"] == rows.count() <= 18


@pytest.mark.parametrize("threads", [20, 50])
@pytest.mark.usefixtures("eager")
def test_starts_with_one_key_send_one_sms(user, at_once, idenfy_sandbox, threads):
    def attempt(_):
        return start(user, idempotency_key=KEY).pk

    results = Counter(at_once(attempt, range(threads)))
    assert results == {rows.get().pk: threads}
    assert idenfy_sandbox.state.sends == 1


@pytest.mark.parametrize("threads", [20, 50])
@pytest.mark.usefixtures("eager")
def test_requests_with_one_key_get_one_202(
    user, at_once, idenfy_sandbox, atomic_requests, threads
):
    def attempt(_):
        status, body = post_as(user, START_URL, key=KEY, phone_number=NUMBER)
        return status, body["id"]

    results = Counter(at_once(attempt, range(threads)))
    pk = str(rows.get().pk)
    assert results == {(202, pk): 1, (200, pk): threads - 1}
    assert idenfy_sandbox.state.sends == 1


def test_one_key_for_50_numbers_stores_one_row(user, at_once):
    def attempt(number):
        return status_or_code(user, number, idempotency_key=KEY)

    results = Counter(at_once(attempt, NUMBERS))
    assert results == {"queued": 1, "idempotency_key_reused": 49}
    assert rows.count() == 1


@pytest.fixture
def proof(make):
    return make(
        "verified",
        user=None,
        is_anonymous=True,
        purpose="signup",
        verified_at=timezone.now(),
    )


def retrying(sign_up):
    """As a host does: MariaDB may abort inserts of neighbouring user names."""
    return retry_on_abort(sign_up, "default")


def test_50_sign_ups_with_one_proof_create_one_account(
    proof, at_once, django_user_model
):
    def sign_up(n):
        with transaction.atomic():
            user = django_user_model.objects.create_user(f"user{n}")
            services.redeem_verification(proof, user=user, purpose="signup")
            return user.pk

    def result(n):
        return result_or_code(lambda: retrying(partial(sign_up, n)))

    before = django_user_model.objects.count()
    results = Counter(at_once(result, range(50)))
    proof.refresh_from_db()
    assert results == {proof.user_id: 1, "already_redeemed": 49}
    assert django_user_model.objects.count() == before + 1


def test_50_requests_with_one_proof_create_one_account(
    proof, at_once, django_user_model, settings, atomic_requests
):
    def sign_up(n):
        return post_as(None, "/sign-up/", username=f"user{n}", phone=token)[0]

    token = services.redeem_token(proof)
    settings.ROOT_URLCONF = "hosts.signup"
    before = django_user_model.objects.count()
    results = at_once(lambda n: retrying(partial(sign_up, n)), range(50))
    assert Counter(results) == {201: 1, 400: 49}
    assert django_user_model.objects.count() == before + 1


def test_50_redemptions_by_one_user_succeed_once(make, user, at_once):
    proof = make("verified", verified_at=timezone.now())

    def redeem(_):
        return services.redeem_verification(proof, user=user).pk

    results = Counter(at_once(lambda n: result_or_code(partial(redeem, n)), range(50)))
    assert results == {proof.pk: 1, "already_redeemed": 49}
