"""Whatever is sent in: the right answer, and nothing stored, spent or echoed.

Whole answers are compared, so nothing of the input can be in them.
"""

import json
import uuid
from datetime import timedelta

import phonenumbers
import pytest
from django.utils import timezone
from phonenumbers import PhoneNumberFormat, PhoneNumberType
from rest_framework.test import APIClient

from django_idenfy_phone.models import PhoneVerification
from support.constants import NUMBER
from support.wire import answer

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("idenfy_sandbox")]

START = "/phone/start/"
JSON = "application/json"
REFUSED_TEXT = (
    "Enter a mobile phone number with its country code, such as +37060012345."
)
REFUSED = (400, {"phone_number": [REFUSED_TEXT]})
NO_CODE = (400, {"code": ["Enter the 4 digits of the code."]})
NO_JSON = (
    400,
    {"detail": "The request body must be a JSON object.", "code": "parse_error"},
)
TOO_LARGE = (
    413,
    {"detail": "The request body is too large.", "code": "body_too_large"},
)
NO_LOGIN = (
    403,
    {
        "detail": "Authentication credentials were not provided.",
        "code": "not_authenticated",
    },
)
NOTHING = (0, 0, [])
CHOSEN_BY_US = ["user", "status", "is_verified", "is_anonymous", "purpose", "region"]
CHOSEN_BY_US += ["checks", "request_id", "failure", "send_attempts"]
UNTOUCHED = (0, 0, [("sent", 0)])


def table(cases):
    return {"argvalues": list(cases.values()), "ids": list(cases)}


def post(client, url, body, content_type=JSON, **headers):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.generic("POST", url, raw, content_type, **headers)


def said(response):
    return response.status_code, response.json()


def whole(response):
    """All but the header that holds the time."""
    headers = {k: v for k, v in response.headers.items() if k != "Expires"}
    return response.status_code, headers, response.content


def left(sandbox):
    """What reached iDenfy, and what is stored."""
    rows = PhoneVerification.objects.values_list("status", "checks")
    return sandbox.state.sends, sandbox.state.checks, list(rows)


def confirm_url(row):
    return f"/phone/{row.pk}/confirm/"


@pytest.fixture(params=["start", "confirm"])
def endpoint(request, make):
    """Each URL that takes a body, and what is left when it refused."""
    if request.param == "start":
        return START, NOTHING
    return confirm_url(make()), UNTOUCHED


@pytest.fixture
def everywhere(settings):
    settings.IDENFY_PHONE_REGIONS = phonenumbers.SUPPORTED_REGIONS


# 1 to 4: bodies

NOT_AN_OBJECT = {
    "spaces": b"   ",
    "open brace": b"{",
    "list": b"[]",
    "text": b'"x"',
    "number": b"1",
    "null": b"null",
    "true": b"true",
    "deep lists": b"[" * 4_000,
    "deep closed lists": b"[" * 2_000 + b"]" * 2_000,
    "deep objects": b'{"a":' * 700,
    "NaN": b'{"phone_number": NaN, "code": NaN}',
    "Infinity": b'{"phone_number": -Infinity, "code": Infinity}',
    "single quotes": b"{'phone_number': '+37061234567'}",
    "trailing comma": b'{"phone_number": "+37061234567", "code": "1234",}',
    "two objects": b'{"code": "1234"}{"phone_number": "+37061234567"}',
    "duplicate keys": b'{"phone_number": "+37061234567", "code": "1234", '
    b'"phone_number": "+37061234568", "code": "1235"}',
    "the same twice": b'{"phone_number": "+37061234567", "code": "1234", '
    b'"phone_number": "+37061234567", "code": "1234"}',
    "duplicate keys inside": b'{"phone_number": "+37061234567", "code": "1234", '
    b'"extra": {"a": 1, "a": 2}}',
    "duplicate keys by escape": b'{"phone_number": "+37061234567", "code": "1234", '
    b'"phone\\u005fnumber": "+37061234568", "cod\\u0065": "1235"}',
    "raw line break": b'{"phone_number": "+37061234567\n", "code": "1234\n"}',
    "raw NUL": b'{"phone_number": "+37061234567\0", "code": "1234\0"}',
    "invalid UTF-8": b'{"phone_number": "+37061234567", "code": "1234", "a": "\xff"}',
    "UTF-8 of a surrogate": b'{"phone_number": "\xed\xa0\x80", "code": "\xed\xa0\x80"}',
    "UTF-16": '{"phone_number": "+37061234567", "code": "1234"}'.encode("utf-16"),
    "UTF-16 without BOM": '{"phone_number": "+37061234567"}'.encode("utf-16-le"),
    "UTF-8 with BOM": b'\xef\xbb\xbf{"phone_number": "+37061234567", "code": "1234"}',
    "a form": b"phone_number=%2B37061234567&code=1234",
}


@pytest.mark.parametrize("body", **table(NOT_AN_OBJECT))
def test_a_body_that_is_no_json_object_is_refused(api, idenfy_sandbox, endpoint, body):
    url, untouched = endpoint
    assert said(post(api, url, body)) == NO_JSON
    assert left(idenfy_sandbox) == untouched


@pytest.mark.parametrize("body", [b"", b"{}"])
def test_an_empty_body_names_the_missing_field(api, idenfy_sandbox, endpoint, body):
    url, untouched = endpoint
    field = "phone_number" if url == START else "code"
    assert said(post(api, url, body)) == (400, {field: ["This field is required."]})
    assert left(idenfy_sandbox) == untouched


# The first two stand as 400 in the table of faults, but are over 4 KiB: 413 is first.
OVERSIZED = {
    "100,000 brackets": b"[" * 100_000,
    "a 5,000-digit integer": b'{"phone_number": %s}' % (b"9" * 5_000),
    "4097 bytes": json.dumps({"phone_number": NUMBER, "code": "1234"})
    .encode()
    .ljust(4097),
    "a code of 1 MB": b'{"code": "%s"}' % (b"1" * 1_000_000),
    "invalid UTF-8": b"\xff" * 5_000,
}


@pytest.mark.parametrize("body", **table(OVERSIZED))
def test_a_body_over_4_kib_is_refused(api, idenfy_sandbox, endpoint, body):
    url, untouched = endpoint
    assert said(post(api, url, body)) == TOO_LARGE
    assert left(idenfy_sandbox) == untouched


def test_a_body_of_4_kib_is_accepted(api):
    body = json.dumps({"phone_number": NUMBER}).encode().ljust(4096)
    assert post(api, START, body).status_code == 202


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "",
        "json",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=nonsense",
        "application/json; charset=utf-16",
        "application/json; charset=latin-1",
        "application/json; charset=utf-8-sig",
        "application/json; charset=hex",
    ],
)
def test_another_content_type_is_refused(api, idenfy_sandbox, endpoint, content_type):
    url, untouched = endpoint
    body = {"phone_number": NUMBER, "code": "1234"}
    refusal = post(api, url, body, content_type)
    text = f'Unsupported media type "{content_type}" in request.'
    expected = {"detail": text, "code": "unsupported_media_type"}
    assert said(refusal) == (415, expected)
    assert left(idenfy_sandbox) == untouched


@pytest.mark.parametrize(
    "parameters",
    ["", "; charset=utf-8", ';charset="UTF-8"', "; charset=utf8", "; charset=", ";v=1"],
)
def test_json_in_utf_8_is_accepted(api, parameters):
    started = post(api, START, {"phone_number": NUMBER}, JSON + parameters)
    assert started.status_code == 202


EXTRA = {
    "id": "abcdefab-cdef-4abc-8def-9876abcdef10",
    "status": "verified",
    "is_verified": True,
    "is_anonymous": True,
    "sender_name": "Bank",
    "purpose": "payment",
    "region": "US",
    "checks": -100,
    "created_at": "2000-01-01T00:00:00Z",
    "__class__": {"constructor": {}},
    "\ud800": "\udfff",
}


def test_extra_keys_of_a_start_are_ignored(api):
    plain = post(api, START, {"phone_number": NUMBER})
    stored = PhoneVerification.objects.values(*CHOSEN_BY_US).get()
    PhoneVerification.objects.all().delete()
    padded = post(api, START, {"phone_number": NUMBER, **EXTRA})
    assert plain.status_code == padded.status_code == 202
    assert PhoneVerification.objects.values(*CHOSEN_BY_US).get() == stored


def test_a_start_cannot_name_its_id_or_time(api):
    started = post(api, START, {"phone_number": NUMBER, **EXTRA})
    row = PhoneVerification.objects.get()
    assert str(row.pk) == started.json()["id"] != EXTRA["id"]
    assert timezone.now() - row.created_at < timedelta(minutes=1)


def test_a_start_cannot_name_another_user(api, user, django_user_model):
    other = django_user_model.objects.create_user("jonas").pk
    body = {"phone_number": NUMBER, "user": other, "user_id": other}
    assert post(api, START, body).status_code == 202
    assert PhoneVerification.objects.get().user == user


def test_extra_keys_of_a_confirm_are_ignored(api, make, wire):
    wire.will(answer(200, {"is_verified": False}))
    row = make()
    extra = {"is_verified": True, "request_id": "x" * 32, "received_code": "9999"}
    confirmed = post(api, confirm_url(row), {"code": "1234", **extra})
    assert confirmed.json()["is_verified"] is False
    sent = [request.body for request in wire.requests]
    assert sent == [{"request_id": row.request_id, "received_code": "1234"}]


# 5 to 13: numbers

NO_NUMBER = {
    # 5: not a text, or an empty one
    "empty": "",
    "spaces": "   ",
    "integer": 37061234567,
    "float": 37061234567.0,
    "huge float": 1e300,
    "4,000 digits": int("9" * 4_000),
    "true": True,
    "false": False,
    "list": [NUMBER],
    "object": {"phone_number": NUMBER},
    "deep list": [[[[[[NUMBER]]]]]],
    # 6: no country code
    "national": "61234567",
    "national with its trunk prefix": "861234567",
    "00 for +": "0037061234567",
    "00 with spaces": "00 370 612 34567",
    "011 for +": "01137061234567",
    # 8: other scripts and invisible characters
    "Arabic-Indic digits": "+٣٧٠٦١٢٣٤٥٦٧",
    "one Arabic-Indic digit": "+3706123456٧",
    "full-width digits": "+３７０６１２３４５６７",
    "full-width plus": "\uff0b37061234567",
    "superscript": "+3706123456\u2077",
    "zero-width space": "+370\u200b61234567",
    "word joiner": "+370\u206061234567",
    "soft hyphen": "+370\xad61234567",
    "bidi marks": "\u202d+37061234567\u202c",
    "left-to-right mark": "\u200e+37061234567",
    "no-break space": "+370\xa061234567",
    "figure dash": "+370\u201261234567",
    "NUL": "+370\x0061234567",
    "NUL at the end": "+37061234567\0",
    "CR LF": "+37061234567\r\n",
    "line feed": "+37061234567\n",
    "header injection": "+37061234567\r\nX-Evil: 1",
    "tab": "+370\t61234567",
    "lone surrogate": "+37061234567\ud800",
    "BOM": "\ufeff+37061234567",
    # 9: more than a number
    "extension": "+37061234567;ext=5",
    "x5": "+37061234567x5",
    "ext. 5": "+37061234567 ext. 5",
    "#5": "+37061234567#5",
    ",5": "+37061234567,5",
    "~5": "+37061234567~5",
    "tel": "tel:+37061234567",
    "phone-context": "61234567;phone-context=+370",
    "tel with phone-context": "tel:61234567;phone-context=+370",
    "isub": "+37061234567;isub=5",
    "vanity letters": "+1 202 555 CALL",
    "two numbers": "+37061234567/+37061234568",
    "slash": "+370/61234567",
    "asterisk": "*31#+37061234567",
    "two plus signs": "++37061234567",
    "plus inside": "370+61234567",
    "plus alone": "+",
    # 10: no such number
    "too short": "+3706123",
    "one digit": "+3",
    "one digit more": "+370612345678",
    "16 digits": "+3706123456789012",
    "300 characters": "+370" + "6" * 296,
    "300 brackets": "+370" + "(" * 288 + "61234567",
    "+999": "+99912345678",
    "+0": "+037061234567",
    "emergency": "112",
    "+emergency": "+112",
    "possible but invalid": "+447700900123",
    "only punctuation": "+(-.-)",
    # 13: code of all kinds
    "SQL": "+37061234567' OR '1'='1",
    "SQL comment": "+37061234567;--",
    "HTML": "<script>alert(1)</script>",
    "HTML around": "<b>+37061234567</b>",
    "template": "{{ 7*7 }}{% debug %}",
    "format": "%s%n%x{0.__class__}",
    "log4j": "${jndi:ldap://example.com/a}",
    "shell": "$(id)`id`;id|id",
    "path": "../../etc/passwd",
    "spreadsheet": "=cmd|'/C calc'!A0",
}


@pytest.mark.parametrize("number", **table(NO_NUMBER))
def test_what_is_no_number_is_refused(api, idenfy_sandbox, everywhere, number):
    assert said(post(api, START, {"phone_number": number})) == REFUSED
    assert left(idenfy_sandbox) == NOTHING


def test_null_is_refused(api, idenfy_sandbox, endpoint):
    url, untouched = endpoint
    field = "phone_number" if url == START else "code"
    refusal = post(api, url, {field: None})
    assert said(refusal) == (400, {field: ["This field may not be null."]})
    assert left(idenfy_sandbox) == untouched


@pytest.mark.parametrize("number", ["<script>alert(1)</script>", "'; DROP TABLE x"])
def test_a_refused_number_is_not_logged(api, caplog, number):
    caplog.set_level("DEBUG")
    post(api, START, {"phone_number": number})
    assert number not in caplog.text


@pytest.mark.parametrize("accept", ["text/html", "application/json", "*/*"])
def test_markup_is_not_echoed_in_any_format(api, accept):
    body = {"phone_number": "<script>alert(1)</script>"}
    refusal = post(api, START, body, HTTP_ACCEPT=accept)
    assert refusal.status_code == 400
    assert b"alert(1)" not in refusal.content


@pytest.mark.parametrize("national", ["61234567", "0 612 34567", "(0-612) 34567"])
def test_a_default_region_completes_a_national_number(api, settings, national):
    settings.PHONENUMBER_DEFAULT_REGION = "LT"
    assert post(api, START, {"phone_number": national}).status_code == 202
    assert PhoneVerification.objects.get().phone_number.as_e164 == NUMBER


@pytest.mark.parametrize("number", ["0037061234567", "00 370 61234567", "112"])
def test_a_default_region_lets_nothing_else_in(api, settings, idenfy_sandbox, number):
    settings.PHONENUMBER_DEFAULT_REGION = "LT"
    assert said(post(api, START, {"phone_number": number})) == REFUSED
    assert left(idenfy_sandbox) == NOTHING


@pytest.mark.parametrize(
    "spelling",
    ["+370 612 34567", "+370-612-34567", "+370 (612) 34567", "+370.612.34567"],
)
def test_a_number_may_be_written_for_people(api, spelling):
    started = post(api, START, {"phone_number": spelling})
    assert (started.status_code, started.json()["phone_number"]) == (
        202,
        "+370******67",
    )
    assert PhoneVerification.objects.get().phone_number.as_e164 == NUMBER


# 11 and 12: whom we do not send to, all with one text


def example(region, number_type):
    number = phonenumbers.example_number_for_type(region, number_type)
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


UNWANTED = {
    "fixed line": example("LT", PhoneNumberType.FIXED_LINE),
    "premium rate": example("GB", PhoneNumberType.PREMIUM_RATE),
    "premium rate in the US": example("US", PhoneNumberType.PREMIUM_RATE),
    "shared cost": example("LT", PhoneNumberType.SHARED_COST),
    "toll free": example("US", PhoneNumberType.TOLL_FREE),
    "UAN": example("GB", PhoneNumberType.UAN),
    "pager": example("GB", PhoneNumberType.PAGER),
    "voicemail": example("CH", PhoneNumberType.VOICEMAIL),
    "personal": example("GB", PhoneNumberType.PERSONAL_NUMBER),
    "personal in the US": example("US", PhoneNumberType.PERSONAL_NUMBER),
    "VOIP": example("GB", PhoneNumberType.VOIP),
    "satellite +8816": "+881612345678",
} | {
    f"network +{code}": phonenumbers.format_number(
        phonenumbers.example_number_for_non_geo_entity(code), PhoneNumberFormat.E164
    )
    for code in sorted(phonenumbers.COUNTRY_CODES_FOR_NON_GEO_REGIONS)
}


@pytest.mark.parametrize("number", **table(UNWANTED))
def test_a_costly_kind_of_number_is_refused(api, idenfy_sandbox, everywhere, number):
    assert phonenumbers.is_valid_number(phonenumbers.parse(number))
    assert said(post(api, START, {"phone_number": number})) == REFUSED
    assert left(idenfy_sandbox) == NOTHING


@pytest.mark.parametrize("number", ["+870301234567", "+881612345678", "+8823421234"])
def test_a_network_of_no_country_is_refused_with_all_regions_let_in(
    api, settings, idenfy_sandbox, number
):
    settings.IDENFY_PHONE_REGIONS = None
    assert said(post(api, START, {"phone_number": number})) == REFUSED
    assert left(idenfy_sandbox) == NOTHING


OUTSIDE = {
    "Jamaica for the US": ("+18762101234", ["US"]),
    "Canada for the US": (example("CA", PhoneNumberType.MOBILE), ["US"]),
    "Guernsey for Britain": ("+447911123456", ["GB"]),
    "Jersey for Britain": (example("JE", PhoneNumberType.MOBILE), ["GB"]),
    "Kazakhstan for Russia": (example("KZ", PhoneNumberType.MOBILE), ["RU"]),
    "Lithuania for Latvia": (NUMBER, ["LV", "EE"]),
    "nobody": (NUMBER, []),
}


@pytest.mark.parametrize(("number", "regions"), **table(OUTSIDE))
def test_a_region_that_is_not_listed_is_refused(
    api, settings, idenfy_sandbox, number, regions
):
    settings.IDENFY_PHONE_REGIONS = regions
    assert said(post(api, START, {"phone_number": number})) == REFUSED
    assert left(idenfy_sandbox) == NOTHING


@pytest.mark.parametrize("region", ["JM", "CA", "GG", "JE", "KZ", "US", "LT"])
def test_a_region_that_is_listed_is_accepted(api, settings, region):
    settings.IDENFY_PHONE_REGIONS = [region]
    number = example(region, PhoneNumberType.MOBILE)
    assert post(api, START, {"phone_number": number}).status_code == 202


# 14 and 15: codes

NOT_A_CODE = {
    "empty": "",
    "integer": 1234,
    "float": 1234.0,
    "true": True,
    "list": ["1234"],
    "list of digits": ["1", "2", "3", "4"],
    "object": {"code": "1234"},
    "three digits": "123",
    "five digits": "12345",
    "3,000 digits": "1" * 3_000,
    "space inside": "12 34",
    "spaces around": " 1234 ",
    "line feed": "1234\n",
    "CR LF": "1234\r\n",
    "NUL": "1234\0",
    "zero-width space": "12\u200b34",
    "Arabic-Indic digits": "١٢٣٤",
    "full-width digits": "１２３４",
    "superscripts": "\xb9\xb2\xb3\u2074",
    "one other digit": "123٤",
    "minus": "-123",
    "plus": "+123",
    "exponent": "1e10",
    "hexadecimal": "0x1F",
    "letters": "abcd",
    "underscore": "1_00",
    "point": "12.4",
    "surrogate": "123\ud800",
    "SQL": "' OR",
    "template": "{{1}}",
    "wildcard": "....",
}


@pytest.mark.parametrize("code", **table(NOT_A_CODE))
def test_what_is_no_code_spends_no_check(api, make, idenfy_sandbox, code):
    assert said(post(api, confirm_url(make()), {"code": code})) == NO_CODE
    assert left(idenfy_sandbox) == UNTOUCHED


@pytest.mark.parametrize("code", ["0000", "0042", "1234"])
def test_a_code_keeps_its_zeros(api, make, wire, code):
    wire.will(answer(200, {"is_verified": False}))
    assert post(api, confirm_url(make()), {"code": code}).status_code == 200
    assert [each.body["received_code"] for each in wire.requests] == [code]


# 16: ids

ABSENT = [
    "unknown",
    "another's",
    "a deleted user's",
    "deleted",
    "no UUID",
    "long",
    "in capitals",
    "without hyphens",
    "in braces",
    "an URN",
    "with NUL",
    "with a line feed",
    "with Arabic digits",
]


@pytest.fixture(params=ABSENT)
def absent(request, make, django_user_model):
    """An id under which this user finds nothing."""
    match request.param:
        case "unknown":
            return str(uuid.uuid4())
        case "another's" | "a deleted user's":
            other = django_user_model.objects.create_user("jonas")
            row = make(user=other)
            if request.param == "a deleted user's":
                other.delete()
            return row.pk
        case "deleted":
            row = make()
            pk = row.pk
            row.delete()
            return pk
    own = str(make(id=uuid.UUID("abcdefab-cdef-4abc-8def-9876abcdef10")).pk)
    return {
        "no UUID": "robots.txt",
        "long": own * 50,
        "in capitals": own.upper(),
        "without hyphens": own.replace("-", ""),
        "in braces": f"%7B{own}%7D",
        "an URN": f"urn:uuid:{own}",
        "with NUL": f"{own}%00",
        "with a line feed": f"{own}%0A",
        "with Arabic digits": own.replace("9", "%D9%A9"),
    }[request.param]


NOT_FOUND = b'{"detail":"There is no such verification.","code":"not_found"}'


def test_status_of_what_is_not_mine_is_as_of_what_is_not_there(
    api, idenfy_sandbox, absent
):
    reference = whole(api.get(f"/phone/{uuid.uuid4()}/"))
    assert whole(api.get(f"/phone/{absent}/")) == reference
    assert (reference[0], reference[2]) == (404, NOT_FOUND)
    assert idenfy_sandbox.state.checks == 0


def test_confirm_of_what_is_not_mine_is_as_of_what_is_not_there(
    api, idenfy_sandbox, absent
):
    code = {"code": "1234"}
    reference = whole(post(api, f"/phone/{uuid.uuid4()}/confirm/", code))
    assert whole(post(api, f"/phone/{absent}/confirm/", code)) == reference
    assert (reference[0], reference[2]) == (404, NOT_FOUND)
    assert idenfy_sandbox.state.checks == 0
    assert not PhoneVerification.objects.exclude(checks=0).exists()


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_caller_without_a_login_finds_no_users_row(
    settings, make, user, idenfy_sandbox, is_deleted
):
    settings.IDENFY_PHONE_ALLOW_ANONYMOUS = True
    row = make()
    if is_deleted:
        user.delete()
    found = post(APIClient(), confirm_url(row), {"code": "1234"})
    assert (found.status_code, found.content) == (404, NOT_FOUND)
    assert left(idenfy_sandbox) == UNTOUCHED


# 17 and 18: the wrong moment

TEXTS = {
    "not_sent_yet": "The code has not been sent yet. Please try again in a moment.",
    "expired": "This code has expired. Please ask for a new one.",
    "locked": "Too many wrong codes. Please ask for a new code.",
    "failed": "The code could not be sent. Please ask for a new one.",
}


@pytest.mark.parametrize("status", ["queued", "sending"])
def test_a_code_is_not_checked_before_it_is_sent(api, make, idenfy_sandbox, status):
    early = post(api, confirm_url(make(status)), {"code": "1234"})
    body = {"detail": TEXTS["not_sent_yet"], "code": "not_sent_yet", "retry_after": 2}
    assert (said(early), early["Retry-After"]) == ((409, body), "2")
    assert left(idenfy_sandbox) == (0, 0, [(status, 0)])


@pytest.mark.parametrize(
    ("status", "fields"),
    [("expired", {}), ("locked", {}), ("failed", {"failure": "unknown"})],
)
def test_a_code_is_not_checked_after_the_end(api, make, idenfy_sandbox, status, fields):
    late = post(api, confirm_url(make(status, **fields)), {"code": "1234"})
    assert said(late) == (410, {"detail": TEXTS[status], "code": status})
    assert "Retry-After" not in late
    assert left(idenfy_sandbox) == (0, 0, [(status, 0)])


def test_an_end_that_nobody_wrote_down_yet_counts(api, make, idenfy_sandbox):
    row = make(expires_at=timezone.now() - timedelta(seconds=1))
    late = post(api, confirm_url(row), {"code": "1234"})
    assert said(late) == (410, {"detail": TEXTS["expired"], "code": "expired"})
    assert left(idenfy_sandbox) == (0, 0, [("expired", 0)])


# 19: methods

READS = ["GET", "HEAD", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "BREW"]
WRITES = ["POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "BREW"]


@pytest.mark.parametrize("method", READS)
def test_a_post_endpoint_takes_nothing_else(api, idenfy_sandbox, endpoint, method):
    url, untouched = endpoint
    body = json.dumps({"phone_number": NUMBER, "code": "1234"})
    refusal = api.generic(method, url, body, JSON)
    assert (refusal.status_code, refusal["Allow"]) == (405, "POST, OPTIONS")
    assert left(idenfy_sandbox) == untouched


@pytest.mark.parametrize("method", WRITES)
def test_the_status_is_only_read(api, make, idenfy_sandbox, method):
    body = json.dumps({"status": "verified", "is_verified": True})
    refusal = api.generic(method, f"/phone/{make().pk}/", body, JSON)
    text = f'Method "{method}" not allowed.'
    assert said(refusal) == (405, {"detail": text, "code": "method_not_allowed"})
    assert left(idenfy_sandbox) == UNTOUCHED


OVERRIDES = ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"]


@pytest.mark.parametrize("header", OVERRIDES)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_method_cannot_be_overridden(api, idenfy_sandbox, endpoint, method, header):
    url, untouched = endpoint
    body = json.dumps({"phone_number": NUMBER, "code": "1234", "_method": "POST"})
    refusal = api.generic(
        method, f"{url}?_method=POST", body, JSON, headers={header: "POST"}
    )
    assert refusal.status_code == 405
    assert left(idenfy_sandbox) == untouched


@pytest.mark.parametrize("header", OVERRIDES)
def test_a_post_stays_a_post(api, make, idenfy_sandbox, header):
    url = f"/phone/{make().pk}/?_method=GET"
    refusal = api.generic("POST", url, "{}", JSON, headers={header: "GET"})
    assert refusal.status_code == 405


# 20: logins


def test_nobody_starts_without_a_login(idenfy_sandbox):
    refusal = post(APIClient(), START, {"phone_number": NUMBER})
    assert said(refusal) == NO_LOGIN
    assert left(idenfy_sandbox) == NOTHING


def test_nobody_reads_without_a_login(make):
    assert said(APIClient().get(f"/phone/{make().pk}/")) == NO_LOGIN


def test_nobody_confirms_without_a_login(make, idenfy_sandbox):
    refusal = post(APIClient(), confirm_url(make()), {"code": "1234"})
    assert said(refusal) == NO_LOGIN
    assert left(idenfy_sandbox) == UNTOUCHED


@pytest.mark.parametrize("body", [b"[" * 100_000, b"{", b"\xff"])
def test_a_login_is_asked_for_before_the_body_is_read(body):
    assert said(post(APIClient(), START, body)) == NO_LOGIN


@pytest.fixture
def browser(user):
    """A logged-in session that has a CSRF cookie."""
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(user)
    client.get("/admin/login/")
    return client


BAD_TOKENS = {"none": None, "short": "wrong", "long": "a" * 64, "odd": "<é\ud83d>"}


@pytest.mark.parametrize("token", **table(BAD_TOKENS))
def test_a_session_needs_its_csrf_token(browser, idenfy_sandbox, endpoint, token):
    url, untouched = endpoint
    headers = {} if token is None else {"HTTP_X_CSRFTOKEN": token}
    body = {"phone_number": NUMBER, "code": "1234"}
    refusal = post(browser, url, body, **headers)
    assert (refusal.status_code, refusal.json()["code"]) == (403, "permission_denied")
    assert refusal.json()["detail"].startswith("CSRF Failed: CSRF token")
    assert left(idenfy_sandbox) == untouched


def test_a_session_with_its_csrf_token_may_start(browser):
    token = browser.cookies["csrftoken"].value
    body = {"phone_number": NUMBER}
    started = post(browser, START, body, HTTP_X_CSRFTOKEN=token)
    assert started.status_code == 202
