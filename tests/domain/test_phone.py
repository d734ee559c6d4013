"""Which numbers are accepted, and how they are stored and shown."""

import re
import traceback
from contextlib import suppress

import phonenumbers
import pytest
from django.core import serializers
from django.db import connection
from django.db.models import TextField
from django.db.models.functions import Cast
from phonenumber_field.modelfields import PhoneNumberField
from phonenumber_field.phonenumber import PhoneNumber
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from django_idenfy_phone import phone
from django_idenfy_phone.exceptions import NumberNotSupported
from django_idenfy_phone.models import PhoneVerification
from support.constants import NUMBER

FORMATS = ["E164", "INTERNATIONAL", "NATIONAL", "RFC3966"]

# Tristan da Cunha has no mobile network.
REGIONS = sorted(phonenumbers.SUPPORTED_REGIONS - {"TA"})
# These regions use the number range of a neighbour.
SHARED = {
    "AX": "FI",
    "BL": "GP",
    "CC": "AU",
    "CX": "AU",
    "EH": "MA",
    "IM": "GB",
    "MF": "GP",
    "SJ": "NO",
    "VA": "IT",
}


def example(region, number_format=PhoneNumberFormat.E164):
    number = phonenumbers.example_number_for_type(region, PhoneNumberType.MOBILE)
    return phonenumbers.format_number(number, number_format)


@pytest.fixture
def all_regions(settings):
    settings.IDENFY_PHONE_REGIONS = None


@pytest.fixture
def stored_numbers():
    """Read the column without the conversion of the field."""

    def stored_numbers():
        name = connection.ops.quote_name(PhoneVerification._meta.db_table)
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT phone_number FROM {name}")
            return [value for (value,) in cursor.fetchall()]

    return stored_numbers


# parse


@pytest.mark.parametrize(
    "spelling",
    [
        "+37061234567",
        "+370 612 34567",
        "+370-612-34567",
        "+370.612.34567",
        "+370 (612) 34567",
        "+(370)61234567",
        "+370  612  34567 ",
    ],
)
def test_spellings_of_one_number_give_the_same_number(spelling):
    assert phone.parse(spelling) == phone.Number(e164=NUMBER, region="LT")


@pytest.mark.parametrize("region", REGIONS)
def test_mobile_number_of_each_region_is_accepted(all_regions, region):
    written = example(region, PhoneNumberFormat.INTERNATIONAL)
    number = (example(region), SHARED.get(region, region))
    assert phone.parse(written) == phone.parse(example(region)) == number


@pytest.mark.parametrize("spelling", ["+2416031234", "+24106031234", "+241 6 03 12 34"])
def test_old_numbers_of_gabon_have_one_form(all_regions, spelling):
    assert phone.parse(spelling) == ("+24106031234", "GA")


@pytest.mark.parametrize("spelling", ["6031234", "06031234", "06 03 12 34"])
def test_old_national_numbers_of_gabon_have_one_form(all_regions, settings, spelling):
    settings.PHONENUMBER_DEFAULT_REGION = "GA"
    assert phone.parse(spelling) == ("+24106031234", "GA")


def test_new_numbers_of_gabon_have_one_form(all_regions):
    spellings = ["+24166031234", "+241066031234", "+241 66 03 12 34"]
    assert {phone.parse(each).e164 for each in spellings} == {"+24166031234"}


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("kind", ["mobile", "fixed-line"])
def test_numbers_that_are_dialled_alike_are_one_number(
    all_regions, settings, region, kind
):
    settings.IDENFY_PHONE_NUMBER_TYPES = ["mobile", "fixed-line-or-mobile", kind]
    number = phonenumbers.example_number_for_type(region, phone.NUMBER_TYPES[kind])
    code = f"+{number.country_code}"
    digits = phonenumbers.national_significant_number(number)
    found = {}
    for spelling in {digits, f"0{digits}", f"00{digits}", digits.lstrip("0")}:
        with suppress(NumberNotSupported):
            e164 = phone.parse(code + spelling).e164
            found.setdefault(dialled(code + spelling), set()).add(e164)
    assert [forms for forms in found.values() if len(forms) > 1] == []


def dialled(text):
    """The digits by which its own region dials a number."""
    return phonenumbers.format_number(
        phonenumbers.parse(text), PhoneNumberFormat.NATIONAL
    )


def test_leading_zero_of_italy_tells_two_numbers_apart(all_regions, settings):
    settings.IDENFY_PHONE_NUMBER_TYPES = ["mobile", "fixed-line"]
    spellings = ["+393123456789", "+3903123456789"]
    assert [phone.parse(each).e164 for each in spellings] == spellings


@pytest.mark.parametrize("region", ["LT", "GB", "US"])
def test_national_number_is_completed_by_the_default_region(settings, region):
    settings.PHONENUMBER_DEFAULT_REGION = region
    number = phone.parse(example(region, PhoneNumberFormat.NATIONAL))
    assert number == (example(region), region)


def test_number_with_country_code_needs_no_default_region(settings):
    settings.PHONENUMBER_DEFAULT_REGION = "GB"
    assert phone.parse("+370 612 34567") == (NUMBER, "LT")


def test_national_number_without_default_region_is_refused():
    with pytest.raises(NumberNotSupported):
        phone.parse("0 612 34567")


def test_default_region_does_not_accept_its_neighbours(settings):
    settings.PHONENUMBER_DEFAULT_REGION = "US"
    settings.IDENFY_PHONE_REGIONS = ["US"]
    with pytest.raises(NumberNotSupported):
        phone.parse("(876) 210-1234")


@pytest.mark.parametrize("value", [None, 37061234567, b"+37061234567", [NUMBER]])
def test_value_that_is_not_text_is_refused(value):
    with pytest.raises(NumberNotSupported):
        phone.parse(value)


def test_number_object_is_refused():
    with pytest.raises(NumberNotSupported):
        phone.parse(PhoneNumber.from_string(NUMBER))


@pytest.mark.parametrize("number", ["+99912345678", "+3706123456", "61234567"])
def test_error_does_not_contain_the_number(number):
    with pytest.raises(NumberNotSupported) as caught:
        phone.parse(number)
    assert number not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("regions", [["LT"], ("LT", "GB"), {"LT"}, frozenset(["LT"])])
def test_regions_may_be_any_collection(settings, regions):
    settings.IDENFY_PHONE_REGIONS = regions
    assert phone.parse(NUMBER).region == "LT"


def test_region_that_is_not_in_the_list_is_refused(settings):
    settings.IDENFY_PHONE_REGIONS = ["GB"]
    with pytest.raises(NumberNotSupported):
        phone.parse(NUMBER)


def test_number_type_may_be_added(settings):
    settings.IDENFY_PHONE_NUMBER_TYPES = ["voip"]
    assert phone.parse("+44 56 1234 5678") == ("+445612345678", "GB")


def test_number_type_may_be_excluded(settings):
    settings.IDENFY_PHONE_NUMBER_TYPES = ["mobile"]
    with pytest.raises(NumberNotSupported):
        phone.parse("+1 201 555 0123")


def test_number_types_have_the_names_of_the_setting():
    assert sorted(phone.NUMBER_TYPES) == [
        "fixed-line",
        "fixed-line-or-mobile",
        "mobile",
        "pager",
        "personal-number",
        "premium-rate",
        "shared-cost",
        "toll-free",
        "uan",
        "unknown",
        "voicemail",
        "voip",
    ]


@pytest.mark.parametrize("digits", [13, 14, 15])
def test_more_than_15_digits_are_no_number(settings, digits):
    settings.IDENFY_PHONE_REGIONS = ["DE"]
    settings.IDENFY_PHONE_NUMBER_TYPES = ["fixed-line"]
    number = "+4930" + "1" * (digits - 2)
    longest = phonenumbers.parse(number)
    assert phonenumbers.is_valid_number(longest)
    if digits == 13:
        assert phone.parse(number) == (number, "DE")
    else:
        with pytest.raises(NumberNotSupported):
            phone.parse(number)


# mask


@pytest.mark.parametrize(
    ("number", "masked"),
    [
        ("+37061234567", "+370******67"),
        ("+12015550123", "+1********23"),
        ("+447400123456", "+44********56"),
        ("+24740123", "+247***23"),
    ],
)
def test_mask_shows_the_calling_code_and_two_digits(number, masked):
    assert phone.mask(number) == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("garbage123", "********23"),
        ("tel:+37061234567", "**************67"),
        ("+99912345678", "**********78"),
        ("+3706123", "+370**23"),
        ("+37061", "+370**"),
        ("+370", "**70"),
        ("123", "***"),
        ("7", "*"),
        ("", ""),
        ("\ud800<b>", "**b>"),
    ],
)
def test_mask_of_other_text_shows_its_last_two_characters(text, masked):
    assert phone.mask(text) == masked


@pytest.mark.parametrize("region", REGIONS)
def test_mask_of_each_region_shows_no_more(all_regions, region):
    number = example(region)
    code = phonenumbers.country_code_for_region(region)
    shown = phone.mask(number)
    assert re.fullmatch(rf"\+{code}\*{{2,}}{number[-2:]}", shown)
    assert len(shown) == len(number)


# E164Field


@pytest.mark.django_db
def test_number_of_each_region_is_stored_as_e164(all_regions, make, stored_numbers):
    numbers = [example(region) for region in REGIONS]
    for number in numbers:
        make(phone_number=PhoneNumber.from_string(number))
    assert sorted(stored_numbers()) == sorted(numbers)


@pytest.mark.django_db
@pytest.mark.parametrize("db_format", FORMATS)
@pytest.mark.parametrize("region", [None, "LT", "GB"])
def test_e164_is_stored_with_any_db_format(
    settings, make, stored_numbers, db_format, region
):
    settings.PHONENUMBER_DB_FORMAT = db_format
    settings.PHONENUMBER_DEFAULT_REGION = region
    make(phone_number="+370 612 34567")
    assert stored_numbers() == [NUMBER]


@pytest.mark.django_db
@pytest.mark.parametrize("db_format", FORMATS)
@pytest.mark.parametrize("written", [NUMBER, "+370 612-34567", "tel:+370-612-34567"])
def test_filter_finds_a_number_with_any_db_format(settings, make, db_format, written):
    settings.PHONENUMBER_DB_FORMAT = db_format
    settings.PHONENUMBER_DEFAULT_REGION = "GB"
    row = make()
    make(phone_number="+37061234568")
    assert list(PhoneVerification.objects.filter(phone_number=written)) == [row]


@pytest.mark.django_db
@pytest.mark.parametrize("db_format", FORMATS)
def test_rows_stay_valid_after_a_change_of_the_db_format(settings, make, db_format):
    row = make()
    settings.PHONENUMBER_DB_FORMAT = db_format
    settings.PHONENUMBER_DEFAULT_REGION = "GB"
    row.refresh_from_db()
    row.save()
    found = PhoneVerification.objects.annotate(text=Cast("phone_number", TextField()))
    assert found.get(phone_number=row.phone_number).text == NUMBER


@pytest.mark.django_db
@pytest.mark.parametrize("db_format", FORMATS)
def test_verified_finds_the_number_with_any_db_format(settings, make, user, db_format):
    settings.PHONENUMBER_DB_FORMAT = db_format
    settings.PHONENUMBER_DEFAULT_REGION = "GB"
    row = make("verified")
    verified = PhoneVerification.objects.verified(user=user, phone_number=NUMBER)
    assert list(verified) == [row]


@pytest.mark.django_db
@pytest.mark.parametrize("default_format", FORMATS)
def test_default_format_changes_neither_storage_nor_mask(
    settings, make, stored_numbers, default_format
):
    settings.PHONENUMBER_DEFAULT_FORMAT = default_format
    settings.PHONENUMBER_DEFAULT_REGION = "LT"
    row = make()
    row.refresh_from_db()
    assert (stored_numbers(), row.masked_number) == ([NUMBER], "+370******67")


@pytest.mark.django_db
@pytest.mark.parametrize("value", ["nonsense", "+370", "6123"])
def test_filter_by_an_invalid_number_finds_nothing(make, value):
    make()
    assert not PhoneVerification.objects.filter(phone_number=value).exists()


def test_field_is_a_phone_number_field():
    field = PhoneVerification._meta.get_field("phone_number")
    assert isinstance(field, PhoneNumberField)
    assert field.deconstruct()[1] == "django_idenfy_phone.phone.E164Field"


@pytest.mark.django_db
@pytest.mark.parametrize("db_format", FORMATS)
@pytest.mark.parametrize("default_format", FORMATS)
@pytest.mark.parametrize("serializer", ["json", "xml", "jsonl", "python"])
def test_dump_and_load_keep_e164(
    settings, make, stored_numbers, default_format, db_format, serializer
):
    settings.PHONENUMBER_DEFAULT_FORMAT = default_format
    settings.PHONENUMBER_DB_FORMAT = db_format
    settings.PHONENUMBER_DEFAULT_REGION = "GB"
    row = make()
    dump = serializers.serialize(serializer, [row])
    assert NUMBER in str(dump)
    row.delete()
    for loaded in serializers.deserialize(serializer, dump):
        loaded.save()
    assert stored_numbers() == [NUMBER]


@pytest.mark.django_db
@pytest.mark.parametrize("default_format", FORMATS)
@pytest.mark.parametrize("text", ["garbage123", "+3706123", "0 612 34567"])
def test_dump_and_load_keep_a_text_that_is_no_number(
    settings, make, stored_numbers, default_format, text
):
    settings.PHONENUMBER_DEFAULT_FORMAT = default_format
    row = make(phone_number=text)
    dump = serializers.serialize("json", [row])
    row.delete()
    for loaded in serializers.deserialize("json", dump):
        loaded.save()
    assert stored_numbers() == [text]


@pytest.mark.parametrize(
    "text", ["+370 612 34567", "+44 1632 960001", "+1 202 555 0100"]
)
def test_number_that_gets_no_codes_has_an_e164_form(text, settings):
    settings.IDENFY_PHONE_REGIONS = ["FR"]
    assert phone.to_e164(text) == text.replace(" ", "")


@pytest.mark.parametrize(
    "text", ["", "ona", "tel:+37061234567", "+", None, 37061234567]
)
def test_text_that_is_no_number_has_no_e164_form(text):
    with pytest.raises(NumberNotSupported):
        phone.to_e164(text)
