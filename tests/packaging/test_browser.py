"""The example project and the sandbox's inbox work in a real Chromium."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.chromium import By, Keys, WebDriverWait, open_chromium

PROJECT = Path(__file__).parents[2] / "example_project"
NUMBER = "+370 698 76544"


@pytest.fixture(scope="module")
def site():
    """Start the demo. Return its addresses and its password."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    environment.pop("DATABASE_URL", None)
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    with subprocess.Popen(
        [sys.executable, "-m", "demo"],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as demo:
        lines = []
        while not lines or "Ctrl-C" not in lines[-1]:
            lines.append(demo.stdout.readline())
            assert lines[-1], "".join(lines)
        text = "".join(lines)
        yield {
            "url": re.search(r"Site\s+(\S+)/ ", text)[1],
            "inbox": re.search(r"Sandbox inbox\s+(\S+)/", text)[1],
            "password": re.search(r"password (\S+)", text)[1],
        }
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=90)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with open_chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def page(chromium, site):
    return open_page(chromium, site, "demo", "Confirm another number")


def open_page(chromium, site, username, link):
    """Log in and open the page that confirms a number."""
    chromium.delete_all_cookies()
    chromium.get(f"{site['url']}/login/")
    chromium.find_element(By.NAME, "username").send_keys(username)
    field = chromium.find_element(By.NAME, "password")
    field.send_keys(site["password"], Keys.ENTER)
    wait(chromium).until(lambda b: b.find_elements(By.LINK_TEXT, link))
    chromium.find_element(By.LINK_TEXT, link).click()
    wait(chromium).until(lambda b: shown(b, "number"))
    chromium.execute_script("sessionStorage.clear()")
    chromium.refresh()
    wait(chromium).until(lambda b: shown(b, "number"))
    return chromium


def wait(browser):
    return WebDriverWait(browser, 20)


def shown(browser, name):
    return [each for each in browser.find_elements(By.ID, name) if each.is_displayed()]


def enter(browser, name, text):
    field = browser.find_element(By.ID, name)
    field.clear()
    field.send_keys(text, Keys.ENTER)


def text_of(browser, name):
    return browser.find_element(By.ID, name).text


def newest_code(chromium, site):
    """Read the code from the inbox page in a new tab, as a developer would."""
    first = chromium.current_window_handle
    chromium.switch_to.new_window("tab")
    chromium.get(f"{site['inbox']}/")
    text = chromium.find_element(By.TAG_NAME, "body").text
    chromium.close()
    chromium.switch_to.window(first)
    return re.search(r"The iDenfy code: (\d{4})\. Valid for 5 minutes\.", text)[1]


def test_user_confirms_number(page, site):
    enter(page, "number", NUMBER)
    wait(page).until(lambda b: shown(b, "code"))
    field = page.find_element(By.ID, "code")
    assert field.get_attribute("autocomplete") == "one-time-code"
    assert field.get_attribute("inputmode") == "numeric"
    code = newest_code(page, site)
    enter(page, "code", f"{(int(code) + 1) % 10_000:04}")
    wait(page).until(lambda b: text_of(b, "error"))
    enter(page, "code", code)
    wait(page).until(lambda b: shown(b, "phone-number"))
    assert text_of(page, "phone-number") == NUMBER.replace(" ", "")


def test_number_of_another_account_is_told_only_after_its_proof(page, site):
    number = "+370 698 76545"
    enter(page, "number", number)
    wait(page).until(lambda b: shown(b, "code"))
    enter(page, "code", newest_code(page, site))
    wait(page).until(lambda b: shown(b, "phone-number"))
    page = open_page(page, site, "admin", "Confirm a phone number")
    # The demo's cooldown.
    time.sleep(1)
    enter(page, "number", number)
    wait(page).until(lambda b: shown(b, "code"))
    assert text_of(page, "error") == ""
    enter(page, "code", newest_code(page, site))
    wait(page).until(lambda b: "another account" in text_of(b, "error"))
    assert shown(page, "number")


def test_invalid_number_shows_error_text(page):
    enter(page, "number", "12")
    wait(page).until(lambda b: text_of(b, "error"))
    assert "country code" in text_of(page, "error")
    assert page.find_element(By.ID, "number").get_attribute("value") == "12"


def test_number_refused_by_idenfy_shows_error_text(page):
    enter(page, "number", "+12025550101")
    wait(page).until(lambda b: text_of(b, "error"))
    assert shown(page, "number")


def test_pages_log_no_script_error(page):
    severe = [each for each in page.get_log("browser") if each["level"] == "SEVERE"]
    # Chromium logs each refusal of the API as a failed request.
    assert [each for each in severe if each["source"] != "network"] == []
