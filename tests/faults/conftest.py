import pytest
from django.conf import settings
from django.db import connection

from support import brokers

SERVERS = {
    "redis": brokers.Redis,
    "redis over TLS": brokers.RedisOverTLS,
    "redis socket": brokers.RedisSocket,
    "sentinel": brokers.Sentinel,
    "amqp": brokers.RabbitMQ,
}


@pytest.fixture(scope="session")
def servers():
    """Start each server when the first test asks for it."""
    running = {}

    def get(kind):
        if kind != "amqp":
            pytest.importorskip("redis", reason="pip install redis to run this")
        if kind not in running:
            try:
                server = SERVERS[kind]()
            except brokers.NotInstalled as error:
                pytest.skip(str(error))
            running[kind] = server
            server.start()
        return running[kind]

    yield get
    for server in running.values():
        server.stop()


@pytest.fixture(params=["redis", "amqp"])
def server(request, servers):
    """An empty broker of our own, Redis and RabbitMQ in turn, or any of SERVERS."""
    found = servers(request.param)
    found.flush()
    return found


@pytest.fixture
def publisher(server, celery_app):
    """The Celery app of this process, publishing to ``server``."""
    celery_app.app.conf.update(server.settings)
    celery_app.use(server.url)
    return celery_app


@pytest.fixture
def project_settings():
    """What a process of the same project needs: database and iDenfy."""
    own = {n: getattr(settings, n) for n in dir(settings) if n.startswith("IDENFY_")}
    return own | {"DATABASES": {"default": connection.settings_dict}}


@pytest.fixture
def own_settings(server, project_settings):
    """What a worker of the same project needs: a broker as well."""
    own = {f"CELERY_{n.upper()}": value for n, value in server.settings.items()}
    return project_settings | own | {"CELERY_BROKER_URL": server.url}
