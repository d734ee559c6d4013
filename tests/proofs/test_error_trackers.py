"""sentry-sdk, as it is by default, sends no number, code or secret of our calls."""

import json
import os
import re
import signal
import sys
import time
import uuid
from contextlib import suppress
from functools import partial
from types import SimpleNamespace

import pytest
from billiard.pool import soft_timeout_sighandler
from django.core.handlers.wsgi import WSGIHandler
from django.db import IntegrityError, OperationalError, connection
from django.test import RequestFactory
from django.utils import timezone

from django_idenfy_phone import announce, delivery, edge, maintenance, services, tasks
from django_idenfy_phone.forms import VerifiedPhoneField
from django_idenfy_phone.signals import phone_verified
from django_idenfy_phone.transactions import is_lock_timeout
from hosts import caller
from support import wire as w
from support.constants import MARKERS, NUMBER
from support.databases import lose_connection
from support.steps import (
    START_URL,
    client_of,
    confirm_url,
    logged_messages,
    post_json,
    start,
)

sentry_sdk = pytest.importorskip("sentry_sdk", reason="pip install sentry-sdk")
pytestmark = pytest.mark.django_db(transaction=True)

CODE = "7391"
KEY = "the-key-of-a-client"
REQUEST_ID = "request-id-of-idenfy-0123456789abc"
TOKEN = r"[0-9a-f]{12}:[\w-]{43}"
# Without its quotes, a short code may be a part of some figure.
SECRET = re.compile("|".join([*MARKERS, f"['\"]{CODE}", KEY, REQUEST_ID, TOKEN]))
SENT = w.answer(200, {"request_id": REQUEST_ID})
TRUE = w.answer(200, {"is_verified": True})
LOWER_FILES = "/requests/|/urllib3/|/django/db/|psycopg|pymysql"


class Recorder(sentry_sdk.Transport):
    """Keeps the JSON of each event."""

    events = []

    def capture_envelope(self, envelope):
        items = [each for each in envelope.items if each.type == "event"]
        self.events += [json.loads(each.get_bytes()) for each in items]


@pytest.fixture(autouse=True)
def events(settings):
    """What the tracker of the host got. No test may send it a secret."""
    settings.ROOT_URLCONF = "hosts.caller"
    # Whatever other tests did in this process.
    sentry_sdk.get_isolation_scope().clear()
    sentry_sdk.init("http://key@127.0.0.1/1", transport=Recorder)
    yield Recorder.events
    sentry_sdk.init()
    leaks = [SECRET.search(json.dumps(each)) for each in Recorder.events]
    Recorder.events.clear()
    assert not any(leaks), leaks


def serve(method, path, body=b""):
    """Have one request answered as a WSGI server does, also where it is killed."""
    request = RequestFactory().generic(method, path, body, "application/json")
    with suppress(SystemExit):
        WSGIHandler()(request.environ, lambda *args: None)


def host(call):
    """Make a call in a view of the host."""
    caller.to_call[:] = [call]
    serve("GET", "/host/")


@pytest.fixture
def post(user):
    """POST to the API, with an Idempotency-Key; return the status of the answer."""
    client = client_of(user)
    client.raise_request_exception = False

    def post(url, **body):
        return post_json(client, url, body, HTTP_IDEMPOTENCY_KEY=KEY).status_code

    return post


@pytest.fixture
def lost_at():
    """The connection is lost just before a statement that matches a pattern."""

    def wrapper(execute, sql, *args):
        if patterns and re.search(patterns[0], sql):
            patterns.clear()
            lose_connection()
        return execute(sql, *args)

    patterns = []
    with connection.execute_wrapper(wrapper):
        yield patterns.append
    connection.close()


@pytest.fixture(params=["Celery", "gunicorn"])
def time_limit(request):
    """A responder that lets a time limit end what the main thread does."""

    def respond(sock):
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(1)

    handlers = {"Celery": soft_timeout_sighandler, "gunicorn": lambda *_: sys.exit(1)}
    before = signal.signal(signal.SIGUSR1, handlers[request.param])
    yield respond
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def calls(make, user, wire):
    """Calls of our verbs as a host makes them."""
    visitor = make("verified", user=None, is_anonymous=True, verified_at=timezone.now())
    token = services.redeem_token(visitor)
    sent = make("sent", request_id=REQUEST_ID)
    options = {"user": user, "idempotency_key": KEY}
    return {
        "start": partial(services.start_verification, NUMBER, **options),
        "get": partial(services.get_verification, sent.pk, user=user),
        "resend": partial(services.resend_at, sent, user=user),
        "confirm": partial(services.confirm_verification, sent.pk, CODE, user=user),
        "token": partial(services.get_proof, token, user=user),
        "form": partial(VerifiedPhoneField().clean, token),
        "redeem": partial(services.redeem_verification, visitor, user=user),
        "clear": partial(services.unblock, phone_number=NUMBER),
        "export": partial(list, maintenance.export(phone_number=NUMBER)),
        "deliver": partial(delivery.deliver, make("queued").pk),
        "sweep": partial(maintenance.sweep, bool),
    }


def values_of(event):
    return event["exception"]["values"]


def files_of(event):
    traces = [value.get("stacktrace", {}) for value in values_of(event)]
    return [frame["abs_path"] for each in traces for frame in each.get("frames", [])]


def assert_ends_in_host(event):
    assert len(values_of(event)) == 1
    assert files_of(event)[-1].endswith("hosts/caller.py")


VERBS = ["start", "get", "resend", "confirm", "token", "form", "redeem", "clear"]


@pytest.mark.parametrize("verb", [*VERBS, "deliver", "sweep", "export"])
def test_lost_database_ends_in_frame_of_host(calls, lost_at, events, verb):
    lost_at("idenfy")
    host(calls[verb])
    assert_ends_in_host(*events)


def test_lost_database_in_start_shows_no_frame_below(wire, post, lost_at, events):
    # Later, in the transaction, a lost connection is harmless.
    lost_at("SELECT .*verification")
    assert post(START_URL, phone_number=NUMBER) == 500
    [event] = events
    assert not re.search(LOWER_FILES, str(files_of(event)))


def test_lost_database_in_confirm_shows_no_frame_below(
    wire, make, post, lost_at, events
):
    row = make("sent", request_id=REQUEST_ID)
    lost_at("UPDATE")
    assert post(confirm_url(row), code=CODE) == 500
    [event] = events
    assert not re.search(LOWER_FILES, str(files_of(event)))


@pytest.mark.parametrize("answer", [w.reset, w.silence, w.answer(500)])
def test_lost_check_ends_in_frame_of_host(settings, wire, calls, events, answer):
    settings.IDENFY_PHONE_TIMEOUT = 1
    wire.will(answer)
    host(calls["confirm"])
    assert_ends_in_host(*events)


def test_lost_network_ends_in_frame_of_host(settings, calls, events):
    settings.IDENFY_PHONE_API_URL = "http://127.0.0.1:1"
    host(calls["confirm"])
    assert_ends_in_host(*events)


@pytest.mark.parametrize("verb", ["confirm", "deliver"])
def test_time_limit_ends_in_frame_of_host(calls, wire, time_limit, events, verb):
    wire.will(time_limit)
    host(calls[verb])
    assert_ends_in_host(*events)


def test_time_limit_in_task_shows_no_frame(wire, user, time_limit, events):
    wire.will(time_limit)
    with suppress(SystemExit):
        tasks.send_code.apply([str(start(user).pk)])
    assert not [each for each in events if files_of(each)]


@pytest.fixture
def visitor(settings, wire, make):
    """A visitor's row whose code was sent."""
    settings.IDENFY_PHONE_ALLOW_ANONYMOUS = True
    return make("sent", user=None, is_anonymous=True, request_id=REQUEST_ID)


def test_body_of_request_is_not_sent(visitor, wire, time_limit, events):
    wire.will(time_limit)
    serve("POST", confirm_url(visitor), b'{"code": "%s"}' % CODE.encode())
    assert [each["request"]["data"] for each in events] == [{}]


@pytest.mark.parametrize("error", [RuntimeError, ConnectionError, IntegrityError])
def test_failing_guard_keeps_its_frame(settings, visitor, events, error):
    def guard(request, phone_number):
        del phone_number
        raise error("the captcha service is down")

    settings.IDENFY_PHONE_START_GUARD = guard
    serve("POST", START_URL, b'{"phone_number": "%s"}' % NUMBER.encode())
    [event] = events
    assert files_of(event)[-1] == __file__
    assert values_of(event)[0]["value"] == "the captcha service is down"


def broken(request, phone_number=""):
    del phone_number
    raise RuntimeError("a function of the host")


@pytest.mark.parametrize("name", ["START_GUARD", "CLIENT_NETWORK"])
def test_failing_function_of_host_keeps_its_frame(settings, events, name):
    setattr(settings, f"IDENFY_PHONE_{name}", broken)
    start = partial(services.start_for_request, RequestFactory().post("/"))
    host(partial(start, NUMBER, idempotency_key=KEY))
    [event] = events
    assert files_of(event)[-1] == __file__


def test_refused_number_of_request_shows_no_value(events):
    start = partial(services.start_for_request, RequestFactory().post("/"))
    host(partial(start, f"{NUMBER}{NUMBER}", idempotency_key=KEY))
    [event] = events
    assert values_of(event)[0]["type"] == "NumberNotSupported"


class FailingUser:
    """A host's user object that raises an error of its own."""

    is_authenticated = True

    @property
    def pk(self):
        raise RuntimeError("the session store is down")


@pytest.mark.parametrize("verb", ["start", "confirm", "token"])
def test_failing_user_keeps_its_frame(calls, events, verb):
    host(partial(calls[verb], user=FailingUser()))
    [event] = events
    assert files_of(event)[-1] == __file__


def test_user_who_is_gone_ends_in_frame_of_host(calls, user, events):
    calls["start"].keywords["user"].delete()
    user.pk = 999_999
    host(calls["start"])
    assert_ends_in_host(*events)


def test_repeated_request_id_is_not_sent(calls, wire, events):
    wire.will(SENT)
    host(calls["deliver"])
    [event] = events
    assert "a request_id twice" in event["logentry"]["message"]


def test_failing_receiver_keeps_its_frame(calls, wire, events):
    def receiver(**kwargs):
        raise RuntimeError("the receiver failed")

    phone_verified.connect(receiver)
    wire.will(TRUE)
    calls["confirm"]()
    phone_verified.disconnect(receiver)
    [event] = events
    assert files_of(event)[-1] == __file__


def test_announcement_with_lost_database_shows_no_frame_below(make, lost_at, events):
    row = make("verified", announce_at=timezone.now(), verified_at=timezone.now())
    lost_at("UPDATE")
    announce.verified(row)
    [event] = events
    assert not re.search(LOWER_FILES, str(files_of(event)))


def test_log_names_type_of_error_and_row_once(make, user, lost_at, caplog):
    row = make("queued")
    lost_at("SELECT")
    tasks.send_code.apply([str(row.pk)])
    [record] = [each for each in caplog.records if each.name == edge.__name__]
    name = f"(Programming|Operational|Interface)Error( {edge.CODE})?"
    assert re.fullmatch(f"deliver {row.reference}: {name}", record.getMessage())


def test_log_names_no_id_of_an_account(make, caplog):
    @edge.hide_values
    def keep(*arguments):
        raise OperationalError

    row, account = make(), SimpleNamespace(pk=uuid.uuid4())
    for arguments in [(account, row), (account,)]:
        with pytest.raises(OperationalError):
            keep(*arguments)
    prefix = "test_log_names_no_id_of_an_account.<locals>.keep"
    assert [text for _level, text in logged_messages(caplog)] == [
        f"{prefix} {row.reference}: OperationalError",
        f"{prefix} : OperationalError",
    ]


def test_code_of_database_error_stays():
    error = OperationalError(f"Key (number)=({NUMBER}) is locked")
    error.__cause__ = LockNotAvailable()
    edge.hide(error)
    assert is_lock_timeout(error)
    assert (error.args, error.__cause__) == (("55P03",), None)


class LockNotAvailable(Exception):
    """As psycopg's."""

    sqlstate = "55P03"


def test_search_finds_secrets_that_an_error_holds(calls, events):
    def fail(number):
        raise RuntimeError

    host(partial(fail, NUMBER))
    assert SECRET.search(json.dumps(events))
    events.clear()
