"""Try the project, or test it: `python3 run.py demo [--once]`, `python3 run.py test`.

Everything is installed into .venv and .tox beside this file, nothing elsewhere. Only
the standard library, and syntax that Python 3.6 can read, so that an older Python
can look for a newer one.
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
IS_WHOLE = "from importlib import metadata as m; exit(not m.files('pip'))"
# As `python -m tox`, but with no traceback for Ctrl-C while it is still being loaded.
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
        run_again_with(newer_python())
    if not (
        runs(PYTHON, "-c", IS_NEW_ENOUGH) and runs(PYTHON, "-m", "tox", "--version")
    ):
        prepare()
    environment = ENVIRONMENTS[sys.argv[1]]
    if not (HERE / ".tox" / environment).exists():
        say(f"Installing what the {sys.argv[1]} needs into .tox.")
    # Tox takes over this process, and with it Ctrl-C and the exit status.
    os.chdir(str(HERE))
    arguments = ["run", "-qq", "-e", environment, "--", *sys.argv[2:]]
    os.execv(PYTHON, [PYTHON, "-c", TOX, *arguments])


def newer_python() -> str:
    for name in NAMES:
        for folder in os.get_exec_path():
            python = shutil.which(name, path=folder)
            # A version manager may leave a name on the PATH that does not run.
            if python and runs(python, "-c", IS_NEW_ENOUGH):
                return python
    sys.exit("Python 3.11 or newer is needed, and there is none on the PATH.")


def run_again_with(python: str) -> None:
    version = ".".join(map(str, sys.version_info[:2]))
    say(f"Python {version} is too old: going on with {python}.")
    os.execv(python, [python, *sys.argv])


def prepare() -> None:
    """Install tox into the .venv that is there, else into a new one."""
    if install_tox():
        return
    say("Making .venv.")
    for command in (
        [sys.executable, "-m", "venv"],
        # Debian leaves ensurepip out: then a pip from outside must install.
        [sys.executable, "-m", "venv", "--without-pip"],
        ["uv", "venv", "--python", sys.executable],
        ["virtualenv", "--python", sys.executable],
    ):
        shutil.rmtree(VENV, ignore_errors=True)
        if runs(*command, VENV) and install_tox():
            return
    package = f"python3.{sys.version_info[1]}-venv"
    sys.exit(f"This Python cannot make .venv. Type: sudo apt install {package}")


def install_tox() -> bool:
    """Whether .venv is sound, and there was a way to install into it."""
    if not runs(PYTHON, "-c", IS_NEW_ENOUGH):
        return False
    for installer in installers():
        if runs(*installer, "--help"):
            say("Installing tox into .venv.")
            if subprocess.call([*installer, "--quiet", "tox>=4.23"]) != 0:
                sys.exit("tox could not be installed: see above.")
            return True
    return False


def installers() -> "Iterator[list[str]]":
    if runs(PYTHON, "-c", IS_WHOLE):
        yield [PYTHON, "-m", "pip", "install", "--disable-pip-version-check"]
    for pip in ([sys.executable, "-m", "pip"], ["pip3"], ["pip"]):
        yield [*pip, "--python", PYTHON, "install", "--disable-pip-version-check"]
    yield ["uv", "pip", "install", "--python", PYTHON]


def runs(*command: str) -> bool:
    """Whether a command can be run and ends well. It prints nothing."""
    silence = subprocess.DEVNULL
    try:
        return subprocess.call(command, stdout=silence, stderr=silence) == 0
    except OSError:
        return False


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
