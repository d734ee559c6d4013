"""A small host project; DATABASE_URL and CELERY_BROKER_URL choose its servers."""

import os
import tempfile
from pathlib import Path

import dj_database_url

if os.environ.get("DATABASE_URL", "").startswith("mysql"):
    import pymysql

    pymysql.install_as_MySQLdb()

SECRET_KEY = "only-for-tests"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "hosts.project.urls"
USE_TZ = True
TIME_ZONE = "Europe/Vilnius"
STATIC_URL = "static/"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "rest_framework",
    "django_idenfy_phone",
    "hosts.accounts",
    "hosts.orders",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
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
            ]
        },
    }
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

SQLITE = {
    "ENGINE": "django.db.backends.sqlite3",
    # A file: threads and processes cannot share a database in memory.
    "NAME": Path(tempfile.gettempdir()) / "idenfy-phone-none.sqlite3",
    "TEST": {"NAME": Path(tempfile.mkdtemp()) / "test.sqlite3"},
    "OPTIONS": {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF",
    },
}
DATABASES = {
    "default": dj_database_url.config() if "DATABASE_URL" in os.environ else SQLITE
}

CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL", "memory://")

IDENFY_PHONE_REGIONS = ["LT", "GB", "US"]
