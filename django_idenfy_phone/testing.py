"""For the tests of a host project: a stand-in for iDenfy, and proofs without calls.

It serves Django's own test runner, unittest and pytest. The pytest fixture stands in
``pytest_plugin``.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.db.models import DateTimeField, QuerySet
from django.test import override_settings
from django.utils import timezone

from . import announce, delivery, gate, site
from .conf import conf
from .models import PhoneVerification
from .sandbox.server import SandboxServer
from .sandbox.state import Message
from .starting import Caller, StartRequest
from .statuses import Status
from .transitions import SEND_LEASE

API_KEY, API_SECRET = "test-key", "test-secret"


class Sandbox(SandboxServer):
    """A stand-in for iDenfy on a free loopback port. Numbers are E.164.

    ``sent``, ``code_for`` and ``expire`` first deliver what is queued, so no worker is
    needed.
    """

    def __init__(self) -> None:
        super().__init__(API_KEY, API_SECRET)

    @property
    def settings(self) -> dict[str, str]:
        """The settings that lead to it while it runs."""
        return {
            "IDENFY_PHONE_API_URL": self.url,
            "IDENFY_PHONE_API_KEY": API_KEY,
            "IDENFY_PHONE_API_SECRET": API_SECRET,
        }

    @property
    def sent(self) -> list[Message]:
        """Every SMS and call that has arrived, oldest first: see ``Message``."""
        _deliver_queued()
        return self.state.messages[::-1]

    def code_for(self, phone_number: str) -> str:
        """The newest code sent to a number. Raises LookupError where there is none."""
        _deliver_queued()
        return self.state.code_for(phone_number)

    def fail_next(self, identifier: str) -> None:
        """Answer the next request, a send or a check, with this error of iDenfy.

        Such as "BAD_VALUE", which refuses a number. Each call makes one more fail.
        """
        self.state.fail_next(identifier)

    def expire(self, phone_number: str) -> None:
        """Let the newest code to a number expire: CODE_LIFETIME passes for its row.

        Raises PhoneVerification.DoesNotExist for a number without a start.
        """
        _deliver_queued()
        rows = PhoneVerification.objects.filter(phone_number=phone_number)
        age(rows.latest("created_at"), conf.CODE_LIFETIME)


def _deliver_queued() -> None:
    rows = PhoneVerification.objects.filter(status=Status.QUEUED)
    for pk in list(rows.order_by("created_at").values_list("pk", flat=True)):
        delivery.deliver(pk)


@contextmanager
def sandbox() -> Iterator[Sandbox]:
    """Run a ``Sandbox`` that the settings point to, and stop it at the end."""
    # The rows of the test before are gone.
    site.forget()
    with Sandbox() as server, override_settings(**server.settings):
        yield server


def verify_number(
    user: Caller | None, number: str, *, purpose: str = ""
) -> PhoneVerification:
    """A verification that this user just confirmed, without SMS and limits.

    Runs the receivers of ``phone_verified`` as a confirm does, so one that fails is
    only logged. Counts as a send: a start for the number waits for its cooldown.
    ``user`` None is a visitor without a login. Raises NumberNotSupported or
    UnknownUser.
    """
    start = StartRequest.build(
        number, user=user, network="", purpose=purpose, idempotency_key=None
    )
    row, now = PhoneVerification.from_start(start, []), timezone.now()
    sent = {
        "status": Status.SENT,
        "request_id": uuid.uuid4().hex,
        "claimed_at": now,
        "lease_until": now + SEND_LEASE,
        "send_attempts": 1,
        "sent_at": now,
        "expires_at": now + conf.CODE_LIFETIME,
        "checks": 1,
    }
    row.apply(sent)
    row.save(force_insert=True)
    PhoneVerification.objects.mark_verified(row, timezone.now())
    announce.verified(row)
    return row


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
