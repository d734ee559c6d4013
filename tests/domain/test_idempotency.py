"""A start repeated with its key returns the first row, and sends nothing."""

from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone
from rest_framework.exceptions import PermissionDenied
from rest_framework.test import APIClient

from django_idenfy_phone.exceptions import (
    CooldownActive,
    IdempotencyKeyReused,
    InvalidIdempotencyKey,
    LimitReached,
)
from django_idenfy_phone.models import PhoneVerification, StartLock
from django_idenfy_phone.testing import age
from support.constants import NUMBER
from support.steps import START_URL, post_start, start

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("idenfy_sandbox")]
rows = PhoneVerification.objects

KEY = "3f1c9a4e-key-of-a-form"
OTHER = "+37061234568"
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


@pytest.fixture
def start_with_key(user):
    def start_with_key(number=NUMBER, *, user=user, key=KEY, purpose=""):
        return start(number=number, user=user, purpose=purpose, idempotency_key=key)

    return start_with_key


def post_with_key(client, key=KEY, number=NUMBER, url=START_URL):
    return post_start(client, url, number, HTTP_IDEMPOTENCY_KEY=key)


def status_and_code(response):
    return response.status_code, response.json().get("code")


@pytest.fixture
def rasa(django_user_model):
    return django_user_model.objects.create_user("rasa")


# The first row is returned


def test_repeated_start_returns_the_first_row(start_with_key):
    assert start_with_key() == start_with_key()
    assert rows.count() == 1


def test_repeated_request_answers_200_with_the_same_body(api):
    first, again = post_with_key(api), post_with_key(api)
    assert (first.status_code, again.status_code) == (202, 200)
    assert (again.json(), again["Location"]) == (first.json(), first["Location"])


@pytest.mark.django_db(transaction=True)
def test_repeated_request_sends_nothing(api, idenfy_sandbox, eager):
    answers = [post_with_key(api).status_code for _ in range(5)]
    assert answers == [202, 200, 200, 200, 200]
    assert idenfy_sandbox.state.sends == 1


def test_repeated_start_is_not_counted(settings, user, start_with_key):
    settings.IDENFY_PHONE_SEND_LIMITS = {"user": ("2/h",)}
    for _ in range(5):
        start_with_key()
    start(user, "+447400123456")
    assert rows.count() == 2


def test_repeated_start_is_accepted_at_a_reached_limit(settings, user, start_with_key):
    settings.IDENFY_PHONE_SEND_LIMITS = {"number": ("1/d",), "user": ("1/d",)}
    first = start_with_key()
    with pytest.raises(LimitReached):
        start(user)
    assert start_with_key() == first


def test_repeated_request_shows_the_row_as_it_is_now(api):
    post_with_key(api)
    rows.update(status="failed", failure="number_refused")
    again = post_with_key(api)
    assert (again.status_code, again.json()["failure"]) == (200, "number_refused")


@pytest.mark.parametrize("status", ["sent", "expired", "locked", "failed"])
def test_repeated_start_returns_the_first_row_in_any_status(start_with_key, status):
    first = start_with_key()
    rows.update(status=status)
    assert start_with_key() == first


def test_other_spelling_of_the_number_is_the_same_start(start_with_key):
    assert start_with_key("+370 612 34567") == start_with_key("+370-(612)-34567")


def test_refused_start_does_not_use_up_its_key(start_with_key, make):
    row = make()
    with pytest.raises(CooldownActive):
        start_with_key()
    age(row, timedelta(minutes=1))
    assert start_with_key() != row


def test_rolled_back_start_frees_its_key(start_with_key):
    with transaction.atomic():
        start_with_key()
        transaction.set_rollback(True)
    assert start_with_key(OTHER).phone_number.as_e164 == OTHER


# Before the guard


def test_guard_is_not_called_for_a_repeated_start(settings, api):
    def guard(request, number):
        guarded.append(number)
        if len(guarded) > 1:
            raise PermissionDenied(code="captcha_was_used")

    guarded = []
    settings.IDENFY_PHONE_START_GUARD = guard
    assert [post_with_key(api).status_code for _ in range(3)] == [202, 200, 200]
    assert guarded == [NUMBER]


def test_guard_is_called_for_another_key(settings, api):
    def guard(request, number):
        guarded.append(number)

    guarded = []
    settings.IDENFY_PHONE_START_GUARD = guard
    post_with_key(api)
    post_with_key(api, key=KEY + "2")
    assert guarded == [NUMBER, NUMBER]


def test_invalid_key_is_refused_before_the_guard_is_called(settings, api):
    guarded = []
    settings.IDENFY_PHONE_START_GUARD = lambda request, number: guarded.append(number)
    response = post_with_key(api, key="short")
    assert status_and_code(response) == (400, "invalid_idempotency_key")
    assert guarded == []


def test_reused_key_is_refused_before_the_guard_is_called(settings, api):
    post_with_key(api)
    guarded = []
    settings.IDENFY_PHONE_START_GUARD = lambda request, number: guarded.append(number)
    response = post_with_key(api, number=OTHER)
    assert status_and_code(response) == (422, "idempotency_key_reused")
    assert guarded == []


# Another number


def test_reused_key_is_refused(start_with_key):
    start_with_key()
    with pytest.raises(IdempotencyKeyReused):
        start_with_key(OTHER)
    assert rows.count() == 1


def test_reused_key_answers_422_and_stores_nothing(api):
    post_with_key(api)
    locks = StartLock.objects.count()
    response = post_with_key(api, number=OTHER)
    assert status_and_code(response) == (422, "idempotency_key_reused")
    assert (rows.count(), StartLock.objects.count()) == (1, locks)


def test_service_stores_nothing_for_a_reused_key(start_with_key):
    start_with_key()
    locks = StartLock.objects.count()
    with pytest.raises(IdempotencyKeyReused):
        start_with_key(OTHER)
    assert (rows.count(), StartLock.objects.count()) == (1, locks)


def test_422_contains_neither_number_nor_key(api):
    post_with_key(api)
    text = post_with_key(api, number=OTHER).content.decode()
    assert not [part for part in (NUMBER[1:], OTHER[1:], KEY) if part in text]


# Each user and purpose has separate keys


def test_same_key_of_another_user_is_another_key(start_with_key, rasa):
    first = start_with_key()
    second = start_with_key(OTHER, user=rasa)
    assert (first.user_id, second.user_id) == (start_with_key().user_id, rasa.pk)
    assert start_with_key(OTHER, user=rasa) == second


def test_same_key_does_not_give_the_row_to_another_user(start_with_key, rasa):
    start_with_key()
    with pytest.raises(CooldownActive):
        start_with_key(user=rasa)


def test_same_key_for_another_purpose_is_another_key(start_with_key):
    first, second = start_with_key(), start_with_key(OTHER, purpose="signup")
    assert first != second
    assert start_with_key() == first
    assert start_with_key(OTHER, purpose="signup") == second


def test_same_key_at_the_url_of_another_purpose_is_another_key(settings, api):
    settings.ROOT_URLCONF = "hosts.signup"
    first = post_with_key(api, url=START_URL)
    second = post_with_key(api, url="/start/", number=OTHER)
    assert [each.json()["purpose"] for each in (first, second)] == ["", "signup"]
    assert post_with_key(api, url="/start/", number=OTHER).json() == second.json()


@pytest.mark.parametrize("other", [KEY + "2", KEY[:-1], KEY.upper()])
def test_similar_key_is_another_key(start_with_key, other):
    start_with_key()
    with pytest.raises(CooldownActive):
        start_with_key(key=other)


def test_purpose_and_key_are_separated_in_the_hash(start_with_key):
    start_with_key(key="a" * 16, purpose="b")
    assert start_with_key(OTHER, key="b" + "a" * 16, purpose="").purpose == ""


def test_start_without_a_key_is_a_new_start(user, start_with_key):
    start_with_key()
    with pytest.raises(CooldownActive):
        start(user)


# A key is kept for a day


def test_key_is_kept_for_a_day(start_with_key):
    row = start_with_key()
    age(row, DAY - 5 * SECOND)
    assert start_with_key() == row


def test_key_refuses_another_number_for_a_day(start_with_key):
    age(start_with_key(), DAY - 5 * SECOND)
    with pytest.raises(IdempotencyKeyReused):
        start_with_key(OTHER)


def test_key_is_free_after_a_day(api):
    first = post_with_key(api)
    age(rows.get(), DAY)
    again = post_with_key(api)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] != again.json()["id"]


def test_key_is_free_for_another_number_after_a_day(start_with_key):
    row = start_with_key()
    age(row, DAY)
    newer = start_with_key(OTHER)
    row.refresh_from_db()
    assert (row.idempotency_key, start_with_key(OTHER)) == (None, newer)


def test_freed_key_is_cleared_on_its_own_row_only(start_with_key):
    old, kept = start_with_key(), start_with_key(OTHER, key=KEY + "2")
    age(old, DAY)
    start_with_key()
    kept.refresh_from_db()
    assert kept.idempotency_key


def test_refused_start_after_a_day_does_not_free_the_key(start_with_key, make):
    row = start_with_key()
    age(row, DAY)
    make()
    with pytest.raises(CooldownActive):
        start_with_key()
    row.refresh_from_db()
    assert row.idempotency_key


def test_day_of_a_key_begins_with_its_row(start_with_key):
    row = start_with_key()
    assert timezone.now() - row.created_at < timedelta(minutes=1)
    age(row, DAY)
    newer = start_with_key()
    age(newer, DAY - 5 * SECOND)
    assert start_with_key() == newer


# Anonymous callers


@pytest.fixture
def anonymous(settings):
    settings.IDENFY_PHONE_ALLOW_ANONYMOUS = True
    return APIClient()


def test_anonymous_key_gives_no_id_to_another_visitor(anonymous):
    first = post_with_key(anonymous)
    again = post_with_key(APIClient())
    assert (first.status_code, status_and_code(again)) == (202, (429, "cooldown"))
    assert first.json()["id"] not in again.content.decode()


def test_anonymous_key_is_not_stored(anonymous):
    post_with_key(anonymous)
    assert rows.get().idempotency_key is None


@pytest.mark.parametrize("key", ["", "short", "x" * 65, "with spaces in it, many"])
def test_anonymous_key_is_not_validated(anonymous, key):
    assert post_with_key(anonymous, key).status_code == 202


def test_key_of_a_user_does_not_work_for_an_anonymous_caller(anonymous, start_with_key):
    start_with_key()
    assert status_and_code(post_with_key(anonymous)) == (429, "cooldown")


def test_anonymous_caller_may_use_a_key_with_another_number(anonymous):
    post_with_key(anonymous)
    assert post_with_key(anonymous, number=OTHER).status_code == 202


# Valid and invalid keys


@pytest.mark.parametrize(
    "key",
    ["a" * 16, "a" * 64, "0123456789abcdef", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"],
)
def test_key_has_16_to_64_visible_characters(api, key):
    assert [post_with_key(api, key).status_code for _ in range(2)] == [202, 200]


INVALID_KEYS = {
    "empty": "",
    "one": "a",
    "15": "a" * 15,
    "65": "a" * 65,
    "8,000": "a" * 8_000,
    "space": "0123456789 abcdef",
    "space before": " 0123456789abcde",
    "tab": "0123456789\tabcdef",
    "Latin-1": "0123456789abcdef\xe9",
    "UTF-8": "0123456789abcdefė".encode().decode("latin-1"),
    "no-break space": "0123456789\xa0abcdef",
    "DEL": "0123456789abcdef\x7f",
    "NUL": "0123456789abcdef\0",
}


@pytest.mark.parametrize("key", INVALID_KEYS.values(), ids=INVALID_KEYS)
def test_invalid_key_answers_400(api, key):
    assert status_and_code(post_with_key(api, key)) == (400, "invalid_idempotency_key")
    assert (rows.count(), StartLock.objects.count()) == (0, 0)


@pytest.mark.parametrize(
    "key", [*INVALID_KEYS.values(), "0123456789abcdef\n", "ė" * 20]
)
def test_service_refuses_invalid_key(start_with_key, key):
    with pytest.raises(InvalidIdempotencyKey):
        start_with_key(key=key)
    assert not rows.exists()


def test_400_does_not_contain_the_key(api):
    assert "s3cr3t" not in post_with_key(api, "s3cr3t").content.decode()


# Stored as a keyed hash


def test_key_is_stored_only_as_a_hash(start_with_key):
    start_with_key()
    (values,) = rows.values()
    assert len(values.pop("idempotency_key")) == 64
    assert KEY not in str(values)


def test_hash_depends_on_the_secret_key(settings, start_with_key):
    first = start_with_key()
    settings.SECRET_KEY = "another"
    assert start_with_key(OTHER).idempotency_key != first.idempotency_key


def test_hash_differs_for_each_user_and_purpose(start_with_key, rasa):
    stored = [
        start_with_key().idempotency_key,
        start_with_key(OTHER, purpose="signup").idempotency_key,
        start_with_key("+37061234569", user=rasa).idempotency_key,
    ]
    assert len(set(stored)) == 3


def test_key_is_not_logged(api, caplog):
    post_with_key(api)
    post_with_key(api, number=OTHER)
    assert KEY not in caplog.text
