"""The admin's page tells why a customer cannot start, and unblocks by permission."""

import re
from datetime import timedelta
from html import unescape

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType

from django_idenfy_phone import brake, maintenance
from django_idenfy_phone.models import PhoneVerification, RegionBrake, StartLock
from support.constants import NUMBER
from support.steps import MASKED_NUMBER, start

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("wire")]

LIST_URL = "/admin/django_idenfy_phone/phoneverification/"
URL = f"{LIST_URL}explain/"
NOW, HOUR = timedelta(0), timedelta(hours=1)
NOTHING = "Nothing would refuse a start now."
RIGHTS = {"view": "view_phoneverification", "unblock": "unblock"}


@pytest.fixture
def staff(client, django_user_model):
    """A client logged in as an employee with these permissions."""

    def staff(*rights):
        employee = django_user_model.objects.create_user("eva", is_staff=True)
        names = [RIGHTS[each] for each in rights]
        employee.user_permissions.set(Permission.objects.filter(codename__in=names))
        client.force_login(employee)
        return client

    return staff


@pytest.fixture
def engaged(clock):
    until = clock.now + timedelta(hours=1)
    return RegionBrake.objects.create(
        region="LT", engaged_at=clock.now, engaged_until=until, numbers=60, confirmed=2
    )


def text_of(response):
    assert response.status_code == 200
    return unescape(response.content.decode())


def answers(response):
    """The lines of the answer."""
    section = text_of(response).partition("<section")[2].partition("</section>")[0]
    return re.findall("<li>(.*?)</li>", section)


def test_page_tells_that_nothing_would_refuse(staff):
    page = staff("view").post(URL, {"number": "+370 612 34567"})
    assert answers(page) == [NOTHING]
    assert f"<h2>{MASKED_NUMBER}</h2>" in text_of(page)


def test_page_tells_each_reason(staff, make, user):
    make("expired", network="9.9.9.9")
    body = {"number": NUMBER, "user": "ona", "network": "9.9.9.9"}
    [line] = answers(staff("view").post(URL, body))
    assert line.startswith("The number has a cooldown (sends of the last day: 1). Un")


@pytest.mark.parametrize("method", ["get", "post"])
def test_page_without_a_question_only_asks(staff, method):
    page = getattr(staff("view"), method)(URL)
    assert "<section" not in text_of(page)


def test_number_in_the_url_is_ignored(staff):
    page = staff("view").get(URL, {"number": NUMBER})
    assert NUMBER not in text_of(page)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "Give a number, a user or an IP address."),
        ({"user": "rasa"}, "This user does not exist."),
        ({"user": "\0"}, "Null characters are not allowed."),
        ({"network": "nonsense"}, "This is no IP address."),
    ],
)
@pytest.mark.parametrize("button", ["_explain", "_unblock"])
def test_mistake_is_told(staff, body, text, button):
    page = staff("view", "unblock").post(URL, {button: "1", **body})
    assert text in text_of(page)
    assert not StartLock.objects.exists()


@pytest.mark.parametrize("button", ["_explain", "_unblock"])
def test_number_that_is_none_is_told(staff, button):
    page = staff("view", "unblock").post(URL, {"number": "+3706123", button: "1"})
    assert answers(page) == ["This is no valid phone number."]
    assert not LogEntry.objects.exists()


@pytest.fixture
def refused(make, engaged, settings):
    """All that can refuse a customer does; return what the form takes of them."""
    settings.IDENFY_PHONE_BRAKE = {"mode": "enforce"}
    limits = dict.fromkeys(("number", "user", "network", "block"), ("1/m", "1/h"))
    settings.IDENFY_PHONE_SEND_LIMITS = limits | {"site": ("1/h",)}
    make("expired", network="9.9.9.9")
    return {"number": NUMBER, "user": "ona", "network": "9.9.9.9"}


def test_page_tells_all_in_few_statements(
    staff, refused, django_assert_max_num_queries
):
    client = staff("view", "unblock")
    with django_assert_max_num_queries(12):
        page = client.post(URL, refused)
    assert len(answers(page)) == 11


def test_unblocking_takes_few_statements(staff, refused, django_assert_max_num_queries):
    """Those of the page, the reset of the limits, and the two of Django's log."""
    client = staff("view", "unblock")
    with django_assert_max_num_queries(12 + 1 + 2):
        page = client.post(URL, refused | {"_unblock": "1"})
    assert "Unblocked: number" in text_of(page)


# Permissions


@pytest.mark.parametrize("rights", [(), ("unblock",)])
@pytest.mark.parametrize("method", ["get", "post"])
def test_page_needs_the_permission_to_view(staff, rights, method):
    assert getattr(staff(*rights), method)(URL).status_code == 403


def test_visitor_is_sent_to_the_login(client):
    assert client.get(URL).status_code == 302


@pytest.mark.parametrize(
    "body", [{"_unblock": "1", "number": NUMBER}, {"_release": "LT"}]
)
def test_unblocking_and_releasing_need_their_permission(staff, engaged, body):
    client = staff("view")
    assert client.post(URL, body).status_code == 403
    assert brake.engaged() == [engaged]
    assert not StartLock.objects.exists()


@pytest.mark.parametrize(("rights", "is_shown"), [((), False), (("unblock",), True)])
def test_buttons_are_shown_to_those_who_may_press_them(
    staff, engaged, rights, is_shown
):
    page = text_of(staff("view", *rights).get(URL))
    assert ['name="_unblock"' in page, 'name="_release"' in page] == [is_shown] * 2


def test_forged_request_unblocks_nothing(staff, django_user_model):
    client = staff("view", "unblock")
    client.handler.enforce_csrf_checks = True
    body = {"_unblock": "1", "number": NUMBER}
    assert client.post(URL, body).status_code == 403
    assert not StartLock.objects.exists()


# Unblocking and releasing


def test_number_is_unblocked_and_logged_masked(staff, make, user):
    make("expired")
    client = staff("view", "unblock")
    page = client.post(URL, {"_unblock": "1", "number": NUMBER})
    entry = LogEntry.objects.get()
    text = f"Unblocked: number {MASKED_NUMBER}"
    assert answers(page) == [NOTHING]
    assert (entry.object_repr, entry.change_message) == (text, text)
    assert entry.user.username == "eva"
    assert text in text_of(page)
    assert start(user).status == "queued"


def test_user_and_network_are_unblocked_and_logged_at_the_user(staff, user):
    body = {"_unblock": "1", "user": "ona", "network": "9.9.9.9"}
    assert answers(staff("view", "unblock").post(URL, body)) == [NOTHING]
    entry = LogEntry.objects.get()
    assert entry.get_edited_object() == user
    assert entry.change_message == "Unblocked: user, network 9.9.*.*"


def test_unblocking_is_logged_without_the_number(staff, caplog):
    staff("view", "unblock").post(URL, {"_unblock": "1", "number": NUMBER})
    lines = [r.getMessage() for r in caplog.records if "Unblocked" in r.getMessage()]
    assert lines == [f"Unblocked: number. {MASKED_NUMBER}"]


def test_page_says_what_still_refuses(staff, make, settings):
    settings.IDENFY_PHONE_SEND_LIMITS = {"block": ("1/h",)}
    make("expired")
    page = staff("view", "unblock").post(URL, {"_unblock": "1", "number": NUMBER})
    [line] = answers(page)
    assert line.startswith("The limit of the number's block, 10,000 numbers, is rea")


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("observe", "The brake only observes: no start is refused."),
        ("enforce", "The brake refuses newcomers there until its end."),
    ],
)
def test_engaged_brake_is_shown(staff, engaged, settings, mode, text):
    settings.IDENFY_PHONE_BRAKE = {"mode": mode}
    page = text_of(staff("view").get(URL))
    assert text in page
    assert "<td>2 of 60</td>" in page
    assert ("<td>0 starts</td>" in page) == (mode == "observe")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("url", [URL, f"{LIST_URL}summary/"])
def test_page_shows_what_an_observing_brake_would_have_refused(
    staff, make, clock, settings, url
):
    settings.TIME_ZONE = "UTC"
    settings.IDENFY_PHONE_ALLOW_ANONYMOUS = True
    settings.IDENFY_PHONE_SEND_LIMITS = {"block": ()}
    for n in range(200):
        sent_at = {"created_at": clock.now, "claimed_at": clock.now}
        make("sent", phone_number=f"+3706{n:07}", user=None, **sent_at)
    clock.move(timedelta(minutes=3))
    maintenance.sweep(lambda pk: True)
    begin = clock.now
    clock.move(timedelta(seconds=1))
    for n in range(7):
        assert start(None, f"+3706123{n:04}").status == "queued"
    clock.move(timedelta(minutes=1))
    maintenance.sweep(lambda pk: True)
    page = text_of(staff("view").get(url))
    table = page.partition("Would have been refused")[2].partition("</table>")[0]
    cells = [f"{begin + later:%Y-%m-%d %H:%M:%S} UTC" for later in (NOW, HOUR)]
    expected = ["LT", *cells, "0 of 200", "7 starts"]
    assert re.findall("<t[hd][^>]*>(.*?)</t[hd]>", table) == expected


def test_brake_is_released_and_logged(staff, engaged, caplog):
    page = staff("view", "unblock").post(URL, {"_release": "LT"})
    text = "Released the brake of the region LT"
    assert text in text_of(page)
    assert (brake.engaged(), LogEntry.objects.get().object_repr) == ([], text)
    verifications = ContentType.objects.get_for_model(PhoneVerification)
    assert LogEntry.objects.get().content_type == verifications


@pytest.mark.parametrize("region", ["GB", "", "\0", "x" * 3_000])
def test_release_of_no_brake_does_nothing(staff, engaged, region):
    page = staff("view", "unblock").post(URL, {"_release": region})
    assert page.status_code == 200
    assert (brake.engaged(), LogEntry.objects.count()) == ([engaged], 0)


def test_list_links_to_the_page(staff):
    assert f'href="{URL}"' in text_of(staff("view").get(LIST_URL))


def test_admin_index_shows_the_entries(staff, admin_client, admin_user, engaged):
    admin_client.post(URL, {"_release": "LT"})
    page = text_of(admin_client.get("/admin/"))
    assert "Released the brake of the region LT" in page


def test_page_has_no_inline_style_or_script(staff, engaged):
    page = text_of(staff("view", "unblock").post(URL, {"number": NUMBER}))
    ours = page.partition('<div id="content-main">')[2].partition("<footer")[0]
    assert re.findall(r"<script|<style|\bstyle=|\bon[a-z]+=", ours) == []
