from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _

from ... import services
from ...exceptions import NumberNotSupported


class Command(BaseCommand):
    help = "Reset the limits of a phone number: its earlier sends no longer count."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("number", help="in E.164 form, such as +37060012345")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            services.clear_number(options["number"])
        except NumberNotSupported as error:
            raise CommandError(str(error)) from error
        self.stdout.write(_("Earlier sends to this number no longer count."))
