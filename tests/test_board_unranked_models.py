"""Boards on which some models have no rank: what they count in, what is shown of them, and the board as JSON."""

from __future__ import annotations

import math

import pytest

from firsthand.boards.board_results import BoardResult, ResultSet
from firsthand.boards.board_spec import BenchmarkEntry, BoardSpec
from firsthand.boards.make_board import BoardLine, BoardSection, MadeBoard, UnrankedModel, make_board

ORDERS = ("abcde", "abcde", "abcde", "acdbe", "ab")
"""The models of five columns from best to worst; the last one has no results of c, d and e."""
VALUES = {
    (model, f"t{column}"): 0.9 - 0.1 * place for column, order in enumerate(ORDERS) for place, model in enumerate(order)
}
RESULTS = ResultSet.of([BoardResult(model, f"t{c}", VALUES[model, f"t{c}"]) for c in range(4) for model in "cbdae"]
                       + [BoardResult(model, "t4", VALUES[model, "t4"]) for model in "ba"])  # fmt: skip
T4 = 1.5332062740589438
"""Student's t of four degrees, both tails 10 %."""


def board(rule: str, confidence: float = 0.8) -> BoardSection:
    entries = {f"t{column}": BenchmarkEntry("one" if column < 3 else "two") for column in range(5)}
    spec = BoardSpec(rule=rule, benchmarks=entries, reported="together")  # type: ignore[arg-type]
    [section] = make_board(RESULTS, spec, confidence=confidence).sections
    assert [(each.model, each.missing, list(each.cells)) for each in section.unranked] == [
        (model, ("t4",), ["t0", "t1", "t2", "t3"]) for model in "cde"
    ]
    return section


def error(values: list[float], centre: float) -> float:
    """The error between columns: with a further one at the centre."""
    size, further = len(values), [*values, centre]
    mean = sum(further) / len(further)
    return math.sqrt(sum((each - mean) ** 2 for each in further) * (size + 1) / size**2)


def test_borda_points_count_all_models_and_ranks_only_the_ranked() -> None:
    section = board("borda")
    points = {"a": [4.0, 4, 4, 4, 4], "b": [3.0, 3, 3, 1, 3]}  # in t4 above those without a result
    reach = {model: T4 * error(each, 2.0) * math.sqrt(5) for model, each in points.items()}
    means = {"a": 0.9, "b": (0.8 * 3 + 0.6 + 0.8) / 5}
    types = {"a": (0.9, 0.9), "b": (0.8, 0.7)}
    # the difference is 2.907 of its errors: by chance two models reach 1.46, and five 3.80
    assert [(each.model, each.rank_low, each.rank_high) for each in section.lines] == [("a", 1, 1), ("b", 2, 2)]
    for line, rank in zip(section.lines, (1.0, 2.0), strict=True):
        name, total = line.model, sum(points[line.model])
        assert (line.score, line.low, line.high) == pytest.approx((total, total - reach[name], total + reach[name]))
        assert line.parts == pytest.approx({
            "Borda rank": rank, "mean (task)": means[name], "mean (type)": sum(types[name]) / 2, "one": types[name][0],
            "two": types[name][1],
        })  # fmt: skip
        assert {key: each.value for key, each in line.cells.items()} == {
            column: VALUES[name, column] for column in ("t0", "t1", "t2", "t3", "t4")
        }
    # at 95 % two models of five columns reach 5 errors by chance
    assert [(each.rank_low, each.rank_high) for each in board("borda", 0.95).lines] == [(1, 2), (1, 2)]


def test_win_rates_count_all_models_and_ranks_only_the_ranked() -> None:
    section = board("win-rate")
    rates = {"a": [1.0, 1, 1, 1, 1], "b": [0.75, 0.75, 0.75, 0.25, 0]}
    # 2.711 errors apart
    assert [(each.model, each.rank_low, each.rank_high) for each in section.lines] == [("a", 1, 1), ("b", 2, 2)]
    for line in section.lines:
        mean, reach = sum(rates[line.model]) / 5, T4 * error(rates[line.model], 0.5) / math.sqrt(5)
        ends = max(0.0, mean - reach), min(1.0, mean + reach)
        assert (line.score, line.low, line.high, line.parts) == (
            pytest.approx(mean), pytest.approx(ends[0]), pytest.approx(ends[1]), {},
        )  # fmt: skip
    assert [(each.rank_low, each.rank_high) for each in board("win-rate", 0.95).lines] == [(1, 2), (1, 2)]


def test_a_board_of_nobody_with_a_rank_shows_its_models() -> None:
    results = ResultSet.of([BoardResult("a", "x", 0.5), BoardResult("b", "y", 0.5, verified=True)])
    made = make_board(results, BoardSpec("n", rule="weighted"))
    assert made.remarks == () and [each.lines for each in made.sections] == [(), ()]
    cells = {each.model: each.to_json() for each in results.results}
    assert made.to_json()["sections"] == [
        {"title": "verified: every number computed from item scores", "score": "score", "lines": [],
         "unranked": [{"model": "b", "missing": ["x"], "results": {"y": cells["b"]}}]},
        {"title": "reported: at least one number is only stated", "score": "score", "lines": [],
         "unranked": [{"model": "a", "missing": ["y"], "results": {"x": cells["a"]}}]},
    ]  # fmt: skip


def test_a_board_as_json_has_every_table_as_it_is() -> None:
    cell = BoardResult("m", "b", 0.5)
    line = BoardLine("m", 2, 3, 0.5, math.nan, 0.75, {"part": 0.25}, {"col": cell, "other": cell})
    alone = UnrankedModel("u", ("b", "c"), {"col": cell})
    sections = (
        BoardSection("", "score", (line, BoardLine("n", 1, 1, 0.0, 0.0, math.inf)), (alone, UnrankedModel("v", ()))),
        BoardSection("T", "", ()),
    )
    spec = BoardSpec("name", "", "about", "borda")
    assert MadeBoard(spec, sections, ("one", "two"), 0.5).to_json() == {
        "board": "name", "title": "", "about": "about", "rule": "borda", "confidence": 0.5,
        "sections": [
            {
                "title": "", "score": "score",
                "lines": [
                    {"model": "m", "rank": [2, 3], "score": 0.5, "interval": [None, 0.75], "parts": {"part": 0.25},
                     "results": {"col": cell.to_json(), "other": cell.to_json()}},
                    {"model": "n", "rank": [1, 1], "score": 0.0, "interval": [0.0, None], "parts": {}, "results": {}},
                ],
                "unranked": [{"model": "u", "missing": ["b", "c"], "results": {"col": cell.to_json()}},
                             {"model": "v", "missing": [], "results": {}}],
            },
            {"title": "T", "score": "", "lines": [], "unranked": []},
        ],
        "remarks": ["one", "two"],
    }  # fmt: skip
    assert MadeBoard(spec, (), ()).to_json() == {
        "board": "name", "title": "", "about": "about", "rule": "borda", "confidence": 0.95, "sections": [],
        "remarks": [],
    }  # fmt: skip
