import os
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand

from accounts.models import User


class Command(BaseCommand):
    """Migrate, and create the demo's two users with EXAMPLE_DEMO_PASSWORD.

    The password comes from the environment, because any user of the machine can read a
    command line.
    """

    help = "Prepare the database for the demo."

    def handle(self, *args: Any, **options: Any) -> None:
        call_command("migrate", verbosity=0)
        password = os.environ["EXAMPLE_DEMO_PASSWORD"]
        self.make_user("demo@example.com", password)
        self.make_user("admin@example.com", password, is_staff=True, is_superuser=True)

    def make_user(self, username: str, password: str, **fields: bool) -> None:
        # An earlier demo may have used the same database.
        unconfirmed: dict[str, Any] = {"phone_number": None, "phone_confirmed_at": None}
        user, _ = User.objects.update_or_create(
            username=username,
            defaults={"email": username, **unconfirmed, **fields},
        )
        user.set_password(password)
        user.save()
