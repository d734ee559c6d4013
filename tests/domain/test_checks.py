"""Each wrong setting gives one message with its own id and without its value."""

import os
import sqlite3
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta

import phonenumbers
import pytest
from django.core.checks import ERROR, WARNING, Tags, run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connections
from django.utils import timezone
from phonenumbers import PhoneNumberType

from django_idenfy_phone import checks, phone
from django_idenfy_phone.conf import DEFAULT_SEND_LIMITS, PREFIX, Settings, conf

pytestmark = pytest.mark.usefixtures("account")
# No message of a check may contain it.
SECRET = "5up3r-s3cr3t"


def run_own_checks(*, deploy=False, tags=None):
    messages = run_checks(include_deployment_checks=deploy, tags=tags)
    return [each for each in messages if each.id.startswith("django_idenfy_phone.")]


def found_ids(**kwargs):
    return [
        each.id.removeprefix("django_idenfy_phone.")
        for each in run_own_checks(**kwargs)
    ]


def test_good_project_gets_no_message():
    assert found_ids(deploy=True) == []


BAD = [
    ("E001", "API_URL", "http://ivs.idenfy.com"),
    ("E001", "API_URL", "http://localhost.example.com"),
    ("E001", "API_URL", "http://127.0.0.1.example.com"),
    ("E001", "API_URL", "http://10.0.0.1"),
    ("E001", "API_URL", "http://[::2]"),
    ("E001", "API_URL", "https://user:5up3r-s3cr3t@ivs.idenfy.com"),
    ("E001", "API_URL", "https://@ivs.idenfy.com"),
    ("E001", "API_URL", "http://localhost@example.com"),
    ("E001", "API_URL", "https://ivs.idenfy.com/?key=5up3r-s3cr3t"),
    ("E001", "API_URL", "https://ivs.idenfy.com?"),
    ("E001", "API_URL", "https://ivs.idenfy.com/fraud/send-sms"),
    ("E001", "API_URL", "https://ivs.idenfy.com/.."),
    ("E001", "API_URL", "https://ivs.idenfy.com#part"),
    ("E001", "API_URL", "file:///etc/passwd"),
    ("E001", "API_URL", "file://localhost"),
    ("E001", "API_URL", "ftp://ivs.idenfy.com"),
    ("E001", "API_URL", "javascript:alert(1)"),
    ("E001", "API_URL", "ivs.idenfy.com"),
    ("E001", "API_URL", "//ivs.idenfy.com"),
    ("E001", "API_URL", "https://"),
    ("E001", "API_URL", "https:///ivs.idenfy.com"),
    ("E001", "API_URL", "https://:443"),
    ("E001", "API_URL", "https://ivs.idenfy.com:port"),
    ("E001", "API_URL", "https://ivs.idenfy.com:99999"),
    ("E001", "API_URL", "https://[::1"),
    ("E001", "API_URL", "https://ivs.idenfy.com\n"),
    ("E001", "API_URL", " https://ivs.idenfy.com"),
    ("E001", "API_URL", "https://ivs idenfy.com"),
    ("E001", "API_URL", "https://ivs.idénfy.com"),
    ("E001", "API_URL", ""),
    ("E001", "API_URL", None),
    ("E001", "API_URL", b"https://ivs.idenfy.com"),
    ("E002", "API_KEY", "5up3r s3cr3t"),
    ("E002", "API_KEY", "5up3r-s3cr3t\n"),
    ("E002", "API_KEY", "5up3r\r\nX-Evil: s3cr3t"),
    ("E002", "API_KEY", "5up3r-s3cr3t\t"),
    ("E002", "API_KEY", "5up3r-s3cr3t\0"),
    ("E002", "API_KEY", "5up3r-s3cr3t\xe9"),
    ("E002", "API_KEY", b"5up3r-s3cr3t"),
    ("E002", "API_KEY", 12345),
    ("E003", "API_SECRET", "5up3r s3cr3t"),
    ("E003", "API_SECRET", " 5up3r-s3cr3t"),
    ("E003", "API_SECRET", "5up3r-s3cr3t\n"),
    ("E003", "API_SECRET", "\u201c5up3r-s3cr3t\u201d"),
    ("E003", "API_SECRET", ["5up3r-s3cr3t"]),
    ("E005", "SENDER_NAME", "TwelveLetter"),
    ("E005", "SENDER_NAME", ""),
    ("E005", "SENDER_NAME", " Bank"),
    ("E005", "SENDER_NAME", "Bank "),
    ("E005", "SENDER_NAME", "Bank\n"),
    ("E005", "SENDER_NAME", "Ba\0nk"),
    ("E005", "SENDER_NAME", "B\xe4nk"),
    ("E005", "SENDER_NAME", "Bank\u200b"),
    ("E005", "SENDER_NAME", 12345),
    ("E006", "REGIONS", []),
    ("E006", "REGIONS", "LT"),
    ("E006", "REGIONS", ["lt"]),
    ("E006", "REGIONS", ["LT", "UK"]),
    ("E006", "REGIONS", ["LTU"]),
    ("E006", "REGIONS", ["001"]),
    ("E006", "REGIONS", ["+370"]),
    ("E006", "REGIONS", [370]),
    ("E006", "REGIONS", [["LT"]]),
    ("E006", "REGIONS", {"LT": True}),
    ("E006", "REGIONS", 370),
    ("E006", "REGIONS", b"LT"),
    ("E007", "NUMBER_TYPES", None),
    ("E007", "NUMBER_TYPES", []),
    ("E007", "NUMBER_TYPES", "mobile"),
    ("E007", "NUMBER_TYPES", ["MOBILE"]),
    ("E007", "NUMBER_TYPES", ["cell"]),
    ("E007", "NUMBER_TYPES", ["unknown"]),
    ("E007", "NUMBER_TYPES", [1]),
    ("E008", "CODE_LIFETIME", timedelta(0)),
    ("E008", "CODE_LIFETIME", timedelta(minutes=-10)),
    ("E008", "CODE_LIFETIME", timedelta(days=1, seconds=1)),
    ("E008", "CODE_LIFETIME", 600),
    ("E008", "CODE_LIFETIME", "10 minutes"),
    ("E008", "CODE_LIFETIME", None),
    ("E009", "MAX_CHECKS", 0),
    ("E009", "MAX_CHECKS", -1),
    ("E009", "MAX_CHECKS", 11),
    ("E009", "MAX_CHECKS", 3.0),
    ("E009", "MAX_CHECKS", "3"),
    ("E009", "MAX_CHECKS", True),
    ("E009", "MAX_CHECKS", None),
    ("E010", "RESEND_COOLDOWN", ()),
    ("E010", "RESEND_COOLDOWN", 60),
    ("E010", "RESEND_COOLDOWN", "60"),
    ("E010", "RESEND_COOLDOWN", None),
    ("E010", "RESEND_COOLDOWN", (60, -1)),
    ("E010", "RESEND_COOLDOWN", (-1, 60)),
    ("E010", "RESEND_COOLDOWN", (300, 60)),
    ("E010", "RESEND_COOLDOWN", (60, 86401)),
    ("E010", "RESEND_COOLDOWN", (60, 120.0)),
    ("E010", "RESEND_COOLDOWN", ("60", "120")),
    ("E010", "RESEND_COOLDOWN", (True,)),
    ("E010", "RESEND_COOLDOWN", (timedelta(seconds=60),)),
    ("E010", "RESEND_COOLDOWN", {60, 120}),
    ("E011", "SEND_DEADLINE", timedelta(0)),
    ("E011", "SEND_DEADLINE", timedelta(seconds=-1)),
    ("E011", "SEND_DEADLINE", timedelta(days=2)),
    ("E011", "SEND_DEADLINE", 180),
    ("E011", "SEND_DEADLINE", None),
    ("E012", "TIMEOUT", 0),
    ("E012", "TIMEOUT", -1),
    ("E012", "TIMEOUT", 12.5),
    ("E012", "TIMEOUT", float("nan")),
    ("E012", "TIMEOUT", float("inf")),
    ("E012", "TIMEOUT", True),
    ("E012", "TIMEOUT", "8"),
    ("E012", "TIMEOUT", (3, 8)),
    ("E012", "TIMEOUT", None),
    ("E013", "ALLOW_ANONYMOUS", "False"),
    ("E013", "ALLOW_ANONYMOUS", 1),
    ("E013", "ALLOW_ANONYMOUS", None),
    ("E027", "DELIVERY", "beat"),
    ("E027", "DELIVERY", "Sweep"),
    ("E027", "DELIVERY", None),
    ("E027", "DELIVERY", ["sweep"]),
    ("E018", "SEND_RATE", "fast"),
    ("E018", "SEND_RATE", 1),
    ("E018", "SEND_RATE", "0/s"),
    ("E018", "SEND_RATE", "9999999/s"),
    ("E014", "SEND_LIMITS", None),
    ("E014", "SEND_LIMITS", "5/d"),
    ("E014", "SEND_LIMITS", ("5/d",)),
    ("E014", "SEND_LIMITS", {"phone": ("5/d",)}),
    ("E014", "SEND_LIMITS", {1: ("5/d",)}),
    ("E014", "SEND_LIMITS", {"number": None}),
    ("E014", "SEND_LIMITS", {"number": 5}),
    ("E014", "SEND_LIMITS", {"number": "5/d"}),
    ("E014", "SEND_LIMITS", {"number": ("0/d",)}),
    ("E014", "SEND_LIMITS", {"number": ("-5/d",)}),
    ("E014", "SEND_LIMITS", {"number": ("5/0d",)}),
    ("E014", "SEND_LIMITS", {"number": ("5/-1d",)}),
    ("E014", "SEND_LIMITS", {"number": ("5",)}),
    ("E014", "SEND_LIMITS", {"number": ("5/",)}),
    ("E014", "SEND_LIMITS", {"number": ("/d",)}),
    ("E014", "SEND_LIMITS", {"number": ("5/w",)}),
    ("E014", "SEND_LIMITS", {"number": ("5/day",)}),
    ("E014", "SEND_LIMITS", {"number": ("5 / d",)}),
    ("E014", "SEND_LIMITS", {"number": ("5/d\n",)}),
    ("E014", "SEND_LIMITS", {"number": ("1.5/d",)}),
    ("E014", "SEND_LIMITS", {"number": ("\u0665/d",)}),
    ("E014", "SEND_LIMITS", {"number": ("nonsense",)}),
    ("E014", "SEND_LIMITS", {"number": ("5/d", "nonsense")}),
    ("E014", "SEND_LIMITS", {"number": (5,)}),
    ("E014", "SEND_LIMITS", {"number": (None,)}),
    ("E014", "SEND_LIMITS", {"number": (["5/d"],)}),
    ("E030", "BRAKE", "observe"),
    ("E030", "BRAKE", False),
    ("E030", "BRAKE", {"modes": "observe"}),
    ("E030", "BRAKE", {1: "observe"}),
    ("E031", "BRAKE", {"sends": 50}),
    ("E031", "BRAKE", {"sends": None}),
    ("E031", "BRAKE", {"sends": "0/h"}),
    ("E031", "BRAKE", {"sends": "50/25h"}),
    ("E031", "BRAKE", {"sends": "50/3m"}),
    ("E031", "BRAKE", {"sends": ["50/h"]}),
    ("E032", "BRAKE", {"confirmed_below": 0}),
    ("E032", "BRAKE", {"confirmed_below": -0.1}),
    ("E032", "BRAKE", {"confirmed_below": 10}),
    ("E032", "BRAKE", {"confirmed_below": float("nan")}),
    ("E032", "BRAKE", {"confirmed_below": True}),
    ("E032", "BRAKE", {"confirmed_below": "10 %"}),
    ("E033", "BRAKE", {"pause": 3600}),
    ("E033", "BRAKE", {"pause": timedelta(0)}),
    ("E033", "BRAKE", {"pause": timedelta(days=1, seconds=1)}),
    ("E034", "BRAKE", {"mode": "on"}),
    ("E034", "BRAKE", {"mode": True}),
    ("E034", "BRAKE", {"mode": ["observe"]}),
    ("E015", "REDEEM_WITHIN", timedelta(0)),
    ("E015", "REDEEM_WITHIN", timedelta(minutes=-15)),
    ("E015", "REDEEM_WITHIN", timedelta(days=2)),
    ("E015", "REDEEM_WITHIN", 900),
    ("E015", "REDEEM_WITHIN", None),
    ("E028", "RETENTION", 90),
    ("E028", "RETENTION", None),
    ("E028", "RETENTION", "90d"),
    ("E028", "RETENTION", timedelta(0)),
    ("E028", "RETENTION", timedelta(days=-90)),
    ("E028", "RETENTION", timedelta.max),
    # The longest window of the default SEND_LIMITS is 30 days.
    ("E029", "RETENTION", timedelta(days=29)),
    *(
        (check_id, name, value)
        for check_id, name in (("E016", "START_GUARD"), ("E017", "CLIENT_NETWORK"))
        for value in (
            5,
            True,
            ["host.guard"],
            "",
            "guard",
            ".guard",
            "..guard",
            "host.",
            "host.no_such_function",
            "no_such_module.guard",
            "django.conf.ENVIRONMENT_VARIABLE",
        )
    ),
]


@pytest.mark.parametrize(("check_id", "name", "value"), BAD)
def test_wrong_setting_gives_exactly_one_error(settings, check_id, name, value):
    setattr(settings, PREFIX + name, value)
    assert found_ids() == [check_id]


@pytest.mark.parametrize(
    ("check_id", "name"), sorted({(check_id, name) for check_id, name, _ in BAD})
)
def test_error_names_the_setting_but_not_its_value(settings, check_id, name):
    texts = set()
    for value in (value for known, _, value in BAD if known == check_id):
        setattr(settings, PREFIX + name, value)
        (error,) = run_own_checks()
        texts.add((error.level, error.msg, error.hint))
    ((level, message, hint),) = texts
    assert (level, message.split()[0]) == (ERROR, PREFIX + name)
    assert hint


LONG, NONE = {"number": ["100/120d"]}, dict.fromkeys(DEFAULT_SEND_LIMITS, ())


@pytest.mark.parametrize(
    ("limits", "retention", "ids"),
    [
        (LONG, timedelta(days=90), ["E029"]),
        (LONG, timedelta(days=120), []),
        (NONE, timedelta(days=1), []),
        (NONE, timedelta(hours=23), ["E029"]),
        ({"number": ["nonsense"]}, timedelta(hours=1), ["E014"]),
    ],
)
def test_retention_covers_the_longest_window(settings, limits, retention, ids):
    settings.IDENFY_PHONE_SEND_LIMITS = limits
    settings.IDENFY_PHONE_RETENTION = retention
    assert found_ids() == ids


def test_default_retention_is_checked_too(settings):
    settings.IDENFY_PHONE_SEND_LIMITS = LONG
    assert found_ids() == ["E029"]


GOOD = [
    ("API_URL", "https://ivs.idenfy.com"),
    ("API_URL", "https://ivs.idenfy.com/"),
    ("API_URL", "https://ivs.idenfy.com:8443"),
    ("API_URL", "https://[2001:db8::1]:8443"),
    ("API_URL", "http://localhost:8000"),
    ("API_URL", "http://127.0.0.1:8000/"),
    ("API_URL", "http://[::1]:8000"),
    ("API_KEY", "aZ09-_=+/.~!"),
    ("API_SECRET", "aZ09:-_=+/.~!"),
    ("SENDER_NAME", None),
    ("SENDER_NAME", "B"),
    ("SENDER_NAME", "My Bank 123"),
    ("REGIONS", ["LT"]),
    ("REGIONS", ("LT", "GB", "GG")),
    ("REGIONS", {"LT", "GB"}),
    ("REGIONS", frozenset({"LT"})),
    ("REGIONS", phonenumbers.SUPPORTED_REGIONS),
    ("NUMBER_TYPES", ["mobile"]),
    ("NUMBER_TYPES", {"mobile", "fixed-line-or-mobile", "voip"}),
    ("CODE_LIFETIME", timedelta(seconds=1)),
    ("CODE_LIFETIME", timedelta(hours=1)),
    ("MAX_CHECKS", 1),
    ("RETENTION", timedelta(days=30)),
    ("RETENTION", timedelta(days=36_500)),
    ("MAX_CHECKS", 10),
    ("RESEND_COOLDOWN", (60,)),
    ("RESEND_COOLDOWN", [60, 60, 86400]),
    ("SEND_DEADLINE", timedelta(minutes=1)),
    ("TIMEOUT", 12),
    ("TIMEOUT", 0.5),
    ("ALLOW_ANONYMOUS", False),
    ("SEND_LIMITS", {}),
    ("SEND_LIMITS", {"number": ["1/s"], "user": (), "site": ("9999999/2160h", "1/m")}),
    ("BRAKE", None),
    ("BRAKE", {}),
    ("BRAKE", {"mode": "enforce"}),
    ("BRAKE", {"sends": "500/d", "confirmed_below": 1, "pause": timedelta(days=1)}),
    ("REDEEM_WITHIN", timedelta(seconds=1)),
    ("REDEEM_WITHIN", timedelta(days=1)),
    ("START_GUARD", None),
    ("START_GUARD", print),
    ("START_GUARD", "django.utils.timezone.now"),
    ("CLIENT_NETWORK", None),
    ("CLIENT_NETWORK", print),
    ("CLIENT_NETWORK", "django.utils.timezone.now"),
]


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_good_setting_gives_no_message(settings, name, value):
    setattr(settings, PREFIX + name, value)
    assert found_ids(deploy=True) == []


# The account


@pytest.mark.parametrize("name", ["API_KEY", "API_SECRET"])
@pytest.mark.parametrize("value", ["", None])
def test_missing_account_is_a_warning(settings, name, value):
    setattr(settings, PREFIX + name, value)
    assert found_ids() == ["W001"]


@pytest.mark.parametrize("name", ["API_KEY", "API_SECRET"])
@pytest.mark.parametrize("value", ["", None])
def test_missing_account_is_an_error_in_deployment(settings, name, value):
    setattr(settings, PREFIX + name, value)
    assert found_ids(deploy=True) == ["E004"]
    assert found_ids() == ["W001"]
    assert found_ids(deploy=True) == ["E004"]


def test_missing_account_is_printed_once_in_deployment(settings, capsys):
    settings.IDENFY_PHONE_API_KEY = None
    with pytest.raises(SystemCheckError) as caught:
        call_command("check", deploy=True)
    output = f"{caught.value}{''.join(capsys.readouterr())}"
    assert output.count("IDENFY_PHONE_API_KEY") == 1


def test_account_is_no_error_in_deployment_once_it_is_set(settings):
    settings.IDENFY_PHONE_API_KEY = None
    assert found_ids(deploy=True) == ["E004"]
    settings.IDENFY_PHONE_API_KEY = "test-key"
    assert found_ids(deploy=True) == []


def test_unset_account_is_a_warning(settings):
    del settings.IDENFY_PHONE_API_KEY
    del settings.IDENFY_PHONE_API_SECRET
    assert found_ids() == ["W001"]


def test_missing_secret_does_not_print_the_key(settings):
    settings.IDENFY_PHONE_API_KEY = SECRET
    settings.IDENFY_PHONE_API_SECRET = ""
    assert SECRET not in "".join(
        f"{each.msg} {each.hint}" for each in run_own_checks(deploy=True)
    )


# The project


def test_unset_regions_are_a_warning(settings):
    del settings.IDENFY_PHONE_REGIONS
    assert found_ids() == ["W002"]


@pytest.mark.parametrize("name", ["API_KEYS", "API_SECRET_", "REGION", "X", ""])
def test_unknown_setting_is_a_warning(settings, name):
    setattr(settings, PREFIX + name, True)
    assert found_ids() == ["W004"]


def test_unknown_setting_is_printed_without_its_value(settings):
    settings.IDENFY_PHONE_API_SECRETS = SECRET
    (warning,) = run_own_checks()
    assert warning.msg == "IDENFY_PHONE_API_SECRETS is no setting of this app."
    assert warning.level == WARNING
    assert SECRET not in warning.hint


def test_use_tz_off_is_a_warning(settings):
    settings.USE_TZ = False
    assert found_ids() == ["W005"]


@pytest.mark.parametrize("limits", [{}, {"network": ()}, {"network": ("20/h",)}])
def test_anonymous_starts_without_a_guard_are_a_warning(settings, limits):
    settings.IDENFY_PHONE_ALLOW_ANONYMOUS = True
    settings.IDENFY_PHONE_SEND_LIMITS = limits
    assert found_ids() == ["W008"]


@pytest.mark.parametrize("guard", [print, "django.utils.timezone.now"])
def test_guard_avoids_the_anonymous_warning(settings, guard):
    settings.IDENFY_PHONE_ALLOW_ANONYMOUS = True
    settings.IDENFY_PHONE_START_GUARD = guard
    assert found_ids() == []


def test_views_without_an_authentication_class_are_a_warning(settings):
    settings.ROOT_URLCONF = "hosts.without_login"
    assert found_ids() == ["W013", "W013"]
    names = [each.msg.split()[0] for each in run_own_checks()]
    assert names == ["OpenStatusView", "StartView"]


def test_visitors_need_no_authentication_class(settings):
    settings.ROOT_URLCONF = "hosts.without_login"
    settings.IDENFY_PHONE_ALLOW_ANONYMOUS = True
    settings.IDENFY_PHONE_START_GUARD = print
    assert found_ids() == []


def test_project_without_urls_gets_no_message(settings):
    del settings.ROOT_URLCONF
    assert run_own_checks(tags=[Tags.urls]) == []


@pytest.mark.parametrize("region", checks.NEIGHBOURS)
def test_region_without_mobile_numbers_of_its_own_is_a_warning(settings, region):
    settings.IDENFY_PHONE_REGIONS = ["LT", region]
    assert found_ids() == ["W010"]
    (warning,) = run_own_checks()
    assert f"{region} has no mobile numbers" in warning.msg


@pytest.mark.parametrize(("region", "neighbour"), checks.NEIGHBOURS.items())
def test_neighbour_avoids_the_warning_and_has_the_numbers(settings, region, neighbour):
    settings.IDENFY_PHONE_REGIONS = [region, neighbour]
    assert found_ids() == []
    number = phonenumbers.example_number_for_type(region, PhoneNumberType.MOBILE)
    assert number is None or phonenumbers.region_code_for_number(number) == neighbour


@pytest.mark.parametrize(
    "region", sorted(phonenumbers.SUPPORTED_REGIONS - checks.NEIGHBOURS.keys() - {"IM"})
)
def test_other_regions_have_mobile_numbers_of_their_own(region):
    number = phonenumbers.example_number_for_type(region, PhoneNumberType.MOBILE)
    assert phonenumbers.region_code_for_number(number) == region


def test_isle_of_man_has_mobile_numbers_of_its_own(settings):
    settings.IDENFY_PHONE_REGIONS = ["IM"]
    assert phone.parse("+447624123456").region == "IM"
    assert found_ids() == []


def test_region_with_another_type_of_number_gives_no_warning(settings):
    settings.IDENFY_PHONE_REGIONS = ["AX"]
    settings.IDENFY_PHONE_NUMBER_TYPES = ["mobile", "fixed-line"]
    assert found_ids() == []


# SQLite


@pytest.fixture
def sqlite(settings, tmp_path):
    """Route all models to a SQLite database with these OPTIONS; return its path."""

    def sqlite(**options):
        path = tmp_path / "db.sqlite3"
        engine = "django.db.backends.sqlite3"
        connections.settings["other"] = connections.configure_settings(
            {"default": {}, "other": {"ENGINE": engine, "NAME": path}}
        )["other"] | {"OPTIONS": options}
        settings.DATABASE_ROUTERS = [AllInAnotherDatabase()]
        return path

    yield sqlite
    connections.settings.pop("other", None)
    with suppress(AttributeError):
        del connections["other"]


WAL = "PRAGMA foreign_keys=ON; PRAGMA journal_mode = WAL;"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"transaction_mode": "IMMEDIATE"},
        {"init_command": WAL},
        {"transaction_mode": "DEFERRED", "init_command": WAL},
        {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=DELETE"},
        {"transaction_mode": None, "init_command": None, "timeout": 20},
    ],
)
def test_sqlite_without_wal_or_immediate_is_a_warning(sqlite, options):
    sqlite(**options)
    assert found_ids() == ["W009"]


@pytest.mark.parametrize("mode", ["IMMEDIATE", "immediate"])
@pytest.mark.parametrize("wal", [WAL, WAL.lower(), "PRAGMA journal_mode='wal'"])
def test_sqlite_with_wal_and_immediate_gives_no_warning(sqlite, mode, wal):
    sqlite(transaction_mode=mode, init_command=wal)
    assert found_ids() == []


@pytest.mark.parametrize(("journal", "found"), [("WAL", []), ("DELETE", ["W009"])])
def test_sqlite_file_itself_may_say_wal(sqlite, journal, found):
    connection = sqlite3.connect(sqlite(transaction_mode="IMMEDIATE"))
    connection.execute(f"PRAGMA journal_mode={journal}")
    connection.execute("CREATE TABLE any_table (id)")
    connection.close()
    assert found_ids() == found


# Databases


class UsersInAnotherDatabase:
    def db_for_write(self, model, **hints):
        return "users" if model._meta.app_label == "auth" else None


class AllInAnotherDatabase:
    def db_for_write(self, model, **hints):
        return "other"


def test_users_in_another_database_are_an_error(settings):
    settings.DATABASE_ROUTERS = [UsersInAnotherDatabase()]
    assert found_ids() == ["E019"]
    (error,) = run_own_checks()
    assert error.level == ERROR


def test_one_other_database_for_all_gives_no_warning(settings):
    settings.DATABASE_ROUTERS = [AllInAnotherDatabase()]
    assert found_ids() == []


# Celery, in a project that configures no app

WITHOUT_CELERY = """
SECRET_KEY = "only-for-tests"
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.auth", "django.contrib.contenttypes", "django_idenfy_phone",
]
IDENFY_PHONE_API_KEY = IDENFY_PHONE_API_SECRET = "x"
IDENFY_PHONE_REGIONS = ["LT"]
"""


WITHOUT_REDIS = f"""{WITHOUT_CELERY}
import sys
from celery import Celery
sys.modules["redis"] = None
app = Celery("project", broker="redis://:{SECRET}@127.0.0.1")
"""
BY_SWEEP = 'IDENFY_PHONE_DELIVERY = "sweep"'


@pytest.fixture
def check_project(tmp_path):
    """Return what ``django check`` prints, in a new process."""
    for name, text in {
        "without_celery": WITHOUT_CELERY,
        "without_redis": WITHOUT_REDIS,
        "by_sweep": f"{WITHOUT_CELERY}{BY_SWEEP}",
        "by_sweep_without_redis": f"{WITHOUT_REDIS}{BY_SWEEP}",
    }.items():
        (tmp_path / f"{name}.py").write_text(text)
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])

    def check_project(module):
        return subprocess.run(
            [sys.executable, "-m", "django", "check", f"--settings={module}"],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            check=True,
            text=True,
        ).stderr

    return check_project


def test_project_without_a_celery_app_gives_a_warning(check_project):
    output = check_project("without_celery")
    assert "(django_idenfy_phone.W003) No Celery app is configured" in output
    assert output.count("django_idenfy_phone.") == 1


def test_project_with_a_celery_app_gives_no_warning(check_project):
    output = check_project("hosts.project.settings")
    assert "W003" not in output
    assert "W014" not in output


def test_transport_without_its_library_is_a_warning(check_project):
    output = check_project("without_redis")
    text = "The broker's transport, redis, cannot be loaded ("
    assert f"(django_idenfy_phone.W014) {text}" in output
    assert output.count("django_idenfy_phone.") == 1
    assert SECRET not in output


def test_unknown_transport_is_a_warning(celery_app):
    celery_app.point_to("telegraph://127.0.0.1")
    assert found_ids() == ["W014"]


@pytest.mark.parametrize("project", ["by_sweep", "by_sweep_without_redis"])
def test_project_whose_sweep_delivers_needs_no_celery(check_project, project):
    assert check_project(project) == ""


# Settings are read live

NAMES = sorted(name for name in dir(Settings) if name.isupper())


PARSED = {"SEND_LIMITS", "SEND_RATE", "BRAKE"}


@pytest.mark.parametrize("name", sorted(set(NAMES) - PARSED))
def test_override_reaches_every_setting(settings, name):
    value = object()
    setattr(settings, PREFIX + name, value)
    assert getattr(conf, name) is value


def test_override_reaches_the_send_limits(settings):
    before = conf.SEND_LIMITS
    settings.IDENFY_PHONE_SEND_LIMITS = {"user": ("2/3m",)}
    assert before | {"user": ((2, timedelta(minutes=3)),)} == conf.SEND_LIMITS


@pytest.mark.parametrize(
    ("text", "rate"), [("5/2s", (5, timedelta(seconds=2))), (None, None)]
)
def test_override_reaches_the_send_rate(settings, text, rate):
    settings.IDENFY_PHONE_SEND_RATE = text
    assert rate == conf.SEND_RATE


@pytest.mark.parametrize("name", ["START_GUARD", "CLIENT_NETWORK"])
def test_function_may_be_given_by_its_path(settings, name):
    setattr(settings, PREFIX + name, "django.utils.timezone.now")
    assert getattr(conf, name) is timezone.now


def test_defaults_warn_only_about_account_and_regions(settings):
    for name in NAMES:
        setattr(settings, PREFIX + name, None)
        delattr(settings, PREFIX + name)
    assert sorted(found_ids()) == ["W001", "W002"]
