"""Keyed hashes of what must not be stored in clear."""

from django.conf import settings
from django.utils.crypto import salted_hmac


def keyed_hashes(salt: str, value: str) -> list[str]:
    """64 hexadecimal digits under SECRET_KEY, then under each of SECRET_KEY_FALLBACKS.

    Store the first, and look for all: while keys are rotated, rows of both releases
    must be found.
    """
    return [
        salted_hmac(salt, value, secret=secret, algorithm="sha256").hexdigest()
        for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    ]
