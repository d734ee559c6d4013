"""Sign-up with Django forms."""

from typing import Any

from django import forms

from . import services
from .edge import hide_values
from .exceptions import NotVerified, UnknownUser
from .models import PhoneVerification
from .starting import Caller


class VerifiedPhoneField(forms.Field):
    """Takes a redeem token; its cleaned value is the ``PhoneVerification``.

    A logged-in user may give the id of their own verification instead. The field only
    checks: spend the proof with ``services.redeem_verification`` where you save the
    user.
    Set ``user`` on the bound field where the visitor may be logged in:
    ``self.fields["phone"].user = request.user``.
    """

    widget = forms.HiddenInput

    def __init__(
        self, *, purpose: str = "", user: Caller | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.purpose = purpose
        self.user = user

    @hide_values
    def clean(self, value: Any) -> PhoneVerification | None:
        value = super().clean(value)
        if value in self.empty_values:
            return None
        try:
            return services.get_proof(value, user=self.user, purpose=self.purpose)
        except (NotVerified, UnknownUser) as error:
            # No proof can belong to a user who is not in the database.
            raise forms.ValidationError(
                str(NotVerified.message), code=NotVerified.code
            ) from error
