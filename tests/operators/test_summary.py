"""The summary page: the figures of three periods, and how sending goes now."""

import re
from datetime import datetime, timedelta
from html import unescape

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_idenfy_phone.admin import chart
from django_idenfy_phone.exceptions import NumberNotSupported
from django_idenfy_phone.models import ProviderGate, RegionBrake
from django_idenfy_phone.records import Heartbeat, Tally
from django_idenfy_phone.statistics import PERIODS, Hour, by_hour
from django_idenfy_phone.tallies import hour_of
from support.steps import named_cases, start

pytestmark = pytest.mark.django_db

LIST_URL = "/admin/django_idenfy_phone/phoneverification/"
URL = f"{LIST_URL}summary/"
MAX_STATEMENTS = 12
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def noon(clock, settings):
    settings.TIME_ZONE = "Europe/Vilnius"
    clock.now = datetime.fromisoformat("2026-11-30T10:00:00+00:00")
    return clock


@pytest.fixture
def tally(noon):
    """Store a tally of some hours ago."""

    def tally(name, count, *, hours=0, region="LT", reason=""):
        hour = hour_of(noon.now) - hours * HOUR
        key = {"hour": hour, "name": name, "region": region, "reason": reason}
        Tally.objects.create(**key, count=count)

    return tally


@pytest.fixture
def support(client, django_user_model):
    """Log somebody in who has only these permissions of ours."""

    def support(*codenames):
        user = django_user_model.objects.create_user("eva", is_staff=True)
        ours = Permission.objects.filter(content_type__app_label="django_idenfy_phone")
        user.user_permissions.set(ours.filter(codename__in=codenames))
        client.force_login(user)
        return client

    return support


@pytest.fixture
def page(support):
    """Return the text of the page."""
    client = support("view_phoneverification")

    def page(query=""):
        response = client.get(f"{URL}?{query}")
        assert response.status_code == 200
        return unescape(response.content.decode())

    return page


def lines(text, title):
    """The rows of the table below a title, as texts by their first cell."""
    section = text.partition(f"<h2>{title}")[2].partition("</table>")[0]
    rows = re.findall("<tr>(.*?)</tr>", section, re.DOTALL)
    cells = [re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
    return {first: rest for first, *rest in cells}


OUTCOMES = "What became of the starts"


def test_outcomes_of_three_periods_stand_side_by_side(page, tally):
    tally("started", 1_200)
    tally("started", 100, hours=24)
    tally("started", 10, hours=168)
    tally("sent", 900)
    tally("verified", 700)
    tally("expired", 150)
    tally("locked", 50)
    tally("failed", 5, reason="unknown")
    tally("failed", 2, hours=24, reason="too_late")
    tally("refused", 50, reason="number_not_supported", region="DE")
    tally("refused", 3, hours=168, reason="cooldown")
    assert lines(page(), OUTCOMES) == {
        "Outcome": ["24 hours", "7 days", "30 days"],
        "Started": ["1,200", "1,300", "1,310"],
        "Sent": ["900", "900", "900"],
        "Verified": ["700", "700", "700"],
        "Expired": ["150", "150", "150"],
        "Locked": ["50", "50", "50"],
        "Possibly billed: sent, or it may have been sent": ["905", "905", "905"],
        "Failed": ["5", "7", "7"],
        "it may have been sent": ["5", "5", "5"],
        "not sent in time": ["0", "2", "2"],
        "Refused": ["50", "50", "53"],
        "number not supported": ["50", "50", "50"],
        "cooldown of the number": ["0", "0", "3"],
    }


REGIONS = {
    "24 hours": ("period=24h", ["7", "50", "50", "6", "3", "50%"]),
    "7 days": ("period=7d", ["9", "54", "50", "6", "3", "50%"]),
}


@pytest.mark.parametrize(("query", "expected"), **named_cases(REGIONS))
def test_regions_are_those_of_the_chosen_period(page, tally, query, expected):
    tally("started", 7)
    tally("started", 2, hours=30)
    tally("sent", 6)
    tally("verified", 3)
    tally("refused", 50, reason="number_not_supported")
    tally("refused", 4, hours=30, reason="network")
    title = PERIOD_TITLES[query]
    assert lines(page(query), f"By region, {title}")["LT"] == expected


PERIOD_TITLES = {"period=24h": "24 hours", "period=7d": "7 days"}


def test_refused_region_is_shown_without_a_conversion(page, tally):
    tally("refused", 50, reason="number_not_supported", region="DE")
    tally("refused", 1, reason="number_not_supported", region="")
    found = lines(page(), "By region")
    assert found["DE"] == ["0", "50", "50", "0", "0", "-"]
    assert found["-"] == ["0", "1", "1", "0", "0", "-"]


@pytest.mark.django_db(transaction=True)
def test_starts_of_a_region_that_is_left_out_are_shown(page, settings, user):
    settings.IDENFY_PHONE_REGIONS = ["LT"]
    for _ in range(50):
        with pytest.raises(NumberNotSupported):
            start(user, "+4915112345678")
    assert lines(page(), "By region")["DE"] == ["0", "50", "50", "0", "0", "-"]


def test_unknown_reason_is_shown_as_it_is(page, tally):
    tally("refused", 1, reason="new_rule")
    assert lines(page(), OUTCOMES)["new_rule"] == ["1", "1", "1"]


def test_page_without_tallies_says_so(page):
    text = page("period=30d")
    assert "Nothing was counted in the last 30 days." in text
    assert "<svg class=" not in text
    assert lines(text, OUTCOMES) == {}


def test_speeds_are_those_of_the_newest_starts(page, make, noon):
    for n in range(20):
        sent = noon.now + (n + 1) * SECOND
        make("verified", sent_at=sent, verified_at=sent + (n + 1) * MINUTE)
    make("queued")
    text = page()
    assert "Of the newest 21 starts alone." in text
    found = lines(text, "How long it takes")
    assert found["From start to sent"] == ["20", "10 s", "19 s"]
    assert found["From sent to verified"] == ["20", "10 min 0 s", "19 min 0 s"]


def test_speeds_of_no_starts(page):
    found = lines(page(), "How long it takes")
    assert found["From start to sent"] == ["0", "-", "-"]


def test_facts_of_a_new_site(page):
    assert lines(page(), "Now") == {
        "Queued rows": ["0"],
        "Oldest queued row": ["none"],
        "Next slot for a send": ["now"],
        "Sends paused": ["no"],
        "Account paused": ["no"],
        "Checks paused": ["no"],
        "Last sweep": ["never"],
        "Last delivery": ["never"],
    }


def test_facts_tell_queue_pauses_and_heartbeats(page, make, noon):
    make("queued", created_at=noon.now - 30 * SECOND)
    until = noon.now + 20 * SECOND
    ProviderGate.objects.create(sends_paused_until=until, checks_paused_until=until)
    Heartbeat.objects.create(name="sweep", beat_at=noon.now - 12 * SECOND)
    found = lines(page(), "Now")
    assert found["Queued rows"] == ["1"]
    assert found["Oldest queued row"] == ["30 s ago"]
    assert found["Next slot for a send"] == ["for another 20 s"]
    assert found["Sends paused"] == found["Checks paused"] == ["for another 20 s"]
    assert found["Last sweep"] == ["12 s ago"]


BRAKES = {
    "observe": "The brake only observes: no start is refused.",
    "enforce": "The brake refuses newcomers there until its end.",
}


@pytest.mark.parametrize(("mode", "effect"), BRAKES.items())
def test_engaged_brake_is_shown_with_a_link_to_release_it(
    page, noon, settings, mode, effect
):
    settings.IDENFY_PHONE_BRAKE = {"mode": mode}
    known = {"numbers": 60, "confirmed": 2, "engaged_at": noon.now}
    RegionBrake.objects.create(region="LT", engaged_until=noon.now + HOUR, **known)
    text = page()
    found = lines(text, "Regions where hardly anybody confirms")
    observed = ["0 starts"] if mode == "observe" else []
    times = ["2026-11-30 12:00:00 EET", "2026-11-30 13:00:00 EET"]
    assert found["LT"] == [*times, "2 of 60", *observed]
    assert effect in text
    assert f'<a href="{LIST_URL}explain/">Release it</a>' in text


def test_brake_that_ended_is_shown_for_a_day(page, noon):
    known = {"numbers": 60, "confirmed": 2, "starts": 7, "engaged_at": noon.now - HOUR}
    RegionBrake.objects.create(region="LT", engaged_until=noon.now, **known)
    noon.move(24 * HOUR - SECOND)
    text = page()
    found = lines(text, "Regions where hardly anybody confirms")
    times = ["2026-11-30 11:00:00 EET", "2026-11-30 12:00:00 EET"]
    assert found["LT"] == [*times, "2 of 60", "7 starts"]
    assert "Release it" not in text
    noon.move(SECOND)
    assert "Regions where" not in page()


# Chart


def test_chart_has_a_table_of_its_numbers(page, tally):
    tally("started", 9, hours=1)
    tally("sent", 8, hours=1)
    tally("verified", 7, hours=1)
    found = lines(page(), "Starts over time, 24 hours")
    assert len(found) == 25
    assert found["11:00"] == ["9", "8", "7"]
    assert found["12:00"] == ["0", "0", "0"]


def test_chart_of_days_uses_the_site_zone(page, tally):
    tally("started", 5, hours=12)
    tally("started", 3, hours=13)
    text = page("period=7d")
    found = lines(text, "Starts over time, 7 days")
    assert "The first and the last day are not whole." in text
    assert found["2026-11-30"] == ["5", "0", "0"]
    assert found["2026-11-29"] == ["3", "0", "0"]
    assert len(found) == 1 + 8


def test_hours_of_a_change_of_the_clock_stay_apart(noon):
    noon.now = datetime.fromisoformat("2026-10-25T10:00:00+00:00")
    rows = chart.counts(by_hour(PERIODS["24h"]))
    assert [row.label for row in rows].count("03:00") == 2


def hours(*started):
    return [Hour(datetime(2026, 11, 30), each, 0, 0, 0, 0) for each in started]  # noqa: DTZ001


def test_chart_scales_to_its_highest_count(settings):
    settings.USE_TZ = False
    drawn = chart.chart(chart.counts(hours(0, 35, 40)))
    assert drawn.series[0].points == "64.0,232.0 372.0,64.0 680.0,40.0"
    assert [mark.label for mark in drawn.levels] == ["0", "20", "40"]


TOPS = {0: 2, 1: 2, 2: 2, 3: 4, 5: 10, 10: 10, 11: 20, 401: 1000}


@pytest.mark.parametrize(("most", "top"), TOPS.items())
def test_highest_level_is_round(settings, most, top):
    settings.USE_TZ = False
    drawn = chart.chart(chart.counts(hours(0, most)))
    assert drawn.levels[-1].label == f"{top:,}"


def test_chart_names_the_newest_time_and_few_others(noon):
    drawn = chart.chart(chart.counts(by_hour(PERIODS["24h"])))
    assert [mark.label for mark in drawn.times] == [
        *("16:00", "20:00", "00:00", "04:00", "08:00", "12:00")
    ]


def test_coordinates_do_not_follow_the_language(page, tally, settings):
    settings.LANGUAGE_CODE = "lt"
    settings.USE_THOUSAND_SEPARATOR = True
    tally("started", 5_000)
    drawing = page().partition('<svg class="idenfy')[2].partition("</svg>")[0]
    numbers = re.findall(' (?:points|viewBox|x|y|x1|y1)="([^"]*)"', drawing)
    assert len(numbers) > 20
    assert [each for each in numbers if not re.fullmatch(r"[\d., ]+", each)] == []
    assert [each for each in numbers if re.search(r"\d,\d+,|,,", each)] == []


# The view


ODD = ["period=nonsense", "period=%00", "period=" + "9" * 3_000, "period=7d&period=x"]
ODD += ["x=1", "_popup=1", "period[]=7d", "%FF=%FF", "="]


@pytest.mark.parametrize("query", ODD)
def test_any_query_shows_the_page(page, tally, query):
    tally("started", 1)
    assert 'href="?period=24h" aria-current="page"' in page(query)


@pytest.mark.parametrize("path", ["x/", "%00", "../summary", "summary/"])
def test_odd_paths_are_no_error(admin_client, path):
    assert admin_client.get(URL + path).status_code in (301, 302, 404)


def test_page_needs_the_permission_to_view(support):
    assert support("view_full_number", "unblock").get(URL).status_code == 403


def test_list_links_to_the_page(support):
    page = support("view_phoneverification").get(LIST_URL).content.decode()
    assert f'href="{URL}"' in page


def test_links_of_another_site_stay_there(admin_client, settings):
    settings.ROOT_URLCONF = "hosts.support_site"
    url = URL.replace("/admin/", "/support/")
    page = admin_client.get(url).content.decode()
    assert f'href="{url.removesuffix("summary/")}"' in page
    assert LIST_URL not in page


def test_page_has_neither_style_nor_script_in_its_markup(page, tally):
    tally("started", 1)
    assert re.findall("<style|style=|<script>|onclick", page()) == []


def test_page_takes_few_statements(support, tally, make):
    for name in Tally.Name.values:
        tally(name, 1, reason="cooldown" if name == "refused" else "")
    make("verified")
    client = support("view_phoneverification")
    with CaptureQueriesContext(connection) as found:
        assert client.get(f"{URL}?period=30d").status_code == 200
    assert len(found) <= MAX_STATEMENTS
