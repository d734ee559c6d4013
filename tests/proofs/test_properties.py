"""Any input is answered without a 5xx, and only valid input reaches iDenfy."""

import json
import re
import unicodedata
from datetime import timedelta
from urllib.parse import quote

import phonenumbers
import pytest
from django.test import TestCase
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from django_idenfy_phone import phone
from django_idenfy_phone.conf import Limit, parse_limit
from django_idenfy_phone.exceptions import NumberNotSupported
from django_idenfy_phone.models import PhoneVerification
from support.constants import NUMBER
from support.steps import START_URL

pytestmark = pytest.mark.django_db
rows = PhoneVerification.objects

JSON = "application/json"

many_examples = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

# With lone surrogates.
any_text = st.text(st.characters(exclude_categories=()))
digits = st.text("0123456789", max_size=16)
number_like_texts = st.builds(
    lambda head, middle, tail: head + middle + tail,
    st.sampled_from(
        ["+370", "+3706", "+44", "+1", "+", "00", "tel:", "", "(", "+8816"]
    ),
    st.text("0123456789 -().+;=x/\t\n\0٣\u200b", max_size=14),
    digits,
)
valid_numbers = st.from_regex(r"\A\+370[ -]?6[0-9]{7}\Z", fullmatch=True).filter(
    str.isascii
)
# libphonenumber ignores this junk, and so do we some of it.
numbers_with_junk = st.builds(
    lambda text, junk, at: text[:at] + junk + text[at:],
    valid_numbers,
    st.sampled_from([";ext=5", "x5", "tel:", "\0", "\n", "\u200b", "٣", "/", "~", "a"]),
    st.integers(0, 13),
)
numbers = any_text | number_like_texts | valid_numbers | numbers_with_junk
codes = any_text | st.text("0123456789 +-٣１\n\0", max_size=6) | digits
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | any_text
    | valid_numbers
    | st.from_regex("[0-9]{4}", fullmatch=True)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3)
    ),
    max_leaves=6,
)
keys = st.sampled_from(["phone_number", "code", "id", "user", "purpose"]) | any_text
bodies = values | st.dictionaries(keys, values | numbers | codes, max_size=4)


@pytest.fixture
def post_start(api, idenfy_sandbox, eager, settings):
    """Start on an empty table. Return the status and the number of SMS."""
    settings.IDENFY_PHONE_SEND_RATE = None

    def post_start(raw, content_type=JSON, **headers):
        rows.all().delete()
        before = idenfy_sandbox.state.sends
        with TestCase.captureOnCommitCallbacks(execute=True):
            response = api.generic("POST", START_URL, raw, content_type, **headers)
        return response.status_code, idenfy_sandbox.state.sends - before

    return post_start


@pytest.fixture
def start_without_sending(api, idenfy_sandbox):
    """The same, faster: it counts the published sends, and nothing is sent."""

    def start_without_sending(raw, content_type=JSON, **headers):
        rows.all().delete()
        with TestCase.captureOnCommitCallbacks() as published:
            response = api.generic("POST", START_URL, raw, content_type, **headers)
        assert idenfy_sandbox.state.sends == 0
        return response.status_code, len(published)

    return start_without_sending


@pytest.fixture
def post_confirm(api, idenfy_sandbox, make):
    """Confirm a sent row. Return the status and the number of checks at iDenfy."""
    row = make("sent")

    def post_confirm(raw, content_type=JSON, **headers):
        rows.update(status="sent", checks=0, checks_wrong=0, checking_until=None)
        before = idenfy_sandbox.state.checks
        url = f"/phone/{row.pk}/confirm/"
        response = api.generic("POST", url, raw, content_type, **headers)
        return response.status_code, idenfy_sandbox.state.checks - before

    return post_confirm


def to_json(body):
    return json.dumps(body).encode()


def in_ascii(text):
    """What was typed, read by the names of its characters; "" for digits of a mix."""
    kept = [each for each in text if unicodedata.category(each) != "Cf"]
    names = [unicodedata.name(each, "").removeprefix("FULLWIDTH ") for each in kept]
    scripts = {
        name.rpartition("DIGIT ")[0]
        for each, name in zip(kept, names, strict=True)
        if each.isdecimal()
    }
    return "".join(map(in_ascii_alone, kept)) if len(scripts) <= 1 else ""


def in_ascii_alone(character):
    if character.isdecimal():
        return str(int(character))
    if unicodedata.category(character) == "Zs":
        return " "
    if unicodedata.category(character) == "Pd" or character in "−ーｰ":
        return "-"
    folded = unicodedata.normalize("NFKC", character)
    is_wide = unicodedata.name(character, "").startswith("FULLWIDTH ")
    return folded if is_wide else character


def is_sendable(text):
    """Ask libphonenumber, for the regions of the test project."""
    if not isinstance(text, str):
        return False
    text = in_ascii(text)
    if not re.fullmatch(r" *[+( ]+[0-9 ()./-]+", text):
        return False
    try:
        number = phonenumbers.parse(text)
    except phonenumbers.NumberParseException:
        return False
    return (
        phonenumbers.is_valid_number(number)
        and phonenumbers.region_code_for_number(number) in ("LT", "GB", "US")
        and phonenumbers.number_type(number)
        in (PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE_OR_MOBILE)
    )


def is_code(value):
    if not isinstance(value, str):
        return False
    return re.fullmatch("( *[0-9]){4} *", in_ascii(value.strip(" \r\n"))) is not None


@many_examples
@given(text=numbers)
def test_only_valid_number_gets_sms(post_start, text):
    status, sends = post_start(to_json({"phone_number": text}))
    assert (status, sends) in {(202, 1), (400, 0)}
    if status == 202:
        assert is_sendable(text)
        sent = rows.get().phone_number.as_e164
        assert sent == f"+{re.sub('[^0-9]', '', in_ascii(text))}"


@settings(many_examples, max_examples=50)
@given(text=valid_numbers)
def test_valid_number_is_accepted(start_without_sending, text):
    assert start_without_sending(to_json({"phone_number": text})) == (202, 1)


@many_examples
@given(text=codes)
def test_only_valid_code_is_checked(post_confirm, text):
    expected = (200, 1) if is_code(text) else (400, 0)
    assert post_confirm(to_json({"code": text})) == expected


@many_examples
@given(body=bodies)
def test_start_with_any_json_sends_only_to_valid_number(post_start, body):
    status, sends = post_start(to_json(body))
    assert (status, sends) in {(202, 1), (400, 0), (413, 0)}
    if status == 202:
        assert is_sendable(body["phone_number"])


@many_examples
@given(body=bodies)
def test_confirm_with_any_json_checks_only_valid_code(post_confirm, body):
    raw = to_json(body)
    status, checks = post_confirm(raw)
    assert (status, checks) in {(200, 1), (400, 0), (413, 0)}
    if status == 200:
        assert is_code(body["code"])


raw_bodies = st.binary(max_size=200) | st.builds(
    lambda body, cut, junk: to_json(body)[:cut] + junk,
    bodies,
    st.integers(0, 300),
    st.binary(max_size=5),
)


@many_examples
@given(raw=raw_bodies)
@example(raw=b"[" * 4096)
@example(raw=b"{" * 4097)
@example(raw=b'{"phone_number":' * 256)
def test_any_bytes_are_answered_without_5xx(post_start, post_confirm, raw):
    refusal = 413 if len(raw) > 4096 else 400
    assert post_start(raw)[0] in (202, refusal)
    assert post_confirm(raw)[0] in (200, refusal)


# A server accepts neither NUL nor line breaks in headers.
latin = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=80)
content_types = (
    latin
    | st.builds("application/json; charset={}".format, latin)
    | st.builds("application/json; {}".format, latin)
    | st.builds("{}/{}; charset=utf-8".format, latin, latin)
)


@many_examples
@given(content_type=content_types)
def test_any_content_type_is_answered_without_5xx(start_without_sending, content_type):
    raw = to_json({"phone_number": NUMBER})
    assert start_without_sending(raw, content_type) in {(202, 1), (400, 0), (415, 0)}


@settings(many_examples, max_examples=100)
@given(
    headers=st.fixed_dictionaries(
        {},
        optional={
            "HTTP_IDEMPOTENCY_KEY": latin,
            "HTTP_X_FORWARDED_FOR": latin,
            "REMOTE_ADDR": latin,
            "HTTP_ACCEPT": latin,
            "HTTP_ACCEPT_LANGUAGE": latin,
            "HTTP_X_HTTP_METHOD_OVERRIDE": latin,
        },
    )
)
def test_any_headers_are_answered_without_5xx(start_without_sending, settings, headers):
    settings.REST_FRAMEWORK = {"NUM_PROXIES": 1}
    raw = to_json({"phone_number": NUMBER})
    assert start_without_sending(raw, **headers) in {(202, 1), (400, 0), (406, 0)}


@many_examples
@given(text=st.text(max_size=60))
def test_any_text_as_id_is_not_found(api, idenfy_sandbox, text):
    assume(text not in ("", "start"))
    path = f"/phone/{quote(text, safe='')}/"
    responses = [api.get(path), api.generic("POST", f"{path}confirm/", b"{}", JSON)]
    assert {response.status_code for response in responses} <= {404, 405}
    assert idenfy_sandbox.state.checks == 0


@many_examples
@given(
    sends=st.integers(1, 9_999_999),
    length=st.integers(1, 9_999),
    unit=st.sampled_from(["seconds", "minutes", "hours", "days"]),
)
def test_written_limit_is_parsed(sends, length, unit):
    limit = Limit(sends, timedelta(**{unit: length}))
    assert parse_limit(f"{sends}/{length}{unit[0]}") == limit
    if length == 1:
        assert parse_limit(f"{sends}/{unit[0]}") == limit


@many_examples
@given(text=any_text | st.text("0123456789/smhd ", max_size=8))
def test_any_text_is_parsed_as_limit_or_raises_value_error(text):
    try:
        limit = parse_limit(text)
    except ValueError:
        return
    assert limit.sends >= 1
    assert limit.window >= timedelta(seconds=1)
    assert text.isascii()


REGIONS = sorted(phonenumbers.SUPPORTED_REGIONS - {"TA"})


@pytest.fixture
def all_regions(settings):
    settings.IDENFY_PHONE_REGIONS = None


@many_examples
@given(region=st.sampled_from(REGIONS), tail=st.text("0123456789", max_size=5))
def test_mask_shows_only_calling_code_and_two_digits(all_regions, region, tail):
    sample = phonenumbers.example_number_for_type(region, PhoneNumberType.MOBILE)
    text = phonenumbers.format_number(sample, PhoneNumberFormat.E164)
    try:
        number = phone.parse(text[: len(text) - len(tail)] + tail).e164
    except NumberNotSupported:
        assume(False)
    masked = phone.mask(number)
    hidden = len(number) - len(f"+{sample.country_code}") - 2
    assert hidden >= 2
    assert masked == f"+{sample.country_code}{'*' * hidden}{number[-2:]}"
