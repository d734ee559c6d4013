from django.contrib.auth.models import AbstractUser

from django_idenfy_phone.ownership import PhoneOwner


class User(AbstractUser, PhoneOwner):
    pass
