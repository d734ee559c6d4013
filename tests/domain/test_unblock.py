"""Earlier sends of an unblocked number, user or network no longer count."""

from datetime import timedelta

import pytest

from django_idenfy_phone import services
from django_idenfy_phone.exceptions import NumberNotSupported, UnknownUser
from django_idenfy_phone.models import PhoneVerification, StartLock
from support.constants import NUMBER
from support.steps import MASKED_NUMBER, refusal_of, start, start_and_expire

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.usefixtures("account", "before_summer_time"),
]

KINDS = ["number", "user", "network", "block", "site"]
OTHER = "+37069999999"
NETWORK = "9.9.9.9"
SIX = "2606:4700:1:2::/64"
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def limited(settings, user):
    """One send an hour in a kind, and one that was a second ago."""

    def limited(*kinds, cooldown=0, network=NETWORK):
        limits = dict.fromkeys(kinds, ("1/h",))
        settings.IDENFY_PHONE_SEND_LIMITS = dict.fromkeys(KINDS, ()) | limits
        settings.IDENFY_PHONE_RESEND_COOLDOWN = (cooldown,)
        return start_and_expire(user, network=network)

    return limited


@pytest.fixture
def names(user):
    """What ``unblock`` takes for each kind."""
    return {
        "number": {"phone_number": NUMBER},
        "user": {"user": user},
        "network": {"network": NETWORK},
    }


def kinds_of(reasons):
    return [each.kind for each in reasons]


@pytest.mark.parametrize("kind", ["number", "user", "network"])
def test_start_is_accepted_after_its_kind_was_unblocked(limited, user, names, kind):
    limited(kind)
    refusal_of(user, network=NETWORK)
    assert services.unblock(**names[kind]) == []
    start(user, network=NETWORK)


@pytest.mark.parametrize("kind", ["number", "user", "network"])
@pytest.mark.parametrize("other", KINDS)
def test_unblocking_lifts_no_other_kind(limited, user, names, kind, other):
    if kind != other:
        limited(other)
        services.unblock(**names[kind])
        assert refusal_of(user, network=NETWORK) == ("limit_reached", HOUR)


def test_all_three_are_unblocked_together(limited, user, names):
    limited("number", "user", "network")
    together = names["number"] | names["user"] | names["network"]
    assert services.unblock(**together) == []
    start(user, network=NETWORK)


def test_unblocking_tells_what_still_refuses(limited, user, names, clock):
    limited("number", "user", "block", "site")
    remaining = services.unblock(**names["number"])
    assert kinds_of(remaining) == ["block", "site"]
    assert [each.until for each in remaining] == [clock.now + HOUR] * 2


def test_unblocking_is_logged_masked(names, caplog):
    services.unblock(**names["number"] | names["user"] | names["network"])
    text = f"Unblocked: number, user, network. {MASKED_NUMBER} 9.9.*.*"
    assert caplog.messages == [text]


def test_unblocking_needs_nothing_to_unblock(limited):
    limited("user")
    assert services.unblock() == []


def test_unblocking_a_number_ends_its_cooldown(limited, user):
    limited(cooldown=60)
    assert refusal_of(user) == ("cooldown", MINUTE)
    services.unblock(phone_number=NUMBER)
    start(user)


def test_sends_after_the_unblocking_count(user, clock):
    start_and_expire(user)
    services.unblock(phone_number=NUMBER)
    clock.move(SECOND)
    start_and_expire(user)
    assert refusal_of(user) == ("cooldown", MINUTE)
    clock.move(MINUTE)
    start_and_expire(user)
    assert refusal_of(user) == ("cooldown", 2 * MINUTE)


def test_unblocking_a_number_unblocks_no_other_number(make, user):
    make()
    services.unblock(phone_number=OTHER)
    assert refusal_of(user) == ("cooldown", MINUTE)


def test_number_can_be_unblocked_before_its_first_start_and_again(user):
    services.unblock(phone_number=NUMBER)
    start(user)
    services.unblock(phone_number=NUMBER)
    start(user)
    assert PhoneVerification.objects.count() == 2


def test_unblocking_deletes_no_row(user):
    row = start(user)
    services.unblock(phone_number=NUMBER, user=user)
    assert list(PhoneVerification.objects.all()) == [row]


FORMS = ["+370 612 34567", "(+370) 612-34567", "\uff0b370\u00a0612\u201134567"]


@pytest.mark.parametrize("number", FORMS)
def test_number_is_unblocked_in_any_form(limited, user, number):
    limited("number")
    services.unblock(phone_number=number)
    start(user)


def test_national_number_is_unblocked_with_a_default_region(limited, user, settings):
    limited("number")
    settings.PHONENUMBER_DEFAULT_REGION = "LT"
    services.unblock(phone_number="0 612 34567")
    start(user)


@pytest.mark.parametrize(
    "change",
    [{"IDENFY_PHONE_REGIONS": ["GB"]}, {"IDENFY_PHONE_NUMBER_TYPES": ["fixed-line"]}],
)
def test_number_is_unblocked_that_is_no_longer_allowed(limited, user, settings, change):
    limited("number")
    allowed = {name: getattr(settings, name, ("mobile",)) for name in change}
    for name, value in change.items():
        setattr(settings, name, value)
    [remaining] = services.unblock(phone_number=NUMBER)
    assert f"IDENFY_PHONE_{remaining.kind}" in change
    for name, value in allowed.items():
        setattr(settings, name, value)
    start(user)


@pytest.mark.parametrize("address", ["9.9.9.9", " 9.9.9.9:443", "::ffff:9.9.9.9"])
def test_network_is_unblocked_by_an_address_in_any_form(limited, user, address):
    limited("network")
    services.unblock(network=address)
    start(user, network=NETWORK)


@pytest.mark.parametrize("address", [SIX, "2606:4700:1:2::1", "[2606:4700:1:2::9]:1"])
def test_network_of_ipv6_is_unblocked_by_any_address_in_it(limited, user, address):
    limited("network", network=SIX)
    services.unblock(network=address)
    start(user, network=SIX)


def test_network_of_unreadable_addresses_is_unblocked_by_its_name(limited, user):
    limited("network", network="unknown")
    services.unblock(network="unknown")
    start(user, network="unknown")


@pytest.mark.parametrize("number", ["+3706123", "61234", "nonsense", NUMBER + "9"])
def test_invalid_number_is_not_unblocked(number):
    with pytest.raises(NumberNotSupported):
        services.unblock(phone_number=number)
    assert not StartLock.objects.exists()


@pytest.mark.parametrize(
    "network", ["nonsense", "1.2.3", "2606:4700::/48", "9.9.9.9/24"]
)
def test_text_without_an_address_is_not_unblocked(network):
    with pytest.raises(ValueError, match=r"^no IP address$"):
        services.unblock(network=network)


def test_unsaved_user_is_not_unblocked(django_user_model):
    with pytest.raises(UnknownUser):
        services.unblock(user=django_user_model())


@pytest.mark.parametrize("kind", ["number", "user", "network"])
@pytest.mark.parametrize("others", [0, 2])
def test_resend_at_honours_each_unblocking(
    limited, user, names, make, clock, kind, others
):
    row = limited(kind)
    for _ in range(others):
        make("expired", phone_number=OTHER)
    shown = services.get_verification(row.pk, user=user)
    assert shown.resend_at == clock.now + HOUR
    services.unblock(**names[kind])
    shown = services.get_verification(row.pk, user=user)
    assert shown.resend_at <= clock.now
