"""What the list of the log shows, filters and finds, and how few rows it reads."""

import re
import uuid
from datetime import datetime, timedelta
from html import unescape

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_idenfy_phone.admin import changelist, filters
from django_idenfy_phone.models import PhoneVerification
from support.constants import NUMBER
from support.steps import MASKED_NUMBER, named_cases

pytestmark = pytest.mark.django_db

LIST_URL = "/admin/django_idenfy_phone/phoneverification/"
DAY = timedelta(days=1)
MAX_STATEMENTS = 12


def cells(page):
    """The texts of the cells of each row, by column."""
    found = []
    for row in re.findall("<tr>(<th class=.*?)</tr>", page, re.DOTALL):
        pairs = re.findall('<t[hd] class="field-(\\w+)[^"]*">(.*?)</t[hd]>', row)
        found.append({n: unescape(re.sub("<.*?>", "", text)) for n, text in pairs})
    return found


@pytest.fixture
def shown(admin_client):
    """Return the rows that the list shows for a query, as their references."""

    def shown(query=""):
        response = admin_client.get(f"{LIST_URL}?{query}")
        assert response.status_code == 200
        return [row["reference"] for row in cells(response.content.decode())]

    return shown


def references(*rows):
    return [row.reference for row in rows]


@pytest.fixture
def noon(clock, settings):
    settings.TIME_ZONE = "Europe/Vilnius"
    clock.now = datetime.fromisoformat("2026-11-30T12:00:00+02:00")
    return clock


def test_list_tells_each_attempt_in_words(admin_client, make, noon, user):
    row = make("verified", purpose="signup", checks=2, checks_wrong=1)
    sent_at = row.created_at + timedelta(seconds=1.23)
    PhoneVerification.objects.update(sent_at=sent_at)
    [shown] = cells(admin_client.get(LIST_URL).content.decode())
    assert list(shown.items()) == [
        ("number", f"{MASKED_NUMBER} LT"),
        ("status_label", "verified"),
        ("user_link", "ona"),
        ("purpose", "signup"),
        ("started", "2026-11-30 12:00:00 EET"),
        ("time_to_send", "1.2 s"),
        ("checks_used", "2 of 3"),
        ("failure_text", "-"),
        ("reference", row.reference),
    ]


def test_list_tells_a_failure_in_words(admin_client, make):
    make("failed", failure="too_late", user=None, is_anonymous=True)
    [shown] = cells(admin_client.get(LIST_URL).content.decode())
    assert shown["failure_text"] == "not sent in time"
    assert shown["user_link"] == "no login"
    assert shown["time_to_send"] == "-"


@pytest.mark.parametrize("name", [NUMBER, NUMBER[1:]])
@pytest.mark.parametrize("query", ["", "?user={user.pk}"])
def test_list_masks_a_number_that_names_the_user(admin_client, make, user, name, query):
    user.username = name
    user.save()
    make("sent")
    page = admin_client.get(LIST_URL + query.format(user=user)).content.decode()
    assert cells(page)[0]["user_link"] == MASKED_NUMBER
    assert NUMBER[4:] not in page


def test_list_masks_another_number_that_names_the_user(admin_client, make, user):
    user.username = "Ona (+37061234599)"
    user.save()
    make("sent")
    page = admin_client.get(LIST_URL).content.decode()
    assert cells(page)[0]["user_link"] == "Ona (+370******99)"


def test_list_links_the_user(admin_client, make, user):
    make("sent")
    page = admin_client.get(LIST_URL).content.decode()
    assert f'<a href="/admin/auth/user/{user.pk}/change/">ona</a>' in page


@pytest.fixture
def support(client, django_user_model):
    """Log somebody in who has only these permissions of ours."""

    def support(*codenames):
        user = django_user_model.objects.create_user("eva", is_staff=True)
        names = [f"{name}_phoneverification" for name in codenames if name == "view"]
        names += [name for name in codenames if name != "view"]
        user.user_permissions.set(Permission.objects.filter(codename__in=names))
        client.force_login(user)
        return client

    return support


def test_list_links_no_user_to_whom_users_are_not_shown(support, make):
    make("sent")
    page = support("view").get(LIST_URL).content.decode()
    assert "/auth/user/" not in page
    assert cells(page)[0]["user_link"] == "ona"


def test_list_has_neither_style_nor_script_in_its_own_markup(admin_client, make):
    make("sent")
    page = admin_client.get(LIST_URL).content.decode()
    assert re.findall("<style|style=|<script>|onclick", page) == []


# By default, the list is about today; by midnight in the site's own zone.
PERIODS = {
    "default": ("", ["today"]),
    "today": ("period=today", ["today"]),
    "7 days": ("period=7d", ["today", "yesterday", "6 days"]),
    "30 days": ("period=30d", ["today", "yesterday", "6 days", "29 days"]),
    "any time": ("period=all", ["today", "yesterday", "6 days", "29 days", "89 days"]),
    "search": ("q=ona", ["today", "yesterday", "6 days", "29 days", "89 days"]),
    "search of today": ("q=ona&period=today", ["today"]),
    "earlier": (
        "period=all&until=2026-11-28T00:00:00%2B02:00",
        ["6 days", "29 days", "89 days"],
    ),
}


@pytest.mark.parametrize(("query", "expected"), **named_cases(PERIODS))
def test_list_shows_a_period(shown, make, noon, query, expected):
    ages = {
        "today": timedelta(hours=12),
        "yesterday": timedelta(hours=12, seconds=1),
        "6 days": 6 * DAY,
        "29 days": 29 * DAY,
        "89 days": 89 * DAY,
    }
    rows = {
        name: make("expired", created_at=noon.now - old) for name, old in ages.items()
    }
    assert shown(query) == [rows[name].reference for name in expected]


@pytest.mark.parametrize(
    "query",
    ["status__exact=failed", "failure__exact=unknown", "purpose=change", "region=GB"],
)
def test_list_filters(shown, make, query):
    make("sent")
    row = make("failed", failure="unknown", purpose="change", region="GB")
    assert shown(query) == [row.reference]


def test_list_shows_the_rows_of_one_user(shown, make, user, admin_user):
    make("sent", user=admin_user)
    old = make("sent", created_at=timezone.now() - 89 * DAY)
    assert shown(f"user={user.pk}") == [old.reference]


def offered(page, parameter):
    """The values that a filter offers."""
    return set(re.findall(rf'<a href="\?{parameter}=([\w-]*)">', page))


def test_filters_offer_what_settings_and_newest_rows_name(admin_client, make):
    make("sent", purpose="signup")
    make("sent")
    page = admin_client.get(LIST_URL).content.decode()
    assert offered(page, "region") == {"LT", "GB", "US"}
    assert offered(page, "purpose") == {"", "signup"}
    assert offered(page, "status__exact") == set(PhoneVerification.Status.values)
    assert offered(page, "user") == set()


def test_filter_offers_all_regions_where_all_are_allowed(admin_client, settings):
    settings.IDENFY_PHONE_REGIONS = None
    assert len(offered(admin_client.get(LIST_URL).content.decode(), "region")) > 200


NUMBERS_AS_TYPED = [
    NUMBER,
    "+370 612 34567",
    "+370-612-34567",
    " (+370) 612/34567 ",
    "0 612 34567",
    "00370 612 34567",
    "\u202a+370\u00a0612\u201034567\u202c",
]


@pytest.mark.parametrize("text", NUMBERS_AS_TYPED)
@pytest.mark.parametrize("regions", [["LT"], ["DE"]])
def test_search_finds_a_whole_number(shown, make, settings, text, regions):
    settings.PHONENUMBER_DEFAULT_REGION = "LT"
    settings.IDENFY_PHONE_REGIONS = regions
    row = make("sent")
    make("sent", phone_number="+37061234568")
    assert shown(f"q={text.replace('+', '%2B')}") == [row.reference]


def test_search_finds_a_whole_id(shown, make):
    make("sent")
    row = make("sent", created_at=timezone.now() - 2 * DAY)
    for text in (str(row.pk), row.pk.hex, f" {str(row.pk).upper()} "):
        assert shown(f"q={text}") == [row.reference]


def test_search_finds_a_user_by_name_or_address(shown, make, user, admin_user):
    user.email = "ona@example.com"
    user.save()
    row = make("sent")
    make("sent", user=admin_user)
    assert shown("q=ona") == shown("q=ona@example.com") == [row.reference]


def test_search_finds_a_user_whose_name_is_a_number(shown, make, admin_user):
    admin_user.username = NUMBER
    admin_user.save()
    rows = [make("sent"), make("sent", user=admin_user, phone_number="+37061234568")]
    assert set(shown(f"q={NUMBER.replace('+', '%2B')}")) == set(references(*rows))


PARTS = ["612345", "+3706123456", "34567", "on", "ona@", "%", "_", "*", "LT", "sent"]


@pytest.mark.parametrize("text", PARTS)
def test_search_finds_nothing_by_a_part(admin_client, make, settings, text):
    settings.PHONENUMBER_DEFAULT_REGION = "LT"
    make("sent")
    page = admin_client.get(LIST_URL, {"q": text}).content.decode()
    assert cells(page) == []
    assert "Nothing was found. A whole phone number, a whole id" in page


def test_search_finds_nothing_by_a_part_of_an_id(shown, make):
    row = make("sent")
    parts = [row.reference, str(row.pk)[:-1], row.pk.hex[1:], str(uuid.UUID(int=7))]
    assert [shown(f"q={part}") for part in parts] == [[], [], [], []]


@pytest.fixture
def most_rows(monkeypatch):
    """Of a period, the list reads no more than the four newest rows."""
    monkeypatch.setattr(filters, "MOST_ROWS", 4)


@pytest.fixture
def ten_rows(make, noon):
    """Newest first."""
    times = [noon.now - n * timedelta(minutes=1) for n in range(10)]
    return [make("failed", failure="unknown", created_at=at) for at in times]


@pytest.mark.usefixtures("most_rows")
def test_list_counts_no_more_rows_than_it_reads(admin_client, ten_rows):
    changes = admin_client.get(LIST_URL).context["cl"]
    assert (int(changes.result_count), str(changes.result_count)) == (4, "4+")
    assert changes.paginator.num_pages == 1


@pytest.mark.usefixtures("most_rows")
def test_list_shows_that_there_are_more_rows(admin_client, ten_rows):
    page = admin_client.get(LIST_URL).content.decode()
    assert re.search(r"\s4\+ phone verifications\s", page)
    assert "4+ results" in page


@pytest.mark.usefixtures("most_rows")
def test_list_counts_exactly_where_it_reads_all(admin_client, ten_rows):
    PhoneVerification.objects.exclude(pk__in=[row.pk for row in ten_rows[:4]]).delete()
    changes = admin_client.get(LIST_URL).context["cl"]
    assert (str(changes.result_count), changes.further_back) == ("4", "")


def test_count_is_shown_with_a_separator():
    assert str(changelist.AtLeast(10_000)) == "10,000+"


def test_count_is_a_plain_number_among_those_with_separators(settings):
    settings.USE_THOUSAND_SEPARATOR = True
    assert str(changelist.AtLeast(10_000)) == "10000"


@pytest.mark.usefixtures("most_rows")
def test_list_goes_further_back_until_all_was_looked_through(admin_client, ten_rows):
    PhoneVerification.objects.filter(pk=ten_rows[9].pk).update(region="GB")
    query, found = "?region=GB", []
    while query:
        response = admin_client.get(LIST_URL + query)
        found.append([row["reference"] for row in cells(response.content.decode())])
        query = response.context["cl"].further_back
    assert found == [[], [], [ten_rows[9].reference]]


@pytest.mark.usefixtures("most_rows")
def test_list_says_how_far_it_looked_back(admin_client, ten_rows):
    page = admin_client.get(f"{LIST_URL}?region=GB").content.decode()
    assert "back to 2026-11-30 11:56:00 EET" in page


@pytest.mark.usefixtures("most_rows")
def test_search_and_one_user_are_read_whole(shown, ten_rows, user):
    PhoneVerification.objects.filter(pk=ten_rows[9].pk).update(region="GB")
    assert shown("q=ona&region=GB") == [ten_rows[9].reference]
    assert shown(f"user={user.pk}&region=GB") == [ten_rows[9].reference]


@pytest.mark.parametrize("order", ["1", "3", "-3", "2.-5", "9"])
def test_list_keeps_its_order(shown, ten_rows, order):
    PhoneVerification.objects.filter(pk=ten_rows[5].pk).update(purpose="order")
    assert shown(f"o={order}") == references(*ten_rows)


FOUND = ["", "q=ona", "q=ona@example.com", f"q=%2B{NUMBER[1:]}", "user={user.pk}"]
FOUND += ["user={user.pk}&q=ona@example.com"]
NOT_FOUND = ["period=all&status__exact=locked&region=GB", "q=nonsense"]
NOT_FOUND += ["user={user.pk}&q=a@b"]


@pytest.mark.parametrize("query", FOUND + NOT_FOUND)
def test_list_takes_few_statements(support, ten_rows, user, query):
    user.email = "ona@example.com"
    user.save()
    client = support("view")
    with CaptureQueriesContext(connection) as found:
        page = client.get(f"{LIST_URL}?{query.format(user=user)}").content.decode()
    assert len(found) <= MAX_STATEMENTS
    assert bool(cells(page)) == (query in FOUND)


def test_list_looks_for_no_distinct_values(admin_client, ten_rows):
    with CaptureQueriesContext(connection) as found:
        admin_client.get(f"{LIST_URL}?_facets=1")
    assert [each["sql"] for each in found if "DISTINCT" in each["sql"]] == []


def test_list_counts_neither_facets_nor_all_rows(admin_client, ten_rows):
    statements, pages = {}, {}
    for query in ("", "_facets=1", "q=nonsense"):
        with CaptureQueriesContext(connection) as found:
            pages[query] = admin_client.get(f"{LIST_URL}?{query}").content.decode()
        statements[query] = len(found)
    assert statements["_facets=1"] == statements[""]
    assert "total</a>" not in pages["q=nonsense"]


def test_link_of_a_period_goes_back_from_its_end(admin_client, make):
    make("sent")
    query = {"until": timezone.now().isoformat()}
    page = admin_client.get(LIST_URL, query).content.decode()
    assert offered(page, "period") == {"today", "7d", "30d", "all"}
