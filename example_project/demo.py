"""One whole verification, for real, and then the site to try: `demo.py [--once]`.

The sandbox, a Celery worker, a sweep loop and the web server run as processes of their
own; a client of the standard library plays the user.
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

from demo_client import Answer, Client
from demo_stage import (
    LOOPBACK,
    Failed,
    Stage,
    Stopped,
    Stopping,
    catch_signals,
    free_port,
    ok,
    say,
)

NUMBER = "+37069876543"
MANAGE = (sys.executable, "manage.py")
# The last three: it has no other workers to look for, and starts at once.
WORKER = (
    *(sys.executable, "-m", "celery", "-A", "example", "worker"),
    *("--pool=threads", "--concurrency=2", "--loglevel=INFO"),
    *("--without-gossip", "--without-mingle", "--without-heartbeat"),
)
REAL = all(
    os.environ.get(name) for name in ("IDENFY_PHONE_API_KEY", "IDENFY_PHONE_API_SECRET")
)


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
    parser = argparse.ArgumentParser(description="One whole verification, for real.")
    parser.add_argument("--once", action="store_true", help="end after it")
    once = parser.parse_args().once
    if once and REAL:
        say("FAILED  The real iDenfy's SMS cost money, so nothing runs by itself.")
        return 1
    stopping = catch_signals()
    try:
        with tempfile.TemporaryDirectory(prefix="idenfy-phone-demo-") as folder:
            play(Path(folder), stopping, once)
    except Stopped:
        say("Stopped before the end.")
        return 130
    except Failed as error:
        say(f"FAILED  {error}")
        return 1
    say("Everything is stopped.")
    return 0


def play(folder: Path, stopping: Stopping, once: bool) -> None:
    site = Site(free_port(), free_port(), secrets.token_hex(6))
    say(f"Scratch folder, removed at the end: {folder}")
    with Stage(folder, environment(folder, site), stopping) as stage:
        open_site(stage, site)
        if REAL:
            say("The automatic run is left out: the real iDenfy's SMS cost money.")
        else:
            try:
                verify_a_number(stage, site)
            except (OSError, ValueError, LookupError) as error:
                raise Failed(f"No usable answer: {error!r}") from error
        if not once:
            tell_addresses(site)
            stage.serve()
            say("Stopping.")


def environment(folder: Path, site: Site) -> dict[str, str]:
    """For the services: secrets do not belong on a command line, which all can read."""
    own = {
        "DJANGO_SETTINGS_MODULE": "example.settings",
        "EXAMPLE_DATA": str(folder),
        "EXAMPLE_DEMO": "1",
        "EXAMPLE_DEMO_PASSWORD": site.password,
        "EXAMPLE_SECRET_KEY": secrets.token_urlsafe(32),
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(folder),
    }
    for name in ("no_proxy", "NO_PROXY"):
        own[name] = f"{LOOPBACK},{os.environ.get(name, '')}"
    if not REAL:
        own["IDENFY_PHONE_API_URL"] = site.sandbox_url
    return os.environ | own


def open_site(stage: Stage, site: Site) -> None:
    if not REAL:
        sandbox = stage.start(
            "sandbox", *MANAGE, "idenfy_phone_sandbox", f"--port={site.sandbox_port}"
        )
    stage.run("preparation", *MANAGE, "prepare_demo")
    ok(f"The database ({kind('DATABASE_URL', 'a SQLite file')}) is migrated.")
    worker = stage.start("Celery worker", *WORKER)
    sweep = stage.start("sweep loop", *MANAGE, "idenfy_phone_sweep", "--loop=2")
    web = stage.start(
        "web server", *MANAGE, "runserver", "--noreload", f"{LOOPBACK}:{site.port}"
    )
    if not REAL:
        stage.wait_for_port(sandbox, site.sandbox_port)
    stage.wait_for_line(worker, " ready.")
    say(f"        Its broker: {kind('CELERY_BROKER_URL', 'a folder of files')}.")
    stage.wait_for_line(sweep, "Sweeping every")
    stage.wait_for_port(web, site.port)


def kind(variable: str, default: str) -> str:
    """Without the rest of the URL, which may hold a password."""
    url = os.environ.get(variable)
    return f"{urlsplit(url).scheme}, by {variable}" if url else default


def verify_a_number(stage: Stage, site: Site) -> None:
    client = Client(site.url)
    profile = client.submit("/login/", username="demo", password=site.password)
    check("Log in as demo", profile.url == f"{site.url}/", str(profile))
    check("Confirmed number before", not shown_number(profile), shown_number(profile))

    started = client.post("/phone/start/", phone_number=NUMBER)
    check(f"Post {NUMBER} to start", started.status == 202, str(started))
    path = started.headers["Location"]
    began = time.monotonic()
    sent = wait_until_sent(stage, client, path)
    seconds = f"after {time.monotonic() - began:.1f} s"
    check("Ask until sent", sent.json["status"] == "sent", f"{sent} {seconds}")

    messages = Client(site.sandbox_url).get("/inbox.json").json
    message = next(each for each in messages if each["phone_number"] == NUMBER)
    ok(f"Read the sandbox's inbox: {message['text']}")
    code = message["code"]

    wrong = f"{(int(code) + 1) % 10_000:04}"
    answer = client.post(f"{path}confirm/", code=wrong)
    check(
        f"Post the wrong code {wrong}", answer.json["is_verified"] is False, str(answer)
    )
    answer = client.post(f"{path}confirm/", code=code)
    check(
        f"Post the right code {code}", answer.json["is_verified"] is True, str(answer)
    )
    number = shown_number(client.get("/"))
    check("Confirmed number now", number == NUMBER, number)


def wait_until_sent(stage: Stage, client: Client, path: str) -> Answer:
    deadline = time.monotonic() + 30
    while True:
        answer = client.get(path)
        if answer.json.get("status") not in ("queued", "sending"):
            return answer
        if time.monotonic() > deadline:
            raise Failed(f"Ask until sent: after 30 s still {answer}")
        stage.pause(0.1)


def shown_number(profile: Answer) -> str:
    found = re.search(r'id="phone-number">([^<]+)<', profile.text)
    return found[1] if found else ""


def check(step: str, came_true: bool, came_back: str) -> None:
    if not came_true:
        raise Failed(f"{step}: {came_back}")
    ok(f"{step}: {came_back or 'none'}")


def tell_addresses(site: Site) -> None:
    say()
    say(f"Site           {site.url}/  user demo, password {site.password}")
    say(f"Admin          {site.url}/admin/  user admin, password {site.password}")
    if not REAL:
        say(f"Sandbox inbox  {site.sandbox_url}/")
        say(
            "Demo mode: all magic numbers share one block, so US numbers are allowed, a"
        )
        say("new code can be had after 1 second, and the limits are wide.")
    say("Press Ctrl-C to stop.")


if __name__ == "__main__":
    sys.exit(main())
