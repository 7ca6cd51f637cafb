"""Scores of imported logs: each under its own name, a missing one failed in its place, values as Inspect counts them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from firsthand.boards.result_formats.inspect_logs import inspect_results
from firsthand.bridges.inspect.eval_logs import _score_names, _scores, import_eval
from firsthand.bridges.lm_eval.sample_lines import import_samples
from firsthand.runs.store import open_run
from firsthand.scorers.inspect_values import MAX_CHARS, inspect_value
from firsthand.stats.run_summary import summary


def eval_log(folder: Path, *scores: Any) -> Path:
    path = folder / "log.eval"
    with zipfile.ZipFile(path, "w") as log:
        log.writestr("header.json", json.dumps({"status": "success", "eval": {"model": "m", "task": "t"}}))
        for n, each in enumerate(scores):
            given = {name: {"value": value} for name, value in each.items()}
            sample = {"id": n, "epoch": 1, "input": "q", "target": "x", "messages": [], "scores": given}
            log.writestr(f"samples/{n}_epoch_1.json", json.dumps(sample))
    return path


def lines(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "samples_t_2026-01-01T00-00-00.0.jsonl"
    given = [
        {"doc_id": n, "doc": {"q": n}, "filtered_resps": ["x"], "filter": "none"} | row for n, row in enumerate(rows)
    ]
    path.write_text("\n".join(map(json.dumps, given)))
    return path


def scores_of(made: tuple[str, int], home: Path) -> tuple[list[list[tuple[str, float, str | None]]], float, int]:
    with open_run(made[0], home) as run:
        (row,) = summary(run)
        found = [[(s.name, s.value, s.failure) for s in each.scores] for each in run.traces()]
        return found, row.score.value, row.errors


def test_values_are_read_by_inspects_table() -> None:
    right = [1, 1.0, True, "C", "yes", "YES", "True", "1", " 1.0 "]
    wrong = [0, False, "I", "N", "no", "False", "0", "0.0"]
    assert [inspect_value(each) for each in [*right, *wrong]] == [1.0] * len(right) + [0.0] * len(wrong)
    assert [inspect_value(each) for each in ("P", "0.5", "-2", 3)] == [0.5, 0.5, -2.0, 3.0]
    none = ["c", "maybe", "", "nan", "inf", "1e300", "-1e300", 1e300, 10**400, float("nan"), None, [1], {"a": 1}]
    assert [inspect_value(each) for each in none] == [None] * len(none)
    assert inspect_value("0" * MAX_CHARS) == 0.0 and inspect_value("0" * (MAX_CHARS + 1)) is None


def test_an_inspect_score_that_is_missing_fails_in_its_place(tmp_path: Path) -> None:
    log = eval_log(
        tmp_path, {"match": None, "f1": 0.75}, {"match": "C", "f1": 1}, {"f1": 0.5}, {"f1": 0.25, "match": "maybe"},
        {"f1": 1, "match": "no", "more": 1, "text": "x"}, {},
    )  # fmt: skip
    found, mean, errors = scores_of(import_eval(log, tmp_path), tmp_path)
    assert [each[:2] for each in found] == [
        [("match", 0.0, "no number: None in the log"), ("f1", 0.75, None)],
        [("match", 1.0, None), ("f1", 1.0, None)],
        [("match", 0.0, "no number: None in the log"), ("f1", 0.5, None)],
        [("match", 0.0, "no number: 'maybe' in the log"), ("f1", 0.25, None)],
        [("match", 0.0, None), ("f1", 1.0, None)],
        [],
    ]
    assert found[4][2:] == [("more", 1.0, None)]
    assert mean == pytest.approx(1 / 6) and errors == 4


def test_parts_of_a_score_are_missing_where_the_score_is(tmp_path: Path) -> None:
    log = eval_log(tmp_path, {"s": "lost"}, {"s": {"a": 1, "b": 0}}, {"s": {"b": 1, "a": 0}})
    found, mean, errors = scores_of(import_eval(log, tmp_path), tmp_path)
    lost = "no number: 'lost' in the log"
    assert found == [
        [("s.a", 0.0, lost), ("s.b", 0.0, lost)], [("s.a", 1.0, None), ("s.b", 0.0, None)],
        [("s.a", 0.0, None), ("s.b", 1.0, None)],
    ]  # fmt: skip
    assert (mean, errors) == (pytest.approx(1 / 3), 1)


def test_a_score_keeps_what_the_scorer_said_failed_or_not() -> None:
    said = {"answer": "5", "explanation": "off by one"}
    right, failed, bare = _scores({"a": {"value": "C", **said}, "b": {"value": "?", **said}}, ["a", "b", "c"])
    assert right.detail == failed.detail == said and bare.detail == {}
    assert (right.failure, failed.failure, bare.failure) == (
        None, "no number: '?' in the log", "no number: None in the log",
    )  # fmt: skip
    assert [(each.name, each.value) for each in (right, failed, bare)] == [("a", 1.0), ("b", 0.0), ("c", 0.0)]


def test_names_are_of_the_first_whole_sample_or_of_all_numbers() -> None:
    def given(**values: Any) -> dict[str, Any]:
        return {name: {"value": value} for name, value in values.items()}

    assert _score_names([{}, None, given(b=None, a=1), given(a=1, b=0), given(c=1)]) == ["a", "b"]
    assert _score_names([given(kind="x", a=1), given(kind="y", b=2)]) == ["a", "b"], "of kind no sample has a number"


def test_a_sample_of_lm_eval_keeps_each_score_under_its_name(tmp_path: Path) -> None:
    both = {"metrics": ["list", "acc", "f1"], "list": [1, 2], "f1": 0.5}
    file = lines(
        tmp_path, both | {"acc": None}, both | {"acc": 1}, both | {"acc": float("nan")}, {"metrics": ["f1"], "f1": 1}
    )
    found, mean, errors = scores_of(import_samples(file, tmp_path), tmp_path)
    assert [[name for name, _, _ in each] for each in found] == [["acc", "f1"]] * 4
    assert [each[0][1:] for each in found] == [
        (0.0, "no number: None in the file"), (1.0, None), (0.0, "no number: nan in the file"),
        (0.0, "no number: None in the file"),
    ]  # fmt: skip
    assert (mean, errors) == (0.25, 3)


def test_a_document_that_comes_twice_has_two_attempts_and_no_other_document(tmp_path: Path) -> None:
    one = {"doc_id": 0, "doc": {"q": "a"}, "metrics": ["acc"]}
    file = lines(tmp_path, one | {"acc": 1}, one | {"acc": 0}, {"metrics": ["acc"], "acc": 0})
    made = import_samples(file, tmp_path)
    with open_run(made[0], tmp_path) as run:
        assert [(each.task_id, each.epoch) for each in run.traces()] == [("0", 0), ("0", 1), ("2", 0)]
        assert len({each.id for each in run.traces()}) == 3
        assert summary(run)[0].score.value == 0.25 and summary(run)[0].attempts == 3
    with open_run(import_samples(lines(tmp_path, *[one | {"acc": 1}] * 3), tmp_path)[0], tmp_path) as run:
        assert [each.epoch for each in run.traces()] == [0, 1, 2]
    two = [one | {"filter": name, "acc": 1} for name in ("strict", "loose")]
    with open_run(import_samples(lines(tmp_path, *two), tmp_path)[0], tmp_path) as run:
        assert [each.epoch for each in run.traces()] == [0, 0], "a filter is an agent of its own"


def test_boards_read_the_same_values() -> None:
    body = {"status": "success", "eval": {"model": "m", "task": "t"}, "samples": [
        {"id": n, "scores": {"s": {"value": value}}} for n, value in enumerate(["yes", "0.5", "no", "C", True])
    ]}  # fmt: skip
    (table,) = inspect_results(body, "x", [])
    assert table.scores.tolist() == [[1.0, 0.5, 0.0, 1.0, 1.0]]
