"""Sandboxed program that runs unittest cases against an answer in one interpreter. Standard library only.

The process that reads this file starts another, which loads the answer before any test is there, then the tests, and reports
on each. Only a report on every test in the file counts, so an answer that exits early has failed. The cases patch the
answer's own modules, so both must share an interpreter: unlike `checker.py`, this cannot keep an answer from inspecting the
tests while they call it. Changes to unittest itself are detected.
"""

from __future__ import annotations

import ast
import builtins
import ctypes
import json
import os
import socket
import sys
import types
import unittest
import unittest.mock
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


def main() -> None:
    """Exit with status 0 if the answer passes all tests; otherwise name the failed ones on stderr."""
    path = Path("answer.py")
    answer = path.read_text(encoding="utf-8")
    path.unlink()  # the tests start in an empty folder
    ours, theirs = socket.socketpair()
    ctypes.CDLL(None).prctl(
        4, 0, 0, 0, 0
    )  # not dumpable: the answer runs as the same user and must not read this process
    if os.fork() == 0:
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        ours.close()
        serve(theirs, answer)
    theirs.close()
    tests = sys.stdin.read()
    with ours.makefile("rwb") as link:
        loaded = message(link.readline())
        if "error" in loaded:
            sys.exit(f"the answer did not load: {loaded['error']}")
        link.write(json.dumps(tests).encode() + b"\n")
        link.flush()
        report = message(link.readline())
    if "error" in report:
        sys.exit(str(report["error"]))
    problems = report.get("problems")
    if not isinstance(problems, dict) or report.get("ran") != wanted(tests):
        sys.exit("the tests did not run to their end")
    if problems:
        lines = [f"{name}: {str(text)[:200]}" for name, text in list(problems.items())[:20]]
        sys.exit("\n".join([*lines, f"{len(problems)} of {len(wanted(tests))} tests failed: {lines[0]}"]))


def message(line: bytes) -> dict[str, Any]:
    """Parse a message of the other process, which is not trusted and may have ended."""
    try:
        body = json.loads(line)
    except (ValueError, RecursionError):
        return {"error": "its process ended" if not line else "it said nothing that can be read"}
    return body if isinstance(body, dict) else {"error": "it said nothing that can be read"}


def wanted(tests: str) -> list[str]:
    """Return the names of the tests in the file, sorted."""
    cases = [node for node in ast.parse(tests).body if isinstance(node, ast.ClassDef) and node.name == "TestCases"]
    methods = {
        node.name for case in cases for node in case.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return sorted(name for name in methods if name.startswith("test"))


def serve(link: socket.socket, answer: str) -> NoReturn:
    """Load the answer, then the tests, and run them. Nothing here is trusted."""
    dump, leave, stream = json.dumps, os._exit, link.makefile("rwb")

    def tell(body: dict[str, Any]) -> None:
        stream.write(dump(body).encode() + b"\n")
        stream.flush()

    module = types.ModuleType(MODULE)
    module.__dict__.update(__builtins__=builtins, __file__=f"{MODULE}.py", sys=sys, os=os, environ=os.environ)
    sys.modules[MODULE] = module
    before = [dict(vars(each)) for each in WATCHED]
    try:
        exec(compile(answer, f"{MODULE}.py", "exec", dont_inherit=True), module.__dict__)
        tell({})
        tests = json.loads(stream.readline())
        exec(compile(tests, f"{MODULE}.py", "exec", dont_inherit=True), module.__dict__)
        suite = unittest.defaultTestLoader.loadTestsFromTestCase(module.__dict__["TestCases"])
        names = sorted(test.id().rpartition(".")[2] for test in suite if isinstance(test, unittest.TestCase))
        result = unittest.TestResult()
        suite.run(result)
        problems = {
            test.id().rpartition(".")[2]: text.strip().rpartition("\n")[2]
            for test, text in [*result.failures, *result.errors]
        }
        if [dict(vars(each)) for each in WATCHED] != before:
            problems["unittest"] = "the answer changed unittest"
        tell({"ran": names[: result.testsRun], "problems": problems})
    except BaseException as error:
        tell({"error": f"{type(error).__name__}: {str(error)[:300]}"})
    finally:
        leave(0)


if __name__ == "__main__":
    main()
