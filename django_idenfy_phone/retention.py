"""The purge: what is deleted when nothing needs it any more."""

import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from django.db import IntegrityError, models
from django.db.models import ProtectedError, Q, RestrictedError
from django.db.models.deletion import Collector
from django.utils import timezone

from . import limits
from .conf import conf
from .edge import hide_values
from .exceptions import InsideTransaction
from .models import PhoneVerification, StartLock, primary_alias
from .querysets import PhoneVerificationQuerySet
from .records import Tally
from .statuses import OPEN_STATUSES, Status
from .transactions import (
    durable_statement,
    durable_transaction,
    in_transaction,
    retry_on_abort,
)

# How many rows are locked and deleted at once, in a transaction of their own.
BATCH = 500
# The limits that count an erased row: it has no user and no network any more.
KINDS_OF_ERASED = ("number", "block", "site")


@dataclass
class Deleted:
    """How many verifications, locks and tallies were deleted, or would be.

    ``kept`` counts those that foreign keys of other models kept, by those models.
    """

    rows: int = 0
    locks: int = 0
    tallies: int = 0
    kept: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        counts = [f"verifications: {self.rows}", f"locks: {self.locks}"]
        counts += [f"tallies: {self.tallies}"] if self.tallies else []
        counts += [f"kept by {name}: {n}" for name, n in sorted(self.kept.items())]
        return ", ".join(counts)


Progress = Callable[[Deleted], object]


@hide_values
def purge(*, dry_run: bool = False, progress: Progress | None = None) -> Deleted:
    """Delete rows and tallies older than RETENTION, erased rows and unused locks.

    Safe at any time, and to be interrupted: each batch is committed by itself, and the
    next purge goes on. Rows under way and proofs that are not announced stay.
    ``progress`` is called after each batch. Raises InsideTransaction.
    """
    if in_transaction(primary_alias()):
        raise InsideTransaction
    run = _Run(dry_run, progress or (lambda deleted: None))
    run.delete_rows(_outdated())
    run.delete_rows(outdated_erased())
    run.delete_locks()
    run.delete_tallies()
    return run.deleted


def _kept_since() -> datetime:
    # Also where the system check of RETENTION is silenced.
    return timezone.now() - max(conf.RETENTION, limits.longest_window())


def _outdated() -> PhoneVerificationQuerySet:
    now = timezone.now()
    return (
        _ended_before(_kept_since())
        .filter(erased_at=None)
        .exclude(status=Status.VERIFIED, announced_at=None)
        .exclude(verified_at__gt=now - conf.REDEEM_WITHIN)
    )


def outdated_erased() -> PhoneVerificationQuerySet:
    """Erased rows that no limit counts any more."""
    window = limits.longest_window(KINDS_OF_ERASED)
    return _ended_before(timezone.now() - window).filter(erased_at__isnull=False)


def _ended_before(moment: datetime) -> PhoneVerificationQuerySet:
    """The sweep ends the others of that age."""
    rows: PhoneVerificationQuerySet = PhoneVerification.objects.all()
    return rows.filter(created_at__lte=moment).exclude(status__in=OPEN_STATUSES)


class _Run:
    """One purge."""

    def __init__(self, is_dry: bool, progress: Progress) -> None:
        self.is_dry, self.progress = is_dry, progress
        self.deleted = Deleted()

    def delete_rows(self, rows: PhoneVerificationQuerySet) -> None:
        for pks in _pages(rows):
            if self.is_dry:
                self.deleted.rows += len(pks)
            else:
                delete(rows, pks, self.deleted)
            self.progress(self.deleted)

    def delete_locks(self) -> None:
        """A start that needs one makes it anew."""
        unused_since = timezone.now() - limits.longest_window()
        unused = StartLock.objects.filter(
            Q(cleared_at=None) | Q(cleared_at__lte=unused_since),
            locked_at__lte=unused_since,
        )
        for keys in _pages_of_locks(unused):
            work = partial(_delete_locks, unused, keys)
            self.deleted.locks += (
                len(keys) if self.is_dry else retry_on_abort(work, primary_alias())
            )
            self.progress(self.deleted)

    def delete_tallies(self) -> None:
        old = Tally.objects.using(primary_alias()).filter(hour__lt=_kept_since())
        if self.is_dry:
            self.deleted.tallies = old.count()
            return
        while pks := list(old.values_list("pk", flat=True)[:BATCH]):
            work = partial(_delete_tallies, old.filter(pk__in=pks))
            self.deleted.tallies += retry_on_abort(work, old.db)
            self.progress(self.deleted)


def _pages(rows: PhoneVerificationQuerySet) -> Iterator[list[uuid.UUID]]:
    """The primary keys of rows, oldest first, so that each query reads one batch."""
    after = Q()
    by_age = rows.order_by("created_at", "pk").values_list("created_at", "pk")
    while page := list(by_age.filter(after)[:BATCH]):
        created_at, pk = page[-1]
        later = Q(created_at__gt=created_at) | Q(pk__gt=pk)
        after = Q(created_at__gte=created_at) & later
        yield [pk for _created_at, pk in page]


def _pages_of_locks(locks: "models.QuerySet[StartLock]") -> Iterator[list[str]]:
    """The keys of locks, in pages of all keys: few of very many may be among them."""
    last = ""
    keys = StartLock.objects.order_by("key").values_list("key", flat=True)
    while page := list(keys.filter(key__gt=last)[:BATCH]):
        last = page[-1]
        found = locks.filter(key__in=page).values_list("key", flat=True)
        if chosen := list(found):
            yield chosen


def delete(
    rows: PhoneVerificationQuerySet, pks: Sequence[uuid.UUID], deleted: Deleted
) -> None:
    """Delete those of ``pks`` that are still among ``rows``, and add them up.

    Relations of the host's models do as their ``on_delete`` says. A row that one of
    them protects is found by halving, and kept.
    """
    try:
        work = partial(_delete_rows, rows, pks)
        deleted.rows += retry_on_abort(work, primary_alias())
    except IntegrityError as error:
        if len(pks) == 1:
            deleted.kept[_keepers(error)] += 1
            return
        middle = len(pks) // 2
        delete(rows, pks[:middle], deleted)
        delete(rows, pks[middle:], deleted)


def _keepers(error: IntegrityError) -> str:
    """The names of the models whose rows protect one: never the text of the error."""
    found: set[models.Model] = set()
    if isinstance(error, ProtectedError):
        found = error.protected_objects
    elif isinstance(error, RestrictedError):
        found = error.restricted_objects
    names = sorted({each._meta.label for each in found})
    return ", ".join(names) or "a foreign key"


def _delete_rows(rows: PhoneVerificationQuerySet, pks: Sequence[uuid.UUID]) -> int:
    """Delete what is still among ``rows``, in one transaction. Returns how many."""
    using = primary_alias()
    with durable_transaction(using) as bounds:
        chosen = rows.filter(bounds, pk__in=pks).order_by()
        # Where no model refers to the rows, and nobody listens to their deletion.
        if Collector(using).can_fast_delete(chosen):
            return chosen._raw_delete(using)
        locked = list(chosen.select_for_update().values_list("pk", flat=True))
        PhoneVerification.objects.filter(pk__in=locked).delete()
    return len(locked)


def _delete_tallies(tallies: "models.QuerySet[Tally]") -> int:
    with durable_statement(tallies.db) as bounds:
        return tallies.filter(bounds)._raw_delete(tallies.db)


def _delete_locks(unused: "models.QuerySet[StartLock]", keys: Sequence[str]) -> int:
    """Delete what is still ``unused``, in one transaction. Returns how many.

    What a start has locked is passed over: it holds several locks, so to wait for one
    of them could be a deadlock.
    """
    using = primary_alias()
    with durable_transaction(using) as bounds:
        chosen = unused.filter(bounds, key__in=keys).order_by()
        free = chosen.select_for_update(skip_locked=True).values_list("key", flat=True)
        deleted, _by_model = StartLock.objects.filter(key__in=list(free)).delete()
    return deleted
