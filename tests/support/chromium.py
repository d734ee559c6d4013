"""A real Chromium for the tests of pages, which are skipped where it is missing."""

import logging
import shutil
from contextlib import contextmanager

import pytest

REASON = "pip install selenium, and Debian's chromium and chromium-driver, to run this"
pytest.importorskip("selenium", reason=REASON)
if not (shutil.which("chromium") and shutil.which("chromedriver")):
    pytest.skip(REASON, allow_module_level=True)

from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

# Tests import all of it from here: selenium itself may be missing.
__all__ = ["By", "Keys", "WebDriverWait", "open_chromium", "set_theme", "set_width"]

OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--disable-dev-shm-usage --window-size=420,900"
)


@contextmanager
def open_chromium(profile):
    """Run it with a profile folder of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in (*OPTIONS.split(), f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # It logs each script and page, which the search for leaks would read.
    logging.getLogger("selenium").setLevel(logging.WARNING)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    browser = webdriver.Chrome(options=options, service=service)
    try:
        yield browser
    finally:
        browser.quit()


def set_width(browser, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def set_theme(browser, theme):
    feature = {"name": "prefers-color-scheme", "value": theme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
