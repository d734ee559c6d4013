"""The story of one attempt, step by step, as its row tells it."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..models import PhoneVerification
from ..statuses import Failure, Status


class Step(NamedTuple):
    """``at`` is None where no time is stored.

    ``gap`` is the time since the step before that has one.
    """

    text: str
    at: datetime | None = None
    gap: timedelta | None = None


def steps(row: PhoneVerification, now: datetime) -> list[Step]:
    """What happened to the row until ``now``, and what is still to come."""
    told: list[Step] = []
    before: datetime | None = None
    for step in _story(row, now):
        # The clock of another host may be behind.
        gap = max(step.at - before, timedelta(0)) if step.at and before else None
        told.append(step._replace(gap=gap))
        before = step.at or before
    return told


def outcome(row: PhoneVerification, now: datetime) -> str:
    """The failure, or the status where it did not fail, as a sweep would leave it."""
    if not row.is_late(now):
        return row.failure or row.status
    match row.status:
        case Status.QUEUED:
            return Failure.TOO_LATE
        case Status.SENDING:
            return Failure.UNKNOWN
    return Status.EXPIRED if row.checks_left else Status.LOCKED


def _story(row: PhoneVerification, now: datetime) -> Iterator[Step]:
    yield Step(_("Started, and put in the queue"), row.created_at)
    yield from _sending(row, now)
    yield from _checking(row, now)
    yield from _announcing(row)
    if row.redeemed_at:
        yield Step(_("Proof redeemed"), row.redeemed_at)


def _sending(row: PhoneVerification, now: datetime) -> Iterator[Step]:
    if row.claimed_at:
        text = _("Claimed by a worker")
        if row.send_attempts > 1:
            text = _("Claimed by a worker, try %s") % row.send_attempts
        yield Step(text, row.claimed_at)
    if row.sent_at:
        yield Step(_("Handed to iDenfy, which accepted it"), row.sent_at)
    ended = outcome(row, now)
    if ended == Status.QUEUED:
        yield from _waiting(row, now)
    if ended == Failure.TOO_LATE:
        yield Step(_("Failed: %s") % Failure.TOO_LATE.label, row.send_by)
    elif ended in Failure.values:
        yield Step(_("Failed: %s") % Failure(ended).label)


def _waiting(row: PhoneVerification, now: datetime) -> Iterator[Step]:
    if row.next_send_at > now:
        yield Step(_("Next try to send"), row.next_send_at)
    else:
        yield Step(_("Waits for a worker"))


def _checking(row: PhoneVerification, now: datetime) -> Iterator[Step]:
    if wrong := row.checks_wrong:
        yield Step(ngettext("%s wrong code", "%s wrong codes", wrong) % wrong)
    if back := row.checks_refunded:
        text = ngettext(
            "%s check given back: iDenfy did not judge it",
            "%s checks given back: iDenfy did not judge them",
            back,
        )
        yield Step(text % back)
    if row.has_lost_check:
        yield Step(_("iDenfy's answer to a check was lost"))
    match outcome(row, now):
        case Status.LOCKED:
            yield Step(_("Locked: no checks are left"))
        case Status.EXPIRED:
            yield Step(_("Expired: no right code came in time"), row.expires_at)
        case Status.VERIFIED:
            yield Step(
                _("Verified: iDenfy said that the code is right"), row.verified_at
            )


def _announcing(row: PhoneVerification) -> Iterator[Step]:
    if row.status != Status.VERIFIED:
        return
    if row.number_taken:
        yield Step(_("Not kept: another account holds this number"))
    elif row.number_taken is False:
        yield Step(_("Kept as the number of the user's account"))
    if row.announced_at:
        yield _told(row)
    else:
        yield from _not_told(row)


def _told(row: PhoneVerification) -> Step:
    if row.number_taken or row.announced_at == row.verified_at:
        return Step(_("Nobody to tell: the site was not called"), row.announced_at)
    text = _("Told to the site")
    if row.announce_attempts > 1:
        text = _("Told to the site, at try %s") % row.announce_attempts
    return Step(text, row.announced_at)


def _not_told(row: PhoneVerification) -> Iterator[Step]:
    tries = row.announce_attempts
    text = ngettext(
        "Not yet told to the site: tried %s time",
        "Not yet told to the site: tried %s times",
        tries,
    )
    yield Step(text % tries)
    if failure := row.announce_failure:
        yield Step(_("Failed in the last try: %s") % failure)
    elif tries:
        text = _(
            "Nothing failed in the last try so far: a receiver runs or hangs, or its "
            "process ended"
        )
        yield Step(text)
    yield Step(_("Next try to tell it"), row.announce_at)
