import os
from typing import Any

import requests

URL = os.environ.get("PROVIDER_URL", "http://127.0.0.1:9")
KEY_AND_SECRET = ("benchmark-key", "benchmark-secret")


def ask(
    path: str, body: dict[str, str], session: requests.Session | None = None
) -> Any:
    """iDenfy's JSON, by a kept connection of ``session`` or a new one."""
    post = session.post if session else requests.post
    return post(URL + path, json=body, auth=KEY_AND_SECRET, timeout=12).json()
