"""E.164 in one place: normalise, refuse, mask, store."""

import re
from typing import Any, NamedTuple

import phonenumbers
from django.conf import settings
from phonenumber_field.modelfields import PhoneNumberField
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from .conf import conf
from .exceptions import NumberNotSupported

# libphonenumber also accepts NUL, zero-width spaces, digits of other scripts, letters,
# "tel:" and extensions. A leading "00" means "+" in some countries only.
_WRITTEN = re.compile(r"(?![ ().-]*0[ ().-]*0)\+?[0-9(][0-9 ().-]{1,30}", re.ASCII)

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
    if not isinstance(text, str) or not _WRITTEN.fullmatch(text):
        raise NumberNotSupported
    default_region = getattr(settings, "PHONENUMBER_DEFAULT_REGION", None)
    try:
        number = phonenumbers.parse(text, default_region)
    except phonenumbers.NumberParseException:
        raise NumberNotSupported from None
    region = phonenumbers.region_code_for_number(number)
    if region is None or not _is_supported(number, region):
        raise NumberNotSupported
    return Number(phonenumbers.format_number(number, PhoneNumberFormat.E164), region)


def _is_supported(number: phonenumbers.PhoneNumber, region: str) -> bool:
    # Satellite and other networks without a country have the region "001".
    if region == "001" or not phonenumbers.is_valid_number(number):
        return False
    if conf.REGIONS is not None and region not in conf.REGIONS:
        return False
    number_type = phonenumbers.number_type(number)
    return number_type in [NUMBER_TYPES[name] for name in conf.NUMBER_TYPES]


def mask(e164: str) -> str:
    """Show only the calling code and the last two digits: "+370******67"."""
    calling_code = phonenumbers.parse(e164).country_code
    head = f"+{calling_code}"
    return f"{head}{'*' * (len(e164) - len(head) - 2)}{e164[-2:]}"


class E164Field(PhoneNumberField):  # type: ignore[misc]
    """A PhoneNumberField that stores E.164 whatever PHONENUMBER_DB_FORMAT says."""

    def get_prep_value(self, value: Any) -> str | None:
        number = self.to_python(value)
        if not number:
            return None
        text: str = number.as_e164 if number.is_valid() else number.raw_input
        return text
