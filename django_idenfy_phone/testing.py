"""For the tests of a host project: iDenfy's stand-in, and time that passes.

Put ``pytest_plugins = ["django_idenfy_phone.testing"]`` into your ``conftest.py``.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from django.db.models import DateTimeField
from pytest_django import Settings

from . import delivery
from .models import PhoneVerification, Status
from .sandbox.server import SandboxServer


class Sandbox(SandboxServer):
    def code_for(self, phone_number: str) -> str:
        """The newest code sent to an E.164 number.

        Delivers queued rows first, so no worker is needed. Raises LookupError where
        no SMS was sent.
        """
        rows = PhoneVerification.objects.primary().filter(status=Status.QUEUED)
        for pk in list(rows.order_by("created_at").values_list("pk", flat=True)):
            delivery.deliver(pk)
        return self.state.code_for(phone_number)


@pytest.fixture
def idenfy_sandbox(settings: Settings) -> Iterator[Sandbox]:
    """A stand-in of iDenfy on a free loopback port; the settings point to it."""
    with Sandbox(api_key="test-key", api_secret="test-secret", port=0) as sandbox:
        settings.IDENFY_PHONE_API_URL = sandbox.url
        settings.IDENFY_PHONE_API_KEY = "test-key"
        settings.IDENFY_PHONE_API_SECRET = "test-secret"
        yield sandbox


def age(verification: PhoneVerification, by: timedelta) -> None:
    """Make a verification older, as if that much time had passed."""
    moved: dict[str, datetime] = {}
    verification.refresh_from_db()
    for field in PhoneVerification._meta.concrete_fields:
        moment = getattr(verification, field.attname)
        if isinstance(field, DateTimeField) and moment is not None:
            moved[field.attname] = moment - by
    PhoneVerification.objects.primary().filter(pk=verification.pk).update(**moved)
    verification.refresh_from_db()
