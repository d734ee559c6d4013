import uuid

import pytest

from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.signals import phone_verified
from support.constants import NUMBER

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_number_is_verified_from_start_to_signal(api, user, idenfy_sandbox):
    heard = []

    def receiver(verification, user, **kwargs):
        heard.append((verification.pk, user))

    phone_verified.connect(receiver)
    started = api.post("/phone/start/", {"phone_number": NUMBER}, format="json")
    code = idenfy_sandbox.code_for(NUMBER)
    url = f"{started['Location']}confirm/"
    confirmed = api.post(url, {"code": code}, format="json")
    assert confirmed.json()["is_verified"] is True
    assert heard == [(uuid.UUID(started.json()["id"]), user)]
    assert PhoneVerification.objects.verified(user=user, phone_number=NUMBER).exists()
