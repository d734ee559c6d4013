from django.dispatch import receiver

from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.signals import phone_released, phone_verified, send_failed

from .models import Customer, Loss


@receiver(phone_verified)
def greet(
    verification: PhoneVerification, user: Customer | None, **kwargs: object
) -> None:
    if user is not None and verification.verified_at is not None:
        user.first_name = f"Verified in {verification.verified_at.year}"
        user.save(update_fields=["first_name"])


@receiver(phone_released, sender=Customer)
def note_loss(owner: Customer, phone_number: str, **kwargs: object) -> None:
    Loss.objects.create(customer=owner, phone_number=phone_number)


@receiver(send_failed)
def note_failure(
    verification: PhoneVerification, failure: str, **kwargs: object
) -> None:
    assert failure == verification.failure
