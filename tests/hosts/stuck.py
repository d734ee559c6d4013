"""An app of a host whose receivers never return."""

import threading
from typing import Any

from django.apps import AppConfig

from django_idenfy_phone.signals import phone_verified, send_failed


def never_return(**kwargs: Any) -> None:
    threading.Event().wait()


class Stuck(AppConfig):
    name = "hosts.stuck"

    def ready(self) -> None:
        phone_verified.connect(never_return)
        send_failed.connect(never_return)
