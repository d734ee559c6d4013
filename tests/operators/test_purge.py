"""The purge deletes what nothing needs any more, and nothing else."""

import io
import logging
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, transaction
from django.db.models.signals import pre_delete
from django.utils import timezone

from django_idenfy_phone import limits, maintenance, retention, services, tasks
from django_idenfy_phone.exceptions import InsideTransaction
from django_idenfy_phone.models import PhoneVerification, StartLock
from django_idenfy_phone.records import Tally
from hosts.orders.models import Receipt
from support.constants import NUMBER
from support.databases import after_statement
from support.steps import named_cases, refusal_of, start, start_and_expire

pytestmark = pytest.mark.django_db
rows = PhoneVerification.objects
DAY = timedelta(days=1)


@pytest.fixture
def make_old(make):
    """Store an ended row, 91 days old."""

    def make_old(status="expired", days=91, **fields):
        then = timezone.now() - days * DAY
        return make(status, **{"created_at": then, "next_send_at": then} | fields)

    return make_old


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(retention, "BATCH", 2)


@pytest.fixture(params=["with relations", "without relations"])
def _relations(request, monkeypatch):
    """Whether the host has models that refer to verifications."""
    if request.param == "without relations":
        own = PhoneVerification._meta.concrete_fields
        monkeypatch.setattr(PhoneVerification._meta, "get_fields", lambda **kwargs: own)


def announced():
    return {"announced_at": timezone.now(), "verified_at": timezone.now() - DAY}


def test_tallies_are_deleted_after_90_days(small_batches):
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    for days in (92, 91, 91, 90, 1):
        Tally.objects.create(hour=hour - days * DAY, name="sent", count=1, shard=days)
        hour -= timedelta(microseconds=1)
    assert maintenance.purge(dry_run=True).tallies == 4
    assert maintenance.purge().tallies == 4
    assert Tally.objects.count() == 1


@pytest.mark.usefixtures("_relations")
@pytest.mark.parametrize("status", ["verified", "failed", "expired", "locked"])
def test_ended_row_is_deleted_after_90_days(make_old, status):
    fields = announced() if status == "verified" else {}
    make_old(status, **fields)
    young = make_old(status, days=89, **fields)
    assert maintenance.purge().rows == 1
    assert rows.get() == young


@pytest.mark.parametrize("status", ["queued", "sending", "sent"])
def test_row_under_way_stays(make_old, status):
    row = make_old(status)
    assert maintenance.purge().rows == 0
    assert rows.get() == row


def test_proof_that_is_not_announced_stays(make_old):
    make_old("verified", **announced() | {"announced_at": None})
    assert maintenance.purge().rows == 0


def test_proof_that_can_be_redeemed_stays(make_old, user):
    proof = make_old("verified", **announced() | {"verified_at": timezone.now()})
    assert maintenance.purge().rows == 0
    services.redeem_verification(proof, user=user)


def test_longest_window_wins_over_a_shorter_retention(make_old, settings):
    settings.IDENFY_PHONE_RETENTION = DAY
    make_old(days=29)
    make_old(days=31)
    assert maintenance.purge().rows == 1


def test_retention_is_read_live(make_old, settings):
    settings.IDENFY_PHONE_RETENTION = 40 * DAY
    make_old(days=41)
    assert maintenance.purge().rows == 1


def test_row_that_a_limit_counts_refuses_after_a_purge(user, clock, wire, settings):
    settings.IDENFY_PHONE_SEND_LIMITS = {"number": ["1/40d"]}
    settings.IDENFY_PHONE_RETENTION = DAY
    start_and_expire(user)
    clock.now += 39 * DAY
    maintenance.purge()
    assert refusal_of(user) == ("limit_reached", DAY)


@pytest.mark.usefixtures("_relations", "small_batches")
def test_all_batches_are_deleted_past_rows_that_stay(make_old):
    moment = timezone.now() - 91 * DAY
    for n in range(9):
        make_old(("expired", "queued", "locked")[n % 3], created_at=moment)
    assert maintenance.purge().rows == 6
    assert rows.count() == 3


@pytest.mark.usefixtures("small_batches")
def test_dry_run_counts_and_deletes_nothing(make_old, wire, user, clock):
    start_and_expire(user)
    clock.now += 91 * DAY
    for _ in range(5):
        make_old()
    make_old(erased_at=timezone.now())
    found = maintenance.purge(dry_run=True)
    assert (found.rows, found.locks) == (7, 3)
    assert (rows.count(), StartLock.objects.count()) == (7, 3)
    assert maintenance.purge() == found


@pytest.mark.usefixtures("_relations")
@pytest.mark.django_db(transaction=True)
def test_row_that_is_verified_meanwhile_stays(make_old):
    """A host with long codes may get a late answer just before the row is deleted."""
    row = make_old()
    with after_statement(lambda: rows.mark_verified(row, timezone.now())) as on:
        on("ORDER BY")
        assert maintenance.purge().rows == 0
    assert rows.get().is_verified


def test_purge_inside_a_transaction_is_refused():
    with transaction.atomic(), pytest.raises(InsideTransaction):
        maintenance.purge()


# Locks.
def test_lock_goes_when_the_longest_window_has_passed(user, wire, clock):
    start(user)
    clock.now += 30 * DAY - timedelta(seconds=1)
    assert maintenance.purge().locks == 0
    clock.now += timedelta(seconds=2)
    assert maintenance.purge().locks == 3


def test_lock_of_a_cleared_number_stays_as_long_as_it_counts(wire, clock):
    services.unblock(phone_number=NUMBER)
    StartLock.objects.update(locked_at=clock.now - 31 * DAY)
    assert maintenance.purge().locks == 0
    StartLock.objects.update(cleared_at=clock.now - 31 * DAY)
    assert maintenance.purge().locks == 1


@pytest.mark.usefixtures("small_batches")
def test_all_pages_of_locks_are_read():
    now = timezone.now()
    StartLock.objects.bulk_create(
        StartLock(key=f"{n:064}", locked_at=now - n % 2 * 31 * DAY) for n in range(9)
    )
    assert maintenance.purge().locks == 4
    assert StartLock.objects.count() == 5


# Erased rows.
def test_erased_row_goes_when_no_limit_counts_it(make_old):
    make_old(days=29, erased_at=timezone.now())
    make_old(days=31, erased_at=timezone.now())
    make_old(days=31)
    assert maintenance.purge().rows == 1
    assert rows.filter(erased_at__isnull=False).count() == 1


def test_erased_row_is_not_kept_for_a_window_of_users(make_old, settings):
    settings.IDENFY_PHONE_SEND_LIMITS = {"number": ["5/d"], "user": ["100/60d"]}
    make_old(days=2, erased_at=timezone.now())
    make_old(days=2)
    assert maintenance.purge().rows == 1


def test_erased_proof_that_was_not_announced_goes(make_old):
    make_old("verified", days=31, erased_at=timezone.now())
    assert maintenance.purge().rows == 1


# Relations of the host's models.
def test_related_rows_follow_their_on_delete(make_old):
    following = Receipt.objects.create(following=make_old())
    forgetting = Receipt.objects.create(forgetting=make_old())
    assert maintenance.purge().rows == 2
    assert not Receipt.objects.filter(pk=following.pk).exists()
    forgetting.refresh_from_db()
    assert forgetting.forgetting_id is None


def test_protected_rows_stay_and_are_named(make_old):
    kept = {make_old().pk for _ in range(3)}
    Receipt.objects.bulk_create(Receipt(protecting_id=pk) for pk in kept)
    for _ in range(5):
        make_old()
    done = maintenance.purge()
    assert (done.rows, done.kept) == (5, {"orders.Receipt": 3})
    assert set(rows.values_list("pk", flat=True)) == kept


@pytest.fixture
def table_with_foreign_key(transactional_db):
    """A table that only the database knows to refer to a verification."""
    field = PhoneVerification._meta.pk
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TABLE host_record (id {field.db_type(connection)}, FOREIGN KEY "
            "(id) REFERENCES django_idenfy_phone_phoneverification (id))"
        )
        yield lambda pk: cursor.execute(
            "INSERT INTO host_record VALUES (%s)",
            [field.get_db_prep_value(pk, connection)],
        )
        cursor.execute("DROP TABLE host_record")


@pytest.mark.usefixtures("_relations")
def test_row_that_the_database_keeps_stays(table_with_foreign_key, make_old):
    table_with_foreign_key(make_old().pk)
    make_old()
    done = maintenance.purge()
    assert (done.rows, done.kept) == (1, {"a foreign key": 1})


def test_signals_of_deletion_are_sent(make_old):
    def receiver(instance, **kwargs):
        seen.append(instance.pk)

    seen, row = [], make_old()
    pre_delete.connect(receiver, sender=PhoneVerification)
    maintenance.purge()
    pre_delete.disconnect(receiver, sender=PhoneVerification)
    assert seen == [row.pk]


# Interruptions.
ERRORS = {"signal": KeyboardInterrupt, "connection": OperationalError}


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_relations", "small_batches")
@pytest.mark.parametrize("error", **named_cases(ERRORS))
def test_interrupted_purge_can_be_run_again(make_old, error):
    def interrupt(execute, sql, *arguments):
        result = execute(sql, *arguments)
        if "DELETE FROM" in sql and "phone_phoneverification" in sql:
            deletions.append(sql)
            if len(deletions) == 2:
                raise error
        return result

    deletions = []
    for _ in range(9):
        make_old()
    with connection.execute_wrapper(interrupt), pytest.raises(error):
        maintenance.purge()
    left = rows.count()
    assert 0 < left < 9
    assert maintenance.purge().rows == left


# The command and the task.
class Terminal(io.StringIO):
    def isatty(self):
        return True


def output_of(*options, stdout=None):
    stdout = stdout or io.StringIO()
    call_command("idenfy_phone_purge", *options, stdout=stdout)
    return stdout.getvalue()


def test_command_writes_one_line_to_a_log(make_old):
    make_old()
    assert output_of("--dry-run") == "Would be purged: verifications: 1, locks: 0.\n"
    assert output_of() == "Purged: verifications: 1, locks: 0.\n"


@pytest.mark.usefixtures("small_batches")
def test_command_shows_progress_on_a_terminal(make_old):
    for _ in range(3):
        make_old()
    lines = output_of(stdout=Terminal()).replace("\n", "\r").split("\r")
    assert [line for line in lines if line] == [
        "verifications: 2, locks: 0",
        "verifications: 3, locks: 0",
        "Purged: verifications: 3, locks: 0.",
    ]


def test_command_names_what_keeps_rows(make_old):
    Receipt.objects.create(protecting=make_old())
    assert "verifications: 0, locks: 0, kept by orders.Receipt: 1." in output_of()


def test_command_that_is_interrupted_says_how_to_go_on(make_old, monkeypatch):
    def interrupt(deleted):
        raise KeyboardInterrupt

    make_old()
    stdout = Terminal()
    stdout.flush = lambda: interrupt(None)
    with pytest.raises(CommandError, match="run it again") as caught:
        output_of(stdout=stdout)
    assert caught.value.returncode == 130
    assert "Purged: verifications: 1, locks: 0." in stdout.getvalue()


def test_task_purges_and_logs_the_counts(make_old, caplog):
    caplog.set_level(logging.INFO)
    make_old()
    tasks.purge()
    assert "Purged: verifications: 1, locks: 0." in caplog.text
    assert tasks.purge.name == "django_idenfy_phone.purge"


def test_forgotten_lock_no_longer_says_that_a_number_was_cleared(make, wire):
    services.unblock(phone_number=NUMBER)
    assert limits.cleared_at({"number": NUMBER}) != {}
    assert limits.forget("number", NUMBER) == 1
    assert limits.cleared_at({"number": NUMBER}) == {}
