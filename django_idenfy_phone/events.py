"""One log line for each thing that happened to a verification, at INFO.

The message is the event and "key=value" pairs, which are also fields of the log record.
No line holds a number, a user or a network. Logged after the commit, and at most once:
a process that ends in between logs nothing.
"""

import logging
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .models import PhoneVerification

logger = logging.getLogger(__name__)


class Event(StrEnum):
    STARTED = "started"
    REFUSED = "refused"
    SENT = "sent"
    FAILED = "failed"
    WRONG_CODE = "wrong_code"
    VERIFIED = "verified"
    LOCKED = "locked"
    EXPIRED = "expired"
    RELEASED = "released"


def log(
    event: Event,
    *,
    reference: str = "",
    purpose: str = "",
    region: str = "",
    reason: str = "",
) -> None:
    """Log an event. ``reference`` is the first 8 digits of a verification's id."""
    if not logger.isEnabledFor(logging.INFO):
        return
    fields = {
        "reference": reference,
        "purpose": purpose,
        "region": region,
        "reason": reason,
    }
    pairs = [f"{name}={value}" for name, value in fields.items() if value]
    logger.info("%s", " ".join([event, *pairs]), extra={"event": str(event), **fields})


def log_row(event: Event, row: "PhoneVerification", reason: str = "") -> None:
    """Log an event of a verification."""
    log(
        event,
        reference=row.reference,
        purpose=row.purpose,
        region=row.region,
        reason=reason,
    )
