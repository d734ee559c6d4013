"""The example project as real processes, and a real Chromium that visits it."""

import itertools

import pytest

from support.example_site import run_site

# Each test has a number of its own.
NUMBERS = (f"+370612{each:05}" for each in itertools.count(10_000))


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    with run_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="session")
def steps():
    # No import of this file: the tests are skipped where selenium is missing.
    return pytest.importorskip("support.pages")


@pytest.fixture(scope="session")
def chromium(steps, tmp_path_factory):
    open_chromium = pytest.importorskip("support.chromium").open_chromium
    with open_chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="session")
def second_chromium(steps, tmp_path_factory):
    open_chromium = pytest.importorskip("support.chromium").open_chromium
    with open_chromium(tmp_path_factory.mktemp("second")) as browser:
        yield browser


@pytest.fixture
def number():
    return next(NUMBERS)


@pytest.fixture
def second_number():
    return next(NUMBERS)


@pytest.fixture
def pages(steps, chromium, site):
    """A browser without cookies, at its usual width, online and with scripts."""
    site.check_running()
    site.clear_pauses()
    site.forget_magic_numbers()
    return steps.Pages(chromium, site).reset()


@pytest.fixture
def other_pages(steps, second_chromium, site):
    return steps.Pages(second_chromium, site).reset()


@pytest.fixture
def plain(pages):
    """The same browser without JavaScript."""
    pages.set_scripts(False)
    return pages
