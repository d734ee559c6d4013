"""Fixtures that several files of this folder use."""

from datetime import UTC, datetime

import pytest


@pytest.fixture
def account(settings):
    settings.IDENFY_PHONE_API_KEY = "test-key"
    settings.IDENFY_PHONE_API_SECRET = "test-secret"


@pytest.fixture
def before_summer_time(clock):
    """Within a day, summer time begins in the TIME_ZONE of the host project."""
    clock.now = datetime(2025, 3, 29, 12, 30, tzinfo=UTC)
