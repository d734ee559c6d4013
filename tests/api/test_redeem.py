"""A proof is redeemed once; then only the user who redeemed it sees the row."""

import uuid
from copy import copy
from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.db import transaction
from django.utils import timezone

from django_idenfy_phone import services
from django_idenfy_phone.exceptions import AlreadyRedeemed, NotVerified, UnknownUser
from django_idenfy_phone.models import PhoneVerification
from support.constants import NUMBER
from support.steps import client_of, detail_url, post_code, response_without_time

pytestmark = pytest.mark.django_db

rows = PhoneVerification.objects


def redeem(row, user):
    return services.redeem_verification(row, user=user, purpose="signup")


def test_redeeming_sets_the_user_of_an_anonymous_proof(anonymous_proof, other_user):
    row = redeem(anonymous_proof, other_user)
    assert (row.user, row.is_anonymous) == (other_user, True)
    assert timezone.now() - row.redeemed_at < timedelta(minutes=1)


def test_redeeming_changes_only_redeemed_at_and_user(anonymous_proof, other_user):
    before = rows.filter(pk=anonymous_proof.pk).values().get()
    redeem(anonymous_proof, other_user)
    after = rows.filter(pk=anonymous_proof.pk).values().get()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"redeemed_at", "user_id"}


def test_proof_is_redeemed_only_once(anonymous_proof, other_user, user):
    redeem(anonymous_proof, other_user)
    for redeemer in (other_user, user):
        with pytest.raises(AlreadyRedeemed):
            redeem(anonymous_proof, redeemer)
    anonymous_proof.refresh_from_db()
    assert anonymous_proof.user == other_user


@pytest.mark.parametrize("make_user", [AnonymousUser, lambda: get_user_model()()])
def test_proof_is_not_redeemed_for_a_user_who_is_not_saved(anonymous_proof, make_user):
    with pytest.raises(UnknownUser):
        redeem(anonymous_proof, make_user())
    anonymous_proof.refresh_from_db()
    assert anonymous_proof.redeemed_at is None


def test_redeemed_row_still_counts_as_verified(anonymous_proof, other_user):
    redeem(anonymous_proof, other_user)
    found = rows.verified(user=other_user, phone_number=NUMBER)
    assert found.get() == anonymous_proof


@pytest.mark.django_db(transaction=True)
def test_redeeming_is_rolled_back_with_the_transaction_of_the_host(
    anonymous_proof, django_user_model
):
    with transaction.atomic():
        vita = django_user_model.objects.create_user("vita")
        redeem(anonymous_proof, vita)
        transaction.set_rollback(True)
    anonymous_proof.refresh_from_db()
    assert (anonymous_proof.redeemed_at, anonymous_proof.user) == (None, None)
    assert not django_user_model.objects.filter(username="vita").exists()


@pytest.mark.django_db(transaction=True)
def test_proof_can_be_redeemed_after_a_rollback(anonymous_proof, other_user):
    with transaction.atomic():
        redeem(anonymous_proof, other_user)
        transaction.set_rollback(True)
    redeem(anonymous_proof, other_user)


@pytest.mark.django_db(transaction=True)
def test_refused_redemption_leaves_the_transaction_of_the_host_usable(
    proof, other_user
):
    with transaction.atomic():
        with pytest.raises(NotVerified):
            services.redeem_verification(proof(), user=other_user)
        other_user.first_name = "Rasa"
        other_user.save()
    other_user.refresh_from_db()
    assert other_user.first_name == "Rasa"


def test_anonymous_row_is_visible_to_anyone_before_it_is_redeemed(
    anonymous_proof, allow_anonymous, user
):
    url = detail_url(anonymous_proof)
    responses = [client_of(caller).get(url) for caller in (None, user)]
    assert [each.status_code for each in responses] == [200, 200]


def test_redeemed_row_is_visible_to_its_user(redeemed, other_user):
    assert client_of(other_user).get(detail_url(redeemed)).status_code == 200


@pytest.mark.parametrize("is_logged_in", [True, False])
def test_redeemed_row_is_hidden_from_everybody_else(redeemed, user, is_logged_in):
    client = client_of(user if is_logged_in else None)
    response = client.get(detail_url(redeemed))
    unknown = client.get(f"/phone/{uuid.uuid4()}/")
    assert response_without_time(response) == response_without_time(unknown)
    assert response.status_code == 404


def test_redeemed_row_of_a_deleted_user_is_hidden_from_everybody(
    redeemed, other_user, user
):
    # A token outlives its user.
    deleted = copy(other_user)
    other_user.delete()
    url = detail_url(redeemed)
    responses = [client_of(caller).get(url) for caller in (None, user, deleted)]
    assert [each.status_code for each in responses] == [404, 404, 404]


def test_redeemed_row_cannot_be_confirmed_by_others(redeemed, user):
    responses = [post_code(client_of(caller), redeemed) for caller in (None, user)]
    assert [each.status_code for each in responses] == [404, 404]
