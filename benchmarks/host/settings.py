"""The site that is measured, with as little around the views as there can be."""

import json
import os

import dj_database_url

SECRET_KEY = "only-for-benchmarks"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "benchmarks.host.urls"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "rest_framework",
    "benchmarks.floors",
    "django_idenfy_phone",
]
# For Content-Length.
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
DATABASES = {"default": dj_database_url.config(conn_max_age=600)}
CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL", "memory://")
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["benchmarks.host.users.UserOfHeader"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    # Each request names its own client address.
    "NUM_PROXIES": 1,
}

IDENFY_PHONE_API_KEY = "benchmark-key"
IDENFY_PHONE_API_SECRET = "benchmark-secret"
IDENFY_PHONE_API_URL = os.environ.get("PROVIDER_URL", "http://127.0.0.1:9")
IDENFY_PHONE_REGIONS = ["LT"]
IDENFY_PHONE_SEND_LIMITS = {"site": ["200000/h"]}
IDENFY_PHONE_SEND_RATE = None

# What a row changes.
globals().update(json.loads(os.environ.get("HOST_SETTINGS", "{}")))
