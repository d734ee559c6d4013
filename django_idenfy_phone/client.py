"""iDenfy's phone verification API. Only this module knows its URLs and JSON keys.

Sending is paid and cannot be repeated safely, so each answer becomes a typed error
that says what the caller can do next. The facts come from iDenfy's pages
(documentation.idenfy.com/fraud-prevention/phone-verification and
/resources/error-messages).
"""

import email.utils
import ipaddress
import os
import re
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import requests
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from . import __version__
from .conf import conf
from .exceptions import (
    MAX_RETRY_AFTER,
    MIN_RETRY_AFTER,
    AccountRefused,
    IdenfyError,
    KeyRefused,
    NeverSent,
    NumberRefused,
    OutcomeUnknown,
    RateLimited,
)
from .strict_json import load_object

SEND_PATH = "/fraud/send-sms"
VERIFY_PATH = "/fraud/verify-sms"
CONNECT_TIMEOUT_SECONDS = 3.05
READ_TIMEOUT_SECONDS = 8
MAX_ANSWER_BYTES = 64 * 1024

HEADERS = {
    "Accept": "application/json",
    # A compressed body could fill the memory when it is inflated.
    "Accept-Encoding": "identity",
    "User-Agent": f"django-idenfy-phone/{__version__}",
}

VALUE_IDENTIFIERS = {"BAD_VALUE", "MISSING_VALUE", "VALIDATION_ERROR"}
ACCOUNT_IDENTIFIERS = {"PERMISSIONS_ERROR", "PARTNER_CONTRACT_ERROR"}

# requests raises the same ConnectionError for "refused" and for "the server read the
# request, then hung up". Only what it wraps proves that nothing was written.
NEVER_LEFT = (NewConnectionError, ConnectTimeoutError, ssl.SSLCertVerificationError)

_thread = threading.local()


class Answer(NamedTuple):
    """iDenfy's answer. ``members`` is empty for a body that is no JSON object."""

    status: int
    headers: Mapping[str, str]
    members: dict[str, Any]

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def identifier(self) -> str:
        """The constant of iDenfy's error body; "" for anything that is not one."""
        text = self.members.get("identifier")
        is_constant = isinstance(text, str) and re.fullmatch("[A-Z_]{1,64}", text)
        return text if is_constant and text else ""

    @property
    def reason(self) -> str:
        return f"HTTP {self.status}"


class IdenfyClient:
    """One method for each endpoint. Settings are read at each call."""

    @sensitive_variables()
    def send_sms(self, phone_number: str) -> str:
        """Send a code to an E.164 number. Returns the request_id.

        Raises NeverSent, RateLimited, AccountRefused, NumberRefused or, for all that
        may have sent an SMS, OutcomeUnknown.
        """
        payload = {"phone_number": phone_number}
        if conf.SENDER_NAME:
            payload["sender_name"] = conf.SENDER_NAME
        # A fresh connection: an error on a stale one would leave the outcome unknown.
        with _new_session() as session:
            answer = _post(session, SEND_PATH, payload)
        request_id = answer.members.get("request_id")
        # "string, 32 to 40 characters"
        if (
            answer.is_success
            and isinstance(request_id, str)
            and re.fullmatch("[!-~]{32,40}", request_id)
        ):
            return request_id
        raise _send_error(answer)

    @sensitive_variables()
    def verify_sms(self, request_id: str, code: str) -> bool:
        """Have a 4-digit code judged. False also for a code "already validated".

        Raises NeverSent, RateLimited or AccountRefused where iDenfy did not judge it,
        OutcomeUnknown where it may have.
        """
        payload = {"request_id": request_id, "received_code": code}
        answer = _post(_pooled_session(), VERIFY_PATH, payload)
        is_verified = answer.members.get("is_verified")
        if answer.is_success and isinstance(is_verified, bool):
            return is_verified
        raise _verify_error(answer)


def _send_error(answer: Answer) -> IdenfyError:
    """An error for what the caller can do next, by identifier first, then by status."""
    identifier, status = answer.identifier, answer.status
    error: type[IdenfyError] = OutcomeUnknown
    if identifier == "TOO_MANY_REQUESTS":
        return _rate_limited(answer)
    if identifier == "UNAUTHORIZED":
        error = KeyRefused
    elif identifier in ACCOUNT_IDENTIFIERS:
        error = AccountRefused
    elif identifier in VALUE_IDENTIFIERS:
        error = NumberRefused if 400 <= status < 500 else OutcomeUnknown
    elif identifier == "INTERNAL_ERROR":
        error = OutcomeUnknown
    elif status == 429:
        return _rate_limited(answer)
    elif status == 401:
        error = KeyRefused
    elif status in (403, 404, 405):
        error = AccountRefused
    return error(answer.reason, identifier=identifier)


def _verify_error(answer: Answer) -> IdenfyError:
    if answer.identifier == "TOO_MANY_REQUESTS" or answer.status == 429:
        return _rate_limited(answer)
    if answer.identifier == "UNAUTHORIZED" or answer.status in (401, 403):
        return AccountRefused(answer.reason, identifier=answer.identifier)
    return OutcomeUnknown(answer.reason, identifier=answer.identifier)


def _rate_limited(answer: Answer) -> RateLimited:
    return RateLimited(
        answer.reason,
        identifier=answer.identifier,
        retry_after=_retry_after(answer.headers.get("Retry-After", "")),
    )


def _retry_after(text: str) -> timedelta | None:
    """Read seconds or an HTTP date, clamped to 1…300 s; None for anything else."""
    if re.fullmatch("[0-9]{1,9}", text.strip()):
        seconds = float(text)
    else:
        try:
            moment = email.utils.parsedate_to_datetime(text).timestamp()
        except (ValueError, OverflowError):
            return None
        seconds = moment - timezone.now().timestamp()
    return max(MIN_RETRY_AFTER, min(timedelta(seconds=seconds), MAX_RETRY_AFTER))


@sensitive_variables()
def _post(session: requests.Session, path: str, payload: dict[str, str]) -> Answer:
    if not conf.has_credentials:
        raise KeyRefused("API key or secret not set")
    seconds = conf.TIMEOUT
    try:
        with (
            _Deadline(seconds),
            session.post(
                conf.API_URL.rstrip("/") + path,
                json=payload,
                auth=(conf.API_KEY, conf.API_SECRET),
                headers=HEADERS,
                proxies=_proxies(conf.API_URL),
                timeout=(
                    min(CONNECT_TIMEOUT_SECONDS, seconds),
                    min(READ_TIMEOUT_SECONDS, seconds),
                ),
                allow_redirects=False,
                stream=True,
            ) as response,
        ):
            body = response.raw.read(MAX_ANSWER_BYTES + 1, decode_content=False)
    except (requests.RequestException, HTTPError, OSError) as error:
        name = type(error).__name__
        if _never_left(error):
            raise NeverSent(name) from error
        raise OutcomeUnknown(name) from error
    if len(body) > MAX_ANSWER_BYTES:
        raise OutcomeUnknown(f"HTTP {response.status_code}, oversized answer")
    return Answer(response.status_code, response.headers, _members(body))


def _proxies(url: str) -> dict[str, str]:
    """Those of the environment, but none for loopback."""
    host = urlsplit(url).hostname or ""
    return {"no_proxy": host} if _is_loopback(host) else {}


def _is_loopback(host: str) -> bool:
    name = host.rstrip(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
    # Before Python 3.13, ::ffff:127.0.0.1 does not count as loopback by itself.
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _members(body: bytes) -> dict[str, Any]:
    try:
        return load_object(body)
    except ValueError:
        return {}


def _never_left(error: BaseException) -> bool:
    # Not __context__: a host may call this while it handles an error of its own.
    wrapped = [*error.args, getattr(error, "reason", None)]
    return isinstance(error, NEVER_LEFT) or any(
        _never_left(cause) for cause in wrapped if isinstance(cause, BaseException)
    )


class _Deadline:
    """Cuts off an answer that takes too long in all.

    The timeout of requests restarts with each byte, so a server that sends one byte
    at a time could hold a worker for hours.
    """

    def __init__(self, seconds: float) -> None:
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        _thread.deadline = self
        self._timer.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._timer.cancel()

    def watch(self, sock: socket.socket) -> None:
        self._socket = sock
        if not self._timer.is_alive():
            self._cut()

    def _cut(self) -> None:
        if self._socket is not None:
            # Not SSLSocket.shutdown, which removes the TLS state while the other
            # thread reads with it.
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _Connection(HTTPConnection):
    def getresponse(self) -> Any:
        _thread.deadline.watch(self.sock)
        return super().getresponse()


class _SecureConnection(HTTPSConnection):
    def getresponse(self) -> Any:
        _thread.deadline.watch(self.sock)
        return super().getresponse()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


_POOLS = {"http": _Pool, "https": _SecurePool}


def _new_session() -> requests.Session:
    session = requests.Session()
    session.mount("http://", _Adapter())
    session.mount("https://", _Adapter())
    return session


def _pooled_session() -> requests.Session:
    """One session for each thread and process: no connection may cross a fork."""
    if getattr(_thread, "pid", None) != os.getpid():
        _thread.session, _thread.pid = _new_session(), os.getpid()
    session: requests.Session = _thread.session
    return session
