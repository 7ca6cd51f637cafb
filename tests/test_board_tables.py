"""Tables of scores and of grades: every field of a row, the numbers in cells, and which answers are scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.benchmarks.sources.tables import TableRow
from firsthand.boards.board_results import BoardResult, ColumnKey
from firsthand.boards.result_formats.rubric_grades import blind_sheet, disputed_answers, graded_answers
from firsthand.boards.result_formats.score_tables import (
    is_item_table,
    is_long,
    is_open_llm,
    is_wide,
    item_rows,
    long_rows,
    number_in,
    open_llm_rows,
    wide_rows,
)  # fmt: skip
from firsthand.errors import ConfigError, DataError


def rows(*given: dict[str, Any]) -> list[TableRow]:
    return [TableRow(each, f"t.csv, line {number}") for number, each in enumerate(given, 2)]


def test_tables_every_field() -> None:
    path = Path("quiz_item_results.csv")
    long = rows(
        {
            "model": "m",
            "benchmark": "b",
            "score": "50%",
            "n": "20",
            "error": 0.125,
            "lower_is_better": "Yes",
            "type": "maths",
            "cost_usd": "0.5",
            "when": "2025-01-02",
            "protocol": "p",
            "metric": "acc",
            "run": "r",
            "commit": "c",
            "data_hash": "h",
        },
        {"model": "m", "benchmark": "b2", "score": "n/a"},
        {
            "model": None,
            "benchmark": "b3",
            "score": 2,
            "category": "first",
            "type": "second",
            "date": "2025-01-03",
            "when": "x",
        },
    )
    assert (
        is_long(long[0].columns)
        and is_long({"model": 1, "benchmark": 1, "value": 1})
        and not is_long({"model": 1, "score": 1})
    )
    one, three = long_rows(long, path)
    assert one == BoardResult(
        "m",
        "b",
        0.5,
        "p",
        "acc",
        0.125,
        20,
        True,
        "maths",
        0.5,
        when="2025-01-02T00:00:00+00:00",
        source="t.csv, line 2",
        run="r",
        commit="c",
        data_hash="h",
    )
    assert three == BoardResult("", "b3", 2.0, group="first", when="2025-01-03T00:00:00+00:00", source="t.csv, line 4")
    assert [each.value for each in long_rows(rows({"model": "m", "benchmark": "b", "value": 3}), path)] == [3.0]
    for wrong in (-1, 1.5):
        with pytest.raises(DataError, match=f"line 2: n is {wrong}"):
            list(long_rows(rows({"model": "m", "benchmark": "b", "score": 1, "n": wrong}), path))

    table = rows(
        {"item": "q1", "m": -1, "Tokens": 5, "n": "0.5", "cluster": "x"},
        {"item": "q2", "m": 1, "n": "", "cluster": "y"},
    )
    assert is_item_table(table[0].columns) and not is_item_table({"item": 1}) and not is_item_table({"m": 1, "item": 1})
    [items] = item_rows(table, path)
    about = BoardResult("", "quiz", 0.0, source=str(path))
    assert items.key == ColumnKey("quiz", "", "") and items.models == ("m", "n") and items.tasks == ("q1", "q2")
    assert np.array_equal(items.scores, [[0, 1], [0.5, np.nan]], equal_nan=True)
    assert items.clusters == ("x", "y") and items.abouts == (about, about)
    for wrong_rows, told in (
        (rows({"item": "q1", "m": -0.5}), "has the score -0.5"),
        (rows({"item": "q", "m": 1}, {"item": "q", "m": 1}), "has the item 'q' more than once"),
        (rows({"item": "q", "tokens": 1}), "has no column of a model"),
    ):
        with pytest.raises(DataError, match=told):
            list(item_rows(wrong_rows, path))

    wide = rows(
        {"Model": "a", "x": "0.5", "Type": 3, "text": "no", "y": "-", "date": "2025-01-02"},
        {"Model": "b", "x": 1, "y": "25%", "text": 1},
    )
    assert is_wide(wide[0].columns) and not is_wide({"x": 1})
    assert list(wide_rows(wide, path, [])) == [
        BoardResult("a", "x", 0.5, when="2025-01-02T00:00:00+00:00", source="t.csv, line 2"),
        BoardResult("b", "x", 1.0, source="t.csv, line 3"),
        BoardResult("b", "y", 0.25, source="t.csv, line 3"),
    ]
    with pytest.raises(DataError, match="no column of numbers beside 'name'"):
        list(wide_rows(rows({"name": "a", "x": "inf"}), path, []))

    llm = {
        "Model": "short",
        "fullname": "org/m",
        "IFEval": 50,
        "BBH": 0,
        "MATH Lvl 5": "",
        "GPQA": 100,
        "MUSR": 12.5,
        "MMLU-PRO": 1,
        "Model sha": "s",
        "Submission Date": "2025-01-02",
        "date": "2020-01-01",
    }
    assert is_open_llm(llm) and not is_open_llm({"Model": 1, "IFEval": 1})
    found = list(open_llm_rows(rows(llm), path))
    assert {each.benchmark: each.value for each in found} == {
        "IFEval": 0.5,
        "BBH": 0,
        "GPQA": 1,
        "MuSR": 0.125,
        "MMLU-Pro": 0.01,
    }
    assert found[0] == BoardResult("org/m", "IFEval", 0.5, "Open LLM Leaderboard v2, normalised",
                                   when="2025-01-02T00:00:00+00:00", source=str(path), commit="s")  # fmt: skip
    for given, when in (
        ({}, "2025-01-02"), ({"Submission Date": ""}, "2020-01-01"), ({"Submission Date": None, "date": None}, ""),
        ({"date": ""}, "2025-01-02"), ({"Submission Date": "", "when": "2019-01-01", "date": "2018-01-01"}, "2018-01-01"),
    ):  # fmt: skip
        whens = {each.when for each in open_llm_rows(rows({**llm, **given}), path)}
        assert whens == {when and f"{when}T00:00:00+00:00"}, given
    bare = {key: llm[key] for key in llm if key not in ("Submission Date", "fullname", "Model sha")}
    assert next(open_llm_rows(rows(bare), path)) == BoardResult(
        "short",
        "IFEval",
        0.5,
        "Open LLM Leaderboard v2, normalised",
        when="2020-01-01T00:00:00+00:00",
        source=str(path),
    )
    with pytest.raises(DataError, match="GPQA is -1: the board's rows hold percents"):
        list(open_llm_rows(rows({**llm, "GPQA": -1}), path))
    with pytest.raises(DataError, match=r"GPQA is 100\.5: the board's rows hold percents"):
        list(open_llm_rows(rows({**llm, "GPQA": 100.5}), path))


def test_a_row_is_dated_by_its_date_and_else_by_when() -> None:
    for given, when in (
        ({"date": "2025-01-02", "when": "2024-01-01"}, "2025-01-02T00:00:00+00:00"),
        ({"date": "", "when": "2024-01-01"}, "2024-01-01T00:00:00+00:00"),
        ({"when": "2024-01-01"}, "2024-01-01T00:00:00+00:00"), ({"date": None}, ""), ({}, ""),
    ):  # fmt: skip
        long = rows({"model": "m", "benchmark": "b", "score": 1, **given})
        wide = rows({"model": "m", "b": 1, **given})
        found = [*long_rows(long, Path("t.csv")), *wide_rows(wide, Path("t.csv"), [])]
        assert found == [BoardResult("m", "b", 1.0, when=when, source="t.csv, line 2")] * 2, given


def test_cells_that_hold_a_number_or_none() -> None:
    def cell(value: Any) -> float | None:
        return number_in(rows({"x": value})[0], "x")

    assert [cell(each) for each in (None, " ", "N/A", "—", "-", "NaN", "null")] == [None] * 7
    assert [cell(each) for each in ("100%", " 25 % ".replace(" %", "%"), "1e3", 0, "-2", "150")] == [
        1,
        0.25,
        1000,
        0,
        -2,
        150,
    ]
    for wrong, told in ((True, "a number was expected"), ("inf", "a number was expected"), ("101%", "at most 100%")):
        with pytest.raises(DataError, match=told):
            cell(wrong)


def test_grades_agree_to_a_quarter_or_are_adjudicated_or_left_out() -> None:
    def grade(
        item: str, model: str, grader: str, value: Any, role: str = "", criterion: str = "", **more: Any
    ) -> dict[str, Any]:
        return {
            "item": item,
            "model": model,
            "grader": grader,
            "grade": value,
            "role": role,
            "criterion": criterion,
            **more,
        }

    given = rows(
        grade("q1", "c1", "ann", 0.5), grade("q1", "c1", "bob", 0.75, "grader"),
        grade("q1", "c2", "ann", 2, criterion="x", max=4), grade("q1", "c2", "ann", 1, criterion="y"),
        grade("q1", "c2", "bob", 0.25, criterion="x"), grade("q1", "c2", "bob", 1, criterion="y"),
        grade("q2", "c3", "ann", 0.0), grade("q2", "c3", "bob", 1.0), grade("q2", "c3", " eve ", 0.25, "adjudicator"),
        grade("q2", "c4", "ann", 1.0), grade("q2", "c4", "bob", 0.0),
        grade("q3", "c5", "ann", 1.0), grade("q3", "c6", "ann", ""),
    )  # fmt: skip
    codes = {"c1": "m", "c2": "n", "c3": "m", "c4": "n", "c5": "m"}
    found = graded_answers(given, Path("folder/g.csv"), codes)
    about = BoardResult("", "g", 0.0, source="folder/g.csv")
    key = ColumnKey("g", "rubric, two blind graders, tolerance 0.25, adjudication", "grade")
    assert found.items.key == key and found.items.models == ("m", "n") and found.items.tasks == ("q1", "q2")
    # c2: .5 and .25 on x are just near enough, 1 and 1 on y
    assert np.array_equal(found.items.scores, [[0.625, 0.25], [0.6875, np.nan]], equal_nan=True)
    assert found.items.abouts == (about, about)
    assert (found.answers, found.adjudicated, found.open, found.single) == (5, 1, 1, 1)
    assert found.remarks == (
        f"g.csv: 5 answers, Krippendorff's alpha {found.alphas['']:.2f}, x {found.alphas['x']:.2f}, "
        "y not defined where all grades are equal, 1 adjudicated.",
        "g.csv: 1 answer with disagreeing grades and no adjudicator left out.",
        "g.csv: 1 answer with one grade left out.",
        "g.csv: 1 grade still to be given.",
    )
    assert disputed_answers(given) == {("q2", "c4")}
    for wrong, told in (
        (grade("q", "m", "", 1), "grader is empty"), (grade("q", "m", "ann", 1, "boss"), "the role is 'boss'"),
        (grade("q", "m", "ann", 1.01), "a number from 0 to 1"), (grade("q", "m", "ann", 5, max=4), "a number from 0 to 4"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=told):
            graded_answers(rows(wrong), Path("g.csv"))
    with pytest.raises(DataError, match="ann graded 'q' of m twice"):
        graded_answers(rows(grade("q", "m", "ann", 1), grade("q", "m", "ann", 0)), Path("g.csv"))
    with pytest.raises(DataError, match=r"1 grade still to be given; 1 answer with one grade, 0 disputed"):
        graded_answers(rows(grade("q", "m", "ann", 1), grade("q", "m", "bob", "")), Path("g.csv"))


def test_a_blind_sheet_gives_each_answer_to_two_of_the_least_busy_graders() -> None:
    answers = [(f"q{n}", f"m{n % 2}", f"text {n}") for n in range(6)]
    sheet, codes = blind_sheet(answers, ["a", "b", "c"], ["x", "y"], seed=4)
    assert (
        sheet
        == blind_sheet(answers, ["a", "b", "c"], ["x", "y"], seed=4)[0]
        != blind_sheet(answers, ["a", "b", "c"], ["x", "y"])[0]
    )
    assert list(codes) == [f"answer-{n:04d}" for n in range(1, 7)] and len(sheet) == 24
    assert all(
        codes[row["model"]] == f"m{int(row['item'][1]) % 2}" and row["answer"] == f"text {row['item'][1]}"
        for row in sheet
    )
    assert {name: sum(row["grader"] == name for row in sheet) for name in "abc"} == {"a": 8, "b": 8, "c": 8}
    assert [row["criterion"] for row in sheet[:4]] == ["x", "y", "x", "y"] and {row["grade"] for row in sheet} == {""}
    for graders, criteria in ((["a", "a"], ["x"]), (["a", "b"], [])):
        with pytest.raises(ConfigError):
            blind_sheet(answers, graders, criteria)
