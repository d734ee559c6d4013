"""A site that signs its users up by allauth, dj-rest-auth and simplejwt."""

SECRET_KEY = "only-for-tests-and-long-enough-for-a-jwt"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "hosts.recipe_site.urls"
USE_TZ = True
AUTH_USER_MODEL = "recipe_site.User"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "allauth",
    "allauth.account",
    "allauth.socialaccount",  # dj_rest_auth.registration imports its models
    "dj_rest_auth",
    "dj_rest_auth.registration",
    "rest_framework",
    "django_idenfy_phone",
    "hosts.recipe_site",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "allauth.account.middleware.AccountMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]

ACCOUNT_FORMS = {"signup": "hosts.recipes.allauth_signup.PhoneSignupForm"}
ACCOUNT_EMAIL_VERIFICATION = "none"
REST_AUTH = {
    "REGISTER_SERIALIZER": "hosts.recipes.dj_rest_auth_signup.PhoneRegisterSerializer",
    "TOKEN_MODEL": None,
    "SESSION_LOGIN": True,
}
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework_simplejwt.authentication.JWTAuthentication"
    ]
}

CELERY_BROKER_URL = "memory://"
IDENFY_PHONE_REGIONS = ["LT"]
IDENFY_PHONE_ALLOW_ANONYMOUS = True
IDENFY_PHONE_OWNER = "recipe_site.User"
IDENFY_PHONE_RESEND_COOLDOWN = (0,)
