"""What time brings about: late rows, unheard signals, queued rows nobody hinted."""

import uuid
from datetime import timedelta

from django.utils import timezone

from . import announce
from .conf import conf
from .models import PhoneVerification, Status

SWEEP_INTERVAL = timedelta(seconds=30)
BATCH = 200


def sweep() -> list[uuid.UUID]:
    """Settle late rows and announce again. Safe at any time and any number at once.

    Returns the ids of queued rows that are due, oldest first, as many as can be sent
    before the next run: publishing them is the caller's business.
    """
    rows = PhoneVerification.objects.primary()
    announce.failed(rows.settle())
    for pk in list(rows.unannounced().values_list("pk", flat=True)):
        announce.verified(pk)
    due = rows.filter(status=Status.QUEUED, next_send_at__lte=timezone.now())
    rate = conf.SEND_RATE
    batch = max(BATCH, SWEEP_INTERVAL // rate.interval) if rate else None
    return list(due.order_by("next_send_at").values_list("pk", flat=True)[:batch])
