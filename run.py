"""Run the demo or the tests: `python3 run.py demo [--once]`, `python3 run.py test`.

Everything is installed into .venv and .tox beside this file, nothing elsewhere. This
file uses only the standard library and Python 3.6 syntax, so that an old Python can
run it and find a newer one.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

OLDEST = (3, 11)
NAMES = ["python3.14", "python3.13", "python3.12", "python3.11", "python3"]
ENVIRONMENTS = {"demo": "demo", "test": "py"}
USAGE = """\
Usage: python3 run.py demo [--once]
       python3 run.py test [pytest options]"""

HERE = Path(__file__).resolve().parent
VENV = str(HERE / ".venv")
PYTHON = str(HERE / ".venv" / "bin" / "python")
IS_NEW_ENOUGH = f"import sys; sys.exit(sys.version_info < {OLDEST})"
# pip writes its RECORD last, so an interrupted install has none.
HAS_PIP = "from importlib import metadata as m; exit(not m.files('pip'))"
# Like `python -m tox`, but Ctrl-C shows no traceback while tox is loading.
TOX = """
import sys
try:
    from tox.run import run
    run()
except KeyboardInterrupt:
    sys.exit(130)
"""


def main() -> None:
    if sys.argv[1:2] not in [[name] for name in ENVIRONMENTS]:
        print(USAGE, file=sys.stderr)
        sys.exit(2)
    if sys.version_info < OLDEST:
        rerun_with(newer_python())
    if not (
        succeeds(PYTHON, "-c", IS_NEW_ENOUGH)
        and succeeds(PYTHON, "-m", "tox", "--version")
    ):
        provide_tox()
    environment = ENVIRONMENTS[sys.argv[1]]
    if not (HERE / ".tox" / environment).exists():
        print_line(f"Installing the {sys.argv[1]} environment into .tox.")
    # tox replaces this process, so it receives Ctrl-C and sets the exit status.
    os.chdir(str(HERE))
    arguments = ["run", "-qq", "-e", environment, "--", *sys.argv[2:]]
    os.execv(PYTHON, [PYTHON, "-c", TOX, *arguments])


def newer_python() -> str:
    for name in NAMES:
        for folder in os.get_exec_path():
            python = shutil.which(name, path=folder)
            # A version manager may put a name on the PATH that does not run.
            if python and succeeds(python, "-c", IS_NEW_ENOUGH):
                return python
    sys.exit("Python 3.11 or newer is needed, but none is on the PATH.")


def rerun_with(python: str) -> None:
    version = ".".join(map(str, sys.version_info[:2]))
    print_line(f"Python {version} is too old: continuing with {python}.")
    os.execv(python, [python, *sys.argv])


def provide_tox() -> None:
    """Install tox into the existing .venv, or else into a new one."""
    if install_tox():
        return
    print_line("Creating .venv.")
    for command in (
        [sys.executable, "-m", "venv"],
        # Debian's Python lacks ensurepip: then a pip outside .venv must install tox.
        [sys.executable, "-m", "venv", "--without-pip"],
        ["uv", "venv", "--python", sys.executable],
        ["virtualenv", "--python", sys.executable],
    ):
        shutil.rmtree(VENV, ignore_errors=True)
        if succeeds(*command, VENV) and install_tox():
            return
    package = f"python3.{sys.version_info[1]}-venv"
    sys.exit(f"This Python cannot create .venv. Run: sudo apt install {package}")


def install_tox() -> bool:
    """Install tox. Return False if .venv is broken or no installer works."""
    if not succeeds(PYTHON, "-c", IS_NEW_ENOUGH):
        return False
    for installer in installers():
        if succeeds(*installer, "--help"):
            print_line("Installing tox into .venv.")
            if subprocess.call([*installer, "--quiet", "tox>=4.23"]) != 0:
                sys.exit("tox could not be installed: see above.")
            return True
    return False


def installers() -> "Iterator[list[str]]":
    if succeeds(PYTHON, "-c", HAS_PIP):
        yield [PYTHON, "-m", "pip", "install", "--disable-pip-version-check"]
    for pip in ([sys.executable, "-m", "pip"], ["pip3"], ["pip"]):
        yield [*pip, "--python", PYTHON, "install", "--disable-pip-version-check"]
    yield ["uv", "pip", "install", "--python", PYTHON]


def succeeds(*command: str) -> bool:
    """Return whether a command runs and succeeds. Its output is discarded."""
    silence = subprocess.DEVNULL
    try:
        return subprocess.call(command, stdout=silence, stderr=silence) == 0
    except OSError:
        return False


def print_line(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
