"""The countries whose numbers get a code, and numbers as people write them."""

from typing import NamedTuple
from unicodedata import normalize

import phonenumbers
from django.conf import settings
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from django_idenfy_phone.phone import fold

# Add those of your own IDENFY_PHONE_REGIONS.
NAMES = {
    "EE": gettext_noop("Estonia"),
    "GB": gettext_noop("United Kingdom"),
    "LT": gettext_noop("Lithuania"),
    "LV": gettext_noop("Latvia"),
    "US": gettext_noop("United States"),
}


class Country(NamedTuple):
    region: str
    name: str
    calling_code: int

    def __str__(self) -> str:
        return f"{self.name} (+{self.calling_code})"


def supported_countries() -> list[Country]:
    """Exactly those of IDENFY_PHONE_REGIONS, by name."""
    countries = [
        Country(
            region,
            _(NAMES[region]) if region in NAMES else region,
            phonenumbers.country_code_for_region(region),
        )
        for region in settings.IDENFY_PHONE_REGIONS
    ]
    # An accent comes after its letter then, and not behind Z.
    return sorted(countries, key=lambda country: normalize("NFKD", country.name))


def number_error() -> str:
    names = [country.name for country in supported_countries()]
    text = _("Enter a mobile phone number of one of these countries: {countries}.")
    return text.format(countries=", ".join(names))


def to_international(text: str, region: str) -> str:
    """What a person typed or pasted, in E.164 where it can be read.

    A number without a plus sign is one of the region. Else the text as it is: the app
    refuses it.
    """
    text = fold(text).strip()
    if text.startswith("00"):
        text = f"+{text[2:]}"
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return text
    # The library drops letters and extensions, which the app refuses.
    if number.extension or any(each.isalpha() for each in text):
        return text
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
