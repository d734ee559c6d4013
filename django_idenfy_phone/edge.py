"""Errors leave our code without the values of the calls that they came through.

An error tracker stores the variables of each frame of a traceback, also for the causes
of the error: the API secret in the frames of requests, each parameter of a statement
in those of Django, numbers and codes in our own. The text of a database error may hold
values too, such as those of a row that breaks a constraint. ``raise … from None`` and
``sensitive_variables`` hide such values from Django's own error reports only.

So each public verb, each task and each thread of receivers stands behind
``hide_values``. The views also keep the body of a request from trackers. The host's
START_GUARD and CLIENT_NETWORK are called outside of ``hide_values``, since their errors
are the host's own: so ``services.start_for_request`` deletes what it was given.
"""

import logging
import re
import traceback
import uuid
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from celery.exceptions import SoftTimeLimitExceeded
from django.db import Error, connections

from .exceptions import IdenfyError, VerificationError
from .transactions import code_of

logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

NOTE = "Its frames and causes were removed, since they hold personal data or secrets."
# SQLSTATE, the number of a MariaDB or MySQL error, or SQLite's name.
CODE = "[0-9A-Z]{4,5}|SQLITE_[A-Z_]+"


def hide_values(function: Callable[P, T]) -> Callable[P, T]:
    """Apply ``hide`` to what the function raises, and log what comes from outside."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            reference = _reference(args)
            # They are variables of this frame.
            del args, kwargs
            if text := hide(error):
                logger.warning("%s %s: %s", function.__qualname__, reference, text)
            raise

    return call


def _reference(arguments: tuple[Any, ...]) -> str:
    """The first 8 digits of the id of the verification that a call is about, or ""."""
    for each in arguments:
        # A user or another owner has an id of its own.
        is_row = type(each).__name__ == "PhoneVerification"
        if isinstance(pk := each.pk if is_row else each, uuid.UUID):
            return str(pk)[:8]
    return ""


def hide(error: BaseException) -> str:
    """Remove the values from the frames of an error, in place.

    Errors of our own, of the database and of HTTP, and time limits, lose these frames
    and their causes; a database error also its text, but for its code. Any other one,
    such as that of a host's user object, keeps its frames, without their variables.
    Returns the type and code to log, for an error from outside that is new here; else
    "".
    """
    is_of_database = isinstance(error, (Error, *_driver_errors()))
    is_outside = is_of_database or _is_of_network_or_time(error)
    if is_of_database:
        code = code_of(error)
        error.args = (code,) if re.fullmatch(CODE, str(code)) else ()
    if is_outside or isinstance(error, VerificationError | IdenfyError):
        error.__cause__ = error.__context__ = error.__traceback__ = None
    else:
        _clear_frames(error)
    if not is_outside or NOTE in getattr(error, "__notes__", ()):
        return ""
    error.add_note(NOTE)
    shown = error.args if is_of_database else ()
    return " ".join([type(error).__name__, *map(str, shown)])


def _driver_errors() -> Iterator[type[Exception]]:
    """The drivers' own: Django does not wrap the error of closing a cursor."""
    opened: Any = connections.all(initialized_only=True)
    # The empty "default" of a host that routes everything has no driver.
    return (each.Database.Error for each in opened if hasattr(each, "Database"))


def _is_of_network_or_time(error: BaseException) -> bool:
    # The errors of requests are OSErrors. A time limit other than Celery's, such as
    # gunicorn's SystemExit, is no Exception.
    is_exception = isinstance(error, Exception)
    return not is_exception or isinstance(error, OSError | SoftTimeLimitExceeded)


def _clear_frames(error: BaseException | None) -> None:
    seen = set()
    # Causes may go round in a circle.
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
