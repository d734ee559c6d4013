"""Starts a Celery worker for each line it reads, and prints its process id.

By a fork, with everything imported: a start from nothing takes seconds, and in the
chaos run a worker dies each second. Its arguments are those of the workers.
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
    # Nobody waits for the dead.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while sys.stdin.readline():
        pid = os.fork()
        if pid == 0:
            work()
        print(pid, flush=True)


def work() -> None:
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
