"""Celery tasks, and how a worker is notified. The row is the queue, not the message.

No Celery setting of the host is needed or changed.
"""

import logging
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from celery import current_app, shared_task
from django.core.checks import CheckMessage, Warning, register

from . import delivery, heartbeats, maintenance
from .broker import BrokerPublisher
from .conf import PREFIX, conf
from .edge import hide_values

logger = logging.getLogger(__name__)


@shared_task(name="django_idenfy_phone.send_code", ignore_result=True)
@hide_values
def send_code(*args: Any, **kwargs: Any) -> None:
    """Send the row of this id. Safe to run any number of times.

    Accepts any arguments, since a message may come from an older or newer release.
    """
    try:
        pk = uuid.UUID(args[0])
    except (IndexError, TypeError, AttributeError, ValueError):
        logger.warning("A send_code message without a verification id was dropped.")
        return
    delay = delivery.deliver(pk)
    if delay is not None:
        notify_worker(pk, countdown=delay)
    note_delivery()


@shared_task(name="django_idenfy_phone.ping", ignore_result=True)
@hide_values
def ping(*args: Any, **kwargs: Any) -> None:
    """Note that a worker runs. A sweep publishes it where nothing was delivered."""
    note_delivery()


@shared_task(name="django_idenfy_phone.sweep", ignore_result=True)
@hide_values
def sweep() -> None:
    """Every 30 s: notify workers of waiting rows, settle late rows, announce again."""
    is_eager = send_code.app.conf.task_always_eager
    maintenance.sweep(dispatch, ping=ping_worker, is_eager=is_eager)


@shared_task(name="django_idenfy_phone.purge", ignore_result=True)
@hide_values
def purge() -> None:
    """Every day: delete what is older than RETENTION. Safe at any time."""
    logger.info("Purged: %s.", maintenance.purge())


publisher = BrokerPublisher(send_code)
ping_publisher = BrokerPublisher(ping)


def notify_worker(pk: uuid.UUID, countdown: timedelta = timedelta(0)) -> bool:
    """Tell a worker that a row waits. Returns whether the message was published.

    Never raises or blocks a request. The sweep makes up for a lost message. With
    DELIVERY "sweep" there are no messages.
    """
    return not _sweep_delivers() and publisher.publish(str(pk), countdown)


def dispatch(pk: uuid.UUID) -> bool:
    """What a sweep does with a waiting row: notify a worker, or send it by itself.

    Waits until publishing is no longer paused. Returns whether to go on.
    """
    if _sweep_delivers():
        return deliver_here(pk)
    return publisher.publish_blocking(str(pk))


def deliver_here(pk: uuid.UUID) -> bool:
    """Send a row in this process. Returns True: to go on with the next one."""
    delivery.deliver(pk)
    note_delivery()
    return True


def ping_worker() -> None:
    """Have a worker note that it runs. Where a sweep delivers, it notes that itself."""
    if _sweep_delivers():
        note_delivery()
    else:
        ping_publisher.publish("")


def note_delivery() -> None:
    """Note that this process delivers."""
    heartbeats.beat(heartbeats.DELIVERY)


def _sweep_delivers() -> bool:
    return conf.DELIVERY == "sweep"


@register
def check_celery_app(**kwargs: Any) -> Iterator[CheckMessage]:
    """Here and not in ``checks``, which must not import celery."""
    if current_app.main == "default" and not _sweep_delivers():
        yield Warning(
            "No Celery app is configured, so the sends go to Celery's default broker.",
            hint="Define a Celery app and import it in your project's __init__.py, or "
            f'set {PREFIX}DELIVERY to "sweep".',
            id="django_idenfy_phone.W003",
        )


@register
def check_transport(**kwargs: Any) -> Iterator[CheckMessage]:
    if _sweep_delivers():
        return
    try:
        # It connects to nothing.
        current_app.connection_for_write().transport  # noqa: B018
    except Exception as error:
        urls = current_app.conf.broker_write_url or ""
        scheme = urlsplit(urls if isinstance(urls, str) else urls[0]).scheme
        # Not the text: it may hold the broker's password.
        yield Warning(
            f"The broker's transport, {scheme}, cannot be loaded "
            f"({type(error).__name__}): no worker can be notified.",
            hint="Install its client library, such as celery[redis] for Redis.",
            id="django_idenfy_phone.W014",
        )
