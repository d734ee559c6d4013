"""Settings of the example project. These environment variables change them:

DATABASE_URL                      PostgreSQL or MariaDB instead of a SQLite file
CELERY_BROKER_URL                 Redis or RabbitMQ instead of a folder
IDENFY_PHONE_API_KEY, ..._SECRET  the real iDenfy instead of the sandbox
IDENFY_PHONE_API_URL              the sandbox's URL if its port is not 8765
IDENFY_PHONE_REGIONS              regions whose numbers may get a code: "LT,GB"
EXAMPLE_DATA                      the folder for the SQLite file and the broker's files
EXAMPLE_SECRET_KEY                Django's SECRET_KEY
EXAMPLE_DEMO                      "1" relaxes limits for the demo
"""

import os
from importlib.util import find_spec
from pathlib import Path

import dj_database_url
from celery.schedules import crontab

BASE = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("EXAMPLE_DATA", BASE / "data"))
DATA.mkdir(parents=True, exist_ok=True)

DEMO = os.environ.get("EXAMPLE_DEMO") == "1"
SECRET_KEY = os.environ.get("EXAMPLE_SECRET_KEY", "only-for-trying-it-out")
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]
ROOT_URLCONF = "example.urls"
WSGI_APPLICATION = "example.wsgi.application"

INSTALLED_APPS = [
    "accounts",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "rest_framework",
    "django_idenfy_phone",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "accounts.middleware.content_security_policy",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "accounts.context.demo",
            ]
        },
    }
]
STATIC_URL = "static/"
STATIC_ROOT = DATA / "static"
LANGUAGE_CODE = "en"
USE_TZ = True
TIME_ZONE = "UTC"
# Only those that the pages are written in: another would mark English text as its own.
LANGUAGES = [
    ("de", "Deutsch"),
    ("en", "English"),
    ("es", "Español"),
    ("fr", "Français"),
    ("lt", "Lietuvių"),
]
LOCALE_PATHS = [BASE / "locale"]

AUTH_USER_MODEL = "accounts.User"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "profile"
LOGOUT_REDIRECT_URL = "login"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"}
]
CSRF_FAILURE_VIEW = "accounts.views.account.csrf_failure"
# Each e-mail becomes a file.
EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
EMAIL_FILE_PATH = DATA / "mail"

# DEBUG stays off, also in the demo: people see the site's own error pages.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}

SQLITE = {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": DATA / "example.sqlite3",
    "OPTIONS": {
        # Readers do not wait for a writer. A second writer waits for the first one.
        # FULL: a power failure loses no commit.
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL",
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
    },
}
DATABASES = {
    "default": dj_database_url.config() if "DATABASE_URL" in os.environ else SQLITE
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
if "mysql" in str(DATABASES["default"]["ENGINE"]) and not find_spec("MySQLdb"):
    import pymysql

    pymysql.install_as_MySQLdb()

CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL", "filesystem://")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BEAT_SCHEDULE = {
    "phone-sweep": {"task": "django_idenfy_phone.sweep", "schedule": 30.0},
    "phone-purge": {
        "task": "django_idenfy_phone.purge",
        "schedule": crontab(hour=3, minute=30),
    },
}
if CELERY_BROKER_URL == "filesystem://":
    messages, control = DATA / "broker", DATA / "broker-control"
    messages.mkdir(exist_ok=True)
    CELERY_BROKER_TRANSPORT = "example.broker:Transport"
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": messages,
        "data_folder_out": messages,
        "control_folder": control,
        "polling_interval": 0.1,
    }

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.SessionAuthentication"
    ],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
}

IDENFY_PHONE_REGIONS = os.environ.get("IDENFY_PHONE_REGIONS", "LT,LV,EE,GB").split(",")
IDENFY_PHONE_OWNER = "accounts.User"
IDENFY_PHONE_API_KEY = os.environ.get("IDENFY_PHONE_API_KEY", "")
IDENFY_PHONE_API_SECRET = os.environ.get("IDENFY_PHONE_API_SECRET", "")
USES_SANDBOX = not (IDENFY_PHONE_API_KEY and IDENFY_PHONE_API_SECRET)
if "IDENFY_PHONE_API_URL" in os.environ:
    IDENFY_PHONE_API_URL = os.environ["IDENFY_PHONE_API_URL"]
elif USES_SANDBOX:
    IDENFY_PHONE_API_URL = "http://127.0.0.1:8765"
if USES_SANDBOX:
    IDENFY_PHONE_API_KEY, IDENFY_PHONE_API_SECRET = "demo-key", "demo-secret"
if DEMO and USES_SANDBOX:
    # The sandbox's magic numbers are all +1 202 555 01xx, so they share one block.
    IDENFY_PHONE_REGIONS = [*IDENFY_PHONE_REGIONS, "US"]
    IDENFY_PHONE_RESEND_COOLDOWN = (1,)
    IDENFY_PHONE_SEND_LIMITS = {
        "number": ("100/h",),
        "user": ("500/h",),
        "block": ("500/h",),
        # All clients come from a loopback address.
        "network": (),
    }
