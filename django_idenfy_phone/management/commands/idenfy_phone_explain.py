"""Tell support why a customer cannot start: `manage.py idenfy_phone_explain`."""

import sys
from typing import Any

from django.core.management.base import CommandError
from django.utils.translation import gettext as _

from ...explain import explain
from ..whom import WhomCommand


class Command(WhomCommand):
    help = "Tell what would refuse a start now. The exit status is 1 if anything would."

    def handle(self, *args: Any, **options: Any) -> None:
        if not self.is_given(options):
            raise CommandError(_("Give --number, --user or --network."))
        reasons = explain(**self.read(options))
        self.write_reasons(options["number"], reasons)
        if reasons:
            sys.exit(1)
