"""Programs that judge code from within the sandbox: outputs against a reference, and unittest cases that must run whole."""

from __future__ import annotations

import ast
import signal
import sys
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firsthand.sandbox import bubblewrap
from firsthand.scorers.programs import oracle
from firsthand.scorers.programs.oracle import compare_outputs
from firsthand.scorers.programs.unit_cases import (
    FALSE,
    skipped_on_purpose,
    wanted,
    with_failing_tests,
    with_own_builtins,
)
from firsthand.scorers.programs.unit_runner import UnitTestResult, message

PLUS = "def f(x):\n    return x + 1\n"


@pytest.fixture
def alarm() -> Iterator[None]:
    """The handler and timer of SIGALRM as before."""
    before, timer = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    yield
    signal.signal(signal.SIGALRM, before)
    signal.setitimer(signal.ITIMER_REAL, *timer)


def compared(answer: Any, reference: str, inputs: str, atol: float = 0, rule: str = "equal") -> str:
    try:
        compare_outputs(answer, "f", reference, inputs, atol, rule)
    except (AssertionError, TimeoutError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.usefixtures("alarm")
def test_outputs_are_compared_input_by_input_with_copies_and_a_tolerance_for_floats(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert compared(lambda x: x + 1, PLUS, "[[1], [2]]") == ""
    assert compared(lambda x: min(x + 1, 2), PLUS, "[[1], [2], [3]]") == "AssertionError: input 1, [2]: gave 2, not 3"
    assert compared(lambda x: x + 1 + 5e-7, PLUS, "[[1.5], [2.5]]") == ""
    assert compared(lambda x: x + 1 + 5e-6, PLUS, "[[1.5]]").startswith(
        "AssertionError: input 0, [1.5]: gave 2.500005, not 2.5"
    )
    mixed = "def f(x):\n    return x * 1.0 if x == 1 else x\n"
    assert compared(lambda x: x * 1.0 + 5e-7 if x == 1 else x, mixed, "[[1], [2]]") == ""
    assert compared(lambda x: x + 5e-7, mixed, "[[2]]") != "", "a whole number has no tolerance"

    first = "def f(x):\n    return [x, x + 0.5] if x > 1 else x + 0.5\n"

    def near(x: int) -> Any:
        return [x, x + 0.5 + 5e-7] if x > 1 else x + 0.5

    assert compared(near, first, "[[1], [2]]") == "", "EvalPlus keeps the tolerance for the inputs after a float"
    assert compared(near, first, "[[2], [1]]").startswith(
        "AssertionError: input 0, [2]: gave [2, 2.5000005], not [2, 2.5]"
    )
    assert compared(lambda x: x + 1.02, PLUS, "[[1.5], [2.5]]", atol=0.05) == "", "a tolerance that was given stays"

    def grows(values: list[int]) -> int:
        values.append(1)
        return len(values)

    assert compared(grows, "def f(l):\n    l.append(1)\n    return len(l)\n", "[[[1]], [[]]]") == ""
    assert compared(lambda x: x == {1}, "def f(x):\n    return True\n", "[[set([1])]]") == ""
    assert compared(lambda x: -x, "def f(x):\n    return -x\n", "[[inf]]") == ""

    def no_plain(x: Any) -> Any:
        raise TypeError("a match is no plain value")

    assert compared(no_plain, PLUS, "[[1]]", rule="not_none") == ""
    with pytest.raises(TypeError, match="no plain value"):
        compared(no_plain, PLUS, "[[1]]")
    monkeypatch.setattr(oracle, "MIN_LIMIT_S", 0.05)

    def slow(x: int) -> int:
        while True:
            x += 1

    assert compared(slow, PLUS, "[[7]]").startswith("TimeoutError: input 0, [7]: no output within 0.")
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0 and oracle.passing_s([1] * 999) == 0.0


TESTS = """
import unittest
@unittest.skipIf(False, "x")
class Other(unittest.TestCase):
    def test_other(self): pass
class TestCases(unittest.TestCase):
    def setUp(self): self.assertTrue(len([1]))
    def test_b(self): self.assertEqual(max(1, 2), 2)
    @unittest.skip("later")
    def test_a(self): pass
    @unittest.expectedFailure
    def test_c(self): self.fail("x")
    async def test_d(self): pass
    def helper(self): sum = 3
"""


def test_the_tests_of_a_file_are_named_and_joined_by_some_that_must_fail() -> None:
    assert wanted(TESTS) == ["test_a", "test_b", "test_c", "test_d"] and wanted("x = 1") == []
    assert skipped_on_purpose(TESTS) == {"test_a", "test_c"}
    whole = TESTS.replace("class TestCases", "@unittest.skipUnless(0, '')\nclass TestCases")
    assert skipped_on_purpose(whole) == {"setUp", "test_a", "test_b", "test_c", "test_d", "helper"}
    name, methods, text = with_failing_tests(TESTS)
    assert (
        text.startswith(f"{TESTS}\n\nclass {name}(unittest.TestCase):\n")
        and methods == sorted(methods)
        and len(methods) == 3
    )
    added = next(node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == name)
    called = sorted(ast.unparse(each).partition("self.")[2].partition("(")[0] for each in added.body)
    assert called == ["assertEqual", "assertTrue", "fail"]
    assert sorted(each.name for each in added.body) == methods
    assert "assertEqual" in with_failing_tests("class TestCases(A, B):\n    def test_x(self): pass\n")[2]
    for bases, given in (("(A, b.B)", "(A, b.B)"), ("", "()"), ("(TestCase, metaclass=M)", "(TestCase)")):
        two = f"class Other(C): pass\nclass TestCases(D): pass\nclass TestCases{bases}:\n    def test_x(self): pass\n"
        name, (method,), text = with_failing_tests(two)
        added = text.removeprefix(f"{two}\n\nclass {name}{given}:\n    def {method}(self):\n        self.assertEqual(")
        first, second = map(int, added.removesuffix(")\n").split(", "))
        assert 2 <= first < second, text
    for assertion, line in FALSE.items():

        class Case(unittest.TestCase):
            def runTest(self, line: str = line) -> None:  # noqa: N802
                exec(line.format(5, 8), {"self": self})

        found = UnitTestResult()
        Case().run(found)
        assert found.problems["runTest"].startswith("AssertionError"), assertion


def test_builtins_that_an_answer_has_taken_get_other_names_in_the_tests() -> None:
    tree, names = with_own_builtins(TESTS, ["max", "len", "sum", "print"])
    assert sorted(names.values()) == ["len", "max", "print"] and all(
        new.startswith(f"{old}_") for new, old in names.items()
    )
    text = ast.unparse(tree)
    assert "max(" not in text and "len(" not in text and "sum = 3" in text
    for code in ("def max(): pass\nmax()", "class max: pass\nmax()", "from x import y as max\nmax()", "max = 1\nmax"):
        assert with_own_builtins(code, ["max"])[1] == {}


def test_what_the_other_process_says_is_an_object_or_an_error() -> None:
    assert message(b'{"a": 1, "word": "w"}\n', "w") == {"a": 1}
    assert message(b"", "w") == {"error": "its process ended"}
    for forged in (b"{}\n", b'{"a": 1, "word": "x"}\n'):
        assert message(forged, "w") == {"error": "something else than the runner wrote to its link"}
    for line in (b"[1]\n", b"{\n", b"[" * 100_000):
        assert message(line, "w") == {"error": "it said nothing that can be read"}


def test_results_of_cases_are_kept_by_name_with_their_reason() -> None:
    class Case(unittest.TestCase):
        def test_ok(self) -> None: ...

        def test_fail(self) -> None:
            self.fail("no")

        def test_error(self) -> None:
            raise KeyError("k")

        @unittest.skip("later")
        def test_skip(self) -> None: ...

        @unittest.expectedFailure
        def test_expected(self) -> None:
            raise ValueError("known")

        @unittest.expectedFailure
        def test_surprise(self) -> None: ...

        def test_parts(self) -> None:
            for part in range(3):
                with self.subTest(part=part):
                    self.assertNotEqual(part, 1)

    found = UnitTestResult()
    unittest.TestLoader().loadTestsFromTestCase(Case).run(found)
    assert found.passed == ["test_ok"] and found.skips == {
        "test_skip": "skipped: later",
        "test_expected": "expected to fail: known",
    }
    parts = found.problems.pop("test_parts")
    assert parts.startswith("AssertionError: 1 == 1") and found.testsRun == 7
    assert found.problems == {
        "test_fail": "AssertionError: no", "test_error": "KeyError: 'k'", "test_surprise": "unexpected success",
    }  # fmt: skip


class NoWords:
    def __repr__(self) -> str:
        raise ValueError


@pytest.mark.usefixtures("alarm")
def test_outputs_are_shown_in_120_characters_and_numbers_of_more_than_100_digits_in_words() -> None:
    large = "a number of more than 100 digits"
    shown = {-(10**99): repr(-(10**99)), 10**100: large, -(10**100): large, -(10**5000): large}
    for value, text in shown.items():
        assert oracle._short(value) == text
        assert (
            compared(lambda x, value=value: value, PLUS, "[[1]]") == f"AssertionError: input 0, [1]: gave {text}, not 2"
        )
    assert oracle._short("x" * 118) == repr("x" * 118), "120 characters with the marks"
    assert oracle._short("x" * 119) == "'" + "x" * 116 + "..." and oracle._short(NoWords()) == "a NoWords"
    assert oracle._short(10**99) == repr(10**99) and oracle._short(True) == "True" and oracle._short(1e200) == "1e+200"


def test_each_rule_takes_its_own_outputs_and_no_others() -> None:
    def taken(output: object, expected: object, rule: str, atol: float = 0.0, case: object = ()) -> bool:
        return oracle.right(output, expected, list(case), atol, rule)  # type: ignore[call-overload]

    polynomial = [[6.0, -5.0, 1.0]]  # 6 - 5x + x^2, with the roots 2 and 3
    assert [taken(x, None, "root", 1e-4, polynomial) for x in (2, 3, 3.00009, 1, 3.001, "x")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip
    assert [taken(x, [1, 2, 2], "set") for x in ([2, 1], [1], [1, 2, 3], None)] == [True, False, False, False]
    assert [taken(x, "m", "not_none") for x in (True, False, "other", None)] == [True, False, True, False]
    assert [taken(x, None, "not_none") for x in (True, False, "other", None)] == [False, True, False, True]
    assert taken(7, 8, "any") and not taken(7, 8, "equal")
    assert [taken(x, 5, "zero_or_equal") for x in (0, 5, 4)] == [True, True, False]
    # base 3, height 4: 9 + 6 * sqrt(2.25 + 16) = 34.63, rounded to 35
    assert [taken(x, 33, "pyramid", 0, (3, 4)) for x in (33, 35, 34)] == [True, True, False]
    # 7 and 123: |0 - 1| + |0 - 2| + |7 - 3| = 7
    for numbers in ((7, 123), (123, 7)):
        assert [taken(x, 4, "digits", 0, numbers) for x in (4, 7, 5)] == [True, True, False]
    assert (
        taken(1.05, 1.0, "equal", 0.05 + 1e-9) and not taken(1.06, 1.0, "equal", 0.05) and not taken(1.05, 1.0, "equal")
    )
    assert not taken(1, 1.00001, "equal", 0.1), "another type is not close"
    assert oracle.close([1.0, [2.0]], [1.0, [2.05]], 0.06) and not oracle.close([1.0], [1.0, 2.0], 1.0)
    assert oracle.close(1e9, 1e9 + 99, 0) and not oracle.close(1e9, 1e9 + 101, 0) and oracle.close("a", "a", 0)
    assert [oracle.floats(x) for x in (1.0, 1, [1.0], (1.0, 2.0), [1.0, 1], [], {1.0}, [[1.0]])] == [
        True, False, True, True, False, False, False, False,
    ]  # fmt: skip


def test_the_time_that_a_large_output_takes_between_processes_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "checker", raising=False)  # and again after the test
    monkeypatch.syspath_prepend(str(Path(bubblewrap.__file__).parent / "programs"))
    times = iter([10.0, 12.5, 20.0, 20.25])
    monkeypatch.setattr(oracle.time, "process_time", lambda: next(times))
    for small in (list(range(oracle.LARGE - 1)), "x" * 5000, 10**2000, None, {1: 2}):
        assert oracle.passing_s(small) == 0.0
    assert oracle.passing_s(list(range(oracle.LARGE))) == 2.5
    assert oracle.passing_s({at: object() for at in range(oracle.LARGE)}) == 0.25, "what cannot pass takes its time too"


def test_a_value_that_is_no_plain_one_is_not_none() -> None:
    def refuses(said: str) -> Any:
        def answer(x: int) -> Any:
            raise TypeError(said)

        return answer

    assert oracle._called(refuses("a match is no plain value"), [1], "not_none") is ...
    for said, rule in (("a match is no plain value", "equal"), ("other", "not_none")):
        with pytest.raises(TypeError, match=said):
            oracle._called(refuses(said), [1], rule)
    given = [[1]]
    assert oracle._called(lambda x: x.append(2) or x, given, "equal") == [1, 2] and given == [[1]]
