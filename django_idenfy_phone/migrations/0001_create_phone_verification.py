import uuid

import django.core.validators
import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

import django_idenfy_phone.fields
import django_idenfy_phone.phone


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="ProviderGate",
            fields=[
                (
                    "id",
                    models.PositiveSmallIntegerField(
                        default=1, primary_key=True, serialize=False
                    ),
                ),
                ("acquired_at", models.DateTimeField(null=True)),
                ("theoretical_arrival_at", models.DateTimeField(null=True)),
                ("sent_arrival_at", models.DateTimeField(null=True)),
                ("late_slot_at", models.DateTimeField(null=True)),
                ("sends_paused_until", models.DateTimeField(null=True)),
                ("account_paused_until", models.DateTimeField(null=True)),
                ("checks_paused_until", models.DateTimeField(null=True)),
                ("account_faults", models.PositiveIntegerField(default=0)),
                ("account_fault_sources", models.TextField(default="")),
                ("alarmed_at", models.DateTimeField(null=True)),
            ],
            options={
                "verbose_name": "provider gate",
                "verbose_name_plural": "provider gates",
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="StartLock",
            fields=[
                (
                    "key",
                    django_idenfy_phone.fields.ExactCharField(
                        max_length=64, primary_key=True, serialize=False
                    ),
                ),
                ("locked_at", models.DateTimeField()),
                ("cleared_at", models.DateTimeField(null=True)),
            ],
            options={
                "verbose_name": "start lock",
                "verbose_name_plural": "start locks",
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="PhoneVerification",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "is_anonymous",
                    models.BooleanField(
                        default=False, verbose_name="started without a login"
                    ),
                ),
                (
                    "phone_number",
                    django_idenfy_phone.phone.E164Field(
                        max_length=16, region=None, verbose_name="phone number"
                    ),
                ),
                ("region", models.CharField(max_length=3, verbose_name="region")),
                (
                    "number_block",
                    models.CharField(max_length=12, verbose_name="number block"),
                ),
                (
                    "purpose",
                    django_idenfy_phone.fields.ExactCharField(
                        blank=True,
                        default="",
                        max_length=50,
                        validators=[django.core.validators.validate_slug],
                        verbose_name="purpose",
                    ),
                ),
                (
                    "network",
                    models.CharField(
                        blank=True, default="", max_length=43, verbose_name="network"
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("queued", "queued"),
                            ("sending", "sending"),
                            ("sent", "sent"),
                            ("verified", "verified"),
                            ("failed", "failed"),
                            ("expired", "expired"),
                            ("locked", "locked"),
                        ],
                        default="queued",
                        max_length=8,
                        verbose_name="status",
                    ),
                ),
                (
                    "is_verified",
                    models.BooleanField(default=False, verbose_name="verified"),
                ),
                (
                    "failure",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("number_refused", "number refused by iDenfy"),
                            ("account", "key, contract or credits: for the operator"),
                            ("rate_limited", "rate limit of iDenfy"),
                            ("unreachable", "iDenfy could not be reached"),
                            ("unknown", "it may have been sent"),
                            ("too_late", "not sent in time"),
                        ],
                        default="",
                        max_length=14,
                        verbose_name="failure",
                    ),
                ),
                (
                    "provider_code",
                    models.CharField(
                        blank=True,
                        default="",
                        max_length=64,
                        verbose_name="iDenfy's identifier",
                    ),
                ),
                (
                    "request_id",
                    django_idenfy_phone.fields.ExactCharField(
                        editable=False, max_length=64, null=True, unique=True
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, verbose_name="created at"
                    ),
                ),
                ("send_by", models.DateTimeField(verbose_name="send by")),
                (
                    "next_send_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, verbose_name="next send at"
                    ),
                ),
                (
                    "slot_reserved",
                    models.BooleanField(default=False, verbose_name="slot reserved"),
                ),
                (
                    "claimed_at",
                    models.DateTimeField(null=True, verbose_name="claimed at"),
                ),
                (
                    "lease_until",
                    models.DateTimeField(null=True, verbose_name="leased until"),
                ),
                (
                    "send_attempts",
                    models.PositiveSmallIntegerField(
                        default=0, verbose_name="send attempts"
                    ),
                ),
                ("sent_at", models.DateTimeField(null=True, verbose_name="sent at")),
                (
                    "expires_at",
                    models.DateTimeField(null=True, verbose_name="expires at"),
                ),
                (
                    "checks",
                    models.PositiveSmallIntegerField(default=0, verbose_name="checks"),
                ),
                (
                    "checks_wrong",
                    models.PositiveSmallIntegerField(
                        default=0, verbose_name="wrong checks"
                    ),
                ),
                (
                    "checks_refunded",
                    models.PositiveSmallIntegerField(
                        default=0, verbose_name="refunded checks"
                    ),
                ),
                (
                    "checking_until",
                    models.DateTimeField(null=True, verbose_name="checking until"),
                ),
                (
                    "verified_at",
                    models.DateTimeField(null=True, verbose_name="verified at"),
                ),
                (
                    "announced_at",
                    models.DateTimeField(null=True, verbose_name="announced at"),
                ),
                (
                    "announce_at",
                    models.DateTimeField(null=True, verbose_name="announce at"),
                ),
                (
                    "announce_attempts",
                    models.PositiveSmallIntegerField(
                        default=0, verbose_name="announcements tried"
                    ),
                ),
                (
                    "announce_failure",
                    models.CharField(
                        blank=True,
                        default="",
                        max_length=200,
                        verbose_name="why not announced",
                    ),
                ),
                (
                    "redeemed_at",
                    models.DateTimeField(null=True, verbose_name="redeemed at"),
                ),
                (
                    "number_taken",
                    models.BooleanField(null=True, verbose_name="number taken"),
                ),
                (
                    "idempotency_key",
                    django_idenfy_phone.fields.ExactCharField(
                        editable=False, max_length=64, null=True, unique=True
                    ),
                ),
                (
                    "erased_at",
                    models.DateTimeField(null=True, verbose_name="erased at"),
                ),
                (
                    "user",
                    models.ForeignKey(
                        blank=True,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="phone_verifications",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="user",
                    ),
                ),
            ],
            options={
                "verbose_name": "phone verification",
                "verbose_name_plural": "phone verifications",
                "permissions": [
                    ("view_full_number", "Can see full phone numbers"),
                    ("unblock", "Can unblock numbers, users and networks"),
                ],
                "default_permissions": ("view",),
                "indexes": [
                    django_idenfy_phone.fields.CountingIndex(
                        fields=["phone_number", "created_at"],
                        name="idenfy_phone_number",
                    ),
                    django_idenfy_phone.fields.CountingIndex(
                        fields=["user", "created_at"], name="idenfy_phone_user"
                    ),
                    django_idenfy_phone.fields.CountingIndex(
                        fields=["network", "created_at"], name="idenfy_phone_network"
                    ),
                    django_idenfy_phone.fields.CountingIndex(
                        fields=["number_block", "created_at"], name="idenfy_phone_block"
                    ),
                    django_idenfy_phone.fields.CountingIndex(
                        fields=["created_at"], name="idenfy_phone_site"
                    ),
                    models.Index(
                        condition=models.Q(
                            ("status", "queued"),
                            ("status", "sending"),
                            ("status", "sent"),
                            _connector="OR",
                        ),
                        fields=["status", "next_send_at"],
                        name="idenfy_phone_open",
                    ),
                    models.Index(
                        condition=models.Q(
                            ("announced_at", None), ("status", "verified")
                        ),
                        fields=["announced_at", "announce_at"],
                        name="idenfy_phone_unannounced",
                    ),
                    models.Index(
                        condition=models.Q(("erased_at__isnull", False)),
                        fields=["erased_at", "created_at"],
                        name="idenfy_phone_erased",
                    ),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("is_verified", True), ("status", "verified")),
                            models.Q(
                                models.Q(("status", "verified"), _negated=True),
                                ("is_verified", False),
                            ),
                            _connector="OR",
                        ),
                        name="idenfy_phone_is_verified",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Tally",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True,
                        primary_key=True,
                        serialize=False,
                        verbose_name="ID",
                    ),
                ),
                ("hour", models.DateTimeField()),
                (
                    "name",
                    models.CharField(
                        choices=[
                            ("refused", "refused"),
                            ("started", "started"),
                            ("sent", "sent"),
                            ("verified", "verified"),
                            ("failed", "failed"),
                            ("expired", "expired"),
                            ("locked", "locked"),
                        ],
                        max_length=8,
                    ),
                ),
                ("reason", models.CharField(default="", max_length=20)),
                ("region", models.CharField(default="", max_length=3)),
                ("shard", models.PositiveSmallIntegerField(default=0)),
                ("count", models.PositiveIntegerField()),
            ],
            options={
                "verbose_name": "tally",
                "verbose_name_plural": "tallies",
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("hour", "name", "reason", "region", "shard"),
                        name="idenfy_phone_tally",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Heartbeat",
            fields=[
                (
                    "name",
                    django_idenfy_phone.fields.ExactCharField(
                        max_length=16, primary_key=True, serialize=False
                    ),
                ),
                ("beat_at", models.DateTimeField()),
            ],
            options={
                "verbose_name": "heartbeat",
                "verbose_name_plural": "heartbeats",
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="RegionBrake",
            fields=[
                (
                    "region",
                    django_idenfy_phone.fields.ExactCharField(
                        max_length=3, primary_key=True, serialize=False
                    ),
                ),
                ("engaged_at", models.DateTimeField(null=True)),
                ("engaged_until", models.DateTimeField(null=True)),
                ("numbers", models.PositiveIntegerField(default=0)),
                ("confirmed", models.PositiveIntegerField(default=0)),
                ("starts", models.PositiveIntegerField(default=0)),
            ],
            options={
                "verbose_name": "brake of a region",
                "verbose_name_plural": "brakes of regions",
                "default_permissions": (),
            },
        ),
    ]
