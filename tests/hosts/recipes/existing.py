"""Which accounts have which number, before numbers become unique."""

from collections import defaultdict

import phonenumbers


def e164(text, region):
    """The number in E.164; None for what is no number."""
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def survey(rows, region):
    """A dict of lists of primary keys by number; None has those that are no numbers.

    ``rows`` are pairs of a primary key and a number as it is stored. National numbers
    are those of ``region``.
    """
    holders = defaultdict(list)
    for pk, text in rows:
        if text:
            holders[e164(text, region)].append(pk)
    return dict(holders)
