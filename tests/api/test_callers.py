"""Anonymous visitors and token users see and confirm their own verifications only."""

from types import SimpleNamespace

import pytest

from django_idenfy_phone.models import PhoneVerification
from support.constants import NUMBER
from support.steps import (
    client_of,
    detail_url,
    post_code,
    post_start,
    status_and_body,
    verification_body,
)

pytestmark = pytest.mark.django_db


def client_of_token_user(pk):
    """A client whose user stands in a token and was never read from the database."""
    return client_of(SimpleNamespace(pk=pk, is_authenticated=True))


def test_visitor_starts_confirms_and_reads(visitor, idenfy_sandbox):
    started = post_start(visitor)
    row = PhoneVerification.objects.get()
    confirmed = post_code(visitor, row, idenfy_sandbox.code_for(NUMBER))
    assert (started.status_code, row.user, row.is_anonymous) == (202, None, True)
    body = verification_body(row, is_verified=True)
    assert status_and_body(confirmed) == (200, body)
    shown = visitor.get(started["Location"])
    assert status_and_body(shown) == status_and_body(confirmed)


def test_logged_in_user_confirms_an_anonymous_verification(
    visitor, api, idenfy_sandbox
):
    post_start(visitor)
    row = PhoneVerification.objects.get()
    confirmed = post_code(api, row, idenfy_sandbox.code_for(NUMBER))
    body = verification_body(row, is_verified=True)
    assert status_and_body(confirmed) == (200, body)
    assert (row.user, row.is_anonymous) == (None, True)


def test_start_of_a_logged_in_user_is_not_anonymous(visitor, api, user, idenfy_sandbox):
    post_start(api)
    row = PhoneVerification.objects.get()
    assert (row.user, row.is_anonymous) == (user, False)
    assert visitor.get(detail_url(row)).status_code == 404


def test_allow_anonymous_is_read_at_each_request(visitor, settings, make):
    row = make(user=None, is_anonymous=True)
    assert visitor.get(detail_url(row)).status_code == 200
    settings.IDENFY_PHONE_ALLOW_ANONYMOUS = False
    assert visitor.get(detail_url(row)).status_code == 403


@pytest.mark.parametrize("key_type", [int, str])
def test_token_user_starts_confirms_and_reads(user, idenfy_sandbox, key_type):
    client = client_of_token_user(key_type(user.pk))
    started = post_start(client)
    row = PhoneVerification.objects.get()
    confirmed = post_code(client, row, idenfy_sandbox.code_for(NUMBER))
    assert (started.status_code, row.user) == (202, user)
    body = verification_body(row, is_verified=True)
    assert status_and_body(confirmed) == (200, body)
    shown = client.get(started["Location"])
    assert status_and_body(shown) == status_and_body(confirmed)


def test_other_token_user_gets_404(make, user):
    other = client_of_token_user(user.pk + 1)
    assert other.get(detail_url(make())).status_code == 404


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("pk", [999_999, "auth0|abc"])
def test_start_of_a_token_user_without_a_database_row_answers_403(wire, pk):
    refused = post_start(client_of_token_user(pk))
    assert (refused.status_code, refused.json()["code"]) == (403, "unknown_user")
    assert not PhoneVerification.objects.exists()
