"""Steps that many tests take: a start, a request, a look at a row or at the log."""

import json
import logging

from django_idenfy_phone import services
from support.constants import NUMBER

START_URL = "/phone/start/"


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
