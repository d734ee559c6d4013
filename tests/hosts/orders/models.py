"""A host's model whose fields name verifications, each with limited choices.

Without migrations, so its table is made before those it names.
"""

from functools import partial

from django.contrib import admin
from django.db import models
from django.db.models import Q

from django_idenfy_phone.models import PhoneVerification

VerificationKey = partial(
    models.ForeignKey,
    PhoneVerification,
    on_delete=models.DO_NOTHING,
    db_constraint=False,
    related_name="+",
)


def confirmed_for_orders():
    return {"status__in": ["sent", "verified"], "purpose": "order"}


class Order(models.Model):
    id = models.BigAutoField(primary_key=True)
    unlimited = VerificationKey()
    verified = VerificationKey(limit_choices_to={"is_verified": True})
    called = VerificationKey(limit_choices_to=confirmed_for_orders)
    by_q = VerificationKey(limit_choices_to=Q(is_verified=True) | Q(purpose="order"))
    of_staff = VerificationKey(limit_choices_to={"user__is_staff": True})
    without_user = VerificationKey(limit_choices_to={"user__isnull": True})
    many = models.ManyToManyField(
        PhoneVerification, db_constraint=False, limit_choices_to={"region": "GB"}
    )


class Receipt(models.Model):
    """What becomes of it when its verification is deleted, in each of three ways."""

    Kept = partial(
        models.ForeignKey,
        PhoneVerification,
        null=True,
        db_constraint=False,
        related_name="+",
    )

    id = models.BigAutoField(primary_key=True)
    protecting = Kept(on_delete=models.PROTECT)
    following = Kept(on_delete=models.CASCADE)
    forgetting = Kept(on_delete=models.SET_NULL)


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    raw_id_fields = [
        "unlimited",
        "verified",
        "called",
        "by_q",
        "of_staff",
        "without_user",
        "many",
    ]
