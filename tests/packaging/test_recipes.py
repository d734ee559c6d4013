"""The code that the manual includes from tests/hosts/recipes does what it says."""

import re

import pytest

from hosts.recipes.existing import survey
from support.manual import MANUAL, ROOT


def test_every_recipe_is_in_the_manual():
    shown = set(re.findall(r"literalinclude:: \.\./(\S+)", MANUAL))
    files = (ROOT / "tests" / "hosts" / "recipes").rglob("*.py")
    written = {str(path.relative_to(ROOT)) for path in files if path.stat().st_size}
    assert shown == written


def test_survey_finds_shared_numbers_and_what_is_none():
    rows = [
        (1, "+370 600 12345"),
        (2, "8 600 12345"),
        (3, "+447911123456"),
        (4, "none"),
        (5, "+370123"),
        (6, ""),
        (7, None),
    ]
    assert survey(rows, region="LT") == {
        "+37060012345": [1, 2],
        "+447911123456": [3],
        None: [4, 5],
    }


@pytest.mark.django_db
def test_prometheus_reads_how_sending_goes(rf, make, wire):
    from hosts.recipes.metrics import metrics

    make("queued")
    lines = metrics(rf.get("/metrics")).text.splitlines()
    assert "phone_queued 1.0" in lines
    assert 'phone_last_hour{outcome="queued"} 1.0' in lines
    assert 'phone_trouble{trouble="key"} 0.0' in lines
    assert 'phone_pause_seconds{pause="account"} 0.0' in lines
