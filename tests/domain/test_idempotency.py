"""A repeated start gives the first row again: nothing sent, nothing counted."""

import json
from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone
from rest_framework.exceptions import PermissionDenied
from rest_framework.test import APIClient

from django_idenfy_phone import services, tasks
from django_idenfy_phone.exceptions import (
    CooldownActive,
    IdempotencyKeyReused,
    InvalidIdempotencyKey,
    LimitReached,
)
from django_idenfy_phone.models import PhoneVerification, StartLock
from django_idenfy_phone.testing import age
from support.constants import NUMBER

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("idenfy_sandbox")]
rows = PhoneVerification.objects

KEY = "3f1c9a4e-key-of-a-form"
OTHER = "+37061234568"
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


@pytest.fixture
def start(user):
    def start(number=NUMBER, *, user=user, key=KEY, purpose=""):
        return services.start_verification(
            number, user=user, purpose=purpose, idempotency_key=key
        )

    return start


def post(client, key=KEY, number=NUMBER, url="/phone/start/"):
    headers = {} if key is None else {"HTTP_IDEMPOTENCY_KEY": key}
    body = json.dumps({"phone_number": number}).encode()
    return client.generic("POST", url, body, "application/json", **headers)


def said(response):
    return response.status_code, response.json().get("code")


@pytest.fixture
def eager():
    """Send at once, as with CELERY_TASK_ALWAYS_EAGER."""
    conf = tasks.send_code.app.conf
    conf.task_always_eager = True
    yield
    conf.task_always_eager = False


@pytest.fixture
def rasa(django_user_model):
    return django_user_model.objects.create_user("rasa")


# The same row


def test_a_repetition_is_the_first_row(start):
    assert start() == start()
    assert rows.count() == 1


def test_a_repetition_over_the_api_answers_200_and_the_same(api):
    first, again = post(api), post(api)
    assert (first.status_code, again.status_code) == (202, 200)
    assert (again.json(), again["Location"]) == (first.json(), first["Location"])


@pytest.mark.django_db(transaction=True)
def test_a_repetition_sends_nothing(api, idenfy_sandbox, eager):
    answers = [post(api).status_code for _ in range(5)]
    assert answers == [202, 200, 200, 200, 200]
    assert idenfy_sandbox.state.sends == 1


def test_a_repetition_is_not_counted(settings, start):
    settings.IDENFY_PHONE_SEND_LIMITS = {"user": ("2/h",)}
    for _ in range(5):
        start()
    start("+447400123456", key=None)
    assert rows.count() == 2


def test_a_repetition_is_let_in_where_a_start_is_not(settings, start):
    settings.IDENFY_PHONE_SEND_LIMITS = {"number": ("1/d",), "user": ("1/d",)}
    first = start()
    with pytest.raises(LimitReached):
        start(key=None)
    assert start() == first


def test_a_repetition_shows_what_became_of_the_row(api):
    post(api)
    rows.update(status="failed", failure="number_refused")
    again = post(api)
    assert (again.status_code, again.json()["failure"]) == (200, "number_refused")


@pytest.mark.parametrize("status", ["sent", "expired", "locked", "failed"])
def test_a_repetition_is_the_first_row_whatever_became_of_it(start, status):
    first = start()
    rows.update(status=status)
    assert start() == first


def test_another_spelling_of_the_number_is_a_repetition(start):
    assert start("+370 612 34567") == start("+370-(612)-34567")


def test_a_repetition_after_a_refusal_is_a_first_start(start, make):
    row = make()
    with pytest.raises(CooldownActive):
        start()
    age(row, timedelta(minutes=1))
    assert start() != row


def test_a_start_that_was_rolled_back_frees_its_key(start):
    with transaction.atomic():
        start()
        transaction.set_rollback(True)
    assert start(OTHER).phone_number.as_e164 == OTHER


# Before the guard


def test_the_guard_is_not_asked_again(settings, api):
    def guard(request, number):
        asked.append(number)
        if len(asked) > 1:
            raise PermissionDenied(code="captcha_was_used")

    asked = []
    settings.IDENFY_PHONE_START_GUARD = guard
    assert [post(api).status_code for _ in range(3)] == [202, 200, 200]
    assert asked == [NUMBER]


def test_the_guard_is_asked_for_another_key(settings, api):
    def guard(request, number):
        asked.append(number)

    asked = []
    settings.IDENFY_PHONE_START_GUARD = guard
    post(api)
    post(api, key=KEY + "2")
    assert asked == [NUMBER, NUMBER]


def test_a_bad_key_is_refused_before_the_guard_is_asked(settings, api):
    asked = []
    settings.IDENFY_PHONE_START_GUARD = lambda request, number: asked.append(number)
    assert said(post(api, key="short")) == (400, "invalid_idempotency_key")
    assert asked == []


def test_a_reused_key_is_refused_before_the_guard_is_asked(settings, api):
    post(api)
    asked = []
    settings.IDENFY_PHONE_START_GUARD = lambda request, number: asked.append(number)
    assert said(post(api, number=OTHER)) == (422, "idempotency_key_reused")
    assert asked == []


# Another number


def test_a_key_of_another_number_is_refused(start):
    start()
    with pytest.raises(IdempotencyKeyReused):
        start(OTHER)
    assert rows.count() == 1


def test_a_key_of_another_number_answers_422(api):
    post(api)
    locks = StartLock.objects.count()
    assert said(post(api, number=OTHER)) == (422, "idempotency_key_reused")
    assert (rows.count(), StartLock.objects.count()) == (1, locks)


def test_a_key_of_another_number_stores_nothing_under_the_locks_either(start):
    start()
    locks = StartLock.objects.count()
    with pytest.raises(IdempotencyKeyReused):
        start(OTHER)
    assert (rows.count(), StartLock.objects.count()) == (1, locks)


def test_a_422_does_not_repeat_the_number_or_the_key(api):
    post(api)
    text = post(api, number=OTHER).content.decode()
    assert not [part for part in (NUMBER[1:], OTHER[1:], KEY) if part in text]


# A key of its own for each user and purpose


def test_another_users_key_is_another_key(start, rasa):
    first = start()
    second = start(OTHER, user=rasa)
    assert (first.user_id, second.user_id) == (start().user_id, rasa.pk)
    assert start(OTHER, user=rasa) == second


def test_another_user_is_not_handed_the_row(start, rasa):
    start()
    with pytest.raises(CooldownActive):
        start(user=rasa)


def test_another_purpose_is_another_key(start):
    first, second = start(), start(OTHER, purpose="signup")
    assert first != second
    assert start() == first
    assert start(OTHER, purpose="signup") == second


def test_another_purpose_over_the_api_is_another_key(settings, api):
    settings.ROOT_URLCONF = "hosts.signup"
    first = post(api, url="/phone/start/")
    second = post(api, url="/start/", number=OTHER)
    assert [each.json()["purpose"] for each in (first, second)] == ["", "signup"]
    assert post(api, url="/start/", number=OTHER).json() == second.json()


@pytest.mark.parametrize("other", [KEY + "2", KEY[:-1], KEY.upper()])
def test_another_key_is_another_start(start, other):
    start()
    with pytest.raises(CooldownActive):
        start(key=other)


def test_the_parts_of_a_key_do_not_run_into_each_other(start):
    start(key="a" * 16, purpose="b")
    assert start(OTHER, key="b" + "a" * 16, purpose="").purpose == ""


def test_a_start_without_a_key_repeats_nothing(start):
    start()
    with pytest.raises(CooldownActive):
        start(key=None)


# A day long


def test_within_a_day_a_key_is_kept(start):
    row = start()
    age(row, DAY - 5 * SECOND)
    assert start() == row


def test_within_a_day_another_number_is_refused(start):
    age(start(), DAY - 5 * SECOND)
    with pytest.raises(IdempotencyKeyReused):
        start(OTHER)


def test_after_a_day_a_key_is_free(api):
    first = post(api)
    age(rows.get(), DAY)
    again = post(api)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] != again.json()["id"]


def test_after_a_day_a_key_is_free_for_another_number(start):
    row = start()
    age(row, DAY)
    newer = start(OTHER)
    row.refresh_from_db()
    assert (row.idempotency_key, start(OTHER)) == (None, newer)


def test_a_key_that_was_freed_is_freed_on_its_own_row_only(start):
    old, kept = start(), start(OTHER, key=KEY + "2")
    age(old, DAY)
    start()
    kept.refresh_from_db()
    assert kept.idempotency_key


def test_after_a_day_a_refused_start_does_not_free_the_key(start, make):
    row = start()
    age(row, DAY)
    make()
    with pytest.raises(CooldownActive):
        start()
    row.refresh_from_db()
    assert row.idempotency_key


# Anonymous callers


@pytest.fixture
def anonymous(settings):
    settings.IDENFY_PHONE_ALLOW_ANONYMOUS = True
    return APIClient()


def test_a_strangers_key_hands_nobody_an_id(anonymous):
    first = post(anonymous)
    again = post(APIClient())
    assert (first.status_code, said(again)) == (202, (429, "cooldown"))
    assert first.json()["id"] not in again.content.decode()


def test_an_anonymous_key_is_not_stored(anonymous):
    post(anonymous)
    assert rows.get().idempotency_key is None


@pytest.mark.parametrize("key", ["", "short", "x" * 65, "with spaces in it, many"])
def test_an_anonymous_key_is_not_judged_either(anonymous, key):
    assert post(anonymous, key).status_code == 202


def test_a_users_key_is_none_of_an_anonymous_caller(anonymous, start):
    start()
    assert said(post(anonymous)) == (429, "cooldown")


def test_an_anonymous_caller_may_send_another_number_with_the_same_key(anonymous):
    post(anonymous)
    assert post(anonymous, number=OTHER).status_code == 202


# What is a key


@pytest.mark.parametrize(
    "key",
    ["a" * 16, "a" * 64, "0123456789abcdef", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"],
)
def test_a_key_is_16_to_64_visible_characters(api, key):
    assert [post(api, key).status_code for _ in range(2)] == [202, 200]


BAD = {
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


@pytest.mark.parametrize("key", BAD.values(), ids=BAD)
def test_what_is_no_key_answers_400(api, key):
    assert said(post(api, key)) == (400, "invalid_idempotency_key")
    assert (rows.count(), StartLock.objects.count()) == (0, 0)


@pytest.mark.parametrize("key", [*BAD.values(), "0123456789abcdef\n", "ė" * 20])
def test_what_is_no_key_is_refused_by_the_service(start, key):
    with pytest.raises(InvalidIdempotencyKey):
        start(key=key)
    assert not rows.exists()


def test_a_bad_key_is_not_repeated(api):
    assert "s3cr3t" not in post(api, "s3cr3t").content.decode()


# Stored as a keyed hash


def test_a_key_is_stored_as_a_hash_alone(start):
    start()
    (values,) = rows.values()
    assert len(values.pop("idempotency_key")) == 64
    assert KEY not in str(values)


def test_the_hash_needs_the_secret_key(settings, start):
    first = start()
    settings.SECRET_KEY = "another"
    assert start(OTHER).idempotency_key != first.idempotency_key


def test_the_hash_differs_for_each_user_and_purpose(start, rasa):
    stored = [
        start().idempotency_key,
        start(OTHER, purpose="signup").idempotency_key,
        start("+37061234569", user=rasa).idempotency_key,
    ]
    assert len(set(stored)) == 3


def test_a_key_is_in_no_log(api, caplog):
    post(api)
    post(api, number=OTHER)
    assert KEY not in caplog.text


# In step with time


def test_the_day_of_a_key_begins_with_its_row(start):
    row = start()
    assert timezone.now() - row.created_at < timedelta(minutes=1)
    age(row, DAY)
    newer = start()
    age(newer, DAY - 5 * SECOND)
    assert start() == newer
