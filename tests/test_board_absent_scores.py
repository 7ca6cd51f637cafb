"""What a file of results does not hold is no score: tests that did not run, instances that nobody submitted, odd cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from firsthand.boards.board_results import BoardResult, ResultSet
from firsthand.boards.read_results import read_results
from firsthand.errors import DataError


def read(folder: Path, name: str, content: Any) -> ResultSet:
    """The results of one file, whose content is text or becomes JSON."""
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_results([path], folder)


def evaluated(*samples: dict[str, Any]) -> dict[str, Any]:
    """A file of EvalPlus with a task for each sample."""
    return {"hash": "h", "eval": {f"HumanEval/{i}": [sample] for i, sample in enumerate(samples)}}


PASSED, FAILED = {"base_status": "pass", "plus_status": "pass"}, {"base_status": "pass", "plus_status": "fail"}


@pytest.mark.parametrize("lacking", [{"plus_status": None}, {}])
def test_tests_that_evalplus_did_not_run_have_no_score(tmp_path: Path, lacking: dict[str, Any]) -> None:
    name = "m_eval_results.json"
    base_only = [{"base_status": status, **lacking} for status in ("pass", "pass", "fail")]
    found = read(tmp_path, name, evaluated(*base_only))
    assert [(each.benchmark, round(each.value, 2)) for each in found.results] == [("humaneval", 0.67)]
    both = read(tmp_path, name, evaluated(PASSED, FAILED)).results
    assert sorted((each.benchmark, each.value) for each in both) == [("humaneval", 1.0), ("humaneval_plus", 0.5)]
    with pytest.raises(DataError, match="HumanEval/1 has no plus_status and others have one"):
        read(tmp_path, name, evaluated(PASSED, base_only[0], FAILED))
    with pytest.raises(DataError, match="HumanEval/1 has no base_status"):
        read(tmp_path, name, evaluated(PASSED, {"base_status": None, "plus_status": "pass"}))


REPORT = {
    "total_instances": 300,
    "submitted_instances": 3,
    "submitted_ids": ["a", "b", "c"],
    "resolved_ids": ["a", "b"],
}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"resolved_ids": ["a", "z"]}, "'z' is resolved and was not submitted"),
        ({"resolved_ids": ["a", "a"]}, "'a' is resolved more than once: give each instance one verdict"),
        ({"submitted_ids": ["a", "b", "b"]}, "'b' is submitted more than once"),
        ({"resolved_instances": 3}, "3 resolved instances are stated and 2 listed"),
        ({"resolved_instances": 1}, "1 resolved instances are stated and 2 listed"),
        ({"submitted_instances": 4}, "4 submitted instances are stated and 3 listed"),
        ({"submitted_ids": None, "submitted_instances": 1}, "2 instances are resolved and 1 submitted"),
        ({"resolved_ids": None, "resolved_instances": 4}, "4 instances are resolved and 3 submitted"),
    ],
)
def test_reports_whose_lists_and_counts_contradict_each_other_are_refused(
    tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    with pytest.raises(DataError, match=why):
        read(tmp_path, "m.r1.json", {**REPORT, **change})


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"resolved_instances": 2},
        {"submitted_ids": None},
        {"submitted_ids": None, "submitted_instances": None},
        {"submitted_ids": None, "submitted_instances": 2},
        {"resolved_ids": None, "resolved_instances": 2},
    ],
)
def test_reports_of_a_part_of_the_split_are_read_whatever_they_leave_out(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    [found] = read(tmp_path, "m.r1.json", {**REPORT, **change}).results
    assert (found.value, found.n) == (2 / 300, 300)


def test_a_column_with_a_cell_that_is_no_number_is_left_out_and_named(tmp_path: Path) -> None:
    head = "model,MMLU,HumanEval,notes\n"
    found = read(tmp_path, "t.csv", f"{head}A,0.7,0.9,x\nB,0.6,0.1*,y\nC,0.5,0.2,1\nD,0.4,-,2\nE,0.3,,\n")
    assert {each.benchmark for each in found.results} == {"MMLU"}
    [said] = found.remarks
    assert said == f"HumanEval is left out: 'B' has '0.1*', which is no number ({tmp_path / 't.csv'}, line 3)."
    assert read(tmp_path, "t.csv", f"{head}A,0.7,0.9,x\nB,0.6,?,y\n").remarks == ()  # as many words as numbers
    assert read(tmp_path, "t.csv", "model,MMLU,HumanEval\nA,0.7,0.9\nB,0.6,-\n").remarks == ()


@pytest.mark.parametrize(
    ("one", "other", "named"),
    [
        ('"0,95"', '"0,5"', True),
        ('"1,234"', "1000", True),
        ("1_000", "2", True),
        ('"0,95"', "x", False),
        ("7B", "3B", False),
    ],
)
def test_a_column_of_numbers_that_are_not_read_is_named(tmp_path: Path, one: str, other: str, named: bool) -> None:
    found = read(tmp_path, "t.csv", f"model,MMLU,GSM8K\nA,0.7,{one}\nB,0.6,{other}\n")
    assert {each.benchmark for each in found.results} == {"MMLU"} and len(found.remarks) == named
    assert all(said.startswith("GSM8K is left out: 'A' has ") for said in found.remarks)


def test_digits_with_underscores_are_no_number(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="score is '1_0': a number was expected"):
        read(tmp_path, "t.csv", "model,benchmark,score\nA,b,1_0\n")
    [found] = read(tmp_path, "t.csv", "model,benchmark,score\nA_1,b,1.0\n").results
    assert isinstance(found, BoardResult) and found.value == 1.0
