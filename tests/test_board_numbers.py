"""A board of few models and benchmarks, worked out by hand: weights, errors, ranks, origins, remarks and every export."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from firsthand.boards.aggregates import (
    borda_counts,
    borda_ranks,
    column_win_rates,
    mean_over_groups,
    mean_win_rates,
    pooled_mean,
    pooled_standard_error,
)  # fmt: skip
from firsthand.boards.board_columns import board_columns
from firsthand.boards.board_results import BoardResult, ColumnKey, ItemScores, ResultSet, merged_items, utc_of
from firsthand.boards.board_spec import BenchmarkEntry, BoardSpec
from firsthand.boards.make_board import (
    MadeBoard,
    UnrankedModel,
    _between_columns,
    column_weights,
    make_board,
)  # fmt: skip
from firsthand.boards.random_orders import largest_of_equal_models
from firsthand.errors import ConfigError, DataError

NAN = math.nan


def stated(model: str, benchmark: str, value: float, **more: Any) -> BoardResult:
    return BoardResult(model, benchmark, value, **{"source": "t.csv", **more})


def made(results: list[BoardResult], items: list[ItemScores] | None = None, **spec: Any) -> MadeBoard:
    return make_board(ResultSet.of(results, items or []), BoardSpec(**spec))


# -- formulas --


def test_win_rates_and_points_of_a_table_with_ties_and_gaps() -> None:
    table = np.array([[0.9, 0.1, NAN], [0.5, 0.1, 0.3], [0.5, 0.4, NAN], [NAN, 0.2, NAN]])
    assert np.array_equal(
        column_win_rates(table),
        [[1, 1 / 6, NAN], [0.25, 1 / 6, NAN], [0.25, 1, NAN], [NAN, 2 / 3, NAN]],
        equal_nan=True,
    )
    turned = column_win_rates(table, [False, True, False])
    assert np.array_equal(turned[:, 1], [5 / 6, 5 / 6, 0, 1 / 3]) and turned[0, 0] == 1
    assert mean_win_rates(table).tolist() == pytest.approx([7 / 12, 5 / 24, 5 / 8, 2 / 3])
    assert np.array_equal(
        borda_counts(table), [[3, 0.5, NAN], [1.5, 0.5, 3], [1.5, 3, NAN], [NAN, 2, NAN]], equal_nan=True
    )
    assert borda_ranks(table).tolist() == [3, 1, 2, 4], "3.5, 5, 4.5 and 2 points"
    means, groups = mean_over_groups(np.array([[1.0, 0.5, 0.0], [1.0, NAN, 0.25]]), ["b", "a", "b"])
    assert np.array_equal(groups, [[0.5, 0.5], [0.625, NAN]], equal_nan=True)
    assert np.array_equal(means, [0.5, NAN], equal_nan=True)
    assert pooled_mean([1.0, 0.5], [1, 3]) == 0.625 and pooled_mean([1.0, 0.5], [1, 3], by_size=False) == 0.75
    # ((3 - 1) .1^2 3 + (5 - 1) .2^2 5) / (8 - 2) / 8
    assert pooled_standard_error([0.1, 0.2], [3, 5]) == pytest.approx(math.sqrt((0.06 + 0.8) / 6 / 8))


def test_the_covariance_between_columns_counts_one_more_of_equal_models() -> None:
    rates = np.array([[1.0, 0.0], [0.0, 1.0]])
    # with the column (.5, .5) both have mean .5 and deviations (.5, -.5, 0) and their negative; times 3 / 2^2
    assert np.allclose(_between_columns(rates, 0.5), np.array([[0.5, -0.5], [-0.5, 0.5]]) * 3 / 4)
    assert np.isnan(_between_columns(rates[:, :1], 0.5)).all()


def test_the_largest_difference_of_equal_models() -> None:
    assert largest_of_equal_models(1, 5, 0.95) is None is largest_of_equal_models(5, 1, 0.95)
    assert largest_of_equal_models(601, 2, 0.95) is None
    # two models, two columns: half of the draws order both alike. Then orders are (.5, .5) and total 1, so the product of
    # a model with itself is .5 - 1 / 3 = 1 / 6 and with the other -1 / 6; the spread is 4 / 6 * 3 / 2 = 1, the gap 2.
    assert largest_of_equal_models(2, 2, 0.95) == pytest.approx(2.0) and largest_of_equal_models(2, 2, 0.4) == 0.0


# -- results --


def test_the_error_of_a_result_is_stated_or_that_of_a_share() -> None:
    assert stated("m", "b", 0.5, error=0.2, n=10).standard_error == 0.2
    share = (1.0 * 10 + 2) / 14
    assert stated("m", "b", 1.0, n=10).standard_error == pytest.approx(math.sqrt(share * (1 - share) / 14))
    assert math.isnan(stated("m", "b", 1.5, n=10).standard_error) and math.isnan(stated("m", "b", 0.5).standard_error)
    assert math.isnan(stated("m", "b", -0.1, n=10).standard_error)


KEY = ColumnKey("b", "p", "acc")


def test_item_scores_give_each_model_its_mean_its_error_and_what_is_told_of_it() -> None:
    scores = np.array([[1, 0, 1, 1], [1, NAN, 0.5, NAN], [NAN] * 4, [1, 1, 1, 1]], np.float32)
    about = tuple(BoardResult(f"x{n}", "other", 9.0, source=f"s{n}", run="r", cost_usd=n) for n in range(4))
    items = ItemScores(KEY, ("a", "b", "c", "d"), ("1", "2", "3", "4"), scores, abouts=about)
    a, b, d = items.results()
    assert (a.model, a.benchmark, a.protocol, a.metric, a.source, a.run, a.cost_usd, a.verified) == (
        "a", "b", "p", "acc", "s0", "r", 0, True,
    )  # fmt: skip
    # deviations .25, -.75, .25, .25: the sum of squares .75 / (4 * 3)
    assert (a.value, a.n, a.error) == (0.75, 4, pytest.approx(math.sqrt(0.75 / 12)))
    # deviations .25 and -.25 on four units, of two items: .125 * 4 / 3 / 2^2
    assert (b.value, b.n, b.error, b.source) == (0.75, 2, pytest.approx(math.sqrt(0.125 * 4 / 3 / 4)), "s1")
    assert (d.model, d.value, d.error, d.source) == ("d", 1.0, None, "s3"), "equal scores have the error of a share"
    assert items.covariance()[0, 1] == pytest.approx((0.25 * 0.25 + 0.25 * -0.25) * 4 / 3 / (4 * 2))
    assert ItemScores(KEY, ("a",), ("1",), np.array([[0.5]], np.float32)).results()[0].error is None
    bare = ItemScores(KEY, ("a",), ("1", "2"), np.array([[2.0, 2.0]], np.float32)).results()[0]
    assert bare.error == 0.0 and bare.source == "", "2 is no share"
    grouped = ItemScores(KEY, ("a",), ("1", "2", "3", "4"), scores[:1], ("x", "y", "x", "y"))
    # sums of clusters: .5 and -.5, so .5 * 2 / 1 / 4^2
    assert grouped.results()[0].error == pytest.approx(math.sqrt(0.5 * 2 / 16))


def test_items_of_one_column_are_one_table_by_task_and_the_first_file_counts() -> None:
    one = ItemScores(
        KEY, ("a",), ("1", "2"), np.array([[1, 0]], np.float32), ("x", "y"), (stated("a", "b", 0, run="r1"),)
    )
    two = ItemScores(KEY, ("b", "a"), ("2", "3"), np.array([[0.5, 0.25], [1, 1]], np.float32))
    other = replace(one, key=ColumnKey("c", "p", "acc"))
    first, second = merged_items([one, other, two])
    assert second is other and first.models == ("a", "b") and first.tasks == ("1", "2", "3")
    assert np.array_equal(first.scores, [[1, 0, NAN], [NAN, 0.5, 0.25]], equal_nan=True), "a has two scores for 2"
    assert first.clusters == ("x", "y", "3") and [each.run for each in first.abouts] == ["r1", ""]
    assert merged_items([two, two])[0].clusters == ()


def test_a_number_counts_once_and_two_different_ones_do_not_count() -> None:
    twice = [
        stated("a", "b", 0.5),
        stated("a", "b", 0.5, source="other.csv"),
        stated("a", "c", 0.5),
        stated("a", "c", 0.5009),
    ]
    found = ResultSet.of(twice)
    assert (len(found.results), found.duplicates, found.remarks) == (2, 2, ())
    items = ItemScores(ColumnKey("b", "", ""), ("a",), ("1", "2"), np.array([[1, 0]], np.float32))
    assert [each.verified for each in ResultSet.of([stated("a", "b", 0.5005)], [items]).results] == [True]
    apart = [stated(f"m{n}", "b", value, source="" if value else "t.csv") for n in range(7) for value in (0.0, 0.25)]
    told = ResultSet.of(apart, remarks=["first"]).remarks
    assert told[:2] == ("first", "m0 has 2 different numbers on b, 0 (t.csv) and 0.25 (no source): none is used.")
    assert told[6:] == ("And 2 more cells have different numbers: none is used.",)
    assert ResultSet.of(apart).results == () and ResultSet.of(apart[:10]).remarks[-1].startswith("m4 has")
    three = [stated("a", "b", value, source=f"{value}.csv") for value in (0.5, 0.75, 0.5005, 0.25)]
    middle = "a has 3 different numbers on b, 0.5 (0.5.csv) and 0.75 (0.75.csv) and 0.5005 (0.5005.csv): none is used."
    assert (ResultSet.of(three[:3]).results, ResultSet.of(three[:3]).remarks) == ((), (middle,)), (
        "the middle one differs"
    )
    assert ResultSet.of(three).remarks == (middle.replace("3 different", "4 different"),), "three of four are shown"
    close = [stated("a", "b", value, verified=value == 0.501) for value in (0.5, 0.5005, 0.501, 0.501)]
    assert (found_close := ResultSet.of(close)).results == (close[2],) and found_close.duplicates == 3
    assert ResultSet.of([stated("a", "b", 0.5), stated("a", "b", 0.50101)]).results == ()
    late = stated("d", "b", 0.5, when="2998-01-01T00:00:00+00:00")
    assert ResultSet.of([*twice, late, replace(late, model="a0")]).remarks == (
        "2 results are dated after now, d on b for example (2998-01-01T00:00:00+00:00): is a clock wrong?",
    )
    ahead = ResultSet.of([stated("a", "b", 0.5, when="2999-01-01T00:00:00+00:00")]).remarks
    assert ahead == (
        "1 results are dated after now, a on b for example (2999-01-01T00:00:00+00:00): is a clock wrong?",
    )
    for wrong in ({"model": " "}, {"benchmark": ""}, {"value": NAN}, {"error": -0.1}, {"error": NAN}):
        with pytest.raises(DataError):
            ResultSet.of([replace(stated("a", "b", 0.5), **wrong)])
    assert found.models == ["a"] and list(found.columns()) == [ColumnKey("b", "", ""), ColumnKey("c", "", "")]


def test_dates_become_utc() -> None:
    assert [
        utc_of(each, "f")
        for each in (None, "", 0, "2025/01/02", " 2025-01-02T03:00:00+02:00 ", "2025-01-02T03:04:05.9Z")
    ] == [
        "",
        "",
        "1970-01-01T00:00:00+00:00",
        "2025-01-02T00:00:00+00:00",
        "2025-01-02T01:00:00+00:00",
        "2025-01-02T03:04:05+00:00",
    ]
    for wrong in (True, "soon", 1e30):
        with pytest.raises(DataError, match="f: the date is"):
            utc_of(wrong, "f")


# -- columns --


def columns(results: list[BoardResult], **spec: Any) -> Any:
    return board_columns(ResultSet.of(results), BoardSpec(**spec), protocols={}, metrics={})


def test_a_column_is_put_on_the_scale_from_0_to_1_or_refused() -> None:
    [column], said = columns([stated("a", "b", 50.0, error=2.0), stated("c", "b", -10.0)], rule="weighted")
    assert [(each.value, each.error) for each in column.cells.values()] == [(0.5, 0.02), (-0.1, None)]
    assert column.factor == 0.01 and said == ["1 result on b lie below 0 and are kept."]
    [plain], _ = columns([stated("a", "b", 1.0), stated("c", "b", 0.5)])
    assert plain.factor == 1.0
    [own], _ = columns([stated("a", "b", 5.0)], benchmarks={"b": BenchmarkEntry(scale=10)})
    assert own.cells["a"].value == 0.5 and own.factor == 0.1
    with pytest.raises(DataError, match=r"b has the value 10\.5, above its scale of 10"):
        columns([stated("a", "b", 10.5)], benchmarks={"b": BenchmarkEntry(scale=10)})
    with pytest.raises(DataError, match=r"mixes percents and fractions.*: a has 1 and c 11;"):
        columns([stated("a", "b", 1.0), stated("c", "b", 11.0)])
    [stars], said = columns([stated("a", "b", 1.0), stated("c", "b", 2.0)])
    assert stars.factor == 1.0 and said == ["The scale of b is not known, and its values up to 2 are kept as they are."]
    with pytest.raises(DataError, match="b has values from -1 to 2: give its scale"):
        columns([stated("a", "b", 0.5), stated("c", "b", 2.0), stated("d", "b", -1.0)])
    [elo], _ = columns([stated("a", "b", 1200.0), stated("c", "b", 0.5)])
    assert elo.factor == 1.0
    with pytest.raises(DataError, match="b has values up to 1200: give its scale, the perfect score"):
        columns([stated("a", "b", 1200.0)], rule="weighted")


def test_columns_of_one_benchmark_are_named_apart_or_refused() -> None:
    results = [stated("a", "b", 0.5, protocol="p1", metric="acc"), stated("a", "b", 0.6, protocol="", metric="acc"),
               stated("a", "c", 0.5), stated("a", "d", 0.5)]  # fmt: skip
    found, said = columns(results, benchmarks={"b": BenchmarkEntry(), "c": BenchmarkEntry("cat")})
    assert [each.name for each in found] == ["b [p1]", "b [not stated]", "c"]
    assert [each.category for each in found] == ["b [p1]", "b [not stated]", "cat"]
    assert said == ["1 benchmark of the results are not of this board: d."]
    with pytest.raises(
        ConfigError, match=r"b has results under 2 protocols, 'p1', one that is not stated, which are not "
    ):
        columns(results, rule="weighted")
    both = board_columns(ResultSet.of(results), BoardSpec(rule="weighted"), protocols={"b": "p*"}, metrics={"b": "acc"})
    assert [each.name for each in both[0]] == ["b", "c", "d"]
    for wrong in ({"protocols": {"z": "p"}, "metrics": {}}, {"protocols": {}, "metrics": {"z": "p"}}):
        with pytest.raises(ConfigError, match="no result is of the benchmark 'z'"):
            board_columns(ResultSet.of(results), BoardSpec(), **wrong)
    with pytest.raises(ConfigError, match="no result counts on the board board: the results are of b, c, d"):
        columns(results, benchmarks={"z": BenchmarkEntry()})
    with pytest.raises(ConfigError, match=r"the results hold no score that can be used: each cell is empty\."):
        columns([])
    lower = columns([stated("a", "b", 0.5, lower_is_better=True)])[0][0]
    assert lower.lower_is_better and not replace(lower, entry=BenchmarkEntry(lower_is_better=False)).lower_is_better


# -- boards --


def test_a_weighted_score_its_error_and_its_parts() -> None:
    spec = {
        "rule": "weighted",
        "categories": {"x": 3, "y": 1, "empty": 4},
        "benchmarks": {
            "b": BenchmarkEntry("x", weight=1),
            "c": BenchmarkEntry("x", weight=3, chance=0.2),
            "d": BenchmarkEntry("y", lower_is_better=True),
            "e": BenchmarkEntry("y", weight=0),
            "f": BenchmarkEntry("y", display_only=True),
        },
    }
    values = {"b": 0.8, "c": 0.6, "d": 0.1, "e": 0.5, "f": 0.7}
    board = made(
        [*(stated("m", name, value, error=0.05) for name, value in values.items()), stated("n", "f", 0.5)], **spec
    )
    [section] = board.sections
    [line] = section.lines
    score = 0.75 * (0.25 * 0.8 + 0.75 * 0.5) + 0.25 * 0.9
    error = 0.05 * math.sqrt((0.75 * 0.25) ** 2 + (0.75 * 0.75 / 0.8) ** 2 + 0.25**2)
    assert line.score == pytest.approx(score) and line.parts == pytest.approx({"x": 0.575, "y": 0.9})
    assert line.low == pytest.approx(score - 1.959964 * error) and line.high == pytest.approx(score + 1.959964 * error)
    assert list(line.cells) == ["b", "c", "d", "e", "f"] and section.score == "score"
    assert section.unranked == (UnrankedModel("n", ("b", "c", "d", "e"), {"f": stated("n", "f", 0.5)}),)
    assert board.remarks[-1] == "No model has a result in empty: 50% of the weight is left out for all."
    assert section.title == "reported: at least one number is only stated"
    counted = columns([stated("m", name, 0.5) for name in "bcd"], **spec)[0]
    assert column_weights(counted, BoardSpec(**spec)).tolist() == pytest.approx([0.1875, 0.5625, 0.25])
    shown = {"b": BenchmarkEntry("x"), "c": BenchmarkEntry("y", display_only=True), "d": BenchmarkEntry("z")}
    for results, told in (
        ("b", "y, z: 75% of the weight is left out for all."),
        ("bc", "y, z: 75% of the weight is left out for all."),
        ("bcd", "y: 25% of the weight is left out for all."),
    ):
        board = made([stated("m", name, 0.5) for name in results], rule="weighted",
                     categories={"x": 1, "y": 1, "z": 2}, benchmarks=shown)  # fmt: skip
        assert board.remarks[-1] == f"No model has a result in {told}"
    board = made([stated("m", name, 0.5) for name in "bd"], rule="weighted", categories={"x": 1, "z": 2},
                 benchmarks={name: shown[name] for name in "bd"})  # fmt: skip
    assert board.remarks == ()
    with pytest.raises(ConfigError, match="has no weight on any benchmark with results"):
        made(
            [stated("m", "b", 0.5)], rule="weighted", benchmarks={"b": BenchmarkEntry("x")}, categories={"x": 0, "y": 1}
        )
    with pytest.raises(ConfigError, match="is display_only"):
        made([stated("m", "b", 0.5)], rule="weighted", benchmarks={"b": BenchmarkEntry(display_only=True)})


def test_win_rates_and_points_as_boards() -> None:
    values = {"a": (0.9, 0.2, 30.0), "b": (0.5, 0.1, 20.0), "c": (0.1, 0.3, 90.0)}
    results = [
        stated(model, f"t{n}", value, lower_is_better=n == 1, group="g1" if n else "g0")
        for model, each in values.items()
        for n, value in enumerate(each)
    ]
    board = made(results, rule="win-rate", reported="together")
    [section] = board.sections
    assert (section.title, section.score) == ("", "mean win rate")
    # columns: a 1, b .5, c 0; lower is better: b 1, a .5, c 0; c 1, a .5, b 0
    assert [(line.model, line.score) for line in section.lines] == [
        ("a", pytest.approx(2 / 3)),
        ("b", 0.5),
        ("c", pytest.approx(1 / 3)),
    ]
    assert all(line.low == 0.0 and line.high == 1.0 for line in section.lines), "three columns say little"
    points = made(results, rule="borda", reported="together").sections[0]
    assert points.score == "Borda points" and [(line.model, line.score) for line in points.lines] == [
        ("a", 4),
        ("b", 3),
        ("c", 2),
    ]
    assert points.lines[0].parts == pytest.approx(
        {"Borda rank": 1, "mean (task)": 2 / 3, "mean (type)": (0.9 + 0.55) / 2, "g0": 0.9, "g1": 0.55}
    )
    assert points.lines[2].parts["Borda rank"] == 3
    same = made([replace(each, group="") for each in results], rule="borda", reported="together").sections[0]
    assert list(same.lines[0].parts) == ["Borda rank", "mean (task)", "mean (type)"]
    with pytest.raises(ConfigError, match="a mean win rate needs two models"):
        made([stated("a", "b", 0.5)], rule="win-rate")
    assert made([stated("a", "b", 0.5), stated("c", "d", 0.1)], rule="borda").sections[0].score == "Borda points"


def test_the_table_of_a_benchmark_where_less_is_better_has_the_lowest_first() -> None:
    results = [
        stated("a", "b", 0.9, n=100, cost_usd=0.5, seconds=2.0),
        stated("c", "b", 0.1, n=100),
        stated("d", "b", 0.0, n=20),
    ]
    board = made([replace(each, lower_is_better=True, metric="error rate") for each in results])
    [section] = board.sections
    assert (section.title, section.score) == ("b", "error rate")
    assert [(line.model, line.rank_low, line.rank_high) for line in section.lines] == [
        ("d", 1, 2),
        ("c", 1, 2),
        ("a", 3, 3),
    ]
    zero, ten, ninety = section.lines
    error = results[1].standard_error
    assert (ten.score, ten.low, ten.high) == (
        0.1,
        pytest.approx(0.1 - 1.959964 * error),
        pytest.approx(0.1 + 1.959964 * error),
    )
    assert zero.low == 0.0 < zero.high and ninety.parts == {"n": 100.0, "USD each": 0.5, "s each": 2.0}
    assert ten.parts == {"n": 100.0} and section.lines[0].cells == {
        "b": replace(results[2], lower_is_better=True, metric="error rate")
    }
    assert made(results).sections[0].lines[0].model == "a" and made(results).sections[0].score == "score"
    wide = make_board(ResultSet.of(results), BoardSpec(), confidence=0.5).sections[0].lines[1]
    assert wide.high - wide.score == pytest.approx(0.67449 * error, rel=1e-4)


def test_stale_and_undated_results_are_told() -> None:
    now = datetime(2025, 6, 11, tzinfo=UTC)
    results = [
        stated("a", "b", 0.5, when="2025-06-01T00:00:00+00:00"),
        stated("c", "b", 0.4, when="2025-05-31T23:59:59+00:00"),
        stated("d", "b", 0.3, when="2025-01-02T00:00:00+00:00"),
        stated("e", "b", 0.2),
        stated("a", "b", 0.5),
    ]
    found = make_board(ResultSet.of(results, remarks=["first."]), BoardSpec(fresh_days=10), now=now).remarks
    assert found == (
        "first.",
        "2 of 4 results are older than 10 days, the oldest d on b of 2025-01-02.",
        "1 of 4 results have no date.",
        "1 repeated result counted once.",
    )
    assert make_board(ResultSet.of(results), BoardSpec(), now=now).remarks == ("1 repeated result counted once.",)


def test_weights_of_categories_are_shared_by_their_benchmarks() -> None:
    def weights(categories: dict[str, float], **entries: BenchmarkEntry) -> list[float]:
        spec: dict[str, Any] = {"rule": "weighted", "categories": categories, "benchmarks": entries}
        counted = columns([stated("m", name, 0.5) for name in entries], **spec)[0]
        return [round(float(each), 9) for each in column_weights(counted, BoardSpec(**spec))]

    entry = BenchmarkEntry
    assert weights({}, b=entry("x"), c=entry("x"), d=entry("y"), e=entry()) == [
        0.166666667,
        0.166666667,
        0.333333333,
        0.333333333,
    ]
    assert weights({"x": 1.0}, b=entry("x"), d=entry()) == [1, 0], "a benchmark without a category counts for nothing"
    assert weights({"x": 1.0, "y": 3.0}, b=entry("x", weight=0), d=entry("y")) == [0, 0.75]


def test_a_column_without_weight_still_has_the_mean_of_its_category() -> None:
    entries = {name: BenchmarkEntry("x", weight=0) for name in "bc"} | {"d": BenchmarkEntry("y")}
    values = {"b": 0.2, "c": 0.6, "d": 0.75}
    board = made([stated("m", name, value) for name, value in values.items()], rule="weighted", benchmarks=entries)
    [line] = board.sections[0].lines
    assert line.parts == pytest.approx({"x": 0.4, "y": 0.75}) and line.score == pytest.approx(0.375)


def test_benchmarks_that_not_all_models_share_are_left_out_or_make_a_model_unranked() -> None:
    results = [stated("m", "b", 0.5), stated("n", "b", 0.25), stated("m", "c", 1.0)]
    board = made(results, rule="weighted", missing="common", reported="together")
    assert [(line.model, line.score) for line in board.sections[0].lines] == [("m", 0.5), ("n", 0.25)]
    assert list(board.sections[0].lines[0].cells) == ["b", "c"] and board.sections[0].title == ""
    board = made(results, rule="weighted", missing="unranked", reported="together")
    assert [line.model for line in board.sections[0].lines] == ["m"] and board.sections[0].unranked[0].missing == ("c",)
    with pytest.raises(ConfigError, match=r"no benchmark has results of all 2 models: leave out a model"):
        made([stated("m", "b", 0.5), stated("n", "c", 0.25)], rule="weighted", missing="common")
