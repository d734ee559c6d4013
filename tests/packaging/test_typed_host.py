"""The host that ``tox run -e lint`` checks with mypy also runs."""

from pathlib import Path

from support.steps import run_module

HOST = Path(__file__).parents[1] / "hosts" / "typed"


def test_typed_host_passes_its_own_tests():
    result = run_module(HOST, "django", "test", "--settings", "shop.settings")
    assert result.returncode == 0, result.stderr
    assert "Ran 6 tests" in result.stderr
