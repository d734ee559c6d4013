"""Where a request comes from, as far as limits may trust it."""

import ipaddress
import logging
from functools import cache

from rest_framework.request import Request
from rest_framework.settings import api_settings

from ..conf import conf

logger = logging.getLogger(__name__)


def client_network(request: Request) -> str:
    """An IPv4 address, an IPv6 /64, or "" where the address tells nobody apart."""
    custom = conf.CLIENT_NETWORK
    text = custom(request) if custom else _address(request)
    network = normalise(text)
    if not network:
        _warn_once()
    return network


def _address(request: Request) -> str:
    """REMOTE_ADDR, or X-Forwarded-For exactly as far as NUM_PROXIES says.

    Anybody can write the entries further left.
    """
    proxies = api_settings.NUM_PROXIES or 0
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "")
    if not proxies or not forwarded:
        return str(request.META.get("REMOTE_ADDR", ""))
    return str(forwarded).split(",")[-proxies:][0].strip()


def normalise(text: str) -> str:
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
        "network do not hold. Behind a proxy, set REST_FRAMEWORK['NUM_PROXIES']."
    )
