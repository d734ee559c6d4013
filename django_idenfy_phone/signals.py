"""Signals, and who sends them: only ``announce``."""

import logging
from collections.abc import Callable
from typing import Any

from django.dispatch import Signal

logger = logging.getLogger(__name__)


class RobustSignal(Signal):
    """``send_robust`` goes on past any receiver.

    Django's own reads ``receiver.__qualname__``, which a partial or a callable object
    lacks: that error would keep later receivers from running.
    """

    def _log_robust_failure(self, receiver: Callable[..., Any], err: Exception) -> None:
        name = getattr(receiver, "__qualname__", type(receiver).__qualname__)
        logger.error("The receiver %s failed.", name, exc_info=err)


# Sent once a number is proven, after the commit and before confirm answers.
# At least once: exactly once where no receiver fails and no process dies. When one
# fails, all run again later, from the sweep: receivers must be idempotent.
#
# Arguments:
#   verification: PhoneVerification
#   user: the user who started it; None for an anonymous one
phone_verified = RobustSignal()

# Sent once when no usable code came of a start. Best effort: a process that dies in
# between loses it. A late true answer may still lift the row to verified.
#
# Arguments:
#   verification: PhoneVerification
#   failure: str, one of PhoneVerification.Failure
send_failed = RobustSignal()
