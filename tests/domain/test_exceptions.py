"""Every exception of the package survives the way to another process."""

import copy
import pickle
from datetime import timedelta
from inspect import isclass

import pytest
from django.utils.translation import override

from django_idenfy_phone import exceptions
from django_idenfy_phone.exceptions import (
    CooldownActive,
    IdenfyError,
    RateLimited,
    VerificationError,
)

WAIT = timedelta(seconds=7)
CLASSES = [each for each in vars(exceptions).values() if isclass(each)]
RULES = [each for each in CLASSES if issubclass(each, VerificationError)]
WIRE = [each for each in CLASSES if issubclass(each, IdenfyError)]


def as_seen(error):
    """Class, text and all attributes of an exception."""
    names = ["code", "message", "retry_after", "identifier"]
    values = {name: getattr(error, name, None) for name in names}
    return type(error), str(error), values, vars(error)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("make", [*RULES, *WIRE])
def test_exception_survives_a_pickle_round_trip(make, protocol):
    is_rule = issubclass(make, VerificationError)
    error = make(retry_after=WAIT) if is_rule else make("HTTP 400", identifier="BAD")
    assert as_seen(pickle.loads(pickle.dumps(error, protocol))) == as_seen(error)
    assert as_seen(copy.deepcopy(error)) == as_seen(error)


def test_time_to_wait_survives_a_pickle_round_trip():
    error = RateLimited("HTTP 429", identifier="TOO_MANY_REQUESTS", retry_after=WAIT)
    assert pickle.loads(pickle.dumps(error)).retry_after == WAIT


def test_text_is_that_of_the_language_where_it_is_read():
    error = pickle.loads(pickle.dumps(CooldownActive()))
    with override("lt"):
        assert str(error) == str(CooldownActive.message)
