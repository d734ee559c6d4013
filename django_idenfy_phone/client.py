"""iDenfy's phone verification API. Only this module knows its URLs and JSON keys.

Sending is paid and cannot be repeated safely, so each answer becomes a typed error
that says what the caller can do next. The facts come from iDenfy's pages
(documentation.idenfy.com/fraud-prevention/phone-verification and
/resources/error-messages).
"""

import codecs
import email.utils
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple

import requests
from django.utils import timezone

from . import transport
from .conf import conf
from .edge import hide_values
from .exceptions import (
    MAX_RETRY_AFTER,
    MIN_RETRY_AFTER,
    AccountRefused,
    IdenfyError,
    KeyRefused,
    NumberRefused,
    OutcomeUnknown,
    RateLimited,
)
from .strict_json import load_object

SEND_PATH = "/fraud/send-sms"
VERIFY_PATH = "/fraud/verify-sms"
# What answers to a send mean: by identifier, else by status. After any other answer an
# SMS may have been sent.
SEND_ERRORS: dict[str | int, type[IdenfyError]] = {
    "TOO_MANY_REQUESTS": RateLimited,
    "UNAUTHORIZED": KeyRefused,
    "PERMISSIONS_ERROR": AccountRefused,
    "PARTNER_CONTRACT_ERROR": AccountRefused,
    "BAD_VALUE": NumberRefused,
    "MISSING_VALUE": NumberRefused,
    "VALIDATION_ERROR": NumberRefused,
    "INTERNAL_ERROR": OutcomeUnknown,
    429: RateLimited,
    401: KeyRefused,
    403: AccountRefused,
    404: AccountRefused,
    405: AccountRefused,
}
# Answers to a check that was surely not judged.
CHECK_ERRORS: dict[str | int, type[IdenfyError]] = {
    "TOO_MANY_REQUESTS": RateLimited,
    "UNAUTHORIZED": AccountRefused,
    429: RateLimited,
    401: AccountRefused,
    403: AccountRefused,
}


class Answer(NamedTuple):
    """iDenfy's answer. ``members`` is empty for a body that is not a JSON object."""

    status: int
    headers: Mapping[str, str]
    members: dict[str, Any]

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    def text(self, name: str, pattern: str) -> str:
        """A member that is text of this pattern; "" for anything else."""
        value = self.members.get(name)
        is_valid = isinstance(value, str) and re.fullmatch(pattern, value)
        return str(value) if is_valid else ""

    @property
    def identifier(self) -> str:
        """The constant of iDenfy's error body; "" for anything that is not one."""
        return self.text("identifier", "[A-Z_]{1,64}")

    @property
    def retry_after(self) -> timedelta | None:
        """Seconds or an HTTP date, clamped to 1…300 s; None for anything else."""
        text = self.headers.get("Retry-After", "")
        if re.fullmatch("[0-9]{1,9}", text.strip()):
            seconds = float(text)
        else:
            try:
                moment = email.utils.parsedate_to_datetime(text).timestamp()
            except (ValueError, OverflowError):
                return None
            seconds = moment - timezone.now().timestamp()
        return max(MIN_RETRY_AFTER, min(timedelta(seconds=seconds), MAX_RETRY_AFTER))


class IdenfyClient:
    """One method for each endpoint. Settings are read at each call."""

    @hide_values
    def send_sms(self, phone_number: str) -> str:
        """Send a code to an E.164 number. Returns the request_id.

        Raises NeverSent, RateLimited, AccountRefused, NumberRefused or, for all that
        may have sent an SMS, OutcomeUnknown.
        """
        payload = {"phone_number": phone_number}
        if conf.SENDER_NAME:
            payload["sender_name"] = conf.SENDER_NAME
        # Connections are not kept: an error on a stale one would leave the outcome
        # unknown.
        with transport.thread_session("send") as session:
            answer = _post(session, SEND_PATH, payload)
        # "string, 32 to 40 characters"
        request_id = answer.text("request_id", "[!-~]{32,40}")
        if answer.is_success and request_id:
            return request_id
        raise _error(answer, SEND_ERRORS)

    @hide_values
    def verify_sms(self, request_id: str, code: str) -> bool:
        """Have iDenfy judge a 4-digit code. False also for a code "already validated".

        Raises NeverSent, RateLimited or AccountRefused where iDenfy did not judge it,
        OutcomeUnknown where it may have.
        """
        payload = {"request_id": request_id, "received_code": code}
        answer = _post(transport.thread_session("check"), VERIFY_PATH, payload)
        is_verified = answer.members.get("is_verified")
        if answer.is_success and isinstance(is_verified, bool):
            return is_verified
        raise _error(answer, CHECK_ERRORS)


def _error(
    answer: Answer, meanings: Mapping[str | int, type[IdenfyError]]
) -> IdenfyError:
    by_status = meanings.get(answer.status, OutcomeUnknown)
    error = meanings.get(answer.identifier, by_status)
    if error is NumberRefused and not 400 <= answer.status < 500:
        error = OutcomeUnknown
    reason, identifier = f"HTTP {answer.status}", answer.identifier
    if error is RateLimited:
        wait = answer.retry_after
        return RateLimited(reason, identifier=identifier, retry_after=wait)
    return error(reason, identifier=identifier)


def _post(session: requests.Session, path: str, payload: dict[str, str]) -> Answer:
    if not conf.has_credentials:
        raise KeyRefused("API key or secret not set")
    reply = transport.post(
        session,
        conf.API_URL.rstrip("/") + path,
        payload,
        auth=(conf.API_KEY, conf.API_SECRET),
        seconds=conf.TIMEOUT,
    )
    try:
        members = load_object(reply.body.removeprefix(codecs.BOM_UTF8))
    except ValueError:
        members = {}
    return Answer(reply.status, reply.headers, members)
