"""What the search of the log finds: only what is typed as a whole.

By a part of a number, of an id or of a name, others could be guessed digit by digit,
and no index would serve.
"""

import re
import uuid
from collections.abc import Iterator
from contextlib import suppress
from functools import reduce
from operator import or_
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db.models import Q

from .. import phone
from ..exceptions import NumberNotSupported
from ..models import primary_alias

# Longer than any number, id or e-mail address.
MAX_TEXT = 254
# An e-mail address need not be unique.
MAX_USERS = 100
ID = re.compile("[0-9a-f]{8}(-?)[0-9a-f]{4}(?:\\1[0-9a-f]{4}){2}\\1[0-9a-f]{12}", re.I)


def condition(text: str) -> Q | None:
    """Which rows a whole number, id, user name or e-mail address names.

    None for any other text. At most one query, for the users.
    """
    text = text.strip()
    if "\0" in text or len(text) > MAX_TEXT:
        return None
    found = list(_conditions(text))
    return reduce(or_, found) if found else None


def _conditions(text: str) -> Iterator[Q]:
    if ID.fullmatch(text):
        yield Q(pk=uuid.UUID(text))
    with suppress(NumberNotSupported):
        yield Q(phone_number=phone.to_e164(text))
    if user_ids := _users(text):
        yield Q(user_id__in=user_ids)


def _names(text: str) -> set[str]:
    """The fields of a user that may hold this text."""
    model: Any = get_user_model()
    names = {model.USERNAME_FIELD}
    if "@" in text:
        with suppress(FieldDoesNotExist):
            names.add(model._meta.get_field(model.get_email_field_name()).name)
    return names


def _users(text: str) -> list[Any]:
    users = get_user_model()._base_manager.using(primary_alias()).order_by()
    found = []
    for name in _names(text):
        # A user name may be a number, or a UUID.
        with suppress(ValueError, ValidationError):
            found.append(users.filter(**{name: text}).values_list("pk", flat=True))
    # Not by OR, which takes an index only where both fields have one.
    return list(users.none().union(*found)[:MAX_USERS])
