"""Confirms a code in a process that may kill itself when it stores the proof.

The arguments are the id of a row, the code, and "before" or "after" the UPDATE, or
"never".
"""

import os
import signal
import sys

import django

django.setup()

from django.db import connection  # noqa: E402

from django_idenfy_phone import services  # noqa: E402
from django_idenfy_phone.models import PhoneVerification  # noqa: E402
from django_idenfy_phone.signals import phone_verified  # noqa: E402


def receiver(**kwargs):
    """Without any, there is no signal to send."""


def main(pk, code, moment):
    def kill_self_at(now, sql):
        if now == moment and "is_verified = " in sql:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrapper(execute, sql, *rest):
        kill_self_at("before", sql)
        result = execute(sql, *rest)
        kill_self_at("after", sql)
        return result

    row = PhoneVerification.objects.get(pk=pk)
    phone_verified.connect(receiver)
    with connection.execute_wrapper(wrapper):
        services.confirm_verification(row.pk, code, user=row.user)


main(*sys.argv[1:])
