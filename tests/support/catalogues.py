"""The texts of the code, and of the catalogues, as Babel reads them."""

import io
import re

from babel.messages.extract import DEFAULT_KEYWORDS, extract
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po
from django.utils.translation.template import templatize

KEYWORDS = DEFAULT_KEYWORDS | {
    f"{name}_lazy": DEFAULT_KEYWORDS[name]
    for name in ("gettext", "ngettext", "pgettext", "npgettext")
}
KEYWORDS["gettext_noop"] = None
PLACEHOLDER = re.compile(r"%\(\w+\)[a-z]|%[a-z]|\{\w*\}")


def texts_of(paths):
    """The context and the text of each message of modules and templates.

    Of a message with a plural, the text is the pair of both.
    """
    return {
        (context, text)
        for path in paths
        for _line, text, _comments, context in extract(
            "python", io.BytesIO(_as_python(path).encode()), KEYWORDS
        )
    }


def _as_python(path):
    if path.suffix == ".py":
        return path.read_text()
    # The indentation of HTML would be an error.
    lines = templatize(path.read_text()).splitlines()
    return "\n".join(line.strip() for line in lines)


def read_catalogue(path):
    """The messages of a .po or .mo file by context and text, without its header."""
    with path.open("rb") as file:
        catalogue = read_mo(file) if path.suffix == ".mo" else read_po(file)
    return {(each.context, _text_of(each)): each for each in catalogue if each.id}


def _text_of(message):
    return message.id if isinstance(message.id, str) else tuple(message.id)


def strings_of(message):
    """The translation, or all its plural forms."""
    strings = message.string
    return [strings] if isinstance(strings, str) else list(strings)


def placeholders_of(text):
    return sorted(PLACEHOLDER.findall(text))
