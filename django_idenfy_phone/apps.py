from django.apps import AppConfig, apps
from django.utils.translation import gettext_lazy as _


class IdenfyPhoneConfig(AppConfig):
    name = "django_idenfy_phone"
    verbose_name = _("Phone verification")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Each registers its checks.
        from . import checks, database_checks, ownership_checks, tasks  # noqa: F401
        from .api import checks as api_checks  # noqa: F401

        if apps.is_installed("drf_spectacular"):
            from .api import schema  # noqa: F401
