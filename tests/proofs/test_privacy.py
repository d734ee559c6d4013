"""No log, error text or error report holds a number, a code, a secret or a token."""

import inspect
import logging
import sys
import uuid
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.core.signals import got_request_exception
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone
from django.views.debug import ExceptionReporter
from rest_framework.test import APIClient

import conftest
from django_idenfy_phone import announce, delivery, exceptions, services
from django_idenfy_phone.api.fields import VerifiedPhoneField as ApiField
from django_idenfy_phone.exceptions import IdenfyError, VerificationError
from django_idenfy_phone.forms import VerifiedPhoneField as FormField
from django_idenfy_phone.models import PhoneVerification, StartLock
from django_idenfy_phone.signals import phone_verified
from support import wire as w
from support.constants import LEAK, MARKERS, NUMBER
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
ADMIN_URL = "/admin/django_idenfy_phone/phoneverification/"
ADMIN_PAGES = ["", "{}/change/", "{}/history/"]
YESTERDAY = timezone.now() - timedelta(days=2)
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
    assert not LEAK.search(caplog.text)


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
    pytester.makeconftest(f"import pytest, re\nLEAK = re.compile('leaked')\n\n{hook}")
    pytester.makepyfile("def test_leak():\n    print('it leaked')")
    result = pytester.runpytest_subprocess("-p", "no:django")
    assert result.parseoutcomes()["failed"] == 1


PK = "9b2f6a3c-5a0e-4b0e-9c55-0d6d1e1f7a11"


@pytest.mark.parametrize(
    ("line", "is_leak"),
    [
        (NUMBER, True),
        (
            f"WARNING  django_idenfy_phone.delivery:delivery.py:59 Verification {PK}",
            True,
        ),
        (f"ERROR    django_idenfy_phone:x.py:1 {PK}", True),
        ("ERROR    django_idenfy_phone:x.py:1 9b2f6a3c", False),
        (f"WARNING  django.request:log.py:253 Not Found: /phone/{PK}/", False),
        (f"WARNING  django.request:log.py:253 Not Found: /{PK}:{'x' * 43}/", True),
    ],
)
def test_leak_search_knows_leak(line, is_leak):
    assert bool(LEAK.search(f"first\n{line}\nlast")) == is_leak


def test_log_shows_a_reference_in_place_of_an_id(wire, user, caplog):
    wire.will(ANSWERS["refused"])
    row = start(user)
    delivery.deliver(row.pk)
    assert f"Verification {str(row.pk)[:8]}: number_refused" in caplog.text


def test_log_shows_no_id_of_a_row_that_is_gone(caplog):
    delivery.deliver(uuid.UUID(PK))
    assert "Verification 9b2f6a3c is gone" in caplog.text


def test_log_shows_no_id_of_a_repeated_request_id(wire, user, make, caplog):
    wire.will(ANSWERS["sent"])
    make("expired", request_id="r" * 32, created_at=timezone.now() - timedelta(days=1))
    row = start(user)
    delivery.deliver(row.pk)
    assert f"iDenfy gave verification {str(row.pk)[:8]} a request_id" in caplog.text


def test_log_shows_no_id_of_an_announcement_that_fails(make, caplog):
    row = make("verified", announce_at=timezone.now(), verified_at=YESTERDAY)
    with receiver_that_fails():
        announce.verified(row)
    assert f"Verification {str(row.pk)[:8]} was not announced" in caplog.text


def test_log_shows_no_id_of_an_announcement_without_a_database(
    make, broken_database, caplog
):
    row = make("verified", announce_at=timezone.now(), verified_at=timezone.now())
    broken_database("UPDATE")
    announce.verified_again(row.pk)
    assert f"Verification {str(row.pk)[:8]} could not" in caplog.text


@contextmanager
def receiver_that_fails():
    def receiver(**kwargs):
        raise RuntimeError

    phone_verified.connect(receiver)
    yield
    phone_verified.disconnect(receiver)


@pytest.fixture
def visitor(settings, idenfy_sandbox):
    settings.IDENFY_PHONE_ALLOW_ANONYMOUS = True
    return APIClient()


def test_token_stands_only_in_the_answer_of_start(
    visitor, idenfy_sandbox, admin_client, caplog, capsys
):
    started = post_start(visitor)
    row = PhoneVerification.objects.get()
    signature = started.json()["redeem_token"].partition(":")[2]
    code = idenfy_sandbox.code_for(NUMBER)
    confirmed = post_json(visitor, f"/phone/{row.pk}/confirm/", {"code": code})
    assert confirmed.json()["is_verified"]
    call_command("dumpdata", "django_idenfy_phone")
    pages = [admin_client.get(ADMIN_URL + page.format(row.pk)) for page in ADMIN_PAGES]
    answers = [confirmed, visitor.get(started["Location"]), *pages]
    texts = [started["Location"], caplog.text, *capsys.readouterr(), str(vars(row))]
    texts += [each.content.decode() for each in answers]
    assert [each.status_code for each in answers] == [200] * 5
    assert not [text for text in texts if signature in text]


def test_error_report_of_redeeming_holds_no_token(make, broken_database):
    token = services.redeem_token(make("verified", user=None, is_anonymous=True))
    broken_database("SELECT")
    for check in (ApiField().run_validation, FormField().clean):
        with pytest.raises(OperationalError) as caught:
            check(token)
        frames = ExceptionReporter(None, *caught._excinfo).get_traceback_frames()
        ours = [each for each in frames if "django_idenfy_phone" in each["filename"]]
        assert not ours
        assert token not in str(ours)


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
