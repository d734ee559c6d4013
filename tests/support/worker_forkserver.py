"""Fork a Celery worker for each line on stdin, and print its process id.

All modules are imported before the fork. A new Python takes seconds to start, and
chaos.py kills a worker each second. The workers get the arguments of this process.
"""

import os
import signal
import sys

from celery.concurrency import prefork, thread
from celery.worker import consumer, worker
from kombu.transport import pyamqp, redis
from rest_framework import views

from hosts.project import celery_app

PRELOADED = (prefork, thread, consumer, worker, pyamqp, redis, views)


def main() -> None:
    celery_app.loader.import_default_modules()
    celery_app.finalize()
    # Killed workers leave no zombies.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while sys.stdin.readline():
        pid = os.fork()
        if pid == 0:
            run_worker()
        print(pid, flush=True)


def run_worker() -> None:
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    try:
        celery_app.worker_main(["worker", *sys.argv[1:]])
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
