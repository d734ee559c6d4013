"""A number, a code or a secret stands in no text that is written or passed on."""

import inspect
import logging
import sys

import pytest
from django.core.signals import got_request_exception
from django.db import OperationalError, connection
from django.test import Client
from django.views.debug import ExceptionReporter

import conftest
from django_idenfy_phone import delivery, exceptions, services
from django_idenfy_phone.exceptions import IdenfyError, VerificationError
from django_idenfy_phone.models import StartLock
from support import wire as w
from support.constants import MARKERS, NUMBER

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


def texts(error):
    """The error's text and those of all it came from."""
    while error:
        yield f"{error} {error!r}"
        error = error.__cause__ or error.__context__


@pytest.fixture(autouse=True)
def _log_everything(caplog):
    caplog.set_level(logging.DEBUG)
    yield
    assert not [m for m in MARKERS if m in caplog.text]


@pytest.mark.parametrize("name", ANSWERS)
def test_a_send_writes_no_number(wire, user, name, capfd):
    wire.will(ANSWERS[name])
    row = services.start_verification(NUMBER, user=user)
    delivery.deliver(row.pk)
    assert len(wire.requests) == 1
    written = "".join(capfd.readouterr()) + str(row) + repr(row)
    assert not [m for m in MARKERS if m in written]


@pytest.mark.parametrize("name", set(ANSWERS) - {"sent"})
def test_a_check_writes_neither_code_nor_number(wire, make, caplog, name):
    wire.will(ANSWERS[name])
    row = make("sent")
    with pytest.raises(VerificationError) as caught:
        services.confirm_verification(row.pk, "7391", user=row.user)
    written = caplog.text + "".join(texts(caught.value))
    assert not [m for m in (*MARKERS, "7391", row.request_id) if m in written]


def test_a_refused_number_is_not_repeated(user, wire):
    with pytest.raises(VerificationError) as caught:
        services.start_verification(f"{NUMBER}999", user=user)
    assert "61234567" not in "".join(texts(caught.value))


def test_a_lock_is_shown_in_part_only(user, wire):
    services.start_verification(NUMBER, user=user)
    assert {len(str(lock)) for lock in StartLock.objects.all()} == {8}


def test_every_error_text_is_made_of_constants():
    named = [
        error
        for error in vars(exceptions).values()
        if isinstance(error, type) and issubclass(error, VerificationError)
    ]
    assert len(named) > 10
    assert all(str(error()) == str(error.message) for error in named)
    assert str(IdenfyError("HTTP 400", identifier="BAD")) == "HTTP 400 BAD"


def test_the_search_for_leaks_finds_one(pytester):
    hook = inspect.getsource(conftest.pytest_runtest_makereport)
    pytester.makeconftest(f"import pytest\nMARKERS = ['leaked']\n\n{hook}")
    pytester.makepyfile("def test_leak():\n    print('it leaked')")
    result = pytester.runpytest_subprocess("-p", "no:django")
    assert result.parseoutcomes()["failed"] == 1


@pytest.fixture
def broken_database():
    """Each statement of ours with a word fails, as when the connection is lost."""

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
    """What Django mails to the admins, and error trackers show in much the same way."""

    def keep(sender, request, **kwargs):
        kept.append(ExceptionReporter(None, *sys.exc_info()).get_traceback_html())

    kept = []
    got_request_exception.connect(keep)
    yield kept
    got_request_exception.disconnect(keep)


def post(user, path, **body):
    client = Client(raise_request_exception=False)
    client.force_login(user)
    key = {"HTTP_IDEMPOTENCY_KEY": "the-key-of-a-client"}
    return client.post(path, body, "application/json", **key).status_code


@pytest.mark.parametrize("word", ["startlock", "providergate", "INSERT", "ORDER BY"])
def test_an_error_report_of_a_start_holds_no_number(
    user, wire, broken_database, reports, word
):
    broken_database(word)
    assert post(user, "/phone/start/", phone_number=NUMBER) == 500
    [report] = reports
    assert not [m for m in (*MARKERS, "the-key-of-a-client") if m in report]


def test_an_error_report_of_a_check_holds_no_code(make, wire, broken_database, reports):
    row = make("sent")
    broken_database("UPDATE")
    assert post(row.user, f"/phone/{row.pk}/confirm/", code="7391") == 500
    [report] = reports
    assert not [m for m in (*MARKERS, "7391", row.request_id) if m in report]
