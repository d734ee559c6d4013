"""What the example tells people, without a browser."""

from support.example_site import run_in_example

# A page of the code tells some by its state.
CODES_WITHOUT_A_SENTENCE = """
import django
django.setup()
from accounts import texts
from accounts.views.steps import TOLD_BY_STATE
from django_idenfy_phone import exceptions
from rest_framework import exceptions as rest

errors = {each for each in vars(exceptions).values() if isinstance(each, type)}
codes = {getattr(each, "code", "") for each in errors} - {""}
codes |= {each.default_code for each in (
    rest.NotAuthenticated, rest.AuthenticationFailed, rest.PermissionDenied,
    rest.Throttled,
)}
print(sorted(codes - set(texts.errors()) - TOLD_BY_STATE))
"""

# Each unit, one of it and more, and the last moment before the next unit.
WAITS = [
    (None, "later", "später", "vėliau"),
    (0, "in 1 second", "in 1 Sekunde", "po 1 sekundės"),
    (0.2, "in 1 second", "in 1 Sekunde", "po 1 sekundės"),
    (2, "in 2 seconds", "in 2 Sekunden", "po 2 sekundžių"),
    (58.1, "in 59 seconds", "in 59 Sekunden", "po 59 sekundžių"),
    (59.1, "in 1 minute", "in 1 Minute", "po 1 minutės"),
    (60.1, "in 2 minutes", "in 2 Minuten", "po 2 minučių"),
    (3540, "in 59 minutes", "in 59 Minuten", "po 59 minučių"),
    (3541, "in 1 hour", "in 1 Stunde", "po 1 valandos"),
    (3601, "in 2 hours", "in 2 Stunden", "po 2 valandų"),
    (82800, "in 23 hours", "in 23 Stunden", "po 23 valandų"),
    (82801, "in 1 day", "in 1 Tag", "po 1 dienos"),
    (86401, "in 2 days", "in 2 Tagen", "po 2 dienų"),
]
TELL_WAITS = f"""
import django
django.setup()
from accounts.texts import in_time
from django.utils.translation import override

for seconds in {[seconds for seconds, *_ in WAITS]}:
    for language in ("en", "de", "lt"):
        with override(language):
            print(in_time(seconds))
"""

# Each line: how many queries it took, and what people are told.
USUAL_TIMES = """
from datetime import timedelta
import django
django.setup()
from accounts.texts import usual_time
from django.core.cache import cache
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.translation import override
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.testing import verify_number

def tell():
    with CaptureQueriesContext(connection) as queries:
        text = usual_time()
    print(len(queries), text)

def prove(number, seconds):
    row = verify_number(None, number)
    verified_at = row.sent_at + timedelta(seconds=seconds)
    PhoneVerification.objects.filter(pk=row.pk).update(verified_at=verified_at)
    cache.clear()

call_command("migrate", verbosity=0)
for number, seconds in enumerate([30, 1000, 36.2, 900]):
    prove(f"+3706123450{number}", seconds)
tell()
prove("+37061234504", 1)
tell()
with override("lt"):
    tell()
for number in (5, 6):
    prove(f"+3706123450{number}", 61)
tell()
"""

# The answers to a form and to the script whose start the host's guard refused.
GUARDED = """
import django
django.setup()
from accounts.texts import ERRORS
from django.core.management import call_command
from django.test import Client, override_settings
from rest_framework.exceptions import PermissionDenied

def guard(request, phone_number):
    raise PermissionDenied("Not solved.", code="captcha")

call_command("migrate", verbosity=0)
ERRORS["captcha"] = "Please solve the captcha."
body = {
    "email": "ona@example.com", "password": "correct horse",
    "country": "LT", "phone_number": "+37061234567",
}
with override_settings(IDENFY_PHONE_START_GUARD=guard):
    client = Client(headers={"host": "localhost"})
    page = client.post("/sign-up/", body)
    print(page.status_code, ERRORS["captcha"] in page.content.decode())
    answer = client.post("/sign-up/", body, headers={"accept": "application/json"})
    print(answer.status_code, answer.json())
"""
FRENCH_COUNTRIES = """
import django
django.setup()
from accounts.countries import supported_countries
from django.test import override_settings
from django.utils.translation import override

with override("fr"), override_settings(IDENFY_PHONE_REGIONS=["GB", "US", "EE", "LV"]):
    print([country.name for country in supported_countries()])
"""

# What a poll answers that was on its way while the session's key changed.
LATE_POLL = """
import django
django.setup()
from django.core.management import call_command
from django.test import Client

call_command("migrate", verbosity=0)
client = Client(headers={"host": "localhost"})
client.cookies["sessionid"] = "of-before-the-login"
answer = client.get("/sign-up/status/")
print(answer.status_code, "sessionid" in answer.cookies)
"""


def test_each_error_of_the_app_has_a_sentence(tmp_path):
    assert run_in_example(CODES_WITHOUT_A_SENTENCE, tmp_path) == [
        "['inside_transaction']"
    ]


def test_waits_are_told_in_units_rounded_up(tmp_path):
    told = [text for _, *texts in WAITS for text in texts]
    assert run_in_example(TELL_WAITS, tmp_path) == told


def test_usual_time_is_told_after_five_proofs_and_read_once(tmp_path):
    told = "Of the people who entered their code lately, half did so within"
    assert run_in_example(USUAL_TIMES, tmp_path) == [
        "1 ",
        f"1 {told} 37 seconds.",
        "0 Pusė neseniai kodą įvedusių žmonių tai padarė per 37 sekundes.",
        f"1 {told} 2 minutes.",
    ]


def test_start_that_a_guard_refused_is_told(tmp_path):
    told = {"detail": "Please solve the captcha.", "code": "captcha"}
    assert run_in_example(GUARDED, tmp_path) == ["200 True", f"409 {told}"]


def test_accents_sort_with_their_letters(tmp_path):
    names = ["Estonie", "États-Unis", "Lettonie", "Royaume-Uni"]
    assert run_in_example(FRENCH_COUNTRIES, tmp_path) == [str(names)]


def test_late_poll_logs_nobody_out(tmp_path):
    assert run_in_example(LATE_POLL, tmp_path) == ["404 False"]
