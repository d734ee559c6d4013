"""A wrong setting is found at start-up, not at the first SMS. No value is printed."""

import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import phonenumbers
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import router

from .conf import DEFAULT_SEND_LIMITS, PREFIX, Settings, conf, parse_limit
from .models import PhoneVerification
from .phone import NUMBER_TYPES

APP = "django_idenfy_phone"
DAY = timedelta(days=1)
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def _error(number: int, name: str, problem: str, hint: str) -> Error:
    return Error(f"{PREFIX}{name} {problem}", hint=hint, id=f"{APP}.E{number:03}")


def _warning(number: int, problem: str, hint: str) -> Warning:
    return Warning(problem, hint=hint, id=f"{APP}.W{number:03}")


@register(Tags.security)
def check_account(**kwargs: Any) -> Iterator[CheckMessage]:
    if not _is_safe_url(conf.API_URL):
        yield _error(
            1,
            "API_URL",
            "must be an https URL of a host alone.",
            'Such as "https://ivs.idenfy.com". http is for loopback only.',
        )
    for number, name in ((2, "API_KEY"), (3, "API_SECRET")):
        value = getattr(conf, name)
        if not (isinstance(value, str) and re.fullmatch("[!-~]*", value)):
            yield _error(
                number,
                name,
                "must be text without spaces or line breaks.",
                "Copy it again from iDenfy's dashboard.",
            )
    if not (conf.API_KEY and conf.API_SECRET):
        yield _warning(
            1,
            f"{PREFIX}API_KEY or {PREFIX}API_SECRET is not set: no code can be sent.",
            "Set both to the key pair of your iDenfy account.",
        )


@register(Tags.security, deploy=True)
def check_account_for_deploy(**kwargs: Any) -> Iterator[CheckMessage]:
    if not (conf.API_KEY and conf.API_SECRET):
        yield _error(
            4,
            "API_KEY",
            f"or {PREFIX}API_SECRET is not set: no code can be sent.",
            "Set both to the key pair of your iDenfy account.",
        )


def _is_safe_url(url: object) -> bool:
    if not isinstance(url, str) or not re.fullmatch("[!-~]+", url):
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


@register
def check_numbers(**kwargs: Any) -> Iterator[CheckMessage]:
    name = conf.SENDER_NAME
    if name is not None and not (
        isinstance(name, str) and re.fullmatch("[!-~]([ -~]{0,9}[!-~])?", name)
    ):
        yield _error(
            5,
            "SENDER_NAME",
            "must be 1 to 11 plain characters.",
            "iDenfy takes at most 11. Leave it out for iDenfy's own name.",
        )
    if conf.REGIONS is None:
        yield _warning(
            2,
            f"{PREFIX}REGIONS is not set: codes are sent to every country.",
            'List the countries of your users, such as ["LT", "GB"], to keep fraud '
            "with costly numbers out. To allow all, list phonenumbers."
            "SUPPORTED_REGIONS.",
        )
    elif not _is_some_of(conf.REGIONS, phonenumbers.SUPPORTED_REGIONS):
        yield _error(
            6,
            "REGIONS",
            "must be a list of ISO 3166-1 codes in capitals.",
            'Such as ["LT", "GB"].',
        )
    if not _is_some_of(conf.NUMBER_TYPES, set(NUMBER_TYPES) - {"unknown"}):
        yield _error(
            7,
            "NUMBER_TYPES",
            "must be a list of number types.",
            f"Choose from {', '.join(sorted(set(NUMBER_TYPES) - {'unknown'}))}.",
        )


def _is_some_of(value: object, known: set[str]) -> bool:
    return (
        isinstance(value, Sequence | set | frozenset)
        and not isinstance(value, str)
        and len(value) > 0
        and all(isinstance(item, str) and item in known for item in value)
    )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@register
def check_times_and_counts(**kwargs: Any) -> Iterator[CheckMessage]:
    for number, name in (
        (8, "CODE_LIFETIME"),
        (11, "SEND_DEADLINE"),
        (15, "REDEEM_WITHIN"),
    ):
        value = getattr(conf, name)
        if not (isinstance(value, timedelta) and timedelta(0) < value <= DAY):
            yield _error(
                number,
                name,
                "must be a timedelta of up to a day.",
                "Such as timedelta(minutes=3).",
            )
    if not (_is_int(conf.MAX_CHECKS) and 1 <= conf.MAX_CHECKS <= 10):
        yield _error(
            9,
            "MAX_CHECKS",
            "must be a whole number from 1 to 10.",
            "Each check is a guess at one of 10,000 codes.",
        )
    steps = conf.RESEND_COOLDOWN
    if not (
        isinstance(steps, Sequence)
        and len(steps) > 0
        and all(_is_int(step) and 0 <= step <= 86400 for step in steps)
        and list(steps) == sorted(steps)
    ):
        yield _error(
            10,
            "RESEND_COOLDOWN",
            "must be seconds, each at least the one before.",
            "Such as (60, 120, 300).",
        )
    timeout = conf.TIMEOUT
    is_number = _is_int(timeout) or isinstance(timeout, float)
    if not (is_number and 0 < timeout <= 12):
        yield _error(
            12,
            "TIMEOUT",
            "must be seconds, above 0 and up to 12.",
            "A worker holds a row for 45 seconds, and all of a send must fit.",
        )
    if not isinstance(conf.ALLOW_ANONYMOUS, bool):
        yield _error(
            13,
            "ALLOW_ANONYMOUS",
            "must be True or False.",
            "With True, visitors without a login may start.",
        )


@register
def check_limits(**kwargs: Any) -> Iterator[CheckMessage]:
    limits = getattr(settings, PREFIX + "SEND_LIMITS", {})
    if not (
        isinstance(limits, dict)
        and all(kind in DEFAULT_SEND_LIMITS for kind in limits)
        and all(map(_are_limits, limits.values()))
    ):
        yield _error(
            14,
            "SEND_LIMITS",
            "must map kinds to lists of limits.",
            f'Such as {{"number": ("3/10m", "5/d")}}: a count above 0, and a window in '
            f"s, m, h or d. The kinds are {', '.join(DEFAULT_SEND_LIMITS)}.",
        )
    elif conf.ALLOW_ANONYMOUS and not (conf.SEND_LIMITS["network"] or _guard()):
        yield _warning(
            7,
            f"{PREFIX}ALLOW_ANONYMOUS is on, with no limit by network and no guard.",
            f"Set {PREFIX}START_GUARD, such as a captcha, or a limit by network.",
        )
    rate = getattr(settings, PREFIX + "SEND_RATE", None)
    if rate is not None and not _are_limits([rate]):
        yield _error(
            18,
            "SEND_RATE",
            "must be a count and a window, or None.",
            'Such as "1/s".',
        )
    for number, name in ((16, "START_GUARD"), (17, "CLIENT_NETWORK")):
        try:
            function = getattr(conf, name)
        # A path that begins with a dot raises the last two.
        except (ImportError, TypeError, ValueError):
            function = "not to be imported"
        if function is not None and not callable(function):
            yield _error(
                number,
                name,
                "must be a function or the dotted path of one.",
                'Such as "accounts.guards.captcha".',
            )


def _are_limits(texts: object) -> bool:
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        return False
    try:
        return all(parse_limit(text) for text in texts)
    except (TypeError, ValueError):
        return False


def _guard() -> object:
    return getattr(settings, PREFIX + "START_GUARD", None)


@register
def check_names(**kwargs: Any) -> Iterator[CheckMessage]:
    known = {PREFIX + name for name in dir(Settings) if name.isupper()}
    for name in dir(settings):
        if name.startswith(PREFIX) and name not in known:
            yield _warning(
                4, f"{name} is no setting of this app.", "Look for a spelling mistake."
            )


@register
def check_project(**kwargs: Any) -> Iterator[CheckMessage]:
    if not settings.USE_TZ:
        yield _warning(
            5,
            "USE_TZ is off.",
            "When the clocks change, codes end an hour early or late.",
        )
    if router.db_for_write(PhoneVerification) != router.db_for_write(get_user_model()):
        yield _warning(
            6,
            "Users and phone verifications live in different databases.",
            "No foreign key guards them there: route both to one database.",
        )
