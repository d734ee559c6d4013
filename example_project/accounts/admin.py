from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.utils.translation import gettext_lazy as _

from .models import User


@admin.register(User)
class ExampleUserAdmin(UserAdmin):  # type: ignore[type-arg]
    phone_fields = ("phone_number", "phone_confirmed_at")
    list_display = ("username", "email", "is_staff", *phone_fields)
    fieldsets = (*(UserAdmin.fieldsets or ()), (_("Phone"), {"fields": phone_fields}))
    readonly_fields = phone_fields
