"""Text that differs only by case, accent or trailing space is other text."""

import pytest
from django.db import connection
from django.utils import timezone

from django_idenfy_phone import services
from django_idenfy_phone.exceptions import NotVerified
from django_idenfy_phone.models import PhoneVerification, StartLock

pytestmark = pytest.mark.django_db
rows = PhoneVerification.objects


@pytest.mark.parametrize(
    "purpose", ["Reset", "RESET", "r\u00e9set", "reset ", "reset\t"]
)
def test_proof_of_a_similar_purpose_is_not_redeemed(make, user, purpose):
    row = make("verified", purpose=purpose, verified_at=timezone.now())
    with pytest.raises(NotVerified):
        services.redeem_verification(row, user=user, purpose="reset")


@pytest.mark.parametrize("field", ["request_id", "idempotency_key"])
def test_similar_identifiers_are_stored_side_by_side(make, field):
    for value in ("a" * 32, "A" * 32, "a" * 32 + " "):
        make("sent", **{field: value})
    assert rows.filter(**{field: "A" * 32}).count() == 1


def test_similar_lock_keys_are_different_locks():
    for key in ("a", "A", "a "):
        StartLock.objects.create(key=key, locked_at=timezone.now())
    assert StartLock.objects.count() == 3


def test_no_index_serves_only_like_on_postgresql():
    if connection.vendor != "postgresql":
        pytest.skip("set DATABASE_URL to a PostgreSQL server to run this")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT indexdef FROM pg_indexes "
            "WHERE tablename LIKE 'django_idenfy_phone_%'"
        )
        found = [definition for (definition,) in cursor.fetchall()]
    assert len(found) > 10
    assert not [each for each in found if "pattern_ops" in each]


def test_purpose_has_a_binary_collation_on_mariadb():
    if connection.vendor != "mysql":
        pytest.skip("set DATABASE_URL to a MariaDB server to run this")
    with connection.cursor() as cursor:
        columns = connection.introspection.get_table_description(
            cursor, PhoneVerification._meta.db_table
        )
    collations = {column.name: column.collation for column in columns}
    assert collations["purpose"] == "utf8mb4_nopad_bin"
