"""The password is asked again before the number of an account can change."""

import time

from django.contrib.sessions.backends.base import SessionBase
from rest_framework.authentication import BasicAuthentication
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.views import APIView

from django_idenfy_phone.api.permissions import MayVerify

KEY = "password_confirmed_at"
VALID_SECONDS = 15 * 60


def note_confirmed(session: SessionBase) -> None:
    session[KEY] = time.time()


def is_confirmed(session: SessionBase) -> bool:
    return 0 <= time.time() - session.get(KEY, 0) < VALID_SECONDS


class HasConfirmedPassword(MayVerify):
    def has_permission(self, request: Request, view: APIView) -> bool:
        if not super().has_permission(request, view):
            return False
        # Such a request carries the password itself.
        by_password = isinstance(request.successful_authenticator, BasicAuthentication)
        if not by_password and not is_confirmed(request.session):
            raise PermissionDenied(code="password_needed")
        return True
