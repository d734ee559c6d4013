"""Verify one number end to end, then serve the example site: `python -m demo [--once]`.

The sandbox, a Celery worker, the sweep loop and the web server run as separate
processes. A client that uses only the standard library plays the user.
"""

import argparse
import os
import re
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from .client import Client, Response
from .processes import (
    LOOPBACK,
    Failed,
    ProcessGroup,
    StopFlag,
    Stopped,
    catch_signals,
    free_port,
    print_line,
    print_ok,
)

NUMBER = "+37069876543"
USER, ADMIN = "demo@example.com", "admin@example.com"
MANAGE = (sys.executable, "manage.py")
# The last three options: it has no other workers to look for, so it starts at once.
WORKER = (
    *(sys.executable, "-m", "celery", "-A", "example", "worker"),
    *("--pool=threads", "--concurrency=2", "--loglevel=INFO"),
    *("--without-gossip", "--without-mingle", "--without-heartbeat"),
)
USES_REAL_IDENFY = all(
    os.environ.get(name) for name in ("IDENFY_PHONE_API_KEY", "IDENFY_PHONE_API_SECRET")
)
DEMO_MODE = """\
Demo mode: US numbers are allowed, because the sandbox's magic numbers are US numbers.
They share one block, so the limits are high. A user can ask for a new code after 1
second. Some magic numbers pause the app for all numbers: the inbox says until when."""


class Site(NamedTuple):
    port: int
    sandbox_port: int
    password: str

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def sandbox_url(self) -> str:
        return f"http://{LOOPBACK}:{self.sandbox_port}"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="run.py demo",
        description="Verify one number end to end, then serve the example site.",
    )
    parser.add_argument("--once", action="store_true", help="do not serve the site")
    once = parser.parse_args().once
    if once and USES_REAL_IDENFY:
        print_line("FAILED  iDenfy charges for each SMS: unset the API key for --once.")
        return 1
    stop_flag = catch_signals()
    try:
        with tempfile.TemporaryDirectory(prefix="idenfy-phone-demo-") as folder:
            run_demo(Path(folder), stop_flag, once)
    except Stopped:
        print_line("Stopped before the end.")
        return 130
    except Failed as error:
        print_line(f"FAILED  {error}")
        return 1
    print_line("Everything is stopped.")
    return 0


def run_demo(folder: Path, stop_flag: StopFlag, once: bool) -> None:
    site = Site(free_port(), free_port(), secrets.token_hex(6))
    print_line(f"Scratch folder, removed at the end: {folder}")
    with ProcessGroup(folder, environment(folder, site), stop_flag) as group:
        start_site(group, site)
        if USES_REAL_IDENFY:
            print_line("The automatic run is skipped: iDenfy charges for each SMS.")
        else:
            try:
                verify_number(group, site)
            except (OSError, ValueError, LookupError) as error:
                raise Failed(f"No usable answer: {error!r}") from error
        if not once:
            print_addresses(site, folder)
            group.wait_until_stopped()
            print_line("Stopping.")


def environment(folder: Path, site: Site) -> dict[str, str]:
    """Return the services' environment.

    It carries the secrets, because any user of the machine can read a command line.
    """
    changes = {
        "DJANGO_SETTINGS_MODULE": "example.settings",
        "EXAMPLE_DATA": str(folder),
        "EXAMPLE_DEMO": "1",
        "EXAMPLE_DEMO_PASSWORD": site.password,
        "EXAMPLE_SECRET_KEY": secrets.token_urlsafe(32),
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(folder),
    }
    for name in ("no_proxy", "NO_PROXY"):
        changes[name] = f"{LOOPBACK},{os.environ.get(name, '')}"
    if not USES_REAL_IDENFY:
        changes["IDENFY_PHONE_API_URL"] = site.sandbox_url
    return os.environ | changes


def start_site(group: ProcessGroup, site: Site) -> None:
    if not USES_REAL_IDENFY:
        sandbox = group.start(
            "sandbox", *MANAGE, "idenfy_phone_sandbox", f"--port={site.sandbox_port}"
        )
    group.run("preparation", *MANAGE, "prepare_demo")
    database = backend_name("DATABASE_URL", default="a SQLite file")
    print_ok(f"The database ({database}) is migrated.")
    worker = group.start("Celery worker", *WORKER)
    sweep = group.start("sweep loop", *MANAGE, "idenfy_phone_sweep", "--loop=2")
    web = group.start(
        "web server", *MANAGE, "runserver", "--noreload", f"{LOOPBACK}:{site.port}"
    )
    if not USES_REAL_IDENFY:
        group.wait_for_port(sandbox, site.sandbox_port)
    group.wait_for_line(worker, " ready.")
    broker = backend_name("CELERY_BROKER_URL", default="a folder of files")
    print_line(f"        Its broker: {broker}.")
    group.wait_for_line(sweep, "Sweeping every")
    group.wait_for_port(web, site.port)


def backend_name(variable: str, default: str) -> str:
    """Return only the scheme, because the rest of the URL may hold a password."""
    url = os.environ.get(variable)
    return f"{urlsplit(url).scheme}, from {variable}" if url else default


def verify_number(group: ProcessGroup, site: Site) -> None:
    client = Client(site.url)
    profile = client.submit("/login/", username=USER, password=site.password)
    check(f"Log in as {USER}", profile.url == f"{site.url}/", str(profile))
    check("Confirmed number before", not shown_number(profile), shown_number(profile))
    page = client.submit("/password/", password=site.password)
    check("Confirm the password", page.url == f"{site.url}/number/", str(page))

    started = client.post("/phone/start/", phone_number=NUMBER)
    check(f"Post {NUMBER} to start", started.status == 202, str(started))
    path = started.headers["Location"]
    began = time.monotonic()
    sent = poll_until_sent(group, client, path)
    seconds = f"after {time.monotonic() - began:.1f} s"
    check("Poll until sent", sent.json["status"] == "sent", f"{sent} {seconds}")

    messages = Client(site.sandbox_url).get("/inbox.json").json
    message = next(each for each in messages if each["phone_number"] == NUMBER)
    print_ok(f"Read the sandbox's inbox: {message['text']}")
    code = message["code"]

    wrong = f"{(int(code) + 1) % 10_000:04}"
    response = client.post(f"{path}confirm/", code=wrong)
    is_verified = response.json["is_verified"]
    check(f"Post the wrong code {wrong}", is_verified is False, str(response))
    response = client.post(f"{path}confirm/", code=code)
    is_verified = response.json["is_verified"]
    check(f"Post the right code {code}", is_verified is True, str(response))
    number = shown_number(client.get("/"))
    check("Confirmed number now", number == NUMBER, number)


def poll_until_sent(group: ProcessGroup, client: Client, path: str) -> Response:
    deadline = time.monotonic() + 30
    while True:
        response = client.get(path)
        if response.json.get("status") not in ("queued", "sending"):
            return response
        if time.monotonic() > deadline:
            raise Failed(f"Poll until sent: after 30 s still {response}")
        group.pause(0.1)


def shown_number(profile: Response) -> str:
    found = re.search(r'id="phone-number">([^<]+)<', profile.text)
    return found[1] if found else ""


def check(step: str, passed: bool, result: str) -> None:
    if not passed:
        raise Failed(f"{step}: {result}")
    print_ok(f"{step}: {result or 'none'}")


def print_addresses(site: Site, folder: Path) -> None:
    print_line()
    password = f"password {site.password}"
    print_line(f"Sign up        {site.url}/sign-up/")
    print_line(f"Log in         {site.url}/login/  {USER}, {password}")
    print_line(f"Admin          {site.url}/admin/  {ADMIN}, {password}")
    if not USES_REAL_IDENFY:
        print_line(f"Sandbox inbox  {site.sandbox_url}/")
    print_line(f"E-mails        {folder / 'mail'}, one file each")
    if not USES_REAL_IDENFY:
        print_line(DEMO_MODE)
    print_line("Press Ctrl-C to stop.")


if __name__ == "__main__":
    sys.exit(main())
