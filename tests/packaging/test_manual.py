"""What README.rst and the manual name is there, and what is there is named."""

import inspect
import json
import re
import tomllib
from configparser import ConfigParser
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission
from django.core.management import call_command, load_command_class
from django.dispatch import Signal
from django.utils import timezone
from docutils.core import publish_doctree
from rest_framework import exceptions as rest

from django_idenfy_phone import checks, services, signals, testing, urls
from django_idenfy_phone.admin.summary import REFUSALS
from django_idenfy_phone.api import views
from django_idenfy_phone.api.errors import STATUS
from django_idenfy_phone.api.parsers import BodyTooLarge
from django_idenfy_phone.api.serializers import OTHER_FAILURE, PUBLIC_FAILURES
from django_idenfy_phone.brake import BRAKE
from django_idenfy_phone.conf import (
    DEFAULT_BRAKE,
    DEFAULT_SEND_LIMITS,
    DEFAULT_SEND_RATE,
    PREFIX,
    Settings,
    conf,
)
from django_idenfy_phone.events import Event
from django_idenfy_phone.exceptions import NumberNotSupported, NumberTaken
from django_idenfy_phone.health import Trouble
from django_idenfy_phone.limits import COOLDOWN
from django_idenfy_phone.ownership_checks import EXISTENCE, FIELD_RULES
from django_idenfy_phone.records import Heartbeat, Tally
from django_idenfy_phone.sandbox.scenarios import SCENARIOS
from django_idenfy_phone.statuses import Failure, Status
from django_idenfy_phone.tallies import GUARD, UNAVAILABLE
from django_idenfy_phone.testing import age
from support.manual import MANUAL, PAGES, README, ROOT, snippets

PACKAGE = Path(checks.__file__).parent
# Those that ``settle`` logs by the status of the row.
SETTLED = {Event.EXPIRED}
SETTINGS = {name for name in dir(Settings) if name.isupper()}
# What REST framework answers, beside our own errors.
REST = [
    *(rest.ParseError, rest.NotAuthenticated, rest.AuthenticationFailed),
    *(rest.PermissionDenied, rest.MethodNotAllowed, rest.NotAcceptable),
    *(rest.UnsupportedMediaType, rest.Throttled, BodyTooLarge),
]


def found(pattern, text=MANUAL):
    """All that the pattern's group finds, each once."""
    return set(re.findall(pattern, text, re.MULTILINE))


def test_readme_is_valid_rst():
    publish_doctree(README, settings_overrides={"halt_level": 2})


@pytest.mark.parametrize("name", ["README", *PAGES])
def test_titles_stand_alone(name):
    """A title right below a line of text would become a part of it, silently."""
    text = README if name == "README" else PAGES[name]
    assert re.findall(r"^[^\s=].*\n(\w.*)\n(?:=+|-+)$", text, re.MULTILINE) == []


def test_readme_links_to_every_page_and_file():
    linked = found("<((?:docs/)?[\\w.-]+\\.(?:rst|md))>", README)
    pages = {f"docs/{name}.rst" for name in PAGES.keys() - WITHOUT_LINK}
    assert linked == pages | {"CHANGELOG.rst", "CONTRIBUTING.rst", "SECURITY.md"}


# The index lists them; README links to what two of them include.
WITHOUT_LINK = {"index", "changes", "contributing"}


def test_every_snippet_is_in_a_language_that_a_test_reads():
    tested = {"python", "console", "http", "text", "html+django", "po"}
    assert found("^ *\\.\\. code-block:: *(.*)$") == tested
    for language in tested:
        blocks = len(re.findall(rf"code-block:: {re.escape(language)}$", MANUAL, re.M))
        assert len(snippets(re.escape(language))) == blocks


def test_every_setting_has_one_heading():
    lines = re.findall(rf"^(``{PREFIX}.*)$", PAGES["settings"], re.MULTILINE)
    described = re.findall(rf"``{PREFIX}(\w+)``", "\n".join(lines))
    assert sorted(described) == sorted(SETTINGS)


def test_shown_defaults_are_those_of_the_code(settings):
    pattern = rf"^``{PREFIX}(\w+)``\n    Default ``(.+?)``"
    shown = dict(re.findall(pattern, PAGES["settings"], re.MULTILINE))
    assert shown.keys() == SETTINGS - {"API_KEY", "API_SECRET", "SEND_LIMITS"}
    for name in filter(lambda name: hasattr(settings, PREFIX + name), SETTINGS):
        delattr(settings, PREFIX + name)
    defaults = {name: getattr(conf, name) for name in shown}
    defaults |= {"SEND_RATE": DEFAULT_SEND_RATE, "BRAKE": DEFAULT_BRAKE}
    assert {
        n: eval(text, {"timedelta": timedelta}) for n, text in shown.items()
    } == defaults


def test_number_types_are_those_of_the_setting():
    text = PAGES["settings"].partition("NUMBER_TYPES``")[2].partition("\n\n")[0]
    assert found('``"([\\w-]+)"``', text) == checks.KNOWN_TYPES


def test_modules_that_the_manual_imports_are_public():
    text = PAGES["upgrading"].partition(f"``{PACKAGE.name}``:")[2].partition("\n\n")[0]
    public = found("``([\\w.]+)``", text)
    recipes = (ROOT / "tests" / "hosts" / "recipes").rglob("*.py")
    code = "\n".join([*snippets("python"), *(each.read_text() for each in recipes)])
    lines = re.findall(rf"^from {PACKAGE.name}(\S*) import (.+)$", code, re.MULTILINE)
    for module, names in lines:
        assert {module[1:]} <= public or {*names.split(", ")} <= public
    assert all(find_spec(f"{PACKAGE.name}.{name}") for name in public)


def test_every_setting_that_is_named_exists():
    assert found(rf"{PREFIX}(\w+)") == SETTINGS


def test_error_codes_are_those_of_the_table():
    table = PAGES["api"].partition("Status Code ")[2].split("\n======")[1]
    shown = found("``(\\w+)``", "".join(line[7:35] for line in table.splitlines()))
    codes = {error.code for error in STATUS} | {each.default_code for each in REST}
    fields = {"number_not_supported", "invalid_code"}
    assert "the code ``number_not_supported`` or ``invalid_code``" in PAGES["api"]
    assert shown | fields == codes


def test_statuses_and_failures_are_named():
    table = PAGES["how-it-works"].partition("Transitions\n")[0]
    assert found("^``(\\w+)`` ", table) == set(Status.values)
    public = {*PUBLIC_FAILURES.values(), OTHER_FAILURE, NumberTaken.code}
    assert found("^\\* ``(\\w+)``: ", PAGES["api"]) == public
    assert [each for each in Failure if f"``{each}``" not in PAGES["running"]] == []


def test_check_ids_are_those_of_the_table():
    text = "".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.py"))
    rules = (*checks.RULES, *checks.ACCOUNT_RULES, EXISTENCE, *FIELD_RULES)
    ids = {f"E{rule.number:03}" for rule in rules}
    ids |= found(r'[e}]\.([EW]\d{3})"', text)
    for kind, number in re.findall(r"_(warning|error)\(\s*(\d+),", text):
        ids.add(f"{kind[0].upper()}{int(number):03}")
    assert found("^``([EW]\\d{3})`` ", PAGES["settings"]) == ids
    assert found(r"``([EW]\d{3})``") <= ids


def test_signals_are_those_of_the_page():
    ours = {n for n, each in vars(signals).items() if isinstance(each, Signal)}
    assert found(r"^``django_idenfy_phone\.signals\.(\w+)\(", PAGES["signals"]) == ours


def test_events_are_those_of_the_page():
    assert first_column("Event          When") == set(Event)
    text = "".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.py"))
    logged = {Event[name] for name in found(r"Event\.(\w+)[,)]", text)}
    assert logged | SETTLED == set(Event)


def test_tallies_are_those_of_the_page():
    assert first_column("Name         Counts") == set(Tally.Name)


def test_reasons_of_refusals_are_those_of_the_page():
    rows = PAGES["monitoring"].partition("Reason                   Why")[2]
    first = [line[:25] for line in rows.split("\n\n")[0].splitlines()]
    reasons = {NumberNotSupported.code, COOLDOWN, GUARD, UNAVAILABLE, BRAKE}
    assert found("``(\\w+)``", "\n".join(first)) == reasons | {*DEFAULT_SEND_LIMITS}
    assert REFUSALS.keys() == reasons | {*DEFAULT_SEND_LIMITS}


def signature(function):
    """As the manual writes it: without types."""
    given = inspect.signature(function)
    bare = [each.replace(annotation=each.empty) for each in given.parameters.values()]
    plain = given.replace(parameters=bare, return_annotation=given.empty)
    return str(plain).replace("'", '"')


def test_services_are_those_of_the_manual():
    functions = inspect.getmembers(services, inspect.isfunction)
    ours = {
        f"{name}{signature(each)}"
        for name, each in functions
        if each.__module__ == services.__name__ and not name.startswith("_")
    }
    assert found(r"^``services\.(\w+\(.*\))``$", PAGES["api"]) == ours
    assert found(r"services\.(\w+)\(") <= set(dir(services))


def test_routes_are_those_of_the_table():
    routes = re.findall(r"^``(\w+)`` +``(\S+)`` +``(\w+)``$", PAGES["api"], re.M)
    shown = [(name, route, getattr(views, view)) for name, route, view in routes]
    assert shown == [
        (
            each.name,
            str(each.pattern).replace("str:verification_", ""),
            each.callback.cls,
        )
        for each in urls.urlpatterns
    ]


def test_testing_kit_is_that_of_the_page():
    functions = inspect.getmembers(testing, inspect.isfunction)
    ours = {name for name, each in functions if each.__module__ == testing.__name__}
    ours = {name for name in ours if not name.startswith("_")}
    assert found(r"^``testing\.(\w+)\(", PAGES["testing"]) == ours
    public = {name for name in vars(testing.Sandbox) if not name.startswith("_")}
    assert found(r"^``sandbox\.(\w+)", PAGES["testing"]) == public - {"settings"}


def test_magic_numbers_are_those_of_the_sandbox():
    pattern = r"^``(\+1202555\d{4})``\n((?:    .*\n)+)"
    shown = re.findall(pattern, PAGES["testing"], re.MULTILINE)
    assert [(number, " ".join(text.split())) for number, text in shown] == [
        (number, each.description) for number, each in SCENARIOS.items()
    ]


def test_default_limits_match_table():
    for kind, limits in DEFAULT_SEND_LIMITS.items():
        row = rf"^``{kind}`` +{', '.join(limits)} "
        assert re.search(row, PAGES["limits"], re.MULTILINE)


def test_manual_names_exactly_our_commands():
    folder = PACKAGE / "management" / "commands"
    ours = {path.stem for path in folder.glob("idenfy_phone_*.py")}
    assert found(r"manage\.py\s+(idenfy_phone_\w+)") == ours
    assert found(r"(idenfy_phone_\w+)") - {"idenfy_phone_sandbox"} <= ours


def test_environments_of_tox_exist():
    tox = ConfigParser()
    tox.read(ROOT / "tox.ini")
    named = found(r"tox\s+run -e (\w+)")
    assert {name for name in named if f"testenv:{name}" not in tox} == set()


def test_extras_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = found(r"django-idenfy-phone\[(\w+)\]")
    assert extras == set(project["optional-dependencies"])


def shown_commands():
    lines = "\n".join(snippets("console")).splitlines()
    commands = [line.partition("  #")[0].split("manage.py ")[-1] for line in lines]
    return [line.split() for line in commands if line.startswith("idenfy_phone_")]


@pytest.mark.parametrize("words", shown_commands(), ids=" ".join)
def test_shown_command_accepts_its_options(words):
    name, *options = words
    command = load_command_class("django_idenfy_phone", name)
    command.create_parser("manage.py", name).parse_args(options)


def first_column(title):
    """The names in the first column of the table whose header begins so."""
    table = MANUAL.partition(title)[2].split("\n\n")[0]
    return found(r"^``(\w+)`` ", table)


@pytest.mark.django_db
def test_permissions_are_those_of_the_table():
    ours = Permission.objects.filter(content_type__app_label="django_idenfy_phone")
    names = set(ours.values_list("codename", flat=True))
    assert first_column("Permission                     Allows") == names


@pytest.mark.django_db
def test_keys_of_status_are_those_of_the_table(capsys):
    with pytest.raises(SystemExit):
        call_command("idenfy_phone_status", "--json")
    assert first_column("Key                   Value") == set(
        json.loads(capsys.readouterr().out)
    )
    assert first_column("Trouble       What it means") == set(Trouble.values)


@pytest.mark.django_db
@pytest.mark.usefixtures("wire")
def test_shown_status_matches_output(make, clock, capsys):
    for _ in range(2):
        age(make("queued"), timedelta(seconds=95))
    make("verified", announced_at=timezone.now())
    for name, seconds in (("sweep", 12), ("delivery", 110)):
        beat_at = timezone.now() - timedelta(seconds=seconds)
        Heartbeat.objects.create(name=name, beat_at=beat_at)
    with pytest.raises(SystemExit):
        call_command("idenfy_phone_status")
    [shown] = snippets("text")
    printed = capsys.readouterr().out
    assert printed.rstrip() == shown.rstrip().replace("verified: 41", "verified: 1")
