"""Links between the pages of one admin site, for those who may see them."""

from typing import Any
from urllib.parse import urlencode

from django.contrib.admin import AdminSite
from django.db.models import Model
from django.http import HttpRequest
from django.urls import reverse


def may_view(site: AdminSite, model: type[Model], request: HttpRequest) -> bool:
    """Whether this site shows the model to whoever asks."""
    # AdminSite.get_model_admin came with Django 5.0.
    return site.is_registered(model) and site.get_model_admin(
        model
    ).has_view_permission(request)


def object_url(
    site: AdminSite, model: type[Model], pk: Any, page: str = "change"
) -> str:
    options = model._meta
    name = f"{site.name}:{options.app_label}_{options.model_name}_{page}"
    return reverse(name, args=[pk])


def list_url(site: AdminSite, model: type[Model], **query: Any) -> str:
    options = model._meta
    name = f"{site.name}:{options.app_label}_{options.model_name}_changelist"
    return f"{reverse(name)}?{urlencode(query)}"
