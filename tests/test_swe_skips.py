"""Skipped tests, expected failures and failed subtests are seen in a log, whatever the code under test printed."""

from __future__ import annotations

import pytest

from firsthand.benchmarks.swe.swe_tasks import check, make_script
from firsthand.errors import DataError
from firsthand.scorers.patches.test_logs import failures_told, kept, passed, read_log, skips_told
from firsthand.scorers.resolved import TestRun, verdict
from swe_local import GOOD, adds

TEST, OTHER = "test_sum (a.T.test_sum)", "test_two (a.T.test_two)"
SUMMARY = "=========================== short test summary info ============================\n"


@pytest.mark.parametrize(
    "line",
    [
        "SUBFAILED t.py::T::test_a - AssertionError: 1 != 2",
        "SUBFAILED(p=[0, 7]) t.py::T::test_a - AssertionError: 1 != 2",
        "SUBFAILED[a - b] (i=1) t.py::T::test_a - AssertionError",
        "SUBFAIL t.py::T::test_a - AssertionError",
        "[a message] (i=1) SUBFAIL t.py::T::test_a - AssertionError",
        "\x1b[31mSUBFAILED\x1b[0m[of x.py::y] t.py::T::\x1b[1mtest_a\x1b[0m - AssertionError",
        "t.py::T::test_a SUBFAILED                              [ 50%]",
        "t.py::T::test_a [a message] (i=1) SUBFAIL              [ 50%]",
    ],
)
def test_a_subtest_that_failed_is_a_failure_of_its_test_though_pytest_says_passed(line: str) -> None:
    for log in (f"{SUMMARY}PASSED t.py::T::test_a\n{line}\n", f"{line}\nt.py::T::test_a PASSED [ 50%]\n"):
        assert read_log(log, "pytest")["t.py::T::test_a"] == "FAILED"


def test_a_subtest_counts_for_a_test_whose_name_is_cut_at_a_blank_and_for_no_other() -> None:
    log = f"{SUMMARY}SUBFAILED t.py::test_a[x y] - no\nPASSED t.py::test_a[x y]\nPASSED t.py::test_b\n"
    assert read_log(log, "pytest") == {"t.py::test_a[x": "FAILED", "t.py::test_b": "PASSED"}
    both = f"{SUMMARY}SUBFAILED t.py::test_a[x y] - no\nSUBXFAIL t.py::test_a[x y]\n"
    assert read_log(both, "pytest") == {"t.py::test_a[x": "FAILED"}, "also where a log lists failures alone"
    fine = "t.py::test_a SUBPASSED [ 50%]\nt.py::test_a PASSED [ 50%]\nPASSED t.py::test_SUBFAIL\n"
    assert set(read_log(fine, "pytest").values()) == {"PASSED"}


def test_an_expected_failure_of_a_subtest_is_one_of_its_test() -> None:
    log = f"{SUMMARY}PASSED t.py::test_a\nSUBXFAIL(i=1) t.py::test_a - because\n"
    assert read_log(log, "pytest") == {"t.py::test_a": "XFAIL"}
    assert not passed("t.py::test_a", read_log(log, "pytest"), xfailed=())


@pytest.mark.parametrize("name", [TEST, "Sums are right."])
@pytest.mark.parametrize("before", ["", "text", "text without an end, "])
def test_a_test_of_unittest_that_printed_ok_and_was_skipped_is_skipped(name: str, before: str) -> None:
    for end, status in (("skipped 'x'", "SKIPPED"), ('skipped "it\'s"', "SKIPPED"), ("unexpected success", "FAILED")):
        line = f"{before}\n{end}" if before == "text" else f"{before}{end}"
        for log in (f"{name} ... ok\n{line}\n", f"{name} ... noise\nok\n{line}\n{OTHER} ... ok\n\nOK\n"):
            for parser in ("unittest", "django"):
                results = read_log(log, parser)
                assert results.pop(OTHER, "PASSED") == "PASSED" and results == {name: status}, log
                assert not passed(name, results) and not kept(name, results, xfailed=())
    results = read_log(f"{name} ... ok\n{before}expected failure\n{OTHER} ... ok\n", "unittest")
    assert results == {name: "XFAIL", OTHER: "PASSED"} and not passed(name, results, xfailed=())


def test_a_test_of_unittest_may_print_what_looks_like_an_end_before_it_passes() -> None:
    for printed in ("skipped 'x'", "expected failure", "a\nskipped 'x'\nb", "skipped 'x'\nskipped 'y'", "skipped all"):
        log = f"{TEST} ... {printed}\nok\n{OTHER} ... noise\nok\n\n{'-' * 70}\nRan 2 tests in 0.001s\n\nOK\n"
        assert passed(OTHER, read_log(log, "unittest"))
        assert passed(TEST, read_log(log.replace(f"... {printed}", f"... noise\n{printed}"), "unittest")), printed
    line = "=" * 70
    told = '    raise SkipTest("x")  # skipped "x"\nAssertionError: this was no expected failure\n'
    log = f"{TEST} ... FAIL\n{OTHER} ... ok\n\n{line}\nFAIL: {TEST}\n{'-' * 70}\n{told}\nRan 2 tests in 0.1s\nFAILED\n"
    assert read_log(log, "unittest")[OTHER] == "PASSED", "a traceback is no end of the last test"


def test_what_one_test_prints_does_not_undo_the_skip_of_another() -> None:
    for line in ("ok\nthat is ok", "noise\nok"):
        log = f"{TEST} ... ok\nskipped 'x'\n{OTHER} ... {line}\n"
        assert read_log(log, "unittest") == {TEST: "SKIPPED", OTHER: "PASSED"}


def test_what_is_printed_after_the_tests_does_not_undo_a_skip_of_the_last_one() -> None:
    log = f"{TEST} ... ok\nskipped 'x'\n\n{'-' * 70}\nRan 1 test in 0.001s\n\nOK (skipped=1)\nok\n"
    assert read_log(log, "unittest")[TEST] == "SKIPPED"


def test_a_test_of_unittest_with_a_skipped_subtest_or_an_unexpected_success_has_not_passed() -> None:
    log = f"{TEST} ... ok\n\n  {TEST} (i=1) ... skipped 'x'\n{OTHER} ... ok\n"
    assert read_log(log, "unittest")[TEST] == "SKIPPED"
    log = f"{TEST} ... ok\nzzz ... ok\nunexpected success\n{'=' * 70}\nUNEXPECTED SUCCESS: {TEST}\n{'-' * 70}\n"
    assert read_log(log, "unittest")[TEST] == "FAILED"


def test_the_runners_counts_of_skipped_tests_are_read() -> None:
    for log, count in (
        ("======== 1 failed, 2 passed, 3 skipped, 1 warning in 0.10s ========\n", 3),
        ("\x1b[31m=== \x1b[1m1 failed\x1b[0m, \x1b[33m4 skipped\x1b[0m\x1b[31m in 61.02s (0:01:01)\x1b[0m ===\n", 4),
        ("1 failed, 2 passed in 0.10s\n", 0),
        ("1 failed, 3 skipped, 3 subtests passed in 0.10s\n1 passed, 2 skipped in 0.1s\n", 5),
        ("===== no tests ran in 0.01s =====\n", 0),
        ("Ran 3 tests in 0.1s\n\nFAILED (failures=1, skipped=8, expected failures=1)\n", 8),
        ("Ran 3 tests in 0.1s\n\nOK\n", 0),
        ("Ran 3 tests in 0.1s\n\nOK (skipped=2)\n", 2),
        ("==== tests finished: 1 passed, 2 skipped, 1 expected to fail, in 0.10 seconds ====\n", 2),
        ("SKIPPED [1] t.py:3: 7 skipped in 1s\nPASSED t.py::test_a\n", None),
        ("", None),
    ):
        assert skips_told(log) == count, log


def test_the_runners_last_counts_tell_whether_tests_failed() -> None:
    for log, told in (
        ("======== 1 failed, 2 passed, 3 skipped, 1 warning in 0.10s ========\n", True),
        ("\x1b[31m=== \x1b[1m1 failed\x1b[0m, \x1b[33m4 skipped\x1b[0m\x1b[31m in 61.02s (0:01:01)\x1b[0m ===\n", True),
        ("=== 2 passed, 1 error in 0.10s ===\n", True),
        ("2 errors in 0.10s\n", True),
        ("1 subtests failed, 1 passed in 0.10s\n", True),
        ("2 passed, 1 xfailed, 1 xpassed, 3 warnings in 0.10 seconds\n", False),
        ("===== no tests ran in 0.01s =====\n", False),
        ("Ran 3 tests in 0.1s\n\nFAILED (failures=1, skipped=8)\n", True),
        ("Ran 3 tests in 0.1s\n\nFAILED\n", True),
        ("Ran 3 tests in 0.1s\n\nOK (skipped=2, expected failures=1)\n", False),
        ("==== tests finished: 1 passed, 2 exceptions, in 0.10 seconds ====\n", True),
        ("1 failed in 0.01s\nPASSED t.py::test_inner\n=== 1 passed in 0.10s ===\n", False),  # a run within a test
        ("1 passed in 0.01s\nFAILED t.py::test_inner\n=== 1 failed in 0.10s ===\n", True),
        ("FAILED t.py::test_a - 1 failed in 1s\nFAILED: no\nERROR    app:t.py:3 no\n", None),
        ("", None),
    ):
        assert failures_told(log) is told, log


def test_a_run_that_skips_more_than_the_reference_patch_is_not_resolved() -> None:
    def scored(skips: int | None, **secret: int) -> tuple[float, str]:
        run = TestRun({"t": "PASSED"}, 1, "error", "git apply", "", 1.0, "t", "", skips=skips)
        score = verdict(run, {"FAIL_TO_PASS": ["t"], "PASS_TO_PASS": [], "XFAIL": [], **secret})
        return score.value, score.detail.get("reason", "")

    assert scored(3) == scored(None) == scored(1, SKIPS=1) == scored(0, SKIPS=1) == scored(0, SKIPS=0) == (1.0, "")
    expected = "were expected, as with the reference patch"
    assert scored(2, SKIPS=1) == (0.0, f"the log counts 2 as skipped: at most 1 {expected}")
    assert scored(None, SKIPS=0) == (0.0, f"the log does not tell how many tests were skipped: at most 0 {expected}")


def test_a_record_may_tell_how_many_tests_its_reference_skips() -> None:
    tests = adds("tests/test_x.py", "pass")
    row = {"instance_id": "a-1", "repo": "r", "base_commit": "a" * 40, "problem_statement": "?", "test_patch": tests}
    row |= {"eval_script": make_script("pytest", "a" * 40, tests), "patch": GOOD, "PASS_TO_PASS": []}
    row |= {"FAIL_TO_PASS": ["a"]}
    assert "SKIPS" not in check(row, "row 1") and check({**row, "SKIPS": 0}, "row 1")["SKIPS"] == 0
    for bad in (-1, True, "1", 1.0):
        with pytest.raises(DataError, match=r"^row 1: SKIPS is .*: a number of tests, 0 or more, was expected$"):
            check({**row, "SKIPS": bad}, "row 1")
