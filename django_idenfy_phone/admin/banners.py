"""What needs a person, as warnings above the pages of the operators."""

from collections.abc import Iterator
from datetime import timedelta

from django.conf import settings
from django.utils.translation import gettext as _

from ..conf import conf
from ..health import Health, Trouble, is_too_long


def banners(found: Health, *, but: Trouble | None = None) -> Iterator[str]:
    """A text for each trouble ``but`` one, and one where starts have no network."""
    for trouble in (each for each in found.troubles if each != but):
        yield f"{trouble.label}{_detail(trouble, found)}"
    # In development, clients come from a loopback address.
    needs_network = conf.limits_of("network") and not settings.DEBUG
    if needs_network and not found.has_network:
        yield _(
            "The newest start has no client network, so the limits by network do not "
            "apply. Behind a proxy, set REST_FRAMEWORK['NUM_PROXIES']."
        )


def _detail(trouble: Trouble, found: Health) -> str:
    waiting = found.oldest_due
    if trouble == Trouble.QUEUE and waiting and is_too_long(waiting):
        return f" ({waiting // timedelta(minutes=1)} min)"
    if trouble == Trouble.RECEIVERS and found.announce_failure:
        return f" {found.announce_failure}"
    return ""
