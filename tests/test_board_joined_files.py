"""Item scores of one benchmark in several files, and scores whose scale is not known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from firsthand.boards.board_results import BoardResult, ColumnKey, ItemScores, ResultSet
from firsthand.boards.board_spec import BenchmarkEntry, BoardSpec
from firsthand.boards.make_board import MadeBoard, make_board
from firsthand.boards.read_results import read_results
from firsthand.boards.result_file import read_result_file, write_result_file
from firsthand.errors import DataError
from firsthand.runs.store import create
from firsthand.task import Task
from firsthand.trace import Score, Trace

NAN = math.nan
KEY = ColumnKey("exam", "", "")


def sheet(scores: dict[str, list[float]], first: int = 0, about: BoardResult | None = None) -> ItemScores:
    tasks = tuple(f"q{first + i}" for i in range(len(next(iter(scores.values())))))
    abouts = (about,) * len(scores) if about else ()
    return ItemScores(KEY, tuple(scores), tasks, np.array(list(scores.values()), np.float32), abouts=abouts)


def own(made: ResultSet) -> list[tuple[str, float, int]]:
    return [(each.model, each.value, each.n) for each in made.results]


def test_empty_cells_of_one_sheet_take_the_scores_of_another(tmp_path: Path) -> None:
    for grader, cells in (("ann", "q0,1,\nq1,0,\nq2,1,\n"), ("ben", "q0,,1\nq1,,0\nq2,,0\n")):
        (tmp_path / grader).mkdir()
        (tmp_path / grader / "exam.csv").write_text("item,ada,bob\n" + cells)
    paths = [tmp_path / "ann" / "exam.csv", tmp_path / "ben" / "exam.csv"]
    for order in (paths, paths[::-1]):
        made = read_results(order, tmp_path)
        assert sorted(own(made)) == [("ada", pytest.approx(2 / 3), 3), ("bob", pytest.approx(1 / 3), 3)]
        assert made.duplicates == 0 and not make_board(made, BoardSpec()).remarks
        write_result_file(tmp_path / "x.results", made)
        assert sorted(own(read_results([tmp_path / "x.results"], tmp_path))) == sorted(own(made))


def test_a_models_further_items_are_joined_and_equal_ones_count_once() -> None:
    first, further = sheet({"ada": [1, 0]}), sheet({"ada": [0, 1]}, first=2)
    made = ResultSet.of([], [first, further])
    assert (own(made), made.duplicates, made.remarks) == ([("ada", 0.5, 4)], 0, ())
    assert made.items[0].scores.tolist() == [[1, 0, 0, 1]]
    again = ResultSet.of([], [first, further, first])
    assert (own(again), again.duplicates) == ([("ada", 0.5, 4)], 1)
    over = ResultSet.of([], [sheet({"ada": [1, 0, 1]}), sheet({"ada": [0, 1, 1]}, first=1)])
    assert own(over) == [("ada", 0.75, 4)], "items that both have, with one score, are the same items"


def test_two_scores_for_one_item_are_two_numbers_and_nothing_of_them_is_saved(tmp_path: Path) -> None:
    first, other = sheet({"ada": [1, 0], "bob": [1, 1]}), sheet({"ada": [1, 1, 0]})
    made = ResultSet.of([], [first, other])
    assert own(made) == [("bob", 1.0, 2)] and made.remarks == (
        "ada has 2 different numbers on exam, 0.5 (no source) and 0.6667 (no source): none is used.",
    )
    write_result_file(tmp_path / "x.results", made)
    [saved] = read_result_file(tmp_path / "x.results")
    assert isinstance(saved, ItemScores) and saved.models == ("bob",)
    assert np.array_equal(saved.scores, [[1, 1, NAN]], equal_nan=True)
    agree = ResultSet.of([], [sheet({"ada": [1, 0]}), sheet({"ada": [0, 1, 0.5]})])
    assert (own(agree), agree.duplicates) == ([("ada", 0.5, 2)], 1)
    assert np.array_equal(agree.items[0].scores, [[1, 0, NAN]], equal_nan=True), "the scores behind the number"


def test_joined_scores_name_both_origins_and_the_mean_cost_of_an_item() -> None:
    def about(**more: object) -> BoardResult:
        return BoardResult("", "exam", 0.0, **more)  # type: ignore[arg-type]

    one = about(source="a", run="r1", when="2026-02-01T00:00:00+00:00", cost_usd=1.0, repeats=3, of_run=True)
    two = about(source="b", run="r2", when="2026-01-01T00:00:00+00:00", cost_usd=4.0, seconds=1.0)
    [found] = ResultSet.of([], [sheet({"ada": [1, 0]}, 0, one), sheet({"ada": [1]}, 2, two)]).results
    assert (found.source, found.run, found.when, found.cost_usd, found.seconds, found.repeats, found.of_run) == (
        "a; b", "r1; r2", "2026-01-01T00:00:00+00:00", 2.0, None, 1, False,
    )  # fmt: skip


def rated(*values: float, n: int = 80, **more: object) -> ResultSet:
    return ResultSet.of(
        BoardResult(f"m{i}", "mt", value, n=n, **more)  # type: ignore[arg-type]
        for i, value in enumerate(values)
    )


def only(board: MadeBoard) -> list[tuple[float, bool]]:
    return [(line.score, math.isnan(line.low)) for line in board.sections[0].lines]


def test_points_up_to_ten_are_kept_and_told_and_a_weighted_board_asks_for_their_scale() -> None:
    board = make_board(rated(8.99, 7.94, 6.1), BoardSpec())
    assert only(board) == [(8.99, True), (7.94, True), (6.1, True)], "no share of 80 items has their error"
    assert board.remarks == ("The scale of mt is not known, and its values up to 8.99 are kept as they are.",)
    weighted = BoardSpec(rule="weighted", reported="together")
    with pytest.raises(DataError, match=r"mt has values up to 8\.99: give its scale, the perfect score"):
        make_board(rated(8.99, 7.94), weighted)
    stated = BoardSpec(rule="weighted", reported="together", benchmarks={"mt": BenchmarkEntry(scale=10)})
    assert only(make_board(rated(9.0, 6.0), stated)) == [(0.9, False), (0.6, False)]
    assert only(make_board(rated(90.0, 6.0), BoardSpec())) == [(0.9, False), (0.06, False)]


def test_the_items_of_a_sheet_tell_points_from_percents() -> None:
    def board(*scores: float, rule: str = "each") -> MadeBoard:
        return make_board(ResultSet.of([], [sheet({"ada": list(scores)})]), BoardSpec(rule=rule))  # type: ignore[arg-type]

    assert only(board(4, 10, 9))[0][0] == pytest.approx(23 / 3)
    assert only(board(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100))[0][0] == pytest.approx(1 / 13), "7.7 of percents"
    assert only(board(500, 0, 0, 0, 0, 0, 0, 0))[0][0] == 62.5, "rewards up to 500 are no percents"
    assert only(board(4, 0, 0, 0, 0, 0))[0][0] == pytest.approx(2 / 3)
    with pytest.raises(DataError, match="exam has item scores up to 4: give its scale"):
        board(4, 0, 0, 0, 0, 0, rule="weighted")


def test_a_board_shows_the_scores_of_a_run_as_the_run_does(tmp_path: Path) -> None:
    run = create(tmp_path, {}, "r")
    run.add_tasks("b", [Task(f"t{n}", "?") for n in range(4)])
    run.add_agent("a", {"name": "a"})
    for n, stars in enumerate((6.0, 9.0, 25.0, 8.0)):
        run.append(Trace(f"{n}", "b", f"t{n}", {"name": "a"}, 0, 0, "", 1.0, scores=(Score("stars", stars),)))
    found = read_results([run.path], tmp_path)
    write_result_file(tmp_path / "x.results", found)
    for results in (found, read_results([tmp_path / "x.results"], tmp_path)):
        assert only(make_board(results, BoardSpec())) == [(12.0, False)]


def test_a_runs_own_scores_stay_on_their_scale() -> None:
    for values in ((8.0, 6.0), (62.0, 41.0), (62.0, 0.5)):
        board = make_board(rated(*values, of_run=True), BoardSpec())
        assert [score for score, _ in only(board)] == list(values) and not board.remarks
        with pytest.raises(DataError, match="give its scale"):
            make_board(rated(*values, of_run=True), BoardSpec(rule="weighted", reported="together"))


def test_a_reported_number_of_a_model_without_item_scores_is_saved(tmp_path: Path) -> None:
    made = ResultSet.of([BoardResult("bob", "exam", 0.5)], [sheet({"ada": [1, 0], "bob": [NAN, NAN]})])
    assert [each.models for each in made.items] == [("ada",)]
    write_result_file(tmp_path / "x.results", made)
    assert sorted(own(read_results([tmp_path / "x.results"], tmp_path))) == [("ada", 0.5, 2), ("bob", 0.5, 0)]
