from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from ..conf import conf


class MayVerify(BasePermission):
    """Logged in, unless IDENFY_PHONE_ALLOW_ANONYMOUS."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        is_logged_in = request.user and request.user.is_authenticated
        return bool(is_logged_in or conf.ALLOW_ANONYMOUS)
