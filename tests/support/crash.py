"""Sends and checks while the database fails during each request to iDenfy.

The argument is a class of ``support.postgres``, whose servers acknowledge commits too
early. Prints, as JSON, how many requests to send and to check reached iDenfy. Runs in
a process of its own.
"""

import json
import os
import sys
from collections import Counter
from contextlib import suppress
from datetime import timedelta

import django

from support import postgres
from support.brokers import LOOPBACK

servers = getattr(postgres, sys.argv[1])()
os.environ["DATABASE_URL"] = f"postgres://postgres@{LOOPBACK}:0/postgres"
os.environ["DJANGO_SETTINGS_MODULE"] = "hosts.project.settings"
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import Error, connection  # noqa: E402
from django.test import override_settings  # noqa: E402
from django.utils import timezone  # noqa: E402

from django_idenfy_phone import delivery, services  # noqa: E402
from django_idenfy_phone.exceptions import VerificationError  # noqa: E402
from django_idenfy_phone.models import PhoneVerification  # noqa: E402
from support import wire as w  # noqa: E402

rows = PhoneVerification.objects
now = timezone.now()


def fail_then(answer):
    def respond(sock):
        servers.fail()
        use_primary()
        answer(sock)

    return respond


def use_primary():
    connection.settings_dict["PORT"] = str(servers.primary.port)


def stored(**fields):
    row = rows.create(
        phone_number="+37060012345", region="LT", number_block="+3706001", **fields
    )
    connection.cursor().execute("CHECKPOINT")
    return row


def send_twice(wire):
    row = stored(send_by=now + timedelta(minutes=3))
    wire.will(fail_then(w.answer(200, {"request_id": "r" * 32})))
    for _ in range(2):
        servers.prepare()
        with suppress(Error):
            delivery.deliver(row.pk)
        connection.close()


def check_twice(wire):
    times = {"send_by": now, "sent_at": now, "expires_at": now + timedelta(minutes=10)}
    row = stored(status="sent", is_anonymous=True, request_id="c" * 32, **times)
    wire.will(fail_then(w.answer(200, {"is_verified": False})))
    for _ in range(2):
        servers.prepare()
        with suppress(Error, VerificationError):
            services.confirm_verification(row.pk, "1234", user=None)
        connection.close()


def main():
    use_primary()
    call_command("migrate", verbosity=0)
    with w.Wire() as wire:
        account = {"IDENFY_PHONE_API_KEY": "k", "IDENFY_PHONE_API_SECRET": "s"}
        one_check = {"IDENFY_PHONE_API_URL": wire.url, "IDENFY_PHONE_MAX_CHECKS": 1}
        with override_settings(**account, **one_check):
            send_twice(wire)
            check_twice(wire)
        print(json.dumps(Counter(request.path for request in wire.requests)))


try:
    main()
finally:
    servers.stop()
