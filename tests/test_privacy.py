"""A number, a code or a secret stands in no text that is written or passed on."""

import inspect
import logging

import conftest
import pytest
import wire as w
from conftest import MARKERS, NUMBER

from django_idenfy_phone import delivery, exceptions, services
from django_idenfy_phone.exceptions import IdenfyError, VerificationError
from django_idenfy_phone.models import StartLock

pytestmark = pytest.mark.django_db
ANSWERS = {
    "sent": w.answer(200, {"request_id": "r" * 32}),
    "echo": w.answer(400, {"identifier": NUMBER, "message": f"{NUMBER} test-secret"}),
    "refused": w.refusal(400, "BAD_VALUE"),
    "account": w.answer(401, {"message": NUMBER}),
    "limited": w.answer(429),
    "html": w.answer(200, f"<p>{NUMBER}</p>".encode()),
    "reset": w.reset,
    "redirect": w.answer(307, Location=f"http://127.0.0.1:1/{NUMBER}"),
}


def texts(error):
    """The error's text and those of all it came from."""
    while error:
        yield f"{error} {error!r}"
        error = error.__cause__ or error.__context__


@pytest.fixture(autouse=True)
def _log_everything(caplog):
    caplog.set_level(logging.DEBUG)
    yield
    assert not [m for m in MARKERS if m in caplog.text]


@pytest.mark.parametrize("name", ANSWERS)
def test_a_send_writes_no_number(wire, user, name, capfd):
    wire.will(ANSWERS[name])
    row = services.start_verification(NUMBER, user=user)
    delivery.deliver(row.pk)
    assert len(wire.requests) == 1
    written = "".join(capfd.readouterr()) + str(row) + repr(row)
    assert not [m for m in MARKERS if m in written]


@pytest.mark.parametrize("name", set(ANSWERS) - {"sent"})
def test_a_check_writes_neither_code_nor_number(wire, make, caplog, name):
    wire.will(ANSWERS[name])
    row = make("sent")
    with pytest.raises(VerificationError) as caught:
        services.confirm_verification(row.pk, "7391", user=row.user)
    written = caplog.text + "".join(texts(caught.value))
    assert not [m for m in (*MARKERS, "7391", row.request_id) if m in written]


def test_a_refused_number_is_not_repeated(user, wire):
    with pytest.raises(VerificationError) as caught:
        services.start_verification(f"{NUMBER}999", user=user)
    assert "61234567" not in "".join(texts(caught.value))


def test_a_lock_is_shown_in_part_only(user, wire):
    services.start_verification(NUMBER, user=user)
    assert {len(str(lock)) for lock in StartLock.objects.all()} == {8}


def test_every_error_text_is_made_of_constants():
    named = [
        error
        for error in vars(exceptions).values()
        if isinstance(error, type) and issubclass(error, VerificationError)
    ]
    assert len(named) > 10
    assert all(str(error()) == str(error.message) for error in named)
    assert str(IdenfyError("HTTP 400", identifier="BAD")) == "HTTP 400 BAD"


def test_the_search_for_leaks_finds_one(pytester):
    hook = inspect.getsource(conftest.pytest_runtest_makereport)
    pytester.makeconftest(f"import pytest\nMARKERS = ['leaked']\n\n{hook}")
    pytester.makepyfile("def test_leak():\n    print('it leaked')")
    result = pytester.runpytest_subprocess("-p", "no:django")
    assert result.parseoutcomes()["failed"] == 1
