"""Both flows to the end without JavaScript."""

import pytest

from support.pages import PASSWORD

TABLE = "django_idenfy_phone_phoneverification"


def submit_code(pages, code):
    pages.type("#code", code)
    pages.click("#code-form button")


def test_visitor_signs_up(plain, number):
    plain.sign_up(number)
    submit_code(plain, plain.code_of(number))
    plain.wait_path("/")
    assert "Your account is ready" in plain.text()
    assert plain.text("#phone-number") == number


def test_new_account_can_log_in(plain, number):
    plain.sign_up(number, "jonas@example.com")
    submit_code(plain, plain.code_of(number))
    plain.wait_path("/")
    plain.browser.delete_all_cookies()
    plain.log_in("JONAS@example.com".lower(), PASSWORD)
    assert plain.text("#phone-number") == number


def test_reload_of_a_wrong_code_spends_no_second_try(plain, number):
    plain.sign_up(number)
    submit_code(plain, plain.wrong_code_of(number))
    plain.wait_text("This code is wrong. You have 2 more tries.")
    plain.browser.refresh()
    submit_code(plain, plain.wrong_code_of(number))
    plain.wait_text("This code is wrong. You have 1 more try.")


def test_wrong_codes_to_lock_blame_nobody(plain, number):
    plain.sign_up(number)
    for told in ("2 more tries.", "1 more try.", "No tries are left for this code."):
        submit_code(plain, plain.wrong_code_of(number))
        plain.wait_text(told)
    assert not plain.shown("#code")
    assert plain.shown("#resend")


def test_page_reloads_itself_while_sending(plain, number, site):
    plain.sign_up(number)
    change = "UPDATE django_idenfy_phone_phoneverification SET status = ? WHERE "
    site.sql(change + "phone_number = ?", "sending", number)
    plain.open("/sign-up/code/")
    assert "We are sending a code" in plain.text()
    site.sql(change + "phone_number = ?", "sent", number)
    plain.wait(lambda: plain.shown("#code"))


def test_back_button_and_same_number_send_no_second_code(plain, number, site):
    plain.sign_up(number)
    plain.browser.back()
    plain.fill_sign_up(number)
    plain.click("#number-form button")
    plain.wait(lambda: plain.shown("#code"))
    assert len(site.messages(number)) == 1
    submit_code(plain, plain.code_of(number))
    plain.wait_path("/")


def test_other_number_keeps_the_paid_code(plain, number):
    plain.sign_up(number)
    plain.click("#change")
    plain.click("#live")
    submit_code(plain, plain.code_of(number))
    plain.wait_path("/")


def test_new_code_after_a_lost_session_is_told(plain, number):
    plain.sign_up(number)
    plain.browser.delete_cookie("sessionid")
    plain.click("#resend")
    plain.wait_text("If you entered the code already, log in.")


def test_new_code_waits_as_people_say_it(plain, number):
    plain.sign_up(number)
    plain.click("#resend")
    plain.wait_text("You can ask for a new one in", "#error")
    assert plain.text("#wait").startswith("You can ask for a new code in ")


def test_account_adds_a_number_after_its_password(plain, number, site):
    plain.log_in()
    plain.ask_code(number)
    plain.wait(lambda: plain.shown("#code"))
    submit_code(plain, plain.code_of(number))
    plain.wait_path("/")
    assert plain.text("#phone-number") == number
    assert f"is now +370******{number[-2:]}" in "".join(site.mails())


def test_wrong_password_changes_nothing(plain):
    plain.log_in()
    plain.open("/number/")
    plain.type("#id_password", "wrong")
    plain.click("main button")
    plain.wait_text("This password is wrong.")
    plain.open("/number/")
    assert plain.path == "/password/"


def test_account_uses_two_tabs_and_reloads(plain, number, site):
    plain.log_in()
    plain.ask_code(number)
    plain.wait(lambda: plain.shown("#code"))
    first = plain.browser.current_window_handle
    plain.browser.switch_to.new_window("tab")
    plain.set_scripts(False)
    plain.open("/number/code/")
    submit_code(plain, plain.wrong_code_of(number))
    plain.wait_text("This code is wrong. You have 2 more tries.")
    plain.browser.refresh()
    assert plain.shown("#code")
    second = plain.browser.current_window_handle
    plain.browser.switch_to.window(first)
    plain.browser.refresh()
    submit_code(plain, plain.code_of(number))
    plain.wait_path("/")
    assert plain.text("#phone-number") == number
    plain.browser.switch_to.window(second)
    submit_code(plain, plain.code_of(number))
    plain.wait_path("/")
    assert plain.text("#phone-number") == number
    assert len(site.messages(number)) == 1


def test_visitor_uses_two_tabs(plain, number, site):
    plain.sign_up(number)
    first = plain.browser.current_window_handle
    plain.browser.switch_to.new_window("tab")
    plain.set_scripts(False)
    plain.sign_up(number)
    assert len(site.messages(number)) == 1
    submit_code(plain, plain.code_of(number))
    plain.wait_path("/")
    plain.browser.switch_to.window(first)
    plain.browser.refresh()
    plain.wait_path("/")


def test_account_that_was_logged_out_goes_on_after_the_login(plain, number):
    plain.log_in()
    plain.ask_code(number)
    plain.wait(lambda: plain.shown("#code"))
    plain.browser.delete_cookie("sessionid")
    submit_code(plain, plain.code_of(number))
    plain.wait_path("/login/?next=/number/code/")
    plain.type("#id_username", "demo@example.com")
    plain.type("#id_password", plain.site.password)
    plain.click("main button")
    plain.wait(lambda: plain.shown("#code"))
    submit_code(plain, plain.code_of(number))
    plain.wait_path("/")
    assert plain.text("#phone-number") == number


@pytest.mark.parametrize("flow", ["visitor", "account"])
def test_code_goes_to_the_number_that_its_tab_shows(
    plain, number, second_number, site, flow
):
    if flow == "account":
        plain.log_in()
    first = show_code(plain, flow, number)
    plain.browser.switch_to.new_window("tab")
    plain.set_scripts(False)
    show_code(plain, flow, second_number)
    second = plain.browser.current_window_handle
    plain.browser.switch_to.window(first)
    submit_code(plain, plain.wrong_code_of(number))
    plain.wait_text("This code is wrong. You have 2 more tries.")
    assert f"{number[-2:]}. Enter its 4 digits." in plain.text("#status")
    assert checks_of(site, second_number) == [0]
    earlier = "created_at = datetime(created_at, '-60 seconds')"
    site.sql(f"UPDATE {TABLE} SET {earlier} WHERE phone_number = ?", number)
    plain.click("#resend")
    plain.wait(lambda: len(site.messages(number)) == 2)
    plain.browser.switch_to.window(second)
    submit_code(plain, plain.code_of(second_number))
    plain.wait_path("/")
    assert plain.text("#phone-number") == second_number


def show_code(pages, flow, number):
    """The window that shows it."""
    if flow == "visitor":
        pages.sign_up(number)
    else:
        pages.ask_code(number)
        pages.wait(lambda: pages.shown("#code"))
    return pages.browser.current_window_handle


def checks_of(site, number):
    return site.sql(f"SELECT checks FROM {TABLE} WHERE phone_number = ?", number)


def test_account_returns_to_its_number_by_the_back_button(plain, number, site):
    plain.log_in()
    plain.ask_code(number)
    plain.wait(lambda: plain.shown("#code"))
    plain.browser.back()
    plain.type("#id_phone_number", number)
    plain.click("#number-form button")
    plain.wait(lambda: plain.shown("#code"))
    assert len(site.messages(number)) == 1
