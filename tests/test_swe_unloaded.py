"""Verdicts on tests that a log does not show to have run: not loaded, not set up, expected to fail, or skipped."""

from __future__ import annotations

import pytest

from firsthand.benchmarks.swe.swe_tasks import check, make_script
from firsthand.errors import DataError
from firsthand.scorers.patches.test_logs import kept, passed, read_log
from firsthand.scorers.resolved import TestRun, _doubt, verdict
from swe_local import GOOD, adds

TEST = "test_sum (tests.test_calc.TestCalc.test_sum)"


def test_where_a_log_lists_failures_alone_a_test_of_a_file_that_was_not_loaded_has_not_passed() -> None:
    for log in (
        "ERROR: tests.test_calc (unittest.loader._FailedTest.tests.test_calc)\nImportError: broken\n",
        "tests.test_calc (unittest.loader._FailedTest.tests.test_calc) ... ERROR\n",
        "ERROR: tests.test_calc (unittest.loader._FailedTest)\n",
        "ERROR: test_calc (unittest.loader._FailedTest.test_calc)\n",
        "ERROR: setUpClass (tests.test_calc.TestCalc)\n",
        "ERROR: setUpModule (tests.test_calc)\n",
        f"ERROR: {TEST}\n{TEST} ... ERROR\n",
        f"{TEST} ... FAIL\n",
    ):
        assert not passed(TEST, read_log(log, "unittest"), fail_only=True), log
    for log in (
        "",
        "ERROR: tests.test_calc2 (unittest.loader._FailedTest.tests.test_calc2)\n",
        "ERROR: setUpClass (tests.test_calc.TestOther)\n",
        "ERROR: test_other (tests.test_calc.TestCalc.test_other)\n",
        f"{TEST} ... ok\n",
    ):
        assert passed(TEST, read_log(log, "unittest"), fail_only=True), log
    by_docstring = read_log("ERROR: tests.test_calc (unittest.loader._FailedTest.tests.test_calc)\n", "unittest")
    assert not passed("Sums are right.", by_docstring, fail_only=True), "it may be of any module"
    broken = read_log("ERROR tests/test_calc.py\n", "pytest")
    assert not passed("tests/test_calc.py::test_a", broken, fail_only=True)
    assert passed("tests/test_calc2.py::test_a", broken, fail_only=True)


def test_where_a_log_lists_failures_alone_an_empty_one_agrees_with_the_exit_status() -> None:
    assert _doubt({}, 1, None, True).endswith("the exit status is 1, and it names no failed test")
    assert _doubt({}, 0, None, True) == "" == _doubt({}, 1, None)


def test_an_expected_failure_counts_if_the_reference_has_it_and_is_named_where_that_is_not_known() -> None:
    results = {"a": "XFAIL", "b": "PASSED", "c": "SKIPPED"}
    run = TestRun(results, 1, "error", "git apply", "", 1.0, "t", "")
    secret = {"FAIL_TO_PASS": ["a"], "PASS_TO_PASS": ["b", "c"]}
    as_published = verdict(run, secret)
    assert as_published.value == 1 and as_published.detail["skipped_or_xfailed"] == ["a", "c"]
    told = verdict(run, {**secret, "XFAIL": []})
    assert told.value == 0 and (told.detail["still_failing"], told.detail["broken"]) == (["a"], ["c"])
    assert verdict(run, {"FAIL_TO_PASS": ["a"], "PASS_TO_PASS": ["b"], "XFAIL": ["a"]}).value == 1
    assert passed("b", results, xfailed=()) and kept("c", results) and not kept("c", results, xfailed=())


def test_a_record_may_list_the_expected_failures_of_its_reference() -> None:
    tests = adds("tests/test_x.py", "pass")
    row = {"instance_id": "a-1", "repo": "r", "base_commit": "a" * 40, "problem_statement": "?", "test_patch": tests}
    row |= {"eval_script": make_script("pytest", "a" * 40, tests), "patch": GOOD, "PASS_TO_PASS": []}
    assert "XFAIL" not in check({**row, "FAIL_TO_PASS": ["a"]}, "row 1"), "the published records have none"
    assert check({**row, "FAIL_TO_PASS": ["a"], "XFAIL": '["a"]'}, "row 1")["XFAIL"] == ["a"]
    with pytest.raises(DataError, match=r"^row 1: XFAIL must be a list of names of tests"):
        check({**row, "FAIL_TO_PASS": ["a"], "XFAIL": 3}, "row 1")
