"""A host's models that hold numbers, and some that cannot.

Without migrations, so their tables are made before that of users.
"""

from functools import partial

from django.conf import settings
from django.db import models
from django.db.models import Q

from django_idenfy_phone.ownership import PhoneOwner

OneToUser = partial(
    models.OneToOneField,
    settings.AUTH_USER_MODEL,
    on_delete=models.DO_NOTHING,
    db_constraint=False,
)

BARRED = "+37061234599"


class Actives(models.Manager):
    def get_queryset(self):
        return super().get_queryset().filter(is_deleted=False)


class Profile(PhoneOwner):
    """Deleted ones stay, and its default manager hides them."""

    id = models.BigAutoField(primary_key=True)
    user = OneToUser()
    is_deleted = models.BooleanField(default=False)

    objects = Actives()


class Member(models.Model):
    """Its own fields."""

    PHONE_NUMBER_FIELD = "mobile"
    PHONE_CONFIRMED_AT_FIELD = "mobile_proven_at"

    user = OneToUser(primary_key=True)
    mobile = models.CharField(max_length=20, null=True)
    mobile_proven_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["mobile"], name="unique_mobile"),
            models.CheckConstraint(condition=~Q(mobile=BARRED), name="barred_mobile"),
        ]


class WithoutTable(models.Model):
    """Only checks look at it."""

    id = models.BigAutoField(primary_key=True)
    user = OneToUser(related_name="+")

    class Meta:
        abstract = True
        managed = False


class WithoutFields(WithoutTable):
    pass


class ConfirmedByFlag(WithoutTable):
    phone_number = models.CharField(max_length=16, null=True, unique=True)
    phone_confirmed_at = models.BooleanField(null=True)


class NeverNull(WithoutTable):
    phone_number = models.CharField(max_length=16, unique=True)
    phone_confirmed_at = models.DateTimeField(null=True)


class AlwaysConfirmed(WithoutTable):
    phone_number = models.CharField(max_length=16, null=True, unique=True)
    phone_confirmed_at = models.DateTimeField()


class Shared(WithoutTable):
    phone_number = models.CharField(max_length=16, null=True)
    phone_confirmed_at = models.DateTimeField(null=True)


class UniqueForTenant(WithoutTable):
    tenant = models.IntegerField()
    phone_number = models.CharField(max_length=16, null=True)
    phone_confirmed_at = models.DateTimeField(null=True)

    class Meta:
        managed = False
        constraints = [
            models.UniqueConstraint(fields=["phone_number", "tenant"], name="tenants")
        ]


class UniqueAtCommit(WithoutTable):
    phone_number = models.CharField(max_length=16, null=True)
    phone_confirmed_at = models.DateTimeField(null=True)

    class Meta:
        managed = False
        constraints = [
            models.UniqueConstraint(
                fields=["phone_number"],
                name="at_commit",
                deferrable=models.Deferrable.DEFERRED,
            )
        ]


class NamedByNumber(WithoutTable):
    USERNAME_FIELD = "phone_number"

    phone_number = models.CharField(max_length=16, null=True, unique=True)
    phone_confirmed_at = models.DateTimeField(null=True)


class Device(models.Model):
    """Several belong to one user."""

    id = models.BigAutoField(primary_key=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.DO_NOTHING, related_name="+"
    )
    phone_number = models.CharField(max_length=16, null=True, unique=True)
    phone_confirmed_at = models.DateTimeField(null=True)

    class Meta:
        managed = False
