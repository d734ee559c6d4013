"""The admin's pages in a real Chromium: they fit, keep a strict policy and pass axe."""

import re
from datetime import timedelta

import pytest
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.test import Client, override_settings
from django.utils import timezone
from pytest_django.live_server_helper import LiveServer

from django_idenfy_phone import brake
from django_idenfy_phone.models import RegionBrake, StartLock
from django_idenfy_phone.records import Heartbeat, Tally
from django_idenfy_phone.tallies import hour_of
from django_idenfy_phone.testing import age
from hosts import strict_csp
from support.chromium import (
    By,
    Keys,
    WebDriverWait,
    open_chromium,
    set_theme,
    set_width,
)

axe = pytest.importorskip(
    "axe_core_python.selenium", reason="pip install axe-core-python"
)
pytestmark = pytest.mark.django_db(transaction=True)

NUMBER, OTHER_NUMBER = "+12025550123", "+37060012345"
ROOT = "/admin/django_idenfy_phone/phoneverification/"
LIST = [".object-tools", "#result_list td", "#result_list th.field-number"]
# Each page, and what of it is ours.
PAGES = {
    "list": ("", [*LIST, "#changelist .messagelist .warning"]),
    "attempt": ("{row.pk}/change/", [".idenfy-phone-story"]),
    "explain": ("explain/", ["#content-main"]),
    "summary": ("summary/", ["#content-main"]),
    "summary, 30 days": ("summary/?period=30d", ["#content-main"]),
}
THEMES = ["light", "dark"]
RGB = r"rgb\((\d+), (\d+), (\d+)\)"
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with open_chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def server():
    """The strict host, with all static files."""
    with override_settings(
        ROOT_URLCONF="hosts.strict_csp",
        INSTALLED_APPS=["django.contrib.staticfiles", *settings.INSTALLED_APPS],
        MIDDLEWARE=["hosts.strict_csp.send_policy", *settings.MIDDLEWARE],
    ):
        server = LiveServer("127.0.0.1")
        yield server
        server.stop()


@pytest.fixture
def site(server):
    """The address of the admin's log."""
    strict_csp.REPORTS.clear()
    return server.url + ROOT


@pytest.fixture
def row(make, user):
    """A sent row that stands beside others, of each status."""
    number = {"phone_number": NUMBER, "number_block": NUMBER[:-4], "region": "US"}
    for status in ("queued", "sending", "verified", "expired", "locked"):
        make(status, **number)
    make("failed", failure="account", phone_number=OTHER_NUMBER, user=None)
    return make("sent", purpose="signup", network="9.9.9.9", **number)


@pytest.fixture
def figures():
    """Tallies of 30 days, an engaged brake and heartbeats, one of them silent."""
    now, reasons = timezone.now(), {"refused": "cooldown", "failed": "unknown"}
    for hour in range(0, 720, 5):
        for n, name in enumerate(Tally.Name.values):
            Tally.objects.create(
                hour=hour_of(now) - hour * HOUR,
                name=name,
                reason=reasons.get(name, ""),
                region=["LT", "US", "GB"][hour % 3],
                count=(900 + hour * 7919 % 500) // (n + 1),
            )
    RegionBrake.objects.create(
        region="US", engaged_at=now, engaged_until=now + HOUR, numbers=60, confirmed=2
    )
    Heartbeat.objects.create(name="sweep", beat_at=now)
    Heartbeat.objects.create(name="delivery", beat_at=now - HOUR)


@pytest.fixture
def staff(chromium, site, admin_user):
    """A Chromium that is logged in, wide and light."""
    client = Client()
    client.force_login(admin_user)
    chromium.get(f"{site}nothing-there.txt")
    session = client.cookies["sessionid"].value
    chromium.add_cookie({"name": "sessionid", "value": session})
    set_width(chromium, 1200)
    set_theme(chromium, "light")
    chromium.get_log("browser")
    return chromium


@pytest.fixture
def opened(staff, site, row, figures):
    """Open one of PAGES; return what of it is ours."""

    def opened(name):
        path, ours = PAGES[name]
        staff.get(site + path.format(row=row))
        return ours

    return opened


def press(browser, button, expected):
    """Press a button, and wait for a page with the expected text."""
    browser.find_element(By.CSS_SELECTOR, f'[value="{button}"]').click()
    WebDriverWait(browser, 10).until(lambda b: expected in text_of(b))


def assert_axe_finds_nothing(browser, ours):
    assert all(browser.find_elements(By.CSS_SELECTOR, each) for each in ours)
    found = axe.Axe().run(browser, context={"include": [[each] for each in ours]})
    assert [(each["id"], each["nodes"]) for each in found["violations"]] == []
    assert "color-contrast" in {each["id"] for each in found["passes"]}


def text_of(browser):
    return browser.execute_script("return document.body?.innerText ?? ''")


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [320, 375, 1200])
def test_nothing_is_wider_than_the_page(staff, opened, name, width):
    set_width(staff, width)
    opened(name)
    script = "const { scrollWidth, clientWidth } = document.documentElement;"
    script += "return [scrollWidth - clientWidth, innerWidth]"
    assert staff.execute_script(script) == [0, width]


@pytest.mark.parametrize("width", [320, 1200])
def test_links_of_the_list_cover_no_warning(staff, site, make, width):
    age(make("queued"), timedelta(minutes=2))
    set_width(staff, width)
    staff.get(site)
    links = staff.find_element(By.CSS_SELECTOR, ".object-tools").rect
    warning = staff.find_element(By.CSS_SELECTOR, ".messagelist .warning").rect
    assert links["y"] + links["height"] <= warning["y"]


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", [320, 1200])
def test_axe_finds_nothing_in_our_markup(staff, opened, name, theme, width):
    set_width(staff, width)
    set_theme(staff, theme)
    assert_axe_finds_nothing(staff, opened(name))


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_in_an_answer(staff, opened, theme):
    set_theme(staff, theme)
    ours = opened("explain")
    staff.find_element(By.NAME, "number").send_keys(NUMBER)
    press(staff, "Explain", "The number has a cooldown")
    assert_axe_finds_nothing(staff, ours)


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_beside_the_full_number(staff, opened, theme):
    set_theme(staff, theme)
    opened("attempt")
    press(staff, "Show the full number", NUMBER)
    assert_axe_finds_nothing(staff, ["#content p"])


@pytest.mark.parametrize("name", PAGES)
def test_page_keeps_a_strict_policy(staff, opened, name):
    opened(name)
    assert staff.get_log("browser") == []
    assert strict_csp.REPORTS == []


def test_page_that_breaks_the_policy_is_reported(staff, server):
    staff.get(f"{server.url}/broken/")
    WebDriverWait(staff, 10).until(lambda b: strict_csp.REPORTS)
    [report] = strict_csp.REPORTS
    assert report["effective-directive"] == "style-src-attr"


@pytest.mark.parametrize("theme", THEMES)
def test_texts_of_the_chart_have_the_colour_of_the_page(staff, opened, theme):
    set_theme(staff, theme)
    opened("summary")
    script = """
        const text = document.querySelector(".idenfy-phone-chart text");
        return [getComputedStyle(text).fill, getComputedStyle(document.body).color]
    """
    fill, color = staff.execute_script(script)
    assert fill == color


BACKGROUND = """
    let node = document.querySelector(".idenfy-phone-chart");
    while (getComputedStyle(node).backgroundColor === "rgba(0, 0, 0, 0)") {
        node = node.parentElement;
    }
    return getComputedStyle(node).backgroundColor;
"""
STROKES = """
    const lines = [...document.querySelectorAll("polyline.idenfy-phone-line")];
    return lines.map((line) => getComputedStyle(line).stroke);
"""


def luminance(color):
    """As WCAG 2 defines it, of "rgb(26, 127, 212)"."""
    channels = [int(each) / 255 for each in re.fullmatch(RGB, color).groups()]
    red, green, blue = (
        each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4
        for each in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(color, other):
    darker, lighter = sorted([luminance(color), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_is_that_of_wcag():
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
    assert contrast("rgb(118, 118, 118)", "rgb(255, 255, 255)") == pytest.approx(
        4.54, abs=0.01
    )


@pytest.mark.parametrize("theme", THEMES)
def test_lines_of_the_chart_stand_out_from_their_background(staff, opened, theme):
    set_theme(staff, theme)
    opened("summary")
    background, strokes = (
        staff.execute_script(BACKGROUND),
        staff.execute_script(STROKES),
    )
    assert len(set(strokes)) == 3
    assert min(contrast(each, background) for each in strokes) >= 3


def test_each_theme_has_a_background_of_its_own(staff, opened):
    script, found = "return getComputedStyle(document.body).backgroundColor", set()
    for theme in THEMES:
        set_theme(staff, theme)
        opened("summary")
        found.add(staff.execute_script(script))
    assert len(found) == len(THEMES)


def test_numbers_of_the_chart_open_by_keyboard(staff, opened):
    opened("summary")
    staff.find_element(By.CSS_SELECTOR, "details > summary").send_keys(Keys.ENTER)
    table = staff.find_element(By.CSS_SELECTOR, "details > table")
    assert table.is_displayed()
    assert len(table.find_elements(By.TAG_NAME, "tr")) == 25


def test_period_is_chosen_by_a_link(staff, opened):
    opened("summary")
    staff.find_element(By.LINK_TEXT, "7 days").click()
    WebDriverWait(staff, 10).until(lambda b: "By region, 7 days" in text_of(b))


def test_full_number_is_shown_by_a_button(staff, opened):
    opened("attempt")
    assert NUMBER not in text_of(staff)
    press(staff, "Show the full number", NUMBER)
    assert (LogEntry.objects.count(), strict_csp.REPORTS) == (1, [])


def test_number_is_unblocked_by_a_button(staff, opened):
    opened("explain")
    staff.find_element(By.NAME, "number").send_keys(NUMBER)
    press(staff, "Explain", "The number has a cooldown")
    staff.find_element(By.NAME, "number").clear()
    staff.find_element(By.NAME, "number").send_keys(NUMBER)
    press(staff, "Unblock", "Unblocked: number")
    assert StartLock.objects.exclude(cleared_at=None).count() == 1
    assert strict_csp.REPORTS == []


def test_brake_is_released_by_a_button(staff, opened):
    opened("summary")
    staff.find_element(By.LINK_TEXT, "Release it").click()
    staff.find_element(By.NAME, "_release").click()
    text = "Released the brake of the region US"
    WebDriverWait(staff, 10).until(lambda b: text in text_of(b))
    assert brake.engaged() == []
