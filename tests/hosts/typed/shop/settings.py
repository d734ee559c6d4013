from django.http import HttpRequest

SECRET_KEY = "only-for-tests"
ROOT_URLCONF = "shop.urls"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "shop.Customer"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "rest_framework",
    "django_idenfy_phone",
    "shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]


def solved_captcha(request: HttpRequest, phone_number: str) -> None:
    """A start guard that lets everybody pass."""


def from_cdn(request: HttpRequest) -> str:
    return request.headers.get("CF-Connecting-IP", "")


IDENFY_PHONE_REGIONS = ["LT"]
IDENFY_PHONE_DELIVERY = "sweep"
IDENFY_PHONE_OWNER = "shop.Customer"
IDENFY_PHONE_START_GUARD = solved_captcha
IDENFY_PHONE_CLIENT_NETWORK = from_cdn
