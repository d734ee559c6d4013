"""The sandbox's inbox in a real Chromium: it keeps up, fits and passes axe."""

import pytest
import requests

from django_idenfy_phone.sandbox.server import SandboxServer
from support.chromium import (
    By,
    Keys,
    WebDriverWait,
    open_chromium,
    set_theme,
    set_width,
)
from support.constants import NUMBER

axe = pytest.importorskip(
    "axe_core_python.selenium", reason="pip install axe-core-python"
)

THEMES = ["light", "dark"]
# Adds each text that a live region gets to window.announced.
LISTEN = """
window.announced = [];
for (const region of document.querySelectorAll("[aria-live]")) {
  new MutationObserver((changes) => {
    for (const change of changes) for (const node of change.addedNodes)
      if (node.textContent.trim()) window.announced.push(node.textContent);
  }).observe(region, { childList: true, characterData: true, subtree: true });
}
"""
SELECT = "getSelection().selectAllChildren(document.querySelector('#messages span'))"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with open_chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def sandbox():
    with SandboxServer("key", "secret") as server:
        yield server


@pytest.fixture
def page(chromium, sandbox):
    """The inbox with one message, at 320 pixels."""
    set_width(chromium, 320)
    send(sandbox)
    chromium.get(sandbox.url)
    chromium.get_log("browser")
    return chromium


def post(sandbox, path, body):
    auth = ("key", "secret")
    return requests.post(sandbox.url + path, json=body, auth=auth, timeout=5)


def send(sandbox, number=NUMBER):
    return post(sandbox, "/fraud/send-sms", {"phone_number": number})


def check(sandbox, number, code):
    request_id = send(sandbox, number).json()["request_id"]
    body = {"request_id": request_id, "received_code": code}
    return post(sandbox, "/fraud/verify-sms", body)


def send_all_kinds(sandbox):
    for number in ("+12025550101", "+12025550103", "+12025550116", "x" * 40):
        send(sandbox, number)
    for number in ("+12025550121", "+12025550122", "+12025550123", "+12025550125"):
        check(sandbox, number, "1234")
    send(sandbox, "+12025550102")


def rows(browser, name):
    return browser.find_elements(By.CSS_SELECTOR, f"#{name} > *")


def wait_for_rows(browser, name, count):
    WebDriverWait(browser, 10).until(lambda b: len(rows(b, name)) == count)


def top_of(row):
    return round(
        row.parent.execute_script(
            "return arguments[0].getBoundingClientRect().top", row
        )
    )


def test_new_message_comes_in_without_reload(page, sandbox):
    page.execute_script("window.isSamePage = true")
    old = rows(page, "messages")[0]
    send(sandbox, "+12025550116")
    wait_for_rows(page, "messages", 2)
    new = rows(page, "messages")[0].text
    assert "Call to +12025550116\nA voice reads the code" in new
    assert page.execute_script("return window.isSamePage")
    assert rows(page, "messages")[1] == old


def test_selection_and_focus_stay(page, sandbox):
    page.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    page.execute_script(SELECT)
    selected = page.execute_script("return String(getSelection())")
    send(sandbox)
    wait_for_rows(page, "messages", 2)
    assert page.execute_script("return String(getSelection())") == selected != ""
    assert page.switch_to.active_element.text == "inbox.json"


def test_reader_stays_at_the_same_row(page, sandbox):
    row = rows(page, "requests")[-1]
    page.execute_script("scrollTo(0, arguments[0].offsetTop)", row)
    before, scrolled = top_of(row), page.execute_script("return scrollY")
    send(sandbox)
    wait_for_rows(page, "requests", 2)
    assert (top_of(row), page.execute_script("return scrollY") > scrolled) == (
        before,
        True,
    )


def test_answer_replaces_only_its_row(page, sandbox):
    exchange = sandbox.state.count_request("send")
    wait_for_rows(page, "requests", 2)
    waiting, answered = rows(page, "requests")
    exchange.status = 200
    WebDriverWait(page, 10).until(lambda b: rows(b, "requests")[0] != waiting)
    assert rows(page, "requests")[0].text.endswith("\n200")
    assert rows(page, "requests")[1] == answered


def test_pause_is_shown_and_ends(page, sandbox):
    send(sandbox, "+12025550104")
    wait_for_rows(page, "pauses", 1)
    assert "+12025550104 was answered 429" in rows(page, "pauses")[0].text
    wait_for_rows(page, "pauses", 0)


def test_each_message_and_pause_is_announced_once(page, sandbox):
    page.execute_script(LISTEN)
    send(sandbox, "+12025550116")
    send(sandbox, "+12025550102")
    wait_for_rows(page, "requests", 3)
    count_refreshes(page, 3)
    announced = page.execute_script("return window.announced")
    kinds = ["Call to ", "The app now sends nothing "]
    assert len(announced) == 2
    assert all(map(str.startswith, sorted(announced), kinds))


def count_refreshes(browser, count):
    """Wait until the page has asked the sandbox so many times more."""
    script = "return performance.getEntriesByType('resource').length"
    last = browser.execute_script(script) + count
    WebDriverWait(browser, 20).until(lambda b: b.execute_script(script) >= last)


def test_stopped_sandbox_is_announced_once(page, sandbox):
    page.execute_script(LISTEN)
    sandbox.stop()
    count_refreshes(page, 3)
    text = "The sandbox does not answer. This page tries again."
    assert page.execute_script("return window.announced") == [text]
    sandbox.start()
    WebDriverWait(page, 10).until(
        lambda b: b.find_element(By.ID, "connection").text == ""
    )


@pytest.mark.parametrize("width", [320, 375, 1200])
def test_nothing_is_wider_than_the_page(page, sandbox, width):
    send_all_kinds(sandbox)
    set_width(page, width)
    page.refresh()
    script = "const { scrollWidth, clientWidth } = document.documentElement;"
    script += "return [scrollWidth - clientWidth, innerWidth]"
    assert page.execute_script(script) == [0, width]


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", [320, 1200])
def test_axe_finds_nothing(page, sandbox, width, theme):
    send_all_kinds(sandbox)
    set_width(page, width)
    set_theme(page, theme)
    page.refresh()
    found = axe.Axe().run(page)
    assert [(each["id"], each["nodes"]) for each in found["violations"]] == []
    assert "color-contrast" in {each["id"] for each in found["passes"]}
    assert [each["id"] for each in found["incomplete"]] == []


def test_each_theme_has_a_background_of_its_own(page):
    script = "return getComputedStyle(document.body).backgroundColor"
    found = []
    for theme in THEMES:
        set_theme(page, theme)
        found.append(page.execute_script(script))
    assert found == ["rgb(255, 255, 255)", "rgb(22, 23, 26)"]


def test_page_logs_no_script_error(page, sandbox):
    send_all_kinds(sandbox)
    count_refreshes(page, 2)
    assert page.get_log("browser") == []
