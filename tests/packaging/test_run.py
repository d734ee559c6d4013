"""run.py finds a usable Python, installs tox and runs it."""

import ast
import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "run.py"
FAKE_TOX = "import sys; print(*sys.argv[1:]); sys.exit(7 * ('fail' in sys.argv))"
FAKE_PYTHON = f"""#!/bin/sh
case "$*" in *--version|*version_info*) exit 0;; esac
shift 2
exec "{sys.executable}" -c "{FAKE_TOX}" "$@"
"""
OLD = [f"python3.{minor}" for minor in (10, 9, 8, 7, 6)]
IS_OLD = (
    "import sys; assert (3, 6) <= sys.version_info < (3, 11); print(sys.executable)"
)


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def tree(tmp_path):
    """Return a folder that holds only run.py."""
    shutil.copy(RUN, tmp_path)
    return tmp_path


@pytest.fixture
def venv_tree(tree):
    """Return the tree with a .venv whose tox only prints its arguments."""
    executable(tree / ".venv" / "bin" / "python", FAKE_PYTHON)
    return tree


def run(tree, *arguments, python=sys.executable, **variables):
    return subprocess.run(
        [python, tree / "run.py", *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def last_line(process):
    return process.stdout.splitlines()[-1]


def test_python_3_6_can_parse_run_py():
    ast.parse(RUN.read_text(), feature_version=(3, 6))


@pytest.mark.parametrize(
    ("arguments", "tox_arguments"),
    [
        (["test"], "run -qq -e py --"),
        (["test", "-k", "one"], "run -qq -e py -- -k one"),
        (["demo", "--once"], "run -qq -e demo -- --once"),
    ],
)
def test_command_runs_its_tox_environment(venv_tree, arguments, tox_arguments):
    assert last_line(run(venv_tree, *arguments)) == tox_arguments


def test_exit_status_is_that_of_tox(venv_tree):
    assert run(venv_tree, "test").returncode == 0
    assert run(venv_tree, "test", "fail").returncode == 7


@pytest.mark.parametrize("arguments", [[], ["tests"], ["--once"]])
def test_unknown_command_prints_usage(tree, arguments):
    process = run(tree, *arguments)
    assert process.returncode == 2
    assert process.stderr.startswith("Usage: python3 run.py demo")


@pytest.fixture
def pythons(tmp_path, monkeypatch):
    """Set a PATH on which python3.14 does not run and python3 is this Python."""
    executable(tmp_path / "first" / "python3.14", "#!/bin/sh\nexit 127\n")
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "python3").symlink_to(sys.executable)
    path = os.pathsep.join([str(tmp_path / "first"), str(tmp_path / "second")])
    monkeypatch.setenv("PATH", path)
    return path


def test_newer_python_skips_one_that_does_not_run(pythons, tmp_path):
    found = runpy.run_path(str(RUN))["newer_python"]()
    assert found == str(tmp_path / "second" / "python3")


@pytest.fixture(scope="module")
def old_python():
    for name in OLD:
        command = [name, "-c", IS_OLD]
        if shutil.which(name):
            process = subprocess.run(
                command, capture_output=True, text=True, check=False
            )
            if process.returncode == 0:
                return process.stdout.strip()
    return pytest.skip("put a Python from 3.6 to 3.10 on the PATH to run this")


def test_old_python_continues_with_newer_one(old_python, venv_tree, pythons):
    process = run(venv_tree, "test", python=old_python)
    assert "is too old: continuing with" in process.stdout
    assert last_line(process) == "run -qq -e py --"


def test_old_python_without_newer_one_prints_error(old_python, venv_tree, tmp_path):
    process = run(venv_tree, "test", python=old_python, PATH=str(tmp_path))
    assert process.stderr.startswith("Python 3.11 or newer is needed")
    assert (process.stderr.count("\n"), process.returncode) == (1, 1)


@pytest.fixture
def index(tmp_path):
    """Return variables with which pip finds only a tox that prints its arguments."""
    files = {
        "tox/__main__.py": "",
        "tox/run.py": f"def run():\n    {FAKE_TOX}\n",
        "tox-99.dist-info/METADATA": "Metadata-Version: 2.1\nName: tox\nVersion: 99\n",
        "tox-99.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
        "tox-99.dist-info/RECORD": "",
    }
    with zipfile.ZipFile(tmp_path / "tox-99-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}


def test_incomplete_venv_is_created_again(tree, index):
    (tree / ".venv" / "bin").mkdir(parents=True)
    process = run(tree, "test", **index)
    assert "Creating .venv.\nInstalling tox into .venv.\n" in process.stdout
    assert last_line(process) == "run -qq -e py --"


@pytest.fixture
def no_pip_tree(tree):
    """Return the tree with a .venv that has no pip."""
    venv = tree / ".venv"
    subprocess.check_call([sys.executable, "-m", "venv", "--without-pip", venv])
    return tree


def test_tox_is_installed_into_venv_without_pip(no_pip_tree, index):
    assert last_line(run(no_pip_tree, "test", **index)) == "run -qq -e py --"


def test_failed_tox_install_prints_error(no_pip_tree, index):
    empty_index = index | {"PIP_FIND_LINKS": str(no_pip_tree / ".venv")}
    process = run(no_pip_tree, "test", **empty_index)
    assert process.stderr.endswith("tox could not be installed: see above.\n")
    assert process.returncode == 1
