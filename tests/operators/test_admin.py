"""The admin shows rows and warnings, changes nothing and hides each number."""

import re
import uuid
from html import unescape

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Permission
from django.db import connection
from django.utils.html import escape

from django_idenfy_phone import phone
from django_idenfy_phone.models import PhoneVerification
from support.constants import NUMBER
from support.steps import MASKED_NUMBER, detail_url

pytestmark = pytest.mark.django_db

LIST_URL = "/admin/django_idenfy_phone/phoneverification/"
PAGES = ["", "{}/change/", "{}/history/"]


@pytest.fixture
def row(make):
    return make("verified", purpose="signup", provider_code="BAD_VALUE")


def test_admin_shows_why_a_send_failed(make, admin_client):
    row = make("failed", failure="number_refused", provider_code="BAD_VALUE")
    page = admin_client.get(f"{LIST_URL}{row.pk}/change/").content.decode()
    assert "number refused by iDenfy" in page
    assert "BAD_VALUE" in page


def test_only_permissions_that_mean_something_exist():
    ours = Permission.objects.filter(content_type__app_label="django_idenfy_phone")
    assert set(ours.values_list("codename", flat=True)) == {
        *("view_phoneverification", "view_full_number", "unblock"),
    }


UNREADABLE = ["garbage123", "+370", "+99912345678", "0 612 34567", "<b>%s{}", "x", ""]


@pytest.fixture(params=UNREADABLE)
def unreadable(request, row):
    """A row whose number was written by something else than this app."""
    name = connection.ops.quote_name(row._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {name} SET phone_number = %s", [request.param])
    row.refresh_from_db()
    return row


@pytest.mark.parametrize("page", PAGES)
def test_admin_pages_show_a_row_without_a_readable_number(
    admin_client, admin_user, unreadable, page
):
    LogEntry.objects.log_actions(admin_user.pk, [unreadable], CHANGE, "looked")
    response = admin_client.get(LIST_URL + page.format(unreadable.pk))
    assert response.status_code == 200
    text = "looked" if "history" in page else escape(unreadable.masked_number)
    assert text in response.content.decode()


def test_row_without_a_readable_number_is_shown_masked(api, unreadable):
    text = phone.written(unreadable.phone_number)
    shown = api.get(detail_url(unreadable)).json()["phone_number"]
    assert shown == unreadable.masked_number == phone.mask(text)
    assert str(unreadable) == f"{str(unreadable.pk)[:8]} (verified)"


@pytest.mark.parametrize("page", PAGES)
def test_admin_pages_show_neither_number_nor_request_id(admin_client, row, page):
    response = admin_client.get(LIST_URL + page.format(row.pk))
    text = response.content.decode()
    assert response.status_code == 200
    assert NUMBER[4:] not in text.replace(" ", "").replace("-", "")
    assert row.request_id not in text


@pytest.mark.parametrize("page", PAGES[:2])
def test_admin_pages_show_the_masked_number(admin_client, row, page):
    response = admin_client.get(LIST_URL + page.format(row.pk))
    assert MASKED_NUMBER in response.content.decode()


def test_admin_list_links_the_masked_number(admin_client, row):
    page = admin_client.get(LIST_URL).content.decode()
    links = re.findall(f'<a href="{LIST_URL}{row.pk}/change/[^"]*">([^<]*)</a>', page)
    assert links == [f"{MASKED_NUMBER} LT"]


def test_admin_offers_no_add_change_or_delete(admin_client, row):
    pages = [admin_client.get(LIST_URL + page.format(row.pk)) for page in PAGES]
    text = "".join(page.content.decode() for page in pages)
    offers = [f"{LIST_URL}add/", "/delete/", "_save", "_continue", "delete_selected"]
    assert [offer for offer in offers if offer in text] == []


@pytest.mark.parametrize("page", ["add/", "{}/delete/"])
def test_admin_refuses_to_add_or_delete(admin_client, row, page):
    url = LIST_URL + page.format(row.pk)
    responses = [admin_client.get(url), admin_client.post(url, {"post": "yes"})]
    assert [each.status_code for each in responses] == [403, 403]
    assert PhoneVerification.objects.get() == row


def test_admin_refuses_to_change(admin_client, make):
    row = make()
    body = {"status": "verified", "is_verified": "on", "_save": "Save"}
    refused = admin_client.post(f"{LIST_URL}{row.pk}/change/", body)
    row.refresh_from_db()
    assert (refused.status_code, row.status, row.is_verified) == (403, "sent", False)


def test_admin_deletes_no_selected_rows(admin_client, row):
    body = {
        "action": "delete_selected",
        "_selected_action": str(row.pk),
        "post": "yes",
    }
    admin_client.post(LIST_URL, body)
    assert PhoneVerification.objects.get() == row


def test_admin_requires_the_view_permission(client, django_user_model, row):
    client.force_login(django_user_model.objects.create_user("eva", is_staff=True))
    pages = [client.get(LIST_URL), client.get(f"{LIST_URL}{row.pk}/change/")]
    assert [page.status_code for page in pages] == [403, 403]


@pytest.mark.parametrize(
    "query",
    [
        "q=%00",
        "q=61234567",
        "q=" + "%20" * 2_000,
        "p=999999999",
        "p=-1",
        "p=x",
        "o=99.-99.x",
        "all=1",
        "e=1",
        "_popup=1",
        "_facets=x",
        "status__exact=sent",
        "status__exact=nonsense",
        "status=verified&failure=unknown",
        "region=L",
        "region=",
        "purpose=other",
        "purpose=",
        "period=",
        "period=all&period=7d",
        "period=all&until=2026-11-30T12:00:00%2B02:00",
        "q=00000000-0000-0000-0000-000000000000",
        "q=99999999999999999999",
        "q=" + "9" * 5_000,
        "q=a@b@c",
        "q=%F0%9F%98%80",
        "q=%ED%A0%80",
    ],
)
def test_admin_list_accepts_any_query(admin_client, row, query):
    assert admin_client.get(f"{LIST_URL}?{query}").status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "nonsense=1",
        "status__exact=%00",
        "failure__exact=%00",
        "status__in=sent,%00",
        "status__regex=(",
        "status__nonsense=1",
        "id=x",
        "user=99999999999999999999",
        "user=x",
        "user=",
        "user=%00",
        "user__exact=99999999999999999999",
        "period=x",
        "period=%00",
        "until=x",
        "until=",
        "until=2026-11-30T12:00:00",
        "until=2026-99-30T12:00:00Z",
        "until=0001-01-01T00:00:00%2B14:00",
        "until=9999-12-31T23:59:59-14:00",
        "region=%00",
        "purpose=%00",
        "region__startswith=L",
        "purpose__contains=a",
        "user__password__startswith=a",
        "created_at__gte=x",
        "phone_number=%00",
        "phone_number__regex=(",
        "phone_number__startswith=%2B3706",
        "request_id__startswith=a",
        "__=1",
        "=1",
    ],
)
def test_admin_list_allows_only_list_filter_lookups(admin_client, row, query):
    response = admin_client.get(f"{LIST_URL}?{query}")
    assert (response.status_code, response["Location"]) == (302, f"{LIST_URL}?e=1")


# The popup of each field of a host's order, and which rows it offers.
POPUPS = [
    ("unlimited", {"plain", "order", "anonymous", "staff", "british"}),
    ("verified", {"order", "anonymous"}),
    ("called", {"order"}),
    # Django's own popups ignore a Q: the form checks it.
    ("by_q", {"plain", "order", "anonymous", "staff", "british"}),
    ("of_staff", {"staff"}),
    ("without_user", {"anonymous"}),
    ("many", {"british"}),
]


@pytest.mark.parametrize(("field", "offered"), POPUPS)
def test_popup_of_a_raw_id_field_offers_the_limited_choices(
    admin_client, admin_user, make, field, offered
):
    rows = {
        "plain": make("sent"),
        "order": make("verified", purpose="order"),
        "anonymous": make("verified", user=None, is_anonymous=True),
        "staff": make("sent", user=admin_user),
        "british": make("sent", region="GB"),
    }
    form = admin_client.get("/admin/orders/order/add/").content.decode()
    [link] = re.findall(f'<a href="([^"]*)"[^>]* id="lookup_id_{field}"', form)
    popup = admin_client.get(f"{unescape(link)}&_popup=1".replace("/&", "/?"))
    pks = re.findall('data-popup-opener="([^"]*)"', popup.content.decode())
    assert popup.status_code == 200
    assert {name for name, row in rows.items() if str(row.pk) in pks} == offered


@pytest.mark.parametrize(
    "query",
    [
        "is_verified=0",
        "is_verified__exact=1",
        "is_verified=1&is_verified=0",
        "is_verified=1&phone_number__startswith=%2B3706",
        "region__startswith=G",
        "status__in=sent",
        "user__is_staff=0",
        "user__isnull=0",
        "_to_field=request_id",
        "_to_field=phone_number",
    ],
)
def test_popup_lookups_are_allowed_with_their_own_value_only(admin_client, row, query):
    response = admin_client.get(f"{LIST_URL}?_popup=1&{query}")
    assert response.status_code in (302, 400)


@pytest.mark.parametrize("pk", ["x", "%00", "_3F", str(uuid.UUID(int=7)), "1" * 3_000])
def test_admin_redirects_from_a_missing_row(admin_client, pk):
    assert admin_client.get(f"{LIST_URL}{pk}/change/").status_code == 302


def test_str_and_repr_of_a_row_hide_its_number(row):
    assert str(row) == f"{str(row.pk)[:8]} (verified)"
    assert NUMBER[4:] not in repr(row)
