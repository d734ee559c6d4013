"""Signals, and who sends them: ``announce``, and ``ownership`` for its own."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from inspect import unwrap
from typing import Any

from asgiref.sync import async_to_sync
from django.db import connections, transaction
from django.dispatch import Signal

from .alarms import alarm

logger = logging.getLogger(__name__)

Receivers = list[Callable[..., Any]]


class RobustSignal(Signal):
    """``send_robust`` goes on past any receiver.

    Django's own reads ``receiver.__qualname__``, which a partial or a callable object
    lacks: that error would keep later receivers from running. In an open transaction,
    as in a TestCase, so would a database error.
    """

    def _live_receivers(self, sender: Any) -> tuple[Receivers, Receivers]:
        receivers, async_receivers = super()._live_receivers(sender)
        if not _transactions():
            return receivers, async_receivers
        calls = [(each, name_of(each)) for each in receivers]
        calls += [(async_to_sync(each), name_of(each)) for each in async_receivers]
        return [_in_savepoint(call, name) for call, name in calls], []

    def _log_robust_failure(self, receiver: Callable[..., Any], err: Exception) -> None:
        log = partial(logger.error, exc_info=err)
        alarm(log, f"The receiver {name_of(receiver)} failed.")


def _transactions() -> list[Any]:
    """The connections of this thread with an open transaction."""
    opened = connections.all(initialized_only=True)
    return [connection for connection in opened if connection.in_atomic_block]


def _in_savepoint(call: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Call a receiver; where it fails, its own queries are undone, and no others."""

    def call_in_savepoint(**named: Any) -> Any:
        with ExitStack() as savepoints:
            for connection in _transactions():
                savepoint: Any = transaction.atomic(connection.alias)
                # A durable block may stand in that of a TestCase, so in this one too.
                savepoint._from_testcase = connection.atomic_blocks[-1]._from_testcase
                savepoints.enter_context(savepoint)
            return call(**named)

    module, _dot, own_name = name.rpartition(".")
    call_in_savepoint.__module__, call_in_savepoint.__qualname__ = module, own_name
    return call_in_savepoint


def name_of(receiver: Callable[..., Any]) -> str:
    """Where a receiver is defined, such as "accounts.receivers.remember".

    For a partial or a wrapper, its function; for a callable object, its class.
    """
    receiver = unwrap(receiver)
    while isinstance(receiver, partial):
        receiver = unwrap(receiver.func)
    named: Any = receiver if hasattr(receiver, "__qualname__") else type(receiver)
    return f"{named.__module__}.{named.__qualname__}"


# Sent once a number is proven, after the commit and before confirm answers.
# At least once: exactly once where no receiver fails or takes over two minutes, and no
# process dies. When one fails, all run again later, from the sweep: receivers must be
# idempotent. Signals of two verifications may come in any order: compare verified_at.
#
# Arguments:
#   verification: PhoneVerification
#   user: the user who started it; None for an anonymous one
phone_verified = RobustSignal()

# Sent once when an account loses its number, to another account or by release_number,
# after the commit. Not for an account that changes its own. Best effort: a process that
# dies in between loses it.
#
# Arguments:
#   sender: the owner's model
#   owner: the instance that held the number, as it is now
#   phone_number: str, E.164
phone_released = RobustSignal()

# Sent once when a start led to no usable code. Best effort: a process that dies in
# between loses it. A late true answer may still lift the row to verified.
#
# Arguments:
#   verification: PhoneVerification
#   failure: str, one of PhoneVerification.Failure
send_failed = RobustSignal()
