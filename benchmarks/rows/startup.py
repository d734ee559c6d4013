"""CPU time of import and ``django.setup()``, added by the app over its dependencies."""

import json
import subprocess
import sys
from collections.abc import Iterator
from statistics import median

from ..support.bench import Bench
from ..support.figures import Figure, by_time

# Prints the CPU seconds, and what was imported.
CODE = """
import sys, time
from importlib import import_module
began = time.process_time()
import django
django.setup()
for name in sys.argv[1].split(","):
    try:
        import_module(name)
    except ImportError:
        pass
seconds = time.process_time() - began
import json
print(json.dumps([seconds, list(sys.modules)]))
"""
APP = "django_idenfy_phone"
OTHERS = ["django.contrib.auth", "django.contrib.contenttypes", "rest_framework"]
SECONDS = 0.03


def measure(bench: Bench) -> Iterator[Figure]:
    _, modules = start(bench, [*OTHERS, APP], [f"{APP}.urls"])
    dependencies = [each for each in modules if not each.startswith((APP, "__"))]
    start(bench, OTHERS, dependencies)
    with_app, without = [], []
    for _ in range(bench.pick(25, 3)):
        with_app.append(start(bench, [*OTHERS, APP], [f"{APP}.urls"])[0])
        without.append(start(bench, OTHERS, dependencies)[0])
    added = median(with_app) - median(without)
    yield by_time("startup: CPU added by the app", added, SECONDS)


def start(bench: Bench, apps: list[str], imports: list[str]) -> tuple[float, list[str]]:
    """A new process of the site with these apps, which imports these modules."""
    environment = bench.environment(bench.template, INSTALLED_APPS=apps) | {
        # Compiled once, as on a host, whatever this environment says.
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(bench.folder / "compiled"),
    }
    run = subprocess.run(
        [sys.executable, "-c", CODE, ",".join(imports)],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
        start_new_session=True,
    )
    seconds, modules = json.loads(run.stdout)
    return seconds, modules
