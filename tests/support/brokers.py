"""Redis, Redis Sentinel and RabbitMQ servers that tests can freeze, flush and kill."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import amqp

import django_idenfy_phone

LOOPBACK = "127.0.0.1"
READY_SECONDS = 60
# Debian's wrapper on the PATH switches to the user "rabbitmq".
RABBITMQ_FOLDERS = ["/usr/lib/rabbitmq/bin", os.defpath, os.environ.get("PATH", "")]


class NotInstalled(Exception):
    """A program is missing; the text says how to get it."""


def free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as probe:
        return probe.getsockname()[1]


def environment(**settings: object) -> dict[str, str]:
    """Return the environment of a process that runs the host project."""
    files = Path(__file__), Path(django_idenfy_phone.__file__)
    folders = [str(file.resolve().parents[1]) for file in files]
    return os.environ | {
        "DJANGO_SETTINGS_MODULE": "support.worker_settings",
        "HOST_SETTINGS": json.dumps(settings, default=str),
        "PYTHONPATH": os.pathsep.join(folders),
    }


@contextmanager
def full_backlog() -> Iterator[int]:
    """Yield a port that answers no SYN, because its backlog is full."""
    with socket.create_server((LOOPBACK, 0), backlog=0) as listener:
        address = listener.getsockname()
        clients = [socket.socket() for _ in range(4)]
        for sock in clients:
            sock.setblocking(False)
            sock.connect_ex(address)
        time.sleep(0.05)
        yield address[1]
        for sock in clients:
            sock.close()


def wait_until(is_true: Callable[[], object], seconds: float = READY_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{is_true} stayed false for {seconds} s")
        time.sleep(0.02)


def path_of(program: str, search_path: str | None = None) -> str:
    path = shutil.which(program, path=search_path)
    if path is None:
        raise NotInstalled(f"install {program} to run this")
    return path


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Return the paths of a new self-signed certificate and of its key."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-keyout", key, "-out", certificate),
            *("-addext", "subjectAltName=DNS:localhost,DNS:idenfy.test"),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


class Broker:
    """One server process. ``url`` is its broker_url for Celery."""

    # More settings that Celery needs for it.
    settings: dict[str, Any] = {}

    def __init__(self, scheme: str) -> None:
        self.scheme = scheme
        self.port = free_port()
        self.url = self.url_at(self.port)
        self.folder = Path(tempfile.mkdtemp(prefix="idenfy-phone-"))
        self.process: subprocess.Popen[bytes] | None = None

    def url_at(self, port: int) -> str:
        """The broker_url of a server of this kind that listens elsewhere."""
        return f"{self.scheme}://{LOOPBACK}:{port}/"

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def answers(self) -> bool:
        raise NotImplementedError

    def flush(self) -> None:
        """Delete all messages."""
        raise NotImplementedError

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=os.environ | self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._is_ready)

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise ChildProcessError((self.folder / "log").read_text()[-1000:])
        with suppress(OSError):
            return self.answers()
        return False

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def kill(self) -> None:
        # The whole group, because RabbitMQ starts child processes.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()

    def stop(self) -> None:
        if self.process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Redis(Broker):
    def __init__(self, *options: str) -> None:
        self.binary = path_of("redis-server")
        self.options = options
        super().__init__("redis")

    def command(self) -> list[str]:
        return [
            *(self.binary, "--bind", LOOPBACK, "--port", str(self.port)),
            *("--save", "", "--appendonly", "no", *self.options),
        ]

    def response_to(self, command: str) -> bytes:
        return self._response_at(self.port, command)

    def _response_at(self, port: int, command: str) -> bytes:
        with socket.create_connection((LOOPBACK, port), timeout=5) as sock:
            sock.sendall(f"{command}\r\n".encode())
            return sock.recv(65536)

    def answers(self) -> bool:
        return self.response_to("PING") == b"+PONG\r\n"

    def flush(self) -> None:
        assert self.response_to("FLUSHALL") == b"+OK\r\n"


class RedisOverTLS(Redis):
    settings = {"broker_use_ssl": {"ssl_cert_reqs": "none"}}

    def __init__(self) -> None:
        super().__init__()
        self.plain_port = free_port()
        self.scheme = "rediss"
        self.url = self.url_at(self.port)

    def command(self) -> list[str]:
        certificate, key = map(str, self_signed(self.folder))
        return [
            *super().command(),
            *("--port", str(self.plain_port), "--tls-port", str(self.port)),
            *("--tls-cert-file", certificate, "--tls-key-file", key),
            *("--tls-auth-clients", "no"),
        ]

    def response_to(self, command: str) -> bytes:
        return self._response_at(self.plain_port, command)


class RedisSocket(Redis):
    """Redis on a Unix socket, beside its port."""

    def __init__(self) -> None:
        super().__init__()
        self.path = self.folder / "socket"
        self.url = f"redis+socket://{self.path}"

    def command(self) -> list[str]:
        return [*super().command(), "--unixsocket", str(self.path)]


class SentinelProcess(Redis):
    """One of the processes that watch the master at ``master_port``."""

    def __init__(self, master_port: int) -> None:
        super().__init__()
        self.master_port = master_port

    def command(self) -> list[str]:
        # It takes a file only, and rewrites it.
        file = self.folder / "sentinel.conf"
        file.write_text(
            f"bind {LOOPBACK}\nport {self.port}\n"
            f"sentinel monitor main {LOOPBACK} {self.master_port} 2\n"
            # A master that a test freezes stays the master.
            "sentinel down-after-milliseconds main 600000\n"
        )
        return [self.binary, str(file), "--sentinel"]


class Sentinel(Redis):
    """A Redis master, its replica, and two sentinels that watch them."""

    settings = {"broker_transport_options": {"master_name": "main"}}

    def __init__(self) -> None:
        super().__init__()
        self.replica = Redis("--replicaof", f"{LOOPBACK} {self.port}")
        self.sentinels = [SentinelProcess(self.port) for _ in range(2)]
        self.others = [self.replica, *self.sentinels]
        self.url = self.url_at(*[sentinel.port for sentinel in self.sentinels])

    def url_at(self, *ports: int) -> str:
        # Each port twice: there are always two sentinels.
        both = (ports * 2)[:2]
        return ";".join(f"sentinel://{LOOPBACK}:{port}/" for port in both)

    def start(self) -> None:
        super().start()
        for other in self.others:
            if other.process is None:
                other.start()
        wait_until(lambda: b"slaves=1,sentinels=2" in self.sentinel_info())

    def sentinel_info(self) -> bytes:
        return self.sentinels[0].response_to("INFO sentinel")

    def stop(self) -> None:
        super().stop()
        for other in self.others:
            other.stop()

    def close(self) -> None:
        self.stop()

    def fail_over(self, is_lost: bool) -> None:
        """Make the replica the master; the old master dies or becomes a replica."""
        if is_lost:
            self.kill()
        self.sentinels[0].response_to("SENTINEL FAILOVER main")
        for sentinel in self.sentinels:
            wait_until(partial(self._is_replaced, sentinel))
        if not is_lost:
            wait_until(lambda: b"role:slave" in self.response_to("INFO replication"))

    def _is_replaced(self, sentinel: SentinelProcess) -> bool:
        new = f"address={LOOPBACK}:{self.replica.port}".encode()
        return new in sentinel.response_to("INFO sentinel")


class RabbitMQ(Broker):
    def __init__(self) -> None:
        self.binary = path_of("rabbitmq-server", os.pathsep.join(RABBITMQ_FOLDERS))
        self.epmd_binary = path_of("epmd")
        super().__init__("amqp")
        self.epmd_port = str(free_port())
        self.tls_url = f"amqps://{LOOPBACK}:{free_port()}/"
        self.epmd: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self.epmd is None:
            # RabbitMQ would start one that outlives it.
            self.epmd = subprocess.Popen(
                [
                    *(self.epmd_binary, "-address", LOOPBACK),
                    *("-port", self.epmd_port),
                ],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        super().start()

    def stop(self) -> None:
        super().stop()
        if self.epmd is not None:
            self.epmd.kill()
            self.epmd.wait()

    def restart(self) -> None:
        """Restart without stored messages, as a server without a disk does."""
        self.kill()
        for folder in self.folder.glob("test*@localhost*"):
            shutil.rmtree(folder, ignore_errors=True)
        self.start()

    def command(self) -> list[str]:
        return [self.binary, "-noinput"]

    def environment(self) -> dict[str, str]:
        """Share nothing with another RabbitMQ on this machine, not even epmd."""
        folder = str(self.folder)
        certificate, key = self_signed(self.folder)
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = {LOOPBACK}:{self.port}\n"
            f"listeners.ssl.1 = {urlsplit(self.tls_url).netloc}\n"
            f"ssl_options.certfile = {certificate}\n"
            f"ssl_options.keyfile = {key}\n"
        )
        (self.folder / "env.conf").touch()
        return {
            "HOME": folder,
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_EPMD_PORT": self.epmd_port,
            "ERL_FLAGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            # The server replaces the shell, so that signals reach it.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/env.conf",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_LOG_BASE": folder,
            "RABBITMQ_MNESIA_BASE": folder,
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
        }

    def answers(self) -> bool:
        with socket.create_connection((LOOPBACK, self.port), timeout=5) as sock:
            sock.sendall(b"AMQP\0\0\x09\x01")
            return sock.recv(1) == b"\x01"

    def flush(self) -> None:
        connection = amqp.Connection(f"{LOOPBACK}:{self.port}")
        # The queue does not exist before the first message or worker.
        with suppress(amqp.NotFound), connection:
            connection.channel().queue_purge("celery")
