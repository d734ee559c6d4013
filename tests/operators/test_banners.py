"""The list and the summary show each trouble once, and none when all is well."""

import re
from datetime import timedelta
from html import unescape

import pytest
from django.utils import timezone

from django_idenfy_phone import tallies
from django_idenfy_phone.health import Trouble
from django_idenfy_phone.models import ProviderGate, RegionBrake
from django_idenfy_phone.records import Heartbeat
from django_idenfy_phone.testing import age

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("wire")]

LIST_URL = "/admin/django_idenfy_phone/phoneverification/"
PAGES = {"list": LIST_URL, "summary": f"{LIST_URL}summary/"}
MINUTE = timedelta(minutes=1)
NETWORK = "The newest start has no client network"


@pytest.fixture(params=PAGES)
def page(request):
    return request.param


@pytest.fixture
def banners(admin_client, page):
    """Return the warnings above the list, or above the summary."""

    def banners(query=""):
        text = admin_client.get(PAGES[page] + query).content.decode()
        found = re.findall('<li class="warning">(.*?)</li>', text)
        return [unescape(each) for each in found]

    return banners


@pytest.fixture
def stored(make):
    def stored(status, **fields):
        return make(status, network="8.8.8.8", **fields)

    return stored


@pytest.fixture
def beats(clock):
    """Store when sweep and delivery last ran, each some minutes ago."""

    def beats(**minutes):
        for name, ago in minutes.items():
            Heartbeat.objects.create(name=name, beat_at=clock.now - ago * MINUTE)

    return beats


def without_key(settings, **_):
    settings.IDENFY_PHONE_API_KEY = ""


def refused_account(**_):
    ProviderGate.objects.create(account_faults=1)


def failed_sends(stored, **_):
    for _ in range(3):
        stored("failed", failure="unknown")


def waiting_row(stored, **_):
    age(stored("queued"), 1.5 * MINUTE)


def late_row(stored, **_):
    stored("failed", failure="too_late")


def failing_receiver(stored, beats, clock, **_):
    beats(sweep=0)
    times = {"verified_at": clock.now, "announce_at": clock.now + 9 * MINUTE}
    failure = "shop.receivers.remember (ValueError)"
    age(stored("verified", **times, announce_failure=failure), 6 * MINUTE)


def dead_sweep(beats, **_):
    beats(sweep=2.1)


def dead_worker(beats, **_):
    beats(sweep=1, delivery=10.1)


def full_block(**_):
    tallies.note_refusal("block", "LT", "")


def full_site(**_):
    tallies.note_refusal("site", "LT", "")


def engaged_brake(clock, **_):
    until = clock.now + MINUTE
    RegionBrake.objects.create(region="LT", engaged_at=clock.now, engaged_until=until)


TROUBLES = {
    Trouble.NO_KEY: without_key,
    Trouble.ACCOUNT: refused_account,
    Trouble.FAILING: failed_sends,
    Trouble.QUEUE: waiting_row,
    Trouble.LATE: late_row,
    Trouble.RECEIVERS: failing_receiver,
    Trouble.SWEEP: dead_sweep,
    Trouble.DELIVERY: dead_worker,
    Trouble.BLOCK: full_block,
    Trouble.SITE: full_site,
    Trouble.BRAKE: engaged_brake,
}
DETAILS = {
    Trouble.QUEUE: " (1 min)",
    Trouble.RECEIVERS: " shop.receivers.remember (ValueError)",
}


@pytest.mark.parametrize("trouble", Trouble)
def test_each_trouble_has_one_banner(
    banners, page, stored, beats, clock, settings, trouble
):
    TROUBLES[trouble](stored=stored, beats=beats, clock=clock, settings=settings)
    expected = [f"{trouble.label}{DETAILS.get(trouble, '')}"]
    if page == "summary" and trouble == Trouble.BRAKE:
        # It has a table there.
        expected = []
    assert banners() == expected


def test_overdue_lease_is_no_age_of_the_queue(banners, stored, clock):
    stored("sending", lease_until=clock.now - 2 * MINUTE)
    age(stored("queued"), MINUTE / 2)
    assert banners() == [Trouble.QUEUE.label]


@pytest.mark.parametrize("page", ["list"], indirect=True)
def test_brake_of_numbers_without_a_region_has_a_banner(banners, clock):
    until = clock.now + MINUTE
    RegionBrake.objects.create(region="", engaged_at=clock.now, engaged_until=until)
    assert banners() == [Trouble.BRAKE.label]


def test_several_troubles_are_all_shown(banners, stored, beats):
    late_row(stored)
    dead_sweep(beats)
    assert banners() == [Trouble.LATE.label, Trouble.SWEEP.label]


def test_there_is_no_banner_when_all_is_well(banners, stored, beats):
    stored("queued")
    beats(sweep=1, delivery=9)
    assert banners() == []


def test_new_site_has_no_banner(banners):
    assert banners() == []


def test_start_without_a_network_has_a_banner(banners, stored, make):
    age(stored("sent"), MINUTE)
    make("sent")
    (text,) = banners()
    assert text.startswith(NETWORK)


def test_network_of_an_erased_start_is_not_missed(banners, stored, make):
    age(stored("sent"), MINUTE)
    make("sent", user=None, erased_at=timezone.now())
    assert banners() == []


def test_no_network_is_needed_in_development(banners, make, settings):
    settings.DEBUG = True
    make("sent")
    assert banners() == []


def test_no_network_is_needed_without_a_limit_by_it(banners, make, settings):
    settings.IDENFY_PHONE_SEND_LIMITS = {"network": ()}
    make("sent")
    assert banners() == []


def test_banner_does_not_come_twice_after_a_redirect(banners, make):
    make("sent")
    banners("?nonsense=1")
    assert len(banners()) == 1
