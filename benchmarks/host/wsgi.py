from django.core.wsgi import get_wsgi_application

from .celery import app as celery_app

__all__ = ["application", "celery_app"]

application = get_wsgi_application()
