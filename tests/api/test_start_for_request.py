"""A view of the host starts with the same guard, network and keys as StartView."""

import pytest
from django.test import RequestFactory

from django_idenfy_phone import services
from django_idenfy_phone.models import PhoneVerification, StartLock
from support.constants import NUMBER
from support.steps import refusal_of

pytestmark = pytest.mark.django_db
KEY = "3f1c9a4e-key-of-a-form"
SOLVED = {"phone_number": "+370 612 34567", "captcha": "solved"}


@pytest.fixture
def forms_host(settings, idenfy_sandbox):
    """See hosts/plain_forms.py."""
    settings.ROOT_URLCONF = "hosts.plain_forms"
    settings.IDENFY_PHONE_START_GUARD = "hosts.plain_forms.captcha"


@pytest.fixture
def page(client, user, forms_host):
    """Post a form as a logged-in user."""
    client.force_login(user)

    def page(body, **headers):
        return client.post("/start/", body, **headers)

    return page


def test_form_starts_for_its_user(page, user, idenfy_sandbox):
    assert page(SOLVED).status_code == 201
    row = PhoneVerification.objects.get()
    found = row.phone_number.as_e164, row.user, row.is_anonymous, row.purpose
    assert found == (NUMBER, user, False, "form")
    assert len(idenfy_sandbox.code_for(NUMBER)) == 4


def test_guard_refuses_a_form(page):
    assert page({"phone_number": NUMBER}).status_code == 403
    assert (PhoneVerification.objects.count(), StartLock.objects.count()) == (0, 0)


def test_guard_is_not_called_again_for_a_repeated_form(page):
    first = page(SOLVED | {"key": KEY})
    # The solution of a captcha is good only once.
    repeated = page({"phone_number": NUMBER, "key": KEY})
    assert (first.status_code, repeated.status_code) == (201, 200)
    assert first.content == repeated.content
    assert PhoneVerification.objects.count() == 1


def test_guard_is_called_for_a_form_with_another_key(page):
    page(SOLVED | {"key": KEY})
    assert page({"phone_number": NUMBER, "key": KEY[::-1]}).status_code == 403


def test_form_shows_why_a_start_is_refused(page):
    page(SOLVED)
    assert "Please wait before the next one" in page(SOLVED).text
    wrong = page(SOLVED | {"phone_number": "nonsense"})
    assert "Enter a mobile phone number" in wrong.text


@pytest.mark.parametrize(
    ("proxies", "network"), [(None, "8.8.4.4"), (1, "8.8.8.8"), (2, "9.9.9.9")]
)
def test_network_of_a_form_is_as_far_as_num_proxies_says(
    page, settings, proxies, network
):
    settings.REST_FRAMEWORK = {"NUM_PROXIES": proxies}
    forwarded = "1.1.1.1, 9.9.9.9, 8.8.8.8"
    page(SOLVED, REMOTE_ADDR="8.8.4.4", HTTP_X_FORWARDED_FOR=forwarded)
    assert PhoneVerification.objects.get().network == network


def test_limit_of_a_network_holds_for_forms(page, settings, other_user):
    settings.IDENFY_PHONE_SEND_LIMITS = {"network": ("1/h",)}
    page(SOLVED, REMOTE_ADDR="8.8.8.8")
    code, _wait = refusal_of(other_user, "+37061234568", network="8.8.8.8")
    assert code == "limit_reached"


def test_request_without_a_user_starts_anonymously(forms_host):
    request = RequestFactory().post("/start/", SOLVED)
    row = services.start_for_request(request, NUMBER)
    assert (row.user, row.is_anonymous, row.is_repeated) == (None, True, False)
