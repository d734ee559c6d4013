"""A worker that includes this dies at KILL_POINT, whole and at once, as by kill -9."""

import os
import signal
import sys
from urllib.parse import urlsplit

from celery.signals import task_prerun
from django.conf import settings
from django.db.backends.signals import connection_created

POINT = os.environ["KILL_POINT"]


def die(*args, **kwargs):
    os.killpg(0, signal.SIGKILL)


def inside_claim(execute, sql, *args):
    """The row is claimed, and nothing committed."""
    result = execute(sql, *args)
    if sql.startswith("UPDATE") and "send_attempts" in sql and "+" in sql:
        die()
    return result


def before_post(event, args):
    """The claim is committed, and nothing written to iDenfy."""
    if event == "socket.connect":
        address = args[1]
        if isinstance(address, tuple) and address[1] == PORT:
            die()


def after_answer(execute, sql, *args):
    """iDenfy gave a request_id, and it is not stored."""
    if sql.startswith("UPDATE") and "request_id" in sql:
        die()
    return execute(sql, *args)


def wrap(connection, **kwargs):
    connection.execute_wrappers.append(WRAPPERS[POINT])


PORT = urlsplit(settings.IDENFY_PHONE_API_URL).port
WRAPPERS = {"inside claim": inside_claim, "after answer": after_answer}

if POINT == "before claim":
    task_prerun.connect(die)
elif POINT == "before POST":
    sys.addaudithook(before_post)
else:
    connection_created.connect(wrap)
