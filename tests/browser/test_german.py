"""People whose browser prefers German read German."""

import re

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
    pages.set_width(320)
    yield pages
    pages.cdp("Network.setExtraHTTPHeaders", headers={})


def assert_german(pages):
    assert pages.find("html").get_attribute("lang") == "de"
    shown = pages.text("body")
    assert [text for text in ENGLISH if text in shown] == []
    # Its words are long.
    assert pages.script("return document.documentElement.scrollWidth") <= 320


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


@pytest.mark.parametrize("path", ["/login/", "/sign-up/"])
def test_page_is_german(german, path):
    german.open(path)
    assert_german(german)


def test_wrong_login_is_told(german):
    german.open("/login/")
    german.type("#id_username", "nobody@example.com")
    german.type("#id_password", "wrong")
    german.click("main button")
    told = "Die E-Mail-Adresse oder das Passwort ist falsch."
    german.wait_text(told, "#form-error")


def test_short_password_is_told(german, number):
    german.fill_sign_up(number)
    german.type("#id_password", "short")
    german.click("#number-form button")
    german.wait(lambda: german.text("#id_password_error"))
    assert german.text("#id_password_error") == "Dieses Passwort ist zu kurz."


def test_account_changes_its_number(german, number, site):
    german.log_in()
    german.open("/number/")
    assert_german(german)
    german.ask_code(number)
    german.wait(lambda: german.shown("#code"))
    assert_german(german)
    german.submit(german.code_of(number))
    german.wait_text("Bestätigte Telefonnummer")
    assert_german(german)
    assert any("Die Telefonnummer Ihres Kontos" in each for each in site.mails())


def test_wait_counts_down(german, number, site):
    german.sign_up(number)
    later = "UPDATE django_idenfy_phone_phoneverification SET created_at = "
    site.sql(f"{later}datetime('now', '50 seconds') WHERE phone_number = ?", number)
    german.browser.refresh()
    first = german.wait_text("einen neuen Code anfordern.", "#wait")
    german.wait(lambda: german.text("#wait") != first)
    text = r"Sie können in \d\d Sekunden einen neuen Code anfordern\."
    assert re.fullmatch(text, german.text("#wait"))


def test_other_language_is_english(pages):
    pages.cdp("Network.setExtraHTTPHeaders", headers={"Accept-Language": "pl"})
    pages.open("/sign-up/")
    pages.cdp("Network.setExtraHTTPHeaders", headers={})
    assert pages.find("html").get_attribute("lang") == "en"
    assert "E-mail address" in pages.text()
