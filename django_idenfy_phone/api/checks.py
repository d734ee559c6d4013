"""System checks of the views that a host mounted."""

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Tags, Warning, register
from django.urls import URLPattern, URLResolver, get_resolver

from ..conf import PREFIX, conf

# Not imported here: the views read REST_FRAMEWORK, and so import classes of the host.
VIEWS = "django_idenfy_phone.api.views"


@register(Tags.urls)
def check_authentication(**kwargs: Any) -> Iterator[CheckMessage]:
    if conf.ALLOW_ANONYMOUS is True or not getattr(settings, "ROOT_URLCONF", None):
        return
    names = {_name_without_login(view) for view in _views(get_resolver())}
    for name in sorted(names - {""}):
        yield Warning(
            f"{name} is mounted without an authentication class, and without a login "
            "nobody may call it.",
            hint="Name one in REST_FRAMEWORK['DEFAULT_AUTHENTICATION_CLASSES'], in "
            f"as_view(authentication_classes=[...]), or set {PREFIX}ALLOW_ANONYMOUS.",
            id="django_idenfy_phone.W013",
        )


def _views(resolver: URLResolver) -> Iterator[Any]:
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLPattern):
            yield pattern.callback
        else:
            yield from _views(pattern)


def _name_without_login(view: Any) -> str:
    """The name of a view class of ours that logs nobody in, else ""."""
    cls: Any = getattr(view, "cls", object)
    if VIEWS not in (each.__module__ for each in cls.__mro__):
        return ""
    classes = view.initkwargs.get("authentication_classes", cls.authentication_classes)
    return "" if classes else cls.__name__
