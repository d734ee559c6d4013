"""Where a request comes from, as far as the limits may trust it.

For any Django request, and for REST framework's. Its NUM_PROXIES is read from the
settings, so REST framework itself is not needed.
"""

import ipaddress
import logging
from functools import cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Any

from django.conf import settings
from django.http import HttpRequest

from .alarms import alarm
from .conf import PREFIX, conf

logger = logging.getLogger(__name__)

# The network that all clients share for whom a configured proxy names no address.
UNKNOWN = "unknown"
BAD_HEADER = "X-Forwarded-For, as far as NUM_PROXIES says"
BAD_FUNCTION = f"the result of {PREFIX}CLIENT_NETWORK"
# Their last 32 bits are an IPv4 address: compatible, mapped, translated, NAT64.
EMBEDDING_NETWORKS = [
    IPv6Network(each)
    for each in (
        "::/96",
        "::ffff:0:0/96",
        "::ffff:0:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
    )
]


def client_network(request: HttpRequest) -> str:
    """An IPv4 address, an IPv6 /64, "unknown", or "" where no limit applies.

    "" stands for a private, loopback or missing address. "unknown" is one network,
    shared by all clients for whom a configured proxy names no readable address. Calls
    CLIENT_NETWORK where it is set, and raises TypeError where that returns no text.
    """
    text, proxy = _address(request)
    address = read_address(text)
    if address is None and proxy:
        alarm(
            logger.error,
            f"No address can be read in {proxy}: "
            f'such clients count in one network, "{UNKNOWN}".',
        )
        return UNKNOWN
    if address is None or not address.is_global:
        _warn_once()
        return ""
    return _network_of(address)


def read_network(text: str) -> str:
    """The network of an address in any form, or of a network as a row holds it.

    Raises ValueError where no address can be read.
    """
    text = text.strip()
    address = read_address(text.removesuffix("/64"))
    if address is None and text != UNKNOWN:
        raise ValueError("no IP address")
    return _network_of(address) if address else UNKNOWN


def mask_network(network: str) -> str:
    """What ``read_network`` returns, without its end: "9.9.*.*" or "2606:4700:*"."""
    if ":" in network:
        groups = IPv6Network(network).exploded.split(":")
        return ":".join([*groups[:2], "*"])
    parts = network.split(".")
    return ".".join([*parts[:2], "*", "*"]) if len(parts) == 4 else network


def _network_of(address: IPv4Address | IPv6Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    # A subscriber has a whole /64, and could be a new client with every address.
    return str(IPv6Network((address.packed[:8] + bytes(8), 64)))


def _address(request: HttpRequest) -> tuple[str, str]:
    """The client's address as it is written, and which proxy setting it came by.

    The setting is "" for REMOTE_ADDR, and where CLIENT_NETWORK knows no address.
    """
    if custom := conf.CLIENT_NETWORK:
        text = custom(request)
        if not isinstance(text, str):
            kind = type(text).__name__
            raise TypeError(f"{PREFIX}CLIENT_NETWORK must return text, not {kind}.")
        return text, BAD_FUNCTION if text else ""
    forwarded = _forwarded_for(request)
    if forwarded is not None:
        return forwarded, BAD_HEADER
    return str(request.META.get("REMOTE_ADDR", "")), ""


def _forwarded_for(request: HttpRequest) -> str | None:
    """The entry of X-Forwarded-For exactly as far back as NUM_PROXIES says.

    A client can write the entries further left. None without proxies or the header.
    """
    rest_framework: dict[str, Any] = getattr(settings, "REST_FRAMEWORK", None) or {}
    proxies = rest_framework.get("NUM_PROXIES") or 0
    header = str(request.META.get("HTTP_X_FORWARDED_FOR", ""))
    return header.split(",")[-proxies:][0] if proxies and header else None


def read_address(text: str) -> IPv4Address | IPv6Address | None:
    """The address that a proxy or a socket wrote, in whatever form.

    It may have a port, brackets, a zone, quotes and spaces, and an IPv6 address may
    hold an IPv4 one. None for any other text.
    """
    text = text.strip(" \t\"'")
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1 or (text.count(":") == 8 and "::" not in text):
        text = text.rpartition(":")[0]
    try:
        return _embedded(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return None


def _embedded(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address inside an IPv6 one, else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if any(address in each for each in EMBEDDING_NETWORKS):
        return IPv4Address(address.packed[-4:])
    teredo = address.teredo
    return address.sixtofour or (teredo[1] if teredo else address)


@cache
def _warn_once() -> None:
    logger.warning(
        "A client came from a private, loopback or unknown address: the limits by "
        "network do not apply. Behind a proxy, set REST_FRAMEWORK['NUM_PROXIES']."
    )
