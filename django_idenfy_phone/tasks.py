"""Celery skin. A message is only a hint: the row is the queue, the sweep hints again.

No Celery setting of the host is needed or changed.
"""

import logging
import os
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
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
MAX_KEPT = 10
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

_paused_until = 0.0
# After a fault the next of several hosts comes first.
_faults = 0


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
    """Every 30 s: settle, hint and announce what was left behind."""
    maintenance.sweep(hint_patiently)


def hint_patiently(pk: uuid.UUID) -> bool:
    """As ``hint``, but a pause of publishing is waited out, where no user waits."""
    time.sleep(max(0, _paused_until - time.monotonic()))
    return hint(pk)


def hint(pk: uuid.UUID, *, countdown: float | None = None) -> bool:
    """Tell a worker that a row waits. Whether it was told; never raises, never waits
    long: a hint that is lost costs only the time until the next sweep."""
    global _paused_until, _faults
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
        _drop_links()
        # Threads that hung together have met one fault.
        _faults += started >= _paused_until
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
    app: Celery = send_code.app
    if app.conf.task_always_eager:
        _send_message(pk, countdown, None)
        return
    started = time.monotonic()
    if link := _kept_link(app):
        try:
            link.publish(pk, countdown)
        except Exception:
            if time.monotonic() - started > CLOSED_BEFORE:
                raise
        else:
            return
    _Link(app).publish(pk, countdown)


def _send_message(pk: uuid.UUID, countdown: float | None, producer: Any) -> None:
    send_code.apply_async(
        (str(pk),),
        countdown=countdown or 0,
        producer=producer,
        retry=False,
        ignore_result=True,
    )


class _Link:
    """A connection of our own to the broker, used by one thread at a time."""

    def __init__(self, app: Celery) -> None:
        self.app, self.process = app, os.getpid()
        self.connection = _connection(app)
        self.producer = app.amqp.Producer(self.connection, auto_declare=False)
        self.is_amqp = self.connection.transport.driver_name == "py-amqp"
        self.used_at = 0.0

    def publish(self, pk: uuid.UUID, countdown: float | None) -> None:
        try:
            if self.is_amqp and not self.connection.connected:
                self._connect()
            _send_message(pk, countdown, self.producer)
        except BaseException:
            self.close()
            raise
        self.used_at = time.monotonic()
        if len(_links) < MAX_KEPT:
            _links.append(self)
        else:
            self.close()

    def _connect(self) -> None:
        # Its own timeouts are options of the socket, which gevent does not heed.
        self.connection.default_channel  # noqa: B018
        self.connection.connection.transport.sock.settimeout(PUBLISH_TIMEOUT)

    def is_usable(self, app: Celery) -> bool:
        return self.app is app and time.monotonic() - self.used_at < KEEP_IDLE

    def close(self) -> None:
        try:
            if self.is_amqp:
                # Without the closing words, which a frozen broker would not answer.
                if self.connection.connected:
                    self.connection.connection.transport.sock.settimeout(0)
                self.connection.collect()
            else:
                self.connection.release()
        except Exception:
            logger.exception("The broken broker connection could not be closed.")


# Those that are healthy and not in use, the newest last. Its own methods are atomic.
_links: deque[_Link] = deque()


def _kept_link(app: Celery) -> _Link | None:
    for link in _taken_links():
        if link.is_usable(app):
            return link
        link.close()
    return None


def _drop_links() -> None:
    for link in _taken_links():
        link.close()


def _taken_links() -> Iterator[_Link]:
    with suppress(IndexError):
        while True:
            link = _links.pop()
            # One from before a fork is the parent's: it is forgotten, not closed.
            if link.process == os.getpid():
                yield link


def _connection(app: Celery) -> Any:
    probe = app.connection_for_write()
    options: dict[str, Any] = dict(TRANSPORT_OPTIONS)
    if probe.transport.driver_type == "redis":
        options |= REDIS_OPTIONS
    elif probe.transport.driver_name == "py-amqp":
        options |= AMQP_OPTIONS
    hosts = deque(probe.alt)
    hosts.rotate(-_faults)
    return app.connection_for_write(
        ";".join(hosts) or None,
        connect_timeout=PUBLISH_TIMEOUT,
        transport_options={**(probe.transport_options or {}), **options},
    )


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
