"""What time brings about: late rows, queued rows nobody hinted, unheard signals."""

import time
import uuid
from collections.abc import Callable
from datetime import timedelta

from django.utils import timezone

from . import announce
from .conf import conf
from .models import PhoneVerification, Status

SWEEP_INTERVAL = timedelta(seconds=30)
# One run ends before the next begins: what is left stays due.
PATIENCE = 20.0
BATCH = 200


def sweep(pass_on: Callable[[uuid.UUID], bool]) -> None:
    """Settle late rows, pass queued ones on, send unheard signals again.

    Safe at any time and any number at once. ``pass_on`` hints or sends a row, and tells
    whether to go on. No code waits for a slow receiver, so the signals come last.
    """
    give_up_at = time.monotonic() + PATIENCE
    failed = PhoneVerification.objects.primary().settle()
    for pk in due():
        if not pass_on(pk) or time.monotonic() > give_up_at:
            break
    _announce_again(give_up_at)
    announce.failed(failed)


def due() -> list[uuid.UUID]:
    """Queued rows, oldest first, as many as can be sent before the next run."""
    rows = PhoneVerification.objects.primary()
    queued = rows.filter(status=Status.QUEUED, next_send_at__lte=timezone.now())
    rate = conf.SEND_RATE
    batch = max(BATCH, SWEEP_INTERVAL // rate.interval) if rate else None
    # Not by next_send_at, which lies before created_at until the first try.
    return list(queued.order_by("created_at").values_list("pk", flat=True)[:batch])


def _announce_again(give_up_at: float) -> None:
    unannounced = PhoneVerification.objects.primary().unannounced()
    for pk in list(unannounced.order_by("announce_at").values_list("pk", flat=True)):
        announce.verified(pk)
        if time.monotonic() > give_up_at:
            break
