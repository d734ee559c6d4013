import re
from typing import Any

from django import forms
from django.conf import settings
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.password_validation import validate_password
from django.utils.translation import gettext_lazy as _

from django_idenfy_phone.forms import VerifiedPhoneField
from django_idenfy_phone.phone import fold

from .countries import number_error, supported_countries, to_international
from .models import User


class NumberForm(forms.Form):
    """A country and a number: ``phone_number`` cleans to E.164 where it can be read."""

    country = forms.ChoiceField(label=_("Country of your number"))
    phone_number = forms.CharField(
        label=_("Mobile phone number"),
        max_length=60,
        widget=forms.TextInput(
            attrs={"type": "tel", "inputmode": "tel", "autocomplete": "tel"}
        ),
        help_text=_("We will send a code to it by SMS."),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        countries = supported_countries()
        country: Any = self.fields["country"]
        country.choices = [(each.region, str(each)) for each in countries]
        country.initial = settings.IDENFY_PHONE_REGIONS[0]
        country.widget.attrs["autocomplete"] = "tel-country-code"
        self.fields["phone_number"].error_messages["required"] = number_error()

    def clean_phone_number(self) -> str:
        region = self.cleaned_data.get("country", "")
        return to_international(self.cleaned_data["phone_number"], region)


class SignUpForm(NumberForm):
    """A visitor with a confirmed number is not asked for a number again."""

    email = forms.EmailField(
        label=_("E-mail address"),
        # It is the user name, too.
        max_length=150,
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
    )
    password = forms.CharField(
        label=_("Password"),
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text=_("At least 8 characters."),
        # Django 5.2 lacks its own text in Lithuanian.
        min_length=8,
        error_messages={"min_length": _("This password is too short.")},
    )
    field_order = ["email", "password", "country", "phone_number"]

    def __init__(
        self, *args: Any, has_password: bool, has_proof: bool, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        if has_password:
            self.fields["password"].required = False
            self.fields["password"].help_text = _("Leave it empty to keep yours.")
        if has_proof:
            del self.fields["country"], self.fields["phone_number"]

    def clean_email(self) -> str:
        email: str = self.cleaned_data["email"].lower()
        if User.objects.filter(username=email).exists():
            raise forms.ValidationError(EMAIL_USED)
        return email

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        if password:
            validate_password(password)
        return password


EMAIL_USED = _("An account with this e-mail address exists already. Please log in.")


class AccountForm(forms.Form):
    """What an account is made of. The server fills it in."""

    email = forms.EmailField()
    password_hash = forms.CharField()
    phone = VerifiedPhoneField(purpose="signup")


class LoginForm(AuthenticationForm):
    error_messages = {
        **AuthenticationForm.error_messages,
        "invalid_login": _("The e-mail address or the password is wrong."),
    }


class PasswordForm(forms.Form):
    password = forms.CharField(
        label=_("Your password"),
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        if not self.user.check_password(password):
            raise forms.ValidationError(_("This password is wrong."))
        return password


def code_in(text: str) -> str:
    """The one group of four digits in a text, such as a whole SMS; else "".

    Digits with spaces between them are one group, where the text holds nothing else.
    """
    text = fold(text)
    groups = set(re.findall("(?<![0-9])[0-9]{4}(?![0-9])", text))
    if len(groups) == 1:
        return groups.pop()
    digits = "".join(text.split())
    return digits if re.fullmatch("[0-9]{4}", digits) else ""
