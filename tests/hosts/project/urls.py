from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("phone/", include("django_idenfy_phone.urls")),
]
