"""The rules that iDenfy documents for phone verification. No HTTP here."""

import re
import secrets
import threading
from collections import Counter, deque
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
    """One SMS in the inbox. iDenfy would have billed it."""

    phone_number: str
    code: str
    text: str
    sender_name: str
    request_id: str
    sent_at: datetime


def send_values(body: Mapping[str, object]) -> tuple[str, str]:
    """Return (phone number in E.164, sender name) of a send, or raise Refusal."""
    sender_name = DEFAULT_SENDER
    if "sender_name" in body:
        sender_name = _required_text(body, "sender_name", SENDER_NAME)
    return _required_text(body, "phone_number", E164), sender_name


def check_values(body: Mapping[str, object]) -> tuple[str, str]:
    """Return (request_id, 4-digit code) of a check, or raise Refusal."""
    return (
        _required_text(body, "request_id", REQUEST_ID),
        _required_text(body, "received_code", RECEIVED_CODE),
    )


def _required_text(
    body: Mapping[str, object], key: str, pattern: re.Pattern[str]
) -> str:
    if key not in body:
        raise Refusal("MISSING_VALUE", f"{key} is required.")
    value = body[key]
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise Refusal("BAD_VALUE", f"{key} is not valid.")
    return value


@dataclass
class _Request:
    """One send, and the result of its checks so far."""

    message: Message
    checks: int = 0
    wrong_codes: int = 0
    validated: bool = False

    def check(self, code: str, now: datetime) -> bool:
        """Count a check; return whether its code is right and still valid."""
        self.checks += 1
        # iDenfy answers false for "already validated" and for "too many wrong codes".
        # Its answer for an expired code is not known: false is our choice.
        if self.validated or self.wrong_codes >= MAX_WRONG_CODES:
            return False
        if now >= self.message.sent_at + CODE_LIFE:
            return False
        self.validated = code == self.message.code
        if not self.validated:
            self.wrong_codes += 1
        return self.validated


def utc_now() -> datetime:
    return datetime.now(UTC)


class SandboxState:
    """The inbox and the requests behind it. Safe to use from many threads."""

    def __init__(self, now: Callable[[], datetime] = utc_now) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._requests: dict[str, _Request] = {}
        self._request_counts: Counter[str] = Counter()
        self._failures: deque[str] = deque()

    def reset(self) -> None:
        """Delete all messages, requests, counts and failures to come."""
        with self._lock:
            self._requests.clear()
            self._request_counts.clear()
            self._failures.clear()

    def fail_next(self, identifier: str) -> None:
        """Have one more request answered with this error."""
        with self._lock:
            self._failures.append(identifier)

    def raise_failure(self) -> None:
        """Raise the oldest Refusal that ``fail_next`` asked for, if there is one."""
        with self._lock:
            if self._failures:
                message = "A test asked the sandbox for this error."
                raise Refusal(self._failures.popleft(), message)

    def send(self, phone_number: str, sender_name: str = DEFAULT_SENDER) -> Message:
        """Put one SMS into the inbox, and so bill it.

        It is not known whether iDenfy refuses a number that still has a live request.
        Here each send is independent, and the older code stays valid.
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
        """Return whether a code is right and valid; a right code is used up."""
        with self._lock:
            request = self._requests.get(request_id)
            # iDenfy's answer for an unknown request_id is not known.
            return request is not None and request.check(code, self._now())

    def number_of(self, request_id: str) -> str:
        """Return the phone number of a request, "" where the request is unknown."""
        with self._lock:
            request = self._requests.get(request_id)
            return request.message.phone_number if request else ""

    @property
    def messages(self) -> list[Message]:
        """Every SMS, newest first."""
        with self._lock:
            return [request.message for request in reversed(self._requests.values())]

    def code_for(self, phone_number: str) -> str:
        """Return the newest code sent to a number, or raise LookupError."""
        for message in self.messages:
            if message.phone_number == phone_number:
                return message.code
        raise LookupError("No SMS was sent to this number.")

    def billed(self, phone_number: str) -> int:
        """Return how many SMS were sent to a number, and so billed."""
        return sum(message.phone_number == phone_number for message in self.messages)

    def checks_for(self, request_id: str) -> int:
        """Return how many codes were checked for this request."""
        with self._lock:
            request = self._requests.get(request_id)
            return request.checks if request else 0

    def count_request(self, endpoint: str) -> None:
        with self._lock:
            self._request_counts[endpoint] += 1

    def _requests_to(self, endpoint: str) -> int:
        with self._lock:
            return self._request_counts[endpoint]

    @property
    def sends(self) -> int:
        """How many requests reached send-sms, with or without success."""
        return self._requests_to("send")

    @property
    def checks(self) -> int:
        """How many requests reached verify-sms, with or without success."""
        return self._requests_to("check")

    @property
    def redirects_followed(self) -> int:
        """How many requests reached the path that +12025550111 redirects to."""
        return self._requests_to("redirect")
