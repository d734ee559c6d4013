"""A worker that includes this module kills its process group at KILL_POINT."""

import os
import signal
import sys
from urllib.parse import urlsplit

from celery.signals import task_prerun
from django.conf import settings
from django.db.backends.signals import connection_created

POINT = os.environ["KILL_POINT"]


def kill_own_group(*args, **kwargs):
    os.killpg(0, signal.SIGKILL)


def inside_claim(execute, sql, *args):
    """The row is claimed, but the claim is not committed yet."""
    result = execute(sql, *args)
    if sql.startswith("UPDATE") and "lease_until" in sql:
        kill_own_group()
    return result


def before_post(event, args):
    """The claim is committed, but nothing was sent to iDenfy yet."""
    if event == "socket.connect":
        address = args[1]
        if isinstance(address, tuple) and address[1] == PORT:
            kill_own_group()


def after_answer(execute, sql, *args):
    """iDenfy returned a request_id, but it is not stored yet."""
    if sql.startswith("UPDATE") and "request_id" in sql:
        kill_own_group()
    return execute(sql, *args)


def wrap_statements(connection, **kwargs):
    connection.execute_wrappers.append(WRAPPERS[POINT])


PORT = urlsplit(settings.IDENFY_PHONE_API_URL).port
WRAPPERS = {"inside claim": inside_claim, "after answer": after_answer}

if POINT == "before claim":
    task_prerun.connect(kill_own_group)
elif POINT == "before POST":
    sys.addaudithook(before_post)
else:
    connection_created.connect(wrap_statements)
