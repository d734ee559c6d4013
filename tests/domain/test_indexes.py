"""Queries use an index, however many rows there are."""

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from django_idenfy_phone import limits, maintenance, services, statements, tallies
from django_idenfy_phone.admin import filters
from django_idenfy_phone.explain import explain
from django_idenfy_phone.health import health
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.records import Heartbeat
from django_idenfy_phone.starting import StartRequest
from support.constants import NUMBER

TABLE = "django_idenfy_phone_phoneverification"
ANALYZE = {
    "sqlite": "ANALYZE",
    "postgresql": f"ANALYZE {TABLE}",
    "mysql": f"ANALYZE TABLE {TABLE}",
}
WHOLE_TABLE = {
    "sqlite": f"SCAN {TABLE}",
    "postgresql": f"Seq Scan on {TABLE}",
    "mysql": f"'{TABLE}', 'ALL'",
}
# SQLite tells of an index in whose order the newest rows are read.
WITHOUT_INDEX = WHOLE_TABLE | {"sqlite": f"SCAN {TABLE}'"}
# Where an index alone answers.
INDEX_ONLY = {
    "sqlite": "USING COVERING INDEX",
    "postgresql": "Index Only Scan",
    "mysql": "Using index",
}
EXPLAIN = {"sqlite": "EXPLAIN QUERY PLAN", "postgresql": "EXPLAIN", "mysql": "EXPLAIN"}


@pytest.fixture
def many_ended_rows(make):
    """5,000 ended rows, and one row of each kind that a sweep looks for."""
    long_ago = timezone.now() - timedelta(days=1)
    ended = {"send_by": long_ago, "next_send_at": long_ago, "region": "LT"}
    PhoneVerification.objects.bulk_create(
        PhoneVerification(
            phone_number=f"+370612{n:05}",
            number_block=f"+370612{n // 10_000}",
            status=status,
            created_at=long_ago - timedelta(seconds=n),
            **ended,
        )
        for status in ("expired", "locked")
        for n in range(2500)
    )
    make("queued")
    make("sending")
    make("sent")
    make("verified", announce_at=timezone.now())
    with connection.cursor() as cursor:
        cursor.execute(ANALYZE[connection.vendor])


@pytest.fixture
def plans():
    """The query plan of each SELECT from our table."""

    def wrapper(execute, sql, params, many, context):
        if sql.lstrip("(").startswith("SELECT") and "phoneverification" in sql:
            explain = EXPLAIN[connection.vendor]
            execute(f"{explain} {sql}", params, many, context)
            found.append(str(context["cursor"].fetchall()))
        return execute(sql, params, many, context)

    found = []
    with connection.execute_wrapper(wrapper):
        yield found


@pytest.mark.django_db(transaction=True)
def test_sweep_reads_only_open_and_unannounced_rows(many_ended_rows, plans):
    Heartbeat.objects.create(name=tallies.MARKER, beat_at=timezone.now())
    maintenance.sweep(lambda pk: True, is_eager=True)
    # Due rows, the four endings, those of the brake, unannounced rows, the one found.
    open_rows, of_brake, unannounced = plans[:5], plans[5:7], plans[7]
    for plan in open_rows:
        assert "idenfy_phone_open" in plan
    for plan in of_brake:
        assert "idenfy_phone_site" in plan
    assert "idenfy_phone_unannounced" in unannounced
    for plan in plans:
        assert WHOLE_TABLE[connection.vendor] not in plan


@pytest.mark.django_db(transaction=True)
def test_start_counts_by_an_index_of_each_kind(many_ended_rows, plans, user):
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"VACUUM {TABLE}")
    start = StartRequest(NUMBER, "LT", user.pk, "9.9.9.9", "", None)
    statements.run(connection.alias, limits._counting(start, []))
    [plan] = plans
    for kind in ("number", "block", "user", "network"):
        assert f"idenfy_phone_{kind}" in plan
    assert plan.count(INDEX_ONLY[connection.vendor]) == 4
    assert WHOLE_TABLE[connection.vendor] not in plan


@pytest.mark.django_db(transaction=True)
def test_old_versions_of_rows_cost_only_one_count(make):
    """Each change leaves one behind, until a vacuum."""
    if connection.vendor != "postgresql":
        pytest.skip("set DATABASE_URL to a PostgreSQL server to run this")
    row, now = make("queued"), timezone.now()
    PhoneVerification.objects.bulk_create(
        PhoneVerification(
            phone_number=NUMBER,
            network="9.9.9.9",
            created_at=now - timedelta(seconds=n),
            send_by=row.send_by,
            next_send_at=row.next_send_at,
        )
        for n in range(1000)
    )
    for status in ("sending", "sent", "expired", "locked"):
        PhoneVerification.objects.update(status=status)
    looked_at = [rows_looked_at("9.9.9.9") for _ in range(3)]
    assert looked_at[0] > 2000
    assert looked_at[-1] == 1000


def rows_looked_at(network):
    """In the table, to count the rows of a network by the index."""
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
        cursor.execute(
            f"EXPLAIN (ANALYZE, FORMAT JSON) "
            f"SELECT COUNT(*) FROM {TABLE} WHERE network = %s",
            [network],
        )
        plan = str(cursor.fetchone())
        cursor.execute("RESET enable_seqscan; RESET enable_bitmapscan")
    return int(re.search("'Heap Fetches': (\\d+)", plan)[1])


@pytest.mark.django_db(transaction=True)
def test_tallies_read_only_rows_of_their_hours(many_ended_rows, plans):
    now = timezone.now()
    Heartbeat.objects.create(name=tallies.MARKER, beat_at=now - timedelta(minutes=1))
    tallies.recount()
    assert len(plans) in (1, 2)
    for plan in plans:
        assert "idenfy_phone_site" in plan
        assert WHOLE_TABLE[connection.vendor] not in plan


@pytest.mark.django_db(transaction=True)
def test_resend_at_reads_only_rows_of_the_caller(many_ended_rows, user, plans):
    row = PhoneVerification.objects.filter(user=user).earliest("created_at")
    plans.clear()
    services.resend_at(row, user=user)
    services.resend_at(row)
    assert len(plans) == 3
    for plan in plans:
        assert WHOLE_TABLE[connection.vendor] not in plan
    assert "idenfy_phone_" in plans[0]


@pytest.mark.django_db(transaction=True)
def test_purge_reads_only_old_and_erased_rows(many_ended_rows, plans, make):
    make("expired", erased_at=timezone.now())
    # Older than a window, and not as old as RETENTION.
    then = timezone.now() - timedelta(days=40)
    PhoneVerification.objects.update(created_at=then)
    with connection.cursor() as cursor:
        cursor.execute(ANALYZE[connection.vendor])
    maintenance.purge()
    old, erased = plans[:2]
    assert "idenfy_phone_site" in old
    assert "idenfy_phone_erased" in erased


LOG = "/admin/django_idenfy_phone/phoneverification/"
PAGES = {
    "today": "",
    "7 days": "?period=7d",
    "until": "?period=all&until=2126-01-01T00:00:00Z",
    "status": "?period=all&status__exact=locked",
    "failure": "?period=all&failure__exact=unknown",
    "region": "?period=all&region=GB",
    "purpose": "?period=all&purpose=order",
    "user": "?user={row.user_id}",
    "number": "?q=%2B37061200007",
    "id": "?q={row.pk}",
    "user name": "?q=ona",
    "e-mail": "?q=ona@example.com",
    "nothing": "?q=nonsense",
    "attempt": "{row.pk}/change/",
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_log_uses_an_index(
    many_ended_rows, admin_client, user, plans, monkeypatch, page
):
    # In proportion to the rows here.
    monkeypatch.setattr(filters, "MOST_ROWS", 100)
    monkeypatch.setattr(filters, "ROWS_FOR_PURPOSES", 10)
    user.email = "ona@example.com"
    user.save()
    row = PhoneVerification.objects.filter(user=user).earliest("created_at")
    plans.clear()
    assert admin_client.get(LOG + page.format(row=row)).status_code == 200
    assert len(plans) >= 3
    for plan in plans:
        assert WITHOUT_INDEX[connection.vendor] not in plan


@pytest.mark.django_db(transaction=True)
def test_health_uses_an_index(many_ended_rows, plans):
    health()
    assert len(plans) == 3
    for plan in plans:
        assert WITHOUT_INDEX[connection.vendor] not in plan


@pytest.mark.django_db(transaction=True)
def test_explain_uses_an_index(many_ended_rows, plans, user, settings):
    kinds = ("number", "user", "network", "block", "site")
    settings.IDENFY_PHONE_SEND_LIMITS = dict.fromkeys(kinds, ("1/h", "5/d"))
    settings.IDENFY_PHONE_BRAKE = {"mode": "enforce"}
    PhoneVerification.objects.filter(user=user).update(network="9.9.9.9")
    plans.clear()
    assert explain(phone_number=NUMBER, user=user, network="9.9.9.9")
    assert len(plans) >= 4
    for plan in plans:
        assert WITHOUT_INDEX[connection.vendor] not in plan
