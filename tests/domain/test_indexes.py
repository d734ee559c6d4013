"""Queries use an index, however many rows there are."""

from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from django_idenfy_phone import maintenance, services, tallies
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.records import Heartbeat

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
EXPLAIN = {"sqlite": "EXPLAIN QUERY PLAN", "postgresql": "EXPLAIN", "mysql": "EXPLAIN"}


@pytest.fixture
def many_ended_rows(make):
    """5,000 ended rows, and one row of each kind that a sweep looks for."""
    long_ago = timezone.now() - timedelta(days=1)
    ended = {"created_at": long_ago, "send_by": long_ago, "next_send_at": long_ago}
    PhoneVerification.objects.bulk_create(
        PhoneVerification(
            phone_number=f"+370612{n:05}", region="LT", status=status, **ended
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
