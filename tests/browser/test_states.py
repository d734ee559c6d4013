"""Each state and each error has its own sentence, and each wait is true."""

import re
import time

import pytest

NOT_YOUR_FAULT = "That was not your fault."
MAYBE_SENT = "If a code arrives, it will not work."
SENT = "We sent a code by SMS to"
UNKNOWN = "We could not find out whether this code is right. That is not your fault."
VERIFICATION = "django_idenfy_phone_phoneverification"


def move(site, number, column, seconds):
    """Move a stored moment of a verification back."""
    site.sql(
        f"UPDATE {VERIFICATION} SET {column} = datetime({column}, ?) "
        "WHERE phone_number = ?",
        f"{-seconds} seconds",
        number,
    )


def start(pages, number):
    pages.fill_sign_up(number, f"states{number[1:]}@example.com")
    pages.click("#number-form button")


@pytest.mark.parametrize(
    ("last_digits", "sentence"),
    [
        ("01", "No code can be sent to +1********01. Check the number"),
        ("02", NOT_YOUR_FAULT),
        ("03", NOT_YOUR_FAULT),
        ("04", "We are sending a code by SMS to"),
        ("05", "We are sending a code by SMS to"),
        *[(f"{each:02}", MAYBE_SENT) for each in (6, 7, 8, 9, 10, 11, 12, 13, 14)],
        ("15", SENT),
        ("16", SENT),
    ],
)
def test_each_send_has_its_sentence(pages, last_digits, sentence):
    start(pages, f"+120255501{last_digits}")
    pages.wait_text(sentence, "#status")


@pytest.mark.parametrize(
    ("last_digits", "sentence"),
    [
        ("20", UNKNOWN),
        ("21", UNKNOWN),
        ("22", "Codes cannot be sent or checked just now. That is not your fault."),
        ("23", UNKNOWN),
        ("24", "This code is wrong. You have 2 more tries."),
        ("25", "This code is wrong. You have 2 more tries."),
    ],
)
def test_each_check_has_its_sentence(pages, last_digits, sentence):
    number = f"+120255501{last_digits}"
    pages.sign_up(number, f"checks{last_digits}@example.com")
    pages.enter(pages.code_of(number))
    pages.wait_text(sentence, "#error")
    assert pages.focused == "code"


def test_wait_for_a_check_counts_down(pages):
    number = "+12025550122"
    pages.sign_up(number, "waits@example.com")
    pages.enter(pages.code_of(number))
    first = pages.wait_text("Please try again in ", "#error")
    pages.wait(lambda: pages.text("#error") != first)
    assert "Please try again in " in pages.text("#error")
    # No screen reader tells each second.
    assert pages.find("#error").get_attribute("role") is None


def test_paused_site_tells_when_to_come_back(pages, number):
    start(pages, "+12025550102")
    pages.wait_text(NOT_YOUR_FAULT, "#status")
    start(pages, number)
    text = pages.wait_text("Please try again in", "#id_phone_number_error")
    assert "not your fault" in text


def test_lost_check_has_its_own_ending(pages):
    number = "+12025550120"
    pages.sign_up(number, "lost@example.com")
    pages.enter(pages.code_of(number))
    pages.wait_text(UNKNOWN, "#error")
    pages.submit(pages.wrong_code_of(number))
    pages.wait_text("We could not find out whether your code was right.", "#status")
    assert (pages.text("#error"), pages.shown("#code")) == ("", False)


def test_lost_check_of_an_account_is_remembered(pages):
    number = "+12025550121"
    pages.log_in()
    pages.ask_code(number)
    pages.wait(lambda: pages.shown("#code"))
    for _ in range(3):
        pages.wait(lambda: pages.find("body").get_attribute("aria-busy") is None)
        pages.submit(pages.code_of(number))
        time.sleep(0.3)
    pages.wait_text("We could not find out whether your code was right.", "#status")


def test_wrong_codes_to_lock(pages, number):
    pages.sign_up(number)
    for told in ("You have 2 more tries.", "You have 1 more try."):
        pages.submit(pages.wrong_code_of(number))
        pages.wait_text(told, "#error")
    pages.submit(pages.wrong_code_of(number))
    pages.wait_text("No tries are left for this code.", "#status")
    assert pages.focused == "resend"


def test_expired_code_is_told(pages, number, site):
    pages.sign_up(number)
    move(site, number, "expires_at", 600)
    pages.submit(pages.code_of(number))
    pages.wait_text("This code is too old to be used.", "#status")
    assert not pages.shown("#code")


@pytest.mark.parametrize("scripts", [True, False])
def test_old_code_is_told_after_five_minutes(pages, number, site, scripts):
    pages.set_scripts(scripts)
    pages.sign_up(number)
    # It may have waited before it was sent.
    move(site, number, "created_at", 301)
    pages.browser.refresh()
    pages.wait(lambda: pages.shown("#code"))
    assert not pages.shown("#old")
    for column in ("claimed_at", "expires_at"):
        move(site, number, column, 301)
    pages.browser.refresh()
    pages.wait_text("valid for 5 minutes", "#old")


def test_page_says_that_a_call_may_follow(pages, number):
    pages.sign_up(number)
    assert "after 2 minutes, a call may read the code" in pages.text("#code-form")


# Five rows say how fast people are.
PROVE = """
from django_idenfy_phone.testing import verify_number
for each in range(5):
    verify_number(None, f"+3706009900{each}")
"""


@pytest.mark.parametrize("scripts", [True, False])
def test_page_says_how_soon_people_enter_their_code(pages, number, site, scripts):
    site.run(PROVE)
    table, proved = VERIFICATION, "verified_at IS NOT NULL"
    later = "verified_at = datetime(sent_at, '37 seconds')"
    site.sql(f"UPDATE {table} SET {later} WHERE {proved}")
    pages.set_scripts(scripts)
    pages.sign_up(number)
    told = "Of the people who entered their code lately, half did so within 37 seconds."
    assert pages.text("#usual-time") == told


@pytest.mark.parametrize("flow", ["visitor", "account"])
def test_countdown_is_true_after_each_send(pages, number, site, flow):
    if flow == "visitor":
        pages.sign_up(number)
    else:
        pages.log_in()
        pages.ask_code(number)
    for sends, seconds in enumerate((4, 8), start=1):
        pages.wait(lambda s=seconds: says(pages, s))
        pages.wait(lambda: pages.text("#wait") == "", 15)
        pages.click("#resend")
        pages.wait(lambda n=sends: len(site.messages(number)) == n + 1)
    pages.wait(lambda: says(pages, 12))


def says(pages, seconds):
    """Whether the countdown began there: on a busy machine, seconds have passed."""
    shown = [f"in {seconds - passed} second" for passed in range(4)]
    return any(each in pages.text("#wait") for each in shown)


# Returns to the page again and again, and notes what the countdown shows.
WATCH = """
return new Promise((done) => {
  const seen = [];
  const timer = setInterval(() => {
    seen.push(Number(document.querySelector("#wait").textContent.match(/[0-9]+/)));
    if (seen.length % 5 === 0) document.dispatchEvent(new Event("visibilitychange"));
    if (seen.length < 60) return;
    clearInterval(timer);
    done(seen);
  }, 50);
});
"""


def test_countdown_only_falls(pages, number, site):
    pages.sign_up(number)
    # Between two seconds, which a Date header cannot tell.
    later = "strftime('%Y-%m-%d %H:%M:%S.100000', 'now', '50 seconds')"
    change = f"UPDATE {VERIFICATION} SET created_at = {later} WHERE phone_number = ?"
    site.sql(change, number)
    pages.browser.refresh()
    pages.wait_text("You can ask for a new code in ", "#wait")
    seen = pages.script(WATCH)
    assert seen == sorted(seen, reverse=True)


def test_wrong_code_leaves_the_countdown_true(pages, number, site):
    pages.sign_up(number)
    pages.wait(lambda: pages.text("#wait") == "", 6)
    pages.click("#resend")
    pages.wait(lambda: len(site.messages(number)) == 2)
    move(site, number, "created_at", -50)
    pages.wait(lambda: pages.shown("#code"))
    pages.submit(pages.wrong_code_of(number))
    pages.wait_text("This code is wrong.", "#error")
    told = int(re.search(r"in (\d+) seconds", pages.text("#wait"))[1])
    # The cooldown after a second send.
    newest = "86400 * (julianday(MAX(created_at)) - julianday('now')) + 8"
    [left] = site.sql(
        f"SELECT {newest} FROM {VERIFICATION} WHERE phone_number = ?", number
    )
    assert told >= left


def test_refused_new_code_leaves_the_countdown_true(pages, other_pages, number, site):
    pages.sign_up(number)
    pages.wait(lambda: pages.text("#wait") == "", 6)
    other_pages.sign_up(number, f"other{number[1:]}@example.com")
    later = "created_at = datetime(created_at, '50 seconds')"
    newest = f"SELECT MAX(created_at) FROM {VERIFICATION}"
    site.sql(f"UPDATE {VERIFICATION} SET {later} WHERE created_at = ({newest})")
    pages.click("#resend")
    pages.wait_text("You can ask for a new code in ", "#wait")
    polled = pages.requests_to("/sign-up/status/")
    pages.script("document.dispatchEvent(new Event('visibilitychange'))")
    pages.wait(lambda: pages.requests_to("/sign-up/status/") >= polled + 2)
    assert pages.text("#wait").startswith("You can ask for a new code in ")


@pytest.mark.parametrize("scripts", [True, False])
def test_only_a_wrong_code_marks_the_field_as_invalid(pages, number, scripts):
    pages.set_scripts(scripts)
    pages.sign_up(number)
    assert is_invalid(pages) is None
    for code, told in (("12", "Enter the 4 digits"), ("", "This code is wrong.")):
        pages.submit(code or pages.wrong_code_of(number))
        pages.wait_text(told, "#error")
        assert is_invalid(pages) == "true"


def is_invalid(pages):
    return pages.find("#code").get_attribute("aria-invalid")


@pytest.mark.parametrize("last_digits", ["20", "22"])
@pytest.mark.parametrize("scripts", [True, False])
def test_trouble_elsewhere_leaves_the_field_valid(pages, scripts, last_digits):
    number = f"+120255501{last_digits}"
    pages.set_scripts(scripts)
    pages.sign_up(number, f"valid{last_digits}@example.com")
    pages.submit(pages.code_of(number))
    pages.wait_text("That is not your fault.", "#error")
    assert is_invalid(pages) is None


def test_refused_new_code_leaves_the_field_valid(plain, number):
    plain.sign_up(number)
    plain.click("#resend")
    plain.wait_text("You can ask for a new one in", "#error")
    assert is_invalid(plain) is None


def test_long_wait_is_told_in_minutes(pages, number):
    pages.sign_up(number)
    text = pages.script(
        "return import('/static/accounts/page.js').then((page) => "
        "[59, 60, 3414, 3600, 90000].map(page.inTime))"
    )
    assert text == [
        "in 59 seconds",
        "in 1 minute",
        "in 57 minutes",
        "in 1 hour",
        "in 2 days",
    ]


def test_offline_is_told_and_the_code_stays(pages, number):
    pages.sign_up(number)
    code = pages.code_of(number)
    pages.set_network(offline=True)
    pages.enter(code)
    pages.wait_text("The site could not be reached.", "#error")
    assert is_invalid(pages) is None
    pages.set_network()
    pages.wait(lambda: pages.value("#code") == code)
    pages.click("#code-form button")
    pages.wait_path("/")


def test_slow_network_sends_one_code(pages, number, site):
    pages.fill_sign_up(number)
    pages.set_network(latency=1500)
    pages.click("#number-form button")
    pages.click("#number-form button")
    pages.wait(lambda: pages.shown("#code"), 30)
    pages.set_network()
    assert len(site.messages(number)) == 1


def test_polling_slows_down(pages, number):
    pages.sign_up(number)
    pages.browser.refresh()
    time.sleep(4)
    assert 2 <= pages.requests_to("/sign-up/status/") <= 5


def test_polling_stops_where_the_session_ended(pages, number, site):
    pages.lose_login(number)
    path = pages.find("#panel").get_attribute("data-status-url")
    asked = pages.requests_to(path)
    time.sleep(2)
    assert pages.requests_to(path) == asked


# Answers each request by this status, and counts them.
ANSWER = """
const [status] = arguments;
window.answered = 0;
window.fetch = async () => {
  window.answered += 1;
  return new Response("{}", { status });
};
"""


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "You are logged out. Please log in again."),
        (403, "This page is out of date. Please reload it."),
    ],
)
def test_polling_stops_by_the_status(pages, number, status, told):
    pages.sign_up(number)
    pages.script(ANSWER, status)
    pages.script("document.dispatchEvent(new Event('visibilitychange'))")
    pages.wait_text(told, "#error")
    asked = pages.script("return window.answered")
    time.sleep(2)
    assert pages.script("return window.answered") == asked
    assert pages.shown("#log-in") == (status == 401)


def test_polling_stops_where_the_row_is_gone_until_the_return(pages, number, site):
    pages.sign_up(number)
    is_mine = f"FROM {VERIFICATION} WHERE phone_number = ?"
    site.sql(f"CREATE TABLE kept AS SELECT * {is_mine}", number)
    try:
        site.sql(f"DELETE {is_mine}", number)
        pages.wait_text("No code is on its way here.", "#error")
        asked = pages.requests_to("/sign-up/status/")
        time.sleep(2)
        assert pages.requests_to("/sign-up/status/") == asked
        site.sql(f"INSERT INTO {VERIFICATION} SELECT * FROM kept")
    finally:
        site.sql("DROP TABLE kept")
    pages.script("document.dispatchEvent(new Event('visibilitychange'))")
    pages.wait(lambda: pages.requests_to("/sign-up/status/") >= asked + 3)
    assert pages.text("#error") == ""
    pages.enter(pages.code_of(number))
    pages.wait_path("/")


def test_out_of_date_form_is_told_to_people(plain, number):
    plain.sign_up(number)
    plain.browser.delete_cookie("csrftoken")
    plain.click("#code-form button")
    plain.wait_text("This page is out of date")
    assert "CSRF" not in plain.text()


def test_out_of_date_script_is_told_to_people(pages, number):
    pages.sign_up(number)
    pages.browser.delete_cookie("csrftoken")
    pages.enter(pages.code_of(number))
    pages.wait_text("This page is out of date. Please reload it.", "#error")
    assert "CSRF" not in pages.text()
