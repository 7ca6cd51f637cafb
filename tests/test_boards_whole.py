"""Whole boards of a few small results, each number worked out from its definition: JSON, CSV, page and remarks."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from firsthand.boards.aggregates import borda_counts, column_win_rates
from firsthand.boards.board_columns import BoardColumn
from firsthand.boards.board_results import BoardResult, ColumnKey, ItemScores, ResultSet
from firsthand.boards.board_spec import BenchmarkEntry, BoardSpec
from firsthand.boards.make_board import (
    BoardLine,
    BoardSection,
    UnrankedModel,
    _common,
    _group,
    _groups,
    _lines,
    _of_column,
    _section,
    _value,
    make_board,
)  # fmt: skip
from firsthand.boards.random_orders import largest_of_equal_models
from firsthand.errors import ConfigError

NAN = math.nan
Z95 = 1.959963984540054
QUIZ = ItemScores(
    ColumnKey("quiz", "", ""), ("a", "b"), ("t1", "t2", "t3", "t4"), np.array([[1, 0, 1, 1], [0, 0, 1, 1]], np.float32)
)


def stated(model: str, benchmark: str, value: float, error: float | None = None, **more: Any) -> BoardResult:
    return BoardResult(model, benchmark, value, error=error, **more)


def own(model: str, benchmark: str, value: float, error: float, **more: Any) -> BoardResult:
    return stated(model, benchmark, value, error, verified=True, **more)


RESULTS = ResultSet.of(
    [
        stated("c", "quiz", 0.625, n=50),
        own("a", "maths", 0.5, 0.05), own("b", "maths", 0.8, 0.02), stated("c", "maths", 0.4),
        own("a", "loss", 0.1, 0.01), own("b", "loss", 0.3, 0.03), own("c", "loss", 0.2, 0.02),
        stated("a", "shown", 0.9), stated("d", "shown", 0.7),
        stated("a", "else", 0.3), stated("a", "other", 0.3),
        stated("c", "maths", 0.4),
    ],
    [QUIZ],
    ["One remark."],
)  # fmt: skip
SPEC = BoardSpec(
    "own", "Own board", "about it", "weighted",
    {
        "quiz": BenchmarkEntry("reason", weight=2, chance=0.25), "maths": BenchmarkEntry("reason"),
        "loss": BenchmarkEntry("code", lower_is_better=True), "shown": BenchmarkEntry("code", display_only=True),
    },
    {"reason": 3, "code": 1, "vision": 2},
)  # fmt: skip


def test_a_weighted_board_whole() -> None:
    board = make_board(RESULTS, SPEC)
    cells = {(each.model, each.benchmark): each for each in RESULTS.results}
    # weights: 3/4 of reason in thirds, 1/4 of code; quiz above chance: a 2/3, b 1/3, c 1/2
    a, b, c = 0.5 * 2 / 3 + 0.25 * 0.5 + 0.25 * 0.9, 0.5 / 3 + 0.25 * 0.8 + 0.25 * 0.7, 0.25 + 0.25 * 0.4 + 0.25 * 0.8
    # paired by item: variances of the means 1/16 and 1/12, over (1 - chance) squared
    errors = [
        math.sqrt((0.5 / 0.75) ** 2 / 16 + 0.25**2 * 0.05**2 + 0.25**2 * 0.01**2),
        math.sqrt((0.5 / 0.75) ** 2 / 12 + 0.25**2 * 0.02**2 + 0.25**2 * 0.03**2),
    ]
    body = board.to_json()
    sections = body.pop("sections")
    assert body == {
        "board": "own", "title": "Own board", "about": "about it", "rule": "weighted", "confidence": 0.95,
        "remarks": [
            "One remark.", "2 benchmarks of the results are not of this board: else, other.",
            "1 repeated result counted once.",
            "No model has a result in vision: 33% of the weight is left out for all.",
        ],
    }  # fmt: skip

    def line(model: str, ranks: list[int], score: float, error: float, parts: dict[str, float]) -> dict[str, Any]:
        names = [name for name in ("quiz", "maths", "loss", "shown") if (model, name) in cells]
        interval = [None, None] if math.isnan(error) else pytest.approx([score - Z95 * error, score + Z95 * error])
        return {
            "model": model, "rank": ranks, "score": pytest.approx(score), "interval": interval,
            "parts": {name: pytest.approx(value) for name, value in parts.items()},
            "results": {name: cells[model, name].to_json() for name in names},
        }  # fmt: skip

    assert sections == [
        {
            "title": "verified: every number computed from item scores",
            "score": "score",
            "lines": [
                line("a", [1, 2], a, errors[0], {"reason": (2 * 2 / 3 + 0.5) / 3, "code": 0.9}),
                line("b", [1, 2], b, errors[1], {"reason": (2 / 3 + 0.8) / 3, "code": 0.7}),
            ],
            "unranked": [],
        },
        {
            "title": "reported: at least one number is only stated",
            "score": "score",
            "lines": [line("c", [1, 1], c, NAN, {"reason": 1.4 / 3, "code": 0.8})],
            "unranked": [
                {"model": "d", "missing": ["quiz", "maths", "loss"],
                "results": {"shown": cells["d", "shown"].to_json()}}
            ],
        },
    ]  # fmt: skip
    assert list(sections[0]["lines"][0]["results"]) == ["quiz", "maths", "loss", "shown"]


def test_only_shared_benchmarks_count_in_one_table_at_another_level() -> None:
    spec = replace(
        SPEC, missing="common", reported="together", categories={}, benchmarks=dict(list(SPEC.benchmarks.items())[:3])
    )
    [section] = make_board(RESULTS, spec, confidence=0.5).sections
    assert section.title == "" and [each.model for each in section.lines] == ["a", "c", "b"]
    # without weights of categories both count the same: reason (2/3 quiz, 1/3 maths) and code
    scores = [((2 * 2 / 3 + 0.5) / 3 + 0.9) / 2, (1.4 / 3 + 0.8) / 2, ((2 / 3 + 0.8) / 3 + 0.7) / 2]
    assert [each.score for each in section.lines] == pytest.approx(scores)
    error = math.sqrt((1 / 3 / 0.75) ** 2 / 16 + (0.05 / 6) ** 2 + (0.01 / 2) ** 2)
    assert section.lines[0].high - section.lines[0].score == pytest.approx(0.6744897501960817 * error)
    with pytest.raises(ConfigError) as told:
        make_board(RESULTS, replace(spec, benchmarks={"quiz": BenchmarkEntry(), "shown": BenchmarkEntry()}))
    assert str(told.value) == (
        'no benchmark has results of all 4 models: leave out a model, or take missing = "unranked"'
    )
    with pytest.raises(ConfigError) as told:
        make_board(RESULTS, replace(spec, benchmarks={"shown": BenchmarkEntry(display_only=True)}))
    assert str(told.value) == "every benchmark of the board own is display_only: let one count"


def plain(name: str, cells: dict[str, BoardResult], items: ItemScores | None = None, **entry: Any) -> BoardColumn:
    return BoardColumn(name, ColumnKey(name, "", "acc"), BenchmarkEntry(**entry), cells, items, 1.0)


def test_models_are_grouped_by_the_numbers_that_count_for_them() -> None:
    one = plain("one", {"a": own("a", "one", 0.5, 0.1), "b": stated("b", "one", 0.5), "e": own("e", "one", 0.5, 0.1)})
    two = plain("two", {"a": stated("a", "two", 0.5), "c": stated("c", "two", 0.5), "d": own("d", "two", 0.5, 0.1)})
    titles = ("verified: every number computed from item scores", "reported: at least one number is only stated")
    names = ["e", "d", "c", "b", "a"]
    assert _groups(names, [one, two], [one], SPEC) == [(titles[0], ["e", "d", "a"]), (titles[1], ["c", "b"])]
    assert _groups(names, [one, two], [one, two], SPEC) == [(titles[0], ["e", "d"]), (titles[1], ["c", "b", "a"])]
    assert _groups(["d", "e"], [one, two], [one, two], SPEC) == [(titles[0], ["d", "e"])]
    assert _groups(["b"], [one, two], [one, two], SPEC) == [(titles[1], ["b"])]
    assert _groups(names, [one, two], [one, two], replace(SPEC, reported="together")) == [("", names)]
    assert _common([one, two], ["a"]) == [one, two] and _common([one, two], ["a", "b"]) == [one]
    assert _common([two, one], ["c", "d", "a"]) == [two]


def test_a_section_ranks_what_is_complete_and_names_what_the_others_lack() -> None:
    one = plain(
        "one", {"a": own("a", "one", 0.5, 0.1), "b": own("b", "one", 0.75, 0.1), "c": own("c", "one", 0.9, 0.1)}
    )
    two = plain("two", {"b": own("b", "two", 0.25, 0.3)})
    lacking: dict[str, tuple[str, ...]] = {"a": (), "b": (), "c": ("three",)}
    section = _section("T", ["c", "b", "a"], [two, one], [one], lacking, BoardSpec(rule="weighted"), 0.95)
    assert section == BoardSection(
        "T", "score",
        (
            BoardLine("b", 1, 2, 0.75, pytest.approx(0.75 - Z95 * 0.1), pytest.approx(0.75 + Z95 * 0.1), {"one": 0.75},
                      {"two": two.cells["b"], "one": one.cells["b"]}),
            BoardLine("a", 1, 2, 0.5, pytest.approx(0.5 - Z95 * 0.1), pytest.approx(0.5 + Z95 * 0.1), {"one": 0.5},
                      {"one": one.cells["a"]}),
        ),
        (UnrankedModel("c", ("three",), {"one": one.cells["c"]}),),
    )  # fmt: skip
    nobody = {"a": ("x",), "c": ("y", "z")}
    for rule, heading in (("weighted", "score"), ("win-rate", "mean win rate"), ("borda", "Borda points")):
        made = _section("", ["a", "c"], [one], [one], nobody, BoardSpec(rule=rule), 0.95)  # type: ignore[arg-type]
        assert (made.score, made.lines, [each.missing for each in made.unranked]) == (heading, (), [("x",), ("y", "z")])


def test_the_score_that_counts_is_turned_round_and_above_chance() -> None:
    for value, entry, counted in (
        (0.625, {"chance": 0.25}, 0.5), (0.2, {"chance": 0.25}, 0.0), (0.2, {}, 0.2),
        (0.3, {"lower_is_better": True}, 0.7),
        (0.3, {"lower_is_better": True, "chance": 0.2}, 0.625), (-0.5, {}, -0.5), (1.0, {"chance": 0.5}, 1.0),
    ):  # fmt: skip
        assert _value(plain("b", {"m": stated("m", "b", value)}, **entry), "m") == pytest.approx(counted), (
            value,
            entry,
        )
    lower = stated("m", "b", 0.25, lower_is_better=True)
    assert _value(plain("b", {"n": stated("n", "b", 0.5), "m": lower}), "n") == 0.5, "where any result says so"
    assert _value(plain("b", {"m": lower}, lower_is_better=False), "m") == 0.25, "the definition says else"
    assert _group(plain("b", {"m": stated("m", "b", 1), "n": stated("n", "b", 1, group="STS")})) == "STS"
    assert _group(plain("b", {"m": stated("m", "b", 1, group="STS")}, category="own")) == "own"
    assert _group(plain("b", {"m": stated("m", "b", 1)})) == "no type"


def test_lines_are_in_order_of_score_with_intervals_by_their_degrees() -> None:
    scores, covariance = np.array([0.5, 0.9, 0.5, -0.25]), np.diag([0.01, 0.04, 0.0001, -1e-20])
    given = [{"p": float(i)} for i in range(4)]
    lines = _lines(["d", "c", "b", "a"], scores, covariance, math.inf, 0.9, given, 1e9)
    assert [(each.model, each.rank_low, each.rank_high, each.score, each.parts) for each in lines] == [
        ("c", 1, 4, 0.9, {"p": 1.0}), ("b", 1, 4, 0.5, {"p": 2.0}), ("d", 1, 4, 0.5, {"p": 0.0}),
        ("a", 1, 4, -0.25, {"p": 3.0}),
    ]  # fmt: skip
    z = 1.6448536269514722
    assert [(each.low, each.high) for each in lines] == [
        (pytest.approx(0.9 - z * 0.2), pytest.approx(0.9 + z * 0.2)),
        (pytest.approx(0.5 - z * 0.01), pytest.approx(0.5 + z * 0.01)),
        (pytest.approx(0.5 - z * 0.1), pytest.approx(0.5 + z * 0.1)), (-0.25, -0.25),
    ]  # fmt: skip
    t3 = 2.3533634348018264  # Student's t of three degrees, both tails 5 %
    [one] = _lines(["a"], np.array([1.0]), np.array([[0.25]]), 3, 0.9, [{}])
    assert (one.rank_low, one.rank_high, one.low, one.high) == (
        1, 1, pytest.approx(1 - t3 / 2), pytest.approx(1 + t3 / 2)
    )  # fmt: skip
    for degrees, ranks in ((math.inf, [(1, 1), (2, 2)]), (1, [(1, 2), (1, 2)]), (0, [(1, 1), (2, 2)])):
        # three errors apart: beyond a normal's 1.96, within the 12.7 of one degree; without any the error is not known
        pair = _lines(["a", "b"], np.array([1.0, 4.0]), np.diag([0.5, 0.5]), degrees, 0.95, [{}, {}])
        assert [(each.rank_low, each.rank_high) for each in pair] == ranks
    for errors, confidence, ranks in ((1.5, 0.8, [(1, 1), (2, 2)]), (1.5, 0.95, [(1, 2), (1, 2)]),
                                      (2.2, 0.95, [(1, 1), (2, 2)]), (2.2, 0.99, [(1, 2), (1, 2)])):  # fmt: skip
        # that many errors apart: a normal's are 1.28 of 80 %, 1.96 of 95 % and 2.58 of 99 %
        pair = _lines(["a", "b"], np.array([1.0, 2.0]), np.diag([0.5, 0.5]) / errors**2, math.inf, confidence, [{}, {}])
        assert [(each.model, each.rank_low, each.rank_high) for each in pair] == [
            (model, *of) for model, of in zip("ba", ranks, strict=True)
        ]
    none = _lines(["a", "b"], np.array([1.0, 2.0]), np.diag([0.25, 0.25]), 0, 0.9, [{}, {}])
    assert all(math.isnan(each.low) and math.isnan(each.high) for each in none)
    apart = _lines(["a", "b"], np.array([1.0, 2.0]), np.diag([0.01, 0.01]), math.inf, 0.95, [{}, {}], 5.0)
    assert [(each.model, each.rank_low, each.rank_high) for each in apart] == [("b", 1, 1), ("a", 2, 2)]


def test_the_errors_of_win_rates_and_points_are_those_between_columns() -> None:
    values = {
        "a": (0.9, 0.2, 0.03, 0.7),
        "b": (0.5, 0.1, 0.02, 0.8),
        "c": (0.1, 0.3, 0.09, 0.1),
        "d": (0.7, 0.4, 0.08, 1),
    }
    results = [
        stated(model, f"t{n}", value, lower_is_better=n == 1)
        for model, each in values.items() for n, value in enumerate(each) if (model, n) != ("d", 3)
    ]  # fmt: skip
    table = np.array([[*each] for each in values.values()])
    table[3, 3] = NAN
    rates = column_win_rates(table, [False, True, False, False])[:3]
    spec = BoardSpec(rule="win-rate", reported="together")
    [section] = make_board(ResultSet.of(results), spec, confidence=0.8).sections
    assert [each.model for each in section.unranked] == ["d"] and len(section.lines) == 3
    # four columns and a further one at .5: the variance of the mean by (4 + 1) / 4**2, over four
    t = 1.6377443536962102  # Student's t of three degrees, both tails 10 %
    for line in section.lines:
        mine = rates["abc".index(line.model)]
        further = [*mine, 0.5]
        variance = sum((each - sum(further) / 5) ** 2 for each in further) * 5 / 16 / 4
        reach = t * math.sqrt(variance)
        assert line.score == pytest.approx(mine.mean()) and line.parts == {}
        assert (line.low, line.high) == pytest.approx((max(0, mine.mean() - reach), min(1, mine.mean() + reach)))
    both = [each for each in results if not each.benchmark.endswith("3")]
    [points] = make_board(ResultSet.of(both), replace(spec, rule="borda"), confidence=0.8).sections
    counts = borda_counts(table[:, :3] * [1, -1, 1])
    t = 1.8856180831641267  # of two degrees
    for line in points.lines:
        mine = counts["abcd".index(line.model)]
        further = [*mine, 1.5]
        reach = t * math.sqrt(sum((each - sum(further) / 4) ** 2 for each in further) * 4 / 9 * 3)
        assert (line.score, line.low, line.high) == pytest.approx((mine.sum(), mine.sum() - reach, mine.sum() + reach))
        mean = np.abs(table["abcd".index(line.model), :3] - [0, 1, 0]).mean()  # 1 less an error
        assert line.parts == pytest.approx(
            {
                "Borda rank": 1 + sum(each > mine.sum() for each in counts.sum(1)),
                "mean (task)": mean,
                "mean (type)": mean,
            }
        )
    assert largest_of_equal_models(1, 3, 0.8) is largest_of_equal_models(3, 1, 0.8) is None


def test_a_model_without_a_rank_still_counts_where_it_has_results() -> None:
    values = {"a": (0.9, 0.2, 0.4), "b": (0.5, 0.1), "c": (0.1, 0.3, 0.8), "d": (0.7, 0.4, 0.6)}
    results = ResultSet.of([stated(m, f"t{n}", value) for m, each in values.items() for n, value in enumerate(each)])
    [points] = make_board(results, BoardSpec(rule="borda", reported="together"), confidence=0.8).sections
    # points among four models in t0 and t1, among the three that have it in t2
    counts = {"a": [3, 1, 1], "c": [0, 2, 3], "d": [2, 3, 2]}
    assert [(each.model, each.score) for each in points.lines] == [("d", 7.0), ("a", 5.0), ("c", 5.0)]
    t = 1.8856180831641267  # of two degrees, both tails 10 %
    for line in points.lines:
        further = [*counts[line.model], 1.5]  # the mean of four models
        error = math.sqrt(sum((each - sum(further) / 4) ** 2 for each in further) * 4 / 9 * 3)
        assert line.high - line.score == pytest.approx(t * error), line.model
        assert line.parts["Borda rank"] == {"d": 1, "a": 2, "c": 2}[line.model]
    lone = ResultSet.of([*results.results, stated("d", "own", 0.5)])
    [rates] = make_board(lone, BoardSpec(rule="win-rate", reported="together")).sections
    # only d has a result on `own`, which gives no rate: it beats 2 of 3, 3 of 3 and 1 of 2
    assert [each.model for each in rates.lines] == ["d"] and len(rates.unranked) == 3
    assert rates.lines[0].score == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)


def test_the_table_of_one_column_with_its_costs() -> None:
    cells = {
        "a": own("a", "b", 0.75, 0.125, n=8, cost_usd=0.5), "c": own("c", "b", 0.25, 0.25, seconds=0.0, n=8),
    }  # fmt: skip
    up = _of_column(plain("b", cells), 0.95)
    assert up == BoardSection(
        "b", "acc",
        (
            BoardLine("a", 1, 2, 0.75, pytest.approx(0.75 - Z95 * 0.125), pytest.approx(0.75 + Z95 * 0.125),
                      {"n": 8.0, "USD each": 0.5}, {"b": cells["a"]}),
            BoardLine("c", 1, 2, 0.25, 0.0, pytest.approx(0.25 + Z95 * 0.25), {"n": 8.0, "s each": 0.0},
            {"b": cells["c"]}),
        ),
    )  # fmt: skip
    down = _of_column(plain("b", cells, lower_is_better=True), 0.95)
    assert [(each.model, each.score, each.low, each.high) for each in down.lines] == [
        ("c", 0.25, 0.0, pytest.approx(0.25 + Z95 * 0.25)),
        ("a", 0.75, pytest.approx(0.75 - Z95 * 0.125), pytest.approx(0.75 + Z95 * 0.125)),
    ]


def test_models_of_the_same_items_are_paired_and_a_perfect_score_keeps_an_error() -> None:
    table = np.array([[1, 0, 1, 1], [1, 1, 1, 1], [0, 0, 1, 0]], np.float32)
    items = ItemScores(ColumnKey("b", "", ""), ("x", "y", "z"), ("1", "2", "3", "4"), table)
    cells = {each.model: each for each in items.results()} | {
        "s": stated("s", "b", 0.5, 0.3),
        "z": stated("z", "b", 0.4, 0.2),
    }
    column = BoardColumn("b", ColumnKey("b", "", ""), BenchmarkEntry(), cells, items, 0.5)
    found = column.covariance(["s", "y", "z", "x"])
    share = (1 * 4 + 2) / 8  # y solved all: Agresti and Coull
    expected = np.diag([0.09, share * (1 - share) / 8, 0.04, 0.5**2 / 16])  # z is stated elsewhere, not computed here
    assert found == pytest.approx(expected)
    both = BoardColumn("b", column.key, BenchmarkEntry(), {each.model: each for each in items.results()}, items, 1.0)
    assert both.covariance(["z", "x"]) == pytest.approx(np.array([[1 / 16, 1 / 48], [1 / 48, 1 / 16]]))
    none = BoardColumn("b", column.key, BenchmarkEntry(), cells, None, 1.0)
    assert none.covariance(["z", "s"]) == pytest.approx(np.diag([0.04, 0.09]))


def test_a_result_as_old_as_the_limit_is_fresh() -> None:
    now = datetime(2026, 5, 11, 12, tzinfo=UTC)
    spec = BoardSpec(fresh_days=10)
    at, before = "2026-05-01T12:00:00+00:00", "2026-05-01T11:59:59+00:00"
    fresh = ResultSet((stated("a", "b", 0.5, when=at), stated("c", "b", 0.5)), duplicates=2)
    assert make_board(fresh, spec, now=now).remarks == (
        "1 of 2 results have no date.",
        "2 repeated results counted once.",
    )
    old = ResultSet((stated("a", "b", 0.5, when=at), stated("c", "b", 0.5, when=before)), remarks=("r.",))
    assert make_board(old, spec, now=now).remarks == (
        "r.", "1 of 2 results are older than 10 days, the oldest c on b of 2026-05-01."
    )  # fmt: skip
    assert make_board(old, BoardSpec(), now=now).remarks == ("r.",)
