"""Reads go to a replica that lags for ever, writes to another database."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SETTINGS = """
from project.settings import *

DATABASES = {
    alias: {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{alias}.sqlite3"}
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
from rest_framework.test import APIClient
from django_idenfy_phone import maintenance, services
from django_idenfy_phone.models import PhoneVerification, StartLock
from django_idenfy_phone.signals import phone_verified

@pytest.mark.django_db(transaction=True, databases=["default", "phones", "replica"])
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
    maintenance.sweep()
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
    path = [str(project), str(Path(__file__).parent), *filter(None, sys.path)]
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
        timeout=60,
        check=False,
    )
    assert "1 passed" in result.stdout, result.stdout
