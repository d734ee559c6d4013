import pytest
from django.conf import settings
from django.db import connection

from support import brokers

SERVERS = {"redis": brokers.Redis, "amqp": brokers.RabbitMQ}


@pytest.fixture(scope="session")
def servers():
    """Start each server when the first test asks for it."""
    running = {}

    def get(scheme):
        if scheme == "redis":
            pytest.importorskip("redis", reason="pip install redis to run this")
        if scheme not in running:
            try:
                server = SERVERS[scheme]()
            except brokers.NotInstalled as error:
                pytest.skip(str(error))
            running[scheme] = server
            server.start()
        return running[scheme]

    yield get
    for server in running.values():
        server.stop()


@pytest.fixture(params=SERVERS)
def server(request, servers):
    """An empty broker of our own, Redis and RabbitMQ in turn."""
    found = servers(request.param)
    found.flush()
    return found


@pytest.fixture
def publisher(server, celery_app):
    """The Celery app of this process, publishing to ``server``."""
    celery_app.use(server.url)
    return celery_app


@pytest.fixture
def own_settings(server):
    """What a process of the same project needs: database, broker and iDenfy."""
    own = {n: getattr(settings, n) for n in dir(settings) if n.startswith("IDENFY_")}
    own["DATABASES"] = {"default": connection.settings_dict}
    own["CELERY_BROKER_URL"] = server.url
    return own
