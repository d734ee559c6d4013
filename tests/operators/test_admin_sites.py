"""The log works on another admin site, in a theme, and is linked from each user."""

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse

from support.constants import NUMBER

pytestmark = pytest.mark.django_db
LIST_URL = "/support/django_idenfy_phone/phoneverification/"


@pytest.fixture(autouse=True)
def _support_site(settings):
    settings.ROOT_URLCONF = "hosts.support_site"


def test_list_and_attempt_link_to_their_own_site(admin_client, make, user):
    row = make("sent")
    page = admin_client.get(LIST_URL).content.decode()
    assert f'href="/support/auth/user/{user.pk}/change/"' in page
    page = admin_client.get(f"{LIST_URL}{row.pk}/change/").content.decode()
    assert f'formaction="{LIST_URL}{row.pk}/full-number/"' in page


def test_full_number_is_shown_on_its_own_site(admin_client, make):
    url = reverse(
        "support:django_idenfy_phone_phoneverification_full_number", args=[make().pk]
    )
    page = admin_client.post(url).content.decode()
    assert NUMBER in page
    assert '<a href="/support/django_idenfy_phone/' in page
    assert 'href="/admin/' not in page


def test_theme_keeps_its_own_list(admin_client, make):
    make("sent")
    changes = admin_client.get(LIST_URL).context["cl"]
    assert changes.is_of_theme
    assert changes.model_admin.list_fullwidth
    assert changes.paginator.count == 1


def test_user_page_links_to_the_attempts_of_the_user(
    admin_client, make, user, admin_user
):
    own, other = make("sent"), make("sent", user=admin_user)
    page = admin_client.get(f"/support/auth/user/{user.pk}/change/").content.decode()
    link = f"{LIST_URL}?user={user.pk}"
    assert f'<a href="{link}">Show them</a>' in page
    page = admin_client.get(link).content.decode()
    assert own.reference in page
    assert other.reference not in page


def test_page_of_a_new_user_has_no_link(admin_client):
    response = admin_client.get("/support/auth/user/add/")
    assert response.status_code == 200
    assert LIST_URL + "?" not in response.content.decode()


def test_user_page_has_no_link_for_whom_the_log_is_not_shown(
    client, django_user_model, user
):
    viewer = django_user_model.objects.create_user("eva", is_staff=True)
    viewer.user_permissions.set(Permission.objects.filter(codename="view_user"))
    client.force_login(viewer)
    response = client.get(f"/support/auth/user/{user.pk}/change/")
    assert response.status_code == 200
    assert LIST_URL not in response.content.decode()
