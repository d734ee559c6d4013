"""Answers speak the language of the request, where the host has LocaleMiddleware."""

import pytest
from django.forms import ValidationError
from django.utils import translation

from django_idenfy_phone.forms import VerifiedPhoneField
from support.steps import START_URL, post_start, start, status_and_body

pytestmark = pytest.mark.django_db

# Japanese has no catalogue here.
BEGINNINGS = {
    "de": "Bitte geben Sie eine Mobilfunknummer",
    "es": "Introduzca un número de teléfono",
    "fr": "Veuillez saisir un numéro de téléphone",
    "lt": "Įveskite mobiliojo telefono numerį",
    "ja": "Enter a mobile phone number",
}


@pytest.fixture(autouse=True)
def _locale_middleware(settings):
    name = "django.middleware.locale.LocaleMiddleware"
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, name]
    # It leaves the language of its last request active in this thread.
    with translation.override(None):
        yield


@pytest.fixture
def german(api):
    api.defaults["HTTP_ACCEPT_LANGUAGE"] = "de-AT,de;q=0.9"
    return api


@pytest.mark.parametrize("language", BEGINNINGS)
def test_error_of_a_field_is_in_the_language_of_the_request(api, language):
    refused = post_start(api, number="12", HTTP_ACCEPT_LANGUAGE=language)
    [text] = refused.json()["phone_number"]
    assert text.startswith(BEGINNINGS[language])


def test_refused_start_is_in_german(german, wire, user):
    row = start(user)
    refused = post_start(german)
    assert status_and_body(refused) == (
        429,
        {
            "detail": "Es wurde gerade erst ein Code angefordert. Bitte warten Sie, "
            "bevor Sie einen neuen anfordern.",
            "code": "cooldown",
            "retry_after": int(refused["Retry-After"]),
            "id": str(row.pk),
            "url": f"/phone/{row.pk}/",
        },
    )


def test_error_of_the_body_is_in_german(german):
    refused = german.generic("POST", START_URL, b"[]", "application/json")
    assert status_and_body(refused) == (
        400,
        {
            "detail": "Der Inhalt der Anfrage muss ein JSON-Objekt sein.",
            "code": "parse_error",
        },
    )


def test_error_of_a_form_is_in_the_active_language():
    with translation.override("lt"), pytest.raises(ValidationError) as error:
        VerifiedPhoneField().clean("no token")
    assert error.value.messages == ["Pirmiausia patvirtinkite savo telefono numerį."]
