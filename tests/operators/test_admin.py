from datetime import timedelta

import pytest

from django_idenfy_phone.testing import age

pytestmark = pytest.mark.django_db
LIST = "/admin/django_idenfy_phone/phoneverification/"


@pytest.fixture
def warnings(admin_client):
    return lambda: [str(text) for text in admin_client.get(LIST).context["messages"]]


def test_all_is_well(make, warnings):
    make("queued", network="8.8.8.8")
    assert warnings() == []


def test_a_code_that_waits_too_long_is_told(make, warnings):
    age(make("queued", network="8.8.8.8"), timedelta(minutes=2))
    (text,) = warnings()
    assert text.startswith("A code has been waiting to be sent for 2 min.")


def test_a_start_without_a_network_is_told(make, warnings):
    age(make("sent", network="8.8.8.8"), timedelta(minutes=1))
    make("sent")
    (text,) = warnings()
    assert text.startswith("The newest start has no client network")


def test_why_a_send_failed_is_shown(make, admin_client):
    row = make("failed", failure="number_refused", provider_code="BAD_VALUE")
    page = admin_client.get(f"{LIST}{row.pk}/change/").content.decode()
    assert "number refused by iDenfy" in page
    assert "BAD_VALUE" in page
