"""Sign-up with Django forms."""

from typing import Any

from django import forms

from . import services
from .exceptions import NotVerified, UnknownUser
from .models import PhoneVerification


class VerifiedPhoneField(forms.UUIDField):
    """Takes the id of a verification and cleans to the ``PhoneVerification``.

    It only checks: spend the proof with ``services.redeem_verification`` beside the
    save of the user. Set ``user`` on the bound field where the visitor may be logged
    in: ``self.fields["phone"].user = request.user``.
    """

    widget = forms.HiddenInput

    def __init__(self, *, purpose: str = "", user: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.purpose = purpose
        self.user = user

    def clean(self, value: Any) -> PhoneVerification | None:
        pk = super().clean(value)
        if pk is None:
            return None
        try:
            return services.get_proof(pk, user=self.user, purpose=self.purpose)
        except (NotVerified, UnknownUser) as error:
            # No proof can belong to a user who is not in the database.
            raise forms.ValidationError(
                str(NotVerified.message), code=NotVerified.code
            ) from error
