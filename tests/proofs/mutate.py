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
from itertools import chain
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "django_idenfy_phone"
MODULES = ("transitions.py", "querysets.py", "seen.py")
# The first file kills nearly all mutants, so the others run rarely.
TESTS = (
    ["domain/test_transitions.py"],
    [
        "api/test_verified_phone_field.py",
        "api/test_redeem.py",
        "api/test_resume.py",
        "domain/test_delivery.py",
        "domain/test_gate.py",
        "domain/test_confirm.py",
        "domain/test_seen.py",
    ],
)
AT_ONCE = 2

# No test on SQLite can notice these: without them the same rows change, only slower.
REDUNDANT = {
    # Only PostgreSQL needs the two: see test_lock_timeouts and test_seen.
    ("_end", "bounds"),
    ("_update", "(f'checks_refunded = ({refunded_before})', [rows.value('id', pk)])"),
    # A look whether anything is late: settle_slice decides.
    ("settle", "status__in=OPEN_STATUSES"),
    # The sweep's list: take_announcement decides.
    ("unannounced", "**unannounced_terms(timezone.now())"),
    ("redeem", "bounds or Q()"),
    # Only failed rows have a failure: the UPDATE that sets one sets the other.
    ("counted", "status=Status.FAILED"),
}


class Mutant(NamedTuple):
    module: str
    method: str
    line: int
    term: str
    source: str

    @property
    def key(self) -> tuple[str, str]:
        return self.method, self.term

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.method}: {self.term}"


def mutants(module: str) -> Iterator[Mutant]:
    """The module once for each term, and each time without that term."""
    tree = parse(module)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for function in chain(tree.body, *(each.body for each in classes)):
        if isinstance(function, ast.FunctionDef):
            # Not its annotations.
            for node in chain.from_iterable(map(ast.walk, function.body)):
                for term in dropped(node):
                    text, source = ast.unparse(term), ast.unparse(tree)
                    yield Mutant(module, function.name, term.lineno, text, source)


def parse(module: str) -> ast.Module:
    return ast.parse((ROOT / PACKAGE / module).read_text())


def dropped(node: ast.AST) -> Iterator[ast.expr | ast.keyword]:
    """Each term of a node; the tree is without it until the next one is asked for."""
    match node:
        case ast.AnnAssign(target=ast.Name("where"), value=ast.List(elts=terms)):
            yield from left_out(terms)
        case ast.Assign(targets=[ast.Name("where")], value=where):
            yield from dropped_of_where(where)
        case ast.Return(value=ast.Dict() as where):
            yield from dropped_of_where(where)
    if isinstance(node, ast.Call) and name_of(node.func) in ("filter", "exclude", "Q"):
        yield from left_out(node.args)
        yield from left_out(node.keywords)
    elif isinstance(node, ast.keyword) and isinstance(node.value, ast.Tuple):
        yield from left_out(node.value.elts)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd):
        yield from one_sided(node)


def dropped_of_where(where: ast.expr) -> Iterator[ast.expr]:
    """Each key of the dicts in it, and each element of their values."""
    for node in ast.walk(where):
        if isinstance(node, ast.Tuple):
            yield from left_out(node.elts)
        elif isinstance(node, ast.Dict):
            keys, values = node.keys, node.values
            for place, (key, value) in enumerate(list(zip(keys, values, strict=True))):
                del keys[place], values[place]
                yield key
                keys.insert(place, key)
                values.insert(place, value)


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


def is_killed(module: str, source: str) -> bool:
    """Whether a test fails in a copy of the package with this source of a module."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / PACKAGE, Path(folder) / PACKAGE)
        (Path(folder) / PACKAGE / module).write_text(source)
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
    for module in MODULES:
        if is_killed(module, ast.unparse(parse(module))):
            sys.exit("The tests fail without a mutant.")
    found = [mutant for module in MODULES for mutant in mutants(module)]
    if gone := REDUNDANT - {mutant.key for mutant in found}:
        sys.exit(f"No such terms any more: {gone}")
    todo = [
        mutant
        for mutant in found
        if mutant.key not in REDUNDANT and all(word in str(mutant) for word in words)
    ]
    survivors = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        killed = pool.map(lambda each: is_killed(each.module, each.source), todo)
        for mutant, is_dead in zip(todo, killed, strict=True):
            print("killed  " if is_dead else "SURVIVED", mutant, flush=True)
            survivors += not is_dead
    print(f"{len(todo)} mutants, {survivors} survived.")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
