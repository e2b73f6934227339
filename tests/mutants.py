"""Changes one place of the package at a time, and lists the changes that the tests of its room do not notice.

`make mutants-python` runs it, on a copy of the checkout. The tests of a room (`tests/run` for `run/`) run
once with code that notes which test calls which function; then each mutant is tried by those that call its
function. Calls while a test is set up count for all tests of its file, which may share the fixture. What an
import runs is tried by all tests that call a function of its file.
"""

from __future__ import annotations

import argparse
import ast
import copy
import difflib
import importlib.util
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
COPY = ROOT / "target/mutants/python/checkout"
PACKAGE = Path("python/fasttriplet")
ROOMS = ("dataset", "mining", "embedders", "run", "verify", "auditing", "training")  # without frameworks

# Beside the package in the copy: what notes calls, and a plugin of pytest that notes how long tests take.
RECORDER = """
import contextlib, os, pathlib
known = set()
def note(text):
    with pathlib.Path(os.environ["FASTTRIPLET_CALLS"]).open("a") as file:
        file.write(text + "\\n")
def called(function):
    test = os.environ.get("PYTEST_CURRENT_TEST")
    if test and (function, test) not in known:
        known.add((function, test))
        with contextlib.suppress(OSError):  # a test may fill the disk
            note(f"{function}\\t{test}")
def pytest_runtest_logreport(report):
    note(f"{'failed' if report.failed else report.duration}\\t{report.nodeid}")
"""

SWAPS: dict[type[ast.AST], Any] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div,
    ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def is_declaration(node: ast.AST) -> bool:
    """Whether the node is there for a type checker alone."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    if isinstance(node, ast.ClassDef):
        return any(re.search("Protocol|TypedDict|Keywords", ast.unparse(base)) for base in node.bases)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return any(ast.unparse(decorator) == "overload" for decorator in node.decorator_list)
    if isinstance(node, ast.keyword):
        return node.arg == "strict"  # of `zip`, where lengths are equal
    return isinstance(node, ast.Import | ast.ImportFrom)


def is_measured(node: ast.AST) -> bool:
    """Whether the node gives a number its name: the size of a block, a threshold that a bench chose.

    A test of it could only say the same number again.
    """
    if not isinstance(node, ast.Assign):
        return False
    numbers = (ast.Tuple, ast.BinOp, ast.UnaryOp, ast.Constant, ast.operator, ast.unaryop, ast.expr_context)
    parts = [*ast.walk(node.value)]
    return all(name.isupper() for name in map(ast.unparse, node.targets)) and all(
        isinstance(part, numbers) and not is_text(part) for part in parts
    )


class Place(NamedTuple):
    """A node that runs: where it hangs, and the outermost function around it, or nothing."""

    parent: ast.AST
    field: str
    at: int | None  # of a list
    node: Any
    function: str

    def put(self, node: ast.AST) -> None:
        if self.at is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.at] = node


def places(parent: ast.AST, function: str = "") -> Iterator[Place]:
    for field, value in ast.iter_fields(parent):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for at, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(node, ast.AST) and not is_declaration(node) and not is_measured(node):
                yield (place := Place(parent, field, at, node, function or name_of(node)))
                yield from places(node, place.function)


def name_of(node: ast.AST) -> str:
    is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return f"{node.name}:{node.lineno}" if is_function else ""  # type: ignore[attr-defined]


def changes(place: Place) -> Iterator[ast.AST]:  # noqa: PLR0912  one case per kind of change
    """What may stand in the place of the node."""
    node = place.node
    changed = copy.deepcopy(node)
    match node:
        case ast.Compare(ops=ops):
            for at, op in enumerate(ops):
                changed = copy.deepcopy(node)
                changed.ops[at] = SWAPS[type(op)]()
                yield changed
        case ast.UnaryOp(op=ast.Not()):
            yield changed.operand
        case ast.BoolOp(op=op) | ast.AugAssign(op=op) | ast.BinOp(op=op) if type(op) in SWAPS:
            is_type = isinstance(op, ast.BitOr) and not place.function
            if not is_type and not any(map(is_text, ast.iter_child_nodes(node))):
                changed.op = SWAPS[type(op)]()
                yield changed
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant(value + 1)
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield ast.Return(ast.Constant(None))
        case ast.ExceptHandler() if not isinstance(node.body[-1], ast.Raise):
            changed.body = [ast.Raise()]
            yield changed
        case ast.Call():
            if (name := ast.unparse(node.func)) in NAMES:
                changed.func = ast.Name(NAMES[name], ast.Load())
                yield changed
            for at, keyword in enumerate(node.keywords):
                if keyword.arg and not is_declaration(keyword):
                    changed = copy.deepcopy(node)
                    del changed.keywords[at]
                    yield changed
    match node:
        case (
            ast.Expr(value=ast.Call() | ast.Await())
            | ast.Raise()
            | ast.Continue()
            | ast.Break()
            | ast.AugAssign()
        ):
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]):
            yield ast.Pass()
        case ast.Name() | ast.Attribute() | ast.Call() | ast.NamedExpr() if place.field in ("test", "ifs"):
            yield ast.UnaryOp(ast.Not(), node)


class Mutant(NamedTuple):
    file: Path  # in the package
    line: int
    function: str
    source: str
    diff: str


def mutants_of(file: Path) -> Iterator[Mutant]:
    tree = ast.parse((ROOT / PACKAGE / file).read_text())
    original = ast.unparse(tree)
    for place in list(places(tree)):
        for node in changes(place):
            place.put(ast.fix_missing_locations(node))
            source = ast.unparse(tree)
            place.put(place.node)
            lines = list(difflib.unified_diff(original.splitlines(), source.splitlines(), n=1, lineterm=""))[
                3:
            ]
            yield Mutant(file, place.node.lineno, place.function, source, "\n".join(lines))


def with_notes(file: Path) -> str:
    """The code of a file, of which each outermost function notes that it is called."""
    tree = ast.parse((ROOT / PACKAGE / file).read_text())
    for place in list(places(tree)):
        if place.function and place.function == name_of(place.node):
            note = ast.parse(f"__import__('_recorder').called({f'{file}:{place.function}'!r})").body[0]
            place.node.body.insert(1 if ast.get_docstring(place.node) else 0, note)
    return ast.unparse(ast.fix_missing_locations(tree))


def write(file: Path, source: str | None = None) -> None:
    """The file of the copy, and nothing compiled: two mutants may have one size and one second."""
    target = COPY / PACKAGE / file
    Path(importlib.util.cache_from_source(target)).unlink(missing_ok=True)
    target.write_text((ROOT / PACKAGE / file).read_text() if source is None else source)


def pytest(arguments: list[str], limit: float | None = None) -> tuple[int | None, str]:
    """The exit code, or nothing after `limit` seconds, and what was printed."""
    environment = os.environ | {
        "PYTHONPATH": str(COPY / "python"),
        "FASTTRIPLET_CALLS": str(COPY / "calls.txt"),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "not slow",
        "-p",
        "no:cacheprovider",
        *arguments,
    ]
    with subprocess.Popen(
        command, cwd=COPY, env=environment, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        try:
            output, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return None, ""
        finally:  # processes that tests started, too
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output


class Tests:
    """The tests of a room: what each of them calls, and how long it takes."""

    def __init__(self, room: str, paths: list[str]) -> None:
        files = [path.relative_to(ROOT / PACKAGE) for path in (ROOT / PACKAGE / room).rglob("*.py")]
        for file in files:
            write(file, with_notes(file))
        calls = COPY / "calls.txt"
        calls.write_text("")
        _, output = pytest(["-p", "_recorder", *paths])
        for file in files:
            write(file)
        self.seconds: dict[str, float] = defaultdict(float)
        self._callers = defaultdict(set)
        failed = set[str]()
        for line in calls.read_text().splitlines():
            what, test = line.split("\t")
            if what == "failed":
                failed.add(test)
            elif what[0].isdigit():
                self.seconds[test] += float(what)
            else:
                self._callers[what].add(test)
        if not self.seconds:
            sys.exit(f"mutants: no test has run\n{output}")
        for test in failed:
            print(f"not asked, because it fails without a change: {test}", flush=True)
            self.seconds.pop(test, None)

    def of(self, mutant: Mutant) -> list[str]:
        """Those that may notice it, the fastest first."""
        where = f"{mutant.file}:{mutant.function}"
        callers: set[str] = set()
        for function, tests in self._callers.items():
            if function == where or (not mutant.function and function.startswith(where)):
                callers |= tests
        files = {test.split("::")[0] for test in callers if test.endswith("(setup)")}
        tests = {test.rsplit(" (", 1)[0] for test in callers}
        chosen = [test for test in self.seconds if test in tests or test.split("::")[0] in files]
        return sorted(chosen, key=lambda test: self.seconds[test])


def survives(mutant: Mutant, tests: Tests) -> bool:
    chosen = tests.of(mutant)
    if not chosen:
        return True
    (COPY / "chosen.txt").write_text("\n".join(chosen))
    write(mutant.file, mutant.source)
    # Ten times as long as without a change, and a minute on a machine that does other things, too.
    code, _ = pytest(["-x", "@chosen.txt"], limit=60 + 10 * sum(tests.seconds[test] for test in chosen))
    write(mutant.file)
    return code == 0


def copy_checkout() -> None:
    """Tracked and new files, and the extension."""
    shutil.rmtree(COPY, ignore_errors=True)
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in [*listed, *(str(path.relative_to(ROOT)) for path in (ROOT / PACKAGE).glob("*.so"))]:
        if (ROOT / name).is_file():
            (COPY / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, COPY / name)
    (COPY / "python/_recorder.py").write_text(RECORDER)


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def changed_lines(base: str) -> dict[Path, set[int]]:
    """Lines of the package that differ from the commit at which this tree left `base`."""
    lines: dict[Path, set[int]] = defaultdict(set)
    for line in git("diff", "--unified=0", "--merge-base", base, "--", str(PACKAGE)).splitlines():
        if line.startswith("+++ "):
            file = Path(line[6:])
        elif hunk := re.match(r"@@ \S+ \+(\d+)(?:,(\d+))?", line):
            first, count = int(hunk[1]), int(hunk[2] or 1)
            lines[file.relative_to(PACKAGE)] |= set(range(first, first + count))
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--base", help="the lines that differ from this branch or commit")
    which.add_argument("--file", type=Path, help="a file of the package")
    which.add_argument("--all", action="store_true", help=f"the rooms {', '.join(ROOMS)}")
    which.add_argument("--room", choices=ROOMS)
    parser.add_argument("--tests", nargs="+", help="files or folders of tests; by default those of the room")
    parser.add_argument("--sample", type=int, help="so many of each room, at random")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    changed = changed_lines(options.base) if options.base else None
    if options.file:
        files = [options.file.resolve().relative_to(ROOT / PACKAGE)]
    else:
        files = sorted(path.relative_to(ROOT / PACKAGE) for path in (ROOT / PACKAGE).rglob("*.py"))
    copy_checkout()
    tried = survived = 0
    for room in [options.room] if options.room else ROOMS:
        mutants = [
            mutant
            for file in files
            if file.parts[0] == room and (changed is None or file in changed)
            for mutant in mutants_of(file)
            if changed is None or mutant.line in changed[file]
        ]
        if options.sample is not None and options.sample < len(mutants):
            mutants = random.Random(options.seed).sample(mutants, options.sample)
        if not mutants:
            continue
        print(f"{room}: {len(mutants)} mutants", flush=True)
        tests = Tests(room, options.tests or [f"tests/{room}"])
        for mutant in mutants:
            tried += 1
            if survives(mutant, tests):
                survived += 1
                print(f"MISSED {PACKAGE / mutant.file}:{mutant.line}\n{mutant.diff}\n", flush=True)
    print(f"{tried - survived} of {tried} mutants were caught" if tried else "nothing to change")
    return survived > 0


if __name__ == "__main__":
    sys.exit(main())
