"""Lift the limits of a customer: `manage.py idenfy_phone_unblock`."""

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext as _

from ... import services
from ...exceptions import NumberNotSupported
from ..whom import WhomCommand


class Command(WhomCommand):
    help = "Earlier sends of a number, user or network no longer count."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--region", help=_("Release its brake, such as LT."))

    def handle(self, *args: Any, **options: Any) -> None:
        if options["region"]:
            self.release(options["region"])
        elif not self.is_given(options):
            raise CommandError(_("Give --number, --user, --network or --region."))
        if self.is_given(options):
            self.unblock(options)

    def release(self, region: str) -> None:
        was_engaged = services.release_brake(region)
        released, none = _("The brake is released."), _("No brake is engaged there.")
        self.stdout.write(released if was_engaged else none)

    def unblock(self, options: dict[str, Any]) -> None:
        try:
            reasons = services.unblock(**self.read(options))
        except NumberNotSupported as error:
            raise CommandError(str(error)) from error
        self.stdout.write(_("Earlier sends no longer count."))
        self.write_reasons(options["number"], reasons)
