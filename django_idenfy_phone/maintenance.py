"""What is done beside starts and checks: the sweep, the purge, erasure and access.

The sweep ends late rows, dispatches waiting ones, watches the brake, and repeats
signals that failed.
"""

import time
import uuid
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial

from django.utils import timezone

from . import announce, brake, heartbeats, tallies
from .conf import conf
from .edge import hide_values
from .exceptions import InsideTransaction
from .models import PhoneVerification, primary_alias
from .privacy import erase, export
from .querysets import SLICE
from .retention import purge
from .transactions import in_transaction

__all__ = ["erase", "export", "purge", "sweep"]

SWEEP_INTERVAL = timedelta(seconds=30)
# One run ends before the next begins: what is left stays due.
SWEEP_BUDGET = timedelta(seconds=20)
MIN_BATCH = 200


@hide_values
def sweep(
    dispatch: Callable[[uuid.UUID], bool],
    budget: timedelta = SWEEP_BUDGET,
    *,
    ping: Callable[[], object] | None = None,
    is_eager: bool = False,
) -> None:
    """Dispatch waiting rows, settle late ones, watch the brake, announce what failed.

    Safe at any time; several sweeps may run at once. ``dispatch`` notifies a worker of
    a row or sends it, and returns whether to go on. ``ping`` is called where nothing
    was delivered for minutes: it finds out whether a worker runs. What is left when
    ``budget`` is over stays for the next sweep. Codes come first, and signals last,
    since receivers may be slow, or never return: they run in the background unless
    ``is_eager``. Raises InsideTransaction.
    """
    if in_transaction(primary_alias()):
        raise InsideTransaction
    run = _Run(time.monotonic() + budget.total_seconds())
    run.dispatch_due(dispatch)
    failed = run.settle_late()
    heartbeats.beat(heartbeats.SWEEP)
    if ping and heartbeats.is_delivery_idle():
        ping()
    if run.is_settled:
        tallies.recount()
    brake.watch()
    run.call_receivers(failed, is_eager)


class _Run:
    """One sweep. Each step ends early once the time is over."""

    def __init__(self, give_up_at: float) -> None:
        """``give_up_at`` is a time of ``time.monotonic()``."""
        self.give_up_at = give_up_at
        # Whether no late row is left, but for those that another sweep ends now.
        self.is_settled = False

    def is_over(self) -> bool:
        return time.monotonic() > self.give_up_at

    def dispatch_due(self, dispatch: Callable[[uuid.UUID], bool]) -> None:
        """As many waiting rows as can be sent before the next sweep, oldest first."""
        rate = conf.SEND_RATE
        batch = max(MIN_BATCH, SWEEP_INTERVAL // rate.interval) if rate else None
        # Not by next_send_at, which lies before created_at until the first try.
        due = PhoneVerification.objects.due(timezone.now()).order_by("created_at")
        for pk in list(due.values_list("pk", flat=True)[:batch]):
            if not dispatch(pk) or self.is_over():
                break

    def settle_late(self) -> list[uuid.UUID]:
        """End late rows, slice by slice. Returns those that failed."""
        failed: list[uuid.UUID] = []
        while True:
            ended, failed_now = PhoneVerification.objects.settle_slice()
            failed += failed_now
            self.is_settled = ended < SLICE
            if not ended or self.is_over():
                return failed

    def call_receivers(self, failed: Iterable[uuid.UUID], is_eager: bool) -> None:
        """Announce proofs that are due, then the rows that failed."""
        unannounced = PhoneVerification.objects.unannounced().order_by("announce_at")
        calls = [
            partial(announce.verified_again, pk)
            for pk in unannounced.values_list("pk", flat=True)
        ]
        calls += [partial(announce.failed, [pk]) for pk in failed]
        call_all = announce.one_by_one if is_eager else announce.in_background
        call_all(calls, self.give_up_at)
