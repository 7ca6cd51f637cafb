"""The program that runs unittest cases on an answer: what its two processes say, and what of an answer they notice."""

from __future__ import annotations

import json
import subprocess
import sys
import unittest
import unittest.mock
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firsthand.scorers.programs.unit_runner import (
    MODULE,
    UnitTestResult,
    _equals_everything,
    _methods_of,
    run,
)
from firsthand.scorers.unit_tests import runner


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the checks of `unit_runner_alone.py` found, by name; empty for one that found nothing wrong."""
    program = Path(__file__).with_name("unit_runner_alone.py")
    joined = tmp_path_factory.mktemp("program") / "unit_runner.py"
    joined.write_text(runner(), encoding="utf-8")
    done = subprocess.run([sys.executable, "-I", program, joined], capture_output=True, text=True, check=True)
    assert done.stderr == "", "what answers print is not heard"
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.slow
def test_cases_are_reported_with_every_one_that_did_not_pass(alone: dict[str, str]) -> None:
    assert alone["cases_are_reported_with_every_one_that_did_not_pass"] == ""


def test_an_answer_that_changes_what_judges_it_is_found_out(alone: dict[str, str]) -> None:
    assert alone["an_answer_that_changes_what_judges_it_is_found_out"] == ""


def test_the_program_ends_well_or_says_which_tests_failed(alone: dict[str, str]) -> None:
    assert alone["the_program_ends_well_or_says_which_tests_failed"] == ""


def test_impostors_are_classes_of_the_answer_or_mocks_alone(alone: dict[str, str]) -> None:
    assert alone["impostors_are_classes_of_the_answer_or_mocks_alone"] == ""


def test_a_watch_notes_each_change_once_it_looks(alone: dict[str, str]) -> None:
    assert alone["a_watch_notes_each_change_once_it_looks"] == ""


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
        (of_kind(set), True),
        (of_kind(range), False),
        (lambda self, other: isinstance(other, int) and other > 0, False),
        (lambda self, other: isinstance(other, list) and len(other) == 1, False),
        (unittest.mock.MagicMock(return_value=True), True),
        (unittest.mock.MagicMock(return_value=False), False),
        (unittest.mock.MagicMock(return_value=1), False),
    ):
        assert _equals_everything(kinds("Kind", equal)) is found, equal
    assert not _equals_everything(unittest.mock.MagicMock)


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
