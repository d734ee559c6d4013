"""Steps that many tests take: a start, a request, a look at a row or at the log."""

import json
import logging
import os
import re
import subprocess
import sys
import threading
from contextlib import suppress
from datetime import UTC, timedelta

import pytest
from rest_framework.test import APIClient

from django_idenfy_phone import announce, maintenance, services, tasks
from django_idenfy_phone.exceptions import CooldownActive, LimitReached
from django_idenfy_phone.models import PhoneVerification
from support.brokers import wait_until
from support.constants import NUMBER

START_URL = "/phone/start/"
CURRENT_URL = "/phone/current/"


def start(user, number=NUMBER, **options):
    """Start a verification by the service; ``user`` None is an anonymous visitor."""
    return services.start_verification(number, user=user, **options)


def post_json(client, url, body, **headers):
    """POST ``body`` as JSON, with WSGI headers such as ``REMOTE_ADDR``."""
    raw = json.dumps(body).encode()
    return client.generic("POST", url, raw, "application/json", **headers)


def outcome(row):
    """The stored failure of a row, or its status where it did not fail."""
    row.refresh_from_db()
    return row.failure or row.status


def logged_levels(caplog):
    """The levels of all log records from WARNING on, oldest first."""
    return [r.levelname for r in caplog.records if r.levelno >= logging.WARNING]


# A row with one of these failures sent nothing, so it does not count.
UNSENT_FAILURES = ["account", "unreachable", "rate_limited", "too_late"]


def start_and_expire(user, number=NUMBER, **options):
    """Start, and expire the row: a queued one fails when the clock moves on."""
    row = start(user, number, **options)
    PhoneVerification.objects.filter(pk=row.pk).update(status="expired")
    return row


def refusal_of(user, number=NUMBER, **options):
    """The error code and the wait of a start that must be refused."""
    with pytest.raises((CooldownActive, LimitReached)) as caught:
        start(user, number, **options)
    return caught.value.code, caught.value.retry_after


def code_and_wait(response):
    """The error code and the wait in seconds of a 429, equal in header and body."""
    body = response.json()
    assert response.status_code == 429
    assert re.fullmatch("[1-9][0-9]*", response["Retry-After"])
    assert int(response["Retry-After"]) == body["retry_after"]
    return body["code"], body["retry_after"]


def logged_messages(caplog):
    """The level and text of all log records from WARNING on, oldest first."""
    records = [r for r in caplog.records if r.levelno >= logging.WARNING]
    return [(r.levelname, r.getMessage()) for r in records]


# NUMBER, as the API and the admin show it.
MASKED_NUMBER = "+370******67"

NO_CACHE = "max-age=0, no-cache, no-store, must-revalidate, private"


def client_of(user):
    """A client logged in as ``user``; None is an anonymous visitor."""
    client = APIClient()
    if user is not None:
        client.force_authenticate(user)
    return client


def detail_url(row):
    return f"/phone/{row.pk}/"


def confirm_url(row):
    return f"/phone/{row.pk}/confirm/"


def post_start(client, url=START_URL, number=NUMBER, **headers):
    return post_json(client, url, {"phone_number": number}, **headers)


def post_code(client, row, code="1234"):
    return post_json(client, confirm_url(row), {"code": code})


def status_and_body(response):
    return response.status_code, response.json()


def response_without_time(response):
    """Status, headers and raw body, without the one header that holds the time."""
    headers = {k: v for k, v in response.headers.items() if k != "Expires"}
    return response.status_code, headers, response.content


def utc_text(moment):
    """A time as the API writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if moment else None


def verification_body(row, **changes):
    """The whole JSON of a verification; ``changes`` replace its default values."""
    row.refresh_from_db()
    return {
        "id": str(row.pk),
        "url": detail_url(row),
        "status": row.status,
        "is_verified": False,
        "phone_number": MASKED_NUMBER,
        "purpose": "",
        "checks_left": 0,
        "code_spent": False,
        "created_at": utc_text(row.created_at),
        "expires_at": utc_text(row.expires_at),
        "resend_at": utc_text(row.created_at + timedelta(seconds=60)),
        "failure": None,
    } | changes


def sends_checks_and_rows(sandbox):
    """Count the SMS and the checks that iDenfy got, and list the stored rows."""
    rows = PhoneVerification.objects.values_list("status", "checks")
    return sandbox.state.sends, sandbox.state.checks, list(rows)


# As sends_checks_and_rows returns it.
NOTHING_STORED = (0, 0, [])


def named_cases(cases):
    """Arguments of parametrize for a dict of values, with its keys as ids."""
    return {"argvalues": list(cases.values()), "ids": list(cases)}


def write_files(folder, files):
    """Write a small project: ``files`` maps each relative path to its text."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


def run_module(folder, *command, **environment):
    """Run ``python -m`` in a project folder, which comes first on its path."""
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def dispatched_by_sweep():
    """The ids that one sweep dispatches, in its order."""
    pks = []
    maintenance.sweep(lambda pk: pks.append(pk) or True)
    return pks


def receivers_ended():
    """Whether no thread runs receivers in the background any more."""
    return all(t.name != announce.THREAD_NAME for t in threading.enumerate())


def eventually(is_true, tries=30):
    """Wait until it is true. Sweeps, since a publish may fail on a busy machine."""
    for _ in range(tries):
        with suppress(TimeoutError):
            return wait_until(is_true, seconds=2)
        tasks.sweep()
    raise TimeoutError(f"{is_true} stayed false")
