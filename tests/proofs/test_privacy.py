"""No log, error text or error report holds a number, a code or a secret."""

import inspect
import logging
import sys

import pytest
from django.core.signals import got_request_exception
from django.db import OperationalError, connection
from django.test import Client
from django.views.debug import ExceptionReporter
from rest_framework.test import APIClient

import conftest
from django_idenfy_phone import delivery, exceptions, services
from django_idenfy_phone.exceptions import IdenfyError, VerificationError
from django_idenfy_phone.models import StartLock
from support import wire as w
from support.constants import MARKERS, NUMBER
from support.steps import START_URL, post_json, post_start, start

pytestmark = pytest.mark.django_db
ANSWERS = {
    "sent": w.answer(200, {"request_id": "r" * 32}),
    "echo": w.answer(400, {"identifier": NUMBER, "message": f"{NUMBER} test-secret"}),
    "refused": w.refusal(400, "BAD_VALUE"),
    "account": w.answer(401, {"message": NUMBER}),
    "limited": w.answer(429),
    "html": w.answer(200, f"<p>{NUMBER}</p>".encode()),
    "reset": w.reset,
    "redirect": w.answer(307, Location=f"http://127.0.0.1:1/{NUMBER}"),
}
KEY_HEADER = {"HTTP_IDEMPOTENCY_KEY": "the-key-of-a-client"}


def error_texts(error):
    """Yield the text of an error and the texts of its causes."""
    while error:
        yield f"{error} {error!r}"
        error = error.__cause__ or error.__context__


@pytest.fixture(autouse=True)
def _log_everything(caplog):
    caplog.set_level(logging.DEBUG)
    yield
    assert not [marker for marker in MARKERS if marker in caplog.text]


@pytest.mark.parametrize("name", ANSWERS)
def test_send_writes_no_number(wire, user, name, capfd):
    wire.will(ANSWERS[name])
    row = start(user)
    delivery.deliver(row.pk)
    assert len(wire.requests) == 1
    written = "".join(capfd.readouterr()) + str(row) + repr(row)
    assert not [marker for marker in MARKERS if marker in written]


@pytest.mark.parametrize("name", set(ANSWERS) - {"sent"})
def test_check_writes_neither_code_nor_number(wire, make, caplog, name):
    wire.will(ANSWERS[name])
    row = make("sent")
    with pytest.raises(VerificationError) as caught:
        services.confirm_verification(row.pk, "7391", user=row.user)
    written = caplog.text + "".join(error_texts(caught.value))
    secrets = (*MARKERS, "7391", row.request_id)
    assert not [secret for secret in secrets if secret in written]


def test_error_of_invalid_number_does_not_repeat_it(user, wire):
    with pytest.raises(VerificationError) as caught:
        start(user, f"{NUMBER}999")
    assert "61234567" not in "".join(error_texts(caught.value))


def test_lock_text_shows_only_8_characters(user, wire):
    start(user)
    assert {len(str(lock)) for lock in StartLock.objects.all()} == {8}


def test_every_error_text_is_constant():
    classes = [
        error
        for error in vars(exceptions).values()
        if isinstance(error, type) and issubclass(error, VerificationError)
    ]
    assert len(classes) > 10
    assert all(str(error()) == str(error.message) for error in classes)
    assert str(IdenfyError("HTTP 400", identifier="BAD")) == "HTTP 400 BAD"


def test_leak_search_finds_leak(pytester):
    hook = inspect.getsource(conftest.pytest_runtest_makereport)
    pytester.makeconftest(f"import pytest\nMARKERS = ['leaked']\n\n{hook}")
    pytester.makepyfile("def test_leak():\n    print('it leaked')")
    result = pytester.runpytest_subprocess("-p", "no:django")
    assert result.parseoutcomes()["failed"] == 1


@pytest.fixture
def broken_database():
    """Each statement on our tables that contains a word fails."""

    def wrapper(execute, sql, *args):
        if words and words[0] in sql and "django_idenfy_phone" in sql:
            raise OperationalError("server closed the connection unexpectedly")
        return execute(sql, *args)

    words = []
    with connection.execute_wrapper(wrapper):
        yield lambda word: words.append(word)
        words.clear()


@pytest.fixture
def reports():
    """The error reports that Django mails; those of error trackers are similar."""

    def keep(sender, request, **kwargs):
        kept.append(ExceptionReporter(None, *sys.exc_info()).get_traceback_html())

    kept = []
    got_request_exception.connect(keep)
    yield kept
    got_request_exception.disconnect(keep)


def status_of_post(user, url, **body):
    client = Client(raise_request_exception=False)
    client.force_login(user)
    return post_json(client, url, body, **KEY_HEADER).status_code


@pytest.mark.parametrize("word", ["startlock", "providergate", "INSERT", "ORDER BY"])
def test_error_report_of_start_holds_no_number(
    user, wire, broken_database, reports, word
):
    broken_database(word)
    assert status_of_post(user, START_URL, phone_number=NUMBER) == 500
    [report] = reports
    secrets = (*MARKERS, *KEY_HEADER.values())
    assert not [secret for secret in secrets if secret in report]


class FailingUser:
    """A host's user object that raises an error of its own."""

    is_authenticated = True

    @property
    def pk(self):
        raise RuntimeError("the session store is down")


def test_error_report_of_failing_user_holds_no_number(wire, reports):
    client = APIClient(raise_request_exception=False)
    client.force_authenticate(FailingUser())
    assert post_start(client, **KEY_HEADER).status_code == 500
    [report] = reports
    secrets = (*MARKERS, *KEY_HEADER.values())
    assert not [secret for secret in secrets if secret in report]


def test_error_report_of_check_holds_no_code(make, wire, broken_database, reports):
    row = make("sent")
    broken_database("UPDATE")
    assert status_of_post(row.user, f"/phone/{row.pk}/confirm/", code="7391") == 500
    [report] = reports
    secrets = (*MARKERS, "7391", row.request_id)
    assert not [secret for secret in secrets if secret in report]
