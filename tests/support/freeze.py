"""Sends or starts in a process that stops itself while it holds its locks.

The arguments are "claim" and the id of a row, or "start", a number and a network. After
SIGCONT it prints what came of it. Its locks are bounded by one second.
"""

import os
import signal
import sys
import uuid
from datetime import timedelta

import django

django.setup()

from django.db import connection  # noqa: E402

from django_idenfy_phone import delivery, services, transactions  # noqa: E402


def claim(pk):
    return delivery.deliver(uuid.UUID(pk))


def start(number, network):
    return services.start_verification(number, network=network).status


STEPS = {"claim": (claim, "claimed_at"), "start": (start, "startlock")}


def main(name, *arguments):
    """Stop after the first statement that holds a lock and has the word in it."""
    step, word = STEPS[name]
    left = [signal.SIGSTOP]

    def stop(execute, sql, *rest):
        result = execute(sql, *rest)
        if word in sql and not sql.startswith("SELECT") and left:
            os.kill(os.getpid(), left.pop())
        return result

    transactions.LOCK_TIMEOUT = timedelta(seconds=1)
    with connection.execute_wrapper(stop):
        try:
            print(step(*arguments))
        except Exception as error:
            print(type(error).__name__)


main(*sys.argv[1:])
