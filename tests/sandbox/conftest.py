"""The sandbox on a free port, and a function that sends it requests."""

from collections.abc import Iterator

import pytest
import requests

from django_idenfy_phone.sandbox.server import SandboxServer
from sandbox.steps import START, Call
from support.clock import Clock


@pytest.fixture
def server(clock: Clock) -> Iterator[SandboxServer]:
    clock.now = START
    with SandboxServer("key", "secret", now=clock) as server:
        yield server


@pytest.fixture
def call(server: SandboxServer) -> Iterator[Call]:
    """A function that sends one JSON request with the right key.

    It follows no redirect. Its keywords are those of ``requests``.
    """
    with requests.Session() as session:
        session.trust_env = False
        session.auth = ("key", "secret")
        session.max_redirects = 3

        def call(
            path: str, body: object = None, **options: object
        ) -> requests.Response:
            options = {"timeout": 5, "allow_redirects": False, "json": body, **options}
            method = str(options.pop("method", "POST"))
            return session.request(method, server.url + path, **options)  # type: ignore[arg-type]

        yield call
