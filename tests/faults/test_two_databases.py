"""Verification works where reads go to a replica that never catches up."""

from pathlib import Path

import pytest

from support.steps import run_module, write_files

SETTINGS = """
from hosts.project.settings import *

DATABASES = {
    alias: SQLITE | {"TEST": {"NAME": f"{alias}.sqlite3"}}
    for alias in ("default", "phones", "replica")
}
DATABASE_ROUTERS = ["routing.Router"]
IDENFY_PHONE_ALLOW_ANONYMOUS = True
"""
ROUTER = """
class Router:
    def db_for_read(self, model, **hints):
        return "replica"

    def db_for_write(self, model, **hints):
        return "phones"

    def allow_relation(self, *args, **hints):
        return True
"""
TEST = """
import pytest
from django.db import transaction
from rest_framework.test import APIClient
from django_idenfy_phone import maintenance, services, tasks
from django_idenfy_phone.exceptions import CooldownActive, InsideTransaction
from django_idenfy_phone.models import PhoneVerification, StartLock
from django_idenfy_phone.signals import phone_verified
from support.constants import NUMBER
from support.steps import START_URL, post_json, start

pytestmark = pytest.mark.django_db(
    transaction=True, databases=["default", "phones", "replica"]
)

def test_sms_is_sent_after_commit_on_write_database(idenfy_sandbox, eager):
    with transaction.atomic(using="phones"):
        start(None)
        assert idenfy_sandbox.state.sends == 0
    assert idenfy_sandbox.state.sends == 1

def test_confirm_refuses_only_transaction_on_write_database(idenfy_sandbox, eager):
    row = start(None)
    code = idenfy_sandbox.code_for(NUMBER)
    with transaction.atomic(using="phones"), pytest.raises(InsideTransaction):
        services.confirm_verification(row.pk, code)
    with transaction.atomic(using="default"):
        assert services.confirm_verification(row.pk, code).is_verified

def test_10_starts_at_once_queue_one_sms(idenfy_sandbox, at_once):
    def attempt(_):
        try:
            return start(None).status
        except CooldownActive:
            return "cooldown"

    assert sorted(at_once(attempt, range(10))) == ["cooldown"] * 9 + ["queued"]

def test_only_write_database_is_used(idenfy_sandbox):
    received = []
    def receiver(verification, **kwargs):
        received.append(verification.pk)

    phone_verified.connect(receiver)
    api, body = APIClient(), {"phone_number": NUMBER}
    started = post_json(api, START_URL, body)
    assert started.status_code == 202
    assert post_json(api, START_URL, body).json()["code"] == "cooldown"
    code = idenfy_sandbox.code_for(NUMBER)
    assert api.get(started["Location"]).json()["status"] == "sent"
    url = started["Location"] + "confirm/"
    confirmed = post_json(api, url, {"code": code})
    assert confirmed.json()["is_verified"] is True
    maintenance.sweep(tasks.notify_worker)
    row = PhoneVerification.objects.using("phones").get()
    assert received == [row.pk]
    assert services.get_proof(started.json()["redeem_token"], user=None) == row
    for alias in ("default", "replica"):
        assert not PhoneVerification.objects.using(alias).exists()
        assert not StartLock.objects.using(alias).exists()
"""


@pytest.fixture
def project(tmp_path):
    conftest = Path(__file__).parents[1] / "conftest.py"
    files = {
        "routed.py": SETTINGS,
        "routing.py": ROUTER,
        "test_routed.py": TEST,
        "conftest.py": conftest.read_text(encoding="utf-8"),
    }
    write_files(tmp_path, files)
    return tmp_path


def test_router_that_splits_reads_and_writes_is_respected(project):
    result = run_module(
        project,
        *("pytest", "-q", "-p", "no:cacheprovider"),
        DJANGO_SETTINGS_MODULE="routed",
    )
    assert "4 passed" in result.stdout, result.stdout
