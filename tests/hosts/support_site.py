"""A second admin site, with the log in a theme's dress and a link from each user."""

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth import get_user_model
from django.contrib.auth.admin import UserAdmin
from django.urls import path

from django_idenfy_phone.admin import PhoneVerificationAdmin
from django_idenfy_phone.admin.users import PhoneVerificationsLink
from django_idenfy_phone.models import PhoneVerification


class ThemeChangeList(ChangeList):
    is_of_theme = True


class ThemeAdmin(admin.ModelAdmin):
    list_per_page = 7
    list_fullwidth = True

    def get_changelist(self, request, **kwargs):
        return ThemeChangeList


class ThemedLog(PhoneVerificationAdmin, ThemeAdmin):
    pass


class LinkedUserAdmin(PhoneVerificationsLink, UserAdmin):
    pass


site = admin.AdminSite(name="support")
site.register(PhoneVerification, ThemedLog)
site.register(get_user_model(), LinkedUserAdmin)
urlpatterns = [path("admin/", admin.site.urls), path("support/", site.urls)]
