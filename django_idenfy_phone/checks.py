"""System checks of the settings: no value is ever printed."""

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple, TypeGuard
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import ERROR, CheckMessage, Error, Tags, Warning, register
from django.utils.module_loading import import_string
from phonenumbers import SUPPORTED_REGIONS

from .conf import (
    DEFAULT_BRAKE,
    DEFAULT_SEND_LIMITS,
    ENFORCE,
    OBSERVE,
    PREFIX,
    Settings,
    conf,
    parse_limit,
)
from .limits import longest_window
from .phone import NUMBER_TYPES

APP = "django_idenfy_phone"
DAY = timedelta(days=1)
DAY_SECONDS = DAY // timedelta(seconds=1)
# A time so long ago is still one that a database can hold.
LONGEST_RETENTION = timedelta(days=36_500)
SENDER_NAME = "[!-~]([ -~]{0,9}[!-~])?"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
KNOWN_TYPES = set(NUMBER_TYPES) - {"unknown"}
# Regions to which libphonenumber gives no mobile numbers: those of the people there
# belong to the second region, if there are any.
NEIGHBOURS = {
    "AX": "FI",
    "BL": "GP",
    "CC": "AU",
    "CX": "AU",
    "EH": "MA",
    "MF": "GP",
    "SJ": "NO",
    "TA": "SH",
    "VA": "IT",
}


def _is_visible_ascii(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and bool(re.fullmatch("[!-~]+", value))


def _is_bare_url(url: object) -> bool:
    """Whether it is https, or http to loopback, with a host and nothing after it."""
    if not _is_visible_ascii(url):
        return False
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        return False
    is_bare = url.rstrip("/") == f"{parts.scheme}://{parts.netloc}"
    is_private = parts.scheme == "https" or (
        parts.scheme == "http" and host in LOOPBACK
    )
    return bool(host) and "@" not in parts.netloc and is_bare and is_private


def _is_some_of(value: object, known: set[str]) -> bool:
    return (
        isinstance(value, Sequence | set | frozenset)
        and not isinstance(value, str)
        and len(value) > 0
        and all(isinstance(item, str) and item in known for item in value)
    )


def _is_int(value: object, lowest: int, highest: int) -> bool:
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return lowest <= value <= highest


def _are_limits(texts: object) -> bool:
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        return False
    try:
        return all(parse_limit(text) for text in texts)
    except (TypeError, ValueError):
        return False


def _is_function(value: object) -> bool:
    """Whether it is None, a callable, or the dotted path of one."""
    try:
        value = import_string(value) if isinstance(value, str) else value
    # A path that begins with a dot raises the last two.
    except (ImportError, TypeError, ValueError):
        return False
    return value is None or callable(value)


class Rule(NamedTuple):
    """What a setting must be, if it is set. ``number`` is that of the check's id."""

    number: int
    name: str
    is_valid: Callable[[Any], object]
    problem: str
    hint: str

    def error(self) -> Error:
        return Error(
            f"{PREFIX}{self.name} {self.problem}",
            hint=self.hint,
            id=f"{APP}.E{self.number:03}",
        )


# The rules of several settings each: they lack a number and a name.
credential_rule = partial(
    Rule,
    is_valid=lambda value: not value or _is_visible_ascii(value),
    problem="must be text without spaces or line breaks.",
    hint="Copy it again from iDenfy's dashboard.",
)
function_rule = partial(
    Rule,
    is_valid=_is_function,
    problem="must be a function or the dotted path of one.",
    hint='Such as "accounts.guards.captcha".',
)
duration_rule = partial(
    Rule,
    is_valid=lambda value: isinstance(value, timedelta) and timedelta(0) < value <= DAY,
    problem="must be a timedelta of up to a day.",
    hint="Such as timedelta(minutes=3).",
)


def brake_rule(
    number: int, key: str, is_valid: Callable[[Any], object], problem: str, hint: str
) -> Rule:
    """The rule of one key of BRAKE: that of the whole finds what is no dict."""

    def is_valid_if_given(value: object) -> object:
        if not isinstance(value, dict) or key not in value:
            return True
        return is_valid(value[key])

    return Rule(number, "BRAKE", is_valid_if_given, f'["{key}"] {problem}', hint)


ACCOUNT_RULES = (
    Rule(
        1,
        "API_URL",
        _is_bare_url,
        "must be an https URL with nothing after the host.",
        'Such as "https://ivs.idenfy.com". http is for loopback only.',
    ),
    credential_rule(2, "API_KEY"),
    credential_rule(3, "API_SECRET"),
)
RULES = (
    Rule(
        5,
        "SENDER_NAME",
        lambda value: (
            value is None
            or (isinstance(value, str) and re.fullmatch(SENDER_NAME, value))
        ),
        "must be 1 to 11 plain characters.",
        "iDenfy takes at most 11. Leave it out for iDenfy's own name.",
    ),
    Rule(
        6,
        "REGIONS",
        lambda value: value is None or _is_some_of(value, SUPPORTED_REGIONS),
        "must be a list of ISO 3166-1 codes in capitals.",
        'Such as ["LT", "GB"].',
    ),
    Rule(
        7,
        "NUMBER_TYPES",
        lambda value: _is_some_of(value, KNOWN_TYPES),
        "must be a list of number types.",
        f"Choose from {', '.join(sorted(KNOWN_TYPES))}.",
    ),
    duration_rule(8, "CODE_LIFETIME"),
    Rule(
        9,
        "MAX_CHECKS",
        lambda value: _is_int(value, 1, 10),
        "must be a whole number from 1 to 10.",
        "Each check is a guess at one of 10,000 codes.",
    ),
    Rule(
        10,
        "RESEND_COOLDOWN",
        lambda value: (
            isinstance(value, Sequence)
            and len(value) > 0
            and all(_is_int(step, 0, DAY_SECONDS) for step in value)
            and list(value) == sorted(value)
        ),
        "must be seconds, each at least the one before.",
        "Such as (60, 120, 300).",
    ),
    duration_rule(11, "SEND_DEADLINE"),
    Rule(
        12,
        "TIMEOUT",
        lambda value: type(value) in (int, float) and 0 < value <= 12,
        "must be seconds, above 0 and up to 12.",
        "A worker holds a row for 45 seconds, and all of a send must fit.",
    ),
    Rule(
        13,
        "ALLOW_ANONYMOUS",
        lambda value: isinstance(value, bool),
        "must be True or False.",
        "With True, visitors without a login may start.",
    ),
    Rule(
        14,
        "SEND_LIMITS",
        lambda value: (
            isinstance(value, dict)
            and value.keys() <= DEFAULT_SEND_LIMITS.keys()
            and all(map(_are_limits, value.values()))
        ),
        "must map kinds to lists of limits.",
        'Such as {"number": ("3/10m", "5/d")}: a count above 0, and a window in '
        f"s, m, h or d. The kinds are {', '.join(DEFAULT_SEND_LIMITS)}.",
    ),
    duration_rule(15, "REDEEM_WITHIN"),
    Rule(
        28,
        "RETENTION",
        lambda value: (
            isinstance(value, timedelta) and timedelta(0) < value <= LONGEST_RETENTION
        ),
        "must be a timedelta of up to a hundred years.",
        "Such as timedelta(days=90).",
    ),
    function_rule(16, "START_GUARD"),
    function_rule(17, "CLIENT_NETWORK"),
    Rule(
        18,
        "SEND_RATE",
        lambda value: value is None or _are_limits([value]),
        "must be a count and a window, or None.",
        'Such as "1/s".',
    ),
    Rule(
        27,
        "DELIVERY",
        lambda value: value in ("celery", "sweep"),
        "must be a way of delivery.",
        'Choose from "celery" and "sweep".',
    ),
    Rule(
        30,
        "BRAKE",
        lambda value: (
            value is None
            or (isinstance(value, dict) and value.keys() <= DEFAULT_BRAKE.keys())
        ),
        "must be a dict, or None.",
        f"Its keys are {', '.join(DEFAULT_BRAKE)}.",
    ),
    brake_rule(
        31,
        "sends",
        lambda value: _are_limits([value]) and parse_limit(value).window <= DAY,
        "must be a count and a window of up to a day.",
        'Such as "50/h".',
    ),
    brake_rule(
        32,
        "confirmed_below",
        lambda value: type(value) in (int, float) and 0 < value <= 1,
        "must be a share, above 0 and up to 1.",
        "Such as 0.1, which is 10 %.",
    ),
    brake_rule(
        33,
        "pause",
        duration_rule(33, "BRAKE").is_valid,
        "must be a timedelta of up to a day.",
        "Such as timedelta(hours=1).",
    ),
    brake_rule(
        34,
        "mode",
        lambda value: value in (OBSERVE, ENFORCE),
        "must be a mode.",
        f'Choose from "{OBSERVE}" and "{ENFORCE}".',
    ),
)


def _broken(rules: Sequence[Rule]) -> Iterator[Error]:
    """An error for each setting that breaks its rule."""
    for rule in rules:
        name = PREFIX + rule.name
        if hasattr(settings, name) and not rule.is_valid(getattr(settings, name)):
            yield rule.error()


def _warning(number: int, problem: str, hint: str) -> Warning:
    return Warning(problem, hint=hint, id=f"{APP}.W{number:03}")


# The messages of the latest run about a missing key pair.
_no_key_pair: list[CheckMessage] = []


@register(Tags.security)
def check_account(**kwargs: Any) -> Iterator[CheckMessage]:
    yield from _broken(ACCOUNT_RULES)
    _no_key_pair.clear()
    if not conf.has_credentials:
        _no_key_pair.append(
            _warning(
                1,
                f"{PREFIX}API_KEY or {PREFIX}API_SECRET is not set: no code can be "
                "sent.",
                "Set both to the key pair of your iDenfy account.",
            )
        )
    yield from _no_key_pair


@register(Tags.security, deploy=True)
def check_account_for_deploy(**kwargs: Any) -> Sequence[CheckMessage]:
    """Make an error of the warning: Django runs deployment checks after the others."""
    for message in _no_key_pair:
        message.level, message.id = ERROR, f"{APP}.E004"
    return []


@register
def check_settings(**kwargs: Any) -> Iterator[CheckMessage]:
    yield from _broken(RULES)


@register
def check_retention(**kwargs: Any) -> Iterator[CheckMessage]:
    # A row that is waited for longer than this window is kept whatever its age.
    if any(_broken(RULES)):
        return
    if longest_window() > conf.RETENTION:
        yield Error(
            f"{PREFIX}RETENTION is shorter than a limit counts rows.",
            hint=f"Make it at least as long as the longest window of {PREFIX}"
            "SEND_LIMITS, and at least a day.",
            id=f"{APP}.E029",
        )


@register
def check_allow_list(**kwargs: Any) -> Iterator[CheckMessage]:
    if conf.REGIONS is None:
        yield _warning(
            2,
            f"{PREFIX}REGIONS is not set: codes are sent to every country.",
            'List the countries of your users, such as ["LT", "GB"], to keep fraud '
            "with costly numbers out. To allow all, list phonenumbers."
            "SUPPORTED_REGIONS.",
        )


@register
def check_anonymous_starts(**kwargs: Any) -> Iterator[CheckMessage]:
    has_guard = getattr(settings, PREFIX + "START_GUARD", None)
    if conf.ALLOW_ANONYMOUS is True and not has_guard:
        yield _warning(
            8,
            f"{PREFIX}ALLOW_ANONYMOUS is on without {PREFIX}START_GUARD.",
            "Anybody can have SMS sent at your cost: name a guard, such as a captcha.",
        )


@register
def check_regions(**kwargs: Any) -> Iterator[CheckMessage]:
    # Invalid ones have their own errors.
    if not _is_some_of(conf.REGIONS, SUPPORTED_REGIONS):
        return
    if not _is_some_of(conf.NUMBER_TYPES, {"mobile", "fixed-line-or-mobile"}):
        return
    regions = set(conf.REGIONS or ())
    for region in sorted(regions & NEIGHBOURS.keys()):
        if NEIGHBOURS[region] not in regions:
            yield _warning(
                10,
                f"{PREFIX}REGIONS: {region} has no mobile numbers of its own.",
                f'People there use numbers of "{NEIGHBOURS[region]}": list it too.',
            )


@register
def check_names(**kwargs: Any) -> Iterator[CheckMessage]:
    known = {PREFIX + name for name in dir(Settings) if name.isupper()}
    for name in dir(settings):
        if name.startswith(PREFIX) and name not in known:
            yield _warning(
                4, f"{name} is no setting of this app.", "Look for a spelling mistake."
            )


@register
def check_time_zones(**kwargs: Any) -> Iterator[CheckMessage]:
    if not settings.USE_TZ:
        yield _warning(
            5,
            "USE_TZ is off.",
            "When the clocks change, codes expire an hour early or late.",
        )
