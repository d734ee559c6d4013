"""A newcomer follows README.rst, in a project of their own, to a verified number.

``tox run -e newcomer`` makes a project by ``startproject`` in a new virtual
environment. From the heading "Install" on, each snippet is appended to its file, and
each command is run as it is shown, with the wheel that tox built and on free ports.
Each is a step, and the steps are counted until an answer says that the number is
verified. It needs ``curl``.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "example_project"))

from demo.processes import (  # noqa: E402
    LOOPBACK,
    Failed,
    ProcessGroup,
    Service,
    catch_signals,
    free_port,
)

BLOCK = re.compile(
    r"^\.\. code-block:: (python|console)\n\n((?:    .*\n|\n)+)", re.MULTILINE
)
PASSWORD = "correct-horse"
# They would change what the newcomer's own settings and packages are.
UNWANTED = ("CELERY_", "DATABASE_URL", "DJANGO_", "IDENFY_PHONE_", "PYTHON", "VIRTUAL_")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="idenfy-phone-newcomer-") as name:
        folder = Path(name)
        environment = environment_in(folder)
        with ProcessGroup(folder, environment, catch_signals()) as group:
            newcomer = Newcomer(group)
            newcomer.make_project()
            newcomer.follow(adapted_readme())
    print(f"A verified number after {newcomer.steps} steps.")


def environment_in(folder: Path) -> dict[str, str]:
    """What the newcomer's shell has: the new virtual environment comes first."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(UNWANTED)}
    path = f"{folder / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    typed = {"DJANGO_SUPERUSER_PASSWORD": PASSWORD, "NO_PROXY": LOOPBACK}
    return kept | typed | {"PATH": path}


def adapted_readme() -> str:
    """README from "Install" on, with what depends on this machine and this run."""
    wheel, site, sandbox = os.environ["TOX_PACKAGE"], free_port(), free_port()
    changes = {
        "pip install django-idenfy-phone\n": f"pip install --quiet {wheel}\n",
        "127.0.0.1:8000": f"{LOOPBACK}:{site}",
        "127.0.0.1:8765": f"{LOOPBACK}:{sandbox}",
        "manage.py runserver\n": f"manage.py runserver {site}\n",
        "manage.py idenfy_phone_sandbox ": (
            f"manage.py idenfy_phone_sandbox --port {sandbox} "
        ),
        # What a terminal asks for.
        "createsuperuser ": "createsuperuser --noinput --email ona@example.com ",
        "curl -u ona ": f"curl --silent --fail-with-body -u ona:{PASSWORD} ",
    }
    readme = (ROOT / "README.rst").read_text(encoding="utf-8")
    readme = readme.partition("\nInstall\n=======\n")[2]
    for shown, typed in changes.items():
        if shown not in readme:
            raise Failed(f"README shows no {shown.strip()!r} from Install on.")
        readme = readme.replace(shown, typed)
    return readme


def commands(block: str) -> Iterator[str]:
    """Each command of a console block, without its prompt and its comment."""
    for line in re.sub(r"\\\n *", "", block).splitlines():
        if command := line.strip().removeprefix("$ ").partition("  #")[0].strip():
            yield command


class Newcomer:
    """Does one step after the other. ``answer`` is the newest JSON of the site."""

    def __init__(self, group: ProcessGroup) -> None:
        self.group = group
        self.project = group.folder / "project"
        self.steps = 0
        self.answer: dict[str, Any] = {}
        self.sandbox: Service | None = None

    def make_project(self) -> None:
        self.project.mkdir()
        subprocess.run(
            [sys.executable, "-m", "venv", "../venv"], cwd=self.project, check=True
        )
        self.run("python -m pip install --quiet Django")
        self.run("django-admin startproject project .")

    def follow(self, readme: str) -> None:
        for language, block in BLOCK.findall(readme):
            if language == "python":
                self.append(block)
                continue
            for command in commands(block):
                self.type(command)
            if self.answer.get("is_verified"):
                return
        raise Failed("README ends before a number is verified.")

    def append(self, block: str) -> None:
        """Add a snippet to the file that its first line names."""
        lines = [line[4:] for line in block.splitlines()]
        name = lines[0].removeprefix("# ")
        self.count(f"append to {name}")
        path = self.project / "project" / name
        path.write_text(path.read_text() + "\n".join(["", *lines, ""]))

    def type(self, command: str) -> None:
        if "/ID/" in command:
            command = command.replace("/ID/", f"/{self.answer['id']}/")
            command = command.replace("CODE", self.code(command))
        self.count(command)
        if re.search("runserver|idenfy_phone_sandbox|--loop", command):
            self.start(command)
        elif command.startswith("curl"):
            self.answer = json.loads(self.run(command))
        else:
            self.run(command)

    def count(self, step: str) -> None:
        self.steps += 1
        print(f"{self.steps:2}. {step}", flush=True)

    def run(self, command: str) -> str:
        """Run a command in the shell, and return what it printed."""
        done = subprocess.run(
            command,
            shell=True,
            cwd=self.project,
            env=self.group.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            raise Failed(
                f"{command} ended with status {done.returncode}: {done.stdout}"
            )
        return done.stdout

    def start(self, command: str) -> None:
        """Run a command that keeps running, in a terminal of its own."""
        name = shlex.split(command)[2]
        in_project = f"cd {self.project} && exec {command}"
        service = self.group.start(name, "sh", "-c", in_project)
        if port := re.search(r"\b[0-9]{4,5}\b", command):
            self.group.wait_for_port(service, int(port[0]))
        if name == "idenfy_phone_sandbox":
            self.sandbox = service

    def code(self, confirm: str) -> str:
        """The code of the SMS that the sandbox prints, once the status is "sent"."""
        sandbox, status = self.sandbox, confirm.partition("confirm/")[0]
        assert sandbox is not None
        self.group.wait(sandbox, lambda: '"status":"sent"' in self.run(status))
        sms = sandbox.output.partition("SMS to")[2]
        return re.findall(r"\b[0-9]{4}\b", sms).pop()


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(str(error))
