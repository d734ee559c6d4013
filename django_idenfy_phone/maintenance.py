"""What time brings about: late rows, queued rows nobody hinted, unheard signals."""

import time
import uuid
from datetime import timedelta

from django.utils import timezone

from . import announce
from .conf import conf
from .models import PhoneVerification, Status

SWEEP_INTERVAL = timedelta(seconds=30)
# How long one run may go on: slow receivers must not fill the workers up.
PATIENCE = 20.0
BATCH = 200


def sweep() -> list[uuid.UUID]:
    """Settle late rows. Safe at any time and any number at once.

    Returns the ids of queued rows that are due, oldest first, as many as can be sent
    before the next run: publishing them is the caller's business, and then
    ``announce_again``, so that no code waits for a slow receiver.
    """
    rows = PhoneVerification.objects.primary()
    announce.failed(rows.settle())
    due = rows.filter(status=Status.QUEUED, next_send_at__lte=timezone.now())
    rate = conf.SEND_RATE
    batch = max(BATCH, SWEEP_INTERVAL // rate.interval) if rate else None
    # Not by next_send_at, which lies before created_at until the first try.
    return list(due.order_by("created_at").values_list("pk", flat=True)[:batch])


def announce_again() -> None:
    """Send unheard signals, for PATIENCE seconds: what is left stays due."""
    unannounced = PhoneVerification.objects.primary().unannounced()
    give_up_at = time.monotonic() + PATIENCE
    for pk in list(unannounced.order_by("announce_at").values_list("pk", flat=True)):
        if time.monotonic() > give_up_at:
            break
        announce.verified(pk)
