"""The tables of what operators look at: tallies and heartbeats.

They hold no number, no user and no network. Read and write them in the database of the
verifications: see ``models.primary_alias``.
"""

from django.db import models
from django.utils.translation import gettext_lazy as _

from .fields import ExactCharField


class Tally(models.Model):
    """How often something happened in one hour: see ``tallies``."""

    class Name(models.TextChoices):
        """Each but REFUSED counts verifications, in the hour of their start."""

        REFUSED = "refused", _("refused")
        # A start that stored nothing; reason says why.
        STARTED = "started", _("started")
        SENT = "sent", _("sent")
        # iDenfy accepted the number, whatever came after.
        VERIFIED = "verified", _("verified")
        FAILED = "failed", _("failed")
        # reason is the failure.
        EXPIRED = "expired", _("expired")
        LOCKED = "locked", _("locked")

    # The first moment of the hour.
    hour = models.DateTimeField()
    name = models.CharField(max_length=8, choices=Name)
    reason = models.CharField(max_length=20, default="")
    region = models.CharField(max_length=3, default="")
    # Refusals at the same moment do not wait for one row.
    shard = models.PositiveSmallIntegerField(default=0)
    count = models.PositiveIntegerField()

    class Meta:
        verbose_name = _("tally")
        verbose_name_plural = _("tallies")
        default_permissions = ()
        constraints = [
            # Its index also serves the reads, which are by hour.
            models.UniqueConstraint(
                fields=["hour", "name", "reason", "region", "shard"],
                name="idenfy_phone_tally",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H} {self.name} {self.reason}".rstrip()


class Heartbeat(models.Model):
    """When a part of the app last showed that it runs."""

    name = ExactCharField(max_length=16, primary_key=True)
    beat_at = models.DateTimeField()

    class Meta:
        verbose_name = _("heartbeat")
        verbose_name_plural = _("heartbeats")
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.name)
