"""The verifications that a session started. Their ids never leave the server."""

import uuid
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

from django.contrib.sessions.backends.base import SessionBase
from django.db import transaction
from django.http import HttpRequest
from django.utils.crypto import salted_hmac

from django_idenfy_phone import phone, services
from django_idenfy_phone.exceptions import (
    NotVerified,
    NumberNotSupported,
    StartRefused,
    VerificationNotFound,
)
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.statuses import OPEN_STATUSES

MAX_REMEMBERED = 10


class Visit:
    """What one session does for one purpose.

    ``shown`` is what ``name_of`` calls the number that a page shows, or "".
    """

    def __init__(self, request: HttpRequest, purpose: str, shown: str = "") -> None:
        self.request, self.purpose, self.shown = request, purpose, shown
        self.user = request.user if request.user.is_authenticated else None
        self.key = f"phone_{purpose}"

    @property
    def data(self) -> dict[str, Any]:
        data: dict[str, Any] = self.request.session.get(self.key, {})
        return data

    @property
    def ids(self) -> list[str]:
        ids: list[str] = self.data.get("ids", [])
        return ids

    def change(self, **changes: Any) -> None:
        self.request.session[self.key] = self.data | changes

    def rows(self) -> list[PhoneVerification]:
        """What the session asked for last comes first.

        A logged-in user has what another device began, too.
        """
        rows = [row for pk in reversed(self.ids) if (row := self._read(pk))]
        if self.user is None:
            return rows
        try:
            other = services.get_current(user=self.user, purpose=self.purpose)
        except VerificationNotFound:
            return rows
        if other.pk in [row.pk for row in rows]:
            return rows
        is_newest = all(row.created_at < other.created_at for row in rows)
        return [other, *rows] if is_newest else [*rows, other]

    def _read(self, pk: str) -> PhoneVerification | None:
        try:
            return services.get_verification(uuid.UUID(pk), user=self.user)
        except VerificationNotFound:
            return None

    def current(self) -> PhoneVerification | None:
        """The last one, of the number shown, or the live one before it for its number.

        So a new code that could not be sent does not make the earlier one useless: then
        ``is_earlier`` is set.
        """
        rows = [row for row in self.rows() if self.shown in ("", name_of(row))]
        if not rows:
            return None
        row = last = rows[0]
        if last.status == last.Status.FAILED:
            number = last.phone_number
            row = next((r for r in live_of(rows) if r.phone_number == number), last)
        row.is_earlier = row is not last
        others = [each for each in rows if each is not row]
        row.resend_at = services.resend_at(row, user=self.user, earlier=others)
        return row

    def live(self) -> PhoneVerification | None:
        """The last one whose code is on its way or awaited."""
        return next(iter(live_of(self.rows())), None)

    def go_back(self) -> None:
        """Make the live one current again."""
        if row := self.live():
            self.remember(row.pk)

    def proof(self) -> PhoneVerification | None:
        """The last one that can be redeemed now."""
        for row in self.rows():
            try:
                token = services.redeem_token(row)
                return services.get_proof(token, user=self.user, purpose=self.purpose)
            except NotVerified:
                continue
        return None

    def start(self, number: str, *, anew: bool = False) -> PhoneVerification:
        """Start, or return the live verification of this session for this number.

        With ``anew`` a new SMS is asked for. Raises what ``start_for_request`` raises.
        """
        try:
            number = phone.parse(number).e164
        except NumberNotSupported:
            # It refuses the number as well, and counts it.
            services.start_for_request(self.request, number, purpose=self.purpose)
            raise
        if not anew and (row := self._live(number)):
            self.remember(row.pk)
            return row
        known = set(self.ids)
        try:
            return self._start_and_remember(number)
        except StartRefused:
            # A double click, or another tab, was faster.
            self._reload()
            row = self._live(number)
            if row is None or (anew and str(row.pk) in known):
                raise
            return row

    def remember(self, pk: uuid.UUID) -> None:
        """As what the session asked for last."""
        others = [each for each in self.ids if each != str(pk)]
        self.change(ids=[*others, str(pk)][-MAX_REMEMBERED:])

    def _start_and_remember(self, number: str) -> PhoneVerification:
        # In one transaction: no paid code is lost where the request ends in between. A
        # user's is found again without the session.
        with transaction.atomic() if self.user is None else nullcontext():
            row = services.start_for_request(
                self.request,
                number,
                purpose=self.purpose,
                idempotency_key=self.request.headers.get("Idempotency-Key"),
            )
            self.remember(row.pk)
            self.request.session.save()
        return row

    def _live(self, number: str) -> PhoneVerification | None:
        rows = live_of(self.rows())
        return next((row for row in rows if row.phone_number == number), None)

    def _reload(self) -> None:
        session: SessionBase = self.request.session
        stored = type(session)(session.session_key).get(self.key, {})
        self.change(ids=stored.get("ids", self.ids))


def name_of(row: PhoneVerification) -> str:
    """What a page calls the number of a verification: nobody can read it there."""
    return salted_hmac("accounts.visits", str(row.phone_number)).hexdigest()


def live_of(rows: Iterable[PhoneVerification]) -> list[PhoneVerification]:
    """Those whose code is on its way, or can still be entered."""
    return [row for row in rows if row.status in OPEN_STATUSES and not row.code_spent]


def state_of(row: PhoneVerification) -> str:
    """One of ``texts.STATES``."""
    if row.number_taken:
        return "number_taken"
    if row.status in (row.Status.QUEUED, row.Status.SENDING):
        return "sending"
    if row.status == row.Status.FAILED:
        return {
            row.Failure.NUMBER_REFUSED: "number_refused",
            row.Failure.UNKNOWN: "maybe_sent",
        }.get(row.Failure(row.failure), "not_sent")
    if not row.is_verified and row.code_spent and row.has_lost_check:
        return "lost"
    return "earlier" if getattr(row, "is_earlier", False) else str(row.status)
