"""Schemathesis calls the running example project as its OpenAPI schema says.

``python tests/proofs/fuzz.py`` runs the project without limits, and first starts for
some numbers. Each answer must have a status, headers and a body
that the schema names: so there is no 500, and a 503 only as documented. Options of
``schemathesis run`` may follow.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import requests

EXAMPLE = Path(__file__).parents[2] / "example_project"
sys.path.insert(0, str(EXAMPLE))

from demo import __main__ as demo  # noqa: E402
from demo.processes import ProcessGroup, catch_signals, free_port  # noqa: E402

CONFIG = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 503]
# A code may be wrong, late or spent.
positive_data_acceptance.enabled = false
"""
# Ordinary ones, and those of the sandbox whose sends or checks fail without a pause of
# all others.
NUMBERS = [f"+370698765{n}" for n in range(10, 16)]
NUMBERS += [f"+120255501{n}" for n in ("01", "06", "08", "14", "21", "23", "24")]
SECONDS_TO_SEND = 5


def main() -> int:
    if demo.USES_REAL_IDENFY:
        sys.exit("iDenfy charges for each SMS: unset the API key.")
    with tempfile.TemporaryDirectory(prefix="idenfy-phone-fuzz-") as name:
        folder = Path(name)
        site = demo.Site(free_port(), free_port(), "right")
        environment = demo.environment(folder, site)
        environment["DJANGO_SETTINGS_MODULE"] = "hosts.fuzzed"
        with ProcessGroup(folder, environment, catch_signals()) as group:
            demo.start_site(group, site)
            return call_as_described(write_schema(group, site), site)


def write_schema(group: ProcessGroup, site: demo.Site) -> Path:
    """The schema, with the ids, numbers and codes that exist as its only values.

    Schemathesis makes values that the schema does not allow, too.
    """
    path = group.folder / "schema.json"
    command = (*demo.MANAGE, "spectacular", "--fail-on-warn", "--validate")
    group.run("schema", *command, "--format", "openapi-json", "--file", str(path))
    with requests.Session() as session:
        session.trust_env, session.auth = False, (demo.USER, site.password)
        ids = [start(session, site, number) for number in NUMBERS]
        time.sleep(SECONDS_TO_SEND)
        inbox = session.get(f"{site.sandbox_url}/inbox.json", timeout=5).json()
    schema: dict[str, Any] = json.loads(path.read_text())
    components = schema["components"]["schemas"]
    allow_only(components["IdenfyPhoneStart"]["properties"]["phone_number"], NUMBERS)
    codes = [message["code"] for message in inbox]
    allow_only(components["IdenfyPhoneConfirm"]["properties"]["code"], codes)
    for operations in schema["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    allow_only(parameter["schema"], ids)
    path.write_text(json.dumps(schema))
    return path


def start(session: requests.Session, site: demo.Site, number: str) -> str:
    body = {"phone_number": number}
    answer = session.post(f"{site.url}/phone/start/", json=body, timeout=10)
    answer.raise_for_status()
    row_id: str = answer.json()["id"]
    return row_id


def allow_only(schema: dict[str, Any], values: list[str]) -> None:
    """Without this, few starts and checks would get as far as the database."""
    schema["enum"] = values
    schema.pop("example", None)


def call_as_described(schema: Path, site: demo.Site) -> int:
    config = schema.with_name("schemathesis.toml")
    config.write_text(CONFIG)
    command = ["schemathesis", f"--config-file={config}", "run", str(schema)]
    command += [f"--url={site.url}", f"--auth={demo.USER}:{site.password}"]
    command += sys.argv[1:]
    return subprocess.run(command, check=False, cwd=schema.parent).returncode


if __name__ == "__main__":
    sys.exit(main())
