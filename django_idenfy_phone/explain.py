"""Why a start would be refused now, in the words of support.

It finds what ``gate`` and ``limits`` would refuse, but only reads: nothing is locked,
stored or settled. A START_GUARD, a login or a throttle of the host may refuse as well.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, NamedTuple

from django.db.models import Count, Q, QuerySet, Value
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from . import brake, gate, limits, phone, site
from .conf import Limit, conf
from .edge import hide_values
from .exceptions import NumberNotSupported
from .look import FIELDS
from .models import PhoneVerification, RegionBrake, primary_alias
from .network import read_network
from .pacing import Pause
from .querysets import PhoneVerificationQuerySet
from .starting import Caller, user_id_of
from .statements import first_values
from .statuses import Status

TEXTS = {
    "key": gettext_lazy("The API key or secret is not set: every start is refused."),
    "number_not_supported": gettext_lazy("This is no valid phone number."),
    "REGIONS": gettext_lazy(
        "Numbers of the region %(region)s are not in IDENFY_PHONE_REGIONS."
    ),
    "NUMBER_TYPES": gettext_lazy(
        "Numbers of this type are not in IDENFY_PHONE_NUMBER_TYPES."
    ),
    Pause.ACCOUNT: gettext_lazy("iDenfy refuses the account, so all starts pause."),
    Pause.SENDS: gettext_lazy(
        "Sends pause, or so many wait that a code could not be sent in time."
    ),
    limits.COOLDOWN: gettext_lazy(
        "The number has a cooldown (sends of the last day: %(sends)s)."
    ),
    "number": gettext_lazy("The limit of the number is reached: %(used)s."),
    "user": gettext_lazy("The limit of the user is reached: %(used)s."),
    "network": gettext_lazy("The limit of the network is reached: %(used)s."),
    "block": gettext_lazy(
        "The limit of the number's block, 10,000 numbers, is reached: %(used)s."
    ),
    "site": gettext_lazy("The limit of the whole site is reached: %(used)s."),
    brake.BRAKE: gettext_lazy(
        "The brake of the region %(region)s refuses newcomers, since %(confirmed)s of "
        "%(sends)s numbers confirmed a code: a user who verified a number before may "
        "start."
    ),
}


class Reason(NamedTuple):
    """What refuses a start, and until when: None where waiting does not help.

    ``kind`` is a key of TEXTS. ``sends`` are those that the ``limit`` counts, or those
    of the last day for a cooldown. For a brake, they are the numbers that got a code
    before it engaged, of which so many ``confirmed`` it.
    """

    kind: str
    until: datetime | None = None
    sends: int = 0
    limit: Limit | None = None
    region: str = ""
    confirmed: int = 0

    def __str__(self) -> str:
        facts: dict[str, object] = self._asdict()
        facts["used"] = self._used(self.limit) if self.limit else ""
        text = str(TEXTS[self.kind]) % facts
        return f"{text} {_('Until %s.') % _moment(self.until)}" if self.until else text

    def _used(self, limit: Limit) -> str:
        text = _("%(sends)s of %(allowed)s sends in %(window)s")
        window = _length(limit.window)
        return text % {"sends": self.sends, "window": window, "allowed": limit.sends}


def _length(window: timedelta) -> str:
    """Such as "10 minutes"."""
    seconds = window // timedelta(seconds=1)
    for size, one, many in (
        (86_400, "%s day", "%s days"),
        (3_600, "%s hour", "%s hours"),
        (60, "%s minute", "%s minutes"),
    ):
        if seconds % size == 0:
            return ngettext(one, many, seconds // size) % (seconds // size)
    return ngettext("%s second", "%s seconds", seconds) % seconds


def _moment(until: datetime) -> str:
    """With seconds, rounded up, and the zone."""
    until += timedelta(microseconds=999_999)
    local = timezone.localtime(until) if timezone.is_aware(until) else until
    return local.strftime("%Y-%m-%d %H:%M:%S %Z").rstrip()


@hide_values
def explain(
    *,
    phone_number: str | None = None,
    user: Caller | None = None,
    network: str | None = None,
) -> list[Reason]:
    """All that would refuse a start of these now; what ends last comes last.

    Without a number, only what refuses the user, the network and everybody. The number
    may have any form, the network be any address in it. Raises UnknownUser, or
    ValueError where no address can be read.
    """
    number, forbidden = None, []
    if phone_number:
        try:
            number, setting = phone.read(phone_number)
            forbidden = [Reason(setting, region=number.region)] if setting else []
        except NumberNotSupported as error:
            forbidden = [Reason(error.code)]
    address = read_network(network) if network else None
    look = _Look(number, user_id_of(user), address)
    waits = [each for each in look.reasons() if each.until and each.until > look.now]
    reasons = sorted(waits, key=attrgetter("until")) + forbidden
    return reasons if conf.has_credentials else [*reasons, Reason("key")]


class _Look:
    """Looks at all that may refuse a start, as the tables are now."""

    def __init__(
        self, number: phone.Number | None, user_id: Any, network: str | None
    ) -> None:
        self.number, self.now = number, timezone.now()
        values = {
            "number": number and number.e164,
            "block": number and number.e164[:-4],
            "user": user_id,
            "network": network,
        }
        known = [kind for kind, value in values.items() if value is not None]
        self.values = {kind: values[kind] for kind in known}
        self.cleared_at = limits.cleared_at(self.values)

    def reasons(self) -> Iterator[Reason]:
        """Also those that ended before."""
        for pause, until in gate.useful_at(gate.current(), self.now).items():
            yield Reason(pause, until)
        known = [(kind, each) for kind in self.values for each in conf.limits_of(kind)]
        named = {f"limit_{n}": pair for n, pair in enumerate(known)}
        queries: dict[str, QuerySet[Any, Any]] = {
            name: self._times(self._limited(kind, limit))[limit.sends - 1 :]
            for name, (kind, limit) in named.items()
        }
        if self.number:
            newest = self._created("number", limits.UNCOUNTED_COOLDOWN)
            queries["newest"] = self._times(newest)
            queries |= self._of_brake(self.number.region)
        found = first_values(primary_alias(), queries)
        if self.number:
            yield from self._cooldown(found["newest"])
            yield from self._brake(self.number.region, found)
        limits.count_site()
        for n, limit in enumerate(conf.limits_of("site")):
            named[f"site_{n}"] = "site", limit
            found[f"site_{n}"] = site.nth_newest(limit, self.now)
        yield from self._limits(named, found)

    def _cooldown(self, newest: datetime | None) -> Iterator[Reason]:
        sends = list(self._times(self._counted("number", limits.DAY)))
        for until in limits.cooldown_ends([newest] if newest else [], sends):
            yield Reason(limits.COOLDOWN, until, len(sends))

    def _of_brake(self, region: str) -> dict[str, QuerySet[Any, Any]]:
        brakes = RegionBrake.objects.filter(region=region)
        names = ("engaged_until", "numbers", "confirmed")
        queries: dict[str, Any] = {name: brakes.values(name) for name in names}
        if "user" in self.values:
            queries["proof"] = brake.proofs_of(self.values["user"]).values("pk")
        return queries

    def _brake(self, region: str, found: Mapping[str, Any]) -> Iterator[Reason]:
        until = found["engaged_until"]
        if until and brake.is_enforced() and not found.get("proof"):
            sends, confirmed = found["numbers"], found["confirmed"]
            yield Reason(brake.BRAKE, until, sends, region=region, confirmed=confirmed)

    def _limits(
        self, named: Mapping[str, tuple[str, Limit]], found: Mapping[str, Any]
    ) -> Iterator[Reason]:
        """Those that ``found`` shows as reached, by the time of their last send."""
        reached = {name: pair for name, pair in named.items() if found[name]}
        counts = {
            name: self._limited(kind, limit)
            .order_by()
            .values(of_all=Value(1))
            .annotate(sends=Count("pk"))
            .values("sends")
            for name, (kind, limit) in reached.items()
        }
        sends = first_values(primary_alias(), counts)
        for name, (kind, limit) in reached.items():
            yield Reason(kind, found[name] + limit.window, sends[name], limit)

    def _limited(self, kind: str, limit: Limit) -> PhoneVerificationQuerySet:
        """What a limit counts."""
        refused = limits.counts_refusals(kind, limit)
        return self._counted(kind, limit.window, with_account_refusals=refused)

    def _created(self, kind: str, window: timedelta) -> PhoneVerificationQuerySet:
        """The rows of a kind within a window, but for those before a clearing."""
        since = self.now - window
        since = max(since, self.cleared_at.get(kind, since))
        rows = PhoneVerification.objects.filter(created_at__gt=since)
        if kind == "site":
            return rows
        return rows.filter(**{FIELDS[kind]: self.values[kind]})

    def _counted(
        self, kind: str, window: timedelta, *, with_account_refusals: bool = False
    ) -> PhoneVerificationQuerySet:
        """Those that a limit counts, as a refused start would leave them."""
        late = Q(status=Status.QUEUED, send_by__lte=self.now)
        if kind != "site":
            # A start settles the rows of its number only.
            late &= Q(phone_number=self.number and self.number.e164)
        rows = self._created(kind, window).exclude(late)
        return rows.counted(with_account_refusals=with_account_refusals)

    @staticmethod
    def _times(rows: PhoneVerificationQuerySet) -> QuerySet[Any, datetime]:
        return rows.order_by("-created_at").values_list("created_at", flat=True)
