"""A proof is checked by a field, and spent once beside the save of the user."""

import json
import uuid
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django import forms
from django.contrib.auth.models import AnonymousUser
from django.db import connection, connections, transaction
from django.utils import timezone
from rest_framework import serializers
from rest_framework.exceptions import PermissionDenied, ValidationError
from rest_framework.test import APIClient

from django_idenfy_phone import services
from django_idenfy_phone.api.fields import VerifiedPhoneField
from django_idenfy_phone.exceptions import AlreadyRedeemed, NotVerified
from django_idenfy_phone.forms import VerifiedPhoneField as VerifiedPhoneFormField
from django_idenfy_phone.models import PhoneVerification, StartLock
from support.constants import NUMBER

pytestmark = pytest.mark.django_db
rows = PhoneVerification.objects

NOBODY = AnonymousUser()
QUARTER = timedelta(minutes=15)
MOMENT = timedelta(microseconds=1)
UNPROVEN = "Please confirm your phone number first."
SPENT = "This phone verification was used before. Please start again."


@pytest.fixture
def proof(make):
    """A row that was just verified."""

    def proof(**fields):
        return make("verified", **{"verified_at": timezone.now()} | fields)

    return proof


@pytest.fixture
def anonymous_proof(proof):
    return proof(user=None, is_anonymous=True, purpose="signup")


@pytest.fixture
def rasa(django_user_model):
    return django_user_model.objects.create_user("rasa")


@pytest.fixture
def client_of():
    def client_of(user):
        client = APIClient()
        client.force_authenticate(user)
        return client

    return client_of


# Three ways to take a proof: each returns the row, or the code of its refusal


def by_serializer(pk, user, purpose=""):
    class SignUp(serializers.Serializer):
        phone = VerifiedPhoneField(purpose=purpose)

    request = SimpleNamespace(user=user)
    form = SignUp(data={"phone": pk}, context={"request": request})
    if form.is_valid():
        return form.validated_data["phone"]
    return form.errors["phone"][0].code


def by_form(pk, user, purpose=""):
    class SignUp(forms.Form):
        phone = VerifiedPhoneFormField(purpose=purpose, user=user)

    form = SignUp({"phone": pk})
    if form.is_valid():
        return form.cleaned_data["phone"]
    return form.errors.as_data()["phone"][0].code


def by_redeeming(pk, user, purpose=""):
    try:
        row = PhoneVerification(pk=pk)
        return services.redeem_verification(row, user=user, purpose=purpose)
    except (NotVerified, AlreadyRedeemed) as error:
        return error.code


CHECKS = [by_serializer, by_form]
TAKERS = [*CHECKS, by_redeeming]


@pytest.mark.parametrize("take", TAKERS)
def test_an_own_proof_is_taken(proof, user, take):
    row = proof()
    taken = take(row.pk, user)
    assert isinstance(taken, PhoneVerification)
    assert taken == row


@pytest.mark.parametrize("take", TAKERS)
def test_an_anonymous_proof_is_taken(anonymous_proof, rasa, take):
    assert take(anonymous_proof.pk, rasa, "signup") == anonymous_proof


@pytest.mark.parametrize("take", CHECKS)
@pytest.mark.parametrize("nobody", [NOBODY, None])
def test_an_anonymous_proof_is_taken_before_there_is_a_user(
    anonymous_proof, nobody, take
):
    assert take(anonymous_proof.pk, nobody, "signup") == anonymous_proof


@pytest.mark.parametrize("take", CHECKS)
def test_a_field_takes_text_and_uuids_and_spends_nothing(proof, user, take):
    row = proof()
    assert take(str(row.pk), user) == take(row.pk, user) == row
    row.refresh_from_db()
    assert row.redeemed_at is None


# Each term of redeemable()


@pytest.mark.parametrize("take", TAKERS)
@pytest.mark.parametrize(
    "status", ["queued", "sending", "sent", "failed", "expired", "locked"]
)
def test_only_a_verified_row_is_taken(make, user, take, status):
    row = make(status, verified_at=timezone.now())
    assert take(row.pk, user) == "phone_not_verified"


@pytest.mark.parametrize("take", TAKERS)
def test_a_strangers_proof_is_not_taken(proof, rasa, take):
    assert take(proof().pk, rasa) == "phone_not_verified"


@pytest.mark.parametrize("take", CHECKS)
@pytest.mark.parametrize("nobody", [NOBODY, None])
def test_a_users_proof_is_taken_by_nobody_else(proof, nobody, take):
    assert take(proof().pk, nobody) == "phone_not_verified"


@pytest.mark.parametrize("take", TAKERS)
def test_a_deleted_users_proof_is_not_taken(proof, user, rasa, take):
    row = proof()
    user.delete()
    assert take(row.pk, rasa) == "phone_not_verified"


@pytest.mark.parametrize("take", CHECKS)
def test_an_anonymous_proof_that_has_a_user_is_the_users(proof, user, rasa, take):
    row = proof(is_anonymous=True)
    assert take(row.pk, rasa) == take(row.pk, None) == "phone_not_verified"
    assert take(row.pk, user) == row


@pytest.mark.parametrize("take", CHECKS)
def test_a_spent_proof_is_not_taken(proof, user, take):
    row = proof(redeemed_at=timezone.now())
    assert take(row.pk, user) == "phone_not_verified"


def test_a_spent_proof_is_not_redeemed(proof, user):
    row = proof(redeemed_at=timezone.now())
    assert by_redeeming(row.pk, user) == "already_redeemed"


@pytest.mark.parametrize("take", TAKERS)
@pytest.mark.parametrize(
    ("proven", "wanted"), [("", "signup"), ("signup", ""), ("signup", "payment")]
)
def test_a_proof_serves_its_own_purpose_only(proof, user, take, proven, wanted):
    row = proof(purpose=proven)
    assert take(row.pk, user, wanted) == "phone_not_verified"


@pytest.mark.parametrize("take", TAKERS)
@pytest.mark.parametrize(
    ("age", "is_fresh"),
    [(QUARTER - MOMENT, True), (QUARTER, False), (timedelta(days=1), False)],
)
def test_a_proof_is_fresh_for_15_minutes(proof, user, take, age, is_fresh, monkeypatch):
    now = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: now)
    row = proof(verified_at=now - age)
    assert take(row.pk, user) == (row if is_fresh else "phone_not_verified")


@pytest.mark.parametrize("take", TAKERS)
@pytest.mark.parametrize(("minutes", "is_fresh"), [(59, True), (61, False)])
def test_redeem_within_is_a_setting(proof, user, settings, take, minutes, is_fresh):
    settings.IDENFY_PHONE_REDEEM_WITHIN = timedelta(hours=1)
    row = proof(verified_at=timezone.now() - timedelta(minutes=minutes))
    assert take(row.pk, user) == (row if is_fresh else "phone_not_verified")


@pytest.mark.parametrize("take", TAKERS)
def test_an_id_that_is_unknown_is_not_taken(proof, user, take):
    proof()
    assert take(uuid.uuid4(), user) == "phone_not_verified"


def test_one_proof_is_spent_at_a_time(proof, user):
    row, other = proof(), proof()
    assert by_redeeming(row.pk, user) == row
    assert by_redeeming(other.pk, user) == other


# What a field says

GARBAGE = ["x", "1234", "g" * 32, "1" * 400, "\0", "{}", "<b>", "' OR 1=1"]


@pytest.mark.parametrize("take", CHECKS)
@pytest.mark.parametrize("value", GARBAGE)
def test_garbage_is_no_uuid(user, take, value):
    assert take(value, user) == "invalid"


@pytest.mark.parametrize("value", [[], {}, 1.5, [str(uuid.UUID(int=7))], b"x"])
def test_a_serializer_takes_no_other_types(user, value):
    assert by_serializer(value, user) == "invalid"


@pytest.mark.parametrize("value", [0, 1, True, 2**128, -1])
def test_a_number_is_no_proof(user, value):
    assert by_serializer(value, user) in ("phone_not_verified", "invalid")


@pytest.mark.parametrize(
    ("take", "value", "code"),
    [
        (by_serializer, None, "null"),
        (by_serializer, "", "invalid"),
        (by_form, None, "required"),
        (by_form, "", "required"),
    ],
)
def test_an_empty_value_is_missing(user, take, value, code):
    assert take(value, user) == code


def test_a_serializer_field_may_be_missing_where_the_host_says_so():
    class SignUp(serializers.Serializer):
        phone = VerifiedPhoneField(required=False, allow_null=True)

    assert not SignUp(data={"phone": None}).fields["phone"].required
    for data in ({}, {"phone": None}):
        form = SignUp(data=data)
        assert (form.is_valid(), form.validated_data) == (True, data)


def test_a_serializer_field_is_required():
    class SignUp(serializers.Serializer):
        phone = VerifiedPhoneField()

    form = SignUp(data={})
    assert not form.is_valid()
    assert form.errors["phone"][0].code == "required"


def test_a_form_field_may_be_missing_where_the_host_says_so():
    class SignUp(forms.Form):
        phone = VerifiedPhoneFormField(required=False)

    form = SignUp({})
    assert (form.is_valid(), form.cleaned_data) == (True, {"phone": None})


def test_a_serializer_without_a_request_serves_anonymous_callers(
    anonymous_proof, proof
):
    class SignUp(serializers.Serializer):
        phone = VerifiedPhoneField(purpose="signup")

    assert SignUp(data={"phone": anonymous_proof.pk}).is_valid()
    assert not SignUp(data={"phone": proof(purpose="signup").pk}).is_valid()


def test_a_serializer_never_shows_a_proof(anonymous_proof):
    class SignUp(serializers.Serializer):
        phone = VerifiedPhoneField(purpose="signup")

    form = SignUp(data={"phone": anonymous_proof.pk})
    assert (form.is_valid(), dict(form.data)) == (True, {})


def test_both_fields_say_the_same(user):
    class ByForm(forms.Form):
        phone = VerifiedPhoneFormField()

    class BySerializer(serializers.Serializer):
        phone = VerifiedPhoneField()

    form, serializer = (
        each(data={"phone": uuid.uuid4()}) for each in (ByForm, BySerializer)
    )
    assert not form.is_valid()
    assert not serializer.is_valid()
    assert form.errors["phone"] == serializer.errors["phone"] == [UNPROVEN]


def test_a_form_field_is_hidden_and_keeps_the_id(anonymous_proof):
    class SignUp(forms.Form):
        name = forms.CharField()
        phone = VerifiedPhoneFormField(purpose="signup")

    page = SignUp({"phone": str(anonymous_proof.pk)}).as_p()
    assert f'<input type="hidden" name="phone" value="{anonymous_proof.pk}"' in page


def test_the_user_of_one_form_is_not_that_of_the_next(proof, user):
    class SignUp(forms.Form):
        phone = VerifiedPhoneFormField()

    row = proof()
    first, second = SignUp({"phone": row.pk}), SignUp({"phone": row.pk})
    first.fields["phone"].user = user
    assert (first.is_valid(), second.is_valid()) == (True, False)


# Redeeming


def test_redeeming_gives_an_anonymous_proof_its_user(anonymous_proof, rasa):
    row = services.redeem_verification(anonymous_proof, user=rasa, purpose="signup")
    assert (row.user, row.is_anonymous) == (rasa, True)
    assert timezone.now() - row.redeemed_at < timedelta(minutes=1)


def test_redeeming_leaves_all_else_as_it_was(anonymous_proof, rasa):
    before = rows.filter(pk=anonymous_proof.pk).values().get()
    services.redeem_verification(anonymous_proof, user=rasa, purpose="signup")
    after = rows.filter(pk=anonymous_proof.pk).values().get()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"redeemed_at", "user_id"}


def test_a_proof_is_redeemed_once(anonymous_proof, rasa, user):
    services.redeem_verification(anonymous_proof, user=rasa, purpose="signup")
    for other in (rasa, user):
        with pytest.raises(AlreadyRedeemed):
            services.redeem_verification(anonymous_proof, user=other, purpose="signup")
    anonymous_proof.refresh_from_db()
    assert anonymous_proof.user == rasa


def test_a_redeemed_row_still_answers_whether_the_number_is_verified(
    anonymous_proof, rasa
):
    services.redeem_verification(anonymous_proof, user=rasa, purpose="signup")
    assert rows.verified(user=rasa, phone_number=NUMBER).get() == anonymous_proof


@pytest.mark.django_db(transaction=True)
def test_redeeming_is_rolled_back_with_the_hosts_transaction(
    anonymous_proof, django_user_model
):
    with transaction.atomic():
        vita = django_user_model.objects.create_user("vita")
        services.redeem_verification(anonymous_proof, user=vita, purpose="signup")
        transaction.set_rollback(True)
    anonymous_proof.refresh_from_db()
    assert (anonymous_proof.redeemed_at, anonymous_proof.user) == (None, None)
    assert not django_user_model.objects.filter(username="vita").exists()


@pytest.mark.django_db(transaction=True)
def test_after_a_rollback_a_proof_can_be_redeemed(anonymous_proof, rasa):
    with transaction.atomic():
        services.redeem_verification(anonymous_proof, user=rasa, purpose="signup")
        transaction.set_rollback(True)
    services.redeem_verification(anonymous_proof, user=rasa, purpose="signup")


@pytest.mark.django_db(transaction=True)
def test_a_refused_redemption_leaves_the_hosts_transaction_usable(proof, rasa):
    with transaction.atomic():
        with pytest.raises(NotVerified):
            services.redeem_verification(proof(), user=rasa)
        rasa.first_name = "Rasa"
        rasa.save()
    rasa.refresh_from_db()
    assert rasa.first_name == "Rasa"


# Who sees a redeemed row


def get(client, row):
    """All of an answer but the header that holds the time."""
    answer = client.get(f"/phone/{row.pk}/")
    headers = {name: answer[name] for name in answer.headers if name != "Expires"}
    return answer.status_code, headers, answer.content


@pytest.fixture
def open_to_all(settings):
    settings.IDENFY_PHONE_ALLOW_ANONYMOUS = True


@pytest.fixture
def redeemed(anonymous_proof, rasa, open_to_all):
    return services.redeem_verification(anonymous_proof, user=rasa, purpose="signup")


def test_before_it_is_redeemed_anyone_with_the_id_sees_it(
    anonymous_proof, open_to_all, user, client_of
):
    seen = [get(client_of(who), anonymous_proof)[0] for who in (None, user)]
    assert seen == [200, 200]


def test_a_redeemed_row_is_seen_by_its_user(redeemed, rasa, client_of):
    assert get(client_of(rasa), redeemed)[0] == 200


@pytest.mark.parametrize("login", [True, False])
def test_a_redeemed_row_is_seen_by_nobody_else(redeemed, user, client_of, login):
    client = client_of(user if login else None)
    unknown = PhoneVerification(pk=uuid.uuid4())
    assert get(client, redeemed) == get(client, unknown)
    assert get(client, redeemed)[0] == 404


def test_the_redeemed_row_of_a_deleted_user_is_seen_by_nobody(
    redeemed, rasa, user, client_of
):
    rasa.delete()
    seen = [get(client_of(who), redeemed)[0] for who in (None, user, rasa)]
    assert seen == [404, 404, 404]


def test_the_redeemed_row_of_a_deleted_user_proves_nothing(redeemed, rasa, user):
    rasa.delete()
    refusals = [take(redeemed.pk, user, "signup") for take in TAKERS]
    assert refusals == ["phone_not_verified", "phone_not_verified", "already_redeemed"]


def test_a_redeemed_row_cannot_be_confirmed_by_a_stranger(redeemed, user, client_of):
    url = f"/phone/{redeemed.pk}/confirm/"
    answers = [
        client_of(who).post(url, b'{"code": "1234"}', content_type="application/json")
        for who in (None, user)
    ]
    assert [each.status_code for each in answers] == [404, 404]


# Sign-up without an account, from end to end


@pytest.fixture
def host(settings, open_to_all, idenfy_sandbox):
    settings.ROOT_URLCONF = "hosts.signup"
    return idenfy_sandbox


def post(client, url, **body):
    return client.post(url, json.dumps(body).encode(), content_type="application/json")


def prove(sandbox, number=NUMBER):
    """The id of a fresh anonymous proof, as a visitor gets it."""
    visitor = APIClient()
    pk = post(visitor, "/start/", phone_number=number).json()["id"]
    code = sandbox.code_for(number)
    assert post(visitor, f"/phone/{pk}/confirm/", code=code).json()["is_verified"]
    return pk


def test_a_visitor_signs_up_with_a_proven_number(host, django_user_model):
    pk = prove(host)
    signed_up = post(APIClient(), "/sign-up/", username="jonas", phone=pk)
    jonas = django_user_model.objects.get(username="jonas")
    assert (signed_up.status_code, signed_up.json()) == (201, {"id": jonas.pk})
    row = rows.verified(user=jonas, phone_number=NUMBER).get()
    assert (str(row.pk), row.purpose, row.is_anonymous) == (pk, "signup", True)


def test_a_visitor_signs_up_with_a_form(host, client, django_user_model):
    pk = prove(host)
    signed_up = client.post("/sign-up-page/", {"username": "jonas", "phone": pk})
    assert signed_up.status_code == 201
    jonas = django_user_model.objects.get(username="jonas")
    assert rows.verified(user=jonas, phone_number=NUMBER).exists()


def test_a_proof_makes_one_account(host, django_user_model):
    pk = prove(host)
    first, second = (
        post(APIClient(), "/sign-up/", username=name, phone=pk)
        for name in ("jonas", "petras")
    )
    assert (first.status_code, second.status_code) == (201, 400)
    assert second.json() == {"phone": [UNPROVEN]}
    assert list(django_user_model.objects.values_list("username")) == [("jonas",)]


def test_an_invalid_form_does_not_spend_the_proof(host):
    pk = prove(host)
    client = APIClient()
    invalid = post(client, "/sign-up/", username="!", phone=pk)
    valid = post(client, "/sign-up/", username="jonas", phone=pk)
    assert (list(invalid.json()), valid.status_code) == (["username"], 201)


def test_an_invalid_page_does_not_spend_the_proof(host, client):
    pk = prove(host)
    invalid = client.post("/sign-up-page/", {"username": "!", "phone": pk})
    valid = client.post("/sign-up-page/", {"username": "jonas", "phone": pk})
    assert (invalid.status_code, valid.status_code) == (200, 201)
    assert f'value="{pk}"' in invalid.content.decode()


def test_an_unconfirmed_start_is_no_proof(host, django_user_model):
    started = post(APIClient(), "/start/", phone_number=NUMBER).json()
    refused = post(APIClient(), "/sign-up/", username="jonas", phone=started["id"])
    assert (refused.status_code, refused.json()) == (400, {"phone": [UNPROVEN]})
    assert not django_user_model.objects.exists()


def test_a_proof_of_another_purpose_makes_no_account(host):
    visitor = APIClient()
    pk = post(visitor, "/phone/start/", phone_number=NUMBER).json()["id"]
    post(visitor, f"/phone/{pk}/confirm/", code=host.code_for(NUMBER))
    refused = post(visitor, "/sign-up/", username="jonas", phone=pk)
    assert refused.json() == {"phone": [UNPROVEN]}


def test_the_new_user_is_told_of_the_number_and_the_visitor_no_longer(
    host, django_user_model, client_of
):
    pk = prove(host)
    post(APIClient(), "/sign-up/", username="jonas", phone=pk)
    jonas = django_user_model.objects.get(username="jonas")
    row = PhoneVerification(pk=pk)
    seen = [get(client_of(who), row)[0] for who in (jonas, None)]
    assert seen == [200, 404]


def test_anonymous_sign_up_is_off_by_default(settings, idenfy_sandbox):
    settings.ROOT_URLCONF = "hosts.signup"
    assert post(APIClient(), "/start/", phone_number=NUMBER).status_code == 403
    assert not rows.exists()


# The guard of a start


@pytest.fixture
def guarded(settings, idenfy_sandbox):
    def guarded(guard):
        settings.IDENFY_PHONE_START_GUARD = guard

    return guarded


START = "/phone/start/"


def refusing(error):
    def guard(request, phone_number):
        raise error

    return guard


def test_a_guard_refuses_with_its_own_code(guarded, api):
    guarded("hosts.signup.captcha")
    refused = post(api, START, phone_number=NUMBER)
    body = {"detail": "Please solve the captcha.", "code": "captcha_failed"}
    assert (refused.status_code, refused.json()) == (403, body)


def test_a_guard_lets_in(guarded, api):
    guarded("hosts.signup.captcha")
    started = post(api, START, phone_number=NUMBER, captcha="solved")
    assert started.status_code == 202


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (PermissionDenied("No.", "blocked"), 403, {"detail": "No.", "code": "blocked"}),
        (
            ValidationError({"detail": "Wrong."}, "captcha_failed"),
            400,
            {"detail": "Wrong.", "code": "captcha_failed"},
        ),
        (ValidationError({"captcha": ["Wrong."]}), 400, {"captcha": ["Wrong."]}),
    ],
)
def test_a_guard_may_raise_any_error_of_drf(guarded, api, error, status, body):
    guarded(refusing(error))
    refused = post(api, START, phone_number=NUMBER)
    assert (refused.status_code, refused.json()) == (status, body)


def test_a_guard_refuses_before_any_query(guarded, api, django_assert_num_queries):
    guarded("hosts.signup.captcha")
    with django_assert_num_queries(0):
        assert post(api, START, phone_number=NUMBER).status_code == 403
    assert (rows.count(), StartLock.objects.count()) == (0, 0)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_atomic", [True, False])
def test_a_guard_runs_outside_any_transaction(guarded, api, monkeypatch, is_atomic):
    def guard(request, phone_number):
        seen.append(connection.in_atomic_block)

    for each in connections.all():
        monkeypatch.setitem(each.settings_dict, "ATOMIC_REQUESTS", is_atomic)
    seen = []
    guarded(guard)
    assert post(api, START, phone_number=NUMBER).status_code == 202
    assert seen == [False]


def test_a_guard_is_given_the_request_and_the_number(guarded, api, user):
    asked = []
    guarded(lambda request, number: asked.append((request.user, number)))
    post(api, START, phone_number="+370 612 34567")
    assert asked == [(user, NUMBER)]


@pytest.mark.parametrize("number", ["nonsense", "+37052123456", None])
def test_a_guard_is_not_asked_about_what_is_no_number(guarded, api, number):
    asked = []
    guarded(lambda request, number: asked.append(number))
    assert post(api, START, phone_number=number).status_code == 400
    assert asked == []


def test_a_guard_is_not_asked_about_callers_who_may_not_start(guarded):
    asked = []
    guarded(lambda request, number: asked.append(number))
    assert post(APIClient(), START, phone_number=NUMBER).status_code == 403
    assert asked == []


def test_a_guards_answer_does_not_matter(guarded, api):
    guarded(lambda request, number: False)
    assert post(api, START, phone_number=NUMBER).status_code == 202
