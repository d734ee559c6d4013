"""Publishes messages over connections of its own, and gives up early.

A lost message costs only the time until the next sweep; a slow one delays a user.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

from celery import Celery

logger = logging.getLogger(__name__)

TRANSPORT_OPTIONS = {
    "max_retries": 0,
    "interval_start": 0,
    "interval_step": 0,
    "interval_max": 0,
}


class BrokerPublisher:
    """Publishes the messages of one task, in bounded time.

    It keeps at most MAX_KEPT healthy connections in each process. One thread uses a
    connection at a time, and none is used after a fork. After a fault nothing is
    published for PAUSE_SECONDS; then the next of several brokers is tried.
    """

    TIMEOUT_SECONDS = 0.5
    PAUSE_SECONDS = 2.0
    # Proxies between here and the broker drop an idle connection silently.
    MAX_IDLE_SECONDS = 60.0
    MAX_KEPT = 10
    # A publish that failed sooner met a connection that was closed before.
    CLOSED_BEFORE_SECONDS = 0.05

    def __init__(self, task: Any) -> None:
        self.task = task
        self._kept: deque[BrokerConnection] = deque()
        self._paused_until = 0.0
        self._faults = 0

    def publish(self, argument: str, countdown: timedelta = timedelta(0)) -> bool:
        """Tell a worker to run the task, ``countdown`` from now.

        Returns whether the message was published. Never raises and never waits for
        long: in a pause it returns False at once.
        """
        started = time.monotonic()
        if started < self._paused_until:
            return False
        try:
            self._publish(argument, countdown)
        except Exception as error:
            self._note_fault(error, started)
            return False
        # An eager task is the sending itself: no broker is slow.
        is_slow = time.monotonic() - started > self.TIMEOUT_SECONDS
        if is_slow and not self.task.app.conf.task_always_eager:
            self._paused_until = time.monotonic() + self.PAUSE_SECONDS
        return True

    def publish_blocking(self, argument: str) -> bool:
        """As ``publish``, but wait for the end of a pause first. For the sweep."""
        time.sleep(max(0, self._paused_until - time.monotonic()))
        return self.publish(argument)

    def reset(self) -> None:
        """Close the kept connections, and forget pause and faults."""
        self._close_kept()
        self._paused_until = 0.0
        self._faults = 0

    def _publish(self, argument: str, countdown: timedelta) -> None:
        app: Celery = self.task.app
        send = partial(
            self.task.apply_async,
            (argument,),
            countdown=countdown.total_seconds(),
            retry=False,
            ignore_result=True,
        )
        if app.conf.task_always_eager:
            send()
            return
        started = time.monotonic()
        if kept := self._take_kept(app):
            try:
                self._send_over(kept, send)
            except Exception:
                # A later error has used up the time.
                if time.monotonic() - started > self.CLOSED_BEFORE_SECONDS:
                    raise
            else:
                return
        # If the first try did arrive, a second message does no harm.
        new = BrokerConnection(app, self.TIMEOUT_SECONDS, skip=self._faults)
        self._send_over(new, send)

    def _send_over(
        self, connection: "BrokerConnection", send: Callable[..., object]
    ) -> None:
        try:
            connection.open()
            send(producer=connection.producer)
        except BaseException:
            connection.close()
            raise
        connection.used_at = time.monotonic()
        if len(self._kept) < self.MAX_KEPT:
            self._kept.append(connection)
        else:
            connection.close()

    def _take_kept(self, app: Celery) -> "BrokerConnection | None":
        """The usable connection that was used last, or None."""
        for connection in self._pop_kept():
            idle_seconds = time.monotonic() - connection.used_at
            if connection.app is app and idle_seconds < self.MAX_IDLE_SECONDS:
                return connection
            connection.close()
        return None

    def _pop_kept(self) -> Iterator["BrokerConnection"]:
        while True:
            try:
                connection = self._kept.pop()
            except IndexError:
                return
            # One from before a fork belongs to the parent: it is not closed here.
            if connection.process == os.getpid():
                yield connection

    def _close_kept(self) -> None:
        for connection in self._pop_kept():
            connection.close()

    def _note_fault(self, error: Exception, started: float) -> None:
        # Not the text: it may hold the broker's password.
        name = type(error).__name__
        logger.warning("Publishing failed (%s): the sweep publishes again.", name)
        self._close_kept()
        # Threads that waited at the same time met the same fault.
        if started >= self._paused_until:
            self._faults += 1
        self._paused_until = time.monotonic() + self.PAUSE_SECONDS


class BrokerConnection:
    """A connection of our own to the broker, used by one thread at a time.

    ``skip`` moves that many of several brokers to the end of the list.
    """

    def __init__(self, app: Celery, timeout_seconds: float, skip: int) -> None:
        self.app, self.process = app, os.getpid()
        self.timeout_seconds = timeout_seconds
        probe = app.connection_for_write()
        self.is_amqp = probe.transport.driver_name == "py-amqp"
        brokers = deque(probe.alt)
        brokers.rotate(-skip)
        options = TRANSPORT_OPTIONS | self._timeouts(probe.transport.driver_type)
        self.connection = app.connection_for_write(
            ";".join(brokers) or None,
            connect_timeout=timeout_seconds,
            transport_options={**(probe.transport_options or {}), **options},
        )
        self.producer = app.amqp.Producer(self.connection, auto_declare=False)
        self.used_at = 0.0

    def _timeouts(self, driver_type: str) -> dict[str, Any]:
        if driver_type == "redis":
            return {
                "socket_timeout": self.timeout_seconds,
                "socket_connect_timeout": self.timeout_seconds,
                "retry_on_timeout": False,
            }
        if self.is_amqp:
            return {
                "confirm_publish": True,
                "read_timeout": self.timeout_seconds,
                "write_timeout": self.timeout_seconds,
            }
        return {}

    def open(self) -> None:
        if self.is_amqp and not self.connection.connected:
            self.connection.default_channel  # noqa: B018
            # read_timeout and write_timeout are socket options, which gevent ignores.
            self._socket.settimeout(self.timeout_seconds)

    def close(self) -> None:
        try:
            if self.is_amqp:
                # Without AMQP's closing handshake: a frozen broker answers nothing.
                if self.connection.connected:
                    self._socket.settimeout(0)
                self.connection.collect()
            else:
                self.connection.release()
        except Exception:
            logger.exception("The broken broker connection could not be closed.")

    @property
    def _socket(self) -> Any:
        return self.connection.connection.transport.sock
