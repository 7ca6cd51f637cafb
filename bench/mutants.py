"""Picks lines at random, makes each wrong in one way, runs the tests that reach it, and prints which changes live.

    pip install coverage
    python bench/mutants.py --room boards --room arena --lines 20 --seed 1
    python bench/mutants.py --room boards --lines 20 --seed 1 --map /tmp/reached.json   # keeps what the tests reach
    python bench/mutants.py --room boards --only boards/aggregates.py:41                 # one line again
    python bench/mutants.py --room boards --lines 12 --near 6 --cpu-s 100          # no coverage: tests by names

`bench/planted.py` tries a list that people wrote; this draws one. A line is drawn from all lines of a room that compute
something, and one of its possible changes is made: a comparison, a boundary, a sign, a condition, a default, a number, a
choice between `min` and `max`, `any` and `all`. Texts of errors, types, decorators and assertions are left alone. Coverage
measures once which test files reach a line, over the files that name the room; they run with -x in a copy of the checkout,
the quick ones first, for up to --budget-s of tests. A line that no test reaches lives. The exit status is 1 if one lives.

With --near no coverage is measured, which costs a whole run of a room's tests: the files that name the module, the changed
function or a module that imports it, or share its rarer words, are taken, the nearest first, and of their tests those that
name the function first. Each change has --cpu-s of processor time; one whose tests do not end in it is counted as `no end`
and as no catch, and a test that notices a change must pass without it.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import math
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from queue import Queue
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "firsthand"
MAP = "FIRSTHAND_MUTANTS_MAP"


class Change(NamedTuple):
    """One wrong change: the bytes from `begin` to `end` of a file become `new`."""

    file: str
    line: int
    begin: int
    end: int
    old: str
    new: str


def main() -> int:
    """Draw and try changes; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--room", action="append", required=True, help="a folder below src/firsthand; repeatable")
    parser.add_argument("--lines", type=int, default=20, help="lines drawn from each room")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="changes tried at a time, each in a copy of its own")
    parser.add_argument("--budget-s", type=float, default=60.0, help="at most so much of tests for each change")
    parser.add_argument("--map", type=Path, help="a file that keeps, between two calls, which tests reach which lines")
    parser.add_argument(
        "--near", type=int, default=0, help="at most so many test files by name, instead of by coverage"
    )
    parser.add_argument("--show", action="store_true", help="print the drawn changes and the tests near them; run none")
    parser.add_argument("--cpu-s", type=float, default=100.0, help="with --near: processor time for each change")
    parser.add_argument("--only", action="append", default=[], help="FILE:LINE, instead of drawn lines; repeatable")
    args = parser.parse_args()
    FORKS.set_forkserver_preload(
        ["pytest", "hypothesis", "numpy", "scipy.stats", "torch", "httpx", "pydantic", "rich", "transformers"]
    )
    reached: dict[str, Any] = json.loads(args.map.read_text()) if args.map and args.map.is_file() else {}
    drawn: list[Change] = []
    for room in args.room:
        if room not in reached and not args.near:
            reached[room] = reach_of(room)
            if args.map:
                args.map.write_text(json.dumps(reached))
        by_line = lines_of(room)
        chance = random.Random(f"{args.seed} {room}")
        names = sorted(by_line)
        wanted = [each for each in names if f"{each[0]}:{each[1]}" in args.only] if args.only else None
        for place in wanted or chance.sample(names, min(args.lines, len(names))):
            drawn += by_line[place] if wanted else [chance.choice(by_line[place])]
    if args.show:
        for change in drawn:
            near = nearest_tests(change, ROOT)[: args.near] if args.near else []
            print(f"{change.file}:{change.line}: {shown(change.old)}  ->  {shown(change.new)}", *near, sep="  ")
        return 0
    copies: Queue[Path] = Queue()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(args.jobs) as pool:
        for number in range(args.jobs):
            copy = Path(folder) / str(number)
            shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "__pycache__", ".venv", "site"))
            copies.put(copy)

        def tried(change: Change) -> str:
            copy = copies.get()
            try:
                if args.near:
                    return fate_by_name(change, copy, args.near, args.cpu_s)
                return fate_of(change, reached[change.file.split("/")[0]], copy, args.budget_s)
            finally:
                copies.put(copy)

        fates: dict[str, Counter[str]] = defaultdict(Counter)
        for change, fate in zip(drawn, pool.map(tried, drawn), strict=True):
            fates[change.file.split("/")[0]][fate] += 1
            told = f"{change.file}:{change.line}: {shown(change.old)}  ->  {shown(change.new)}"
            print(f"{fate:<15} {told}", flush=True)
    print()
    for room, counts in fates.items():
        others = [f"{count} {fate}" for fate, count in sorted(counts.items()) if fate not in ("caught", "lives")]
        print(f"{room:<14} {counts['caught']} of {counts.total()} caught", *others, sep=", ")
    return int(any(counts["caught"] < counts.total() for counts in fates.values()))


def shown(text: str) -> str:
    """A text on one line, cut."""
    line = " ".join(text.split())
    return line if len(line) <= 70 else f"{line[:67]}..."


def lines_of(room: str) -> dict[tuple[str, int], list[Change]]:
    """The possible changes of each line of a room."""
    found: dict[tuple[str, int], list[Change]] = defaultdict(list)
    for path in sorted((PACKAGE / room).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        for change in changes_of(source, str(path.relative_to(PACKAGE))):
            found[change.file, change.line].append(change)
    return dict(found)


def changes_of(source: str, file: str) -> Iterator[Change]:
    """Every change that this file knows, in the order of the source."""
    starts, encoded = [0], source.encode()
    for line in encoded.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in computing(ast.parse(source)):
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        old = encoded[begin:end].decode()
        for new in wrong(node):
            yield Change(file, node.lineno, begin, end, old, new)


def computing(tree: ast.AST) -> Iterator[ast.expr]:
    """Expressions outside of annotations, decorators, assertions, errors' texts and f-strings."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for default in (*node.args.defaults, *(each for each in node.args.kw_defaults if each)):
                yield from (each for each in [default] if isinstance(each, ast.Constant))
            for statement in node.body:
                yield from computing(ast.Module([statement], []))
            continue
        if isinstance(node, ast.ClassDef):
            yield from computing(ast.Module(node.body, []))
            continue
        if isinstance(node, ast.AnnAssign):
            if node.value is not None:
                yield from computing(ast.Module([ast.Expr(node.value)], []))
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.keyword) and node.arg in ("strict", "help", "encoding", "default", "metadata"):
            continue
        if isinstance(node, ast.expr):
            yield node
        yield from computing(node)


COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
COMPUTED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult}
CALLED = {"min": "max", "max": "min", "any": "all", "all": "any"}


def wrong(node: ast.expr) -> list[str]:
    """Other texts for an expression, each wrong in one way."""
    match node:
        case ast.Compare(left, [operator], [right]) if type(operator) in COMPARED:
            return [f"({ast.unparse(ast.Compare(left, [COMPARED[type(operator)]()], [right]))})"]
        case ast.Compare(left, [first, *others], right) if type(first) in COMPARED:
            return [f"({ast.unparse(ast.Compare(left, [COMPARED[type(first)](), *others], right))})"]
        case ast.BoolOp(operator, values):
            other: ast.boolop = ast.Or() if isinstance(operator, ast.And) else ast.And()
            dropped = [values[:place] + values[place + 1 :] for place in range(len(values))]
            fewer = [ast.unparse(ast.BoolOp(operator, each) if len(each) > 1 else each[0]) for each in dropped]
            return [f"({ast.unparse(ast.BoolOp(other, values))})", *(f"({each})" for each in fewer)]
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            return [f"({ast.unparse(operand)})"]
        case ast.BinOp(left, operator, right) if type(operator) in COMPUTED and not is_text(left, right):
            return [f"({ast.unparse(ast.BinOp(left, COMPUTED[type(operator)](), right))})"]
        case ast.Constant(bool() as value):
            return [str(not value)]
        case ast.Constant(int() as value):
            return [f"{value + 1}", *([f"{value - 1}"] if value > 0 else [])]
        case ast.Constant(float() as value):
            return [repr(value * 2 if value else 0.5)]
        case ast.Call(ast.Name(name), arguments, keywords) if name in CALLED:
            return [ast.unparse(ast.Call(ast.Name(CALLED[name]), arguments, keywords))]
        case ast.IfExp(test, body, other_body):
            return [f"({ast.unparse(body)})", f"({ast.unparse(other_body)})"] if test else []
    return []


def is_text(*operands: ast.expr) -> bool:
    """True if an operand is plainly a text or a list: minus would be an error and no bug."""
    return any(
        isinstance(each, ast.JoinedStr | ast.List | ast.ListComp | ast.Tuple)
        or (isinstance(each, ast.Constant) and isinstance(each.value, str | bytes))
        for each in operands
    )


def fate_of(change: Change, reached: dict[str, Any], copy: Path, budget_s: float) -> str:
    """What becomes of a change: caught, lives, or not reached."""
    lines: dict[str, list[str]] = reached["lines"].get(change.file, {})
    tests = lines.get(str(change.line)) or sorted({each for some in lines.values() for each in some})
    seconds: dict[str, float] = reached["seconds"]
    chosen, spent = [], 0.0
    for test in sorted(set(tests), key=lambda each: seconds.get(each, 0.0)):
        if chosen and spent + seconds.get(test, 0.0) > budget_s:
            break
        chosen.append(test)
        spent += seconds.get(test, 0.0)
    if not chosen:
        return "not reached"
    file = copy / "src" / "firsthand" / change.file
    before = file.read_bytes()
    file.write_bytes(before[: change.begin] + change.new.encode() + before[change.end :])
    try:
        return "lives" if passes(copy, chosen, 60 + 5 * spent) else "caught"
    finally:
        file.write_bytes(before)


def fate_by_name(change: Change, copy: Path, limit: int, cpu_s: float) -> str:
    """What becomes of a change before the test files nearest to it by name: caught, lives, no end, or not reached."""
    tests = nearest_tests(change, copy)[:limit]
    if not tests:
        return "not reached"
    file = copy / "src" / "firsthand" / change.file
    before = file.read_bytes()
    words = names_around(before.decode(), change.line)
    drop_bytecode(file)
    file.write_bytes(before[: change.begin] + change.new.encode() + before[change.end :])
    try:
        status, failed = ended(copy, tests, cpu_s, words)
    finally:
        drop_bytecode(file)
        file.write_bytes(before)
    if status == 0:
        return "lives"
    if status is None or status < 0:
        return "no end"
    again = ended(copy, failed or tests[:1], cpu_s)[0] if failed else 0
    return "caught" if again == 0 else "its test fails"


def drop_bytecode(file: Path) -> None:
    """Forget what was compiled from a file: two versions of one size and second would be taken for one."""
    for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
        compiled.unlink()


def nearest_tests(change: Change, checkout: Path) -> list[str]:
    """The test files that name a changed function, its module or an importer of it, the nearest and smallest first."""
    package = checkout / "src" / "firsthand"
    module = "firsthand." + change.file.removesuffix(".py").replace("/", ".")
    tree = ast.parse((package / change.file).read_text(encoding="utf-8"))
    defined = [each for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    within = {each.name for each in defined if each.lineno <= change.line <= (each.end_lineno or each.lineno)}
    within = users_of(within, defined)
    names = {each.name for each in defined if not each.name.startswith("_")}
    importers = {
        "firsthand." + ".".join(path.relative_to(package).with_suffix("").parts)
        for path, text in texts_below(package).items()
        if imports(module, text)
    }
    ranked = []
    texts, found = texts_below(checkout / "tests"), words_below(checkout / "tests")
    around = [each for each in defined if each.lineno <= change.line <= (each.end_lineno or each.lineno)]
    own = set(re.findall(r"\w+", "\n".join(map(ast.unparse, around))))
    known = Counter(word for words in found.values() for word in own & words)
    rarity = {word: math.log(len(texts) / count) for word, count in known.items()}
    for path, text in texts.items():
        words = found[path]
        near = 4 * imports(module, text) + 3 * bool(within & words) + 2 * bool(names & words)
        near += 2 * (module.split(".")[-1] in words)
        near = near if near > 2 else near and 1
        near += any(imports(each, text) for each in importers) + (module.split(".")[-1] in path.name)
        # a test of what is reached over HTTP names no function of it, and the same rare words: fields, paths, reasons
        shared = sum(rarity[word] for word in rarity.keys() & words) / (sum(rarity.values()) or 1)
        near += 9 * shared / max(1.0, (len(words) / 500) ** 0.5)  # long files share some with all
        if near > 1:
            ranked.append((-near, len(text), str(path.relative_to(checkout))))
    first = [DEFAULTS] if is_default(tree, change.line) else []
    return [*first, *(name for _, _, name in sorted(ranked) if name not in first)]


@cache
def texts_below(folder: Path) -> dict[Path, str]:
    """The sources of a folder, of tests those that pytest collects but for the docs' own."""
    paths = folder.glob("test_*.py") if folder.name == "tests" else folder.rglob("*.py")
    return {path: path.read_text(encoding="utf-8") for path in paths if path.stem != "test_docs"}


@cache
def words_below(folder: Path) -> dict[Path, set[str]]:
    """The words of each of these sources."""
    return {path: set(re.findall(r"\w+", text)) for path, text in texts_below(folder).items()}


def is_default(tree: ast.Module, line: int) -> bool:
    """True if a line is a default or a limit, which one test lists."""
    sys.path.insert(0, str(ROOT / "tests"))
    from public_defaults import is_plain, named

    values = [value for _, value in named(tree.body) if is_plain(value)]
    return any(value.lineno <= line <= (value.end_lineno or line) for value in values)


def users_of(names: set[str], defined: list[Any]) -> set[str]:
    """The names, and those of the same module that use them, directly or not: tests name public ones."""
    used = {each.name: {node.id for node in ast.walk(each) if isinstance(node, ast.Name)} for each in defined}
    while more := {name for name, others in used.items() if name not in names and others & names}:
        names = names | more
    return names


def imports(module: str, text: str) -> bool:
    """True if a source imports a module, by its whole name or from its folder."""
    folder, _, name = module.rpartition(".")
    return module in text or (
        name in text and bool(re.search(rf"from {re.escape(folder)} import [^\n]*\b{name}\b", text))
    )


def names_around(source: str, line: int) -> frozenset[str]:
    """The names of the functions and classes around a line, and of the module's functions that use one of them."""
    tree = ast.parse(source)
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    around = {
        each.name
        for each in ast.walk(tree)
        if isinstance(each, kinds) and each.lineno <= line <= (each.end_lineno or 0)
    }
    return frozenset(users_of(around, [each for each in tree.body if isinstance(each, kinds)]))


def ended(
    checkout: Path, tests: list[str], cpu_s: float, words: frozenset[str] = frozenset()
) -> tuple[int | None, list[str]]:
    """The exit status of tests, None or below 0 for those that were ended by a limit, and which test failed.

    Tests that name more of the words run earlier: most changes are noticed in their first seconds.
    """
    with tempfile.NamedTemporaryFile(suffix=".failed") as kept:
        child = FORKS.Process(target=run_tests, args=(checkout, tests, kept.name, cpu_s, words))
        child.start()
        child.join(60 + 6 * cpu_s)
        status = child.exitcode
        if status is None:
            os.killpg(child.pid or 0, signal.SIGKILL)
            child.join()
        return status, Path(kept.name).read_text().split("\n")[:-1]


class FailurePlugin:
    """Keeps the names of failed tests in a file, and runs tests that name more of the given words earlier."""

    def __init__(self, kept: str, words: frozenset[str]) -> None:
        self.kept, self.words = Path(kept), words

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """The tests were collected."""
        functions = {each.function for each in items if hasattr(each, "function")}
        named = {each: len(self.words & set(re.findall(r"\w+", inspect.getsource(each)))) for each in functions}
        items.sort(key=lambda item: -named.get(getattr(item, "function", None), 0))

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A part of a test has ended."""
        if report.failed:
            with self.kept.open("a") as file:
                file.write(report.nodeid + "\n")


def passes(checkout: Path, tests: list[str], timeout_s: float) -> bool:
    """True if the tests pass in a checkout within the time."""
    child = FORKS.Process(target=run_tests, args=(checkout, tests))
    child.start()
    child.join(timeout_s)
    if child.exitcode is None:
        os.killpg(child.pid or 0, signal.SIGKILL)
        child.join()
    return child.exitcode == 0


DEFAULTS = "tests/test_public_defaults.py"
"""The test of defaults and limits, whatever their names."""
FORKS = multiprocessing.get_context("forkserver")
"""Children begin with what takes long to import; nothing of firsthand is among it."""


def run_tests(
    checkout: Path, tests: list[str], failures: str = "", cpu_s: float = 0.0, words: frozenset[str] = frozenset()
) -> None:
    """Run tests in this process, which was forked for it, and end it with their status."""
    os.setpgid(0, 0)
    if cpu_s:
        resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s), int(cpu_s) + 5))
    with Path(os.devnull).open("w+") as nowhere:
        for number in range(3):
            os.dup2(nowhere.fileno(), number)
    os.chdir(checkout)
    os.environ.update(environment_of(checkout))
    sys.dont_write_bytecode = not failures
    sys.path[:0] = [str(checkout / "src"), str(checkout / "bench")]
    plugins = [FailurePlugin(failures, words)] if failures else []
    sys.exit(int(pytest.main(["-x", "-q", "-n0", "-p", "no:cacheprovider", *tests], plugins=plugins)))


def environment_of(checkout: Path) -> dict[str, str]:
    """The environment in which a checkout's tests import that checkout."""
    path = {"PYTHONPATH": f"{checkout / 'src'}:{checkout / 'bench'}", "PYTHONDONTWRITEBYTECODE": "1"}
    return {"FIRSTHAND_DATA": str(ROOT.parent / "shared" / "data"), **os.environ, **path}


def reach_of(room: str) -> dict[str, Any]:
    """Which test files reach which lines of a room, and how long each of them takes."""
    named = re.compile(rf"firsthand\.{room}\b|firsthand import .*\b{room}\b|[\"']{room}[\"' ]")
    files = sorted(
        path for path in (ROOT / "tests").glob("test_*.py") if named.search(path.read_text(encoding="utf-8"))
    )
    with tempfile.NamedTemporaryFile(suffix=".json") as kept:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n0",
            "-p",
            "mutants",
            "-p",
            "no:cacheprovider",
            *map(str, files),
        ]
        environment = {**environment_of(ROOT), MAP: f"{kept.name}:{room}"}
        subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        )
        found: dict[str, Any] = json.loads(Path(kept.name).read_text() or "{}")
    if not found:
        sys.exit(f"the tests that name {room} could not be measured: is coverage installed?")
    return found


class ReachPlugin:
    """Measures, inside of pytest, which lines of a room each test file reaches."""

    def __init__(self, kept: str, room: str) -> None:
        from coverage import Coverage

        self.kept, self.room = Path(kept), room
        self.coverage = Coverage(data_file=None, include=[f"{PACKAGE / room}/*"], messages=False)
        self.coverage.start()
        self.seconds: Counter[str] = Counter()
        self.failed: set[str] = set()

    def pytest_runtest_logstart(self, nodeid: str, location: Any) -> None:
        """A test of a file begins."""
        self.coverage.switch_context(nodeid.split("::")[0])
        self.began = time.perf_counter()

    def pytest_runtest_logfinish(self, nodeid: str, location: Any) -> None:
        """A test of a file has ended."""
        self.seconds[nodeid.split("::")[0]] += time.perf_counter() - self.began

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A file with a test that fails as it is says nothing about changes."""
        if report.failed:
            self.failed.add(report.nodeid.split("::")[0])

    def pytest_sessionfinish(self) -> None:
        """Write what was found."""
        self.coverage.stop()
        data = self.coverage.get_data()
        lines: dict[str, dict[int, list[str]]] = {}
        for file in data.measured_files():
            by_line = data.contexts_by_lineno(file)
            lines[str(Path(file).relative_to(PACKAGE))] = {
                line: sorted({each for each in tests if each and each not in self.failed})
                for line, tests in by_line.items()
            }
        told = {"lines": lines, "seconds": dict(self.seconds), "failed": sorted(self.failed)}
        self.kept.write_text(json.dumps(told))


def pytest_configure(config: Any) -> None:
    """Called where pytest loads this file as a plugin."""
    if MAP in os.environ:
        kept, room = os.environ[MAP].rsplit(":", 1)
        config.pluginmanager.register(ReachPlugin(kept, room), "reach")


if __name__ == "__main__":
    sys.exit(main())
