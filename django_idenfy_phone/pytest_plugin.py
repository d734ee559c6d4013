"""The sandbox of ``testing`` as a fixture, for pytest with pytest-django.

In ``conftest.py``: ``pytest_plugins = ["django_idenfy_phone.pytest_plugin"]``.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from . import site
from .testing import Sandbox

if TYPE_CHECKING:
    # Only since pytest-django 4.13.
    from pytest_django import Settings


@pytest.fixture
def idenfy_sandbox(settings: "Settings") -> Iterator[Sandbox]:
    """A stand-in for iDenfy on a free loopback port; the settings point to it."""
    # Not testing.sandbox(): its override_settings and the fixture's, which a test may
    # use before it, must end in reverse order.
    site.forget()
    with Sandbox() as sandbox:
        for name, value in sandbox.settings.items():
            setattr(settings, name, value)
        yield sandbox
