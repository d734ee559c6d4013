"""What iDenfy documents about phone verification, as rules. No HTTP here."""

import re
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

CODE_LIFE = timedelta(minutes=5)
# iDenfy answers false after "too many" wrong codes and does not say how many.
MAX_WRONG_CODES = 3
DEFAULT_SENDER = "iDenfy"

E164 = re.compile(r"\+[1-9][0-9]{1,14}")
SENDER_NAME = re.compile(r".{0,11}", re.DOTALL)
REQUEST_ID = re.compile(r".{32,40}", re.DOTALL)
RECEIVED_CODE = re.compile(r"[0-9]{4}")


class Refusal(Exception):
    """A request that iDenfy answers with its documented error body."""

    def __init__(self, identifier: str, message: str) -> None:
        super().__init__(f"{identifier}: {message}")
        self.identifier = identifier
        self.message = message


@dataclass(frozen=True)
class Message:
    """One SMS in the inbox, so one that iDenfy would have billed."""

    phone_number: str
    code: str
    text: str
    sender_name: str
    request_id: str
    sent_at: datetime


def send_values(body: Mapping[str, object]) -> tuple[str, str]:
    """The phone number and the sender name of a send, or a Refusal."""
    sender_name = DEFAULT_SENDER
    if "sender_name" in body:
        sender_name = _text(body, "sender_name", SENDER_NAME)
    return _text(body, "phone_number", E164), sender_name


def check_values(body: Mapping[str, object]) -> tuple[str, str]:
    """The request id and the code of a check, or a Refusal."""
    return (
        _text(body, "request_id", REQUEST_ID),
        _text(body, "received_code", RECEIVED_CODE),
    )


def _text(body: Mapping[str, object], key: str, shape: re.Pattern[str]) -> str:
    if key not in body:
        raise Refusal("MISSING_VALUE", f"{key} is required.")
    value = body[key]
    if not isinstance(value, str) or not shape.fullmatch(value):
        raise Refusal("BAD_VALUE", f"{key} is not valid.")
    return value


@dataclass
class _Request:
    """One send, and what its checks have done to it."""

    message: Message
    checks: int = 0
    wrong_codes: int = 0
    validated: bool = False

    def judge(self, code: str, now: datetime) -> bool:
        self.checks += 1
        # "Already validated" and "too many wrong codes" both answer false; what an
        # expired code answers is not known at the vendor, false is our choice.
        if self.validated or self.wrong_codes >= MAX_WRONG_CODES:
            return False
        if now >= self.message.sent_at + CODE_LIFE:
            return False
        self.validated = code == self.message.code
        self.wrong_codes += not self.validated
        return self.validated


def utc_now() -> datetime:
    return datetime.now(UTC)


class SandboxState:
    """The inbox and the requests behind it. Safe to use from many threads."""

    def __init__(self, now: Callable[[], datetime] = utc_now) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._requests: dict[str, _Request] = {}
        self._arrivals: Counter[str] = Counter()

    def reset(self) -> None:
        """Forget all messages, requests and counts."""
        with self._lock:
            self._requests.clear()
            self._arrivals.clear()

    def send(self, phone_number: str, sender_name: str = DEFAULT_SENDER) -> Message:
        """Put one SMS in the inbox, and so bill it.

        Whether iDenfy refuses a number that still has a live request is not known:
        here each send stands alone, and the older code stays good.
        """
        code = f"{secrets.randbelow(10_000):04}"
        message = Message(
            phone_number=phone_number,
            code=code,
            text=f"The {sender_name} code: {code}. Valid for 5 minutes.",
            sender_name=sender_name,
            request_id=secrets.token_hex(16),
            sent_at=self._now().astimezone(UTC),
        )
        with self._lock:
            self._requests[message.request_id] = _Request(message)
        return message

    def check(self, request_id: str, code: str) -> bool:
        """Judge a code, and use it up where it is right."""
        with self._lock:
            request = self._requests.get(request_id)
            # What an unknown request_id answers is not known at the vendor.
            return request is not None and request.judge(code, self._now())

    def number_of(self, request_id: str) -> str:
        """The number a request was sent to, "" where the request is unknown."""
        with self._lock:
            request = self._requests.get(request_id)
            return request.message.phone_number if request else ""

    @property
    def messages(self) -> list[Message]:
        """Every SMS, newest first."""
        with self._lock:
            return [each.message for each in reversed(self._requests.values())]

    def code_for(self, phone_number: str) -> str:
        """The newest code sent to a number; LookupError where there is none."""
        for message in self.messages:
            if message.phone_number == phone_number:
                return message.code
        raise LookupError("No SMS was sent to this number.")

    def billed(self, phone_number: str) -> int:
        return sum(each.phone_number == phone_number for each in self.messages)

    def checks_for(self, request_id: str) -> int:
        """How many checks were judged against a request."""
        with self._lock:
            request = self._requests.get(request_id)
            return request.checks if request else 0

    def arrived(self, endpoint: str) -> None:
        with self._lock:
            self._arrivals[endpoint] += 1

    def _arrived(self, endpoint: str) -> int:
        with self._lock:
            return self._arrivals[endpoint]

    @property
    def sends(self) -> int:
        """Requests that reached send-sms, whatever became of them."""
        return self._arrived("send")

    @property
    def checks(self) -> int:
        """Requests that reached verify-sms, whatever became of them."""
        return self._arrived("check")

    @property
    def redirects_followed(self) -> int:
        """Requests that came where +12025550111 redirects to."""
        return self._arrived("redirect")
