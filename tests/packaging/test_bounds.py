"""What we declare as the lowest versions is what tox installs and README names."""

import re
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest

from support.steps import run_module, write_files

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tox():
    parser = ConfigParser(interpolation=None)
    parser.read(ROOT / "tox.ini", encoding="utf-8")
    return parser


@pytest.fixture
def lowest(tox):
    """The environment of tox with the lowest versions."""
    return tox["testenv:lowest"]


@pytest.fixture
def project():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["project"]


def test_lowest_environment_has_the_lower_bound_of_each_dependency(lowest, project):
    declared = project["dependencies"] + project["optional-dependencies"]["openapi"]
    bounds = {each.replace(">=", "==") for each in declared}
    assert bounds <= set(lowest["deps"].split())


def test_lowest_environment_has_the_lowest_python(lowest, project):
    version = project["requires-python"].removeprefix(">=")
    assert lowest["base_python"] == f"python{version}"


@pytest.mark.parametrize(
    ("prefix", "factor"),
    [
        ("Programming Language :: Python :: 3.", r"py3(\d+)"),
        ("Framework :: Django :: ", r"django(\d)(\d)"),
    ],
)
def test_classifiers_name_the_versions_that_tox_runs(tox, project, prefix, factor):
    # Such as py{312,313}-django{60,61}: each factor is written out.
    names = re.sub(
        r"(py|django)\{([\d,]+)\}",
        lambda match: " ".join(match[1] + each for each in match[2].split(",")),
        tox["tox"]["env_list"],
    )
    versions = {".".join(match.groups()) for match in re.finditer(factor, names)}
    named = [each for each in project["classifiers"] if each.startswith(prefix)]
    assert {each.removeprefix(prefix) for each in named} == versions


@pytest.mark.parametrize("name", ["pytest-django", "redis"])
def test_readme_names_the_lowest_version(lowest, name):
    [pin] = [each for each in lowest["deps"].split() if each.startswith(f"{name}==")]
    words = " ".join((ROOT / "README.rst").read_text(encoding="utf-8").split())
    assert f"``{name}`` {pin.partition('==')[2]} or newer" in words


# A project without pytest-django uses what does not need it.
FILES = {
    "conftest.py": """
import sys
import django
django.setup()
sys.modules["pytest_django"] = None
pytest_plugins = ["django_idenfy_phone.pytest_plugin"]
""",
    "test_sandbox.py": """
from django.conf import settings
from django_idenfy_phone import testing

def test_sandbox_runs():
    with testing.sandbox() as sandbox:
        assert settings.IDENFY_PHONE_API_URL == sandbox.url
""",
}


def test_testing_needs_no_pytest_django(tmp_path):
    write_files(tmp_path, FILES)
    command = ("pytest", "-q", "-p", "no:django", "-p", "no:cacheprovider")
    result = run_module(
        tmp_path, *command, DJANGO_SETTINGS_MODULE="hosts.project.settings"
    )
    assert "1 passed" in result.stdout, result.stdout
