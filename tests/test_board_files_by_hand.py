"""Boards and result files, each rule on values worked out by hand: order of lines, strays, names, subsets, blind pairs."""

from __future__ import annotations

import json
import math
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.boards.board_results import BoardResult, ColumnKey, ItemScores, ResultSet
from firsthand.boards.board_spec import BoardSpec
from firsthand.boards.make_board import _lines, make_board
from firsthand.boards.read_results import read_results
from firsthand.boards.result_file import read_result_file, write_result_file
from firsthand.boards.result_formats.code_reports import swe_results
from firsthand.boards.result_formats.mteb_results import mteb_results
from firsthand.boards.result_formats.rubric_grades import blind_sheet
from firsthand.boards.result_formats.swe_leaderboards import swe_leaderboard_results
from firsthand.errors import DataError


def refusal(made: Any) -> str:
    with pytest.raises(DataError) as told:
        list(made)
    return str(told.value)


def test_lines_go_by_score_and_only_equal_scores_by_the_best_rank_and_the_name() -> None:
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        names, scores, errors = ("a", "b", "wide"), np.array([0.9, 0.8, 0.7]), np.array([0.02, 0.02, 0.3])
        at = list(order)
        made = _lines([names[i] for i in at], scores[at], np.diag(errors[at] ** 2), math.inf, 0.95,
                      [{"place": i} for i in at])  # fmt: skip
        assert [(each.model, each.rank_low, each.rank_high, each.parts) for each in made] == [
            ("a", 1, 2, {"place": 0}), ("b", 2, 3, {"place": 1}), ("wide", 1, 3, {"place": 2}),
        ]  # fmt: skip
        assert [each.high - each.low for each in made] == pytest.approx([2 * 1.959964 * e for e in errors])
    # of two equal scores the one that may be first, and of two that are equal in both the first name
    values = {"top": (0.9, 0.01), "sure": (0.5, 0.01), "asure": (0.5, 0.01), "wide": (0.5, 0.6)}
    results = ResultSet.of([BoardResult(name, "b", value, error=error) for name, (value, error) in values.items()])
    for rule in ("each", "weighted"):
        [section] = make_board(results, BoardSpec(rule=rule, reported="together")).sections  # type: ignore[arg-type]
        assert [(each.model, each.rank_low) for each in section.lines] == [
            ("top", 1), ("wide", 1), ("asure", 2), ("sure", 2),
        ]  # fmt: skip


def test_an_instance_that_is_resolved_must_have_been_submitted() -> None:
    report = {"submitted_ids": ["b", "a"], "incomplete_ids": ["c", "d"], "total_instances": 4}
    path = Path("m.run.json")
    for resolved, stray in ((["c"], "c"), (["a", "d", "c"], "c"), (["b", "z"], "z")):
        assert refusal(swe_results({**report, "resolved_ids": resolved}, path)) == (
            f"m.run.json: {stray!r} is resolved and was not submitted: is the report edited?"
        )
    for resolved in ([], ["a"], ["a", "b"]):
        [found] = swe_results({**report, "resolved_ids": resolved}, path)
        assert isinstance(found, ItemScores) and found.tasks == ("a", "b", "c", "d")
        assert found.scores.tolist() == [[float(task in resolved) for task in found.tasks]]
        assert (found.models, found.abouts[0].value, found.abouts[0].run) == (("m",), len(resolved) / 4, "run")
    for lacks, won in (
        ({"incomplete_ids": None}, "a"),
        ({"incomplete_ids": ["c"]}, "a"),
        ({"submitted_ids": None}, "c"),
    ):
        [stated] = swe_results({**report, "resolved_ids": [won], **lacks}, path)
        assert isinstance(stated, BoardResult) and (stated.value, stated.n) == (0.25, 4)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ('UPDATE results SET body = \'{"model": "m", "benchmark": "b", "value": 1, "new": 2}\'', "'new'"),
        ('UPDATE results SET body = \'{"model": "m"}\'', "missing 2 required"),
        ("UPDATE results SET body = '[1]'", "must be a mapping"),
        ("UPDATE results SET body = 'x'", "Expecting value"),
        ('UPDATE item_columns SET abouts = \'[{"model": "m"}]\'', "missing 2 required"),
        ("UPDATE item_columns SET abouts = '[3]'", "must be a mapping"),
        ("UPDATE item_columns SET key = '[]'", "ColumnKey.__new__()"),
        ("UPDATE item_columns SET key = '[1, 2, 3, 4]'", "a list of texts was expected"),
        ("UPDATE item_columns SET tasks = '3'", "has no len"),
        ("UPDATE item_columns SET clusters = '3'", "a list of texts was expected, not 3"),
        ("UPDATE item_columns SET tasks = '{'", "Expecting property name"),
        ("UPDATE item_scores SET scores = 3", "has no len"),
    ],
)
def test_a_file_of_results_with_parts_of_another_form_is_damaged(tmp_path: Path, change: str, why: str) -> None:
    path = tmp_path / "r.results"
    items = ItemScores(ColumnKey("b", "p", "acc"), ("m",), ("1", "2"), np.array([[1, 0]], np.float32))
    write_result_file(path, ResultSet.of([BoardResult("n", "b", 0.5)], [items]))
    assert len(list(read_result_file(path))) == 2
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(change)
    said = refusal(read_result_file(path))
    assert said.startswith(f"{path} is no file of results, or is damaged: ") and why in said, said


def test_english_subsets_of_any_task_are_not_named_in_the_protocol() -> None:
    def protocol(task: str, *subsets: str | None) -> str:
        parts = [{"main_score": 0.5, **({"hf_subset": name} if name else {})} for name in subsets]
        [found] = mteb_results({"task_name": task, "scores": {"test": parts}}, Path("m/r/t.json"), {})
        return found.protocol.removeprefix("MTEB, split test")

    for subsets in ([None], ["default"], ["en"], ["en-en"], ["en", "en-en"], ["default", "en"], ["en", "en"]):
        assert [protocol(task, *subsets) for task in ("Mine", "STS17")] == ["", ""], subsets
    for subsets, told in (
        (["de"], ", subset de"), (["en-de"], ", subset en-de"), (["en-ext"], ", subset en-ext"),
        (["de", "fr"], ", 2 subsets"),
    ):  # fmt: skip
        assert [protocol(task, *subsets) for task in ("Mine", "STS17")] == [told, told], subsets
        assert [protocol(task, "en", *subsets) for task in ("Mine", "STS17")] == [told, ""], subsets


def test_systems_of_one_name_are_told_apart_with_the_verdicts_that_they_have() -> None:
    def row(name: str, folder: str, *verdicts: bool, **more: Any) -> dict[str, Any]:
        details = {f"i{at}": {"resolved": each, "cost": at} for at, each in enumerate(verdicts, 1)}
        return {"name": name, "folder": folder, "resolved": 50, "per_instance_details": details, **more}

    body = {
        "leaderboards": [
            {"name": "Verified", "results": [row("a", "f1", True, False), row("a", "f2", False, True, True),
                                             row("b", "f3", True), row("a", "f4")]},
            {"name": "Lite", "results": [row("a", "f5", True, warning="no"), row("b", "f6", False)]},
        ]
    }  # fmt: skip
    remarks: list[str] = []
    found = list(swe_leaderboard_results(body, "f", remarks))
    verified = {"benchmark": "swe_bench_verified", "value": 0.5, "protocol": "SWE-bench leaderboard",
                "metric": "resolved", "n": 500, "source": "f"}  # fmt: skip
    lite = verified | {"benchmark": "swe_bench_lite", "n": 300}
    expected = (
        ("a [f1]", "f1", 1.5, [1.0, 0.0], verified), ("a [f2]", "f2", 2.0, [0.0, 1.0, 1.0], verified),
        ("b", "f3", 1.0, [1.0], verified), ("a [f4]", "f4", None, [], verified), ("b", "f6", 1.0, [0.0], lite),
    )  # fmt: skip
    assert len(found) == len(expected)
    for each, (model, run, cost, scores, about) in zip(found, expected, strict=True):
        stated = BoardResult(model, run=run, cost_usd=cost, **about)
        if not scores:
            assert each == stated
            continue
        assert isinstance(each, ItemScores) and (each.key, each.models, each.abouts) == (
            stated.key,
            (model,),
            (stated,),
        )
        assert each.scores.tolist() == [scores] and each.tasks == tuple(f"i{at + 1}" for at in range(len(scores)))
        assert [result.model for result in each.results()] == [model]
    assert remarks == ["1 results carry SWE-bench's warning and are left out, as on its page: a on swe_bench_lite."]


def test_pairs_of_graders_are_drawn_and_nobody_has_more_than_one_answer_more() -> None:
    answers = [(f"q{n}", "m", "text") for n in range(10)]
    seen: Counter[tuple[str, ...]] = Counter()
    for seed in range(12):
        rows, codes = blind_sheet(answers, ["a", "b", "c", "d"], ["x"], seed=seed)
        graders: dict[str, list[str]] = {code: [] for code in codes}
        load = dict.fromkeys("abcd", 0)
        for row in rows:
            graders[row["model"]].append(row["grader"])
            load[row["grader"]] += 1
            assert row == {"item": row["item"], "model": row["model"], "grader": row["grader"], "criterion": "x",
                           "answer": "text", "grade": ""}  # fmt: skip
        assert load == dict.fromkeys("abcd", 5)
        assert all(len(set(pair)) == 2 for pair in graders.values()) and set(codes.values()) == {"m"}
        seen.update(map(tuple, graders.values()))
        assert sorted({row["item"] for row in rows}) == sorted(item for item, _, _ in answers)
    assert len(seen) == 12, "every pair, in both orders"
    assert len({json.dumps(blind_sheet(answers, ["a", "b"], ["x"], seed=seed)[0]) for seed in range(5)}) == 5


def test_a_grader_who_is_named_twice_grades_an_answer_once() -> None:
    answers = [(f"q{n}", "m", "text") for n in range(9)]
    for seed in range(3):
        assert blind_sheet(answers, ["a", "b", "a", "c", "b"], ["x"], seed=seed) == blind_sheet(
            answers, ["a", "b", "c"], ["x"], seed=seed
        )


def test_a_file_of_results_whose_fields_are_of_another_type_is_refused_in_one_sentence(tmp_path: Path) -> None:
    good: dict[str, Any] = {
        "model": "m",
        "benchmark": "b",
        "value": 0.5,
        "n": 3,
        "error": None,
        "when": "2026-01-02T00:00:00+00:00",
    }
    column = [1, json.dumps(["b", "p", "m"]), '["1", "2"]', "[]", "[]"]

    def told(body: Any, column: list[Any], model: Any = "m") -> str:
        path = tmp_path / "a.results"
        write_result_file(path, ResultSet.of([], [], []))
        with closing(sqlite3.connect(path)) as file, file:
            file.execute("INSERT INTO results VALUES (?)", (json.dumps(body),))
            file.execute("INSERT INTO item_columns VALUES (?, ?, ?, ?, ?, '[]')", column)
            file.execute("INSERT INTO item_scores VALUES (1, ?, ?)", (model, bytes(8)))
        try:
            read_results([path], tmp_path)
        except DataError as error:
            return str(error).removeprefix(f"{path} is no file of results, or is damaged: ")
        return "read"

    again = ": import the results again"
    assert told(good, column) == "read" == told(good | {"value": 1, "error": 2}, column)
    for name, value, type in (
        ("value", "x", "float"), ("value", None, "float"), ("value", True, "float"), ("model", 5, "str"),
        ("benchmark", [1], "str"), ("error", "x", "float | None"), ("n", 0.5, "int"), ("when", 5, "str"),
        ("seconds", [1], "float | None"), ("group", {}, "str"), ("commit", {"a": 1}, "str"), ("verified", 1, "bool"),
    ):  # fmt: skip
        says = f"{name} is {str(value)!r}, and {type} was expected{again}"
        assert told(good | {name: value}, column) == says, name
    assert told(good | {"value": 10**400}, column) == f"int too large to convert to float{again}"
    assert told(good | {"when": "noday"}, column) == f"Invalid isoformat string: 'noday'{again}"
    assert told(good | {"when": "2026-01-02"}, column) == f"when is '2026-01-02', and has no time zone{again}"
    for place, text in ((1, "[1, 2, 3]"), (2, "[1, [2]]"), (2, '{"a": 1, "b": 2}'), (3, "[1, {}]")):
        changed = [*column[:place], text, *column[place + 1 :]]
        found = str(json.loads(text))
        assert told(good, changed) == f"a list of texts was expected, not {found}{again}"
    assert told(good, [*column[:4], '[{"model": 5, "benchmark": "b", "value": 1}]']).startswith("model is '5'")
    assert told(good, column, b"m") == f"a list of texts was expected, not [b'm']{again}"
