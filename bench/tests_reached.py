"""Measures which default tests run which lines of the package, by coverage, and finds the tests nearest to a line.

    pip install coverage
    python bench/tests_reached.py /tmp/reached.json        # the whole default suite: 8 minutes on two cores

Processes that tests start are measured too, for coverage starts in each of them under the name of the test that started it.
What runs in the sandbox or in compiled kernels is not seen; for such lines, and for constants, the tests are those that run
a function which names what the line is in, and slow tests and test files by their names.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from wrong_changes import PACKAGE

ROOT = Path(__file__).parents[1]
SETTINGS = "FIRSTHAND_REACHED"
"""Where coverage's settings lie while the suite is measured."""
MOST = 600
"""Tests kept for each line: those that run the fewest lines of all, which are nearest to it."""
DEFAULTS = "tests/test_public_defaults.py"
"""The test of defaults and limits, whatever their names."""


def main() -> int:
    """Measure the default suite; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the file that keeps what was found")
    parser.add_argument("tests", nargs="*", help="only these test files")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reached-") as name:
        folder = Path(name)
        (folder / "data").mkdir()
        settings = folder / "settings"
        settings.write_text(
            f"[run]\ninclude = {PACKAGE}/*\nparallel = true\npatch = subprocess, _exit\n"
            f"data_file = {folder}/data/lines\ncontext = ${{PYTEST_CURRENT_TEST-}}\n"
        )
        environment = {
            "FIRSTHAND_DATA": str(ROOT.parent / "shared" / "data"),
            **os.environ,
            "PYTHONPATH": f"{PACKAGE.parent}:{Path(__file__).parent}",
            SETTINGS: str(settings),
        }
        command = ["coverage", "run", f"--rcfile={settings}", "-m", "pytest", "-q", "-p", "tests_reached", *args.tests]
        subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=environment, check=False)
        told = folder / "tests.json"
        if not told.is_file():
            sys.exit("the suite could not be measured: is coverage installed?")
        found = read_coverage(folder / "data", json.loads(told.read_text()))
        found["slow"] = slow_tests(environment, args.tests)
    args.out.write_text(json.dumps(found))
    print(f"{len(found['tests'])} tests run {sum(map(len, found['lines'].values()))} lines")
    return 0


def slow_tests(environment: dict[str, str], files: list[str]) -> list[str]:
    """The names of the slow tests, which are not measured: a line that no default test runs is tried against some."""
    command = [sys.executable, "-m", "pytest", "-n0", "--collect-only", "-m", "slow and not weights", *files]
    own = {name: value for name, value in environment.items() if name != SETTINGS}
    done = subprocess.run(command, cwd=ROOT, env=own, stdout=subprocess.PIPE, text=True, check=False)
    return [line for line in done.stdout.splitlines() if "::" in line]


def read_coverage(folder: Path, told: dict[str, Any]) -> dict[str, Any]:
    """The tests that run each line, the most special first, from the files that coverage left."""
    from coverage.numbits import numbits_to_nums

    seconds, unsound = told["seconds"], set(told["unsound"])
    numbers: dict[str, int] = {}
    lines: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for path in folder.iterdir():
        connection = sqlite3.connect(path)
        try:
            files = dict(connection.execute("select id, path from file"))
            contexts = dict(connection.execute("select id, context from context"))
            for file, context, bits in connection.execute("select file_id, context_id, numbits from line_bits"):
                test = re.sub(r" \((setup|call|teardown)\)$", "", contexts[context])
                if test in seconds and test not in unsound:
                    number = numbers.setdefault(test, len(numbers))
                    for line in numbits_to_nums(bits):
                        lines[str(Path(files[file]).relative_to(PACKAGE))][line].add(number)
        except sqlite3.Error:
            continue  # a process that was killed while it wrote
        finally:
            connection.close()
    reached = Counter(number for by_line in lines.values() for tests in by_line.values() for number in tests)
    return {
        "tests": [{"name": name, "s": seconds[name], "lines": reached[number]} for name, number in numbers.items()],
        "lines": {
            file: {line: sorted(tests, key=lambda each: reached[each])[:MOST] for line, tests in by_line.items()}
            for file, by_line in lines.items()
        },
    }


class Found(NamedTuple):
    """Tests for a line, the nearest first; `seen` if they are known to run it."""

    tests: list[str]
    seen: bool


class Reached:
    """What `main` has measured."""

    def __init__(self, path: Path) -> None:
        try:
            told = json.loads(path.read_text())
            self._tests: list[dict[str, Any]] = told["tests"]
            self._slow: list[str] = told["slow"]
            self._lines = {file: {int(line): some for line, some in by.items()} for file, by in told["lines"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            sys.exit(f"{path} does not tell which tests run which lines ({error!r}): write it with tests_reached.py")

    def near(self, file: str, first: int, last: int, *, budget_s: float, most: int) -> Found:
        """At most so many tests, and seconds of tests, for the lines of a change."""
        found, seen = self._of(file, first, last)
        ranked = sorted(found, key=lambda each: self._tests[each]["lines"])
        chosen: list[str] = []
        spent = 0.0
        for each in ranked:
            if len(chosen) == most:
                break
            if not chosen or spent + self._tests[each]["s"] <= budget_s:
                chosen.append(self._tests[each]["name"])
                spent += self._tests[each]["s"]
        tree = parsed(file)
        if is_default(tree, first):
            chosen = [DEFAULTS, *chosen]
        return Found(chosen, seen)

    def by_name(self, file: str, line: int, *, most: int) -> list[str]:
        """Slow tests whose own name has the module's, and files that name it or what the line is in, the likeliest first."""
        parts = set(file.removesuffix(".py").split("/"))
        stem = Path(file).stem
        own = [each for each in self._slow if stem in re.findall(r"\w+", each) or f"test_{stem}.py" in each]
        nodes = [each for each in parsed(file).body if each.lineno <= line <= (each.end_lineno or line)]
        names = {name for node in nodes for name in names_given(node)}
        ranked = []
        for path in sorted((ROOT / "tests").glob("test_*.py")):
            words = set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
            score = 3 * len(names & words) + 2 * (stem in words) + len(parts & words) / len(parts)
            if score >= 2:
                ranked.append((-score, len(words), f"tests/{path.name}"))
        return [*own, *(name for _, _, name in sorted(ranked))][:most]

    def _of(self, file: str, first: int, last: int) -> tuple[set[int], bool]:
        """Tests that run the lines, or the statement that they are in; else those that run what names it."""
        tree = parsed(file)
        within = [each for each in functions_of(tree) if each.body[0].lineno <= first <= (each.end_lineno or 0)]
        if within:
            around = [
                each
                for each in ast.walk(max(within, key=lambda each: each.lineno))
                if isinstance(each, SIMPLE) and each.lineno <= first <= (each.end_lineno or 0)
            ]
            for low, high in ((first, last), *((each.lineno, each.end_lineno or 0) for each in around)):
                if found := self._between(file, low, high):
                    return found, True
        names = {
            name for node in tree.body if node.lineno <= first <= (node.end_lineno or 0) for name in names_given(node)
        }
        found = set()
        for _ in range(4):  # a constant of a constant of a kernel that a function calls
            used = [each for each in uses() if each.words & names]
            found = {test for each in used for test in self._between(each.file, each.first, each.last)}
            if found:
                break
            names |= {each.name for each in used}
        return found, False

    def _between(self, file: str, first: int, last: int) -> set[int]:
        by_line = self._lines.get(file, {})
        return {test for line in range(first, last + 1) for test in by_line.get(line, ())}


SIMPLE = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return, ast.Expr)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def parsed(file: str) -> ast.Module:
    """The syntax of a file of the package."""
    return ast.parse((PACKAGE / file).read_text(encoding="utf-8"))


def functions_of(tree: ast.Module) -> list[Function]:
    """All functions and methods of a file."""
    return [each for each in ast.walk(tree) if isinstance(each, Function)]


def names_given(node: ast.stmt) -> list[str]:
    """The names that a statement of a module gives to something."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [each.id for each in targets if isinstance(each, ast.Name)]
        case ast.AnnAssign(target=ast.Name(name)):
            return [name]
    return []


class Use(NamedTuple):
    """A function, or a constant (no lines), and the names in it."""

    name: str
    file: str
    first: int
    last: int
    words: frozenset[str]


@cache
def uses() -> list[Use]:
    """Every function and constant of the package."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        file = str(path.relative_to(PACKAGE))
        tree = parsed(file)
        for each in functions_of(tree):
            found.append(Use(each.name, file, each.body[0].lineno, each.end_lineno or 0, words_of(each)))
        for node in tree.body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                found += [Use(name, file, 1, 0, words_of(node.value)) for name in names_given(node)]
    return found


def words_of(node: ast.AST) -> frozenset[str]:
    """The names and attributes in a piece of source."""
    return frozenset(
        each.id if isinstance(each, ast.Name) else each.attr
        for each in ast.walk(node)
        if isinstance(each, ast.Name | ast.Attribute)
    )


def is_default(tree: ast.Module, line: int) -> bool:
    """True if a line is a default or a limit, which one test lists."""
    sys.path.insert(0, str(ROOT / "tests"))
    from public_defaults import is_plain, named  # type: ignore[import-not-found]

    values = [value for _, value in named(tree.body) if is_plain(value)]
    return any(value.lineno <= line <= (value.end_lineno or line) for value in values)


class ReachedPlugin:
    """Tells coverage, inside of pytest's processes, which test begins, and keeps how long each took."""

    def __init__(self, settings: Path) -> None:
        self._settings, self._seconds, self._unsound = settings, Counter[str](), set[str]()
        if os.environ.pop(
            "COVERAGE_PROCESS_CONFIG", None
        ):  # it has the name of this process's test, and not of the next
            os.environ["COVERAGE_PROCESS_START"] = str(settings)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str, location: Any) -> None:
        """A test begins."""
        from coverage import Coverage

        measured = Coverage.current()
        if measured is not None and "PYTEST_XDIST_WORKER" in os.environ:
            measured.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A part of a test has ended; what fails or is skipped as it is says nothing about changes."""
        self._seconds[report.nodeid] += report.duration
        if report.failed or report.skipped:
            self._unsound.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        """Write what was found."""
        if "PYTEST_XDIST_WORKER" not in os.environ:
            told = {"seconds": dict(self._seconds), "unsound": sorted(self._unsound)}
            (self._settings.parent / "tests.json").write_text(json.dumps(told))


def pytest_configure(config: Any) -> None:
    """Called where pytest loads this file as a plugin."""
    if SETTINGS in os.environ:
        config.pluginmanager.register(ReachedPlugin(Path(os.environ[SETTINGS])), "reached")


if __name__ == "__main__":
    sys.exit(main())
