"""The example project with its OpenAPI schema, HTTP Basic and no limits."""

from example.settings import *  # noqa: F403
from example.settings import INSTALLED_APPS, REST_FRAMEWORK

from django_idenfy_phone.conf import DEFAULT_SEND_LIMITS

INSTALLED_APPS = [*INSTALLED_APPS, "drf_spectacular"]
REST_FRAMEWORK = REST_FRAMEWORK | {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.BasicAuthentication"
    ],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
}
# Each request carries the password.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
IDENFY_PHONE_RESEND_COOLDOWN = (0,)
IDENFY_PHONE_SEND_LIMITS = dict.fromkeys(DEFAULT_SEND_LIMITS, ())
IDENFY_PHONE_SEND_RATE = None
