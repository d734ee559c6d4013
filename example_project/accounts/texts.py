"""What people read while they confirm a number: one sentence for each state and error.

The pages' script gets the same sentences as data.
"""

import math
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.core.cache import cache
from django.utils import timezone
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from rest_framework.exceptions import PermissionDenied

from django_idenfy_phone.conf import conf
from django_idenfy_phone.exceptions import VerificationError
from django_idenfy_phone.statistics import speeds

from .countries import number_error

MINUTE, HOUR, DAY = 60, 60 * 60, 24 * 60 * 60
# Fewer tell nothing of the next one.
MIN_PROOFS = 5

StartError = VerificationError | PermissionDenied


class State(NamedTuple):
    """What the page of a code shows, and what its visitor can do next."""

    # The masked number stands for {number}.
    text: Any
    takes_code: bool = False
    resends: bool = False


STATES = {
    "sending": State(_("We are sending a code by SMS to {number}.")),
    "sent": State(
        _("We sent a code by SMS to {number}. Enter its 4 digits."),
        takes_code=True,
        resends=True,
    ),
    "earlier": State(
        _(
            "We could not send a new code to {number}. Enter the earlier code: a newer "
            "one will not work, if it arrives."
        ),
        takes_code=True,
        resends=True,
    ),
    "lost": State(
        _(
            "We could not find out whether your code was right. That was not your "
            "fault, but this code cannot be used any more. Please ask for a new code."
        ),
        resends=True,
    ),
    "locked": State(
        _("No tries are left for this code. Please ask for a new code."), resends=True
    ),
    "expired": State(
        _("This code is too old to be used. Please ask for a new code."), resends=True
    ),
    "not_sent": State(
        _(
            "We could not send a code to {number}. That was not your fault. Please ask "
            "for a new code."
        ),
        resends=True,
    ),
    "maybe_sent": State(
        _(
            "We do not know whether a code was sent to {number}. If a code arrives, it "
            "will not work. Please ask for a new code."
        ),
        resends=True,
    ),
    "number_refused": State(
        _("No code can be sent to {number}. Check the number, or use another one.")
    ),
    "number_taken": State(
        _("The number {number} belongs to another account. Use another number.")
    ),
    "verified": State(_("The number {number} is confirmed.")),
}
# By the error code of the app, of Django REST framework or of these pages.
ERRORS = {
    "invalid_code": _("Enter the 4 digits of the code."),
    "wrong_code": _("This code is wrong."),
    "cooldown": _(
        "A code was requested for this number a moment ago. It works only where it was "
        "requested. You can ask for a new one {wait}."
    ),
    "limit_reached": _("Too many codes were requested. You can try again {wait}."),
    "provider_unavailable": _(
        "Codes cannot be sent or checked just now. That is not your fault. Please try "
        "again {wait}."
    ),
    "check_unknown": _(
        "We could not find out whether this code is right. That is not your fault. "
        "Please try once more."
    ),
    "check_in_progress": _("Your code is being checked. Please try again {wait}."),
    "not_sent_yet": _("The code is not sent yet. Please try again {wait}."),
    "idempotency_key_reused": _("Something went wrong here. Please try again."),
    "invalid_idempotency_key": _("Something went wrong here. Please try again."),
    "not_authenticated": _("You are logged out. Please log in again."),
    "authentication_failed": _("You are logged out. Please log in again."),
    "permission_denied": _("This page is out of date. Please reload it."),
    "password_needed": _("Please confirm your password first."),
    "unknown_user": _("Your account does not exist any more."),
    "not_found": _(
        "No code is on its way here. Enter your number again: you get a new code, or "
        "see how long you have to wait for one."
    ),
    "lost_session": _(
        "No code is on its way here. If you entered the code already, log in. Before "
        "you have an account, a code works only in the browser where it was requested. "
        "Enter your number again: you get a new code, or see how long you have to wait "
        "for one."
    ),
    "number_taken": _("This number belongs to another account."),
    "phone_not_verified": _(
        "Your confirmed number was not used in time. Please confirm it again."
    ),
    "already_redeemed": _("Your account is ready. Please log in."),
    "throttled": _("That was too fast. Please try again {wait}."),
    "offline": _(
        "The site could not be reached. Check your connection, and try again. Nothing "
        "is sent twice."
    ),
    "other": _("Something went wrong here. That is not your fault. Try again."),
}
WAIT = _("You can ask for a new code {wait}.")


def errors() -> dict[str, Any]:
    return ERRORS | {"number_not_supported": number_error()}


def code_and_wait(error: StartError) -> tuple[str, float | None]:
    """Its error code, and in how many seconds it is worth another try."""
    if isinstance(error, PermissionDenied):
        # IDENFY_PHONE_START_GUARD raised it. Add the sentence for its code to ERRORS.
        return str(error.get_codes()), None
    return error.code, error.retry_after.total_seconds() if error.retry_after else None


def text_of_code(code: str, wait: float | None = None) -> str:
    known = errors()
    return str(known.get(code, known["other"])).format(wait=in_time(wait))


def tries_left(count: int) -> str:
    text = ngettext("You have {n} more try.", "You have {n} more tries.", count)
    return text.format(n=count)


def in_time(seconds: float | None) -> str:
    """Such as "in 57 minutes", rounded up; "later" where it is not known."""
    if seconds is None:
        return gettext("later")
    seconds = max(1, math.ceil(seconds))
    if seconds < MINUTE:
        count, text = seconds, ngettext("in {n} second", "in {n} seconds", seconds)
    elif seconds <= HOUR - MINUTE:
        count = math.ceil(seconds / MINUTE)
        text = ngettext("in {n} minute", "in {n} minutes", count)
    elif seconds <= DAY - HOUR:
        count = math.ceil(seconds / HOUR)
        text = ngettext("in {n} hour", "in {n} hours", count)
    else:
        count = math.ceil(seconds / DAY)
        text = ngettext("in {n} day", "in {n} days", count)
    return text.format(n=count)


def wait_until(moment: datetime) -> str:
    """In how long a new code can be had; "" where it can be had now."""
    left = moment - timezone.now()
    if left <= timedelta(0):
        return ""
    return WAIT.format(wait=in_time(left.total_seconds()))


def usual_time() -> str:
    """In what time half of the people entered their code lately; "" where few did."""
    speed = cache.get_or_set("verify_speed", lambda: speeds().verify, MINUTE)
    if speed.median is None or speed.rows < MIN_PROOFS:
        return ""
    seconds = max(1, math.ceil(speed.median.total_seconds()))
    if seconds < MINUTE:
        count = seconds
        text = ngettext(
            "Of the people who entered their code lately, half did so within {n} "
            "second.",
            "Of the people who entered their code lately, half did so within {n} "
            "seconds.",
            count,
        )
    else:
        count = math.ceil(seconds / MINUTE)
        text = ngettext(
            "Of the people who entered their code lately, half did so within {n} "
            "minute.",
            "Of the people who entered their code lately, half did so within {n} "
            "minutes.",
            count,
        )
    return text.format(n=count)


def for_script() -> dict[str, Any]:
    """What the pages' script says, as data."""
    return {
        "states": {name: state._asdict() for name, state in STATES.items()},
        "errors": errors(),
        "wait": WAIT,
        "later": gettext("later"),
        # The sentence for no try left, for one, for two, and so on.
        "tries": [tries_left(count) for count in range(2 * conf.MAX_CHECKS + 1)],
    }
