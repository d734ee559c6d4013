"""The pages pass axe, fit small screens, and work by keyboard alone."""

import pytest

from support.chromium import By, Keys
from support.pages import PASSWORD

axe = pytest.importorskip(
    "axe_core_python.selenium", reason="pip install axe-core-python"
)

MEDIA = {
    "light": {"theme": "light"},
    "dark": {"theme": "dark"},
    "forced": {"theme": "dark", "forced": "active"},
}
# Adds each text that a live region gets to window.announced.
LISTEN = """
window.announced = [];
for (const region of document.querySelectorAll("[role=status], [role=alert]")) {
  new MutationObserver(() => {
    const text = region.textContent.trim();
    if (text) window.announced.push(text);
  }).observe(region, { childList: true, characterData: true, subtree: true });
}
"""
# The lowest contrast between what marks a control and the page behind it.
LOWEST_CONTRAST = """
function luminance(color) {
  const parts = color.match(/[0-9.]+/g).slice(0, 3).map((part) => part / 255);
  const linear = (x) => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
  const [r, g, b] = parts.map(linear);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function contrast(one, two) {
  const [low, high] = [luminance(one), luminance(two)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}
const page = getComputedStyle(document.documentElement).backgroundColor;
const controls = [...document.querySelectorAll("main :is(input, select, button, a)")];
const visible = controls.filter((each) => each.checkVisibility());
return Math.min(...visible.flatMap((each) => {
  each.focus();
  const style = getComputedStyle(each);
  return [contrast(style.borderTopColor, page), contrast(style.outlineColor, page)];
}));
"""


def show_login(pages, number):
    pages.open("/login/")


def show_sign_up(pages, number):
    pages.open("/sign-up/")


def show_sign_up_errors(pages, number):
    pages.open("/sign-up/")
    # By the keyboard, as for the outline of the focus.
    pages.find("#id_email").send_keys(Keys.ENTER)
    pages.wait_text("required", "#id_email_error")


def show_code(pages, number):
    pages.sign_up(number)


def show_wrong_code(pages, number):
    pages.sign_up(number)
    pages.submit(pages.wrong_code_of(number))
    pages.wait_text("This code is wrong", "#error")


def show_sending(pages, number):
    pages.fill_sign_up("+12025550104")
    pages.click("#number-form button")
    pages.wait_text("We are sending a code", "#status")


def show_locked(pages, number):
    pages.sign_up(number)
    table = "django_idenfy_phone_phoneverification"
    change = f"UPDATE {table} SET status = 'locked' WHERE phone_number = ?"
    pages.site.sql(change, number)
    pages.wait_text("No tries are left for this code.", "#status")


def show_logged_out(pages, number):
    pages.lose_login(number)


def show_confirmed(pages, number):
    pages.confirm_with_used_email(number)


def show_refused_number(pages, number):
    pages.fill_sign_up("+12025550101")
    pages.click("#number-form button")
    pages.wait_text("No code can be sent", "#status")


def show_live_code(pages, number):
    pages.sign_up(number)
    pages.click("#change")
    pages.wait(lambda: pages.shown("#live"))


def show_profile(pages, number):
    pages.log_in()


def show_password(pages, number):
    pages.log_in()
    pages.open("/number/")


def show_number(pages, number):
    pages.log_in()
    pages.open_number()


def show_missing(pages, number):
    pages.open("/nowhere/")


def show_out_of_date(pages, number):
    pages.open("/login/")
    pages.browser.delete_cookie("csrftoken")
    pages.click("main button")
    pages.wait_text("This page is out of date", "h1")


PAGES = [
    show_login,
    show_sign_up,
    show_sign_up_errors,
    show_code,
    show_wrong_code,
    show_sending,
    show_locked,
    show_logged_out,
    show_confirmed,
    show_refused_number,
    show_live_code,
    show_profile,
    show_password,
    show_number,
    show_missing,
    show_out_of_date,
]


@pytest.fixture(autouse=True)
def light_again(pages):
    yield
    pages.set_media(theme="light", forced="none")


@pytest.mark.parametrize("show", PAGES)
def test_page_passes_axe_and_fits(pages, number, show):
    # A window of 640 pixels at 200 % is as wide.
    pages.set_width(320)
    show(pages, number)
    for features in MEDIA.values():
        pages.set_media(**features)
        found = axe.Axe().run(pages.browser)
        # It puts what it could not judge under "incomplete".
        bad = [*found["violations"], *found["incomplete"]]
        assert [(each["id"], each["nodes"][0]["html"]) for each in bad] == []
        assert "color-contrast" in {each["id"] for each in found["passes"]}
    wide = pages.script("return document.documentElement.scrollWidth")
    assert wide <= 320


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("show", [show_sign_up, show_sign_up_errors, show_wrong_code])
def test_borders_and_focus_have_contrast(pages, number, show, theme):
    pages.set_media(theme=theme)
    show(pages, number)
    assert pages.script(LOWEST_CONTRAST) >= 3


def test_sign_up_by_keyboard_alone(pages, number):
    pages.open("/sign-up/")
    press(pages, until="id_email")
    keys(pages, f"k{number[1:]}@example.com", Keys.TAB, PASSWORD, Keys.TAB)
    keys(pages, "Lith", Keys.TAB, number, Keys.ENTER)
    pages.wait(lambda: pages.focused == "code")
    keys(pages, pages.code_of(number))
    pages.wait_path("/")


def test_new_code_by_keyboard_alone(pages, number, site):
    pages.sign_up(number)
    press(pages, until="resend")
    pages.wait(lambda: pages.text("#wait") == "", 6)
    keys(pages, Keys.ENTER)
    pages.wait(lambda: len(site.messages(number)) == 2)
    pages.wait(lambda: pages.focused == "code")


def keys(pages, *pressed):
    for each in pressed:
        pages.browser.switch_to.active_element.send_keys(each)


def press(pages, until):
    """Press Tab until this control has the focus."""
    for _ in range(20):
        if pages.focused == until:
            return
        keys(pages, Keys.TAB)
    raise AssertionError(f"The keyboard does not reach {until}.")


def test_nothing_is_announced_twice(pages, number):
    pages.sign_up(number)
    pages.script(LISTEN)
    pages.submit(pages.wrong_code_of(number))
    pages.wait_text("This code is wrong", "#error")
    pages.script("document.dispatchEvent(new Event('visibilitychange'))")
    pages.wait(lambda: pages.text("#wait") == "", 6)
    assert pages.script("return window.announced") == [
        "This code is wrong. You have 2 more tries."
    ]


def test_end_of_a_code_is_announced_once_and_focus_moves(pages, number):
    pages.sign_up(number)
    for told in ("2 more tries", "1 more try"):
        pages.submit(pages.wrong_code_of(number))
        pages.wait_text(told, "#error")
    pages.script(LISTEN)
    pages.submit(pages.wrong_code_of(number))
    pages.wait(lambda: pages.focused == "resend")
    told = "No tries are left for this code. Please ask for a new code."
    assert pages.script("return window.announced") == [told]


@pytest.mark.parametrize("show", PAGES)
def test_page_names_its_language_and_its_fields(pages, number, show):
    show(pages, number)
    assert pages.find("html").get_attribute("lang") == "en"
    inputs = pages.browser.find_elements(By.CSS_SELECTOR, "main input, main select")
    names = [each.accessible_name for each in inputs if each.is_displayed()]
    assert all(names)


@pytest.mark.parametrize("show", PAGES)
def test_page_logs_no_script_error(pages, number, show):
    show(pages, number)
    severe = [e for e in pages.browser.get_log("browser") if e["level"] == "SEVERE"]
    # Chromium logs each refusal as a failed request.
    assert [each for each in severe if each["source"] != "network"] == []
