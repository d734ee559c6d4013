"""Whoever's browser prefers German reads German."""

import pytest

from support.catalogues import PLACEHOLDER, read_catalogue
from support.manual import ROOT

CATALOGUES = ROOT.glob("*/locale/de/LC_MESSAGES/django.po")
# Two words or more are the same in no other language.
ENGLISH = {
    part.strip()
    for path in CATALOGUES
    for _context, text in read_catalogue(path)
    for part in PLACEHOLDER.split(text if isinstance(text, str) else " ".join(text))
    if " " in part.strip()
}


@pytest.fixture
def german(pages):
    pages.cdp("Network.setExtraHTTPHeaders", headers={"Accept-Language": "de-AT,de"})
    yield pages
    pages.cdp("Network.setExtraHTTPHeaders", headers={})


def assert_german(pages):
    assert pages.find("html").get_attribute("lang") == "de"
    shown = pages.text("body")
    assert [text for text in ENGLISH if text in shown] == []


def test_visitor_signs_up(german, number):
    german.sign_up(number)
    german.wait_text("Bitte geben Sie seine 4 Ziffern ein.", "#status")
    german.submit(german.wrong_code_of(number))
    german.wait_text("Dieser Code ist falsch. Sie haben noch 2 Versuche.")
    assert_german(german)
    german.submit(german.code_of(number))
    german.wait_path("/")
    german.wait_text("Ihr Konto ist eingerichtet.")
    assert_german(german)


@pytest.mark.parametrize("path", ["/login/", "/sign-up/", "/number/"])
def test_page_is_german(german, path):
    if path == "/number/":
        german.log_in()
    german.open(path)
    assert_german(german)


def test_wait_counts_down(german, number):
    german.sign_up(number)
    german.wait_text("Sie können in 2 Sekunden einen neuen Code anfordern.", "#wait")


def test_other_language_is_english(pages):
    pages.cdp("Network.setExtraHTTPHeaders", headers={"Accept-Language": "pl"})
    pages.open("/sign-up/")
    pages.cdp("Network.setExtraHTTPHeaders", headers={})
    assert pages.find("html").get_attribute("lang") == "en"
    assert "E-mail address" in pages.text()
