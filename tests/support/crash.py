"""Sends and checks while the database crashes during each request to iDenfy.

Prints, as JSON, how many requests to send and to check reached iDenfy. Runs in a
process of its own, with a PostgreSQL server that acknowledges commits too early.
"""

import json
import os
from collections import Counter
from contextlib import suppress
from datetime import timedelta

import django

from support.postgres import Postgres

server = Postgres()
server.start()
os.environ["DATABASE_URL"] = server.url
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


def crash_then(answer):
    def respond(sock):
        server.restart()
        answer(sock)

    return respond


def send_twice(wire):
    now = timezone.now()
    row = PhoneVerification.objects.create(
        phone_number="+37060012345", region="LT", number_block="+3706001", send_by=now
    )
    rows = PhoneVerification.objects.filter(pk=row.pk)
    rows.update(send_by=now + timedelta(minutes=3))
    connection.cursor().execute("CHECKPOINT")
    wire.will(crash_then(w.answer(200, {"request_id": "r" * 32})))
    for _ in range(2):
        with suppress(Error):
            delivery.deliver(row.pk)
        connection.close()
    return rows.get()


def check_often(wire, row):
    wire.will(crash_then(w.answer(200, {"is_verified": False})))
    for _ in range(5):
        with suppress(Error, VerificationError):
            services.confirm_verification(row.pk, "1234", user=None)
        connection.close()


def main():
    call_command("migrate", verbosity=0)
    with w.Wire() as wire:
        account = {"IDENFY_PHONE_API_KEY": "k", "IDENFY_PHONE_API_SECRET": "s"}
        with override_settings(IDENFY_PHONE_API_URL=wire.url, **account):
            row = send_twice(wire)
            row.is_anonymous = True
            row.save()
            connection.cursor().execute("CHECKPOINT")
            check_often(wire, row)
        print(json.dumps(Counter(request.path for request in wire.requests)))


try:
    main()
finally:
    server.stop()
