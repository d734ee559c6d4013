"""Sign-up with the script: the code that was paid for stays usable."""

import re
import time

import pytest

from support.chromium import Keys
from support.pages import PASSWORD

TABLE = "django_idenfy_phone_phoneverification"


def test_visitor_signs_up(pages, number):
    pages.sign_up(number)
    pages.enter(pages.code_of(number))
    pages.wait_path("/")
    assert pages.text("#phone-number") == number
    assert "Your account is ready" in pages.text()


def test_id_and_token_stay_on_the_server(pages, number, site):
    pages.sign_up(number)
    pks = site.sql("SELECT id FROM django_idenfy_phone_phoneverification")
    page = pages.browser.page_source + pages.browser.current_url
    assert pks
    assert not any(pk in page.replace("-", "") for pk in pks)


@pytest.mark.parametrize(
    "pasted",
    ["The iDenfy code: {code}. Valid for 5 minutes.", " {code} ", "iDenfy {code} 12"],
)
def test_pasted_code_submits_itself(pages, number, pasted):
    pages.sign_up(number)
    text = pasted.format(code=pages.code_of(number))
    pages.cdp("Input.insertText", text=text)
    pages.wait_path("/")


def test_only_the_first_complete_code_submits_itself(pages, number):
    pages.sign_up(number)
    pages.enter(pages.wrong_code_of(number))
    pages.wait_text("This code is wrong. You have 2 more tries.", "#error")
    pages.enter(pages.code_of(number))
    pages.wait(lambda: pages.value("#code") == pages.code_of(number))
    time.sleep(0.5)
    assert pages.requests_to("/sign-up/code/") == 1
    pages.find("#code").send_keys(Keys.ENTER)
    pages.wait_path("/")


def test_code_that_is_pasted_after_a_wrong_one_submits_itself(pages, number):
    pages.sign_up(number)
    pages.enter(pages.wrong_code_of(number))
    pages.wait_text("This code is wrong. You have 2 more tries.", "#error")
    pages.find("#code").clear()
    pages.script(
        """const [field, text] = arguments;
        field.value = text;
        const inputType = "insertFromPaste";
        field.dispatchEvent(new InputEvent("input", {inputType, bubbles: true}));""",
        pages.find("#code"),
        pages.code_of(number),
    )
    pages.wait_path("/")


def test_double_click_sends_one_code(pages, number, site):
    pages.fill_sign_up(number)
    pages.script(
        "const b = document.querySelector('#number-form button'); b.click(); b.click()"
    )
    pages.wait(lambda: pages.shown("#code"))
    assert len(site.messages(number)) == 1


def test_two_starts_at_once_without_script_send_one_code(plain, number, site):
    plain.fill_sign_up(number)
    plain.set_scripts(True)
    plain.script(
        """const body = new URLSearchParams(new FormData(arguments[0]));
        window.ends = [1, 2].map(() => fetch('/sign-up/', {method: 'POST', body})
          .then((answer) => answer.url));""",
        plain.find("#number-form"),
    )
    ends = plain.script("return Promise.all(window.ends)")
    assert ends == [f"{site.url}/sign-up/code/"] * 2
    assert plain.code_of(number)
    assert len(site.messages(number)) == 1


def test_lost_answer_to_a_start_finds_the_code_again(pages, number, site):
    pages.fill_sign_up(number)
    pages.lose_next_answer()
    pages.click("#number-form button")
    pages.wait_text("The site could not be reached.", "#form-error")
    pages.click("#number-form button")
    pages.wait(lambda: pages.shown("#code"))
    assert len(site.messages(number)) == 1
    pages.enter(pages.code_of(number))
    pages.wait_path("/")


def test_other_number_and_back_keeps_the_code(pages, number, site):
    pages.sign_up(number)
    pages.click("#change")
    pages.wait(lambda: pages.shown("#live"))
    pages.type("#id_phone_number", "12")
    pages.click("#number-form button")
    pages.wait_text("Estonia, Latvia, Lithuania", "#id_phone_number_error")
    pages.click("#live")
    pages.wait(lambda: pages.shown("#code"))
    pages.enter(pages.code_of(number))
    pages.wait_path("/")


def test_second_tab_takes_the_same_code(pages, number, site):
    pages.sign_up(number)
    pages.browser.switch_to.new_window("tab")
    pages.sign_up(number)
    assert len(site.messages(number)) == 1
    pages.enter(pages.code_of(number))
    pages.wait_path("/")
    pages.browser.close()
    pages.browser.switch_to.window(pages.browser.window_handles[0])
    pages.wait_path("/")


def test_each_tab_keeps_the_number_that_it_shows(pages, number, second_number):
    pages.sign_up(number)
    pages.browser.switch_to.new_window("tab")
    pages.sign_up(second_number)
    pages.browser.switch_to.window(pages.browser.window_handles[0])
    polled = pages.requests_to("/sign-up/status/")
    pages.script("document.dispatchEvent(new Event('visibilitychange'))")
    pages.wait(lambda: pages.requests_to("/sign-up/status/") > polled)
    assert f"{number[-2:]}. Enter its 4 digits." in pages.text("#status")
    pages.enter(pages.code_of(number))
    pages.wait_path("/")
    assert pages.text("#phone-number") == number


def test_code_of_a_number_that_is_forgotten_spends_nothing(
    pages, number, second_number, site
):
    pages.sign_up(number)
    code = pages.code_of(number)
    pages.browser.switch_to.new_window("tab")
    pages.sign_up(second_number)
    site.sql(f"DELETE FROM {TABLE} WHERE phone_number = ?", number)
    pages.browser.switch_to.window(pages.browser.window_handles[0])
    pages.submit(code)
    pages.wait_text("No code is on its way here.")
    found = site.sql(
        f"SELECT checks FROM {TABLE} WHERE phone_number = ?", second_number
    )
    assert found == [0]


@pytest.mark.parametrize("flow", ["visitor", "account"])
def test_back_button_and_same_number_send_no_second_code(pages, number, site, flow):
    if flow == "visitor":
        pages.sign_up(number)
    else:
        pages.log_in()
        pages.ask_code(number)
        pages.wait(lambda: pages.shown("#code"))
    move_start(site, number, 50)
    pages.browser.back()
    pages.wait(lambda: pages.shown("#id_phone_number"))
    if flow == "visitor":
        pages.type("#id_password", PASSWORD)
    pages.type("#id_phone_number", number)
    pages.click("#number-form button")
    pages.wait(lambda: pages.shown("#code"))
    assert len(site.messages(number)) == 1
    pages.enter(pages.code_of(number))
    pages.wait_path("/")


def test_new_code_after_a_reload_is_accepted(pages, number, site):
    pages.sign_up(number)
    pages.browser.refresh()
    pages.wait(lambda: pages.text("#wait") == "", 6)
    pages.click("#resend")
    pages.wait(lambda: len(site.messages(number)) == 2)
    pages.wait(lambda: pages.shown("#code"))
    pages.enter(pages.code_of(number))
    pages.wait_path("/")


def test_code_that_was_maybe_sent_is_told_and_replaced(pages, number, site):
    lost = "+12025550106"
    pages.fill_sign_up(lost)
    pages.click("#number-form button")
    pages.wait_text("If a code arrives, it will not work.", "#status")
    assert pages.text("#wait").startswith("You can ask for a new code in ")
    assert not pages.shown("#code")
    # Such a number fails each time.
    site.rename_number(lost, number)
    pages.browser.refresh()
    pages.wait(lambda: pages.text("#wait") == "", 6)
    pages.click("#resend")
    pages.wait(lambda: pages.shown("#code"))
    pages.enter(pages.code_of(number))
    pages.wait_path("/")
    assert pages.text("#phone-number") == number


def test_failed_new_code_leaves_the_earlier_one_usable(pages, number, site):
    pages.sign_up(number)
    code = pages.code_of(number)
    pages.wait(lambda: pages.text("#wait") == "", 6)
    lost = "+12025550107"
    site.rename_number(number, lost)
    pages.browser.refresh()
    pages.click("#resend")
    pages.wait(lambda: site.messages(lost))
    pages.wait_text("We could not send a new code", "#status")
    pages.enter(pages.wrong_code_of(number))
    pages.wait_text("This code is wrong. You have 2 more tries.", "#error")
    assert "We could not send a new code" in pages.text("#status")
    pages.submit(code)
    pages.wait_path("/")


def test_second_browser_is_told_the_true_wait(pages, other_pages, number, site):
    pages.sign_up(number)
    other_pages.fill_sign_up(number, "kita@example.com")
    other_pages.click("#number-form button")
    text = other_pages.wait_text("It works only where", "#id_phone_number_error")
    assert "You can ask for a new one in " in text
    other_pages.wait(lambda: other_pages.text("#id_phone_number_error") == "", 5)
    other_pages.click("#number-form button")
    other_pages.wait(lambda: other_pages.shown("#code"))


@pytest.mark.parametrize("scripts", [True, False])
def test_lost_session_is_told_and_then_the_true_wait(pages, number, site, scripts):
    pages.set_scripts(scripts)
    pages.sign_up(number)
    move_start(site, number, 50)
    pages.browser.delete_cookie("sessionid")
    pages.browser.refresh()
    pages.wait_text("you get a new code, or see how long you have to wait for one.")
    pages.fill_sign_up(number)
    pages.click("#number-form button")
    text = pages.wait_text("You can ask for a new one in ", "#id_phone_number_error")
    assert "It works only where it was requested." in text
    told = int(re.search(r"in (\d+) seconds", text)[1])
    [left] = site.sql(
        f"SELECT 86400 * (julianday(created_at) - julianday('now')) + 4 FROM {TABLE} "
        "WHERE phone_number = ?",
        number,
    )
    # The answer came before the look at the row.
    assert left <= told <= left + 10
    move_start(site, number, -50)
    pages.fill_sign_up(number)
    pages.click("#number-form button")
    pages.wait(lambda: len(site.messages(number)) == 2)
    pages.wait(lambda: pages.shown("#code"))
    pages.submit(pages.code_of(number))
    pages.wait_path("/")


def move_start(site, number, seconds):
    """As if the only start for this number was made so many seconds from now."""
    later = f"datetime('now', '{seconds} seconds')"
    change = f"UPDATE {TABLE} SET created_at = {later} WHERE phone_number = ?"
    site.sql(change, number)


@pytest.mark.parametrize("scripts", [True, False])
def test_code_after_a_lost_session_is_told(pages, number, scripts):
    pages.set_scripts(scripts)
    pages.sign_up(number)
    pages.browser.delete_cookie("sessionid")
    pages.submit(pages.code_of(number))
    pages.wait_text("No code is on its way here.")
    assert pages.path == "/sign-up/"


def test_lost_answer_to_the_last_confirm_leads_to_the_login(pages, number, site):
    pages.sign_up(number)
    session = pages.browser.get_cookie("sessionid")
    pages.submit(pages.code_of(number))
    pages.wait_path("/")
    pages.browser.delete_cookie("sessionid")
    pages.browser.add_cookie(session)
    pages.open("/sign-up/code/")
    pages.wait_text("If you entered the code already, log in.")


def test_used_email_is_told_before_a_code_is_paid(pages, number, site):
    pages.fill_sign_up(number, "demo@example.com")
    pages.click("#number-form button")
    pages.wait_text("exists already", "#id_email_error")
    assert pages.focused == "id_email"
    assert site.messages(number) == []


def test_email_used_meanwhile_keeps_the_confirmed_number(pages, number):
    pages.confirm_with_used_email(number)
    assert "is confirmed" in pages.text()
    pages.click("#number-form button")
    pages.wait_path("/")
    assert pages.text("#phone-number") == number


@pytest.mark.parametrize("scripts", [True, False])
def test_confirmed_number_that_was_used_too_late_is_told(pages, number, site, scripts):
    pages.confirm_with_used_email(number)
    earlier = "verified_at = datetime(verified_at, '-16 minutes')"
    site.sql(f"UPDATE {TABLE} SET {earlier} WHERE phone_number = ?", number)
    pages.set_scripts(scripts)
    pages.click("#number-form button")
    pages.wait_text("Your confirmed number was not used in time.")
    assert pages.shown("#id_phone_number")


def test_refused_country_is_counted(pages, site):
    pages.fill_sign_up("+4915123456789", "german@example.com")
    pages.click("#number-form button")
    pages.wait_text("Lithuania", "#id_phone_number_error")
    table = "django_idenfy_phone_tally"
    found = site.sql(f"SELECT reason || ' ' || region FROM {table}")
    assert "number_not_supported DE" in found


def test_number_taken_is_told_only_after_the_proof(pages, other_pages, number, site):
    pages.sign_up(number)
    pages.enter(pages.code_of(number))
    pages.wait_path("/")
    # No cooldown any more.
    move_start(site, number, -60)
    other_pages.fill_sign_up(number, "second@example.com")
    other_pages.click("#number-form button")
    other_pages.wait(lambda: other_pages.shown("#code"))
    other_pages.enter(other_pages.code_of(number))
    other_pages.wait_text("This number belongs to another account.")


def test_password_is_stored_hashed_even_in_the_session(pages, number, site):
    pages.sign_up(number)
    sessions = "".join(site.sql("SELECT session_data FROM django_session"))
    assert PASSWORD not in sessions


def test_return_to_a_first_number_returns_to_its_code(
    pages, number, second_number, site
):
    pages.sign_up(number)
    pages.sign_up(second_number)
    pages.sign_up(number)
    assert f"{number[-2:]}." in pages.text("#status")
    assert len(site.messages(number)) == 1
    pages.enter(pages.code_of(number))
    pages.wait_path("/")
    assert pages.text("#phone-number") == number
