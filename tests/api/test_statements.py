"""The exact statements of each way, since a remote database makes each of them slow."""

import re
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.db import connection
from django.db.backends.utils import CursorWrapper

from django_idenfy_phone import announce, delivery, look, services
from django_idenfy_phone.models import (
    PhoneVerification,
    ProviderGate,
    RegionBrake,
)
from django_idenfy_phone.signals import phone_verified, send_failed
from hosts.accounts.models import Profile
from support import wire as w
from support.constants import NUMBER
from support.steps import CURRENT_URL, client_of, detail_url, post_code, post_start

pytestmark = pytest.mark.django_db(transaction=True)
TRUE = w.answer(200, {"is_verified": True})
FALSE = w.answer(200, {"is_verified": False})
SENT = w.answer(200, {"request_id": "r" * 32})

ROWS, LOCKS, GATE = "phoneverification", "startlock", "providergate"
COUNT_REFUSAL = "INSERT tally"
READ = f"SELECT {ROWS}"
CHANGE = f"UPDATE {ROWS}"
START = [f"INSERT {LOCKS}", READ, f"INSERT {ROWS}"]
BEGIN_CHECK = [CHANGE] if connection.vendor == "postgresql" else [READ, CHANGE]
CHECK = [*BEGIN_CHECK, CHANGE]


@contextmanager
def statements():
    """Kind and first table of each statement, but for transactions and bounds."""

    def wrapper(execute, sql, params, many, context):
        plain = re.sub("^SET STATEMENT .*? FOR ", "", sql)
        kind = plain.split()[0].lstrip("(")
        if kind not in ("BEGIN", "PRAGMA", "SET"):
            table = re.search('(?:FROM|INTO|UPDATE) +[`"]?(\\w+)', plain)[1]
            found.append(f"{kind} {table.removeprefix('django_idenfy_phone_')}")
        return execute(sql, params, many, context)

    found = []
    with connection.execute_wrapper(wrapper):
        yield found


@pytest.fixture
def gate():
    """The gate exists, and the site's starts were counted within this second."""
    return ProviderGate.objects.create()


@pytest.fixture
def started(api, wire, gate, settings, clock):
    settings.IDENFY_PHONE_ALLOW_ANONYMOUS = True
    post_start(client_of(None), number="+37069999999")


@pytest.mark.parametrize("is_anonymous", [True, False])
def test_start_takes_three_statements(started, user, is_anonymous):
    client = client_of(None if is_anonymous else user)
    with statements() as found:
        assert post_start(client).status_code == 202
    assert found == START


@pytest.fixture
def sent(monkeypatch):
    """What goes to the database at once, statement by statement or several together."""

    def execute(self, sql, params=None):
        found.append(sql)
        return really_execute(self, sql, params)

    found, really_execute = [], CursorWrapper.execute
    monkeypatch.setattr(CursorWrapper, "execute", execute)
    return found


@pytest.mark.skipif(connection.vendor != "postgresql", reason="is about psycopg")
@pytest.mark.parametrize(("is_server_binding", "round_trips"), [(False, 2), (True, 3)])
def test_locks_and_counts_go_to_the_database_at_once(
    started, api, monkeypatch, sent, is_server_binding, round_trips
):
    options = connection.settings_dict["OPTIONS"]
    monkeypatch.setitem(options, "server_side_binding", is_server_binding)
    connection.close()
    sent.clear()
    try:
        assert post_start(api).status_code == 202
    finally:
        connection.close()
    assert len(sent) == round_trips


def test_wrapper_of_the_host_sees_one_statement_at_a_time(started, api):
    """Such as one that puts a statement of its own before, and passes over its rows."""

    def wrapper(execute, sql, params, many, context):
        alone.append("; " not in sql)
        return execute(sql, params, many, context)

    alone = []
    with connection.execute_wrapper(wrapper):
        assert post_start(api).status_code == 202
    assert all(alone)


def test_start_of_an_unblocked_number_takes_three_statements(started, api):
    services.unblock(phone_number=NUMBER)
    with statements() as found:
        assert post_start(api).status_code == 202
    assert found == START


def test_sql_of_starts_is_built_once(started, api):
    post_start(api, number="+37061111111")
    built = [look._glance.cache_info().misses, look._lock_sql.cache_info().misses]
    post_start(api, number="+37061111112")
    again = [look._glance.cache_info().misses, look._lock_sql.cache_info().misses]
    assert again == built


def test_start_with_a_key_looks_for_it_before_its_guard(started, api):
    with statements() as found:
        post_start(api, HTTP_IDEMPOTENCY_KEY="k" * 16)
    assert found == [READ, *START]


def test_start_with_a_key_of_an_earlier_day_frees_it_first(started, api, clock):
    key = {"HTTP_IDEMPOTENCY_KEY": "k" * 16}
    post_start(api, **key)
    clock.move(timedelta(days=31))
    # The site's starts are counted.
    post_start(client_of(None), number="+37069999999")
    with statements() as found:
        assert post_start(api, number="+37061111111", **key).status_code == 202
    assert found == [READ, *START[:2], READ, CHANGE, START[2]]


def test_start_beside_other_starts_also_tells_when_the_next_may_come(
    started, api, make, clock
):
    make("expired", created_at=clock.now - timedelta(hours=1))
    with statements() as found:
        assert post_start(api).status_code == 202
    clearing = f"SELECT {LOCKS}"
    assert found == [*START, READ, READ, clearing]


def test_only_where_a_brake_refuses_a_proof_of_the_user_is_looked_for(
    started, api, make, clock, settings
):
    settings.IDENFY_PHONE_BRAKE = {"mode": "enforce"}
    until = clock.now + timedelta(hours=1)
    RegionBrake.objects.create(region="LT", engaged_until=until)
    with statements() as found:
        post_start(api)
        post_start(api, number="+447400123456")
    assert found == [f"INSERT {LOCKS}", READ, READ, READ, READ, COUNT_REFUSAL, *START]


def test_brake_that_has_ended_costs_nothing(started, api, clock, settings):
    settings.IDENFY_PHONE_BRAKE = {"mode": "enforce"}
    RegionBrake.objects.create(region="LT", engaged_until=clock.now)
    with statements() as found:
        assert post_start(api).status_code == 202
    assert found == START


def test_only_where_failed_sends_reach_a_limit_a_start_looks_closer(
    started, api, make, clock, settings
):
    settings.IDENFY_PHONE_SEND_LIMITS = {"number": ["2/h"]}
    failed = {"failure": "unreachable", "created_at": clock.now - timedelta(minutes=30)}
    make("failed", **failed)
    with statements() as one_failed:
        assert post_start(api).status_code == 202
    PhoneVerification.objects.all().delete()
    make("failed", **failed)
    make("failed", **failed)
    with statements() as two_failed:
        assert post_start(api).status_code == 202
    assert (one_failed[:3], two_failed[:4]) == (START, [*START[:2], READ, START[2]])


REFUSED = [f"INSERT {LOCKS}", READ, READ, READ]


def test_refused_start_settles_late_rows_and_looks_exactly(started, make):
    make()
    with statements() as found:
        assert post_start(client_of(None)).status_code == 429
    assert found == [*REFUSED, COUNT_REFUSAL]


def test_refused_start_of_a_user_also_looks_for_the_first_one(started, api, make):
    make()
    with statements() as found:
        assert post_start(api).status_code == 429
    assert found == [*REFUSED, READ, COUNT_REFUSAL]


def test_refused_number_takes_one_statement(started, api):
    with statements() as found:
        assert post_start(api, number="+4915123456789").status_code == 400
    assert found == [COUNT_REFUSAL]


@pytest.mark.parametrize(("status", "looks"), [("sent", 1), ("verified", 2)])
def test_current_takes_a_look_or_two_and_a_status(api, make, status, looks, clock):
    row = make(status, verified_at=clock.now, created_at=clock.now - timedelta(hours=1))
    with statements() as found:
        assert api.get(CURRENT_URL).json()["id"] == str(row.pk)
    assert found == [READ] * (looks + 1)


@pytest.mark.parametrize("status", ["queued", "sending", "sent"])
def test_status_takes_one_statement_and_one_for_clearings(api, make, status, clock):
    row = make(status)
    with statements() as found:
        api.get(detail_url(row))
    assert found == [READ, f"SELECT {LOCKS}"]
    clock.move(timedelta(seconds=61))
    row.refresh_from_db()
    PhoneVerification.objects.update(lease_until=clock.now + timedelta(seconds=9))
    with statements() as found:
        api.get(detail_url(row))
    assert found == [READ]


def test_wrong_code_begins_a_check_and_stores_its_result(api, make, wire):
    wire.will(FALSE)
    row = make()
    for _ in range(3):
        with statements() as found:
            assert post_code(api, row).status_code == 200
        assert found == CHECK


CHANGE_GATE = [f"INSERT {GATE}", f"UPDATE {GATE}"]


@pytest.mark.parametrize(
    ("answer", "written"),
    [
        (w.answer(500), [CHANGE]),
        (w.answer(401), [CHANGE]),
        (w.answer(429), [*CHANGE_GATE, CHANGE]),
    ],
)
def test_check_without_a_result_is_ended_and_a_429_changes_the_gate(
    gate, api, make, wire, answer, written
):
    wire.will(answer)
    row = make()
    with statements() as found:
        assert post_code(api, row).status_code == 503
    assert found == [*BEGIN_CHECK, *written]


@pytest.mark.parametrize("status", ["queued", "locked", "failed"])
def test_refused_confirm_takes_one_statement_more_to_tell_why(api, make, status):
    row = make(status)
    with statements() as found:
        assert post_code(api, row).status_code in (409, 410)
    assert found == [BEGIN_CHECK[0], READ]


def test_right_code_takes_no_more_without_a_receiver(api, make, wire):
    wire.will(TRUE)
    row = make()
    with statements() as found:
        post_code(api, row)
    assert found == CHECK
    row.refresh_from_db()
    assert row.announced_at == row.verified_at


@pytest.fixture
def receiver():
    """Receives ``phone_verified``, and looks at the user."""

    def receive(user, **kwargs):
        assert user.username

    phone_verified.connect(receive)
    yield
    phone_verified.disconnect(receive)


def test_right_code_takes_two_more_with_a_receiver(api, make, wire, receiver):
    row = make()
    wire.will(TRUE)
    with statements() as found:
        post_code(api, row)
    assert found == [*CHECK, "SELECT auth_user", CHANGE]


OWNER = "accounts_profile"
KEEP = [f"SELECT {OWNER}", f"SELECT {OWNER}", READ, f"UPDATE {OWNER}", CHANGE]


@pytest.fixture
def owned(make, settings):
    """A row whose user has a profile, which keeps the number."""
    settings.IDENFY_PHONE_OWNER = "accounts.Profile.user"
    row = make()
    Profile.objects.create(user=row.user)
    return row


def test_right_code_takes_six_more_with_an_owner(api, owned, wire):
    wire.will(TRUE)
    with statements() as found:
        post_code(api, owned)
    assert found == [*CHECK, *KEEP, CHANGE]


def test_right_code_takes_seven_more_with_owner_and_receiver(
    api, owned, wire, receiver
):
    wire.will(TRUE)
    with statements() as found:
        post_code(api, owned)
    assert found == [*CHECK, *KEEP, "SELECT auth_user", CHANGE]


@pytest.mark.parametrize(
    ("rate", "claim"),
    [
        ("1/s", [READ, f"INSERT {GATE}", CHANGE, f"UPDATE {GATE}"]),
        (None, [READ, f"SELECT {GATE}", CHANGE]),
    ],
)
def test_send_takes_a_claim_and_two_statements(gate, make, wire, settings, rate, claim):
    settings.IDENFY_PHONE_SEND_RATE = rate
    wire.will(SENT)
    row = make("queued")
    with statements() as found:
        delivery.deliver(row.pk)
    assert found == [*claim, CHANGE, f"UPDATE {GATE}"]


@pytest.mark.parametrize(
    ("answer", "written"),
    [
        (w.answer(503), [CHANGE]),
        (w.refusal(400, "BAD_VALUE"), [CHANGE]),
        (w.refusal(400, "PARTNER_CONTRACT_ERROR"), [CHANGE, *CHANGE_GATE]),
        (w.answer(429), [CHANGE, *CHANGE_GATE]),
    ],
)
def test_failed_send_takes_one_statement_and_two_for_the_gate(
    gate, make, wire, settings, answer, written
):
    settings.IDENFY_PHONE_SEND_RATE = None
    wire.will(answer)
    row = make("queued")
    with statements() as found:
        delivery.deliver(row.pk)
    assert found == [READ, f"SELECT {GATE}", CHANGE, *written]


def test_failed_row_is_read_again_only_for_a_receiver(make):
    def receive(failure, **kwargs):
        assert failure

    row = make("failed", failure="unknown")
    with statements() as without_receiver:
        announce.failed([row.pk])
    send_failed.connect(receive)
    try:
        with statements() as with_receiver:
            announce.failed([row.pk])
    finally:
        send_failed.disconnect(receive)
    assert (without_receiver, with_receiver) == ([], [READ])


def test_status_of_a_late_row_takes_six_more_to_end_it(api, make, clock):
    row = make("sent")
    clock.move(timedelta(minutes=11))
    with statements() as found:
        assert api.get(detail_url(row)).json()["status"] == "expired"
    look_for_four_endings, end = [READ] * 4, CHANGE
    assert found == [READ, READ, *look_for_four_endings, end, READ]


def test_statements_that_need_no_transaction_commit_by_themselves(
    gate, api, make, wire, settings
):
    """A transaction around one statement would be two round trips more."""

    def wrapper(execute, *arguments):
        autocommits.add(connection.get_autocommit())
        return execute(*arguments)

    settings.IDENFY_PHONE_SEND_RATE = None
    wire.will(SENT, FALSE, TRUE)
    row, autocommits = make("queued"), set()
    with connection.execute_wrapper(wrapper):
        delivery.deliver(row.pk)
        assert api.get(detail_url(row)).json()["status"] == "sent"
        post_code(api, row)
        post_code(api, row)
    row.refresh_from_db()
    assert (autocommits, row.is_verified) == ({True}, True)


def test_message_for_a_row_that_was_sent_takes_one_statement(make):
    row = make("sent")
    with statements() as found:
        delivery.deliver(row.pk)
    assert found == [READ]
