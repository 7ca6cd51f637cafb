"""Runs unittest cases against an answer in one interpreter, inside the sandbox. Standard library only.

`unit_cases.py`, `unit_libraries.py` and `unit_values.py` are joined with this file into one program (`unit_tests.runner`).

Two processes: this one starts another, which loads the answer before any test is there, then the tests, and reports on each.
The cases patch the answer's own modules, so both must share an interpreter: unlike `checker.py`, this cannot keep an
answer from looking at the tests while they call it. It keeps what it can:

- what runs the cases (the classes of `unittest` and `json` with the code of their functions, `compile`, `exec`, builtins) is
  taken before the answer loads, compared before the tests are read, and around each of them but for builtins, which tests
  patch; so are the test class and its instances, and there is no trace or profile function;
- only a report on every test counts, so an answer that leaves early has failed, and a test that was skipped, or expected to
  fail, has failed unless the file says so;
- the tests use Python's own builtins, whatever the answer calls `len`;
- whatever the tests compare, calculate with or hand to a call is looked at first: an operator of its class is Python's, a
  library's or the tests', or it is the answer's own and says yes to nothing that is true of nothing;
- what the tests import is imported before the answer, and what the libraries hold is compared after it and after each test;
- a class of the answer's that equals everything is found by comparing it with objects that nothing equals;
- a message counts only with a random text that the answer is not told: finding the link is not enough;
- for each assertion that the tests use, the file that the other process gets holds one that must fail, run between tests.
  A report in which one of them passed comes from a process whose assertions are not Python's.
"""

from __future__ import annotations

import ast
import builtins
import ctypes
import json
import json.scanner
import os
import secrets
import socket
import sys
import types
import unittest
import unittest._log
import unittest.mock
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from firsthand.scorers.programs.unit_cases import (
    imported,
    looked_at,
    patched,
    skipped_on_purpose,
    wanted,
    with_failing_tests,
    with_own_builtins,
)
from firsthand.scorers.programs.unit_libraries import Libraries, codes_in
from firsthand.scorers.programs.unit_probes import lies
from firsthand.scorers.programs.unit_values import ANYTHING, Judge

MODULE = "__test__"
MODULES = (
    unittest, unittest.case, unittest.result, unittest.suite, unittest.loader, unittest._log,
    json, json.encoder, json.decoder, json.scanner,
)  # fmt: skip
WATCHED: tuple[type, ...] = tuple(
    {each for module in MODULES for each in vars(module).values() if isinstance(each, type) and each.__module__ in
     {module.__name__ for module in MODULES}}
)  # fmt: skip
OWN_MODULES = frozenset(module.__name__ for module in MODULES)
ASSERTIONS = frozenset(name for name in dir(unittest.TestCase) if callable(getattr(unittest.TestCase, name)))
MARKS = ("__unittest_expecting_failure__", "__unittest_skip__")


def main() -> None:
    """Exit with status 0 if the answer passes all tests; otherwise say on stderr which it failed."""
    path = Path("answer.py")
    answer = path.read_text(encoding="utf-8")
    path.unlink()  # the tests begin in an empty folder
    ours, theirs = socket.socketpair()
    word = secrets.token_hex(16)
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # not dumpable: the answer, of the same user, must not look in here
    if os.fork() == 0:
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        ours.close()
        sys.path.insert(0, str(Path.cwd()))
        serve(theirs, answer, word)
    theirs.close()
    tests = sys.stdin.read()
    names, (case, failing, spiked) = wanted(tests), with_failing_tests(tests)
    with ours.makefile("rwb") as link:
        link.write(json.dumps(imported(tests)).encode() + b"\n")
        link.flush()
        loaded = message(link.readline(), word)
        if "error" in loaded:
            sys.exit(f"the answer did not load: {loaded['error']}")
        link.write(json.dumps([spiked, case]).encode() + b"\n")
        link.flush()
        report = message(link.readline(), word)
    if "error" in report:
        sys.exit(str(report["error"]))
    problems = report.get("problems")
    if not isinstance(problems, dict) or not _holds(report.get("ran"), [*names, *failing]):
        sys.exit("the tests did not run to their end")
    if any(not str(problems.pop(name, "")).startswith("AssertionError") for name in failing):
        problems["unittest"] = "an assertion that must fail did not: the answer changed what judges it"
    if problems:
        lines = [f"{name}: {str(text)[:200]}" for name, text in list(problems.items())[:20]]
        sys.exit("\n".join([*lines, f"{len(problems)} of {len(names)} tests failed: {lines[0]}"]))


def _holds(ran: object, needed: list[str]) -> bool:
    """True if all these tests have run. A file may make others, as by `setattr`, which only the tests' process knows."""
    return isinstance(ran, list) and all(ran.count(name) == 1 for name in needed)


def message(line: bytes, word: str) -> dict[str, Any]:
    """Parse a message of the other process, which is not trusted and may have ended; without the word it is not its own."""
    try:
        body = json.loads(line)
    except (ValueError, RecursionError):
        return {"error": "its process ended" if not line else "it said nothing that can be read"}
    if not isinstance(body, dict):
        return {"error": "it said nothing that can be read"}
    return body if body.pop("word", None) == word else {"error": "something else than the runner wrote to its link"}


class UnitTestResult(unittest.TestResult):
    """Records the error of each test that did not pass, without calling a method of `unittest.TestResult`."""

    def __init__(self) -> None:
        super().__init__()
        self.problems: dict[str, str] = {}
        self.skips: dict[str, str] = {}
        self.passed: list[str] = []

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        self.problems[_name(test)] = f"{err[0].__name__}: {err[1]}"

    addError = addFailure  # noqa: N815

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:  # noqa: N802
        if err is not None:
            self.addFailure(test, err)

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802
        self.passed.append(_name(test))

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        self.skips[_name(test)] = f"expected to fail: {err[1]}"

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: N802
        self.skips[_name(test)] = f"skipped: {reason}"

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802
        self.problems[_name(test)] = "unexpected success"


def _name(test: unittest.TestCase) -> str:
    return test.id().rpartition(".")[2]


def run(tests: list[Any], failing: list[Any], result: UnitTestResult, watch: Watch) -> None:
    """Run the tests as one suite, so that their class is set up once, with the tests that must fail in between."""
    between = list(failing)

    class Suite(unittest.TestSuite):
        _cleanup = False

        def __iter__(self) -> Iterator[Any]:
            for test in tests:
                watch.look()
                yield test
                watch.look(test)
                if between:
                    between.pop()(result)

    Suite().run(result)
    for test in between:
        test(result)
    watch.look()


class Watch:
    """Compares what runs the cases with what it was before the answer was loaded."""

    def __init__(self, libraries: Libraries) -> None:
        self.changes: list[str] = []
        self._libraries = libraries
        self._state, self._builtins = _state(), dict(vars(builtins))
        self._modules = {module.__name__: module for module in (*MODULES, builtins, unittest.mock, ast, sys)}
        self._cases: dict[type, dict[str, Any]] = {}
        self._compare, self._look_up = _state, sys.modules

    def after_load(self) -> None:
        """Note what the answer changed while it was loaded."""
        for name, value in self._builtins.items():
            if vars(builtins).get(name) is not value and name != "_":
                self.changes.append(f"the answer changed {name}")
        self.look()
        self.changes += self._libraries.changes()

    def hold(self, tests: Iterable[Any]) -> None:
        """Remember the classes of the tests as they are before any is run."""
        self._cases = {type(test): _methods_of(type(test)) for test in tests}

    def look(self, test: Any = None) -> None:
        """Note what is not as it was; of a test that has run, too, whether its own assertions were replaced."""
        changed = self._compare() != self._state
        moved = any(self._look_up.get(name) is not module for name, module in self._modules.items())
        if changed or moved or sys.gettrace() is not None or sys.getprofile() is not None:
            self.changes.append("the answer changed unittest")
        if any(_methods_of(case) != before for case, before in self._cases.items()):
            self.changes.append("the answer changed the tests")
        if test is not None and any(name in ASSERTIONS and callable(each) for name, each in vars(test).items()):
            self.changes.append("the answer changed the assertions of a test")
        if test is not None:
            self.changes += self._libraries.changes(ours=True)
        else:
            self._libraries.put_back()
        self.changes += [f"{each.__name__} equals everything" for each in impostors(self._libraries.codes)]


def impostors(ours: Collection[types.CodeType] = ()) -> list[type]:
    """Return the classes of the answer, and the mocks, whose objects say that they equal what nothing equals.

    A class whose `==` is the tests' own is none.
    """
    found, pending, seen = [], [object], {object}
    while pending:
        for each in type.__subclasses__(pending.pop()):
            if each not in seen:
                seen.add(each)
                pending.append(each)
                own = each.__module__ == MODULE or issubclass(each, unittest.mock.NonCallableMock)
                code = getattr(vars(each).get("__eq__"), "__code__", None)
                if own and code not in ours and _equals_everything(each):
                    found.append(each)
    return found


def _equals_everything(kind: type) -> bool:
    """True if `==` of a class says yes to fresh objects, or to all fresh values of a plain type."""
    equal = vars(kind).get("__eq__")
    if equal is None or isinstance(equal, unittest.mock.MagicProxy):
        return False
    this = equal.return_value if isinstance(equal, unittest.mock.NonCallableMock) else None
    if this is not None:
        return this is True
    try:
        new: Any = kind.__new__
        return lies(new(kind), kind, "__eq__")
    except Exception:  # it needs what its `__init__` gives it
        return False


def _methods_of(case: type) -> dict[str, Any]:
    """All that decides how a test class runs: its functions with their code and marks, and assertions that are its own."""
    return {
        name: (each, getattr(each, "__code__", None), [getattr(each, mark, None) for mark in MARKS])
        for name, each in vars(case).items()
        if callable(each) or name in ASSERTIONS or name in MARKS
    } | {"__bases__": case.__bases__}


def serve(link: socket.socket, answer: str, word: str) -> NoReturn:
    """Import what the tests need, load the answer, then the tests, and run them. Nothing here is trusted."""
    dump, leave, stream, read, execute = json.dumps, os._exit, link.makefile("rwb"), compile, exec
    result, load, cases = UnitTestResult(), unittest.TestLoader().loadTestsFromTestCase, unittest.TestCase
    plain, parse, on_purpose = dict(vars(builtins)), with_own_builtins, skipped_on_purpose

    def tell(body: dict[str, Any]) -> None:
        stream.write(dump(body | {"word": word}).encode() + b"\n")
        stream.flush()

    # Raised, it ends a test as if it had passed. Only `failfast`, which is not used here, raises it.
    vars(unittest.case)["_ShouldStop"] = ()
    module = types.ModuleType(MODULE)
    module.__dict__.update(__builtins__=builtins, __file__=f"{MODULE}.py", sys=sys, os=os, environ=os.environ)
    sys.modules[MODULE] = module
    libraries = Libraries(json.loads(stream.readline()))
    watch = Watch(libraries)
    judge = Judge(watch.changes)
    try:
        exec(compile(answer, f"{MODULE}.py", "exec", dont_inherit=True), module.__dict__)
        watch.after_load()
        tell({})
        tests, failing = json.loads(stream.readline())
        shadowed = {name for name in plain.keys() & module.__dict__.keys() if not name.startswith("__")}
        tree, names = parse(tests, shadowed)
        module.__dict__.update({new: plain[name] for new, name in names.items()})
        look = f"look_{secrets.token_hex(4)}"
        code = read(looked_at(tree, look), f"{MODULE}.py", "exec", dont_inherit=True)
        judge.codes.update(codes_in(code))
        libraries.codes = judge.codes
        libraries.patched = patched(tree)
        module.__dict__.update({look: judge, f"{look}_any": ANYTHING})
        execute(code, module.__dict__)
        libraries.hold()
        suites: list[list[Any]] = [list(load(module.__dict__[each])) for each in ("TestCases", failing)]
        # it inherits what TestCases does, tests too, which are not among those that must fail
        suites[1] = [test for test in suites[1] if _name(test) in vars(type(test))]
        if not all(isinstance(test, cases) for suite in suites for test in suite):
            raise TypeError("TestCases is no unittest.TestCase")
        names_of = sorted(_name(test) for suite in suites for test in suite)
        watch.hold(suites[0])
        run(suites[0], suites[1], result, watch)
        expected = on_purpose(tests)
        problems = dict(result.problems) | {name: why for name, why in result.skips.items() if name not in expected}
        for test in suites[0]:
            if (name := _name(test)) not in result.passed and name not in expected:
                problems.setdefault(name, "it did not run to its end")
        if watch.changes:
            problems["unittest"] = watch.changes[0]
        tell({"ran": names_of[: result.testsRun], "problems": problems})
    except BaseException as error:
        tell({"error": f"{type(error).__name__}: {str(error)[:300]}"})
    finally:
        leave(0)


def _state() -> list[Any]:
    """The content of what runs the cases, to see whether anything in it was replaced.

    It holds the code of its functions too, what they take where a caller gives nothing, and what its objects hold.
    """
    held = [
        {name: each for name, each in vars(owner).items() if not _comes_with_use(owner, name, each)}
        for owner in (*WATCHED, *MODULES)
    ]
    inside = [
        [
            (
                getattr(each, "__code__", None),
                getattr(each, "__defaults__", None),
                dict(getattr(each, "__kwdefaults__", None) or {}),
                dict(vars(each)) if isinstance(each, WATCHED) else None,
            )
            for each in content.values()
        ]
        for content in held
    ]
    return [held, inside]


def _comes_with_use(owner: Any, name: str, what: Any) -> bool:
    """True for what Python itself adds to a module: a submodule that is imported, the warnings given in it."""
    if name == "__warningregistry__":
        return True
    dotted = f"{getattr(owner, '__name__', '')}.{name}"
    return type(what) is types.ModuleType and sys.modules.get(dotted) is what and dotted not in OWN_MODULES


if __name__ == "__main__":
    main()
