"""The example project for tests of its pages: cooldowns that grow while one waits."""

from example.settings import *  # noqa: F403

IDENFY_PHONE_RESEND_COOLDOWN = (4, 8, 12)
IDENFY_PHONE_TIMEOUT = 2
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# What one test changed, the next one must see.
CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
