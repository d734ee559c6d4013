from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from ..conf import conf


class MayVerify(BasePermission):
    """Logged in, unless IDENFY_PHONE_ALLOW_ANONYMOUS."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        return bool(request.user and request.user.is_authenticated) or (
            conf.ALLOW_ANONYMOUS
        )
