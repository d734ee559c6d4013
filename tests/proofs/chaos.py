"""Everything fails at once, and the books must still be right.

``python tests/proofs/chaos.py redis`` or ``rabbitmq``, with PostgreSQL at DATABASE_URL.
Two workers, one of them killed about each second; a sandbox that fails at random; a
broker that is flushed and frozen. Prints its books; exit status 1 where a promise
broke.
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

SUPPORT = Path(__file__).resolve().parents[1] / "support"
POOLS = {"redis": "prefork", "rabbitmq": "threads"}
BROKERS = {"redis": brokers.Redis, "rabbitmq": brokers.RabbitMQ}
WORKERS = 2
STARTERS = 4
SECONDS_OF_STARTS = 30
SECONDS_OF_KILLS = 80
LIMIT_SECONDS = 170
FREEZE_SECONDS = 2
# When what happens to the broker.
FLUSHES = (5, 14, 24)
FREEZES = (8, 18, 28)
START_BOUND = 1.0
# From a claim to the end of the slowest request, on a busy machine.
ATTEMPT = timedelta(seconds=8)

OWN_SETTINGS = {
    "IDENFY_PHONE_API_KEY": "chaos-key",
    "IDENFY_PHONE_API_SECRET": "chaos-secret",
    "IDENFY_PHONE_SEND_RATE": "30/s",
    "IDENFY_PHONE_RESEND_COOLDOWN": (0,),
    "IDENFY_PHONE_SEND_LIMITS": dict.fromkeys(DEFAULT_SEND_LIMITS, ()),
}


# iDenfy


def after(low, high):
    def answer(handler, request_id):
        time.sleep(random.uniform(low, high))
        scenarios.answer_request_id(handler, request_id)

    return answer


SERVER_ERROR = scenarios.error(500, "INTERNAL_ERROR")
# How many of a hundred sends, and what becomes of them.
MOODS = {
    "429": (15.0, scenarios.refused(429, "TOO_MANY_REQUESTS", {"Retry-After": "1"})),
    "slow": (7.0, scenarios.sent("a long pause", after(1, 3))),
    "reset": (5.0, scenarios.sent("a reset", scenarios.reset_connection)),
    "500 unbilled": (2.5, scenarios.refused(500, "INTERNAL_ERROR")),
    "500 billed": (2.5, scenarios.sent("a 500", SERVER_ERROR)),
    "HTML": (3.0, scenarios.sent("a page", scenarios.answer_html)),
}
ORDINARY = "ordinary"
ORDINARY_SCENARIO = scenarios.sent("a short pause", after(0.02, 0.1))
UNCERTAIN = {"reset", "500 unbilled", "500 billed", "HTML"}


class Handler(sandbox.Handler):
    def do_POST(self):
        if not self.path.endswith("/send-sms"):
            self.serve()
            return
        body = sandbox.accept_request(self, "send", self.read_body())
        number, sender_name = state.send_values(body)
        scenario = self.server.sandbox.scenario_for(number)
        sandbox.run_send(self, scenario, number, sender_name)


class MoodySandbox(sandbox.SandboxServer):
    def __init__(self, seed):
        key = OWN_SETTINGS["IDENFY_PHONE_API_KEY"]
        secret = OWN_SETTINGS["IDENFY_PHONE_API_SECRET"]
        super().__init__(key, secret, port=brokers.free_port())
        self.requests = defaultdict(list)
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def start(self):
        super().start()
        self._listener.RequestHandlerClass = Handler

    def scenario_for(self, number):
        with self._lock:
            mood = self._draw()
            self.requests[number].append(mood)
        return MOODS[mood][1] if mood in MOODS else ORDINARY_SCENARIO

    def _draw(self):
        point = self._random.uniform(0, 100)
        for mood, (per_cent, _scenario) in MOODS.items():
            point -= per_cent
            if point < 0:
                return mood
        return ORDINARY


# Workers


class Workers:
    """Two, each started anew as soon as it was killed."""

    def __init__(self, pool, environment, folder):
        command = [sys.executable, SUPPORT / "worker_nursery.py", f"--pool={pool}"]
        options = ["--concurrency=3", "--loglevel=WARNING", "--without-heartbeat"]
        quiet = ["--without-gossip", "--without-mingle"]
        self.log = folder / "workers.log"
        with self.log.open("wb") as log:
            self.nursery = subprocess.Popen(
                [*command, *options, *quiet],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.pids = []
        self.deaths = []
        self.killed = Counter()

    def start(self):
        self.nursery.stdin.write("\n")
        self.nursery.stdin.flush()
        self.pids.append(int(self.nursery.stdout.readline()))

    def kill_one(self):
        """A whole worker, or one process of its pool."""
        pid = random.choice(self.pids)
        pool = pool_of(pid)
        self.deaths.append(timezone.now())
        if pool and random.random() < 0.6:
            kill_hard(os.kill, random.choice(pool))
            self.killed["of its pool"] += 1
        else:
            kill_hard(os.killpg, pid)
            self.killed["whole"] += 1
            self.pids.remove(pid)
            self.start()

    def called_unknown(self, row):
        """Whether a worker ended the row itself, rather than its lease."""
        return f"Verification {row.pk}: unknown" in self.log.read_text()

    def stop(self):
        for pid in self.pids:
            kill_hard(os.killpg, pid)
        self.nursery.kill()
        self.nursery.wait()


def pool_of(pid):
    with suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in children.split()]
    return []


def kill_hard(how, pid):
    with suppress(ProcessLookupError):
        how(pid, signal.SIGKILL)


@contextmanager
def sweeping(environment, folder):
    """As a host without beat does it."""
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


# Users


def client_of(user):
    client = APIClient()
    client.default_format = "json"
    client.force_authenticate(user)
    return client


class Starter(threading.Thread):
    """A user who starts one number after the other, over the API."""

    def __init__(self, name, numbers, pause):
        super().__init__(name=name, daemon=True)
        self.client = client_of(get_user_model().objects.create_user(name))
        self.numbers, self.pause = numbers, pause
        self.seconds = []
        self.answers = Counter()

    def run(self):
        with suppress(Empty):
            while True:
                self.start_one(self.numbers.get_nowait())
                time.sleep(random.uniform(0.5, 1.5) * self.pause)
        connections.close_all()

    def start_one(self, number):
        status = None
        while status in (None, 503):
            began = time.monotonic()
            answer = self.client.post("/phone/start/", {"phone_number": number})
            self.seconds.append(time.monotonic() - began)
            status = answer.status_code
            self.answers[status] += 1


# The run


class Run:
    def __init__(self, options, broker, folder):
        self.began = time.monotonic()
        self.marks = {}
        self.rows = options.rows
        self.broker = broker
        self.idenfy = MoodySandbox(options.seed)
        environment = self.point_everything_here()
        self.workers = Workers(POOLS[options.broker], environment, folder)
        self.sweeping = sweeping(environment, folder)
        numbers = Queue()
        for index in range(self.rows):
            numbers.put(f"+3706123{index:04}")
        pause = SECONDS_OF_STARTS * STARTERS / self.rows
        self.starters = [Starter(f"user{n}", numbers, pause) for n in range(STARTERS)]
        self.over = threading.Event()
        self.confirmed = {}

    def point_everything_here(self):
        own = OWN_SETTINGS | {
            "CELERY_BROKER_URL": self.broker.url,
            "DATABASES": {"default": connection.settings_dict},
            "IDENFY_PHONE_API_URL": self.idenfy.url,
        }
        for name, value in own.items():
            if name.startswith("IDENFY_PHONE_"):
                setattr(settings, name, value)
        conf = tasks.send_code.app.conf
        conf.broker_url = conf.broker_write_url = self.broker.url
        return brokers.environment(**own)

    def play(self):
        villains = [
            threading.Thread(target=villain, daemon=True)
            for villain in (self.kill_workers, self.trouble_broker)
        ]
        with self.idenfy, self.sweeping:
            for _ in range(WORKERS):
                self.workers.start()
            self.warm_up()
            for thread in (*self.starters, *villains):
                thread.start()
            for thread in self.starters:
                thread.join()
            self.mark("last start")
            self.wait_while("queued", until=SECONDS_OF_KILLS)
            self.over.set()
            for thread in villains:
                thread.join()
            self.mark("last kill")
            self.wait_while("queued")
            self.mark("queue empty")
            self.wait_while("queued", "sending")
            self.mark("all ended")
            self.confirm_what_was_sent()
            self.workers.stop()
            return self.judge()

    def warm_up(self):
        """A server's first request imports what the others use."""
        client_of(None).get(f"/phone/{uuid.uuid4()}/")
        tasks.hint(uuid.uuid4())

    def wait_while(self, *statuses, until=LIMIT_SECONDS):
        """Until no row has one of them: 45 s pass until a lease ends."""
        open_rows = PhoneVerification.objects.filter(status__in=statuses)
        while open_rows.exists() and self.seconds < until:
            self.confirm_what_was_sent()
            time.sleep(0.5)

    def confirm_what_was_sent(self):
        """With the code from the inbox, once."""
        rows = PhoneVerification.objects.filter(status="sent")
        for row in rows.exclude(pk__in=self.confirmed).select_related("user"):
            code = self.idenfy.state.code_for(row.phone_number.as_e164)
            path = f"/phone/{row.pk}/confirm/"
            answer = client_of(row.user).post(path, {"code": code})
            self.confirmed[row.pk] = answer.data.get("is_verified") is True

    def mark(self, moment):
        self.marks[moment] = f"{self.seconds:.0f} s"

    @property
    def seconds(self):
        return time.monotonic() - self.began

    def kill_workers(self):
        while not self.over.wait(random.uniform(0.7, 1.3)):
            self.workers.kill_one()

    def trouble_broker(self):
        deeds = [(at, self.broker.flush) for at in FLUSHES]
        deeds += [(at, self.freeze_broker) for at in FREEZES]
        began = time.monotonic()
        for at, deed in sorted(deeds, key=lambda each: each[0]):
            time.sleep(max(0, began + at - time.monotonic()))
            deed()

    def freeze_broker(self):
        with self.broker.frozen():
            time.sleep(FREEZE_SECONDS)

    # The books

    def judge(self):
        rows = list(PhoneVerification.objects.select_related("user"))
        billed = Counter(each.phone_number for each in self.idenfy.state.messages)
        wrong = list(self.find_wrongs(rows, billed))
        self.print_books(rows, billed)
        for line in wrong:
            print(f"WRONG  {line}")
        print("wrong" if wrong else "right", f"after {self.seconds:.0f} s", flush=True)
        return 1 if wrong else 0

    def find_wrongs(self, rows, billed):
        if len(rows) != self.rows:
            yield f"{len(rows)} rows for {self.rows} starts"
        if (slowest := max(self.all_seconds)) > START_BOUND:
            yield f"a start took {slowest:.2f} s"
        if strange := set(self.answers) - {202, 503}:
            yield f"starts were answered with {strange}"
        if len(self.workers.deaths) < self.rows / 20:
            yield f"only {len(self.workers.deaths)} workers were killed"
        for row in rows:
            number = row.phone_number.as_e164
            moods = self.idenfy.requests[number]
            if billed[number] > 1 or set(moods[:-1]) - {"429"}:
                yield f"{number}: sent twice: {moods}"
            if reason := self.why_wrong(row, billed[number], moods):
                failure = f"{row.status} {row.failure}".strip()
                yield f"{number}: {failure}, but {reason}: {moods}"

    def why_wrong(self, row, billed, moods):
        match row.failure or row.status:
            case "verified":
                if billed != 1 or not self.confirmed[row.pk]:
                    return "the books do not say so"
            case "sent":
                return "its code was refused"
            case "unknown":
                return self.why_not_unknown(row, moods)
            case "too_late" | "rate_limited":
                if billed:
                    return "it was billed"
            case "queued" | "sending":
                return "it should have ended"
            case _:
                return "iDenfy never said so"
        return None

    def why_not_unknown(self, row, moods):
        if moods and moods[-1] in UNCERTAIN:
            return None
        if self.workers.called_unknown(row):
            return "its outcome was known"
        return None if self.died_with_a_worker(row) else "nobody died with it"

    def died_with_a_worker(self, row):
        return any(
            row.claimed_at <= death <= row.claimed_at + ATTEMPT
            for death in self.workers.deaths
        )

    @property
    def all_seconds(self):
        return [each for starter in self.starters for each in starter.seconds]

    @property
    def answers(self):
        return sum((starter.answers for starter in self.starters), Counter())

    def print_books(self, rows, billed):
        requests = Counter(
            mood for moods in self.idenfy.requests.values() for mood in moods
        )
        outcomes = Counter(row.failure or row.status for row in rows)
        slowest, usual = max(self.all_seconds), median(self.all_seconds)
        unbilled = sum(
            row.failure == "unknown" and not billed[row.phone_number.as_e164]
            for row in rows
        )
        for name, value in {
            "starts": f"{usual * 1000:.0f} ms usual, {slowest * 1000:.0f} ms slowest",
            "answers to them": listed(self.answers),
            "workers killed": listed(self.workers.killed),
            "broker": f"{len(FLUSHES)} flushes, {len(FREEZES)} freezes",
            "requests to send": f"{requests.total()}: {listed(requests)}",
            "rows": f"{len(rows)}: {listed(outcomes)}",
            "billed": f"{billed.total()} SMS, at most {max(billed.values())} a row",
            "unknown, unbilled": unbilled,
            "times": ", ".join(f"{name} {at}" for name, at in self.marks.items()),
        }.items():
            print(f"{name:18} {value}")


def listed(counter):
    return ", ".join(f"{count} {name}" for name, count in counter.most_common())


@contextmanager
def own_database():
    """Made, migrated, and dropped again."""
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
                return run.play()
            finally:
                run.workers.stop()
    finally:
        broker.stop()


if __name__ == "__main__":
    sys.exit(main())
