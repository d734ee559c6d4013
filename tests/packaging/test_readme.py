"""A host made of the snippets of README.rst and the manual works."""

import json
import re

import pytest

from support.manual import snippets
from support.steps import run_module, write_files

# A host project before it follows the manual; the snippets are appended to its files.
HOST_FILES = {
    "project/settings.py": """
SECRET_KEY = "only-for-tests"
DEBUG = True
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "project.urls"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "accounts.User"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
STATIC_URL = "static/"
INSTALLED_APPS = ["django.contrib.admin", "django.contrib.auth",
    "django.contrib.contenttypes", "django.contrib.messages",
    "django.contrib.sessions", "accounts", "members"]
MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware"]
PROCESSORS = ["django.template.context_processors.request",
    "django.contrib.auth.context_processors.auth",
    "django.contrib.messages.context_processors.messages"]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates",
    "DIRS": ["."], "APP_DIRS": True, "OPTIONS": {"context_processors": PROCESSORS}}]
""",
    "project/urls.py": "urlpatterns = []\n",
    "accounts/__init__.py": "",
    "accounts/number.html": "{{ form }}",
    "accounts/apps.py": """
from django.apps import AppConfig

class AccountsConfig(AppConfig):
    name = "accounts"

    def ready(self):
        from . import receivers
""",
    "members/__init__.py": "",
    "signup/__init__.py": "",
    # The real library has the same signature.
    "django_recaptcha/__init__.py": "",
    "django_recaptcha/client.py": """
from types import SimpleNamespace

def submit(recaptcha_response, private_key, remoteip):
    return SimpleNamespace(is_valid=recaptcha_response == "right")
""",
    # A theme with a ModelAdmin of its own.
    "unfold/__init__.py": "",
    "unfold/admin.py": """
from django.contrib import admin

class ModelAdmin(admin.ModelAdmin):
    pass
""",
}
# Appended after the snippets.
COMPLETION = {
    "project/settings.py": """
CELERY_BROKER_URL = "memory://"
IDENFY_PHONE_RESEND_COOLDOWN = (0,)
LENGTH = "django.contrib.auth.password_validation.MinimumLengthValidator"
AUTH_PASSWORD_VALIDATORS = [{"NAME": LENGTH}]
""",
    "project/urls.py": """
from accounts.urls import urlpatterns as accounts
from signup.urls import urlpatterns as signup
from signup.views import SignUpView
from project.support import site
from django.contrib import admin
urlpatterns += accounts + signup + [path("signup/", SignUpView.as_view())]
urlpatterns += [path("admin/", admin.site.urls), path("support/", site.urls)]
""",
    "test_flow.py": """
import importlib, json, os
from base64 import b64encode
from types import SimpleNamespace
import pytest
from accounts.links import confirm_url
from accounts.views import change_number
from celery import current_app
from django.contrib import admin
from django.contrib.auth.models import AnonymousUser
from django.core.management import call_command
from django.middleware.csrf import get_token
from django.template import Context, Template
from django.utils import timezone
from django.views.debug import SafeExceptionReporterFilter
from django_idenfy_phone import services
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.ownership import keep_number, release_number
from members.models import Member
from project.erasure import erase_person
from project.report import print_week
from rest_framework.test import APIClient
from unfold.admin import ModelAdmin

NUMBER = "+37060012345"
START, CONFIRM = json.loads(os.environ["ANSWERS"])
pytestmark = pytest.mark.django_db

def assert_matches(answer, shown):
    varying = {"id", "url", "created_at", "expires_at", "resend_at"}
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
    token = started.json()["redeem_token"]
    proof = {"username": "rasa", "password": "long enough", "phone": token}
    assert list(api.post("/signup/", proof, format="json").json()) == ["phone"]
    confirm(api, idenfy_sandbox, started)
    weak = proof | {"password": "short"}
    assert list(api.post("/signup/", weak, format="json").json()) == ["password"]
    assert api.post("/signup/", proof, format="json").status_code == 201
    assert api.login(username="rasa", password="long enough")
    same = api.post("/signup/", proof, format="json").json()
    assert list(same) == ["username", "phone"]
    again = proof | {"username": "second"}
    assert api.post("/signup/", again, format="json").status_code == 400
    assert django_user_model.objects.get().phone_number == NUMBER

def test_sign_up_start_has_no_login(api, idenfy_sandbox, django_user_model):
    api.force_login(django_user_model.objects.create_user("ona"))
    body, captcha = {"phone_number": NUMBER}, {"HTTP_X_CAPTCHA": "right"}
    started = api.post("/signup/phone/", body, format="json", **captcha)
    assert "redeem_token" in started.json()

@pytest.mark.parametrize(("is_staff", "status"), [(True, 202), (False, 403)])
def test_only_staff_may_start(
    api, idenfy_sandbox, django_user_model, is_staff, status
):
    api.force_login(django_user_model.objects.create_user("ona", is_staff=is_staff))
    body = {"phone_number": NUMBER}
    assert api.post("/staff/phone/", body, format="json").status_code == status

def test_shown_calls_confirm_a_number(api, idenfy_sandbox, django_user_model):
    django_user_model.objects.create_user("ona", password="right")
    login = b64encode(b"ona:right").decode()
    api.credentials(HTTP_AUTHORIZATION=f"Basic {login}")
    (url, body), (confirm_url, code) = json.loads(os.environ["CALLS"])
    started = api.post(url, body, content_type="application/json").json()
    confirm_url = confirm_url.replace("ID", started["id"])
    code = code.replace("CODE", idenfy_sandbox.code_for(NUMBER))
    confirmed = api.post(confirm_url, code, content_type="application/json").json()
    assert confirmed["is_verified"] is True

def test_session_needs_csrf_token(idenfy_sandbox, django_user_model, rf):
    api = APIClient(enforce_csrf_checks=True)
    api.force_login(django_user_model.objects.create_user("ona"))
    body, token = {"phone_number": NUMBER}, get_token(rf.get("/"))
    assert api.post("/phone/start/", body, format="json").status_code == 403
    api.cookies["csrftoken"] = token
    started = api.post("/phone/start/", body, format="json", HTTP_X_CSRFTOKEN=token)
    assert started.status_code == 202

def test_number_changes_once_by_password_and_the_owner_is_told(
    client, idenfy_sandbox, django_user_model, mailoutbox
):
    user = django_user_model.objects.create_user("ona", "ona@example.com", "right")
    client.force_login(user)
    body = {"phone_number": NUMBER}
    started = client.post("/number/start/", body, "application/json")
    form = {"phone": started.json()["id"], "password": "right"}
    assert "confirm your phone number" in client.post("/number/", form).text
    code = {"code": idenfy_sandbox.code_for(NUMBER)}
    client.post(started["Location"] + "confirm/", code, "application/json")
    wrong = form | {"password": "wrong"}
    assert "This password is wrong" in client.post("/number/", wrong).text
    assert django_user_model.objects.get().phone_number is None
    assert client.post("/number/", form).status_code == 302
    assert django_user_model.objects.get().phone_number == NUMBER
    assert client.post("/number/", form).status_code == 200
    assert [mail.to for mail in mailoutbox] == [["ona@example.com"]]

def test_plain_forms_verify_a_number(client, idenfy_sandbox, django_user_model):
    client.force_login(django_user_model.objects.create_user("ona"))
    assert client.get("/verify/code/")["Location"] == "/verify/"
    wrong = client.post("/verify/", {"phone_number": "1"})
    assert "Enter a mobile phone number" in wrong.text
    started = client.post("/verify/", {"phone_number": NUMBER})
    assert (started.status_code, started["Location"]) == (302, "/verify/code/")
    right = idenfy_sandbox.code_for(NUMBER)
    other = "0000" if right != "0000" else "1111"
    assert "This code is wrong" in client.post("/verify/code/", {"code": other}).text
    assert "4 digits" in client.post("/verify/code/", {"code": "1"}).text
    assert client.post("/verify/code/", {"code": right})["Location"] == "/"
    assert django_user_model.objects.get().phone_number == NUMBER
    assert client.get("/verify/code/")["Location"] == "/"

def test_error_reports_leave_the_proof_out(rf):
    request = rf.post("/number/", {"phone": "a token", "password": "right"})
    request.user = AnonymousUser()
    change_number(request)
    posted = str(SafeExceptionReporterFilter().get_post_parameters(request))
    assert "a token" not in posted and "right" not in posted

def test_number_of_another_account_is_taken(api, idenfy_sandbox, django_user_model):
    django_user_model.objects.create_user("rasa", phone_number=NUMBER)
    django_user_model.objects.update(phone_confirmed_at=timezone.now())
    api.force_authenticate(django_user_model.objects.create_user("ona"))
    started = api.post("/phone/start/", {"phone_number": NUMBER}, format="json")
    taken = confirm(api, idenfy_sandbox, started)
    assert (taken.status_code, taken.json()["code"]) == (409, "number_taken")
    assert api.get(started["Location"]).json()["failure"] == "number_taken"

def test_own_fields_hold_a_number(idenfy_sandbox, django_user_model):
    member = Member.objects.create(user=django_user_model.objects.create_user("ona"))
    row = services.start_verification(NUMBER, user=member.user, purpose="member")
    code = idenfy_sandbox.code_for(NUMBER)
    row = services.confirm_verification(row.pk, code, user=member.user)
    assert keep_number(member, row) is True
    member.refresh_from_db()
    assert (member.mobile, member.mobile_confirmed_at) == (NUMBER, row.verified_at)

def test_owner_who_loses_a_number_is_told(
    django_user_model, mailoutbox, django_capture_on_commit_callbacks
):
    owner = django_user_model.objects.create_user(
        "ona", "ona@example.com", phone_number=NUMBER
    )
    with django_capture_on_commit_callbacks(execute=True):
        release_number(owner)
    assert [mail.to for mail in mailoutbox] == [["ona@example.com"]]

def test_links_lead_to_views():
    row = SimpleNamespace(pk="1b4e28ba-2fa1-4d2f-883f-0016d3cca427")
    page = Template(os.environ["LINKS"]).render(Context({"verification": row}))
    assert page.split() == ["/phone/start/", f"/phone/{row.pk}/"]
    assert confirm_url(row) == f"/phone/{row.pk}/confirm/"

def test_celery_app_reads_the_settings():
    current = current_app.main, current_app.conf.broker_url
    assert current == ("project", "memory://")

def test_development_settings_are_those_of_the_sandbox(settings):
    from django_idenfy_phone.management.commands import idenfy_phone_sandbox as module
    parser = module.Command().create_parser("manage.py", "idenfy_phone_sandbox")
    port = parser.parse_args([]).port
    pair = settings.IDENFY_PHONE_API_KEY, settings.IDENFY_PHONE_API_SECRET
    assert settings.IDENFY_PHONE_API_URL == f"http://127.0.0.1:{port}"
    assert pair == (module.DEMO_KEY, module.DEMO_SECRET)

def test_client_network_is_stored(api, idenfy_sandbox, django_user_model):
    api.force_authenticate(django_user_model.objects.create_user("ona"))
    body = {"phone_number": NUMBER}
    headers = {"HTTP_CF_CONNECTING_IP": "8.8.8.8", "HTTP_X_CAPTCHA": "right"}
    api.post("/phone/start/", body, format="json", **headers)
    assert PhoneVerification.objects.get().network == "8.8.8.8"

def test_beat_schedule_names_all_periodic_tasks(settings):
    from django_idenfy_phone import tasks
    names = [entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()]
    assert names == [tasks.sweep.name, tasks.purge.name]

def test_every_module_can_be_imported():
    for name in os.environ["MODULES"].split():
        importlib.import_module(name)

def test_report_prints_the_figures(api, idenfy_sandbox, django_user_model, capsys):
    api.force_authenticate(django_user_model.objects.create_user("ona"))
    body = {"phone_number": NUMBER}
    confirm(api, idenfy_sandbox, api.post("/phone/start/", body, format="json"))
    api.post("/phone/start/", {"phone_number": "+493012345678"}, format="json")
    call_command("idenfy_phone_sweep")
    print_week()
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == ["1 1 1 1", "0 0", "LT 1 0", "1.0"]
    assert lines[4:7] == ["DE 0 1", "None", "1"]
    assert lines[7].count("0:00:0") == 2

def test_person_is_erased(idenfy_sandbox, django_user_model):
    user, other = map(django_user_model.objects.create_user, ["ona", "rasa"])
    services.start_verification(NUMBER, user=user)
    services.start_verification("+37060012346", user=other)
    erase_person(user, ["+37060012346"])
    rows = PhoneVerification.objects.all()
    assert [(row.user_id, bool(row.erased_at)) for row in rows] == [(None, True)] * 2

def test_user_links_to_the_attempts(admin_client, admin_user):
    page = admin_client.get(f"/admin/accounts/user/{admin_user.pk}/change/")
    assert f"phoneverification/?user={admin_user.pk}" in page.text

@pytest.mark.parametrize("site", ["admin", "support"])
def test_site_shows_the_log(admin_client, site):
    page = admin_client.get(f"/{site}/django_idenfy_phone/phoneverification/")
    assert f"/{site}/django_idenfy_phone/phoneverification/summary/" in page.text

def test_theme_is_combined_with_our_admin():
    assert isinstance(admin.site.get_model_admin(PhoneVerification), ModelAdmin)
""",
}


@pytest.fixture
def project(tmp_path):
    files = dict(HOST_FILES)
    for snippet in snippets("python"):
        name = snippet.splitlines()[0].removeprefix("# ")
        if name in ("settings.py", "urls.py"):
            name = f"project/{name}"
        # Without a name it would be run by nobody.
        assert re.fullmatch(r"(\w+/)?\w+\.py", name)
        files[name] = files.get(name, "") + snippet + "\n"
    for name, text in COMPLETION.items():
        files[name] = files.get(name, "") + text
    write_files(tmp_path, files)
    return tmp_path


def modules_of(project):
    """The name of each module that snippets are in."""
    names = [each.splitlines()[0].removeprefix("# ") for each in snippets("python")]
    files = {name for name in names if (project / name).exists()}
    return sorted(name.removesuffix(".py").replace("/", ".") for name in files)


def shown_answers():
    return [
        json.loads(re.search(r"^\{\n.*^\}", block, re.DOTALL | re.MULTILINE)[0])
        for block in snippets("http")
        if block.startswith("HTTP/")
    ]


def shown_calls():
    """The path and the body of each curl command."""
    call = r"127\.0\.0\.1:8000(\S+)[\s\\]+--json '(.+)'"
    return re.findall(call, "".join(snippets("console")))


def test_project_made_of_snippets_works(project):
    result = run_module(
        project,
        *("pytest", "-q", "-p", "no:cacheprovider"),
        DJANGO_SETTINGS_MODULE="project.settings",
        ANSWERS=json.dumps(shown_answers()),
        CALLS=json.dumps(shown_calls()),
        LINKS="".join(snippets(r"html\+django")),
        MODULES=" ".join(modules_of(project)),
    )
    assert result.returncode == 0, result.stdout
    assert "29 passed" in result.stdout


def check(project):
    return run_module(
        project,
        *("django", "check", "--fail-level", "WARNING"),
        DJANGO_SETTINGS_MODULE="project.settings",
    )


def test_snippets_pass_system_checks(project):
    result = check(project)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr


def test_production_needs_a_key_pair(project):
    settings = project / "project" / "settings.py"
    settings.write_text(settings.read_text().replace("DEBUG = True", "DEBUG = False"))
    result = check(project)
    assert "W001" in result.stderr
    assert result.stderr.count("django_idenfy_phone.") == 1


def test_host_with_rest_framework_leaves_one_line_out(project):
    settings = project / "project" / "settings.py"
    lines = settings.read_text().splitlines()
    [ours] = [line for line in lines if "leave this line out" in line]
    lines[lines.index(ours)] = ours.partition("#")[0]
    settings.write_text("\n".join(lines))
    assert check(project).returncode == 0
    settings.write_text("\n".join([*lines, ours]))
    assert "duplicates: rest_framework" in check(project).stderr
