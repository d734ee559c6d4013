"""Publishes messages over connections of its own, and gives up early.

A lost message costs only the time until the next sweep; a slow one delays a user.
"""

import logging
import math
import os
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

from celery import Celery
from kombu.exceptions import ChannelError, OperationalError
from kombu.exceptions import ConnectionError as AMQPConnectionError

from .alarms import alarm

logger = logging.getLogger(__name__)

# Any other error is a fault of the project: a wrong route, a missing library.
BROKER_FAULTS = (OperationalError, AMQPConnectionError, OSError)
TRANSPORT_OPTIONS = {
    "max_retries": 0,
    "interval_start": 0,
    "interval_step": 0,
    "interval_max": 0,
}


class BrokerPublisher:
    """Publishes the messages of one task, in bounded time.

    It keeps at most MAX_KEPT healthy connections in each process. One thread uses a
    connection at a time, and none is used after a fork. Where one of several brokers
    fails at once, the next is tried at once. After a fault of the broker, nothing is
    published for PAUSE_SECONDS; then the next of several brokers is tried first.
    """

    TIMEOUT_SECONDS = 0.5
    PAUSE_SECONDS = 2.0
    # Proxies between here and the broker drop an idle connection silently.
    MAX_IDLE_SECONDS = 60.0
    MAX_KEPT = 10
    # A broker that fails later has used up the time: no other one is tried.
    AT_ONCE_SECONDS = 0.05

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
            is_published = True
        except Exception as error:
            self._note_error(error, started)
            is_published = False
        # An eager task is the sending itself: no broker is slow.
        is_slow = time.monotonic() - started > self.TIMEOUT_SECONDS
        if is_slow and not self.task.app.conf.task_always_eager:
            self._pause("was slow", started)
        return is_published

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
        send = partial(
            self.task.apply_async,
            (argument,),
            retry=False,
            ignore_result=True,
        )
        seconds = countdown.total_seconds()
        if self.task.app.conf.task_always_eager:
            send(countdown=seconds)
        else:
            self._send_over_any(send, seconds)

    def _send_over_any(self, send: Callable[..., object], seconds: float) -> None:
        """Try one connection after the other, as long as they fail at once."""
        started = time.monotonic()
        for connection in self._connections(self.task.app):
            try:
                self._send_over(connection, send, seconds)
            except BROKER_FAULTS as error:
                if time.monotonic() - started > self.AT_ONCE_SECONDS:
                    raise
                # If the message did arrive, a second one does no harm.
                fault = error
            else:
                return
        raise fault

    def _connections(self, app: Celery) -> Iterator["BrokerConnection"]:
        """A kept connection, then a new one to each broker in turn."""
        if kept := self._take_kept(app):
            yield kept
        brokers = deque(app.connection_for_write().alt or [""])
        brokers.rotate(-self._faults)
        for broker in brokers:
            yield BrokerConnection(app, broker, self.TIMEOUT_SECONDS)

    def _send_over(
        self,
        connection: "BrokerConnection",
        send: Callable[..., object],
        seconds: float,
    ) -> None:
        try:
            connection.open()
            countdown = connection.allowed_countdown(seconds)
            send(producer=connection.producer, countdown=countdown)
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

    def _note_error(self, error: Exception, started: float) -> None:
        """Log an error. Where it is the broker's, pause and close the connections."""
        is_of_broker = isinstance(error, BROKER_FAULTS)
        cause = (error.__cause__ if is_of_broker else None) or error
        # Kombu calls any KeyError a fault of Redis.
        if not is_of_broker or isinstance(cause, LookupError):
            self._log_own_fault(cause)
            return
        self._close_kept()
        # Not the text: it may hold the broker's password.
        if self._pause(f"failed ({type(cause).__name__})", started):
            self._faults += 1

    def _pause(self, reason: str, started: float) -> bool:
        """Publish nothing for a while. Returns False where a pause had begun before."""
        # Threads that waited at the same time met the same fault.
        if started < self._paused_until:
            return False
        self._paused_until = time.monotonic() + self.PAUSE_SECONDS
        logger.warning(
            "Publishing %s and is paused for %g s: the sweep publishes what is lost.",
            reason,
            self.PAUSE_SECONDS,
        )
        return True

    def _log_own_fault(self, error: BaseException) -> None:
        # Not the text: it may hold the broker's password.
        place = traceback.extract_tb(error.__traceback__)[-1]
        alarm(
            logger.error,
            "Publishing failed, but not at the broker: see the settings of Celery "
            "(%s in %s, line %s).",
            type(error).__name__,
            place.filename,
            place.lineno,
        )


class BrokerConnection:
    """A connection of our own to one broker, used by one thread at a time.

    ``broker`` is its URL, or empty where there is only one.
    """

    def __init__(self, app: Celery, broker: str, timeout_seconds: float) -> None:
        self.app, self.process = app, os.getpid()
        self.timeout_seconds = timeout_seconds
        probe = app.connection_for_write()
        self.is_amqp = probe.transport.driver_name == "py-amqp"
        host_options = probe.transport_options or {}
        own_options = self._timeouts(probe.transport.driver_type, host_options)
        self.connection = app.connection_for_write(
            connect_timeout=timeout_seconds,
            transport_options={**host_options, **TRANSPORT_OPTIONS, **own_options},
        )
        self._use_only(broker, (probe.alt or [""])[0])
        self.producer = app.amqp.Producer(self.connection, auto_declare=False)
        self.used_at = 0.0

    def allowed_countdown(self, seconds: float) -> float:
        """RabbitMQ's quorum queues take whole seconds only: rounded up for them."""
        return math.ceil(seconds) if self.is_amqp else seconds

    def _use_only(self, broker: str, first: str) -> None:
        """Connect to this one of several brokers; ``first`` is the first of them."""
        if broker.startswith("sentinel:"):
            # Kombu would ask all of them in turn, each for the whole time.
            self.connection.alt = [broker]
        elif broker != first:
            # As Celery does: what the URL leaves out is that of the first one.
            self.connection.switch(broker)

    def _timeouts(
        self, driver_type: str, host_options: dict[str, Any]
    ) -> dict[str, Any]:
        """The transport options that bound each wait for the broker."""
        if driver_type == "redis":
            return self._redis_timeouts(host_options.get("sentinel_kwargs") or {})
        if self.is_amqp:
            return {
                "confirm_publish": True,
                "connect_timeout": self.timeout_seconds,
                "read_timeout": self.timeout_seconds,
                "write_timeout": self.timeout_seconds,
            }
        return {}

    def _redis_timeouts(self, sentinel_options: dict[str, Any]) -> dict[str, Any]:
        sockets = {
            "socket_timeout": self.timeout_seconds,
            "socket_connect_timeout": self.timeout_seconds,
        }
        kept = {k: v for k, v in sentinel_options.items() if not k.startswith("retry")}
        return {
            **sockets,
            "retry_on_timeout": False,
            # redis-py would ask a sentinel ten times more.
            "sentinel_kwargs": {**kept, **sockets, "retry": None},
        }

    def open(self) -> None:
        if self.is_amqp and not self.connection.connected:
            try:
                self.connection.default_channel  # noqa: B018
            except (AMQPConnectionError, ChannelError) as error:
                # A refused login is a fault of the broker; a refused message is not.
                raise OperationalError(type(error).__name__) from error
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
            alarm(logger.exception, "The broken broker connection could not be closed.")

    @property
    def _socket(self) -> Any:
        return self.connection.connection.transport.sock
