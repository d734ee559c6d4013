"""Two families: ``IdenfyError`` (the wire) and ``VerificationError`` (the rules)."""

import uuid
from datetime import timedelta

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

# An answer of iDenfy that asks for less or more is clamped to these.
MIN_RETRY_AFTER = timedelta(seconds=1)
MAX_RETRY_AFTER = timedelta(seconds=300)


class IdenfyError(Exception):
    """iDenfy did not do what was asked.

    ``identifier`` is the constant of iDenfy's error body, "" where it sent none.
    """

    def __init__(self, reason: str, *, identifier: str = "") -> None:
        super().__init__(f"{reason} {identifier}".strip())
        self.identifier = identifier


class NeverSent(IdenfyError):
    """No byte of the request was written: it can safely be made again."""


class RateLimited(IdenfyError):
    """iDenfy did not act: make the request again after ``retry_after``.

    ``retry_after`` is a timedelta from MIN_RETRY_AFTER to MAX_RETRY_AFTER, or None
    where iDenfy gave no time.
    """

    def __init__(
        self, reason: str, *, identifier: str = "", retry_after: timedelta | None = None
    ) -> None:
        super().__init__(reason, identifier=identifier)
        self.retry_after = retry_after


class AccountRefused(IdenfyError):
    """The operator must act: key, secret, contract or credits."""


class KeyRefused(AccountRefused):
    """The key or the secret is wrong: no request can succeed."""


class NumberRefused(IdenfyError):
    """iDenfy does not accept this number: another number is needed."""


class OutcomeUnknown(IdenfyError):
    """iDenfy may have done it: never repeat a send after this."""


class VerificationError(Exception):
    """A rule forbids it. ``code`` is stable, ``message`` is for the user.

    ``retry_after`` is a timedelta, or None where waiting does not help.
    """

    code = ""
    message: str | Promise = ""

    def __init__(self, *, retry_after: timedelta | None = None) -> None:
        # No arguments: unpickling would pass them by position.
        super().__init__()
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.message)


class StartRefused(VerificationError):
    """A start has to wait. ``verification_id`` is of the caller's own live row, if any.

    That is a verification for the same number and purpose whose code is on its way or
    awaited. It is None for other people's, and without a login. ``reason`` is for the
    operator alone: "cooldown", "brake", or the kind of the limit that is reached.
    """

    verification_id: uuid.UUID | None = None
    reason = ""


class NumberNotSupported(VerificationError):
    """Not a number that we send codes to. It does not say why, so nothing leaks.

    ``region`` is for the operator alone: what libphonenumber says, "" for none.
    """

    region = ""
    code = "number_not_supported"
    message = _(
        "Enter a mobile phone number with its country code, such as +37060012345."
    )


class InvalidCode(VerificationError):
    """Not four digits."""

    code = "invalid_code"
    message = _("Enter the 4 digits of the code.")


class VerificationNotFound(VerificationError):
    """No such row, or somebody else's."""

    code = "not_found"
    message = _("There is no such verification.")


class CooldownActive(StartRefused):
    """The last send to this number is too recent."""

    code = "cooldown"
    message = _("A code was requested a moment ago. Please wait before the next one.")


class LimitReached(StartRefused):
    """Too many sends for the number, its block, the user, the network or the site.

    Or the brake of the region is engaged.
    """

    code = "limit_reached"
    message = _("Too many codes were requested. Please try again later.")


class IdempotencyKeyReused(VerificationError):
    """The key was used for another number: the client has a bug."""

    code = "idempotency_key_reused"
    message = _("This Idempotency-Key was used with another phone number.")


class InvalidIdempotencyKey(VerificationError):
    """Not 16 to 64 visible ASCII characters."""

    code = "invalid_idempotency_key"
    message = _("Idempotency-Key must be 16 to 64 visible ASCII characters.")


class NotSentYet(VerificationError):
    """The code is still on its way to iDenfy."""

    code = "not_sent_yet"
    message = _("The code has not been sent yet. Please try again in a moment.")


class CheckInProgress(VerificationError):
    """Another check of this row is under way."""

    code = "check_in_progress"
    message = _("A code is being checked. Please try again in a moment.")


class VerificationExpired(VerificationError):
    """The code came too late: start again."""

    code = "expired"
    message = _("This code has expired. Please ask for a new one.")


class VerificationLocked(VerificationError):
    """All checks are used up: start again."""

    code = "locked"
    message = _("Too many wrong codes. Please ask for a new code.")


class VerificationFailed(VerificationError):
    """No usable code was sent: start again."""

    code = "failed"
    message = _("The code could not be sent. Please ask for a new one.")


class ProviderUnavailable(VerificationError):
    """iDenfy cannot be asked now. Nothing was spent."""

    code = "provider_unavailable"
    message = _("We cannot verify phone numbers right now. Please try again later.")


class CheckUnknown(VerificationError):
    """iDenfy's answer to a check was lost. The check stays spent."""

    code = "check_unknown"
    message = _("We could not find out whether the code is right. Please try again.")


class UnknownUser(VerificationError):
    """The caller's user is not, or no longer, in the database."""

    code = "unknown_user"
    message = _("This user does not exist.")


class NotVerified(VerificationError):
    """No fresh proof of this caller for this purpose."""

    code = "phone_not_verified"
    message = _("Please confirm your phone number first.")


class AlreadyRedeemed(VerificationError):
    """The proof was spent before."""

    code = "already_redeemed"
    message = _("This phone verification was used before. Please start again.")


class NumberTaken(VerificationError):
    """The number is proven, but another account holds it."""

    code = "number_taken"
    message = _("This phone number belongs to another account.")


class InsideTransaction(VerificationError):
    """What is sent or checked at iDenfy cannot be rolled back, so nothing was done.

    Call it outside ``atomic()`` and with autocommit; mark a view of your own with
    ``transaction.non_atomic_requests`` where ATOMIC_REQUESTS is on.
    """

    code = "inside_transaction"
    # For the developer: no view answers with it.
    message = (
        "This must run outside a transaction: move the call out of atomic(), turn "
        "autocommit on, or mark the view with transaction.non_atomic_requests."
    )
