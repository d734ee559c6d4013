"""What is held about a person can be erased, and handed out."""

import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_idenfy_phone import delivery, maintenance, services
from django_idenfy_phone.exceptions import (
    InsideTransaction,
    NumberNotSupported,
    UnknownUser,
    VerificationNotFound,
)
from django_idenfy_phone.models import PhoneVerification, ProviderGate, StartLock
from django_idenfy_phone.signals import phone_verified
from hosts.orders.models import Receipt
from support import wire as w
from support.constants import NUMBER
from support.steps import dispatched_by_sweep, outcome, refusal_of, start

pytestmark = pytest.mark.django_db
rows = PhoneVerification.objects
OTHER = "+37060012345"
DAY = timedelta(days=1)
FORMS = [NUMBER, "+370 612 34567", "(+370) 612-34567", "\uff0b37061234567"]


@pytest.fixture
def other(django_user_model):
    return django_user_model.objects.create_user("jonas")


@pytest.fixture
def erasable(make):
    """Store an ended row of the last day with all that names a person."""

    def erasable(status="expired", **fields):
        known = {"network": "9.9.9.9", "idempotency_key": None}
        return make(status, **known | fields)

    return erasable


def personal(row):
    row.refresh_from_db()
    return (
        *(row.user_id, row.network, row.idempotency_key, row.request_id),
        row.is_anonymous,
    )


NOTHING = (None, "", None, None, False)


# Erasure.
def test_row_that_limits_count_loses_all_but_the_number(erasable):
    row = erasable(idempotency_key="k" * 64)
    erased = maintenance.erase(phone_number=NUMBER)
    assert (erased.rows, erased.deleted.rows) == (1, 0)
    assert personal(row) == NOTHING
    assert row.phone_number == NUMBER


def test_row_that_no_limit_counts_is_deleted_at_once(erasable):
    erasable(created_at=timezone.now() - 31 * DAY)
    assert maintenance.erase(phone_number=NUMBER).deleted.rows == 1
    assert not rows.exists()


def test_erasing_a_user_leaves_rows_of_others(erasable, user, other):
    of_user = erasable(phone_number=OTHER)
    of_other = erasable(user=other)
    assert maintenance.erase(user=user).rows == 1
    assert personal(of_user) == NOTHING
    assert personal(of_other)[0] == other.pk


def test_erasing_a_number_leaves_other_numbers(erasable, user):
    erasable()
    row = erasable(phone_number=OTHER)
    assert maintenance.erase(phone_number=NUMBER).rows == 1
    assert personal(row)[0] == user.pk


@pytest.mark.parametrize("text", FORMS)
def test_number_can_be_typed_in_any_form(erasable, text):
    erasable()
    assert maintenance.erase(phone_number=text).rows == 1


def test_number_of_a_region_that_is_no_longer_allowed_is_found(erasable, settings):
    settings.IDENFY_PHONE_REGIONS = ["GB"]
    erasable()
    assert maintenance.erase(phone_number=NUMBER).rows == 1


def test_stored_number_that_is_no_longer_valid_is_found(erasable):
    erasable(phone_number="+370999")
    assert maintenance.erase(phone_number="+370 999").rows == 1


def test_number_of_a_deleted_user_is_found(erasable, user):
    erasable()
    user.delete()
    assert maintenance.erase(phone_number=NUMBER, now=True).deleted.rows == 1


def test_limits_of_the_number_hold_after_erasure(user, wire):
    start(user)
    rows.update(status="expired")
    maintenance.erase(phone_number=NUMBER)
    assert refusal_of(user)[0] == "cooldown"


def test_erased_row_goes_with_a_later_purge(user, wire, clock):
    start(user)
    rows.update(status="expired")
    maintenance.erase(user=user)
    clock.now += 29 * DAY
    assert maintenance.purge().rows == 0
    clock.now += 2 * DAY
    assert maintenance.purge().rows == 1


def test_erasure_now_lets_limits_start_anew(user, wire):
    start(user)
    erased = maintenance.erase(phone_number=NUMBER, now=True)
    assert (erased.deleted.rows, erased.deleted.locks) == (1, 1)
    assert start(user).status == "queued"


def test_erasure_now_ends_the_run_of_account_faults(user, wire):
    wire.will(w.answer(403))
    delivery.deliver(start(user).pk)
    gate = ProviderGate.objects.get()
    assert gate.account_fault_sources
    maintenance.erase(phone_number=NUMBER, now=True)
    gate.refresh_from_db()
    assert (gate.account_faults, gate.account_fault_sources) == (0, "")


def test_erasure_now_deletes_the_lock_of_a_user(user, wire):
    start(user)
    before = StartLock.objects.count()
    maintenance.erase(user=user, now=True)
    assert StartLock.objects.count() == before - 1


def test_second_erasure_changes_nothing(erasable):
    row = erasable()
    maintenance.erase(phone_number=NUMBER)
    row.refresh_from_db()
    maintenance.erase(phone_number=NUMBER)
    assert rows.get().erased_at == row.erased_at


def test_protected_row_loses_all_but_the_number(erasable):
    row = erasable()
    Receipt.objects.create(protecting=row)
    erased = maintenance.erase(phone_number=NUMBER, now=True)
    assert (erased.rows, erased.deleted.kept) == (1, {"orders.Receipt": 1})
    assert personal(row) == NOTHING


# A code under way.
def test_queued_row_that_is_erased_is_not_sent(user, wire):
    row = start(user)
    maintenance.erase(user=user)
    assert dispatched_by_sweep() == []
    delivery.deliver(row.pk)
    assert (outcome(row), wire.requests) == ("too_late", [])


def test_code_of_an_erased_row_cannot_be_confirmed(make, user, wire):
    row = make("sent")
    maintenance.erase(user=user)
    with pytest.raises(VerificationNotFound):
        services.confirm_verification(row.pk, "1234", user=user)
    dispatched_by_sweep()
    assert (outcome(row), wire.requests) == ("expired", [])


def test_send_that_is_under_way_ends_as_a_row_of_nobody(make, user, wire):
    row = make("sending")
    maintenance.erase(user=user)
    rows.mark_sent(row, "r" * 32)
    row.refresh_from_db()
    assert (row.status, row.user_id) == ("sent", None)
    with pytest.raises(VerificationNotFound):
        services.confirm_verification(row.pk, "1234", user=user)


def test_queued_row_that_is_deleted_is_not_sent(user, wire):
    row = start(user)
    maintenance.erase(user=user, now=True)
    delivery.deliver(row.pk)
    assert wire.requests == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_now", [True, False])
def test_check_whose_row_is_erased_meanwhile_finds_nothing(make, user, wire, is_now):
    def erase_and_answer(handler):
        maintenance.erase(user=user, now=is_now)
        connection.close()
        w.answer(200, {"is_verified": True})(handler)

    row = make("sent")
    wire.will(erase_and_answer)
    with pytest.raises(VerificationNotFound):
        services.confirm_verification(row.pk, "1234", user=user)
    assert not rows.filter(is_verified=True).exists()


def test_erased_proof_is_not_announced_again(make, user):
    def receiver(**kwargs):
        calls.append(kwargs)

    now, calls = timezone.now(), []
    make("verified", verified_at=now, announce_at=now)
    phone_verified.connect(receiver)
    maintenance.erase(user=user)
    dispatched_by_sweep()
    phone_verified.disconnect(receiver)
    assert calls == []


def test_erased_proof_of_a_visitor_cannot_be_redeemed(make, user):
    proof = make("verified", user=None, is_anonymous=True, verified_at=timezone.now())
    maintenance.erase(phone_number=NUMBER)
    assert not rows.redeem(proof.pk, user.pk, "")


# What it refuses.
def test_erasure_needs_either_a_number_or_a_user(user):
    for arguments in ({}, {"phone_number": NUMBER, "user": user}):
        with pytest.raises(TypeError):
            maintenance.erase(**arguments)


def test_text_that_is_no_number_is_refused():
    with pytest.raises(NumberNotSupported):
        maintenance.erase(phone_number="ona")


def test_anonymous_user_is_refused():
    with pytest.raises(UnknownUser):
        maintenance.erase(user=AnonymousUser())


def test_erasure_inside_a_transaction_is_refused(user):
    with transaction.atomic(), pytest.raises(InsideTransaction):
        maintenance.erase(user=user)


# Access.
def test_export_holds_every_field_but_two(make, user):
    moment = datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC)
    row = make("expired", created_at=moment, network="9.9.9.9")
    [found] = maintenance.export(user=user)
    names = {field.name for field in PhoneVerification._meta.concrete_fields}
    assert found.keys() == names - {"request_id", "idempotency_key"}
    assert (found["id"], found["user"]) == (str(row.pk), user.pk)
    assert (found["phone_number"], found["network"]) == (NUMBER, "9.9.9.9")
    assert found["created_at"] == "2026-01-02T03:04:05.000600Z"
    assert json.loads(json.dumps(found)) == found


def test_export_of_a_number_has_rows_of_all_users_oldest_first(make, user, other):
    make("expired", user=other)
    make("expired", created_at=timezone.now() - DAY)
    make("expired", phone_number=OTHER)
    found = maintenance.export(phone_number=FORMS[1])
    assert [row["user"] for row in found] == [user.pk, other.pk]


def test_export_of_many_rows_is_read_as_it_is_written(make, user):
    make("expired")
    with CaptureQueriesContext(connection) as queries:
        found = maintenance.export(user=user)
        assert len(queries) == 0
        next(found)


# The commands.
def output_of(name, *options):
    stdout, stderr = io.StringIO(), io.StringIO()
    call_command(f"idenfy_phone_{name}", *options, stdout=stdout, stderr=stderr)
    return stdout.getvalue(), stderr.getvalue()


def test_erase_command_says_what_stays_and_how_long(erasable):
    erasable()
    erasable(created_at=timezone.now() - 40 * DAY)
    output, _errors = output_of("erase", "--number", NUMBER)
    assert output == (
        "Deleted: verifications: 1, locks: 0.\n"
        "1 verifications lost user and network. The limits need the rest: the purge "
        "deletes it when they do not, within 30 days.\n"
    )


def test_erase_command_says_that_limits_start_anew(erasable, user):
    erasable()
    output, _errors = output_of("erase", "--user", user.username, "--now")
    assert output == (
        "Deleted: verifications: 1, locks: 0.\n"
        "The limits of this number or user start anew.\n"
    )


def test_export_command_writes_json(make, user):
    for number in (NUMBER, OTHER):
        make("expired", phone_number=number)
    output, errors = output_of("export", "--user", str(user.pk))
    numbers = [row["phone_number"] for row in json.loads(output)]
    assert numbers == [NUMBER, OTHER]
    assert errors.strip() == "Verifications written: 2."


@pytest.mark.parametrize("name", ["erase", "export"])
@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("--number", "ona", "not a phone number"),
        ("--number", OTHER, "Nothing is held"),
        ("--user", "nobody", "No user"),
        ("--user", "-1", "No user"),
        ("--user", "9" * 30, "No user"),
    ],
)
def test_command_refuses_whom_it_does_not_know(name, option, value, text):
    with pytest.raises(CommandError, match=text) as caught:
        output_of(name, option, value)
    assert value not in str(caught.value)


def test_command_refuses_a_key_that_is_the_name_of_another(user, django_user_model):
    django_user_model.objects.create_user(str(user.pk))
    with pytest.raises(CommandError, match="or more than one"):
        output_of("erase", "--user", str(user.pk))


@pytest.mark.parametrize("options", [[], ["--number", OTHER, "--user", "ona"]])
def test_command_needs_either_a_number_or_a_user(options):
    with pytest.raises(CommandError):
        output_of("erase", *options)
