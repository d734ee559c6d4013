"""E.164 in one place: fold, normalise, refuse, mask, store."""

import re
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard
from unicodedata import category, decimal

import phonenumbers
from django.conf import settings
from django.db import models
from phonenumber_field.modelfields import PhoneNumberField
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from .conf import conf
from .exceptions import NumberNotSupported

if TYPE_CHECKING:

    class PhoneNumber(phonenumbers.PhoneNumber):
        """What a row holds, for type checkers: the library has no types."""

        as_e164: str
        as_international: str
        as_national: str
        as_rfc3966: str

        def is_valid(self) -> bool: ...

else:
    from phonenumber_field.phonenumber import PhoneNumber

# libphonenumber also accepts NUL, letters, "tel:" and extensions.
_WRITTEN = re.compile(r"\(?\+?[ (]?[0-9][0-9 ()./-]{1,30}")
# Full-width ASCII; the minus sign, and what a Japanese keyboard types for a dash.
_SAME = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | dict.fromkeys(
    (0x2212, 0x30FC, 0xFF70), "-"
)
# Spaces, dashes and format marks, by Unicode category.
_MEANINGS = {"Zs": " ", "Pd": "-", "Cf": ""}
# A plus sign and 15 digits.
MAX_E164 = 16

NUMBER_TYPES = {
    PhoneNumberType.to_string(number_type).lower().replace("_", "-"): number_type
    for number_type in PhoneNumberType.values()
}


class Number(NamedTuple):
    """``e164`` such as "+37061234567", ``region`` such as "LT"."""

    e164: str
    region: str

    def __repr__(self) -> str:
        # An error report shows the variables of each frame.
        return "Number(...)"


def parse(text: object) -> Number:
    """Normalise what a person typed.

    A number without its country code needs PHONENUMBER_DEFAULT_REGION. Raises
    NumberNotSupported for anything but a number that we send codes to.
    """
    number, forbidden_by = read(text)
    if forbidden_by:
        raise _unsupported(number.region)
    return number


def read(text: object) -> tuple[Number, str]:
    """As ``parse``, also for numbers that a setting forbids.

    Returns the number, and that setting: "REGIONS", "NUMBER_TYPES", or "" where we send
    codes to it. Raises NumberNotSupported for anything but a valid number of a country.
    """
    number = _read(text)
    region = phonenumbers.region_code_for_number(number)
    e164 = phonenumbers.format_number(number, PhoneNumberFormat.E164)
    # Satellite and other networks without a country have the region "001".
    # libphonenumber knows numbers longer than E.164 allows in Germany.
    if region is None or region == "001" or len(e164) > MAX_E164:
        raise _unsupported(region)
    number_type = phonenumbers.number_type(number)
    # UNKNOWN is the type of a number that is not valid.
    if number_type == PhoneNumberType.UNKNOWN:
        raise _unsupported(region)
    return Number(e164, region), _forbidden_by(region, number_type)


def _unsupported(region: str | None) -> NumberNotSupported:
    error = NumberNotSupported()
    error.region = region or ""
    return error


def to_e164(text: object) -> str:
    """As ``parse``, also for a number that we send no codes to any more.

    Raises NumberNotSupported for what is no number.
    """
    number = _read(text)
    e164: str = phonenumbers.format_number(number, PhoneNumberFormat.E164)
    return e164


def _read(text: object) -> phonenumbers.PhoneNumber:
    if not isinstance(text, str):
        raise NumberNotSupported
    text = fold(text).strip(" ")
    if not _WRITTEN.fullmatch(text):
        raise NumberNotSupported
    default_region = getattr(settings, "PHONENUMBER_DEFAULT_REGION", None)
    try:
        return _canonical(phonenumbers.parse(text, default_region))
    except phonenumbers.NumberParseException:
        raise NumberNotSupported from None


def fold(text: str) -> str:
    """What people type or paste, in ASCII where its meaning is plain.

    Spaces and dashes of every kind become " " and "-", decimal digits of any one script
    become 0 to 9, and invisible format marks vanish. All else stays, so that a rule in
    ASCII refuses it: a text with digits of two scripts, too.
    """
    if text.isascii():
        return text
    text = text.translate(_SAME)
    digits = {each: decimal(each) for each in text if category(each) == "Nd"}
    if len({ord(each) - digit for each, digit in digits.items()}) > 1:
        return text
    return "".join(
        str(digits.get(each, _MEANINGS.get(category(each), each))) for each in text
    )


def _canonical(number: phonenumbers.PhoneNumber) -> phonenumbers.PhoneNumber:
    """One form for numbers that their region dials by the same digits.

    It has a leading zero where that is optional, as in Gabon: "+241 6 03 12 34" and
    "+241 06 03 12 34" are both "06 03 12 34" there.
    """
    with_zero = phonenumbers.PhoneNumber(
        country_code=number.country_code,
        national_number=number.national_number,
        italian_leading_zero=True,
    )
    # Most countries know no such number, and formatting is slow.
    if not phonenumbers.is_valid_number(with_zero):
        return number
    national, national_with_zero = (
        phonenumbers.format_number(each, PhoneNumberFormat.NATIONAL)
        for each in (number, with_zero)
    )
    return with_zero if national == national_with_zero else number


def _forbidden_by(region: str, number_type: int) -> str:
    if conf.REGIONS is not None and region not in conf.REGIONS:
        return "REGIONS"
    allowed = [NUMBER_TYPES[name] for name in conf.NUMBER_TYPES]
    return "" if number_type in allowed else "NUMBER_TYPES"


def written(value: PhoneNumber | str) -> str:
    """E.164; for a stored text that is no valid number, that text as it is."""
    if not isinstance(value, PhoneNumber):
        return value
    text = value.raw_input or ""
    # Whether it is valid is a slow question, and makes no difference to E.164.
    if is_readable(value) and text != value.as_e164 and value.is_valid():
        return str(value.as_e164)
    return text


def is_readable(value: PhoneNumber | str) -> TypeGuard[PhoneNumber]:
    """Whether a stored text is a number to libphonenumber, supported or not."""
    return isinstance(value, PhoneNumber) and value.country_code is not None


def mask(value: PhoneNumber | str) -> str:
    """Show only the calling code and the last two digits: "+370******67".

    Of a text that is no number, only the last two characters.
    """
    text = written(value)
    try:
        number = value if is_readable(value) else phonenumbers.parse(text)
        calling_code = f"+{number.country_code}"
    except phonenumbers.NumberParseException:
        calling_code = ""
    head = calling_code if text.startswith(calling_code) else ""
    rest = text[len(head) :]
    tail = rest[-2:] if len(rest) > 3 else ""
    return f"{head}{'*' * (len(rest) - len(tail))}{tail}"


class E164Field(PhoneNumberField):  # type: ignore[misc]
    """A PhoneNumberField that stores and dumps E.164 whatever the settings say."""

    def get_prep_value(self, value: Any) -> str | None:
        number = self.to_python(value)
        # Its truth would be that of its text, for which libphonenumber is asked again.
        return written(number) if isinstance(number, PhoneNumber) else None

    def value_to_string(self, obj: models.Model) -> str:
        """For dumpdata: loaddata must find the same number again."""
        return written(self.value_from_object(obj))
