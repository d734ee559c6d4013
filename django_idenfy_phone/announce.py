"""Sends the signals, so that every receiver runs. The sweep repeats what failed."""

import logging
import uuid
from collections.abc import Iterable

from django.utils import timezone

from .models import PhoneVerification
from .signals import phone_verified, send_failed
from .transitions import RECEIVER_GRACE, PhoneVerificationQuerySet

logger = logging.getLogger(__name__)


def verified(pk: uuid.UUID) -> None:
    """T12: send ``phone_verified``. Never raises: the sweep tries again what failed."""
    rows = PhoneVerification.objects
    try:
        row = rows.take_announcement(pk)
        if row is None:
            return
        answers = phone_verified.send_robust(
            PhoneVerification, verification=row, user=row.user
        )
        if not any(isinstance(answer, Exception) for _, answer in answers):
            rows.mark_announced(row)
        elif row.verified_at and timezone.now() - row.verified_at >= RECEIVER_GRACE:
            logger.critical(
                "Verification %s: receivers of phone_verified have failed for %s.",
                row.reference,
                RECEIVER_GRACE,
            )
    except Exception:
        reference = PhoneVerification(pk=pk).reference
        logger.exception("Verification %s could not be announced.", reference)


def failed(pks: Iterable[uuid.UUID]) -> None:
    """Send ``send_failed`` for rows that just failed. Best effort, never raises."""
    try:
        for row in PhoneVerification.objects.filter(pk__in=list(pks)):
            send_failed.send_robust(
                PhoneVerification, verification=row, failure=row.failure
            )
    except Exception:
        logger.exception("send_failed could not be sent.")


def settle_and_announce(rows: PhoneVerificationQuerySet) -> None:
    """End those of ``rows`` that are late, and announce which of them failed."""
    failed(rows.settle())
