"""How the admin writes times, durations and states: in the words of support."""

import re
from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from ..conf import conf
from ..models import PhoneVerification
from ..phone import mask, written

NOTHING = "-"
E164 = re.compile(r"\+[0-9]{7,15}")
FORMAT = "Y-m-d H:i:s T"


def local(at: datetime) -> datetime:
    """In the current time zone; without USE_TZ, times are local already."""
    return timezone.localtime(at) if timezone.is_aware(at) else at


def moment(at: datetime | None) -> str:
    """To the second, with the zone: "2026-11-30 08:04:07 EET"."""
    return date_format(local(at), FORMAT) if at else NOTHING


def duration(length: timedelta) -> str:
    """In two units at most: "1.2 s", "3 min 5 s", "2 h 3 min", "4 d 1 h"."""
    seconds = max(0.0, length.total_seconds())
    if seconds < 10:
        return _("%s s") % round(seconds, 1)
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return _("%s s") % rest
    if minutes < 60:
        return _("%(minutes)s min %(seconds)s s") % {
            "minutes": minutes,
            "seconds": rest,
        }
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return _("%(hours)s h %(minutes)s min") % {"hours": hours, "minutes": minutes}
    days, hours = divmod(hours, 24)
    return _("%(days)s d %(hours)s h") % {"days": days, "hours": hours}


def number(row: PhoneVerification) -> str:
    """Masked, with its region: "+370******67 LT"."""
    return f"{row.masked_number} {row.region}".strip()


def user(row: PhoneVerification) -> str:
    """The user's own text. Some hosts name users by their number: it is masked."""
    if row.user is None:
        return _("no login") if row.is_anonymous else NOTHING
    text = E164.sub(lambda found: mask(found[0]), str(row.user))
    digits = written(row.phone_number).removeprefix("+")
    return text.replace(digits, row.masked_number) if digits else text


def status(row: PhoneVerification) -> SafeString:
    """A label: its colour only repeats what its text says."""
    return format_html(
        '<span class="idenfy-phone-status idenfy-phone-{}">{}</span>',
        row.status,
        row.get_status_display(),
    )


def time_to_send(row: PhoneVerification) -> str:
    return duration(row.sent_at - row.created_at) if row.sent_at else NOTHING


def checks_used(row: PhoneVerification) -> str:
    used = row.checks - row.checks_refunded
    return _("%(used)s of %(most)s") % {"used": used, "most": conf.MAX_CHECKS}


def failure(row: PhoneVerification) -> str:
    return row.get_failure_display() or NOTHING
