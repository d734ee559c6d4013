"""Log lines that call for a person: in each process, one a minute for each cause."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from django.utils import timezone

INTERVAL = timedelta(minutes=1)

_lock = threading.Lock()
_alarmed_at: dict[str, datetime] = {}


def alarm(log: Callable[..., object], message: str, *args: object) -> None:
    """Call ``log``, unless there was an alarm for this cause within INTERVAL.

    ``log`` is a method of a logger, such as ``logger.critical``. The cause is
    ``message`` without its arguments: causes are kept for ever, so what a client or
    iDenfy wrote belongs in ``args``.
    """
    now = timezone.now()
    with _lock:
        last = _alarmed_at.get(message)
        # The clock may have been set back.
        if last is not None and abs(now - last) < INTERVAL:
            return
        _alarmed_at[message] = now
    log(message, *args, stacklevel=2)
