"""The texts of README.rst and of the manual, and the snippets in them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.rst").read_text(encoding="utf-8")
PAGES = {
    path.stem: path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "docs").glob("*.rst"))
}
# What README says is not repeated in a page, so a snippet is found once.
MANUAL = "\n".join([README, *PAGES.values()])
BLOCK = r"^\.\. code-block:: %s\n\n((?:    .*\n|\n)+)"


def snippets(language):
    """The text of each snippet in this language, README's first."""
    blocks = re.findall(BLOCK % language, MANUAL, re.MULTILINE)
    return ["\n".join(line[4:] for line in block.splitlines()) for block in blocks]
