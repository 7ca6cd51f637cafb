"""Test logs are read as SWE-bench's records name tests; of two results for a test the worse one counts."""

from __future__ import annotations

import pytest

from cpu_time import at_most_cpu_s
from firsthand.errors import UnknownName
from firsthand.scorers.patches.test_logs import PARSERS, kept, passed, read_log

PYTEST = """\
============================= test session starts ==============================
tests/test_a.py .F.s                                                      [100%]
tests/test_b.py::test_verbose PASSED                                      [ 50%]
=========================== short test summary info ============================
PASSED tests/test_a.py::test_one
PASSED tests/test_a.py::test_param[a b-1]
SKIPPED [1] tests/test_a.py:12: not today
XFAIL tests/test_a.py::test_known - a bug
FAILED tests/test_a.py::test_two - assert 1 == 2
ERROR tests/test_a.py::test_three - RuntimeError
========================= 1 failed, 2 passed in 0.10s =========================
"""


def test_pytest() -> None:
    assert read_log(PYTEST, "parse_log_pytest") == {
        "tests/test_b.py::test_verbose": "PASSED",
        "tests/test_a.py::test_one": "PASSED",
        "tests/test_a.py::test_param[a": "PASSED",  # cut at the blank, as in the records
        "tests/test_a.py::test_known": "XFAIL",
        "tests/test_a.py::test_two": "FAILED",
        "tests/test_a.py::test_three": "ERROR",
    }


def test_colours_paths_and_buttons_are_read_as_in_the_records() -> None:
    assert read_log("\x1b[32mPASSED\x1b[0m tests/a.py::test_x\n", "parse_log_scikit") == {
        "tests/a.py::test_x": "PASSED"
    }
    log = "PASSED t.py::test_x[/home/me/x.py]\nPASSED t.py::test_y[//a/b]\nPASSED t.py::test_z[a/b]\n"
    assert list(read_log(log, "parse_log_pylint")) == [
        "t.py::test_x[/x.py]",
        "t.py::test_y[//a/b]",
        "t.py::test_z[a/b]",
    ]
    assert list(read_log("PASSED t.py::test[MouseButton.LEFT]\n", "parse_log_matplotlib")) == ["t.py::test[1]"]


DJANGO = """\
Testing against Django installed in '/testbed/django' with up to 1 processes
test_one (app.tests.ATests) ... ok
test_two (app.tests.ATests)
The second test has a docstring. ... ok
test_noisy (app.tests.ATests) ... some output
more of it
ok
test_three (app.tests.ATests) ... FAIL
test_four (app.tests.ATests) ... ERROR
test_five (app.tests.ATests) ... skipped 'not here'
test_six (app.tests.ATests) ... expected failure
======================================================================
FAIL: test_three (app.tests.ATests)
----------------------------------------------------------------------
Ran 6 tests in 0.010s
"""


def test_django_and_unittest() -> None:
    expected = {
        "test_one (app.tests.ATests)": "PASSED",
        "The second test has a docstring.": "PASSED",
        "test_noisy (app.tests.ATests)": "PASSED",
        "test_three (app.tests.ATests)": "FAILED",
        "test_four (app.tests.ATests)": "ERROR",
        "test_five (app.tests.ATests)": "SKIPPED",
        "test_six (app.tests.ATests)": "XFAIL",
        "test_three": "FAILED",
    }
    assert read_log(DJANGO, "parse_log_django") == read_log(DJANGO, "unittest") == expected


SYMPY = """\
============================= test process starts ==============================
sympy/geometry/tests/test_point.py[4]
test_point ok
test_point3D F
test_broken E
test_known f
test_last ok                                                              [FAIL]
________________________________________________________________________________
___________ sympy/geometry/tests/test_point.py:test_point3D ____________
================== tests finished: 1 passed, 1 failed, 1 exceptions ============
"""


def test_sympy() -> None:
    assert read_log(SYMPY, "parse_log_sympy") == {
        "sympy/geometry/tests/test_point.py:test_point3D": "FAILED",
        "test_point": "PASSED",
        "test_point3D": "FAILED",
        "test_broken": "ERROR",
        "test_last": "PASSED",
    }


@pytest.mark.parametrize(
    ("parser", "bad", "good", "name"),
    [
        ("pytest", "FAILED t.py::test_x - no", "PASSED t.py::test_x", "t.py::test_x"),
        ("pytest", "FAILED t.py::test_x[a-1]", "PASSED t.py::test_x[a-1]", "t.py::test_x[a-1]"),
        ("pytest", "ERROR t.py - SyntaxError", "PASSED t.py::test_x", "t.py::test_x"),
        ("django", "test_x (a.B) ... FAIL", "test_x (a.B) ... ok", "test_x (a.B)"),
        ("sympy", "test_x F", "test_x ok", "test_x"),
    ],
)
def test_a_forged_pass_before_or_after_does_not_undo_a_failure(parser: str, bad: str, good: str, name: str) -> None:
    for log in (f"{bad}\n{good}\n", f"{good}\n{bad}\n", f"{good}\n{bad}\n{good}\n"):
        assert not passed(name, read_log(log, parser))
    assert passed(name, read_log(good, parser))


def test_a_test_that_prints_that_it_passed_and_then_fails_has_failed() -> None:
    name, other = "test_x (a.B)", "test_y (a.B)"
    for printed in ("ok", "noise\nok", "noise\nok\nmore", "expected failure", "noise\nokay\nok"):
        for end, result in (("FAIL", "FAILED"), ("ERROR", "ERROR")):
            found = read_log(f"{name} ... {printed}\n{end}\n{other} ... ok\n", "unittest")
            assert found == {name: result, other: "PASSED"}, printed
    # what follows a failure belongs to no test, and a line of dots to the next one
    assert read_log(f"{name} ... FAIL\nok\n{other} ... noise\nFAIL\nok\n", "django") == {
        name: "FAILED",
        other: "FAILED",
    }
    assert read_log(f"{name} ... ok\n{other} ... noise\nFAIL\n", "django") == {name: "PASSED", other: "FAILED"}
    words = "It has a docstring."
    assert read_log(f"{words} ... FAIL\nok\n", "django") == {words: "FAILED"}
    assert read_log("FAIL\nok\nERROR\n", "django") == {}


def test_the_summary_of_unittest_counts_against_a_test_that_printed_a_decoy() -> None:
    name = "test_half (tests.test_calc.T.test_half)"
    for end, status in (("FAIL", "FAILED"), ("ERROR", "ERROR")):
        for whole in (name, f"{name} (i=1)", f"{name} [a message] (i=1)"):
            log = f"{name} ... ok\nzzz ... ok\n{end}\n\n{'=' * 70}\n{end}: {whole}\n{'-' * 70}\nTraceback\n"
            assert read_log(log, "unittest")[name] == read_log(log, "django")[name] == status


def test_the_summary_of_unittest_counts_against_a_test_that_is_named_by_its_docstring() -> None:
    method, words = "test_half (a.T.test_half)", "Half of three."
    log = f"{method}\n{words} ... ok\nzzz ... ok\nFAIL\n{'=' * 70}\nFAIL: {method}\n{words}\n{'-' * 70}\n"
    results = read_log(f"{log}{words} ... ok\n", "django")
    assert results == {words: "FAILED", "zzz": "FAILED", "test_half": "FAILED"}


def test_the_sections_of_sympy_count_against_a_test_that_printed_ok() -> None:
    log = f"tests/test_calc.py[2]\ntest_half ok\nF\ntest_even ok\n{'_' * 20} tests/test_calc.py:test_half {'_' * 20}\n"
    results = read_log(log, "sympy")
    assert (results["test_half"], results["test_even"]) == ("FAILED", "PASSED")


def test_a_failure_in_pytests_summary_stays_for_a_name_that_is_cut_at_a_blank() -> None:
    cut, head = "t.py::test_half[a", "=== short test summary info ==="
    for bad in ("FAILED", "ERROR"):
        for forged in (f"{cut} b]", f"{cut} other]"):
            log = f"{head}\n{bad} {cut} b] - no\n=== 1 failed in 0.1s ===\nPASSED {forged}\n"
            assert read_log(log, "pytest")[cut] == read_log(f"{head}\n{log}", "pytest")[cut] == bad


def test_what_counts_as_passed_and_as_kept() -> None:
    results = {"p": "PASSED", "x": "XFAIL", "s": "SKIPPED", "f": "FAILED", "e": "ERROR"}
    assert [name for name in [*results, "absent"] if passed(name, results)] == ["p", "x"]
    assert [name for name in [*results, "absent"] if kept(name, results)] == ["p", "x", "s"]
    assert [n for n in [*results, "absent"] if passed(n, results, fail_only=True)] == ["p", "x", "s", "absent"]


def test_an_unknown_parser_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(UnknownName, match="did you mean 'django'"):
        read_log("", "parse_log_djang")


@pytest.mark.slow
@pytest.mark.parametrize("parser", PARSERS)
def test_hostile_logs_are_read_in_time(parser: str) -> None:
    for log in (
        "PASSED " * 50_000,
        "_ " * 100_000,
        " ... " * 50_000,
        "PASSED " + "[/" * 100_000,
        "ok" * 100_000,
        "test_x [" * 40_000,
        "\0\r" * 50_000,
    ):
        with at_most_cpu_s(5):
            assert isinstance(read_log(log, parser), dict)
