"""No text of the machine: each error has a page in the site's look and language."""

from contextlib import contextmanager

import pytest

STATUS = "return performance.getEntriesByType('navigation')[0].responseStatus"


@contextmanager
def no_sessions(site):
    site.sql("ALTER TABLE django_session RENAME TO lost")
    try:
        yield
    finally:
        site.sql("ALTER TABLE lost RENAME TO django_session")


def show_missing_page(pages):
    pages.open("/nowhere/")


def show_forbidden_page(pages):
    pages.site.sql("UPDATE accounts_user SET is_staff = 1")
    try:
        pages.log_in()
        pages.open("/admin/accounts/user/")
    finally:
        pages.site.sql("UPDATE accounts_user SET is_staff = is_superuser")


def show_bad_request(pages):
    # A name of this machine that the site does not go by.
    pages.browser.get(pages.site.url.replace("127.0.0.1", "other.localhost"))


def show_failure(pages):
    """The database fails, so the page must do without it."""
    with no_sessions(pages.site):
        pages.open("/sign-up/")


def show_out_of_date(pages):
    pages.open("/login/")
    pages.browser.delete_cookie("csrftoken")
    pages.click("main button")


@pytest.fixture
def language(request, pages):
    pages.cdp("Network.setExtraHTTPHeaders", headers={"Accept-Language": request.param})
    yield request.param
    pages.cdp("Network.setExtraHTTPHeaders", headers={})


PAGES = [
    (show_missing_page, 404, "Page not found", "Seite nicht gefunden"),
    (show_forbidden_page, 403, "No access", "Kein Zugriff"),
    (show_out_of_date, 403, "This page is out of date", "nicht mehr aktuell"),
    (show_bad_request, 400, "Request not understood", "Anfrage nicht verstanden"),
    (show_failure, 500, "Something went wrong here", "ist ein Fehler aufgetreten"),
]


@pytest.mark.parametrize("language", ["en", "de"], indirect=True)
@pytest.mark.parametrize(("show", "status", "english", "german"), PAGES)
def test_error_is_told_to_people(pages, language, show, status, english, german):
    show(pages)
    pages.wait_text(german if language == "de" else english, "h1")
    assert pages.script(STATUS) == status
    assert pages.find("html").get_attribute("lang") == language
    assert pages.shown("header")
    assert pages.shown("main .button")


@pytest.mark.parametrize(
    ("show", "path"),
    [
        (show_missing_page, "/sign-up/"),
        (show_forbidden_page, "/"),
        (show_out_of_date, "/login/"),
        (show_failure, "/sign-up/"),
    ],
)
def test_error_leads_to_a_page_that_works(pages, show, path):
    show(pages)
    pages.click("main .button")
    pages.wait_path(path)
    assert pages.script(STATUS) == 200


def test_out_of_date_log_out_leads_to_the_profile(pages):
    pages.log_in()
    pages.browser.delete_cookie("csrftoken")
    pages.click("header button")
    pages.wait_text("This page is out of date")
    pages.click("main .button")
    pages.wait_path("/")
    assert pages.shown("header button")


def test_out_of_date_request_of_a_new_code_leads_back(plain, number, site):
    plain.sign_up(number)
    plain.browser.delete_cookie("csrftoken")
    plain.click("#resend")
    plain.wait_text("This page is out of date")
    plain.click("main .button")
    plain.wait_path("/sign-up/code/")
    assert len(site.messages(number)) == 1


def test_failure_is_told_by_the_script(pages, number, site):
    pages.sign_up(number)
    with no_sessions(site):
        pages.enter(pages.code_of(number))
        pages.wait_text("Something went wrong here. That is not your fault.", "#error")
