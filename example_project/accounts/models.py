from django.contrib.auth.models import AbstractUser
from django.db import models
from django.utils.translation import gettext_lazy as _
from phonenumber_field.modelfields import PhoneNumberField


class User(AbstractUser):
    """Stores the confirmed number, because old verifications are purged."""

    phone_number = PhoneNumberField(
        _("confirmed phone number"), blank=True, editable=False
    )
    phone_confirmed_at = models.DateTimeField(
        _("phone confirmed at"), null=True, editable=False
    )
