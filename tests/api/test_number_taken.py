"""A right code for a number that another account holds answers 409."""

import pytest
from django.utils import timezone

from django_idenfy_phone.models import PhoneVerification
from hosts.accounts.models import Profile
from support.constants import NUMBER
from support.steps import (
    detail_url,
    post_code,
    status_and_body,
    verification_body,
)
from support.wire import answer

pytestmark = pytest.mark.django_db
TAKEN = {
    "detail": "This phone number belongs to another account.",
    "code": "number_taken",
}


@pytest.fixture
def holder(other_user):
    """Another account, which holds NUMBER."""
    return Profile.objects.create(
        user=other_user, phone_number=NUMBER, phone_confirmed_at=timezone.now()
    )


@pytest.fixture
def owner(user, wire, settings):
    """The caller's account, whose codes are all right."""
    settings.IDENFY_PHONE_OWNER = "accounts.Profile.user"
    wire.will(answer(200, {"is_verified": True}))
    return Profile.objects.create(user=user)


def test_right_code_for_a_free_number_keeps_it(api, make, owner):
    row = make()
    confirmed = post_code(api, row)
    body = verification_body(row, status="verified", is_verified=True)
    assert status_and_body(confirmed) == (200, body)
    owner.refresh_from_db()
    assert owner.phone_number == NUMBER


def test_right_code_for_a_taken_number_answers_409(api, make, owner, holder):
    assert status_and_body(post_code(api, make())) == (409, TAKEN)
    owner.refresh_from_db()
    assert owner.phone_number is None


def test_repeated_confirm_answers_409_without_asking_idenfy(
    api, make, owner, holder, wire
):
    row = make()
    answers = [status_and_body(post_code(api, row)) for _ in range(3)]
    assert answers == [(409, TAKEN)] * 3
    assert len(wire.requests) == 1


def test_status_says_that_the_number_is_taken(api, make, owner, holder):
    row = make()
    post_code(api, row)
    body = verification_body(
        row, status="verified", is_verified=True, failure="number_taken"
    )
    assert status_and_body(api.get(detail_url(row))) == (200, body)


def test_outcome_outlives_the_holder(api, make, owner, holder):
    row = make()
    post_code(api, row)
    holder.delete()
    assert post_code(api, row).status_code == 409


def test_taken_number_moves_where_the_host_says_so(api, make, owner, holder, settings):
    settings.IDENFY_PHONE_TAKEN_NUMBER = "move"
    assert post_code(api, make()).status_code == 200
    owner.refresh_from_db()
    holder.refresh_from_db()
    assert (owner.phone_number, holder.phone_number) == (NUMBER, None)


def test_visitor_proves_a_taken_number(visitor, make, owner, holder):
    row = make(user=None, is_anonymous=True)
    assert post_code(visitor, row).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_atomic_requests_keep_the_outcome(api, make, owner, holder, atomic_requests):
    row = make()
    assert post_code(api, row).status_code == 409
    assert PhoneVerification.objects.get().number_taken is True
