"""CPU time of import and ``django.setup()``, added by the app over its dependencies."""

import json
import subprocess
import sys
from collections.abc import Iterator
from statistics import median

from ..support.bench import Bench
from ..support.figures import Figure, by_time

# Imports modules, then times ``django.setup()`` and the import of others. Prints the
# CPU seconds of that, and what is imported in the end.
CODE = """
import json, sys, time
from contextlib import suppress
from importlib import import_module

def load(names):
    for name in filter(lambda name: name not in sys.modules, names):
        # Not every module can be imported by itself, or before the setup.
        with suppress(Exception):
            import_module(name)

first, then = json.loads(sys.argv[1])
load(first)
began = time.process_time()
import django
django.setup()
load(then)
print(json.dumps([time.process_time() - began, list(sys.modules)]))
"""
APP = "django_idenfy_phone"
OTHERS = ["django.contrib.auth", "django.contrib.contenttypes", "rest_framework"]
SECONDS = 0.03


def measure(bench: Bench) -> Iterator[Figure]:
    ours, all_apps = [f"{APP}.urls"], [*OTHERS, APP]
    _, modules = start(bench, all_apps, [], ours)
    dependencies = [each for each in modules if not each.startswith((APP, "__"))]
    start(bench, OTHERS, dependencies, dependencies)
    with_app, without = [], []
    for _ in range(bench.pick(25, 5)):
        with_app.append(start(bench, all_apps, dependencies, ours)[0])
        without.append(start(bench, OTHERS, dependencies, dependencies)[0])
    added = median(with_app) - median(without)
    yield by_time("startup: CPU added by the app", added, SECONDS)


def start(
    bench: Bench, apps: list[str], first: list[str], then: list[str]
) -> tuple[float, list[str]]:
    """A new process of the site with these apps: see CODE."""
    environment = bench.environment(bench.template, INSTALLED_APPS=apps) | {
        # Compiled once, as on a host, whatever this environment says.
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(bench.folder / "compiled"),
    }
    run = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps([first, then])],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
        start_new_session=True,
    )
    seconds, modules = json.loads(run.stdout)
    return seconds, modules
