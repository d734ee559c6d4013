"""What a setting must be, and the error of one that breaks its rule."""

import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple, TypeGuard
from urllib.parse import urlsplit

from django.core.checks import Error
from django.utils.module_loading import import_string

from .conf import PREFIX, parse_limit

APP = "django_idenfy_phone"
DAY = timedelta(days=1)
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_visible_ascii(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and bool(re.fullmatch("[!-~]+", value))


def is_bare_url(url: object) -> bool:
    """Whether it is https, or http to loopback, with a host and nothing after it."""
    if not is_visible_ascii(url):
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


def is_some_of(value: object, known: set[str]) -> bool:
    return (
        isinstance(value, Sequence | set | frozenset)
        and not isinstance(value, str)
        and len(value) > 0
        and all(isinstance(item, str) and item in known for item in value)
    )


def is_int(value: object, lowest: int, highest: int) -> bool:
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return lowest <= value <= highest


def are_limits(texts: object) -> bool:
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        return False
    try:
        return all(parse_limit(text) for text in texts)
    except (TypeError, ValueError):
        return False


def is_duration(value: object) -> bool:
    """Whether it is a timedelta above 0, of up to a day."""
    return isinstance(value, timedelta) and timedelta(0) < value <= DAY


def is_function(value: object) -> bool:
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
    is_valid=lambda value: not value or is_visible_ascii(value),
    problem="must be text without spaces or line breaks.",
    hint="Copy it again from iDenfy's dashboard.",
)
function_rule = partial(
    Rule,
    is_valid=is_function,
    problem="must be a function or the dotted path of one.",
    hint='Such as "accounts.guards.captcha".',
)
duration_rule = partial(
    Rule,
    is_valid=is_duration,
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
