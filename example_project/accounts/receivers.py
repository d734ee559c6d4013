from typing import Any

from django.dispatch import receiver
from django.utils.translation import gettext as _

from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.signals import phone_verified


@receiver(phone_verified)
def send_notice(verification: PhoneVerification, user: Any, **kwargs: Any) -> None:
    """Tell the owner of an account that its number changed.

    At least once: after a crash the owner may get the notice twice.
    """
    if user is None or verification.purpose or verification.number_taken is not False:
        return
    text = _(
        "The phone number of your account is now {number}. If you did not change it, "
        "change your password and tell us."
    )
    text = text.format(number=verification.masked_number)
    user.email_user(_("Your phone number was changed"), text)
