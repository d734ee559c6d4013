"""50 threads at the same moment, on whichever database: the exact count, each time."""

import json
from collections import Counter
from functools import partial

import pytest
from django.db import connections, transaction
from django.utils import timezone
from rest_framework.test import APIClient

from django_idenfy_phone import services, tasks
from django_idenfy_phone.exceptions import VerificationError
from django_idenfy_phone.models import PhoneVerification
from support.constants import NUMBER

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("idenfy_sandbox"),
]
rows = PhoneVerification.objects

NETWORK = "9.9.9.9"
KEY = "3f1c9a4e-key-of-a-form"
# Each in a block of its own.
NUMBERS = [f"+3706{n:03}4567" for n in range(100, 150)]


@pytest.fixture
def users(django_user_model):
    return django_user_model.objects.bulk_create(
        django_user_model(username=f"user{n}") for n in range(50)
    )


@pytest.fixture
def no_cooldown(settings):
    settings.IDENFY_PHONE_RESEND_COOLDOWN = (0,)


@pytest.fixture
def atomic_requests(monkeypatch):
    for connection in connections.all():
        monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)


@pytest.fixture
def eager():
    """Send at once, in the thread that started: each SMS is one of the sandbox's."""
    conf = tasks.send_code.app.conf
    conf.task_always_eager = True
    yield
    conf.task_always_eager = False


def outcome(act):
    """What a thread came to: a result, or the code of a refusal."""
    try:
        return act()
    except VerificationError as error:
        return error.code


def start(number=NUMBER, **kwargs):
    return outcome(lambda: services.start_verification(number, **kwargs).status)


def post(user, url, key=None, **body):
    client = APIClient()
    client.force_authenticate(user)
    headers = {"HTTP_IDEMPOTENCY_KEY": key} if key else {}
    raw = json.dumps(body).encode()
    response = client.generic(
        "POST", url, raw, "application/json", REMOTE_ADDR=NETWORK, **headers
    )
    return response.status_code, response.json()


def post_start(user, number=NUMBER, **kwargs):
    status, body = post(user, "/phone/start/", phone_number=number, **kwargs)
    return body.get("code", status)


# One number


def test_50_users_start_for_one_number_up_to_its_limit(users, at_once, no_cooldown):
    results = at_once(lambda user: start(user=user), users)
    assert Counter(results) == {"queued": 3, "limit_reached": 47}
    assert rows.count() == 3


def test_50_requests_start_for_one_number_up_to_its_limit(
    users, at_once, no_cooldown, atomic_requests
):
    results = at_once(post_start, users)
    assert Counter(results) == {202: 3, "limit_reached": 47}
    assert rows.count() == 3


@pytest.mark.usefixtures("eager")
def test_50_starts_for_one_number_are_one_sms(users, at_once, idenfy_sandbox):
    at_once(lambda user: start(user=user), users)
    assert (idenfy_sandbox.state.sends, idenfy_sandbox.state.billed(NUMBER)) == (1, 1)


# One user, one network, and all at once


def test_50_starts_of_one_user_end_at_its_limit(user, at_once):
    results = at_once(partial(start, user=user), NUMBERS)
    assert Counter(results) == {"queued": 5, "limit_reached": 45}
    assert rows.count() == 5


def test_50_starts_of_one_network_end_at_its_limit(users, at_once):
    def act(pair):
        user, number = pair
        return start(number, user=user, network=NETWORK)

    results = at_once(act, zip(users, NUMBERS, strict=True))
    assert Counter(results) == {"queued": 20, "limit_reached": 30}
    assert rows.count() == 20


def test_50_requests_of_one_network_end_at_its_limit(users, at_once, atomic_requests):
    results = at_once(lambda pair: post_start(*pair), zip(users, NUMBERS, strict=True))
    assert Counter(results) == {202: 20, "limit_reached": 30}


def test_crossed_locks_end_at_the_narrowest_limit(
    users, at_once, settings, no_cooldown
):
    """Ten users, each with five numbers and two networks: whoever comes first, both
    networks are full in the end."""
    limits = {"phone_number": 5, "user": 4, "network": 6}

    def act(n):
        network = f"8.8.8.{n % 2}"
        return start(NUMBERS[n % 5], user=users[n // 5], network=network)

    settings.IDENFY_PHONE_SEND_LIMITS = {
        "number": ("5/h",),
        "user": ("4/h",),
        "network": ("6/h",),
    }
    assert Counter(at_once(act, range(50))) == {"queued": 12, "limit_reached": 38}
    for field, limit in limits.items():
        assert max(Counter(rows.values_list(field, flat=True)).values()) <= limit


def test_clearing_a_number_in_between_loses_no_lock(users, at_once, no_cooldown):
    def act(n):
        if n % 10 == 0:
            return services.clear_number(NUMBER)
        return start(user=users[n])

    results = Counter(at_once(act, range(50)))
    assert set(results) <= {None, "queued", "limit_reached"}
    # Five clearings let in three starts each, and three come before the first.
    assert 3 <= results["queued"] == rows.count() <= 18


# One idempotency key


@pytest.mark.parametrize("threads", [20, 50])
@pytest.mark.usefixtures("eager")
def test_one_key_is_one_row_and_one_sms(user, at_once, idenfy_sandbox, threads):
    def act(_):
        return services.start_verification(NUMBER, user=user, idempotency_key=KEY).pk

    results = Counter(at_once(act, range(threads)))
    assert results == {rows.get().pk: threads}
    assert idenfy_sandbox.state.sends == 1


@pytest.mark.parametrize("threads", [20, 50])
@pytest.mark.usefixtures("eager")
def test_one_key_over_the_api_is_one_202(
    user, at_once, idenfy_sandbox, atomic_requests, threads
):
    def act(_):
        status, body = post(user, "/phone/start/", key=KEY, phone_number=NUMBER)
        return status, body["id"]

    results = Counter(at_once(act, range(threads)))
    pk = str(rows.get().pk)
    assert results == {(202, pk): 1, (200, pk): threads - 1}
    assert idenfy_sandbox.state.sends == 1


def test_one_key_for_50_numbers_is_one_row(user, at_once):
    def act(number):
        return start(number, user=user, idempotency_key=KEY)

    results = Counter(at_once(act, NUMBERS))
    assert results == {"queued": 1, "idempotency_key_reused": 49}
    assert rows.count() == 1


# One proof


@pytest.fixture
def proof(make):
    return make(
        "verified",
        user=None,
        is_anonymous=True,
        purpose="signup",
        verified_at=timezone.now(),
    )


def test_50_sign_ups_with_one_proof_make_one_account(proof, at_once, django_user_model):
    def sign_up(n):
        with transaction.atomic():
            user = django_user_model.objects.create_user(f"user{n}")
            services.redeem_verification(proof, user=user, purpose="signup")
            return user.pk

    before = django_user_model.objects.count()
    results = Counter(at_once(lambda n: outcome(lambda: sign_up(n)), range(50)))
    proof.refresh_from_db()
    assert results == {proof.user_id: 1, "already_redeemed": 49}
    assert django_user_model.objects.count() == before + 1


def test_50_sign_ups_over_a_view_make_one_account(
    proof, at_once, django_user_model, settings, atomic_requests
):
    def sign_up(n):
        return post(None, "/sign-up/", username=f"user{n}", phone=str(proof.pk))[0]

    settings.ROOT_URLCONF = "hosts.signup"
    before = django_user_model.objects.count()
    assert Counter(at_once(sign_up, range(50))) == {201: 1, 400: 49}
    assert django_user_model.objects.count() == before + 1


def test_50_redemptions_of_one_user_are_one(make, user, at_once):
    proof = make("verified", verified_at=timezone.now())

    def redeem(_):
        return services.redeem_verification(proof, user=user).pk

    results = Counter(at_once(lambda n: outcome(partial(redeem, n)), range(50)))
    assert results == {proof.pk: 1, "already_redeemed": 49}
