from django.contrib.auth.models import AbstractUser

from django_idenfy_phone.ownership import PhoneOwner


class User(AbstractUser, PhoneOwner):
    """Keeps the confirmed number, because old verifications are purged.

    Its user name is its e-mail address.
    """
