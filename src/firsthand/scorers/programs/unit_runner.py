"""Runs unittest cases against an answer in one interpreter, inside the sandbox. Standard library only.

Two processes: this one starts another, which loads the answer before any test is there, then the tests, and reports on each.
The cases patch the answer's own modules, so both must share an interpreter: unlike `checker.py`, this cannot keep an
answer from looking at the tests while they call it. It keeps what it can:

- what runs the cases (loader, suite, result, `TestCase`) is taken before the answer loads, and compared after it;
- only a report on every test counts, so an answer that leaves early has failed, and a skipped test has failed unless the
  file says that it is skipped;
- for each assertion that the tests use, the file that the other process gets holds one that must fail, run between tests.
  A report in which one of them passed comes from a process whose assertions are not Python's.
"""

from __future__ import annotations

import ast
import builtins
import ctypes
import json
import os
import secrets
import socket
import sys
import types
import unittest
import unittest.mock
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

MODULE = "__test__"
WATCHED: tuple[type, ...] = (
    unittest.TestCase,
    unittest.TestResult,
    unittest.TestSuite,
    unittest.BaseTestSuite,
    unittest.TestLoader,
)
MODULES = (unittest, unittest.case, unittest.result, unittest.suite, unittest.loader)
FALSE = {
    "assertEqual": "self.assertEqual({0}, {1})",
    "assertEquals": "self.assertEqual({0}, {1})",
    "assertNotEqual": "self.assertNotEqual({0}, {0})",
    "assertTrue": "self.assertTrue({0} == {1})",
    "assertFalse": "self.assertFalse({0} == {0})",
    "assertIs": "self.assertIs([{0}], [{0}])",
    "assertIsNot": "self.assertIsNot(None, None)",
    "assertIsNone": "self.assertIsNone({0})",
    "assertIsNotNone": "self.assertIsNotNone(None)",
    "assertIn": "self.assertIn({0}, [{1}])",
    "assertNotIn": "self.assertNotIn({0}, [{0}])",
    "assertIsInstance": "self.assertIsInstance({0}, str)",
    "assertNotIsInstance": "self.assertNotIsInstance({0}, int)",
    "assertAlmostEqual": "self.assertAlmostEqual({0}, {1})",
    "assertNotAlmostEqual": "self.assertNotAlmostEqual({0}, {0})",
    "assertGreater": "self.assertGreater(-{0}, {1})",
    "assertGreaterEqual": "self.assertGreaterEqual(-{0}, {1})",
    "assertLess": "self.assertLess({0}, -{1})",
    "assertLessEqual": "self.assertLessEqual({0}, -{1})",
    "assertRegex": "self.assertRegex('{0}', '^{1}$')",
    "assertNotRegex": "self.assertNotRegex('{0}', '^{0}$')",
    "assertCountEqual": "self.assertCountEqual([{0}], [{1}])",
    "assertListEqual": "self.assertListEqual([{0}], [{1}])",
    "assertTupleEqual": "self.assertTupleEqual(({0},), ({1},))",
    "assertSetEqual": "self.assertSetEqual({{{0}}}, {{{1}}})",
    "assertDictEqual": "self.assertDictEqual({{1: {0}}}, {{1: {1}}})",
    "assertSequenceEqual": "self.assertSequenceEqual([{0}], [{1}])",
    "assertMultiLineEqual": "self.assertMultiLineEqual('{0}', '{1}')",
    "assertRaises": "self.assertRaises(ValueError, int, '{0}')",
    "assertRaisesRegex": "self.assertRaisesRegex(ValueError, '{0}', int, '{1}')",
    "fail": "self.fail('{0}')",
}
"""For each assertion, one that must fail for any two different positive integers."""


def main() -> None:
    """Exit with status 0 if the answer passes all tests; otherwise say on stderr which it failed."""
    path = Path("answer.py")
    answer = path.read_text(encoding="utf-8")
    path.unlink()  # the tests begin in an empty folder
    ours, theirs = socket.socketpair()
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # not dumpable: the answer, of the same user, must not look in here
    if os.fork() == 0:
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        ours.close()
        sys.path.insert(0, str(Path.cwd()))
        serve(theirs, answer)
    theirs.close()
    tests = sys.stdin.read()
    names, (case, failing, spiked) = wanted(tests), with_failing_tests(tests)
    with ours.makefile("rwb") as link:
        loaded = message(link.readline())
        if "error" in loaded:
            sys.exit(f"the answer did not load: {loaded['error']}")
        link.write(json.dumps([spiked, case]).encode() + b"\n")
        link.flush()
        report = message(link.readline())
    if "error" in report:
        sys.exit(str(report["error"]))
    problems = report.get("problems")
    if not isinstance(problems, dict) or report.get("ran") != sorted([*names, *failing]):
        sys.exit("the tests did not run to their end")
    if any(not str(problems.pop(name, "")).startswith("AssertionError") for name in failing):
        problems["unittest"] = "an assertion that must fail did not: the answer changed what judges it"
    if problems:
        lines = [f"{name}: {str(text)[:200]}" for name, text in list(problems.items())[:20]]
        sys.exit("\n".join([*lines, f"{len(problems)} of {len(names)} tests failed: {lines[0]}"]))


def message(line: bytes) -> dict[str, Any]:
    """Parse a message of the other process, which is not trusted and may have ended."""
    try:
        body = json.loads(line)
    except (ValueError, RecursionError):
        return {"error": "its process ended" if not line else "it said nothing that can be read"}
    return body if isinstance(body, dict) else {"error": "it said nothing that can be read"}


def wanted(tests: str) -> list[str]:
    """Return the names of the tests in the file, sorted."""
    return sorted(name for name in _methods(ast.parse(tests)) if name.startswith("test"))


def with_failing_tests(tests: str) -> tuple[str, list[str], str]:
    """Return a random class name, the names of its tests, which must fail, and the file with that class appended.

    The class has the bases of `TestCases` and none of its fixtures, which may need what a test has done.
    """
    tree = ast.parse(tests)
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & set(FALSE)
    bases = ", ".join(ast.unparse(base) for case in _cases(tree)[:1] for base in case.bases)
    name, methods = f"Test{secrets.token_hex(4)}", {}
    for assertion in sorted(used or {"assertEqual"}):
        first = 2 + secrets.randbelow(10**6)
        line = FALSE[assertion].format(first, first + 1 + secrets.randbelow(10**6))
        methods[f"test_{secrets.token_hex(4)}"] = line
    body = "".join(f"    def {method}(self):\n        {line}\n" for method, line in methods.items())
    return name, sorted(methods), f"{tests}\n\nclass {name}({bases}):\n{body}"


def _cases(tree: ast.Module) -> list[ast.ClassDef]:
    return [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TestCases"]


def _methods(tree: ast.Module) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    return {
        node.name: node
        for case in _cases(tree)
        for node in case.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def skipped_on_purpose(tests: str) -> set[str]:
    """Return the tests that the file itself skips by a decorator; all of them where it skips the class."""
    tree = ast.parse(tests)
    everything = any(_skips(case.decorator_list) for case in _cases(tree))
    return {name for name, method in _methods(tree).items() if everything or _skips(method.decorator_list)}


def _skips(decorators: Iterable[ast.expr]) -> bool:
    return any("skip" in ast.unparse(each).lower() for each in decorators)


class UnitTestResult(unittest.TestResult):
    """Records the error of each test that did not pass, without calling a method of `unittest.TestResult`."""

    def __init__(self) -> None:
        super().__init__()
        self.problems: dict[str, str] = {}
        self.skips: dict[str, str] = {}

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        self.problems[_name(test)] = f"{err[0].__name__}: {err[1]}"

    addError = addFailure  # noqa: N815

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:  # noqa: N802
        if err is not None:
            self.addFailure(test, err)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: N802
        self.skips[_name(test)] = f"skipped: {reason}"

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802
        self.problems[_name(test)] = "unexpected success"


def _name(test: unittest.TestCase) -> str:
    return test.id().rpartition(".")[2]


def run(tests: list[Any], failing: list[Any], result: UnitTestResult) -> None:
    """Run the tests as one suite, so that their class is set up once, with the tests that must fail in between."""
    between = list(failing)

    class Suite(unittest.TestSuite):
        _cleanup = False

        def __iter__(self) -> Iterator[Any]:
            for test in tests:
                yield test
                if between:
                    between.pop()(result)

    Suite().run(result)
    for test in between:
        test(result)


def serve(link: socket.socket, answer: str) -> NoReturn:
    """Load the answer, then the tests, and run them. Nothing here is trusted."""
    dump, leave, stream = json.dumps, os._exit, link.makefile("rwb")
    result, load, cases = UnitTestResult(), unittest.TestLoader().loadTestsFromTestCase, unittest.TestCase

    def tell(body: dict[str, Any]) -> None:
        stream.write(dump(body).encode() + b"\n")
        stream.flush()

    module = types.ModuleType(MODULE)
    module.__dict__.update(__builtins__=builtins, __file__=f"{MODULE}.py", sys=sys, os=os, environ=os.environ)
    sys.modules[MODULE] = module
    before = _state()
    try:
        exec(compile(answer, f"{MODULE}.py", "exec", dont_inherit=True), module.__dict__)
        tell({})
        tests, failing = json.loads(stream.readline())
        exec(compile(tests, f"{MODULE}.py", "exec", dont_inherit=True), module.__dict__)
        suites: list[list[Any]] = [list(load(module.__dict__[each])) for each in ("TestCases", failing)]
        if not all(isinstance(test, cases) for suite in suites for test in suite):
            raise TypeError("TestCases is no unittest.TestCase")
        names = sorted(_name(test) for suite in suites for test in suite)
        run(suites[0], suites[1], result)
        expected = skipped_on_purpose(tests)
        problems = result.problems | {name: why for name, why in result.skips.items() if name not in expected}
        if _state() != before:
            problems["unittest"] = "the answer changed unittest"
        tell({"ran": names[: result.testsRun], "problems": problems})
    except BaseException as error:
        tell({"error": f"{type(error).__name__}: {str(error)[:300]}"})
    finally:
        leave(0)


def _state() -> list[dict[str, Any]]:
    """The content of what runs the cases, to see whether anything in it was replaced."""
    return [dict(vars(each)) for each in (*WATCHED, *MODULES)]


if __name__ == "__main__":
    main()
