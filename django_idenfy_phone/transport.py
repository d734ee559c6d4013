"""One POST within a bounded time, and what its answer was. Only this module does HTTP.

It knows how HTTP may fail; what iDenfy's answers mean is the client's business.
"""

import _socket
import http.client
import ipaddress
import math
import os
import socket
import ssl
import sys
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import cache, partial
from http.cookiejar import DefaultCookiePolicy
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import PoolManager
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.util.connection import create_connection
from urllib3.util.ssl_ import create_urllib3_context

from . import __version__
from .exceptions import NeverSent, OutcomeUnknown
from .processes import PerProcess

CONNECT_TIMEOUT_SECONDS = 3.05
READ_TIMEOUT_SECONDS = 8
MAX_IDLE_SECONDS = 4
MAX_ANSWER_BYTES = 64 * 1024
WATCHDOG_THREAD = "idenfy-phone-watchdog"

HEADERS = {
    "Accept": "application/json",
    # A server may compress in spite of this: see _inflate.
    "Accept-Encoding": "identity",
    "User-Agent": f"django-idenfy-phone/{__version__}",
}

_thread = threading.local()
T = TypeVar("T")


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    def decoded(self) -> Self:
        """Undo the encodings of Content-Encoding; the last one was applied last.

        Raises OutcomeUnknown for more than MAX_ANSWER_BYTES.
        """
        body, encodings = self.body, self.headers.get("Content-Encoding", "")
        for encoding in reversed(encodings.lower().split(",")):
            if encoding.strip() in ("gzip", "x-gzip", "deflate"):
                # Proxies that inflate a body may leave the header as it was.
                with suppress(zlib.error):
                    body = _inflate(body)
        if len(body) > MAX_ANSWER_BYTES:
            raise OutcomeUnknown(f"HTTP {self.status}, oversized answer")
        return self._replace(body=body)


def post(
    session: requests.Session,
    url: str,
    payload: dict[str, str],
    *,
    auth: tuple[str, str],
    seconds: float,
) -> Reply:
    """Make one request, which takes at most ``seconds`` in all.

    Raises NeverSent or, where the request may have arrived, OutcomeUnknown.
    """
    try:
        with (
            _Request(seconds) as request,
            session.post(
                url,
                json=payload,
                auth=auth,
                headers=HEADERS,
                proxies=_proxies(url),
                timeout=(
                    min(CONNECT_TIMEOUT_SECONDS, seconds),
                    min(READ_TIMEOUT_SECONDS, seconds),
                ),
                allow_redirects=False,
                stream=True,
            ) as response,
        ):
            body = response.raw.read(MAX_ANSWER_BYTES + 1, decode_content=False)
            reply = Reply(response.status_code, response.headers, body)
    # RuntimeError: no thread could be started.
    except (requests.RequestException, HTTPError, OSError, RuntimeError) as error:
        name = type(error).__name__
        raise (OutcomeUnknown if request.is_written else NeverSent)(name) from error
    return reply.decoded()


def _inflate(body: bytes) -> bytes:
    """Decompress gzip or zlib, up to one byte more than an answer may have."""
    data = b""
    while body and len(data) <= MAX_ANSWER_BYTES:
        inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        data += inflater.decompress(body, MAX_ANSWER_BYTES + 1 - len(data))
        if not inflater.eof and len(data) <= MAX_ANSWER_BYTES:
            raise zlib.error("cut off")
        # Several gzip members may follow each other.
        body = inflater.unused_data
    return data


def _proxies(url: str) -> dict[str, str]:
    """The ``proxies`` for requests: none for loopback, else the environment's."""
    host = urlsplit(url).hostname or ""
    name = host.rstrip(".")
    try:
        address = ipaddress.ip_address(name)
        # Before Python 3.13, ::ffff:127.0.0.1 does not count as loopback by itself.
        is_loopback = (getattr(address, "ipv4_mapped", None) or address).is_loopback
    except ValueError:
        is_loopback = name == "localhost" or name.endswith(".localhost")
    return {"no_proxy": host} if is_loopback else {}


class _Request:
    """One request: when its time ends, and whether it was written.

    The timeout of requests restarts with each byte, so a server that sends one byte
    at a time could hold a worker for hours. The watchdog cuts the request off.
    """

    def __init__(self, seconds: float) -> None:
        self.ends_at = time.monotonic() + seconds
        self.is_written = False
        self._socket: _socket.socket | None = None
        self._watchdog = _watchdog.get()

    def __enter__(self) -> Self:
        _thread.request = self
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._watchdog.remove(self)
        if self._socket is not None:
            self._socket.close()

    def seconds_left(self) -> float:
        seconds = self.ends_at - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("no time is left")
        return seconds

    def watch(self, sock: Any) -> None:
        """Cut this socket off, from now on, once no time is left."""
        if self._socket is None:
            # A descriptor of its own: the number of a closed one may be used again.
            # The plain type works for the sockets of gevent, eventlet and ssl too.
            self._socket = _socket.socket(fileno=_socket.dup(sock.fileno()))
            self._watchdog.add(self)

    def start_writing(self) -> None:
        self.seconds_left()
        self.is_written = True

    def cut(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


class _Watchdog:
    """One thread that cuts off the requests of this process when their time is over."""

    def __init__(self) -> None:
        self._requests: set[_Request] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._wakes_at = math.inf

    def add(self, request: _Request) -> None:
        with self._changed:
            if self._thread is None:
                thread = threading.Thread(
                    target=self._run, name=WATCHDOG_THREAD, daemon=True
                )
                thread.start()
                self._thread = thread
            self._requests.add(request)
            # Most requests end later than one before them, and need not wake it.
            if request.ends_at < self._wakes_at:
                self._changed.notify()

    def remove(self, request: _Request) -> None:
        with self._changed:
            self._requests.discard(request)

    def _run(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for request in [each for each in self._requests if each.ends_at <= now]:
                    request.cut()
                    self._requests.remove(request)
                ends = [each.ends_at for each in self._requests]
                self._wakes_at = min(ends, default=math.inf)
                self._changed.wait(self._wakes_at - now if ends else None)


_watchdog = PerProcess(_Watchdog)


def _in_thread(call: Callable[[], T]) -> Future[T]:
    """Start a call in a thread of its own, since it takes no timeout itself."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def _getaddrinfo(host: str, port: int) -> list[Any]:
    """``socket.getaddrinfo`` that holds up no other thread.

    Under eventlet all threads share one of the system. Without its greendns, the call
    would stop them all, so it goes to eventlet's pool of real threads.
    """
    call = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    patcher = sys.modules.get("eventlet.patcher")
    is_green = patcher is not None and patcher.is_monkey_patched("thread")
    if is_green and socket.getaddrinfo.__module__ == socket.__name__:
        found: list[Any] = import_module("eventlet.tpool").execute(call)
        return found
    return call()


class _Resolver:
    """Resolves names. All who wait for one name share a thread.

    Otherwise a slow resolver would fill the process with threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lookups: dict[tuple[str, int], Future[list[Any]]] = {}

    def addresses(self, host: str, port: int, seconds: float) -> list[Any]:
        """The addresses of a name. Raises OSError, after ``seconds`` at the latest."""
        key = host, port
        with self._lock:
            if key not in self._lookups:
                self._lookups[key] = _in_thread(partial(self._look_up, *key))
            lookup = self._lookups[key]
        return lookup.result(seconds)

    def _look_up(self, host: str, port: int) -> list[Any]:
        try:
            found = _getaddrinfo(host, port)
        except (OSError, UnicodeError) as error:
            raise OSError(type(error).__name__) from None
        finally:
            with self._lock:
                self._lookups.pop((host, port), None)
        return [address for *_rest, address in found]


_resolver = PerProcess(_Resolver)


class _Response(http.client.HTTPResponse):
    def _read_status(self) -> tuple[str, int, str]:
        """Skip interim answers, such as 103; http.client skips only 100."""
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200 or status == 101:
                return version, status, reason
            http.client.parse_headers(self.fp)


class _Connection(HTTPConnection):
    """A mixin: it marks the request of its thread as written.

    requests raises the same errors for a connection that failed and for an answer that
    was lost.
    """

    response_class = _Response
    _is_connecting = False
    _used_at = 0.0

    def connect(self) -> None:
        self._keep_certificates()
        self._is_connecting = True
        try:
            super().connect()
        finally:
            self._is_connecting = False
        # ssl wraps a socket whose peer is gone without a handshake.
        if isinstance(self.sock, ssl.SSLSocket) and self.sock.version() is None:
            raise ConnectionError("closed before the handshake")

    def _keep_certificates(self) -> None:
        """Read the trusted certificates once, not for each connection over TLS."""
        path = getattr(self, "ca_certs", None)
        # The handshake with a proxy over TLS needs the path.
        if path and (self.proxy is None or self.proxy.scheme != "https"):
            self.ssl_context = _tls_context(path, Path(path).stat().st_mtime_ns)
            self.ca_certs = None

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        # The CONNECT that asks a proxy for a tunnel is no part of the request.
        if not self._is_connecting:
            _thread.request.watch(self.sock)
            _thread.request.start_writing()
        super().send(data)

    def getresponse(self) -> Any:
        response = super().getresponse()
        self._used_at = time.monotonic()
        return response

    @property
    def is_connected(self) -> bool:
        """Whether it can be used again. Gateways forget idle connections silently."""
        idle_seconds = time.monotonic() - self._used_at
        return idle_seconds <= MAX_IDLE_SECONDS and super().is_connected

    def _new_conn(self) -> Any:
        """Connect to one of the host's addresses; they share half of the time left.

        The other half is for the handshake and the answer.
        """
        request: _Request = _thread.request
        try:
            sock = self._connect(request)
            sock.settimeout(request.seconds_left())
        except OSError as error:
            raise NewConnectionError(self, type(error).__name__) from error
        request.watch(sock)
        return sock

    def _connect(self, request: _Request) -> Any:
        if hasattr(self, "_socks_options"):
            return self._connect_by_socks_proxy(request.seconds_left())
        host, port, options = self._dns_host, self.port, self.socket_options
        addresses = _resolver.get().addresses(host, port, request.seconds_left())
        for number, address in enumerate(addresses, start=1):
            left = len(addresses) - number + 1
            share = min(request.seconds_left() / 2 / left, CONNECT_TIMEOUT_SECONDS)
            try:
                return create_connection(address[:2], share, socket_options=options)
            except OSError:
                if left == 1:
                    raise
        raise OSError("no address")

    def _connect_by_socks_proxy(self, seconds: float) -> Any:
        """In a thread: the handshake with the proxy has no deadline in all."""
        connection: Future[Any] = _in_thread(super()._new_conn)
        try:
            return connection.result(seconds)
        except TimeoutError:
            connection.add_done_callback(
                lambda late: late.exception() or late.result().close()
            )
            raise


@cache
def _tls_context(path: str, changed_at: int) -> ssl.SSLContext:
    """Trusts the certificates in the file ``path``, as changed at ``changed_at``."""
    context = create_urllib3_context()
    context.load_verify_locations(path)
    return context


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _watch(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        _watch(manager)
        return manager


def _watch(manager: PoolManager) -> None:
    """Make all its connections ours, those through a SOCKS proxy too."""
    pools: dict[str, Any] = manager.pool_classes_by_scheme
    for scheme, pool in pools.items():
        if not issubclass(pool.ConnectionCls, _Connection):
            connection = type("Connection", (_Connection, pool.ConnectionCls), {})
            pool = type("Pool", (pool,), {"ConnectionCls": connection})
        pools = pools | {scheme: pool}
    manager.pool_classes_by_scheme = pools


def thread_session(name: str) -> requests.Session:
    """A session for each thread and process: no connection may cross a fork.

    In a ``with`` statement, its connections are closed at the end, and it can be used
    again.
    """
    if getattr(_thread, "pid", None) != os.getpid():
        _thread.sessions, _thread.pid = {}, os.getpid()
    sessions: dict[str, requests.Session] = _thread.sessions
    if name not in sessions:
        sessions[name] = requests.Session()
        # Else the cookies of one person's answer go out with the next person's request.
        sessions[name].cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        sessions[name].mount("http://", _Adapter())
        sessions[name].mount("https://", _Adapter())
    return sessions[name]
