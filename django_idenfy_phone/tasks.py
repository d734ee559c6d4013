"""Celery skin. A message is only a hint: the row is the queue, the sweep hints again.

No Celery setting of the host is needed or changed.
"""

import logging
import os
import threading
import time
import uuid
from typing import Any

from celery import Celery, current_app, shared_task
from django.core.checks import CheckMessage, Warning, register

from . import delivery, maintenance

logger = logging.getLogger(__name__)

# A broker that is down must not hold up the user who asks for a code.
PUBLISH_TIMEOUT = 0.5
PAUSE_AFTER_FAULT = 2.0
# Proxies between here and the broker forget an idle connection, some without a word.
KEEP_IDLE = 60.0
# What failed sooner was closed before; what failed later has used up the time.
CLOSED_BEFORE = 0.05
TRANSPORT_OPTIONS = {
    "max_retries": 0,
    "interval_start": 0,
    "interval_step": 0,
    "interval_max": 0,
}
REDIS_OPTIONS = {
    "socket_timeout": PUBLISH_TIMEOUT,
    "socket_connect_timeout": PUBLISH_TIMEOUT,
    "retry_on_timeout": False,
}
AMQP_OPTIONS = {
    "confirm_publish": True,
    "read_timeout": PUBLISH_TIMEOUT,
    "write_timeout": PUBLISH_TIMEOUT,
}

_thread = threading.local()
_paused_until = 0.0


@shared_task(name="django_idenfy_phone.send_code", ignore_result=True)
def send_code(*args: Any, **kwargs: Any) -> None:
    """Send the row of this id. Safe to run any number of times.

    Takes whatever a message of an older or newer release may hold.
    """
    try:
        pk = uuid.UUID(args[0])
    except (IndexError, TypeError, AttributeError, ValueError):
        logger.warning("A send_code message without a verification id was dropped.")
        return
    delay = delivery.deliver(pk)
    if delay is not None:
        hint(pk, countdown=delay)


@shared_task(name="django_idenfy_phone.sweep", ignore_result=True)
def sweep() -> None:
    """Every 30 s: settle, announce and hint what was left behind."""
    for pk in maintenance.sweep():
        if not hint(pk):
            break


def hint(pk: uuid.UUID, *, countdown: float | None = None) -> bool:
    """Tell a worker that a row waits. Whether it was told; never raises, never waits
    long: a hint that is lost costs only the time until the next sweep."""
    global _paused_until
    if time.monotonic() < _paused_until:
        return False
    started = time.monotonic()
    try:
        _publish(pk, countdown)
    except Exception as error:
        # Not the text: it may hold the broker's password.
        logger.warning(
            "Publishing failed (%s): the sweep hints again.", type(error).__name__
        )
        _drop_connection()
        _paused_until = time.monotonic() + PAUSE_AFTER_FAULT
        return False
    is_slow = time.monotonic() - started > PUBLISH_TIMEOUT
    # An eager task is the sending itself, and no broker is slow.
    if is_slow and not send_code.app.conf.task_always_eager:
        _paused_until = time.monotonic() + PAUSE_AFTER_FAULT
    return True


def _publish(pk: uuid.UUID, countdown: float | None) -> None:
    """Once more where a kept connection turns out to be closed: two hints are as good
    as one."""
    is_kept = _is_kept()
    started = time.monotonic()
    try:
        _send_message(pk, countdown)
    except Exception:
        if not is_kept or time.monotonic() - started > CLOSED_BEFORE:
            raise
        _drop_connection()
        _send_message(pk, countdown)


def _send_message(pk: uuid.UUID, countdown: float | None) -> None:
    is_eager = send_code.app.conf.task_always_eager
    send_code.apply_async(
        (str(pk),),
        countdown=countdown or 0,
        producer=None if is_eager else _producer(),
        retry=False,
        ignore_result=True,
    )


def _producer() -> Any:
    """One connection a thread and process, kept while it is healthy and in use."""
    if not _is_kept():
        _drop_connection()
        app: Celery = send_code.app
        _thread.connection = _connection(app)
        _thread.producer = app.amqp.Producer(_thread.connection, auto_declare=False)
        _thread.owner = (os.getpid(), app)
    _thread.used_at = time.monotonic()
    return _thread.producer


def _is_kept() -> bool:
    is_own = getattr(_thread, "owner", None) == (os.getpid(), send_code.app)
    return is_own and time.monotonic() - _thread.used_at < KEEP_IDLE


def _connection(app: Celery) -> Any:
    probe = app.connection_for_write()
    options: dict[str, Any] = dict(TRANSPORT_OPTIONS)
    if probe.transport.driver_type == "redis":
        options |= REDIS_OPTIONS
    elif probe.transport.driver_type == "amqp":
        options |= AMQP_OPTIONS
    return app.connection_for_write(
        connect_timeout=PUBLISH_TIMEOUT,
        transport_options={**(probe.transport_options or {}), **options},
    )


def _drop_connection() -> None:
    process, _app = getattr(_thread, "owner", None) or (None, None)
    _thread.owner = None
    # One from before a fork is the parent's.
    if process != os.getpid():
        return
    connection = _thread.connection
    try:
        if connection.transport.driver_type == "amqp":
            # Without the closing words, which a frozen broker would not answer.
            connection.collect()
        else:
            connection.release()
    except Exception:
        logger.exception("The broken broker connection could not be closed.")


@register
def check_celery_app(**kwargs: Any) -> list[CheckMessage]:
    """Here and not in ``checks``, since only this module imports celery."""
    if current_app.main != "default":
        return []
    return [
        Warning(
            "No Celery app is configured, so the sends go to Celery's default broker.",
            hint="Define a Celery app and import it in your project's __init__.py.",
            id="django_idenfy_phone.W003",
        )
    ]
