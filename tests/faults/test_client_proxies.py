"""A proxy of the environment carries requests, but never those to loopback."""

import pytest

from django_idenfy_phone.client import IdenfyClient
from django_idenfy_phone.exceptions import IdenfyError, NeverSent
from support import wire as w
from support.constants import NUMBER

VARIABLES = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"]


def send():
    return IdenfyClient().send_sms(NUMBER)


@pytest.fixture
def proxy(wire, monkeypatch):
    """A proxy of the environment that refuses every request."""
    for name in [*VARIABLES, "NO_PROXY"]:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with w.Wire() as server:
        server.will(w.answer(502))
        for name in VARIABLES:
            monkeypatch.setenv(name, server.url)
        yield server


LOOPBACK = [
    "127.0.0.1",
    "127.8.8.8",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "idenfy.localhost",
    "[::1]",
    "[::ffff:127.0.0.1]",
]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_never_goes_through_a_proxy(proxy, settings, scheme, host):
    settings.IDENFY_PHONE_API_URL = f"{scheme}://{host}:1"
    with pytest.raises(NeverSent):
        send()
    assert proxy.connections == 0


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY", "https_proxy"])
def test_another_host_goes_through_each_proxy_variable(
    proxy, settings, monkeypatch, variable
):
    for name in VARIABLES:
        monkeypatch.delenv(name)
    monkeypatch.setenv(variable, proxy.url)
    settings.IDENFY_PHONE_API_URL = "https://idenfy.invalid"
    with pytest.raises(IdenfyError):
        send()
    assert proxy.requests[0].path == "idenfy.invalid:443"


@pytest.mark.parametrize("hosts", ["idenfy.invalid", "x.test,.invalid", "*"])
def test_no_proxy_of_the_environment_is_honoured(proxy, settings, monkeypatch, hosts):
    monkeypatch.setenv("NO_PROXY", hosts)
    settings.IDENFY_PHONE_API_URL = "https://idenfy.invalid"
    with pytest.raises(NeverSent):
        send()
    assert proxy.connections == 0
