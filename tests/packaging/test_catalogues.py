"""Each text that an end user reads is translated, in all languages."""

import gettext
import io
from datetime import timedelta
from pathlib import Path

import pytest
from babel.dates import format_timedelta
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from django.utils import translation
from django.utils.translation import ngettext

from django_idenfy_phone.exceptions import NumberTaken
from support.catalogues import placeholders_of, read_catalogue, strings_of, texts_of
from support.manual import snippets

ROOT = Path(__file__).parents[2]
LANGUAGES = ["de", "es", "fr", "lt"]
PROJECTS = ["django_idenfy_phone", "example_project"]
# Operators and developers read those in English.
ENGLISH = {
    "admin",
    "admin.py",
    "apps.py",
    "demo",
    "explain.py",
    "health.py",
    "management",
    "models.py",
    "ownership.py",
    "pacing.py",
    "records.py",
    "statuses.py",
}
COUNTS = range(1, 60)
CATALOGUES = [
    ROOT / project / "locale" / language / "LC_MESSAGES/django.po"
    for project in PROJECTS
    for language in LANGUAGES
]
each_catalogue = pytest.mark.parametrize(
    "path", CATALOGUES, ids=lambda path: str(path.relative_to(ROOT))
)


def files_of(project):
    """The modules and templates whose texts end users read."""
    files = [*project.rglob("*.py"), *project.rglob("*.html")]
    return [each for each in files if not ENGLISH & {*each.relative_to(project).parts}]


@each_catalogue
def test_catalogue_holds_the_texts_of_the_code_and_no_others(path):
    assert {*read_catalogue(path)} == texts_of(files_of(path.parents[3]))


@each_catalogue
def test_each_text_is_translated(path):
    messages = read_catalogue(path).values()
    open_texts = [
        each.id for each in messages if each.fuzzy or not all(strings_of(each))
    ]
    assert open_texts == []


@each_catalogue
def test_translations_keep_the_placeholders(path):
    for (_context, text), message in read_catalogue(path).items():
        expected = placeholders_of(text if isinstance(text, str) else text[1])
        for string in strings_of(message):
            assert placeholders_of(string) == expected


@each_catalogue
def test_compiled_catalogue_is_up_to_date(path):
    source, compiled = (
        {key: strings_of(each) for key, each in read_catalogue(name).items()}
        for name in (path, path.with_suffix(".mo"))
    )
    assert compiled == source
    with path.with_suffix(".mo").open("rb") as file:
        header = gettext.GNUTranslations(file).info()
    assert header["plural-forms"] in path.read_text().replace('"\n"', "")


@each_catalogue
def test_catalogue_says_that_no_native_speaker_reviewed_it(path):
    assert "# Not reviewed by native speakers.\n" in path.read_text()


@pytest.mark.parametrize("project", PROJECTS)
def test_there_is_no_other_catalogue(project):
    held = {each.relative_to(ROOT) for each in (ROOT / project).rglob("*.[pm]o")}
    expected = {
        each.relative_to(ROOT).with_suffix(suffix)
        for each in CATALOGUES
        for suffix in (".po", ".mo")
        if each.is_relative_to(ROOT / project)
    }
    assert held == expected


def test_host_changes_a_text(tmp_path, settings):
    [snippet] = snippets("po")
    folder = tmp_path / "de/LC_MESSAGES"
    folder.mkdir(parents=True)
    with (folder / "django.mo").open("wb") as file:
        write_mo(file, read_po(io.StringIO(snippet)))
    settings.LOCALE_PATHS = [tmp_path]
    with translation.override("de"):
        assert f'msgstr "{NumberTaken()}"' in snippet


@pytest.mark.parametrize("unit", ["second", "minute", "hour", "day"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_waits_read_as_those_of_unicode(language, unit, settings):
    """The example's script takes them from the browser, which has those."""
    settings.LOCALE_PATHS = [ROOT / "example_project/locale"]
    with translation.override(language):
        forms = [ngettext(f"in {{n}} {unit}", f"in {{n}} {unit}s", n) for n in COUNTS]
    waits = [form.format(n=n) for form, n in zip(forms, COUNTS, strict=True)]
    assert waits == [wait_of_unicode(n, unit, language) for n in COUNTS]


def wait_of_unicode(count, unit, language):
    delta = timedelta(**{f"{unit}s": count})
    # The threshold keeps seven days from being a week.
    return format_timedelta(
        delta, unit, threshold=1000, add_direction=True, locale=language
    )
