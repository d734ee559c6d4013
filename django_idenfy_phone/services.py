"""The public verbs: start, read, confirm and redeem a verification; unblock."""

import logging
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from django.core.exceptions import ValidationError
from django.core.signing import BadSignature, Signer
from django.db import IntegrityError, transaction
from django.http import HttpRequest
from django.utils import timezone

from . import (
    announce,
    brake,
    checking,
    events,
    gate,
    idempotency,
    limits,
    phone,
    resend,
    seen,
    tallies,
)
from .checking import RETRY_SOON
from .conf import conf
from .edge import hide_values
from .events import Event
from .exceptions import (
    AlreadyRedeemed,
    CheckInProgress,
    InsideTransaction,
    NotSentYet,
    NotVerified,
    NumberNotSupported,
    NumberTaken,
    ProviderUnavailable,
    StartRefused,
    UnknownUser,
    VerificationError,
    VerificationExpired,
    VerificationFailed,
    VerificationLocked,
    VerificationNotFound,
)
from .explain import Reason, explain
from .models import PhoneVerification, primary_alias
from .network import client_network, mask_network, read_network
from .seen import Seen
from .starting import Caller, StartRequest, user_id_of
from .statements import Table
from .statuses import Status
from .tasks import notify_worker
from .transactions import (
    give_back_connection,
    in_transaction,
    joining_transaction,
    retry_on_abort,
)

logger = logging.getLogger(__name__)

REDEEM_SALT = "django_idenfy_phone.redeem_token"


@hide_values
def start_verification(
    phone_number: str,
    *,
    user: Caller | None = None,
    network: str = "",
    purpose: str = "",
    idempotency_key: str | None = None,
) -> PhoneVerification:
    """Store a start; the SMS leaves after the commit. Joins a caller's transaction.

    ``user`` is None or not logged in for an anonymous start. ``network`` is an IPv4
    address, an IPv6 /64 or "". With ``idempotency_key`` (16 to 64 visible ASCII
    characters; ignored without a login) a repetition within a day returns the first
    row. Raises NumberNotSupported, CooldownActive, LimitReached, ProviderUnavailable,
    UnknownUser, InvalidIdempotencyKey or IdempotencyKeyReused; then nothing is stored.
    """
    start = _build(
        phone_number,
        user=user,
        network=network,
        purpose=purpose,
        idempotency_key=idempotency_key,
    )
    return _store_or_refuse(start)


def start_for_request(
    request: HttpRequest,
    phone_number: str | phone.Number,
    *,
    purpose: str = "",
    idempotency_key: str | None = None,
) -> PhoneVerification:
    """``start_verification`` for the user and the network of any Django request.

    It calls START_GUARD, before any lock or transaction of ours, and passes on what
    that raises. For a repetition it does not: the solution of a captcha is good only
    once. The row's ``is_repeated`` tells the two apart. It asks for no login: your view
    does.
    """
    try:
        start = _build(
            phone_number,
            user=getattr(request, "user", None),
            network="",
            purpose=purpose,
            idempotency_key=idempotency_key,
        )
    finally:
        # Error trackers show the variables of this frame.
        del phone_number, idempotency_key
    start = replace(start, network=client_network(request))
    if repeated := idempotency.find(start):
        return repeated
    if guard := conf.START_GUARD:
        # It may ask the server of a captcha, which takes a while.
        give_back_connection(primary_alias())
        try:
            guard(request, start.phone_number)
        except Exception:
            tallies.note_refusal(tallies.GUARD, start.region, purpose)
            raise
    return _store_or_refuse(start)


@hide_values
def _build(phone_number: str | phone.Number, **known: Any) -> StartRequest:
    try:
        return StartRequest.build(phone_number, **known)
    except NumberNotSupported as error:
        tallies.note_refusal(error.code, error.region, known["purpose"])
        raise


@hide_values
def _store_or_refuse(start: StartRequest) -> PhoneVerification:
    try:
        return _settle_and_store(start)
    except StartRefused as error:
        live = PhoneVerification.objects.live(start.user_id, start.purpose)
        row = live.filter(phone_number=start.phone_number).first()
        error.verification_id = row.pk if row else None
        tallies.note_refusal(error.reason, start.region, start.purpose)
        raise
    except ProviderUnavailable:
        tallies.note_refusal(tallies.UNAVAILABLE, start.region, start.purpose)
        raise
    except IntegrityError:
        if start.user_id is None:
            raise
        # A token may outlive its user. Not chained: the text holds values.
        raise UnknownUser from None


def _settle_and_store(start: StartRequest) -> PhoneVerification:
    key_hashes = idempotency.hash_key(start)
    if not conf.has_credentials:
        raise ProviderUnavailable
    if transaction.get_autocommit(primary_alias()):
        # Before the locks, so that nobody waits for it.
        limits.count_site()
    store, using = partial(_store, start, key_hashes), primary_alias()
    try:
        return retry_on_abort(store, using)
    except StartRefused:
        # A row that is too late counts no longer.
        rows = PhoneVerification.objects.filter(phone_number=start.phone_number)
        if in_transaction(using) or not announce.settle_and_announce(rows):
            raise
        return retry_on_abort(store, using)


def _store(start: StartRequest, key_hashes: list[str]) -> PhoneVerification:
    """T0: locks, then limits, then the row."""
    using = primary_alias()
    with joining_transaction(using) as bounds:
        counts, cleared_at = limits.lock_and_count(start, key_hashes, bounds)
        if counts.key_used_at:
            if repeated := idempotency.find(start):
                return repeated
            idempotency.release(key_hashes)
        gate.require_capacity(counts.gate)
        limits.enforce(start, counts, cleared_at)
        row = PhoneVerification.from_start(start, key_hashes)
        row.resend_at = resend.of_first_start(start, row, counts)
        Table(using, PhoneVerification).insert(row)
        transaction.on_commit(partial(_go_on, row), using=using)
    return row


def _go_on(row: PhoneVerification) -> None:
    """What follows the commit of a new row."""
    limits.count_start(row)
    events.log_row(Event.STARTED, row)
    notify_worker(row.pk)


@hide_values
def get_verification(
    verification_id: uuid.UUID, *, user: Caller | None
) -> PhoneVerification:
    """The caller's row as it is now. Raises VerificationNotFound or UnknownUser.

    Inside a transaction a late row is not settled first.
    """
    user_id = user_id_of(user)
    found = _see(verification_id, user_id)
    if found.row.user_id == user_id:
        found.row.resend_at = _resend_at(found, user_id)
    return found.row


def _see(pk: uuid.UUID, user_id: Any) -> Seen:
    found = _read(pk, user_id)
    if found.row.is_late(timezone.now()) and not in_transaction(primary_alias()):
        announce.settle_and_announce(PhoneVerification.objects.filter(pk=pk))
        found = _read(pk, user_id)
    return found


@hide_values
def get_current(*, user: Caller | None, purpose: str = "") -> PhoneVerification:
    """The verification that this user was last busy with, for this purpose.

    The newest whose code is on its way or awaited, else the newest proof that
    ``redeem_verification`` would take now. Raises VerificationNotFound, also for an
    anonymous user, or UnknownUser.
    """
    user_id, rows = user_id_of(user), PhoneVerification.objects
    if user_id is None:
        raise VerificationNotFound
    proofs = rows.redeemable(user_id, purpose).filter(user_id=user_id)
    row = rows.live(user_id, purpose).first() or proofs.order_by("-verified_at").first()
    if row is None:
        raise VerificationNotFound
    return get_verification(row.pk, user=user)


def _read(pk: uuid.UUID, user_id: Any) -> Seen:
    found = seen.read(pk, user_id)
    if found is None or not found.row.is_shown_to(user_id):
        raise VerificationNotFound
    return found


@hide_values
def resend_at(
    verification: PhoneVerification,
    *,
    user: Caller | None = None,
    earlier: Sequence[PhoneVerification] = (),
) -> datetime:
    """When this caller may start again for the verification's number.

    As the caller's own starts tell: other people's may refuse a start too. It may have
    passed. Without a login, ``earlier`` are other starts of the same visitor, as your
    session knows them.
    """
    user_id = user_id_of(user)
    if earlier and user_id is None:
        cleared_at = limits.cleared_for(verification, None).get("number")
        of_number = resend.of_number([verification, *earlier], cleared_at)
        return max(of_number, resend_at(verification, user=user))
    if verification.resend_at is not None and verification.user_id == user_id:
        return verification.resend_at
    found = seen.read(verification.pk, user_id)
    return _resend_at(found, user_id) if found else timezone.now()


def _resend_at(found: Seen, user_id: Any) -> datetime:
    moment = resend.resend_at(found, user_id)
    if moment <= timezone.now():
        return moment
    # An operator may have unblocked the number, and a user waits for that.
    cleared_at = limits.cleared_for(found.row, user_id)
    return resend.resend_at(found, user_id, cleared_at) if cleared_at else moment


@hide_values
def confirm_verification(
    verification_id: uuid.UUID, code: str, *, user: Caller | None = None
) -> PhoneVerification:
    """Have iDenfy judge a code: the row's ``is_verified`` tells what it said.

    Each call spends one of the row's checks before it asks, and refunds it only where
    iDenfy surely did not judge the code. Raises InvalidCode, VerificationNotFound,
    NotSentYet, CheckInProgress, VerificationExpired, VerificationLocked,
    VerificationFailed, ProviderUnavailable, CheckUnknown, InsideTransaction,
    UnknownUser, or NumberTaken where the code is right, but the number another
    account's.
    """
    code = checking.validate_code(code)
    if in_transaction(primary_alias()):
        raise InsideTransaction
    user_id = user_id_of(user)
    found = checking.check(verification_id, user_id, code)
    if found is None:
        found = _see(verification_id, user_id)
        if not found.row.is_verified:
            raise _why_no_check(found)
    row = found.row
    if row.user_id == user_id:
        row.resend_at = resend.resend_at(found, user_id)
    if row.number_taken:
        raise NumberTaken
    return row


def _why_no_check(found: Seen) -> VerificationError:
    match found.row.status:
        case Status.QUEUED | Status.SENDING:
            return NotSentYet(retry_after=RETRY_SOON)
        case Status.EXPIRED:
            return VerificationExpired()
        case Status.LOCKED:
            return VerificationLocked()
        case Status.FAILED:
            return VerificationFailed()
    pause = gate.time_to_checks(found.checks_paused_until, timezone.now())
    if pause:
        return ProviderUnavailable(retry_after=pause)
    return CheckInProgress(retry_after=RETRY_SOON)


@hide_values
def redeem_token(verification: PhoneVerification) -> str:
    """What ``get_proof`` takes for an anonymous verification: 80 ASCII characters.

    Show it only to the visitor who started it, and keep it out of URLs and logs.
    """
    return Signer(salt=REDEEM_SALT).sign(str(verification.pk))


@hide_values
def get_proof(
    token_or_id: object, *, user: Caller | None, purpose: str = ""
) -> PhoneVerification:
    """A verification that ``redeem_verification`` would take now.

    It was verified within REDEEM_WITHIN, by this user or anonymously, for this purpose,
    and was not redeemed. ``token_or_id`` is its redeem token, each character as it was
    given out, or the id of the user's own verification. Raises NotVerified or
    UnknownUser.
    """
    rows = PhoneVerification.objects.redeemable(user_id_of(user), purpose)
    pk = str(token_or_id) if isinstance(token_or_id, str | uuid.UUID) else ""
    try:
        pk = Signer(salt=REDEEM_SALT).unsign(pk)
    except (BadSignature, UnicodeEncodeError):
        # Ids stand in URLs, and so in logs: an id alone proves nothing of a visitor.
        rows = rows.exclude(user=None)
    try:
        return rows.get(pk=pk)
    except (PhoneVerification.DoesNotExist, ValidationError):
        raise NotVerified from None


@hide_values
def redeem_verification(
    verification: PhoneVerification, *, user: Caller | None, purpose: str = ""
) -> PhoneVerification:
    """Spend a proof for a saved user: exactly once, rolled back with your transaction.

    Call it inside the ``atomic()`` block that saves the user. Raises AlreadyRedeemed,
    NotVerified where ``get_proof`` would raise it, or UnknownUser for an unsaved or
    anonymous user.
    """
    rows, user_id = PhoneVerification.objects, user_id_of(user)
    if user_id is None:
        raise UnknownUser
    redeemed = rows.redeem(verification.pk, user_id, purpose)
    row = rows.filter(pk=verification.pk).first()
    if redeemed and row is not None:
        return row
    if row is not None and row.redeemed_at:
        raise AlreadyRedeemed
    raise NotVerified


@hide_values
def unblock(
    *,
    phone_number: str | None = None,
    user: Caller | None = None,
    network: str | None = None,
) -> list[Reason]:
    """Earlier sends of the number, the user and the network no longer count.

    Any of them may be left out. The number may be of a region or type that is no longer
    allowed, the network any address in it. Returns what would still refuse a start of
    theirs: see ``explain``. Raises NumberNotSupported, UnknownUser or ValueError.
    """
    values: dict[str, Any] = {}
    if phone_number:
        values["number"] = phone.read(phone_number)[0].e164
    if (user_id := user_id_of(user)) is not None:
        values["user"] = user_id
    if network:
        values["network"] = read_network(network)
    limits.clear(values)
    masks = {"number": phone.mask, "network": mask_network}
    masked = [mask(values[kind]) for kind, mask in masks.items() if kind in values]
    logger.info("Unblocked: %s. %s", ", ".join(values), " ".join(masked))
    return explain(phone_number=phone_number, user=user, network=network)


@hide_values
def release_brake(region: str) -> bool:
    """Release the brake of a region, such as "LT": only later sends count for it.

    Returns whether it was engaged.
    """
    return brake.release(region)
