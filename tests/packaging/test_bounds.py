"""What we declare as the lowest versions is what tox installs and the manual names."""

import re
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest

from support.manual import MANUAL
from support.steps import run_module, write_files

ROOT = Path(__file__).parents[2]
# The name of an environment that pins versions.
VERSIONS = r"\b(?:lowest|py3\d+-django[\w-]+)"


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
def run_by_ci():
    """The environments of versions that the steps of .ci/run name."""
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    steps = [line for line in lines if line.startswith("step ")]
    return {name for line in steps for name in re.findall(VERSIONS, line.split('"')[2])}


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
    ("prefix", "factor", "option", "pin"),
    [
        (
            "Programming Language :: Python :: 3.",
            r"py3(\d+)",
            "base_python",
            r"\.(\d+)",
        ),
        ("Framework :: Django :: ", r"django(\d)(\d)", "deps", r"Django==([\d.]+)"),
    ],
    ids=["Python", "Django"],
)
def test_classifiers_name_the_versions_that_ci_runs(
    run_by_ci, lowest, project, prefix, factor, option, pin
):
    matches = [re.search(factor, name) for name in run_by_ci if name != "lowest"]
    versions = {".".join(match.groups()) for match in matches}
    versions.add(re.search(pin, lowest[option])[1])
    named = [each for each in project["classifiers"] if each.startswith(prefix)]
    assert {each.removeprefix(prefix) for each in named} == versions


def test_ci_runs_each_environment_of_versions(tox, run_by_ci):
    assert run_by_ci == set(re.findall(VERSIONS, tox["tox"]["env_list"]))


@pytest.mark.parametrize("name", ["pytest-django", "redis"])
def test_manual_names_the_lowest_version(lowest, name):
    [pin] = [each for each in lowest["deps"].split() if each.startswith(f"{name}==")]
    assert f"``{name}`` {pin.partition('==')[2]} or newer" in " ".join(MANUAL.split())


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
