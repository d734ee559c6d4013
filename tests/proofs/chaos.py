"""Nothing is lost or sent twice while workers, broker and iDenfy fail together.

``python tests/proofs/chaos.py redis`` or ``rabbitmq``, with PostgreSQL at DATABASE_URL.
It runs two workers and kills one about each second, runs a sandbox that fails at
random, and flushes and freezes the broker. Then it prints a report. The exit status
is 1 where something is wrong.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter, defaultdict
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from queue import Empty, Queue
from statistics import median

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "hosts.project.settings"
django.setup()

from django.conf import settings  # noqa: E402
from django.contrib.auth import get_user_model  # noqa: E402
from django.db import connection, connections  # noqa: E402
from django.utils import timezone  # noqa: E402
from rest_framework.test import APIClient  # noqa: E402

from django_idenfy_phone import tasks  # noqa: E402
from django_idenfy_phone.conf import DEFAULT_SEND_LIMITS  # noqa: E402
from django_idenfy_phone.models import PhoneVerification  # noqa: E402
from django_idenfy_phone.sandbox import scenarios, state  # noqa: E402
from django_idenfy_phone.sandbox import server as sandbox  # noqa: E402
from support import brokers  # noqa: E402
from support.steps import START_URL  # noqa: E402

SUPPORT = Path(__file__).resolve().parents[1] / "support"
POOLS = {"redis": "prefork", "rabbitmq": "threads"}
BROKERS = {"redis": brokers.Redis, "rabbitmq": brokers.RabbitMQ}
WORKERS = 2
STARTERS = 4
SECONDS_OF_STARTS = 30
SECONDS_OF_KILLS = 80
# Longer than the last row has until its deadline.
MAX_SECONDS = 250
FREEZE_SECONDS = 2
# Seconds after the first start.
FLUSH_TIMES = (5, 14, 24)
FREEZE_TIMES = (8, 18, 28)
MAX_START_SECONDS = 1.0
# From a claim to the end of the slowest request, on a busy machine.
LONGEST_ATTEMPT = timedelta(seconds=8)

CHAOS_SETTINGS = {
    "IDENFY_PHONE_API_KEY": "chaos-key",
    "IDENFY_PHONE_API_SECRET": "chaos-secret",
    "IDENFY_PHONE_SEND_RATE": "30/s",
    "IDENFY_PHONE_RESEND_COOLDOWN": (0,),
    "IDENFY_PHONE_SEND_LIMITS": dict.fromkeys(DEFAULT_SEND_LIMITS, ()),
}


def answer_after(low, high):
    def answer(handler, request_id):
        time.sleep(random.uniform(low, high))
        scenarios.answer_request_id(handler, request_id)

    return answer


SERVER_ERROR = scenarios.error(500, "INTERNAL_ERROR")
# The percentage of sends that get each answer.
ANSWERS = {
    "429": (15.0, scenarios.refused(429, "TOO_MANY_REQUESTS", {"Retry-After": "1"})),
    "slow": (7.0, scenarios.sent("a long pause", answer_after(1, 3))),
    "reset": (5.0, scenarios.sent("a reset", scenarios.reset_connection)),
    "500 unbilled": (2.5, scenarios.refused(500, "INTERNAL_ERROR")),
    "500 billed": (2.5, scenarios.sent("a 500", SERVER_ERROR)),
    "HTML": (3.0, scenarios.sent("a page", scenarios.answer_html)),
}
NORMAL = "normal"
NORMAL_ANSWER = scenarios.sent("a short pause", answer_after(0.02, 0.1))
UNCERTAIN = {"reset", "500 unbilled", "500 billed", "HTML"}


class Handler(sandbox.Handler):
    def do_POST(self):
        if not self.path.endswith("/send-sms"):
            self.serve()
            return
        body = sandbox.accept_request(self, "send", self.read_body())
        number, sender_name = state.send_values(body)
        answer = self.server.sandbox.answer_for(number)
        sandbox.run_send(self, answer, number, sender_name)


class FailingSandbox(sandbox.SandboxServer):
    def __init__(self, seed):
        key = CHAOS_SETTINGS["IDENFY_PHONE_API_KEY"]
        secret = CHAOS_SETTINGS["IDENFY_PHONE_API_SECRET"]
        super().__init__(key, secret, port=brokers.free_port())
        # The names of all answers, by number.
        self.answers = defaultdict(list)
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def start(self):
        super().start()
        self._listener.RequestHandlerClass = Handler

    def answer_for(self, number):
        with self._lock:
            name = self._draw()
            self.answers[number].append(name)
        return ANSWERS[name][1] if name in ANSWERS else NORMAL_ANSWER

    def _draw(self):
        point = self._random.uniform(0, 100)
        for name, (percentage, _answer) in ANSWERS.items():
            point -= percentage
            if point < 0:
                return name
        return NORMAL


class Workers:
    """Worker processes; a new one starts for each that is killed."""

    def __init__(self, pool, environment, folder):
        command = [sys.executable, SUPPORT / "worker_forkserver.py", f"--pool={pool}"]
        options = ["--concurrency=3", "--loglevel=WARNING", "--without-heartbeat"]
        quiet = ["--without-gossip", "--without-mingle"]
        self.log = folder / "workers.log"
        with self.log.open("wb") as log:
            self.forkserver = subprocess.Popen(
                [*command, *options, *quiet],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.pids = []
        self.kill_times = []
        self.killed = Counter()

    def start(self):
        self.forkserver.stdin.write("\n")
        self.forkserver.stdin.flush()
        self.pids.append(int(self.forkserver.stdout.readline()))

    def kill_one(self):
        """Kill a whole worker, or one process of its pool."""
        pid = random.choice(self.pids)
        pool = pool_of(pid)
        self.kill_times.append(timezone.now())
        if pool and random.random() < 0.6:
            send_sigkill(os.kill, random.choice(pool))
            self.killed["pool processes"] += 1
        else:
            send_sigkill(os.killpg, pid)
            self.killed["whole workers"] += 1
            self.pids.remove(pid)
            self.start()

    def logged_unknown(self, row):
        """Return whether a worker ended the row, and not its expired lease."""
        return f"Verification {row.reference}: unknown" in self.log.read_text()

    def stop(self):
        for pid in self.pids:
            send_sigkill(os.killpg, pid)
        self.forkserver.kill()
        self.forkserver.wait()


def pool_of(pid):
    with suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in children.split()]
    return []


def send_sigkill(kill, pid):
    with suppress(ProcessLookupError):
        kill(pid, signal.SIGKILL)


@contextmanager
def sweep_command(environment, folder):
    """Sweep by the command, as a host without beat does."""
    command = [sys.executable, "-m", "django", "idenfy_phone_sweep", "--loop=15"]
    with (
        (folder / "sweep.log").open("wb") as log,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log
        ) as process,
    ):
        try:
            yield
        finally:
            process.terminate()


def client_of(user):
    client = APIClient()
    client.default_format = "json"
    client.force_authenticate(user)
    return client


class Starter(threading.Thread):
    """A user who starts one number after another over the API."""

    def __init__(self, name, numbers, pause):
        super().__init__(name=name, daemon=True)
        self.client = client_of(get_user_model().objects.create_user(name))
        self.numbers, self.pause = numbers, pause
        self.seconds = []
        self.status_codes = Counter()

    def run(self):
        with suppress(Empty):
            while True:
                self.start_verification(self.numbers.get_nowait())
                time.sleep(random.uniform(0.5, 1.5) * self.pause)
        connections.close_all()

    def start_verification(self, number):
        status_code = None
        while status_code in (None, 503):
            began = time.monotonic()
            response = self.client.post(START_URL, {"phone_number": number})
            self.seconds.append(time.monotonic() - began)
            status_code = response.status_code
            self.status_codes[status_code] += 1


class Run:
    def __init__(self, options, broker, folder):
        self.began = time.monotonic()
        self.times = {}
        self.row_count = options.rows
        self.broker = broker
        self.idenfy = FailingSandbox(options.seed)
        environment = self.apply_settings()
        self.workers = Workers(POOLS[options.broker], environment, folder)
        self.sweep_command = sweep_command(environment, folder)
        numbers = Queue()
        for index in range(self.row_count):
            numbers.put(f"+3706123{index:04}")
        pause = SECONDS_OF_STARTS * STARTERS / self.row_count
        self.starters = [Starter(f"user{n}", numbers, pause) for n in range(STARTERS)]
        self.faults_are_over = threading.Event()
        self.confirmed = {}

    def apply_settings(self):
        """Set them in this process; return the environment of the other processes."""
        chaos_settings = CHAOS_SETTINGS | {
            "CELERY_BROKER_URL": self.broker.url,
            "DATABASES": {"default": connection.settings_dict},
            "IDENFY_PHONE_API_URL": self.idenfy.url,
        }
        for name, value in chaos_settings.items():
            if name.startswith("IDENFY_PHONE_"):
                setattr(settings, name, value)
        conf = tasks.send_code.app.conf
        conf.broker_url = conf.broker_write_url = self.broker.url
        return brokers.environment(**chaos_settings)

    def run(self):
        fault_threads = [
            threading.Thread(target=target, daemon=True)
            for target in (self.kill_workers, self.disturb_broker)
        ]
        with self.idenfy, self.sweep_command:
            for _ in range(WORKERS):
                self.workers.start()
            self.warm_up()
            for thread in (*self.starters, *fault_threads):
                thread.start()
            for thread in self.starters:
                thread.join()
            self.note_time("last start")
            self.wait_while("queued", until=SECONDS_OF_KILLS)
            self.faults_are_over.set()
            for thread in fault_threads:
                thread.join()
            self.note_time("last kill")
            self.wait_while("queued")
            self.note_time("queue empty")
            self.wait_while("queued", "sending")
            self.note_time("all ended")
            self.confirm_sent_rows()
            self.workers.stop()
            return self.report()

    def warm_up(self):
        """Let the first request import what the measured ones use."""
        client_of(None).get(f"/phone/{uuid.uuid4()}/")
        tasks.notify_worker(uuid.uuid4())

    def wait_while(self, *statuses, until=MAX_SECONDS):
        """Wait until no row has one of them. A lease ends after 45 seconds."""
        open_rows = PhoneVerification.objects.filter(status__in=statuses)
        while open_rows.exists() and self.seconds < until:
            self.confirm_sent_rows()
            time.sleep(0.5)

    def confirm_sent_rows(self):
        """Confirm each once, with the code from the inbox."""
        rows = PhoneVerification.objects.filter(status="sent")
        for row in rows.exclude(pk__in=self.confirmed).select_related("user"):
            code = self.idenfy.state.code_for(row.phone_number.as_e164)
            path = f"/phone/{row.pk}/confirm/"
            response = client_of(row.user).post(path, {"code": code})
            self.confirmed[row.pk] = response.data.get("is_verified") is True

    def note_time(self, event):
        self.times[event] = f"{self.seconds:.0f} s"

    @property
    def seconds(self):
        return time.monotonic() - self.began

    def kill_workers(self):
        while not self.faults_are_over.wait(random.uniform(0.7, 1.3)):
            self.workers.kill_one()

    def disturb_broker(self):
        faults = dict.fromkeys(FLUSH_TIMES, self.broker.flush)
        faults |= dict.fromkeys(FREEZE_TIMES, self.freeze_broker)
        began = time.monotonic()
        for seconds, fault in sorted(faults.items()):
            time.sleep(max(0, began + seconds - time.monotonic()))
            fault()

    def freeze_broker(self):
        with self.broker.frozen():
            time.sleep(FREEZE_SECONDS)

    def report(self):
        rows = list(PhoneVerification.objects.select_related("user"))
        messages = self.idenfy.state.messages
        billed = Counter(message.phone_number for message in messages)
        errors = list(self.find_errors(rows, billed))
        self.print_figures(rows, billed)
        for error in errors:
            print(f"WRONG  {error}")
        result = "wrong" if errors else "right"
        print(f"{result} after {self.seconds:.0f} s", flush=True)
        return 1 if errors else 0

    def find_errors(self, rows, billed):
        if len(rows) != self.row_count:
            yield f"{len(rows)} rows for {self.row_count} starts"
        if (slowest := max(self.start_seconds)) > MAX_START_SECONDS:
            yield f"a start took {slowest:.2f} s"
        if unexpected := set(self.status_codes) - {202, 503}:
            yield f"starts were answered with {unexpected}"
        if len(self.workers.kill_times) < self.row_count / 20:
            yield f"only {len(self.workers.kill_times)} workers were killed"
        for row in rows:
            number = row.phone_number.as_e164
            answers = self.idenfy.answers[number]
            if billed[number] > 1 or set(answers[:-1]) - {"429"}:
                yield f"{number}: sent twice: {answers}"
            if reason := self.why_wrong(row, billed[number], answers):
                outcome = f"{row.status} {row.failure}".strip()
                yield f"{number}: {outcome}, but {reason}: {answers}"

    def why_wrong(self, row, billed, answers):
        match row.failure or row.status:
            case "verified":
                if billed != 1 or not self.confirmed[row.pk]:
                    return "it was not billed once and confirmed"
            case "sent":
                return "its code was refused"
            case "unknown":
                return self.why_not_unknown(row, answers)
            case "too_late" | "rate_limited":
                if billed:
                    return "it was billed"
            case "queued" | "sending":
                return "it should have ended"
            case _:
                return "iDenfy gave no such answer"
        return None

    def why_not_unknown(self, row, answers):
        if answers and answers[-1] in UNCERTAIN:
            return None
        if self.workers.logged_unknown(row):
            return "its outcome was known"
        return None if self.worker_was_killed(row) else "no worker was killed then"

    def worker_was_killed(self, row):
        return any(
            row.claimed_at <= kill_time <= row.claimed_at + LONGEST_ATTEMPT
            for kill_time in self.workers.kill_times
        )

    @property
    def start_seconds(self):
        return [seconds for starter in self.starters for seconds in starter.seconds]

    @property
    def status_codes(self):
        return sum((starter.status_codes for starter in self.starters), Counter())

    def print_figures(self, rows, billed):
        answers = Counter(
            name for names in self.idenfy.answers.values() for name in names
        )
        outcomes = Counter(row.failure or row.status for row in rows)
        slowest, usual = max(self.start_seconds), median(self.start_seconds)
        unbilled = sum(
            row.failure == "unknown" and not billed[row.phone_number.as_e164]
            for row in rows
        )
        for name, value in {
            "starts": f"{usual * 1000:.0f} ms usual, {slowest * 1000:.0f} ms slowest",
            "their status codes": listed(self.status_codes),
            "killed": listed(self.workers.killed),
            "broker": f"{len(FLUSH_TIMES)} flushes, {len(FREEZE_TIMES)} freezes",
            "answers to sends": f"{answers.total()}: {listed(answers)}",
            "rows": f"{len(rows)}: {listed(outcomes)}",
            "billed": f"{billed.total()} SMS, at most {max(billed.values())} a row",
            "unknown, unbilled": unbilled,
            "times": ", ".join(f"{event} {at}" for event, at in self.times.items()),
        }.items():
            print(f"{name:18} {value}")


def listed(counter):
    return ", ".join(f"{count} {name}" for name, count in counter.most_common())


@contextmanager
def own_database():
    """Create and migrate it, and drop it at the end."""
    before = connection.settings_dict["NAME"]
    connection.settings_dict["TEST"]["NAME"] = f"idenfy_phone_chaos_{os.getpid()}"
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        yield
    finally:
        connection.creation.destroy_test_db(before, verbosity=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("broker", choices=POOLS)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    print(f"chaos on {options.broker}, --seed {options.seed}", flush=True)
    random.seed(options.seed)
    broker = BROKERS[options.broker]()
    try:
        broker.start()
        with own_database(), tempfile.TemporaryDirectory() as folder:
            run = Run(options, broker, Path(folder))
            try:
                return run.run()
            finally:
                run.workers.stop()
    finally:
        broker.stop()


if __name__ == "__main__":
    sys.exit(main())
