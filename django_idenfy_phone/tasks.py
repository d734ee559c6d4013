"""Celery tasks, and how a worker is notified. The row is the queue, not the message.

No Celery setting of the host is needed or changed.
"""

import logging
import uuid
from datetime import timedelta
from typing import Any

from celery import current_app, shared_task
from django.core.checks import CheckMessage, Warning, register

from . import delivery, maintenance
from .broker import BrokerPublisher
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


@shared_task(name="django_idenfy_phone.sweep", ignore_result=True)
@hide_values
def sweep() -> None:
    """Every 30 s: notify workers of waiting rows, settle late rows, announce again."""
    is_eager = send_code.app.conf.task_always_eager
    maintenance.sweep(notify_worker_blocking, is_eager=is_eager)


publisher = BrokerPublisher(send_code)


def notify_worker(pk: uuid.UUID, countdown: timedelta = timedelta(0)) -> bool:
    """Tell a worker that a row waits. Returns whether the message was published.

    Never raises or blocks a request. The sweep makes up for a lost message.
    """
    return publisher.publish(str(pk), countdown)


def notify_worker_blocking(pk: uuid.UUID) -> bool:
    """As ``notify_worker``, but wait until publishing is no longer paused."""
    return publisher.publish_blocking(str(pk))


@register
def check_celery_app(**kwargs: Any) -> list[CheckMessage]:
    """Here and not in ``checks``, which must not import celery."""
    if current_app.main != "default":
        return []
    return [
        Warning(
            "No Celery app is configured, so the sends go to Celery's default broker.",
            hint="Define a Celery app and import it in your project's __init__.py.",
            id="django_idenfy_phone.W003",
        )
    ]
