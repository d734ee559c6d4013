"""What the sweep does: late rows, waiting rows, and signals that failed."""

import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from django.utils import timezone

from . import announce
from .conf import conf
from .edge import hide_values
from .exceptions import InsideTransaction
from .models import PhoneVerification, primary_alias
from .transactions import in_transaction

SWEEP_INTERVAL = timedelta(seconds=30)
# One run ends before the next begins: what is left stays due.
SWEEP_BUDGET = timedelta(seconds=20)
MIN_BATCH = 200


@hide_values
def sweep(
    dispatch: Callable[[uuid.UUID], bool],
    budget: timedelta = SWEEP_BUDGET,
    *,
    is_eager: bool = False,
) -> None:
    """Dispatch waiting rows, settle late ones, announce again what failed.

    Safe at any time; several sweeps may run at once. ``dispatch`` notifies a worker of
    a row or sends it, and returns whether to go on. What is left when ``budget`` is
    over stays for the next sweep. Codes come first, and signals last, since receivers
    may be slow, or never return: they run in the background unless ``is_eager``.
    Raises InsideTransaction.
    """
    if in_transaction(primary_alias()):
        raise InsideTransaction
    give_up_at = time.monotonic() + budget.total_seconds()
    for pk in _due_batch():
        if not dispatch(pk) or time.monotonic() > give_up_at:
            break
    ended, failed = PhoneVerification.objects.settle_slice()
    while ended and time.monotonic() <= give_up_at:
        ended, failed_now = PhoneVerification.objects.settle_slice()
        failed += failed_now
    unannounced = PhoneVerification.objects.unannounced().order_by("announce_at")
    calls = [
        partial(announce.verified_again, pk)
        for pk in unannounced.values_list("pk", flat=True)
    ]
    calls += [partial(announce.failed, [pk]) for pk in failed]
    run = announce.one_by_one if is_eager else announce.in_background
    run(calls, give_up_at)


def _due_batch() -> list[uuid.UUID]:
    """As many waiting rows as can be sent before the next run, oldest first."""
    rate = conf.SEND_RATE
    batch = max(MIN_BATCH, SWEEP_INTERVAL // rate.interval) if rate else None
    # Not by next_send_at, which lies before created_at until the first try.
    due = PhoneVerification.objects.due(timezone.now()).order_by("created_at")
    return list(due.values_list("pk", flat=True)[:batch])
