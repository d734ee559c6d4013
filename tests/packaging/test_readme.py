"""The snippets, commands and tables of README.rst are right."""

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import call_command, load_command_class
from django.utils import timezone
from docutils.core import publish_doctree

from django_idenfy_phone import checks
from django_idenfy_phone.api.errors import STATUS
from django_idenfy_phone.conf import DEFAULT_SEND_LIMITS, PREFIX, Settings
from django_idenfy_phone.testing import age
from support.steps import run_module, write_files

README = (Path(__file__).parents[2] / "README.rst").read_text(encoding="utf-8")

# A host project before it follows the README; the snippets are appended to its files.
HOST_FILES = {
    "settings.py": """
SECRET_KEY = "only-for-tests"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "urls"
USE_TZ = True
AUTH_USER_MODEL = "accounts.User"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes",
    "django.contrib.sessions", "accounts"]
MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware"]
""",
    "urls.py": "urlpatterns = []\n",
    "accounts/__init__.py": "",
    "accounts/apps.py": """
from django.apps import AppConfig

class AccountsConfig(AppConfig):
    name = "accounts"

    def ready(self):
        from . import receivers
""",
    "accounts/models.py": """
from django.contrib.auth.models import AbstractUser
from django.db import models

class User(AbstractUser):
    phone_number = models.CharField(max_length=16, blank=True)
""",
    "signup/__init__.py": "",
    "project/__init__.py": "",
    # The real library has the same signature.
    "django_recaptcha/__init__.py": "",
    "django_recaptcha/client.py": """
from types import SimpleNamespace

def submit(recaptcha_response, private_key, remoteip):
    return SimpleNamespace(is_valid=recaptcha_response == "right")
""",
}
# Appended after the snippets.
COMPLETION = {
    "settings.py": """
from celery import Celery
Celery("project", broker="memory://").set_default()
IDENFY_PHONE_RESEND_COOLDOWN = (0,)
""",
    "urls.py": """
from signup.urls import urlpatterns as signup
from signup.views import SignUpView
urlpatterns += signup + [path("signup/", SignUpView.as_view())]
""",
    "test_flow.py": """
import json, logging, os
import pytest
from rest_framework.test import APIClient

NUMBER = "+37060012345"
START, CONFIRM = json.loads(os.environ["ANSWERS"])
pytestmark = pytest.mark.django_db

def assert_matches(answer, shown):
    varying = {"id", "created_at", "expires_at", "resend_at"}
    assert list(answer) == list(shown)
    for name, value in shown.items():
        if name in varying:
            assert type(answer[name]) is type(value), name
        else:
            assert answer[name] == value, name

@pytest.fixture
def api():
    return APIClient()

def confirm(api, sandbox, started, code=None):
    code = code or sandbox.code_for(NUMBER)
    url = f"/phone/{started.json()['id']}/confirm/"
    return api.post(url, {"code": code}, format="json")

def test_start_and_confirm(api, idenfy_sandbox, django_user_model):
    user = django_user_model.objects.create_user("ona")
    api.force_authenticate(user)
    started = api.post("/phone/start/", {"phone_number": NUMBER}, format="json")
    assert (started.status_code, list(started.json())) == (202, list(START))
    assert started["Location"] == f"/phone/{started.json()['id']}/"
    assert_matches(started.json(), START)
    confirmed = confirm(api, idenfy_sandbox, started)
    assert confirmed.status_code == 200
    assert_matches(confirmed.json(), CONFIRM)
    user.refresh_from_db()
    assert user.phone_number == NUMBER

def test_refused_number_is_logged(
    api, idenfy_sandbox, django_user_model, caplog, settings
):
    settings.IDENFY_PHONE_REGIONS = ["US"]
    api.force_authenticate(django_user_model.objects.create_user("ona"))
    api.post("/phone/start/", {"phone_number": "+12025550101"}, format="json")
    with pytest.raises(LookupError):
        idenfy_sandbox.code_for("+12025550101")
    assert "No code was sent: number_refused" in caplog.text

def test_sign_up(api, idenfy_sandbox, django_user_model, settings):
    body = {"phone_number": NUMBER}
    refused = api.post("/signup/phone/", body, format="json")
    assert (refused.status_code, refused.json()["code"]) == (403, "captcha")
    captcha = {"HTTP_X_CAPTCHA": "right"}
    started = api.post("/signup/phone/", body, format="json", **captcha)
    assert started.json()["purpose"] == "signup"
    proof = {"username": "rasa", "phone": started.json()["redeem_token"]}
    assert api.post("/signup/", proof, format="json").status_code == 400
    confirm(api, idenfy_sandbox, started)
    assert api.post("/signup/", proof, format="json").status_code == 201
    again = proof | {"username": "second"}
    assert api.post("/signup/", again, format="json").status_code == 400
    assert django_user_model.objects.get().phone_number == NUMBER

def test_client_network_is_stored(api, idenfy_sandbox, django_user_model):
    from django_idenfy_phone.models import PhoneVerification
    api.force_authenticate(django_user_model.objects.create_user("ona"))
    body = {"phone_number": NUMBER}
    headers = {"HTTP_CF_CONNECTING_IP": "8.8.8.8", "HTTP_X_CAPTCHA": "right"}
    api.post("/phone/start/", body, format="json", **headers)
    assert PhoneVerification.objects.get().network == "8.8.8.8"

def test_beat_schedule_names_sweep_task(settings):
    from django_idenfy_phone import tasks
    names = [entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()]
    assert names == [tasks.sweep.name]
""",
}


def snippets(language):
    pattern = rf"\.\. code-block:: {language}\n\n((?:    .*\n|\n)+)"
    blocks = re.findall(pattern, README)
    return ["\n".join(line[4:] for line in block.splitlines()) for block in blocks]


@pytest.fixture
def project(tmp_path):
    files = dict(HOST_FILES)
    for snippet in snippets("python"):
        name = snippet.splitlines()[0].removeprefix("# ")
        files[name] = files.get(name, "") + snippet + "\n"
    for name, text in COMPLETION.items():
        files[name] = files.get(name, "") + text
    write_files(tmp_path, files)
    return tmp_path


def shown_answers():
    return [
        json.loads(re.search(r"^\{\n.*^\}", block, re.DOTALL | re.MULTILINE)[0])
        for block in snippets("http")
    ]


def test_project_made_of_snippets_works(project):
    result = run_module(
        project,
        *("pytest", "-q", "-p", "no:cacheprovider"),
        DJANGO_SETTINGS_MODULE="settings",
        ANSWERS=json.dumps(shown_answers()),
    )
    assert result.returncode == 0, result.stdout
    assert "6 passed" in result.stdout


def test_snippets_pass_system_checks(project):
    result = run_module(
        project,
        *("django", "check", "--fail-level", "WARNING"),
        DJANGO_SETTINGS_MODULE="settings",
    )
    assert "W001" in result.stderr
    assert result.stderr.count("django_idenfy_phone.") == 1


def test_readme_is_valid_rst():
    publish_doctree(README, settings_overrides={"halt_level": 2})


def test_every_setting_has_heading():
    described = set(re.findall(rf"^``{PREFIX}(\w+)``", README, re.MULTILINE))
    described |= set(re.findall(rf", ``{PREFIX}(\w+)``$", README, re.MULTILINE))
    assert described == {name for name in dir(Settings) if name.isupper()}


def test_every_error_code_is_in_table():
    missing = [error.code for error in STATUS if f"``{error.code}``" not in README]
    assert missing == []


def test_default_limits_match_table():
    for kind, limits in DEFAULT_SEND_LIMITS.items():
        assert re.search(rf"^``{kind}`` +{', '.join(limits)} ", README, re.MULTILINE)


def test_readme_names_exactly_our_commands():
    named = set(re.findall(r"manage\.py\s+(idenfy_phone_\w+)", README))
    folder = Path(checks.__file__).parent / "management" / "commands"
    assert named == {path.stem for path in folder.glob("idenfy_phone_*.py")}


def shown_commands():
    lines = "\n".join(snippets("console")).splitlines()
    commands = [line.partition("  #")[0].split("manage.py ")[-1] for line in lines]
    return [line.split() for line in commands if line.startswith("idenfy_phone_")]


@pytest.mark.parametrize("words", shown_commands(), ids=" ".join)
def test_shown_command_accepts_its_options(words):
    name, *options = words
    command = load_command_class("django_idenfy_phone", name)
    command.create_parser("manage.py", name).parse_args(options)


@pytest.mark.django_db
@pytest.mark.usefixtures("wire")
def test_shown_status_matches_output(make, clock, capsys):
    for _ in range(2):
        age(make("queued"), timedelta(seconds=95))
    make("verified", announced_at=timezone.now())
    with pytest.raises(SystemExit):
        call_command("idenfy_phone_status")
    [shown] = snippets("text")
    printed = capsys.readouterr().out
    assert printed.rstrip() == shown.rstrip().replace("verified: 41", "verified: 1")
