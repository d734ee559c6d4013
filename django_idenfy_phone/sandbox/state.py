"""The rules that iDenfy documents for phone verification. No HTTP here."""

import re
import secrets
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

CODE_LIFE = timedelta(minutes=5)
# iDenfy answers false after "too many" wrong codes and does not say how many.
MAX_WRONG_CODES = 3
DEFAULT_SENDER = "iDenfy"
# So many requests are kept for the inbox, the newest.
KEPT_EXCHANGES = 500

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


class Channel(StrEnum):
    """How a code reaches the phone."""

    SMS = "SMS"
    CALL = "call"


@dataclass(frozen=True)
class Delivery:
    """How and when a code arrives. It is valid for ``code_life`` after the send."""

    channel: Channel = Channel.SMS
    delay: timedelta = timedelta(0)
    code_life: timedelta = CODE_LIFE


NORMAL_DELIVERY = Delivery()


@dataclass(frozen=True)
class Message:
    """One SMS or call. iDenfy would have billed the SMS; of a call it is not known."""

    phone_number: str
    code: str
    text: str
    sender_name: str
    request_id: str
    sent_at: datetime
    arrives_at: datetime
    channel: Channel


class Verdict(StrEnum):
    """What the sandbox found about a code. iDenfy tells only right ones apart."""

    RIGHT = "right code"
    WRONG = "wrong code"
    VALIDATED = "code already validated"
    TOO_MANY = "too many wrong codes"
    EXPIRED = "code expired"
    UNKNOWN = "unknown request_id"


@dataclass
class Exchange:
    """One request to the API, and its answer: ``status`` is None where none was given.

    ``endpoint`` is "send", "check" or "redirect". ``body`` is a short answer's text.
    """

    id: int
    endpoint: str
    asked_at: datetime
    phone_number: str = ""
    verdict: Verdict | None = None
    status: int | None = None
    identifier: str = ""
    retry_after: int | None = None
    body: str = ""


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


def _text(channel: Channel, sender_name: str, code: str) -> str:
    if channel is Channel.CALL:
        # iDenfy documents that a call reads the code, and not what it says.
        return f"A voice reads the code: {code}."
    return f"The {sender_name} code: {code}. Valid for 5 minutes."


@dataclass
class _Request:
    """One send, and the result of its checks so far."""

    message: Message
    expires_at: datetime
    checks: int = 0
    wrong_codes: int = 0
    validated: bool = False

    def judge(self, code: str, now: datetime) -> Verdict:
        """Count a check; find whether its code is right and still valid."""
        self.checks += 1
        # iDenfy answers false for "already validated" and for "too many wrong codes".
        # Its answer for an expired code is not known: false is our choice.
        if self.validated:
            return Verdict.VALIDATED
        if self.wrong_codes >= MAX_WRONG_CODES:
            return Verdict.TOO_MANY
        if now >= self.expires_at:
            return Verdict.EXPIRED
        if code == self.message.code:
            self.validated = True
            return Verdict.RIGHT
        self.wrong_codes += 1
        return Verdict.WRONG


def utc_now() -> datetime:
    return datetime.now(UTC)


class SandboxState:
    """The inbox and the requests behind it. Safe to use from many threads."""

    def __init__(self, now: Callable[[], datetime] = utc_now) -> None:
        self.now = now
        self._lock = threading.Lock()
        self._requests: dict[str, _Request] = {}
        self._request_counts: Counter[str] = Counter()
        self._exchanges: deque[Exchange] = deque(maxlen=KEPT_EXCHANGES)
        self._failures: deque[str] = deque()

    def reset(self) -> None:
        """Delete all messages, requests, counts and failures to come."""
        with self._lock:
            self._exchanges.clear()
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

    def send(
        self,
        phone_number: str,
        sender_name: str = DEFAULT_SENDER,
        delivery: Delivery = NORMAL_DELIVERY,
    ) -> Message:
        """Send one code, and so bill it. It arrives in the inbox after its delay.

        It is not known whether iDenfy refuses a number that still has a live request.
        Here each send is independent, and the older code stays valid.
        """
        code, sent_at = f"{secrets.randbelow(10_000):04}", self.now().astimezone(UTC)
        message = Message(
            phone_number=phone_number,
            code=code,
            text=_text(delivery.channel, sender_name, code),
            sender_name=sender_name,
            request_id=secrets.token_hex(16),
            sent_at=sent_at,
            arrives_at=sent_at + delivery.delay,
            channel=delivery.channel,
        )
        request = _Request(message, expires_at=sent_at + delivery.code_life)
        with self._lock:
            self._requests[message.request_id] = request
        return message

    def check(self, request_id: str, code: str) -> bool:
        """Return whether a code is right and valid; a right code is used up."""
        return self.judge(request_id, code) is Verdict.RIGHT

    def judge(self, request_id: str, code: str) -> Verdict:
        """As ``check``, and say what is wrong with the code."""
        with self._lock:
            request = self._requests.get(request_id)
            # iDenfy's answer for an unknown request_id is not known.
            return request.judge(code, self.now()) if request else Verdict.UNKNOWN

    def number_of(self, request_id: str) -> str:
        """Return the phone number of a request, "" where the request is unknown."""
        with self._lock:
            request = self._requests.get(request_id)
            return request.message.phone_number if request else ""

    @property
    def messages(self) -> list[Message]:
        """Every SMS and call that has arrived, newest first."""
        now = self.now()
        arrived = [each for each in self._sent() if each.arrives_at <= now]
        # Those of one moment keep their order.
        return sorted(arrived, key=lambda each: each.arrives_at, reverse=True)

    def _sent(self) -> list[Message]:
        with self._lock:
            return [request.message for request in reversed(self._requests.values())]

    def code_for(self, phone_number: str) -> str:
        """Return the newest code sent to a number, or raise LookupError."""
        for message in self.messages:
            if message.phone_number == phone_number:
                return message.code
        raise LookupError("No SMS was sent to this number.")

    def billed(self, phone_number: str) -> int:
        """Return how many codes were sent to a number, and so billed."""
        return sum(message.phone_number == phone_number for message in self._sent())

    def checks_for(self, request_id: str) -> int:
        """Return how many codes were checked for this request."""
        with self._lock:
            request = self._requests.get(request_id)
            return request.checks if request else 0

    def count_request(self, endpoint: str) -> Exchange:
        """Count a request and log it. The caller adds what it answers."""
        with self._lock:
            self._request_counts[endpoint] += 1
            number, asked_at = self._request_counts.total(), self.now().astimezone(UTC)
            exchange = Exchange(number, endpoint, asked_at)
            self._exchanges.append(exchange)
        return exchange

    @property
    def exchanges(self) -> list[Exchange]:
        """The newest KEPT_EXCHANGES requests to the API, newest first."""
        with self._lock:
            return list(reversed(self._exchanges))

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
