"""What support tells the customer now: one sentence for each state of an attempt."""

from datetime import datetime

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models import PhoneVerification
from ..statuses import Failure, Status
from . import timeline, words

UNDER_WAY = gettext_lazy("The code is on its way: please wait a moment.")
SENT = gettext_lazy(
    "The code was sent at {sent}: look at the phone. A call that reads the code may "
    "follow. It can be entered until {expires}."
)
ASK_AGAIN = gettext_lazy("ask for a new one on the site{at}.")
TEXTS: dict[str, object] = {
    Status.QUEUED: UNDER_WAY,
    Status.SENDING: UNDER_WAY,
    Status.SENT: SENT,
    Status.VERIFIED: gettext_lazy("The number is confirmed: nothing is left to do."),
    Status.EXPIRED: gettext_lazy("The code has expired: {again}"),
    Status.LOCKED: gettext_lazy("Too many wrong codes were entered: {again}"),
    Failure.NUMBER_REFUSED: gettext_lazy(
        "iDenfy refused this number, so no code comes: check the number, or use "
        "another one."
    ),
    Failure.ACCOUNT: gettext_lazy(
        "No code comes, and the customer can do nothing: the operator must look at the "
        "site's key, contract and credits at iDenfy."
    ),
    Failure.RATE_LIMITED: gettext_lazy(
        "iDenfy took no more requests from this site, so no code comes: {again} The "
        "operator must act if this happens often."
    ),
    Failure.UNREACHABLE: gettext_lazy(
        "iDenfy could not be reached, so no code comes: {again} The operator must act "
        "if this happens often."
    ),
    Failure.UNKNOWN: gettext_lazy(
        "A code may have come, but it cannot be confirmed: {again}"
    ),
    Failure.TOO_LATE: gettext_lazy(
        "The code could not be sent in time and does not come: {again} The operator "
        "must look at worker and sweep if this happens often."
    ),
}
NUMBER_TAKEN = gettext_lazy(
    "The number is confirmed, but another account holds it: it must be released there "
    "first, or another number used."
)
NOT_TOLD = gettext_lazy(
    "The number is confirmed, but the site does not know it yet: wait. If that lasts, "
    "the operator must look at what failed, as told below."
)
CODE_SPENT = gettext_lazy("The code may be used up: {again}")


def advice(row: PhoneVerification, now: datetime, resend_at: datetime) -> str:
    """``resend_at`` is when the customer may start again, as the own starts tell."""
    at = _(", from {} on").format(words.moment(resend_at)) if resend_at > now else ""
    return str(_text(row, now)).format(
        sent=words.moment(row.sent_at),
        expires=words.moment(row.expires_at),
        again=ASK_AGAIN.format(at=at),
    )


def _text(row: PhoneVerification, now: datetime) -> object:
    outcome = timeline.outcome(row, now)
    if outcome == Status.VERIFIED and row.number_taken:
        return NUMBER_TAKEN
    if outcome == Status.VERIFIED and row.announced_at is None:
        return NOT_TOLD
    if outcome == Status.SENT and row.code_spent:
        return CODE_SPENT
    return TEXTS[outcome]
