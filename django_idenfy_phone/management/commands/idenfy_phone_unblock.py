"""Lift the limits of a customer: `manage.py idenfy_phone_unblock`."""

from typing import Any

from django.core.management.base import CommandError
from django.utils.translation import gettext as _

from ... import services
from ...exceptions import NumberNotSupported
from ..whom import WhomCommand


class Command(WhomCommand):
    help = "Earlier sends of a number, user or network no longer count."

    def handle(self, *args: Any, **options: Any) -> None:
        if not (options["number"] or options["user"] or options["network"]):
            raise CommandError(_("Give --number, --user or --network."))
        try:
            reasons = services.unblock(**self.read(options))
        except NumberNotSupported as error:
            raise CommandError(str(error)) from error
        self.stdout.write(_("Earlier sends no longer count."))
        self.write_reasons(options["number"], reasons)
