"""System checks of the settings: no value is ever printed."""

import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.checks import ERROR, CheckMessage, Error, Tags, Warning, register
from phonenumbers import SUPPORTED_REGIONS

from .brake import MIN_AGE
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
from .rules import (
    APP,
    DAY,
    Rule,
    are_limits,
    brake_rule,
    credential_rule,
    duration_rule,
    function_rule,
    is_bare_url,
    is_duration,
    is_int,
    is_some_of,
)

DAY_SECONDS = DAY // timedelta(seconds=1)
# A time so long ago is still one that a database can hold.
LONGEST_RETENTION = timedelta(days=36_500)
SENDER_NAME = "[!-~]([ -~]{0,9}[!-~])?"
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


ACCOUNT_RULES = (
    Rule(
        1,
        "API_URL",
        is_bare_url,
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
        lambda value: value is None or is_some_of(value, SUPPORTED_REGIONS),
        "must be a list of ISO 3166-1 codes in capitals.",
        'Such as ["LT", "GB"].',
    ),
    Rule(
        7,
        "NUMBER_TYPES",
        lambda value: is_some_of(value, KNOWN_TYPES),
        "must be a list of number types.",
        f"Choose from {', '.join(sorted(KNOWN_TYPES))}.",
    ),
    duration_rule(8, "CODE_LIFETIME"),
    Rule(
        9,
        "MAX_CHECKS",
        lambda value: is_int(value, 1, 10),
        "must be a whole number from 1 to 10.",
        "Each check is a guess at one of 10,000 codes.",
    ),
    Rule(
        10,
        "RESEND_COOLDOWN",
        lambda value: (
            isinstance(value, Sequence)
            and len(value) > 0
            and all(is_int(step, 0, DAY_SECONDS) for step in value)
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
            and all(map(are_limits, value.values()))
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
        lambda value: (
            value is None or (are_limits([value]) and bool(parse_limit(value).interval))
        ),
        "must be a count and a window, or None; at most one in a microsecond.",
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
        lambda value: (
            are_limits([value]) and MIN_AGE < parse_limit(value).window <= DAY
        ),
        "must be a count and a window of more than 3 minutes, up to a day.",
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
        is_duration,
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
    # Open rows, and proofs that may still be redeemed, are kept whatever their age.
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
    if not is_some_of(conf.REGIONS, SUPPORTED_REGIONS):
        return
    if not is_some_of(conf.NUMBER_TYPES, {"mobile", "fixed-line-or-mobile"}):
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
