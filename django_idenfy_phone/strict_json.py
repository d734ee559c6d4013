"""JSON read strictly: for iDenfy's answers and for our own input."""

import json
from typing import Any, NoReturn


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate key")
    return members


def _refuse(constant: str) -> NoReturn:
    raise ValueError("not JSON")


def load_object(body: bytes) -> dict[str, Any]:
    """Read one UTF-8 JSON object. Anything else raises ValueError without the text.

    Duplicate keys are refused: parsers disagree on which of them counts.
    """
    try:
        value = json.loads(
            body.decode(), object_pairs_hook=_unique, parse_constant=_refuse
        )
    except (ValueError, RecursionError):
        raise ValueError("not a JSON object") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value
