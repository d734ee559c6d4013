"""The number of an account, with the script: it talks to the API."""

import json
import time

import pytest

from support.chromium import Keys


@pytest.fixture
def account(pages):
    pages.log_in()
    return pages


def test_account_changes_its_number_and_gets_a_notice(account, number, site):
    account.ask_code(number)
    account.wait(lambda: account.shown("#code"))
    account.enter(account.code_of(number))
    account.wait_path("/")
    assert account.text("#phone-number") == number
    notice = f"The phone number of your account is now +370******{number[-2:]}."
    assert any(notice in each for each in site.mails())


def post_start(pages, body):
    """What the API answers to a start with this body."""
    return pages.script(
        """return fetch("/phone/start/", {method: "POST", body: arguments[0], headers: {
          "Content-Type": "application/json",
          "X-CSRFToken": document.cookie.match("csrftoken=([^;]*)")[1]}})
          .then((answer) => answer.json())""",
        json.dumps(body),
    )


def test_api_starts_nothing_without_the_password(account, number, site):
    account.open("/password/")
    answer = post_start(account, {"phone_number": number})
    assert answer["code"] == "password_needed"
    assert site.messages(number) == []


@pytest.mark.parametrize("body", [{}, {"phone_number": 1, "country": []}])
def test_api_refuses_what_is_no_number(account, body):
    account.open_number()
    assert list(post_start(account, body)) == ["phone_number"]


def test_lost_answer_to_a_start_sends_no_second_code(account, number, site):
    account.open_number()
    account.type("#id_phone_number", number)
    account.lose_next_answer()
    account.click("#number-form button")
    account.wait_text("The site could not be reached.", "#form-error")
    # The cooldown, which would refuse a second start.
    time.sleep(4)
    account.click("#number-form button")
    account.wait(lambda: account.shown("#code"))
    assert len(site.messages(number)) == 1
    account.enter(account.code_of(number))
    account.wait_path("/")


def test_other_device_resumes(account, other_pages, number):
    account.ask_code(number)
    account.wait(lambda: account.shown("#code"))
    other_pages.log_in()
    other_pages.open("/number/code/")
    other_pages.enter(account.code_of(number))
    other_pages.wait_path("/")
    assert other_pages.text("#phone-number") == number


def test_other_tab_moves_on_with_a_new_code(account, number, site):
    account.ask_code(number)
    account.wait(lambda: account.shown("#code"))
    first = account.browser.current_window_handle
    account.browser.switch_to.new_window("tab")
    account.open("/number/code/")
    account.wait(lambda: account.text("#wait") == "", 6)
    account.click("#resend")
    account.wait(lambda: len(site.messages(number)) == 2)
    account.browser.switch_to.window(first)
    account.script("document.dispatchEvent(new Event('visibilitychange'))")
    account.wait(lambda: account.text("#wait") != "")
    account.enter(account.code_of(number))
    account.wait_path("/")


def test_other_number_and_back_keeps_the_code(account, number, site):
    account.ask_code(number)
    account.wait(lambda: account.shown("#code"))
    account.click("#change")
    account.wait(lambda: account.shown("#live"))
    account.type("#id_phone_number", number)
    account.click("#number-form button")
    account.wait(lambda: account.shown("#code"))
    assert len(site.messages(number)) == 1
    account.enter(account.code_of(number))
    account.wait_path("/")


def test_return_to_a_first_number_returns_to_its_code(
    account, number, second_number, site
):
    for each in (number, second_number):
        account.ask_code(each)
        account.wait(lambda: account.shown("#code"))
    # So that the cooldown lasts, and later tests do not find a newer one.
    move_starts(site, 60, number, second_number)
    try:
        account.ask_code(number)
        account.wait_text(f"{number[-2:]}. Enter its 4 digits.", "#status")
    finally:
        move_starts(site, -60, number, second_number)
    assert len(site.messages(number)) == 1
    account.enter(account.code_of(number))
    account.wait_path("/")
    assert account.text("#phone-number") == number


def move_starts(site, seconds, *numbers):
    table = "django_idenfy_phone_phoneverification"
    later = f"created_at = datetime(created_at, '{seconds} seconds')"
    for number in numbers:
        site.sql(f"UPDATE {table} SET {later} WHERE phone_number = ?", number)


def test_maybe_sent_code_is_told(account):
    account.ask_code("+12025550108")
    account.wait_text("If a code arrives, it will not work.", "#status")
    assert account.text("#wait").startswith("You can ask for a new code in ")
    account.browser.refresh()
    account.wait_text("If a code arrives, it will not work.", "#status")


def test_refused_new_code_of_an_account_is_counted(plain, number, site):
    plain.log_in()
    plain.ask_code(number)
    plain.wait(lambda: plain.shown("#code"))
    plain.click("#resend")
    plain.wait_text("You can ask for a new one in ", "#error")
    table = "django_idenfy_phone_tally"
    assert "cooldown LT" in site.sql(f"SELECT reason || ' ' || region FROM {table}")


def test_log_out_in_the_middle_is_told(account, number):
    account.ask_code(number)
    account.wait(lambda: account.shown("#code"))
    account.script("return fetch('/login/')")
    session = account.browser.get_cookie("sessionid")
    account.browser.delete_cookie("sessionid")
    account.submit(account.code_of(number))
    account.wait_text("You are logged out. Please log in again.", "#error")
    assert account.shown("#log-in")
    account.browser.add_cookie(session)
    account.find("#code").send_keys(Keys.ENTER)
    account.wait_path("/")


def test_number_taken_is_told_only_after_the_proof(account, number, site):
    account.ask_code(number)
    account.wait(lambda: account.shown("#code"))
    site.sql("UPDATE accounts_user SET phone_number = NULL, phone_confirmed_at = NULL")
    site.sql(
        "UPDATE accounts_user SET phone_number = ?, phone_confirmed_at = ? "
        "WHERE username = 'admin@example.com'",
        number,
        "2026-01-01 00:00:00",
    )
    account.enter(account.code_of(number))
    account.wait_text("belongs to another account. Use another number.", "#status")
    assert not account.shown("#resend")


# A session, and by how many seconds its proof of the password ages.
AGE = """
import sys
from django.contrib.sessions.backends.db import SessionStore

session = SessionStore(sys.argv[1])
session["password_confirmed_at"] -= int(sys.argv[2])
session.save()
"""


@pytest.mark.parametrize("scripts", [True, False])
def test_password_is_good_for_15_minutes(account, number, site, scripts):
    account.set_scripts(scripts)
    account.open_number()
    session = account.browser.get_cookie("sessionid")["value"]
    site.run(AGE, session, str(14 * 60))
    account.open("/number/")
    assert account.path == "/number/"
    site.run(AGE, session, "60")
    account.type("#id_phone_number", number)
    account.click("#number-form button")
    account.wait_path("/password/")
    assert site.messages(number) == []


def test_account_without_a_code_is_told(account):
    # What earlier tests began.
    account.site.sql("DELETE FROM django_idenfy_phone_phoneverification")
    account.open_number()
    account.open("/number/code/")
    text = account.wait_text("No code is on its way here. Enter your number again")
    assert "Before you have an account" not in text


def test_old_password_still_confirms_a_code_that_was_sent(account, number, site):
    account.ask_code(number)
    account.wait(lambda: account.shown("#code"))
    site.run(AGE, account.browser.get_cookie("sessionid")["value"], str(15 * 60))
    account.browser.refresh()
    account.enter(account.code_of(number))
    account.wait_path("/")
    assert account.text("#phone-number") == number


def test_new_login_asks_for_the_password_again(account, number, site):
    account.open_number()
    account.type("#id_phone_number", number)
    account.browser.delete_cookie("sessionid")
    account.browser.switch_to.new_window("tab")
    account.log_in()
    account.browser.close()
    account.browser.switch_to.window(account.browser.window_handles[0])
    account.click("#number-form button")
    account.wait_path("/password/")
    assert site.messages(number) == []


def test_failure_of_a_second_number_leads_back_to_the_first(account, number):
    account.ask_code(number)
    account.wait(lambda: account.shown("#code"))
    account.ask_code("+12025550109")
    account.wait_text("If a code arrives, it will not work.", "#status")
    account.click("#live")
    account.wait(lambda: account.shown("#code"))
    account.enter(account.code_of(number))
    account.wait_path("/")
