"""Run the sandbox by hand: `manage.py idenfy_phone_sandbox`."""

import signal
import textwrap
import threading
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from contextlib import suppress
from typing import Any

from django.core.management.base import (
    BaseCommand,
    CommandError,
    CommandParser,
    DjangoHelpFormatter,
)
from django.utils.translation import gettext as _

from django_idenfy_phone.conf import conf
from django_idenfy_phone.sandbox.scenarios import SCENARIOS
from django_idenfy_phone.sandbox.server import SandboxServer
from django_idenfy_phone.sandbox.state import Channel, Message

DEMO_KEY = "demo-key"
DEMO_SECRET = "demo-secret"


def magic_numbers() -> str:
    """The scenarios, wrapped for a terminal."""
    lines = [
        textwrap.fill(f"{number}  {each.description}", 79, subsequent_indent=" " * 14)
        for number, each in SCENARIOS.items()
    ]
    return "\n".join([_("Magic numbers:"), *lines])


class HelpFormatter(RawDescriptionHelpFormatter, DjangoHelpFormatter):
    """Keeps the lines of the epilog, one magic number each."""


class Command(BaseCommand):
    help = "Run a stand-in for iDenfy on this machine and print each SMS and call."
    # The sandbox needs no database, and it runs before the settings are complete.
    requires_system_checks = ()

    def create_parser(
        self, prog_name: str, subcommand: str, **kwargs: Any
    ) -> CommandParser:
        kwargs |= {"formatter_class": HelpFormatter, "epilog": magic_numbers()}
        return super().create_parser(prog_name, subcommand, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=8765, help=_("Default: 8765."))

    def handle(self, *args: Any, **options: Any) -> None:
        key, secret = self.credentials()
        server = SandboxServer(key, secret, options["port"], self.print_message)
        with suppress(KeyboardInterrupt):
            self.start(server)
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            self.print_addresses(server)
            threading.Event().wait()
        server.stop()

    def credentials(self) -> tuple[str, str]:
        """Return (API key, API secret): the project's own, or those of a demo."""
        if conf.has_credentials:
            return conf.API_KEY, conf.API_SECRET
        line = _(
            'Using the API key "%(key)s" and the secret "%(secret)s". To use your own, '
            "set IDENFY_PHONE_API_KEY and IDENFY_PHONE_API_SECRET."
        )
        self.print_line(line % {"key": DEMO_KEY, "secret": DEMO_SECRET})
        return DEMO_KEY, DEMO_SECRET

    def start(self, server: SandboxServer) -> None:
        try:
            server.start()
        except (OSError, OverflowError) as error:
            line = _(
                "Cannot listen on port %(port)s: it is in use or not allowed. "
                "Choose another with --port."
            )
            raise CommandError(line % {"port": server.port}) from error

    def print_addresses(self, server: SandboxServer) -> None:
        self.print_line(_("Sandbox: %(url)s") % {"url": server.url})
        self.print_line(_("Inbox: %(url)s/") % {"url": server.url})
        self.print_line(_("Press Ctrl-C to stop."))

    def print_message(self, message: Message) -> None:
        # A client chose the sender name: it must not break the line or the terminal.
        text = "".join(char if char.isprintable() else "?" for char in message.text)
        line = _("SMS to %(number)s: %(text)s")
        if message.channel is Channel.CALL:
            line = _("Call to %(number)s: %(text)s")
        self.print_line(line % {"number": message.phone_number, "text": text})

    def print_line(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()
