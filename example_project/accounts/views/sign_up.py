"""Sign-up: e-mail address, password and number, then the code, then the account.

All of it waits in the session, on the server, until the code is right.
"""

from typing import Any

from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.hashers import make_password
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _

from django_idenfy_phone import services
from django_idenfy_phone.exceptions import VerificationError
from django_idenfy_phone.models import PhoneVerification
from django_idenfy_phone.ownership import keep_number

from .. import texts
from ..forms import EMAIL_USED, AccountForm, SignUpForm
from ..models import User
from ..visits import name_of
from .answers import go_to, send_back, show_form
from .steps import CodeStep, ResendStep, StartStep, StatusStep, Step

PURPOSE = "signup"


class SignUpStep(Step):
    purpose = PURPOSE
    number_page = "sign-up"
    code_page = "sign-up-code"
    resend_view = "sign-up-resend"
    no_code = "lost_session"

    def dispatch(self, request: HttpRequest, *args: Any, **kw: Any) -> HttpResponseBase:
        if request.user.is_authenticated:
            return go_to(request, "profile")
        return super().dispatch(request, *args, **kw)

    def create_account(self, proof: PhoneVerification) -> HttpResponseBase:
        """Save the user, spend the proof and keep the number: all three or nothing."""
        data = self.visit.data
        form = AccountForm(
            {
                "email": data.get("email"),
                "password_hash": data.get("password"),
                # Made and read on the server: it is never in the page.
                "phone": services.redeem_token(proof),
            }
        )
        if not form.is_valid():
            return send_back(self.request, "sign-up", "phone_not_verified")
        try:
            user = save_account(**form.cleaned_data)
        except IntegrityError:
            messages.error(self.request, str(EMAIL_USED))
            return go_to(self.request, "sign-up")
        except VerificationError as error:
            self.visit.change(ids=[pk for pk in self.visit.ids if pk != str(proof.pk)])
            return send_back(self.request, "sign-up", error.code)
        del self.request.session[self.visit.key]
        login(self.request, user)
        messages.success(self.request, _("Your account is ready."))
        return go_to(self.request, "profile")


@transaction.atomic
def save_account(email: str, password_hash: str, phone: PhoneVerification) -> User:
    user = User.objects.create(username=email, email=email, password=password_hash)
    services.redeem_verification(phone, user=user, purpose=PURPOSE)
    keep_number(user, phone)
    return user


class SignUpView(SignUpStep, StartStep):
    def get(self, request: HttpRequest) -> HttpResponseBase:
        # From now on there is a session, which two quick requests share.
        self.visit.change()
        kept = {name: self.visit.data.get(name) for name in ("email", "country")}
        initial = {name: value for name, value in kept.items() if value}
        return self.show(self.form(initial=initial))

    def post(self, request: HttpRequest) -> HttpResponseBase:
        if "phone_number" not in request.POST and not self.visit.proof():
            # The page showed a confirmed number instead of the field.
            return send_back(request, "sign-up", "phone_not_verified")
        form = self.form(request.POST)
        if not form.is_valid():
            return self.show(form)
        self.keep(form.cleaned_data)
        if proof := self.visit.proof():
            return self.create_account(proof)
        return self.start(form)

    def form(self, *args: Any, **kwargs: Any) -> SignUpForm:
        has_password = bool(self.visit.data.get("password"))
        has_proof = self.visit.proof() is not None
        return SignUpForm(
            *args, **kwargs, has_password=has_password, has_proof=has_proof
        )

    def keep(self, cleaned: dict[str, Any]) -> None:
        kept = {"email": cleaned["email"], "country": cleaned.get("country")}
        if cleaned["password"]:
            kept["password"] = make_password(cleaned["password"])
        self.visit.change(**kept)

    def show(self, form: SignUpForm) -> HttpResponseBase:
        context = {
            "live": self.visit.live(),
            "proof": self.visit.proof(),
            "code_page": self.code_page,
            "texts": texts.for_script(),
        }
        return show_form(self.request, "accounts/sign_up.html", form, context)


class SignUpCodeView(SignUpStep, CodeStep):
    def urls(self, row: PhoneVerification) -> dict[str, str]:
        return {
            "status_url": f"{reverse('sign-up-status')}?shown={name_of(row)}",
            "confirm_url": reverse("sign-up-code"),
        }

    def finish(self, row: PhoneVerification) -> HttpResponseBase:
        return self.create_account(row)

    def go_on(self) -> HttpResponseBase:
        return redirect("sign-up")


class SignUpResendView(SignUpStep, ResendStep):
    pass


class SignUpStatusView(SignUpStep, StatusStep):
    pass
