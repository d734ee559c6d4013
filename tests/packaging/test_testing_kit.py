"""A host project tests its phone numbers: Django's runner, and pytest with xdist."""

import pytest

from support.steps import run_module, write_files

FILES = {
    "project/__init__.py": "",
    "project/settings.py": """
import sys
SECRET_KEY = "only-for-tests"
ROOT_URLCONF = "project.urls"
USE_TZ = True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes",
    "django.contrib.sessions", "rest_framework", "django_idenfy_phone"]
MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware"]
CELERY_TASK_ALWAYS_EAGER = "project.celery" in sys.modules
""",
    "project/urls.py": """
from django.urls import include, path
urlpatterns = [path("phone/", include("django_idenfy_phone.urls"))]
""",
    "test_phone.py": """
import os, sys
from django.contrib.auth import get_user_model
from django.test import TestCase, TransactionTestCase
from django_idenfy_phone import testing
from django_idenfy_phone.models import PhoneVerification

NUMBER = "+37060012345"
SENT_AT_COMMIT = int(os.environ["SENT_AT_COMMIT"])

class Steps:
    def setUp(self):
        self.user = get_user_model().objects.create_user("ona")
        self.client.force_login(self.user)
        self.sandbox = self.enterContext(testing.sandbox())

    def post(self, url, **body):
        return self.client.post(url, body, "application/json")

    def start(self):
        started = self.post("/phone/start/", phone_number=NUMBER)
        assert started.status_code == 202, started.content
        return started["Location"]

    def test_user_confirms_a_number(self):
        url = self.start()
        code = self.sandbox.code_for(NUMBER)
        confirmed = self.post(url + "confirm/", code=code)
        self.assertIs(confirmed.json()["is_verified"], True)

    def test_refused_number(self):
        self.sandbox.fail_next("BAD_VALUE")
        url = self.start()
        self.assertEqual(self.sandbox.sent, [])
        self.assertEqual(self.client.get(url).json()["failure"], "number_refused")

    def test_expired_code(self):
        url = self.start()
        self.sandbox.expire(NUMBER)
        code = self.sandbox.code_for(NUMBER)
        self.assertEqual(self.post(url + "confirm/", code=code).status_code, 410)

class InsideTestCase(Steps, TestCase):
    def test_eager_celery_sends_where_callbacks_run(self):
        with self.captureOnCommitCallbacks(execute=True):
            self.start()
        self.assertEqual(self.sandbox.state.sends, SENT_AT_COMMIT)

class OutsideOfTransactions(Steps, TransactionTestCase):
    def test_eager_celery_sends_at_the_commit(self):
        self.start()
        self.assertEqual(self.sandbox.state.sends, SENT_AT_COMMIT)

class WithoutSandbox(TestCase):
    def test_verified_number(self):
        user = get_user_model().objects.create_user("ona")
        testing.verify_number(user, NUMBER)
        proofs = PhoneVerification.objects.verified(user=user, phone_number=NUMBER)
        self.assertTrue(proofs.exists())

    def test_kit_imports_no_pytest(self):
        if sys.argv[0].endswith("django/__main__.py"):
            self.assertNotIn("pytest", sys.modules)
""",
    "conftest.py": """
pytest_plugins = ["django_idenfy_phone.pytest_plugin"]
""",
    "test_fixture.py": """
import pytest
from django.conf import settings as live

NUMBER = "+37060012345"

@pytest.mark.parametrize("n", range(4))
@pytest.mark.django_db
def test_user_confirms_a_number(client, django_user_model, idenfy_sandbox, n):
    client.force_login(django_user_model.objects.create_user("ona"))
    body = {"phone_number": NUMBER}
    started = client.post("/phone/start/", body, "application/json")
    body = {"code": idenfy_sandbox.code_for(NUMBER)}
    url = started["Location"] + "confirm/"
    confirmed = client.post(url, body, "application/json")
    assert confirmed.json()["is_verified"] is True
    assert len(idenfy_sandbox.sent) == 1

def test_fixture_of_settings_may_be_used_before_and_after(settings, idenfy_sandbox):
    settings.IDENFY_PHONE_REGIONS = ["US"]
    assert live.IDENFY_PHONE_API_URL == idenfy_sandbox.url

@pytest.fixture(autouse=True)
def untouched():
    before = live._wrapped
    yield
    assert live._wrapped is before
""",
}
EAGER = {
    "project/__init__.py": "from .celery import app\n",
    "project/celery.py": """
from celery import Celery
app = Celery("project")
app.config_from_object("django.conf:settings", namespace="CELERY")
""",
}


@pytest.fixture(params=[0, 1], ids=["no Celery", "eager Celery"])
def run(request, tmp_path):
    """A function that runs a module in a host project without or with eager Celery."""
    write_files(tmp_path, FILES | (EAGER if request.param else {}))

    def run(*command):
        return run_module(
            tmp_path,
            *command,
            DJANGO_SETTINGS_MODULE="project.settings",
            # Where nobody listens, unlike Celery's default.
            CELERY_BROKER_URL="amqp://127.0.0.1:1//",
            SENT_AT_COMMIT=str(request.param),
        )

    return run


def test_kit_serves_the_test_runner_of_django(run):
    result = run("django", "test", "--pattern", "test_phone.py", "--parallel", "2")
    assert result.returncode == 0, result.stderr
    assert "Ran 10 tests" in result.stderr


def test_kit_serves_pytest_with_xdist(run):
    result = run("pytest", "-q", "-p", "no:cacheprovider", "-n", "2")
    assert result.returncode == 0, result.stdout
    assert "15 passed" in result.stdout
