from collections.abc import Callable

from django.http import HttpRequest, HttpResponse


def content_security_policy(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """No page of this site needs a script or a style of its own text."""

    def respond(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        policy = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'"
        response.headers.setdefault("Content-Security-Policy", policy)
        return response

    return respond
