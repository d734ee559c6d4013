from datetime import datetime
from typing import assert_type

from django.contrib.auth.models import AbstractUser
from django.db import models

from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.ownership import PhoneOwner, keep_number, release_number
from django_idenfy_phone.phone import PhoneNumber


class Customer(AbstractUser, PhoneOwner):
    """The owner of a number."""


class Loss(models.Model):
    """A number that an account lost."""

    customer = models.ForeignKey(Customer, models.CASCADE)
    phone_number = models.CharField(max_length=16)


def keep(customer: Customer, verification: PhoneVerification) -> bool:
    return assert_type(keep_number(customer, verification), bool)


def release(customer: Customer) -> None:
    release_number(customer)


def number_of(customer: Customer) -> str:
    assert_type(customer.phone_confirmed_at, datetime | None)
    number = assert_type(customer.phone_number, PhoneNumber | None)
    return number.as_e164 if number else ""
