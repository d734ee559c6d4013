"""Reads go to a replica that lags for ever, writes to another database."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
import threading
from concurrent.futures import ThreadPoolExecutor
import pytest
from django.db import connections, transaction
from rest_framework.test import APIClient
from django_idenfy_phone import maintenance, services, tasks
from django_idenfy_phone.exceptions import CooldownActive, InsideTransaction
from django_idenfy_phone.models import PhoneVerification, StartLock
from django_idenfy_phone.signals import phone_verified

pytestmark = pytest.mark.django_db(
    transaction=True, databases=["default", "phones", "replica"]
)

def start():
    return services.start_verification("+37060012345", user=None)

@pytest.fixture
def eager():
    tasks.send_code.app.conf.task_always_eager = True
    yield
    tasks.send_code.app.conf.task_always_eager = False

def test_the_sms_leaves_after_the_commit_there(idenfy_sandbox, eager):
    with transaction.atomic(using="phones"):
        start()
        assert idenfy_sandbox.state.sends == 0
    assert idenfy_sandbox.state.sends == 1

def test_only_a_transaction_there_forbids_a_check(idenfy_sandbox, eager):
    row = start()
    code = idenfy_sandbox.code_for("+37060012345")
    with transaction.atomic(using="phones"), pytest.raises(InsideTransaction):
        services.confirm_verification(row.pk, code)
    with transaction.atomic(using="default"):
        assert services.confirm_verification(row.pk, code).is_verified

def test_10_starts_are_one_sms_there(idenfy_sandbox):
    both = threading.Barrier(10)
    def attempt(_):
        both.wait()
        try:
            return start().status
        except CooldownActive:
            return "cooldown"
        finally:
            connections.close_all()
    with ThreadPoolExecutor(10) as pool:
        assert sorted(pool.map(attempt, range(10))) == ["cooldown"] * 9 + ["queued"]

def test_the_write_database_judges(idenfy_sandbox):
    heard = []
    def receiver(verification, **kwargs):
        heard.append(verification.pk)

    phone_verified.connect(receiver)
    api, body = APIClient(), {"phone_number": "+37060012345"}
    started = api.post("/phone/start/", body, format="json")
    assert started.status_code == 202
    assert api.post("/phone/start/", body, format="json").json()["code"] == "cooldown"
    code = idenfy_sandbox.code_for("+37060012345")
    assert api.get(started["Location"]).json()["status"] == "sent"
    url = started["Location"] + "confirm/"
    confirmed = api.post(url, {"code": code}, format="json")
    assert confirmed.json()["is_verified"] is True
    maintenance.sweep(tasks.hint)
    row = PhoneVerification.objects.using("phones").get()
    assert heard == [row.pk]
    assert services.get_proof(row.pk, user=None) == row
    for alias in ("default", "replica"):
        assert not PhoneVerification.objects.using(alias).exists()
        assert not StartLock.objects.using(alias).exists()
"""


@pytest.fixture
def project(tmp_path):
    for name, text in {
        "routed.py": SETTINGS,
        "routing.py": ROUTER,
        "test_routed.py": TEST,
        "conftest.py": 'pytest_plugins = ["django_idenfy_phone.testing"]',
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_a_router_that_splits_reads_and_writes_is_obeyed(project):
    path = [str(project), str(Path(__file__).parents[1]), *filter(None, sys.path)]
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "routed",
        "PYTHONPATH": os.pathsep.join(path),
    }
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert "4 passed" in result.stdout, result.stdout
