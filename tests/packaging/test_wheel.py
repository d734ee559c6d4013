"""The wheel is the same each time it is built, and holds only the package."""

import os
import shutil
import zipfile
from pathlib import Path

import pytest

from support.steps import run_module

ROOT = Path(__file__).parents[2]
PACKAGE = "django_idenfy_phone"
SOURCES = ["pyproject.toml", "setup.cfg", "README.rst", "LICENSE"]


def build(folder, built_at):
    """Build the wheel in a copy of the tree, whose files are as old as ``built_at``."""
    shutil.copytree(
        ROOT / PACKAGE,
        folder / PACKAGE,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for name in SOURCES:
        shutil.copy(ROOT / name, folder)
    for path in folder.rglob("*"):
        os.utime(path, (built_at, built_at))
    result = run_module(
        folder,
        *("build", "--wheel", "--no-isolation", "--outdir", "dist"),
        SOURCE_DATE_EPOCH="1700000000",
    )
    assert result.returncode == 0, result.stdout + result.stderr
    [wheel] = (folder / "dist").iterdir()
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build(tmp_path_factory.mktemp("first"), 1_750_000_000)


def test_wheel_built_twice_has_the_same_bytes(wheel, tmp_path):
    again = build(tmp_path, 1_760_000_000)
    assert again.read_bytes() == wheel.read_bytes()


def test_wheel_holds_the_package_and_nothing_else(wheel):
    paths = (ROOT / PACKAGE).rglob("*")
    package = {path for path in paths if path.is_file() and path.suffix != ".pyc"}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == {str(path.relative_to(ROOT)) for path in package}
    others = {name.rpartition(".")[2] for name in held} - {"py"}
    assert others == {"typed", "html", "css", "po", "mo"}


def test_wheel_holds_types_migrations_templates_and_catalogues(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert f"{PACKAGE}/py.typed" in names
    assert f"{PACKAGE}/migrations/0001_create_phone_verification.py" in names
    assert f"{PACKAGE}/sandbox/inbox.html" in names
    assert f"{PACKAGE}/locale/de/LC_MESSAGES/django.mo" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_package_index_can_show_the_description(wheel):
    result = run_module(wheel.parent, "twine", "check", "--strict", str(wheel))
    assert result.returncode == 0, result.stdout
