"""One typed live property per ``IDENFY_PHONE_*`` setting, its default beside it."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar

from django.conf import settings

PREFIX = "IDENFY_PHONE_"
T = TypeVar("T")


def _get(name: str, default: T) -> T:
    value: T = getattr(settings, PREFIX + name, default)
    return value


class Settings:
    """Read at each access, so ``override_settings`` works everywhere."""

    @property
    def API_KEY(self) -> str:
        return _get("API_KEY", "")

    @property
    def API_SECRET(self) -> str:
        return _get("API_SECRET", "")

    @property
    def API_URL(self) -> str:
        return _get("API_URL", "https://ivs.idenfy.com")

    @property
    def SENDER_NAME(self) -> str | None:
        return _get("SENDER_NAME", None)

    @property
    def REGIONS(self) -> Sequence[str] | None:
        """ISO 3166-1 codes, such as ``["LT", "GB"]``; None is every region."""
        return _get("REGIONS", None)

    @property
    def NUMBER_TYPES(self) -> Sequence[str]:
        """Names of ``phonenumbers.PhoneNumberType``, in lower case with hyphens."""
        return _get("NUMBER_TYPES", ("mobile", "fixed-line-or-mobile"))

    @property
    def CODE_LIFETIME(self) -> timedelta:
        """10 minutes cover iDenfy's two calls after the SMS (IDENFY.md, "Calls")."""
        return _get("CODE_LIFETIME", timedelta(minutes=10))

    @property
    def MAX_CHECKS(self) -> int:
        return _get("MAX_CHECKS", 3)

    @property
    def RESEND_COOLDOWN(self) -> Sequence[int]:
        """Seconds to wait after a number's first, second, … send of the last day."""
        return _get("RESEND_COOLDOWN", (60, 120, 300))

    @property
    def SEND_DEADLINE(self) -> timedelta:
        return _get("SEND_DEADLINE", timedelta(minutes=3))

    @property
    def TIMEOUT(self) -> float:
        """Seconds that one request to iDenfy may take in all, at most 12."""
        return _get("TIMEOUT", 12)

    @property
    def ALLOW_ANONYMOUS(self) -> bool:
        return _get("ALLOW_ANONYMOUS", False)


conf = Settings()
