"""The program that runs unittest cases on an answer: what its two processes say, and what of an answer they notice."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import unittest
import unittest.mock
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firsthand.scorers.programs import unit_runner
from firsthand.scorers.programs.unit_runner import (
    MODULE,
    UnitTestResult,
    Watch,
    _equals_everything,
    _methods_of,
    impostors,
    main,
    run,
    serve,
)
from forked_process import forked

PLUS = "def f(x):\n    return x + 1\n"
CASES = """
import unittest
class TestCases(unittest.TestCase):
    def test_b(self):
        self.assertEqual(f(2), 3)
    def test_a(self):
        self.assertEqual(f(2), 5)
"""
ALWAYS = "\nclass TestLast(unittest.TestCase):\n    def test_zz(self):\n        self.assertEqual(1, 2)\n"
FAILED = {"test_a": "AssertionError: 3 != 5", "test_zz": "AssertionError: 1 != 2"}


def served(answer: str, tests: str = CASES, *, added: str = ALWAYS) -> list[Any]:
    """What the process that runs the cases says, message by message."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(json.dumps([tests + added, "TestLast"]).encode() + b"\n")
        assert forked(lambda: serve(theirs, answer)) == (0, "", "")
        theirs.close()
        said = b""
        while True:
            try:
                piece = ours.recv(1 << 16)
            except ConnectionResetError:  # it ended without reading the tests; what it said is still there
                continue
            if not piece:
                return [json.loads(line) for line in said.splitlines()]
            said += piece


def test_cases_are_reported_with_every_one_that_did_not_pass() -> None:
    more = """
    @unittest.skip("on purpose")
    def test_c(self): pass
    def test_d(self): self.skipTest("no file")
    def test_e(self): raise SystemExit(3)
    @unittest.expectedFailure
    def test_g(self): self.fail()
    def helper(self): pass
"""
    names = ["test_a", "test_b", "test_c", "test_d", "test_e", "test_g", "test_zz"]
    problems = {**FAILED, "test_d": "skipped: no file", "test_e": "SystemExit: 3"}
    assert served(PLUS, CASES + more) == [{}, {"ran": names, "problems": problems}]
    assert served("1 / 0") == [{"error": "ZeroDivisionError: division by zero"}]
    assert served("raise ValueError('x' * 400)") == [{"error": f"ValueError: {'x' * 300}"}]
    assert served(PLUS, "import unittest\n") == [{}, {"error": "KeyError: 'TestCases'"}]
    assert served(PLUS, CASES, added="") == [{}, {"error": "KeyError: 'TestLast'"}]
    known = "assert __file__ == '__test__.py' and environ is os.environ and sys.modules['__test__'].os is os\n"
    assert served(PLUS + known) == served(PLUS)


def test_an_answer_that_changes_what_judges_it_is_found_out() -> None:
    for change, said in (
        ("import builtins\nbuiltins.ascii = lambda x: 7", "the answer changed ascii"),
        ("import unittest\nunittest.TestCase.assertTrue = lambda *a: None", "the answer changed unittest"),
        ("import sys\nsys.setprofile(lambda *a: None)", "the answer changed unittest"),
        ("import sys\nsys.settrace(lambda *a: None)", "the answer changed unittest"),
        ("import sys\nsys.modules['unittest.case'] = sys", "the answer changed unittest"),
        ("class Same:\n    def __eq__(self, other): return True", "Same equals everything"),
    ):
        report = served(f"{PLUS}{change}\n")[-1]
        assert report["problems"]["unittest"] == said and {**report["problems"], **FAILED} == report["problems"], change
    taken = PLUS + "def len(x):\n    return 99\n"
    own = CASES + "    def test_c(self): self.assertEqual(len([1, 2]), 2)\n"
    assert served(taken, own)[1] == {"ran": ["test_a", "test_b", "test_c", "test_zz"], "problems": FAILED}


def ended(folder: Path, answer: str, tests: str) -> tuple[int, str]:
    """How the whole program ends in a folder of its own, and what it says."""
    folder.mkdir(exist_ok=True)
    (folder / "answer.py").write_text(answer, encoding="utf-8")
    status, said, errors = forked(lambda: (os.chdir(folder), main()), stdin=tests.encode())
    assert said == "" and list(folder.iterdir()) == [], "the tests begin in an empty folder"
    return status, errors.removesuffix("\n").removeprefix("SystemExit: ")


def test_the_program_ends_well_or_says_which_tests_failed(tmp_path: Path) -> None:
    right = CASES.replace("5", "3")
    assert ended(tmp_path / "a", "é = 1\n" + PLUS, right) == (0, "")
    line = "test_a: AssertionError: 3 != 5"
    assert ended(tmp_path / "a", PLUS, CASES) == (99, f"{line}\n1 of 2 tests failed: {line}")
    assert ended(tmp_path / "a", "import no_such", CASES) == (
        99,
        "the answer did not load: ModuleNotFoundError: No module named 'no_such'",
    )
    assert ended(tmp_path / "a", "os._exit(0)", CASES) == (99, "the answer did not load: its process ended")
    assert ended(tmp_path / "a", "def f(x):\n    os._exit(0)", CASES) == (99, "its process ended")
    head = "import unittest\nclass TestCases(unittest.TestCase):\n"
    many = head + "".join(f"    def test_{at:02}(self): self.fail('{'y' * 300}')\n" for at in range(21))
    (tmp_path / "a" / "answer.py").write_text(PLUS)
    alone = [sys.executable, "-I", unit_runner.__file__]  # a small process: each look goes through every class there is
    done = subprocess.run(alone, input=many, cwd=tmp_path / "a", capture_output=True, text=True)
    status, lines = done.returncode, done.stderr.splitlines()
    first = f"test_00: AssertionError: {'y' * 184}"
    assert (status, len(lines), lines[0], lines[-1]) == (1, 21, first, f"21 of 21 tests failed: {first}")
    passes = PLUS + "import unittest\nunittest.TestCase.fail = lambda *a: None\n"
    status, said = ended(tmp_path / "a", passes, f"{head}    def test_a(self): self.fail()\n")
    assert status == 99 and said.endswith(
        "1 of 1 tests failed: unittest: an assertion that must fail did not: the answer changed what judges it"
    )


class _Said:
    __module__ = MODULE

    def __init__(self, value: int = 0) -> None:
        self.value = value


@pytest.fixture
def kinds() -> Iterator[Any]:
    """Makes classes of an answer by their `__eq__`."""
    made: list[type] = []

    def kind(name: str, equal: Any = None, **more: Any) -> type:
        body = {"__module__": MODULE, **more} | (
            {} if equal is None else {"__eq__": equal, "__hash__": object.__hash__}
        )
        made.append(type(name, (object,), body))
        return made[-1]

    yield kind
    made.clear()


def test_a_class_that_equals_everything_is_told_from_one_that_compares(kinds: Any) -> None:
    def of_kind(types: Any) -> Any:
        return lambda self, other: isinstance(other, types)

    for equal, found in (
        (None, False),
        (lambda self, other: True, True),
        (lambda self, other: 1, True),
        (lambda self, other: NotImplemented, False),
        (lambda self, other: False, False),
        (lambda self, other: self.value == other, False),
        (of_kind(int), True),
        (of_kind(str), True),
        (of_kind(list), True),
        (of_kind(dict), True),
        (of_kind(set), False),
        (lambda self, other: isinstance(other, int) and other > 0, False),
        (lambda self, other: isinstance(other, list) and len(other) == 1, False),
        (unittest.mock.MagicMock(return_value=True), True),
        (unittest.mock.MagicMock(return_value=False), False),
        (unittest.mock.MagicMock(return_value=1), False),
    ):
        assert _equals_everything(kinds("Kind", equal)) is found, equal
    assert not _equals_everything(unittest.mock.MagicMock)


def test_impostors_are_classes_of_the_answer_or_mocks_alone(kinds: Any) -> None:
    def yes(self: object, other: object) -> bool:
        return True

    before = impostors()
    own, heir = kinds("Own", yes), None
    heir = type("Heir", (own,), {"__module__": MODULE})
    elsewhere = kinds("Elsewhere", yes, __module__="json")
    below = type("Below", (elsewhere,), {"__module__": MODULE, "__eq__": yes, "__hash__": object.__hash__})
    mock = type("Mocked", (unittest.mock.MagicMock,), {"__eq__": yes, "__hash__": object.__hash__})
    found = [each for each in impostors() if each not in before]
    assert own in found and below in found and mock in found and heir not in found and elsewhere not in found


def test_the_methods_of_a_case_are_its_functions_with_code_marks_and_bases() -> None:
    class Case(unittest.TestCase):
        longMessage = False
        number = 3
        fail = None  # type: ignore[assignment]
        __unittest_skip__ = True

        @unittest.expectedFailure
        def test_a(self) -> None: ...

    found = _methods_of(Case)
    test = vars(Case)["test_a"]
    assert found == {
        "fail": (None, None, [None, None]),
        "__unittest_skip__": (True, None, [None, None]),
        "test_a": (test, test.__code__, [True, None]),
        "__bases__": (unittest.TestCase,),
    }


def test_a_watch_notes_each_change_once_it_looks() -> None:
    class Case(unittest.TestCase):
        def test_a(self) -> None: ...

    watch, test = Watch(), Case("test_a")
    watch.hold([test])

    def noted() -> list[str]:  # without what classes of other tests are found to be
        return [each for each in watch.changes if not each.endswith(" equals everything")]

    watch.look()
    watch.look(test)
    watch.after_load()
    assert noted() == []
    for change, undo, said in (
        (lambda: setattr(Case, "test_b", len), lambda: delattr(Case, "test_b"), "the answer changed the tests"),
        (
            lambda: setattr(test, "assertEqual", print),
            lambda: delattr(test, "assertEqual"),
            "the answer changed the assertions of a test",
        ),
        (lambda: setattr(test, "other", print), lambda: None, ""),
        (lambda: setattr(test, "assertEqual", 3), lambda: delattr(test, "assertEqual"), ""),
        (
            lambda: setattr(unittest, "firsthand_added", 1),
            lambda: delattr(unittest, "firsthand_added"),
            "the answer changed unittest",
        ),
        (lambda: sys.setprofile(_nothing), lambda: sys.setprofile(None), "the answer changed unittest"),
    ):
        watch.changes.clear()
        change()
        try:
            watch.look(test)
        finally:
            undo()
        assert noted() == ([said] if said else []), said


def _nothing(*_: object) -> None: ...


def test_cases_run_as_one_suite_with_those_that_must_fail_between_them() -> None:
    order: list[str] = []

    class Case(unittest.TestCase):
        @classmethod
        def setUpClass(cls) -> None:
            order.append("set up")

        @classmethod
        def tearDownClass(cls) -> None:
            order.append("torn down")

        def test_a(self) -> None:
            order.append("a")

        def test_b(self) -> None:
            order.append("b")

    class Failing(unittest.TestCase):
        def test_1(self) -> None:
            order.append("1")
            self.fail()

        def test_2(self) -> None:
            order.append("2")
            self.fail()

        def test_3(self) -> None:
            order.append("3")
            self.fail()

    class Looking:
        def look(self, test: Any = None) -> None:
            order.append("look" if test is None else f"look at {test.id()[-1]}")

    result = UnitTestResult()
    failing: list[Any] = [Failing(f"test_{each}") for each in "123"]
    run([Case("test_a"), Case("test_b")], failing, result, Looking())  # type: ignore[arg-type]
    assert order == [
        "look", "set up", "a", "look at a", "3", "look", "b", "look at b", "2", "torn down", "1", "look",
    ]  # fmt: skip
    assert (result.passed, sorted(result.problems), result.testsRun, len(failing)) == (
        ["test_a", "test_b"], ["test_1", "test_2", "test_3"], 5, 3,
    )  # fmt: skip
