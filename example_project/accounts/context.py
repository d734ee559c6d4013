from typing import Any

from django.conf import settings
from django.http import HttpRequest


def demo(request: HttpRequest) -> dict[str, Any]:
    """What each page says about the sandbox."""
    inbox = settings.IDENFY_PHONE_API_URL if settings.USES_SANDBOX else None
    return {"inbox": inbox, "is_demo": settings.DEMO}
