from types import SimpleNamespace

import pytest
from rest_framework.test import APIClient

from django_idenfy_phone.models import PhoneVerification
from support.constants import NUMBER

BODY = {"phone_number": NUMBER}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("pk", [999_999, "auth0|abc"])
def test_a_token_may_outlive_its_user(wire, pk):
    api = APIClient()
    api.force_authenticate(SimpleNamespace(pk=pk, is_authenticated=True))
    answer = api.post("/phone/start/", BODY, format="json")
    assert (answer.status_code, answer.json()["code"]) == (403, "unknown_user")
    assert not PhoneVerification.objects.exists()
