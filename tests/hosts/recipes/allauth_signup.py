"""allauth's sign-up with a proven number."""

from allauth.account.forms import SignupForm
from allauth.account.views import SignupView
from django.db import transaction

from django_idenfy_phone import services
from django_idenfy_phone.exceptions import VerificationError
from django_idenfy_phone.forms import VerifiedPhoneField
from django_idenfy_phone.ownership import keep_number


class PhoneSignupForm(SignupForm):
    phone = VerifiedPhoneField(purpose="signup")

    @transaction.atomic
    def save(self, request):
        user = super().save(request)
        proof = self.cleaned_data["phone"]
        services.redeem_verification(proof, user=user, purpose="signup")
        keep_number(user, proof)
        return user


class PhoneSignupView(SignupView):
    def form_valid(self, form):
        try:
            return super().form_valid(form)
        except VerificationError as error:
            form.add_error("phone", str(error))
            return self.form_invalid(form)
