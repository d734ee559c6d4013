"""Drops each term of each transition's WHERE, one at a time: a test must then fail.

``python tests/proofs/mutate.py [WORD ...]`` tries only the mutants with all the words.
"""

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "django_idenfy_phone"
MODULE = "transitions.py"
QUERYSET = "PhoneVerificationQuerySet"
# The first file kills nearly all mutants, so the others run rarely.
TESTS = (
    ["domain/test_transitions.py"],
    [
        "api/test_verified_phone_field.py",
        "api/test_redeem.py",
        "domain/test_delivery.py",
        "domain/test_gate.py",
        "domain/test_confirm.py",
    ],
)
AT_ONCE = 2

# No test can notice these: without them the same rows change, only slower.
REDUNDANT = {
    # Only PostgreSQL needs it: see test_durability.
    ("_change_due_row", "durable_commit(self.db)"),
    ("begin_check", "durable_commit(self.db)"),
    # Only PostgreSQL needs them: see test_lock_timeouts.
    ("_transition", "bounds"),
    ("_change_due_row", "bounds"),
    ("settle_slice", "bounds"),
    # A look whether anything is late: settle_slice decides.
    ("settle", "status__in=OPEN_STATUSES"),
    ("redeem", "bounds or Q()"),
    # Only failed rows have a failure: the UPDATE that sets one sets the other.
    ("counted", "status=Status.FAILED"),
}


class Mutant(NamedTuple):
    method: str
    line: int
    term: str
    source: str

    @property
    def key(self) -> tuple[str, str]:
        return self.method, self.term

    def __str__(self) -> str:
        return f"{MODULE}:{self.line} {self.method}: {self.term}"


def mutants(tree: ast.Module) -> Iterator[Mutant]:
    """The module once for each term, and each time without that term."""
    [queryset] = [
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == QUERYSET
    ]
    for method in queryset.body:
        if isinstance(method, ast.FunctionDef):
            for node in ast.walk(method):
                for term in dropped(node):
                    text, source = ast.unparse(term), ast.unparse(tree)
                    yield Mutant(method.name, term.lineno, text, source)


def dropped(node: ast.AST) -> Iterator[ast.expr | ast.keyword]:
    """Each term of a node; the tree is without it until the next one is asked for."""
    if isinstance(node, ast.Call) and name_of(node.func) in ("filter", "exclude", "Q"):
        yield from left_out(node.args)
        yield from left_out(node.keywords)
    elif isinstance(node, ast.keyword) and isinstance(node.value, ast.Tuple):
        yield from left_out(node.value.elts)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd):
        yield from one_sided(node)


def name_of(function: ast.expr) -> str:
    return getattr(function, "attr", getattr(function, "id", ""))


def left_out(terms: list) -> Iterator[ast.expr | ast.keyword]:
    for place, term in enumerate(list(terms)):
        del terms[place]
        yield term
        terms.insert(place, term)


def one_sided(node: ast.BinOp) -> Iterator[ast.expr]:
    left, right = node.left, node.right
    # Without "left", "left & right" becomes "right & right".
    node.left = right
    if not (isinstance(left, ast.BinOp) and type(left.op) is type(node.op)):
        yield left
    node.left, node.right = left, left
    yield right
    node.right = right


def is_killed(source: str) -> bool:
    """Whether a test fails in a copy of the package with this source of MODULE."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / PACKAGE, Path(folder) / PACKAGE)
        (Path(folder) / PACKAGE / MODULE).write_text(source)
        return any(fails(folder, files) for files in TESTS)


def fails(folder: str, files: list[str]) -> bool:
    environment = {**os.environ, "PYTHONPATH": folder, "TMPDIR": folder}
    # SQLite: on a server, two runs at once would share one test database.
    environment.pop("DATABASE_URL", None)
    # Without -P, Python imports the checkout in place of the copy.
    options = f"-P -m pytest -p {PACKAGE} -x -q -p no:randomly -p no:cacheprovider"
    command = [
        sys.executable,
        *options.split(),
        *(ROOT / "tests" / file for file in files),
    ]
    run = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if run.returncode > 1:
        raise RuntimeError(run.stdout + run.stderr)
    return run.returncode == 1


def main(words: list[str]) -> int:
    tree = ast.parse((ROOT / PACKAGE / MODULE).read_text())
    if is_killed(ast.unparse(tree)):
        sys.exit("The tests fail without a mutant.")
    found = list(mutants(tree))
    if gone := REDUNDANT - {mutant.key for mutant in found}:
        sys.exit(f"No such terms any more: {gone}")
    todo = [
        mutant
        for mutant in found
        if mutant.key not in REDUNDANT and all(word in str(mutant) for word in words)
    ]
    survivors = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        killed = pool.map(is_killed, [mutant.source for mutant in todo])
        for mutant, is_dead in zip(todo, killed, strict=True):
            print("killed  " if is_dead else "SURVIVED", mutant, flush=True)
            survivors += not is_dead
    print(f"{len(todo)} mutants, {survivors} survived.")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
