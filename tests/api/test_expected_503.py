"""A 503 that is the right answer is no error in the log, and mails nobody."""

import logging

import django
import pytest
from asgiref.sync import async_to_sync
from django.db import OperationalError
from django.test import AsyncClient
from rest_framework.exceptions import APIException

from support import wire as w
from support.constants import NUMBER
from support.steps import START_URL, post_code, post_start

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore:.* default mailer"),
]


@pytest.fixture
def mails(settings, mailoutbox):
    """Django mails each of its own errors to ADMINS, as by default."""
    admin = "ona@example.com"
    settings.ADMINS = [admin if django.VERSION >= (6, 0) else ("Ona", admin)]
    return mailoutbox


@pytest.fixture
def no_account(settings):
    settings.IDENFY_PHONE_API_KEY = ""


def django_levels(caplog):
    records = [r for r in caplog.records if r.name.startswith("django.")]
    return [r.levelno for r in records]


def raise_error(error):
    def guard(request, phone_number):
        raise error

    return guard


@pytest.mark.parametrize("debug", [False, True])
def test_50_starts_without_an_account_mail_nobody(
    api, settings, no_account, mails, caplog, debug
):
    settings.DEBUG = debug
    statuses = {post_start(api).status_code for _ in range(50)}
    assert (statuses, len(mails)) == ({503}, 0)
    assert django_levels(caplog) == [logging.WARNING] * 50


@pytest.mark.parametrize("act", [w.answer(500), w.answer(401), w.hang_up])
def test_check_that_failed_mails_nobody(api, make, wire, mails, caplog, act):
    wire.will(act)
    assert post_code(api, make()).status_code == 503
    assert (len(mails), django_levels(caplog)) == (0, [logging.WARNING])


def test_busy_database_mails_nobody(api, wire, settings, mails, caplog):
    busy = OperationalError(1205, "Lock wait timeout exceeded")
    settings.IDENFY_PHONE_START_GUARD = raise_error(busy)
    assert post_start(api).json()["code"] == "provider_unavailable"
    assert (len(mails), django_levels(caplog)) == (0, [logging.WARNING])


def test_middleware_of_django_mails_nobody(api, settings, no_account, mails, caplog):
    path = "django.middleware."
    settings.MIDDLEWARE = [
        f"{path}gzip.GZipMiddleware",
        f"{path}http.ConditionalGetMiddleware",
        f"{path}common.BrokenLinkEmailsMiddleware",
        f"{path}common.CommonMiddleware",
        f"{path}locale.LocaleMiddleware",
        *settings.MIDDLEWARE,
    ]
    settings.MANAGERS = settings.ADMINS
    headers = {"HTTP_REFERER": "http://example.com/", "HTTP_ACCEPT_ENCODING": "gzip"}
    assert post_start(api, **headers).status_code == 503
    assert (len(mails), django_levels(caplog)) == (0, [logging.WARNING])


@pytest.mark.parametrize("name", ["replace_body", "retry_after_date"])
def test_exception_handler_of_the_host_mails_nobody(
    api, settings, no_account, mails, name
):
    settings.REST_FRAMEWORK = {"EXCEPTION_HANDLER": f"hosts.custom.{name}"}
    assert post_start(api).status_code == 503
    assert not mails


@pytest.mark.django_db(transaction=True)
def test_asgi_mails_nobody(user, no_account, mails, caplog):
    client = AsyncClient()
    client.force_login(user)
    body = {"phone_number": NUMBER}
    refused = async_to_sync(client.post)(START_URL, body, "application/json")
    assert (refused.status_code, len(mails)) == (503, 0)
    assert django_levels(caplog)[-1] == logging.WARNING


def test_503_of_a_guard_stays_an_error(api, wire, settings, mails):
    error = APIException()
    error.status_code = 503
    settings.IDENFY_PHONE_START_GUARD = raise_error(error)
    assert post_start(api).status_code == 503
    assert len(mails) == 1


def test_503_of_a_middleware_stays_an_error(api, settings, mails):
    settings.MIDDLEWARE = ["hosts.custom.maintenance"]
    assert post_start(api).status_code == 503
    assert len(mails) == 1
