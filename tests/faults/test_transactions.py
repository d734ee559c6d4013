"""Nothing is spent inside a transaction that could be rolled back."""

import pytest
from django.db import connection, connections, transaction

from django_idenfy_phone import delivery, maintenance, services, tasks
from django_idenfy_phone.exceptions import InsideTransaction
from django_idenfy_phone.signals import phone_verified
from django_idenfy_phone.transactions import in_transaction
from support import wire as w
from support.steps import start

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def manual_commit():
    """The host turned autocommit off, so a transaction is always open."""
    connection.set_autocommit(False)
    yield
    connection.rollback()
    connection.set_autocommit(True)


@pytest.fixture
def atomic_block():
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


@pytest.fixture(params=["manual_commit", "atomic_block"])
def open_transaction(request):
    """Call it to open a transaction of the caller."""
    return lambda: request.getfixturevalue(request.param)


def test_confirm_in_a_transaction_asks_and_spends_nothing(make, wire, open_transaction):
    row = make("sent")
    open_transaction()
    for _ in range(5):
        with pytest.raises(InsideTransaction):
            services.confirm_verification(row.pk, "1234", user=row.user)
    row.refresh_from_db()
    assert (row.checks, wire.requests) == (0, [])


@pytest.mark.parametrize(
    "send",
    [
        delivery.deliver,
        lambda pk: tasks.send_code(str(pk)),
        lambda pk: maintenance.sweep(lambda pk: delivery.deliver(pk) is None),
    ],
    ids=["deliver", "task", "sweep"],
)
def test_send_in_a_transaction_sends_nothing(make, wire, open_transaction, send):
    row = make("queued")
    open_transaction()
    with pytest.raises(InsideTransaction):
        send(row.pk)
    row.refresh_from_db()
    assert (row.status, wire.requests) == ("queued", [])


def test_sweep_in_a_transaction_sends_no_signal(make, open_transaction):
    def receiver(**kwargs):
        received.append(kwargs)

    received = []
    row = make("verified")
    open_transaction()
    row.announce_at = row.created_at
    row.save()
    phone_verified.connect(receiver)
    with pytest.raises(InsideTransaction):
        maintenance.sweep(lambda pk: True)
    phone_verified.disconnect(receiver)
    assert received == []


def test_start_with_manual_commit_is_sent_after_the_commit(user, wire, eager):
    wire.will(w.answer(200, {"request_id": "r" * 32}))
    connection.set_autocommit(False)
    try:
        row = start(user)
        connection.commit()
        assert wire.requests == []
    finally:
        connection.set_autocommit(True)
    row.refresh_from_db()
    assert (row.status, len(wire.requests)) == ("sent", 1)


def test_start_with_manual_commit_can_be_rolled_back(user, wire, manual_commit):
    if connection.vendor == "sqlite":
        pytest.skip("without autocommit, SQLite commits when a savepoint is released")
    start(user)
    connection.rollback()
    assert not user.phone_verifications.exists()


@pytest.mark.parametrize("is_on", [True, False])
def test_autocommit_off_is_known_before_a_connection_opens(is_on):
    connections["new"] = connection.copy(alias="new")
    connections["new"].settings_dict["AUTOCOMMIT"] = is_on
    try:
        assert in_transaction("new") is not is_on
        assert connections["new"].connection is None
    finally:
        del connections["new"]
