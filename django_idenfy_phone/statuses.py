"""The statuses and failures of a verification, and the groups that have a meaning."""

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _


class Status(TextChoices):
    QUEUED = "queued", _("queued")
    # Stored, not yet handed to iDenfy.
    SENDING = "sending", _("sending")
    # One worker holds it, until lease_until.
    SENT = "sent", _("sent")
    # iDenfy gave a request_id; the code is awaited.
    VERIFIED = "verified", _("verified")
    # iDenfy said is_verified: true for this row's own request_id.
    FAILED = "failed", _("failed")
    # No usable code came of it; failure says why.
    EXPIRED = "expired", _("expired")
    # Sent, and nobody proved it in time.
    LOCKED = "locked", _("locked")
    # Sent, and all its checks are used up.


class Failure(TextChoices):
    NUMBER_REFUSED = "number_refused", _("number refused by iDenfy")
    ACCOUNT = "account", _("key, contract or credits: for the operator")
    RATE_LIMITED = "rate_limited", _("rate limit of iDenfy")
    UNREACHABLE = "unreachable", _("iDenfy could not be reached")
    UNKNOWN = "unknown", _("it may have been sent")
    # Never sent again by a machine: the SMS may have left and is paid.
    TOO_LATE = "too_late", _("not sent in time")


# Something can still happen to such a row.
OPEN_STATUSES = (Status.QUEUED, Status.SENDING, Status.SENT)
# iDenfy accepted the number and gave a request_id.
ACCEPTED_STATUSES = (Status.SENT, Status.VERIFIED, Status.EXPIRED, Status.LOCKED)
# Only a new start can help the user.
ENDED_STATUSES = (Status.FAILED, Status.EXPIRED, Status.LOCKED)
# The provider_code of a row whose send met a wrong key or secret.
KEY_REFUSED = "UNAUTHORIZED"
# Nothing was sent, and the user is not to blame: such a row is not counted.
UNCOUNTED_FAILURES = (
    Failure.ACCOUNT,
    Failure.UNREACHABLE,
    Failure.RATE_LIMITED,
    Failure.TOO_LATE,
)
