"""Where a request comes from, as far as the limits may trust it.

For any Django request, and for REST framework's. Its NUM_PROXIES is read from the
settings, so REST framework itself is not needed.
"""

import ipaddress
import logging
from functools import cache
from typing import Any

from django.conf import settings

from .conf import conf

logger = logging.getLogger(__name__)


def client_network(request: Any) -> str:
    """An IPv4 address, an IPv6 /64, or "" for an address that identifies no client.

    Calls CLIENT_NETWORK where it is set.
    """
    custom = conf.CLIENT_NETWORK
    text = custom(request) if custom else _address(request)
    network = normalise(text)
    if not network:
        _warn_once()
    return network


def _address(request: Any) -> str:
    """REMOTE_ADDR, or X-Forwarded-For exactly as far as NUM_PROXIES says.

    A client can write the entries further left.
    """
    rest_framework: dict[str, Any] = getattr(settings, "REST_FRAMEWORK", None) or {}
    proxies = rest_framework.get("NUM_PROXIES") or 0
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "")
    if not proxies or not forwarded:
        return str(request.META.get("REMOTE_ADDR", ""))
    return str(forwarded).split(",")[-proxies:][0].strip()


def normalise(text: str) -> str:
    """An IPv4 address as it is, an IPv6 address as its /64.

    "" for a private, loopback or otherwise not global address, and for other text.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    if not address.is_global:
        return ""
    if address.version == 4:
        return str(address)
    # A subscriber has a whole /64, and could be a new client with every address.
    return str(ipaddress.ip_network((address.packed[:8] + bytes(8), 64)))


@cache
def _warn_once() -> None:
    logger.warning(
        "A client came from a private, loopback or unknown address: the limits by "
        "network do not apply. Behind a proxy, set REST_FRAMEWORK['NUM_PROXIES']."
    )
