"""For the tests of a host project: a stand-in for iDenfy, and time that passes.

Put ``pytest_plugins = ["django_idenfy_phone.testing"]`` into your ``conftest.py``.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db.models import DateTimeField, QuerySet

from . import delivery, gate
from .models import PhoneVerification
from .sandbox.server import SandboxServer
from .statuses import Status

if TYPE_CHECKING:
    # Only since pytest-django 4.13.
    from pytest_django import Settings


class Sandbox(SandboxServer):
    def code_for(self, phone_number: str) -> str:
        """The newest code sent to an E.164 number.

        Delivers queued rows first, so no worker is needed. Raises LookupError where
        no SMS was sent.
        """
        rows = PhoneVerification.objects.filter(status=Status.QUEUED)
        for pk in list(rows.order_by("created_at").values_list("pk", flat=True)):
            delivery.deliver(pk)
        return self.state.code_for(phone_number)


@pytest.fixture
def idenfy_sandbox(settings: "Settings") -> Iterator[Sandbox]:
    """A stand-in for iDenfy on a free loopback port; the settings point to it."""
    with Sandbox(api_key="test-key", api_secret="test-secret", port=0) as sandbox:
        settings.IDENFY_PHONE_API_URL = sandbox.url
        settings.IDENFY_PHONE_API_KEY = "test-key"
        settings.IDENFY_PHONE_API_SECRET = "test-secret"
        yield sandbox


def age(verification: PhoneVerification, by: timedelta) -> None:
    """Make a verification older, as if that much time had passed.

    The gate that paces and pauses all sends ages with it.
    """
    verification.refresh_from_db()
    for row in (verification, gate.current()):
        moments = {
            field.attname: getattr(row, field.attname) - by
            for field in row._meta.concrete_fields
            if isinstance(field, DateTimeField) and getattr(row, field.attname)
        }
        rows: QuerySet[Any] = type(row)._default_manager.using(verification._state.db)
        rows.filter(pk=row.pk).update(**moments)
    verification.refresh_from_db()
