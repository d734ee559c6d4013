from typing import Any

from django.db.models import Q
from django.dispatch import receiver

from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.signals import phone_verified

from .models import User


@receiver(phone_verified)
def keep_number(
    verification: PhoneVerification, user: User | None, **kwargs: Any
) -> None:
    """Store the number unless a later confirmation has stored one.

    The signal may be sent twice, or late.
    """
    if user is None:
        return
    verified_at = verification.verified_at
    is_newer = Q(phone_confirmed_at=None) | Q(phone_confirmed_at__lt=verified_at)
    User.objects.filter(is_newer, pk=user.pk).update(
        phone_number=verification.phone_number, phone_confirmed_at=verified_at
    )
