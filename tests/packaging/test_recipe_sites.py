"""The recipes for allauth, dj-rest-auth and simplejwt, by their flows over HTTP."""

import pytest

from support.manual import ROOT
from support.steps import run_module, write_files

REASON = "tox run -e recipes installs what this needs"
for name in ("allauth", "dj_rest_auth", "rest_framework_simplejwt"):
    pytest.importorskip(name, reason=REASON)


def test_each_recipe_signs_up_with_a_proven_number(tmp_path):
    flow = ROOT / "tests" / "hosts" / "recipe_site" / "flow.py"
    plugins = 'pytest_plugins = ["django_idenfy_phone.pytest_plugin"]\n'
    files = {"conftest.py": plugins, "test_flow.py": flow.read_text(encoding="utf-8")}
    write_files(tmp_path, files)
    result = run_module(
        tmp_path,
        *("pytest", "-q", "-p", "no:cacheprovider"),
        DJANGO_SETTINGS_MODULE="hosts.recipe_site.settings",
    )
    assert result.returncode == 0, result.stdout
    assert "4 passed" in result.stdout
