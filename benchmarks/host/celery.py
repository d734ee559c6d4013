from typing import Any

from celery import Celery
from celery.signals import worker_ready

from . import READY

app = Celery("host")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@worker_ready.connect
def say_ready(**kwargs: Any) -> None:
    print(READY, flush=True)
