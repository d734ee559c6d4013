"""Limits count a client under its true network, whatever headers it sends."""

from datetime import timedelta
from ipaddress import ip_address

import pytest
from rest_framework.request import Request
from rest_framework.test import APIRequestFactory

from django_idenfy_phone import network
from django_idenfy_phone.models import PhoneVerification, StartLock
from django_idenfy_phone.network import client_network
from hosts.custom import by_cdn
from support.constants import NUMBER
from support.steps import logged_messages, post_start

rows = PhoneVerification.objects
ADMIN = "/admin/django_idenfy_phone/phoneverification/"
NO_NETWORK = (
    "A client came from a private, loopback or unknown address: the limits by "
    "network do not apply. Behind a proxy, set REST_FRAMEWORK['NUM_PROXIES']."
)
UNREADABLE_HEADER = (
    "No address can be read in X-Forwarded-For, as far as NUM_PROXIES says: such "
    'clients count in one network, "unknown".'
)
UNREADABLE_RESULT = (
    "No address can be read in the result of IDENFY_PHONE_CLIENT_NETWORK: such "
    'clients count in one network, "unknown".'
)
BANNER = "The newest start has no client network"


@pytest.fixture(autouse=True)
def _forget_the_warning():
    network._warn_once.cache_clear()


@pytest.fixture
def set_num_proxies(settings):
    def set_num_proxies(count):
        settings.REST_FRAMEWORK = {"NUM_PROXIES": count}

    return set_num_proxies


def address_headers(remote, forwarded):
    headers = {"REMOTE_ADDR": remote}
    if forwarded is not None:
        headers["HTTP_X_FORWARDED_FOR"] = forwarded
    return headers


def network_of(remote="9.9.9.9", forwarded=None):
    headers = address_headers(remote, forwarded)
    return client_network(Request(APIRequestFactory().post("/", **headers)))


def post_start_from(api, remote, forwarded=None, number=NUMBER):
    return post_start(api, number=number, **address_headers(remote, forwarded))


# REMOTE_ADDR


def test_network_is_remote_addr_by_default():
    assert network_of("9.9.9.9") == "9.9.9.9"


@pytest.mark.parametrize("count", [None, 0])
def test_x_forwarded_for_is_not_read_without_a_proxy(set_num_proxies, count):
    set_num_proxies(count)
    assert network_of("9.9.9.9", "8.8.8.8") == "9.9.9.9"


def test_x_forwarded_for_is_not_read_without_the_setting():
    assert network_of("9.9.9.9", "8.8.8.8") == "9.9.9.9"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("2606:4700:1:2:3:4:5:6", "2606:4700:1:2::/64"),
        ("2606:4700:1:2:ffff:ffff:ffff:ffff", "2606:4700:1:2::/64"),
        ("2606:4700:1:2::", "2606:4700:1:2::/64"),
        ("2606:4700:1:3::", "2606:4700:1:3::/64"),
        ("2606:4700::1", "2606:4700::/64"),
        ("2606:4700:0001:0002:0000:0000:0000:0001", "2606:4700:1:2::/64"),
        ("2A00:1450:4001:0800::200E", "2a00:1450:4001:800::/64"),
        ("::ffff:9.9.9.9", "9.9.9.9"),
        ("::FFFF:0909:0909", "9.9.9.9"),
        ("100.63.255.255", "100.63.255.255"),
        ("100.128.0.0", "100.128.0.0"),
    ],
)
def test_network_is_an_ipv4_address_or_an_ipv6_subnet(address, expected):
    assert network_of(address) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("9.9.9.9:50000", "9.9.9.9"),
        ("9.9.9.9:", "9.9.9.9"),
        ("9.9.9.9:_hidden", "9.9.9.9"),
        ("[9.9.9.9]:443", "9.9.9.9"),
        (" 9.9.9.9 ", "9.9.9.9"),
        ("\t9.9.9.9", "9.9.9.9"),
        ('"9.9.9.9"', "9.9.9.9"),
        ("'9.9.9.9:443'", "9.9.9.9"),
        ('"9.9.9.9:443"', "9.9.9.9"),
        ("[2606:4700::1]:443", "2606:4700::/64"),
        ("[2606:4700::1]", "2606:4700::/64"),
        ('"[2606:4700::1]:443"', "2606:4700::/64"),
        ('" [2606:4700::1] "', "2606:4700::/64"),
        ("2606:4700:1:2:3:4:5:6:443", "2606:4700:1:2::/64"),
        ("2606:4700:1:2:3:4:5::", "2606:4700:1:2::/64"),
        ("2606:4700::1%eth0", "2606:4700::/64"),
        ("[2606:4700::1%25eth0]:443", "2606:4700::/64"),
        # IPv4 inside IPv6: mapped, compatible, translated, NAT64, 6to4, Teredo
        ("::ffff:9.9.9.9", "9.9.9.9"),
        ("[::ffff:9.9.9.9]:443", "9.9.9.9"),
        ("::ffff:9.9.9.9%eth0", "9.9.9.9"),
        ("0:0:0:0:0:FFFF:909:909", "9.9.9.9"),
        ("::9.9.9.9", "9.9.9.9"),
        ("::ffff:0:9.9.9.9", "9.9.9.9"),
        ("64:ff9b::9.9.9.9", "9.9.9.9"),
        ("64:ff9b:1::9.9.9.9", "9.9.9.9"),
        ("2002:909:909::1", "9.9.9.9"),
        ("2002:909:909:ffff::1", "9.9.9.9"),
        ("2001:0:4136:e378:8000:63bf:f6f6:f6f6", "9.9.9.9"),
        ("64:ff9b::10.0.0.1", ""),
        ("2002:a00:1::1", ""),
        ("127.0.0.1:50000", ""),
        ("[::1]:50000", ""),
    ],
)
def test_every_form_of_an_address_means_the_address(set_num_proxies, written, expected):
    assert network_of(written) == expected
    set_num_proxies(1)
    assert network_of("10.0.0.2", f"1.1.1.1, {written}") == expected


UNREADABLE = [
    *["unix:", "localhost", "example.com", "9.9.9", "9.9.9.9.9", "9.9.9.256"],
    *["09.9.9.9", "0x9.9.9.9", "168430089", "9.9.9.9/32", "9.9.9.9\n", "9.9.9.9\0"],
    *["٩.9.9.9", "-1", "%s", "2606:4700::1::", "2606:4700:::", "g::1"],
    *["2606:4700::/64", "unknown", "_hid", "[]:443", "[", '"', "for=9.9.9.9", ":"],
]
NO_CLIENT = [
    "",
    " ",
    # Private, loopback and link-local ones
    *["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "127.0.0.1"],
    *["169.254.1.1", "0.0.0.0", "255.255.255.255"],
    *["::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456::1"],
    *["::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:100.64.0.1"],
    # Shared by all customers of a carrier
    *["100.64.0.0", "100.64.0.1", "100.127.255.255"],
    # Reserved for documentation
    *["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1"],
    *UNREADABLE,
]


@pytest.mark.parametrize("address", NO_CLIENT)
def test_address_that_identifies_no_client_is_no_network(address, caplog):
    assert network_of(address) == ""
    assert logged_messages(caplog) == [("WARNING", NO_NETWORK)]


def test_request_without_remote_addr_has_no_network():
    request = APIRequestFactory().post("/")
    del request.META["REMOTE_ADDR"]
    assert client_network(Request(request)) == ""


# X-Forwarded-For and NUM_PROXIES

CLIENT, NEAR, FAR = "8.8.8.8", "10.0.0.2", "10.0.0.3"


@pytest.mark.parametrize(
    ("count", "forwarded", "expected"),
    [
        (1, CLIENT, CLIENT),
        (1, f"1.1.1.1, {CLIENT}", CLIENT),
        (1, f"1.1.1.1,{CLIENT}", CLIENT),
        (1, f"  1.1.1.1  ,   {CLIENT}  ", CLIENT),
        (1, f"{CLIENT}, {FAR}", ""),
        (1, "2606:4700:1:2::5", "2606:4700:1:2::/64"),
        (2, f"{CLIENT}, {FAR}", CLIENT),
        (2, f"1.1.1.1, {CLIENT}, {FAR}", CLIENT),
        (2, f"1.1.1.1, {FAR}, {CLIENT}, {FAR}", CLIENT),
        (2, CLIENT, CLIENT),
        (3, f"1.1.1.1, {CLIENT}, {FAR}, {FAR}", CLIENT),
    ],
)
def test_network_is_what_the_first_own_proxy_saw(
    set_num_proxies, count, forwarded, expected
):
    set_num_proxies(count)
    assert network_of(NEAR, forwarded) == expected


@pytest.mark.parametrize("count", [1, 2])
def test_network_is_remote_addr_without_the_header(set_num_proxies, count):
    set_num_proxies(count)
    assert network_of("9.9.9.9") == network_of("9.9.9.9", "") == "9.9.9.9"


SPOOFED = {
    "one entry": "1.1.1.1",
    "500 entries": ", ".join(f"1.1.{n // 250}.{n % 250 + 1}" for n in range(500)),
    "500 commas": "," * 500,
    "garbage": "<script>, ' OR 1=1, %s, {0}, \\, ;, \t",
    "its own proxies": f"127.0.0.1, {NEAR}, {FAR}",
    "Latin-1": "\xe9\xff\xa0",
    "a long entry": "1" * 8_000,
    "a header in it": "for=1.1.1.1;by=2.2.2.2",
}


@pytest.mark.parametrize("spoofed", SPOOFED.values(), ids=SPOOFED)
@pytest.mark.parametrize("count", [None, 0, 1, 2])
def test_spoofed_header_does_not_change_the_network(set_num_proxies, count, spoofed):
    set_num_proxies(count)
    added = [CLIENT, FAR][: count or 0]
    remote = NEAR if count else CLIENT
    assert network_of(remote, ", ".join([spoofed, *added])) == CLIENT


@pytest.mark.parametrize("spoofed", SPOOFED.values(), ids=SPOOFED)
@pytest.mark.parametrize("count", [None, 0, 1, 2])
@pytest.mark.django_db
def test_start_with_a_spoofed_header_stores_the_true_network(
    api, set_num_proxies, idenfy_sandbox, count, spoofed
):
    set_num_proxies(count)
    added = [CLIENT, FAR][: count or 0]
    post_start_from(api, NEAR if count else CLIENT, ", ".join([spoofed, *added]))
    assert rows.get().network == CLIENT


@pytest.mark.parametrize("forwarded", [*SPOOFED.values(), *NO_CLIENT])
@pytest.mark.django_db
def test_start_is_accepted_with_any_x_forwarded_for(
    api, set_num_proxies, idenfy_sandbox, forwarded
):
    set_num_proxies(1)
    try:
        forwarded.encode("latin-1")
    except UnicodeEncodeError:
        forwarded = forwarded.encode().decode("latin-1")
    assert post_start_from(api, NEAR, forwarded).status_code == 202


# Addresses of a configured proxy that cannot be read


@pytest.mark.parametrize("forwarded", [*UNREADABLE, ",", " , ", f"{CLIENT}, "])
def test_unreadable_address_of_a_proxy_is_the_unknown_network(
    set_num_proxies, forwarded, caplog
):
    set_num_proxies(1)
    assert network_of(NEAR, forwarded) == "unknown"
    assert logged_messages(caplog) == [("ERROR", UNREADABLE_HEADER)]


@pytest.mark.parametrize("returned", [*UNREADABLE, " "])
def test_unreadable_result_of_client_network_is_the_unknown_network(
    settings, returned, caplog
):
    settings.IDENFY_PHONE_CLIENT_NETWORK = lambda request: returned
    assert network_of() == "unknown"
    assert logged_messages(caplog) == [("ERROR", UNREADABLE_RESULT)]


def test_unreadable_address_is_logged_once_a_minute(set_num_proxies, caplog, clock):
    set_num_proxies(1)
    for seconds in (0, 1, 58, 1):
        clock.now += timedelta(seconds=seconds)
        network_of(NEAR, f"hidden-{seconds}")
    assert logged_messages(caplog) == [("ERROR", UNREADABLE_HEADER)] * 2


# Limits by network


@pytest.fixture
def one_start_an_hour(settings, idenfy_sandbox):
    settings.IDENFY_PHONE_SEND_LIMITS = {"network": ("1/h",)}


def codes_of(answers):
    return [each.json().get("code", each.status_code) for each in answers]


OTHER = "+37069999999"


@pytest.mark.django_db
def test_spoofed_header_does_not_escape_the_limit(
    api, one_start_an_hour, set_num_proxies
):
    set_num_proxies(1)
    first = post_start_from(api, NEAR, f"1.1.1.1, {CLIENT}")
    second = post_start_from(api, NEAR, f"2.2.2.2, {CLIENT}", OTHER)
    assert codes_of([first, second]) == [202, "limit_reached"]


@pytest.mark.django_db
def test_spoofed_header_does_not_fill_the_limit_of_others(
    api, one_start_an_hour, set_num_proxies
):
    set_num_proxies(1)
    first = post_start_from(api, NEAR, f"{CLIENT}, 9.9.9.9")
    second = post_start_from(api, NEAR, CLIENT, OTHER)
    assert codes_of([first, second]) == [202, 202]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("one", "other", "code"),
    [
        ("2606:4700:1:2::1", "2606:4700:1:2:ffff::1", "limit_reached"),
        ("2606:4700:1:2::1", "2606:4700:1:3::1", 202),
        ("9.9.9.9", "::ffff:9.9.9.9", "limit_reached"),
        ("9.9.9.9", "9.9.9.9:50000", "limit_reached"),
        ("9.9.9.9", "64:ff9b::9.9.9.9", "limit_reached"),
        ("9.9.9.9", "9.9.9.10", 202),
    ],
)
def test_each_subscriber_has_one_limit(api, one_start_an_hour, one, other, code):
    answers = [post_start_from(api, one), post_start_from(api, other, number=OTHER)]
    assert codes_of(answers) == [202, code]


@pytest.mark.django_db
def test_clients_with_unreadable_addresses_have_one_limit(
    api, one_start_an_hour, set_num_proxies
):
    set_num_proxies(1)
    first = post_start_from(api, NEAR, "hidden")
    second = post_start_from(api, NEAR, "9.9.9.256", OTHER)
    assert codes_of([first, second]) == [202, "limit_reached"]
    assert rows.get().network == "unknown"


@pytest.mark.django_db
@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "100.64.0.1", "", "::1"])
def test_missing_network_is_neither_locked_nor_counted(
    api, one_start_an_hour, address, caplog
):
    answers = [
        post_start_from(api, address, number=f"+3706{n}345678") for n in range(3)
    ]
    assert codes_of(answers) == [202, 202, 202]
    # The locks of three numbers, their blocks and one user.
    assert StartLock.objects.count() == 7
    assert set(rows.values_list("network", flat=True)) == {""}


@pytest.mark.django_db
def test_start_locks_its_network(api, one_start_an_hour):
    post_start_from(api, "9.9.9.9")
    # The locks of number, block, user and network.
    assert StartLock.objects.count() == 4


# The warning


def test_missing_network_is_logged_once_per_process(caplog):
    for address in ("127.0.0.1", "10.0.0.1", "", "nonsense", "127.0.0.1"):
        network_of(address)
    assert logged_messages(caplog) == [("WARNING", NO_NETWORK)]


def test_known_network_logs_nothing(caplog):
    network_of("9.9.9.9")
    assert logged_messages(caplog) == []


def test_warning_contains_no_address(caplog):
    network_of("192.168.17.23")
    assert "192.168" not in caplog.text


@pytest.mark.django_db
def test_admin_shows_that_the_newest_start_has_no_network(admin_client, make):
    make()
    assert BANNER in admin_client.get(ADMIN).content.decode()


@pytest.mark.django_db
def test_admin_shows_no_banner_once_a_network_is_known(admin_client, make):
    make()
    make(network="9.9.9.9")
    assert BANNER not in admin_client.get(ADMIN).content.decode()


@pytest.mark.django_db
def test_admin_shows_no_banner_without_rows(admin_client):
    assert BANNER not in admin_client.get(ADMIN).content.decode()


@pytest.mark.django_db
def test_admin_shows_the_network_of_a_row(admin_client, make):
    row = make(network="2606:4700:1:2::/64")
    page = admin_client.get(f"{ADMIN}{row.pk}/change/").content.decode()
    assert "2606:4700:1:2::/64" in page


# IDENFY_PHONE_CLIENT_NETWORK


@pytest.mark.parametrize("function", [by_cdn, "hosts.custom.by_cdn"])
@pytest.mark.parametrize(
    ("returned", "expected"),
    [("8.8.8.8", "8.8.8.8"), ("2606:4700::1", "2606:4700::/64"), ("10.0.0.1", "")],
)
def test_client_network_setting_is_used(settings, function, returned, expected):
    settings.IDENFY_PHONE_CLIENT_NETWORK = function
    request = APIRequestFactory().post("/", HTTP_CF_CONNECTING_IP=returned)
    assert client_network(Request(request)) == expected


def test_client_network_setting_overrides_num_proxies(settings, set_num_proxies):
    set_num_proxies(1)
    settings.IDENFY_PHONE_CLIENT_NETWORK = lambda request: "9.9.9.9"
    assert network_of(NEAR, CLIENT) == "9.9.9.9"


@pytest.mark.parametrize("returned", ["", "10.0.0.1"])
def test_client_network_setting_may_return_no_network(settings, returned, caplog):
    settings.IDENFY_PHONE_CLIENT_NETWORK = lambda request: returned
    assert network_of() == ""
    assert logged_messages(caplog) == [("WARNING", NO_NETWORK)]


@pytest.mark.parametrize(
    "returned",
    [None, ("9.9.9.9", True), b"9.9.9.9", 0, ["9.9.9.9"], ip_address("9.9.9.9")],
)
def test_client_network_setting_must_return_text(settings, returned):
    settings.IDENFY_PHONE_CLIENT_NETWORK = lambda request: returned
    with pytest.raises(TypeError, match="CLIENT_NETWORK must return text") as caught:
        network_of()
    assert "9.9.9.9" not in str(caught.value)


@pytest.mark.django_db
def test_result_of_client_network_setting_is_stored(settings, api, idenfy_sandbox):
    settings.IDENFY_PHONE_CLIENT_NETWORK = "hosts.custom.by_cdn"
    api.credentials(HTTP_CF_CONNECTING_IP="2606:4700:1:2:3::4")
    post_start_from(api, "10.0.0.1")
    assert rows.get().network == "2606:4700:1:2::/64"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("9.9.8.7", "9.9.*.*"),
        ("2606:4700:10:20::1", "2606:4700:*"),
        ("2606::1", "2606:0000:*"),
        ("unknown", "unknown"),
    ],
)
def test_masked_network_shows_its_first_half_at_most(text, masked):
    assert network.mask_network(network.read_network(text)) == masked
