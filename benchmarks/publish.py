"""The cost of one publish to a healthy broker, beside a plain ``.delay``.

``python benchmarks/publish.py BROKER_URL``. The messages go to a queue of their own,
which is deleted afterwards.
"""

import os
import sys
import time
import uuid
from collections.abc import Callable
from statistics import median, quantiles

import django
from kombu import Queue

os.environ["DJANGO_SETTINGS_MODULE"] = "hosts.project.settings"
django.setup()

from django_idenfy_phone import tasks  # noqa: E402

ROUNDS = 2_000
QUEUE = "django-idenfy-phone-benchmark"


def milliseconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000


def notify() -> None:
    assert tasks.notify_worker(uuid.uuid4()), "the broker is down or slow"


def delay() -> None:
    tasks.send_code.delay(str(uuid.uuid4()))


def main(url: str) -> None:
    app = tasks.send_code.app
    app.conf.update(broker_url=url, broker_write_url=url, task_default_queue=QUEUE)
    ways = {"notify": notify, "delay": delay}
    costs: dict[str, list[float]] = {name: [] for name in ways}
    for call in ways.values():
        call()
    # In turn, so that other load on the machine affects both.
    for _ in range(ROUNDS):
        for name, call in ways.items():
            costs[name].append(milliseconds(call))
    scheme = url.partition("://")[0]
    for name, each in costs.items():
        slow = quantiles(each, n=20)[-1]
        print(f"{scheme:6} {name:7} median {median(each):.2f} ms, 95 % {slow:.2f} ms")
    with app.connection_for_write() as connection:
        queue = Queue(QUEUE, channel=connection.default_channel)
        queue.purge()
        queue.delete()


if __name__ == "__main__":
    main(sys.argv[1])
