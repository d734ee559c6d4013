from django import forms

from django_idenfy_phone.forms import VerifiedPhoneField

from .models import Customer


class ChangeForm(forms.Form):
    phone = VerifiedPhoneField(purpose="change")

    def __init__(self, data: dict[str, str], *, user: Customer) -> None:
        super().__init__(data)
        phone = self.fields["phone"]
        assert isinstance(phone, VerifiedPhoneField)
        phone.user = user
