"""The definition of a board at its limits, the scale of a column, ties by chance: each sentence and each figure "
"whole."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.boards.aggregates import above_chance, borda_counts, borda_ranks, column_win_rates, mean_over_groups
from firsthand.boards.board_columns import _scale
from firsthand.boards.board_results import BoardResult, ColumnKey, ItemScores, ResultSet, merged_items, utc_of
from firsthand.boards.board_spec import BenchmarkEntry, BoardSpec, _entry, board_from, board_names, is_board, load_board
from firsthand.boards.climb import _climb
from firsthand.boards.item_scores import _error
from firsthand.boards.make_board import BoardLine, BoardSection, _within_shares
from firsthand.boards.random_orders import largest_of_equal_models
from firsthand.errors import ConfigError, DataError, UnknownName

NAN = math.nan


def told(make: Any, kind: type[Exception] = ConfigError) -> str:
    with pytest.raises(kind) as refused:
        make()
    return str(refused.value)


def stated(model: str, value: float, **more: Any) -> BoardResult:
    return BoardResult(model, "b", value, **more)


def test_entries_and_boards_at_their_limits() -> None:
    (
        BenchmarkEntry(weight=0, chance=0, scale=1e-9),
        BenchmarkEntry(chance=0.999),
        BoardSpec(categories={"x": 0}, fresh_days=0),
    )
    for entry, says in (
        ({"weight": -0.5}, "weight is -0.5: give 0 or more"), ({"weight": math.inf}, "weight is inf: give 0 or more"),
        ({"weight": NAN}, "weight is nan: give 0 or more"),
        ({"chance": 1.0}, "chance is 1.0: give the score of guessing, from 0 to below 1"),
        ({"chance": -0.25}, "chance is -0.25: give the score of guessing, from 0 to below 1"),
        ({"scale": 0}, "scale is 0: give the score of a perfect model, such as 100"),
        ({"scale": math.inf}, "scale is inf: give the score of a perfect model, such as 100"),
    ):  # fmt: skip
        assert told(lambda entry=entry: BenchmarkEntry(**entry)) == says
        assert told(lambda entry=entry: _entry("q", entry, Path("m.toml"))) == f"m.toml: benchmark 'q': {says}"
    both = "missing is unranked or common, and reported is apart or together"
    for spec, says in (
        ({"rule": "best"}, "rule is 'best': give each, weighted, win-rate, borda"), ({"missing": "x"}, both),
        ({"reported": "x"}, both),
        ({"fresh_days": -1}, "fresh_days is -1: give a number of days, or 0 for no limit"),
        ({"categories": {"w": 1, "x": -1, "y": -2}}, "the weight of category 'x' is -1: give 0 or more"),
        ({"categories": {"x": math.inf}}, "the weight of category 'x' is inf: give 0 or more"),
        ({"categories": {"x": 1},
        "benchmarks": {"b": BenchmarkEntry("z"), "c": BenchmarkEntry("y"), "d": BenchmarkEntry()}},
         "the category 'y' has no weight: add it to [categories]"),
    ):  # fmt: skip
        assert told(lambda spec=spec: BoardSpec(**spec)) == says
    (
        BoardSpec(benchmarks={"b": BenchmarkEntry("z")}),
        BoardSpec(categories={"z": 1}, benchmarks={"b": BenchmarkEntry("z")}),
    )


def test_a_definition_is_refused_by_the_key_that_is_wrong(tmp_path: Path) -> None:
    keys = "about, benchmarks, categories, fresh_days, missing, name, reported, results, rule, title"
    entries = "category, chance, display_only, lower_is_better, metric, protocol, scale, weight"
    for body, says in (
        ({"zz": 1}, f"has the key 'zz', which no board has: it knows {keys}"),
        ({"titel": 1}, "has the key 'titel', which no board has; did you mean 'title'?"),
        ({"rule": "each", "titel": 1, "resluts": []}, "has the key 'titel', which no board has; did you mean 'title'?"),
        ({"resluts": [], "zz": 1}, "has the key 'resluts', which no board has; did you mean 'results'?"),
    ):
        assert told(lambda body=body: board_from(body, Path("m.toml"))) == f"m.toml {says}"
    for value, says in (
        (3, "benchmark 'b' is 3: write a table such as { category = 'coding' }"),
        ({"zz": 1}, f"benchmark 'b' has the key 'zz': give {entries}"),
        ({"weigth": 1}, "benchmark 'b' has the key 'weigth'; did you mean 'weight'?"),
        ({"scale": 1, "weigth": 1, "chanse": 0}, "benchmark 'b' has the key 'weigth'; did you mean 'weight'?"),
        ({"chanse": 0, "zz": 1, "weigth": 1}, "benchmark 'b' has the key 'chanse'; did you mean 'chance'?"),
        ({"zz": 1, "weigth": 1}, f"benchmark 'b' has the key 'zz': give {entries}"),
        ([], "benchmark 'b' is []: write a table such as { category = 'coding' }"),
    ):
        assert told(lambda value=value: board_from({"benchmarks": {"b": value}}, Path("m.toml"))) == f"m.toml: {says}"
    assert (
        told(lambda: board_from({"categories": [1]}, Path("m.toml")))
        == "m.toml: categories is (1,): write a table, [categories]"
    )
    for body, says in (
        ({"categories": 1, "benchmarks": 2}, ": benchmarks is 2: write a table, [benchmarks]"),
        ({"rule": "best"}, ": rule is 'best': give each, weighted, win-rate, borda"),
        ({"fresh_days": "3"}, " does not define a board: '<' not supported between instances of 'str' and 'int'"),
        ({"benchmarks": {"b": {"weight": "x"}}},
         ": benchmark 'b': '<=' not supported between instances of 'int' and 'str'"),
    ):  # fmt: skip
        assert told(lambda body=body: board_from(body, Path("m.toml"))) == f"m.toml{says}"
    (tmp_path / "r.csv").touch()
    path = tmp_path / "Mine.toml"
    path.write_text(
        'name = "given"\nresults = ["r.csv", "*.json", "last"]\n[benchmarks]\nb = { weight = 2 }\n', encoding="utf-8"
    )
    assert load_board(str(path)) == BoardSpec(
        "given", benchmarks={"b": BenchmarkEntry(weight=2)}, results=(str(tmp_path / "r.csv"), "*.json", "last")
    )
    path.write_text("")
    assert load_board(str(path)) == BoardSpec("Mine")
    missing = tmp_path / "no.toml"
    assert (
        told(lambda: load_board(str(missing))) == f"no file {str(missing)!r}: give the TOML file that defines the board"
    )
    path.write_text("= =")
    assert told(lambda: load_board(str(path))).startswith(f"{path} cannot be read as TOML: ")
    names = board_names()
    assert (
        list(names) == sorted(names) and {"helm", "mteb", "open_llm", "swe_bench"} <= set(names) and all(names.values())
    )
    assert all(
        is_board(name) and load_board(name).name == name and load_board(name).title == title
        for name, title in names.items()
    )
    assert [is_board(word) for word in ("x.toml", "helm", "Helm", "no", "../definitions/helm", "")] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]
    assert "no board 'helmm'; did you mean 'helm'?" in told(lambda: load_board("helmm"), UnknownName)


def test_results_are_looked_for_beside_the_definition_and_are_runs_otherwise(tmp_path: Path) -> None:
    home = tmp_path / "boards"
    (home / "folder" / "deep").mkdir(parents=True)
    (home / "r.csv").touch()
    (tmp_path / "up.csv").touch()
    (home / "link.csv").symlink_to(home / "r.csv")
    (home / "gone.csv").symlink_to(home / "nothing.csv")
    for given, found in (
        ("r.csv", f"{home}/r.csv"), ("folder", f"{home}/folder"), ("folder/deep", f"{home}/folder/deep"),
        ("../boards/r.csv", f"{home}/../boards/r.csv"), (str(home / "r.csv"), f"{home}/r.csv"),
        ("link.csv", f"{home}/link.csv"), ("gone.csv", "gone.csv"), ("last", "last"),
        ("*.csv", "*.csv"), ("x" * 300, "x" * 300),
    ):  # fmt: skip
        assert board_from({"results": [given]}, home / "m.toml").results == (found,), given
    both = board_from({"results": ["last", "folder", "last"]}, home / "m.toml")
    assert both == BoardSpec("m", results=("last", f"{home}/folder", "last"))
    assert board_from({"results": []}, home / "m.toml") == board_from({}, home / "m.toml") == BoardSpec("m")
    for wrong in ("r.csv", {"a": "r.csv"}, 3):
        assert told(lambda wrong=wrong: board_from({"results": wrong}, Path("m.toml"))) == (
            f'm.toml: results is {wrong!r}: write a list, such as ["results/"]'
        )


def test_the_scale_of_a_column_is_told_by_its_values() -> None:
    def scale(*values: float, must_know: bool = False, **entry: Any) -> tuple[float, str]:
        cells = {f"m{n}": stated(f"m{n}", value) for n, value in enumerate(values)}
        return _scale("q", BenchmarkEntry(**entry), cells, must_know=must_know)

    assert [
        scale(*values)[0]
        for values in (
            (0.0, 1.0),
            (0.0, 1.5),
            (100.0, 2.0),
            (100.5, 2.0),
            (100.5, 0.5),
            (-3.0, 0.5),
            (10.0, 2.0),
            (10.1, 2.0),
        )
    ] == [
        1.0,
        1.0,
        100.0,
        1.0,
        1.0,
        1.0,
        1.0,
        100.0,
    ]
    assert scale(8.0, 10.0)[1] == "The scale of q is not known, and its values up to 10 are kept as they are."  # fmt: skip
    assert scale(-1.0, -2.0, 50.0) == (100.0, "2 results on q lie below 0 and are kept.")
    assert scale(5.0, -1.0, scale=10) == (10, "1 result on q lie below 0 and are kept.") and scale(10.0, scale=10) == (
        10,
        "",
    )
    for make, says in (
        (lambda: scale(10.25, 3.0, scale=10), "q has the value 10.25, above its scale of 10: correct one of them"),
        (lambda: scale(50.0, 0.5, 1.0),
        "q mixes percents and fractions, or has a percent below 1: m1 has 0.5 and m0 50; give its scale, "
         "such as 100, in the board's definition"),
        (lambda: scale(50.0, 1.0, -2.0), "q has values from -2 to 50: give its scale in the board's definition"),
        (lambda: scale(8.0, 10.0, must_know=True),
        "q has values up to 10: give its scale, the perfect score, in the board's definition"),
        (lambda: scale(1000.0, 5.0, must_know=True),
        "q has values up to 1000: give its scale, the perfect score, in the board's definition"),
        (lambda: scale(1000.0, 0.5, must_know=True),
        "q has values up to 1000: give its scale, the perfect score, in the board's definition"),
    ):  # fmt: skip
        assert told(make, DataError) == says


def test_the_largest_difference_of_random_orders_is_the_quantile_of_its_definition() -> None:
    models, columns = 4, 3
    plain = np.arange(4) - 1.5
    orders = np.random.default_rng(7).permuted(np.broadcast_to(plain, (4000, columns, models)), axis=2)
    further = np.concatenate([orders, np.zeros((4000, 1, models))], 1)  # a column more, in which all are equal
    centred = further - further.mean(1, keepdims=True)
    covariance = np.einsum("sci,scj->sij", centred, centred) * (columns + 1) / columns**2 * columns
    own = np.einsum("sii->si", covariance)
    spread = own[:, :, None] + own[:, None, :] - 2 * covariance
    total = orders.sum(1)
    gaps = np.abs(total[:, :, None] - total[:, None, :])
    pairs = ~np.eye(models, dtype=bool)
    largest = np.sort((gaps[:, pairs] / np.sqrt(spread[:, pairs])).max(1))
    for confidence in (0.5, 0.95):
        found = largest_of_equal_models(models, columns, confidence, 7)
        assert found == pytest.approx(largest[math.ceil(4000 * confidence) - 1], rel=1e-8) and found is not None
        assert found > largest[math.ceil(4000 * confidence) - 1], (
            "a difference that large by chance tells nothing apart"
        )


@pytest.mark.slow
def test_many_random_orders_are_drawn_in_parts() -> None:
    models, columns, largest = 25, 2, []
    draw = np.random.default_rng(0)
    plain = np.arange(25) - 12.0
    for count in (3200, 800):  # 2,000,000 cells of 25 by 25 at once, 4,000 draws in all
        orders = draw.permuted(np.broadcast_to(plain, (count, columns, models)), axis=2)
        total, both = orders.sum(1), (orders**2).sum(1) - orders.sum(1) ** 2 / 3
        products = np.einsum("sci,scj->sij", orders, orders) - total[:, :, None] * total[:, None, :] / 3
        spread = (both[:, :, None] + both[:, None, :] - 2 * products) * 3 / 2 + np.eye(models)
        largest.append((np.abs(total[:, :, None] - total[:, None, :]) / np.sqrt(spread)).max((1, 2)))
    wanted = np.sort(np.concatenate(largest))[3800 - 1]
    assert largest_of_equal_models(models, columns, 0.95) == pytest.approx(wanted, rel=1e-8)


def test_ties_gaps_and_single_models_in_aggregates() -> None:
    table = np.array([[3.0, NAN, 1.0], [3.0, 5.0, NAN], [1.0, NAN, 2.0], [3.0, NAN, 1.0]])
    assert np.array_equal(
        column_win_rates(table, [False, False, True]),
        [[2 / 3, NAN, 0.75], [2 / 3, NAN, NAN], [0, NAN, 0], [2 / 3, NAN, 0.75]], equal_nan=True,
    )  # fmt: skip
    assert np.array_equal(borda_counts(table), [[2, NAN, 1.5], [2, 3, NAN], [0, NAN, 3], [2, NAN, 1.5]], equal_nan=True)
    assert borda_ranks(table).tolist() == [2, 1, 4, 2]
    means, groups = mean_over_groups(np.array([[1.0, 2.0, 6.0], [0.0, NAN, 4.0]]), ["x", "y", "x"])
    assert groups.tolist()[0] == [3.5, 2.0] and means[0] == 2.75 and np.array_equal(groups[1], [2, NAN], equal_nan=True)
    assert [above_chance(*each) for each in ((0.25, 0.25), (0.1, 0.25), (1.0, 0.25), (0.625, 0.25))] == [0, 0, 1, 0.5]
    lines = [
        BoardLine("a", 1, 1, 0.5, -0.25, 1.5),
        BoardLine("b", 1, 1, 0.5, NAN, NAN),
        BoardLine("c", 1, 1, 0.5, 1.25, -1.0),
    ]
    assert [(each.low, each.high) for each in _within_shares(lines)[::2]] == [(0.0, 1.0), (1.0, 0.0)]
    assert math.isnan(_within_shares(lines)[1].low)


def test_dates_errors_and_items_at_their_edges() -> None:
    for given, utc in (
        (None, ""), ("", ""), (0, "1970-01-01T00:00:00+00:00"), (1.9, "1970-01-01T00:00:01+00:00"),
        ("2026/01/31", "2026-01-31T00:00:00+00:00"),
        (" 2026-01-31T01:00:00+02:00 ", "2026-01-30T23:00:00+00:00"),
        ("2026-01-31T10:00:00Z", "2026-01-31T10:00:00+00:00"),
    ):  # fmt: skip
        assert utc_of(given, "f") == utc
    for wrong in (True, "soon", 1e30, "2026-13-01", []):
        assert (
            told(lambda wrong=wrong: utc_of(wrong, "f"), DataError)
            == f"f: the date is {wrong!r}: write ISO 8601, such as 2026-01-31"
        )
    assert [_error(*each) for each in ((0.5, 0.25), (1.0, 0.0), (0.0, 0.0), (1.5, 0.0), (0.5, NAN),
        (-0.5, -0.0), (2.0, -1.0))] == [
        0.5, None, None, 0.0, None, 0.0, 0.0,
    ]  # fmt: skip
    key = ColumnKey("b", "", "")
    one = ItemScores(key, ("a", "c"), ("1", "2"), np.array([[1, 0], [0, 1]], np.float32), ("x", "x"))
    two = ItemScores(key, ("c", "d"), ("2", "3"), np.array([[0.25, 0.5], [0.75, 1]], np.float32))
    [merged] = merged_items([one, two])
    assert (merged.models, merged.tasks, merged.clusters) == (("a", "c", "d"), ("1", "2", "3"), ("x", "x", "3"))
    # of two scores for one item neither is joined: c keeps what its first file says
    assert np.array_equal(merged.scores, [[1, 0, NAN], [0, 1, NAN], [NAN, 0.75, 1]], equal_nan=True)
    assert [each.model for each in merged.abouts] == ["", "", ""] and merged_items([]) == []


def test_the_error_of_each_model_is_of_its_own_items_and_unknown_where_they_tell_nothing() -> None:
    def errors(*rows: tuple[float, ...], clusters: tuple[str, ...] = ()) -> dict[str, tuple[float, int, float | None]]:
        names, tasks = tuple("abcdefgh"[: len(rows)]), tuple(map(str, range(len(rows[0]))))
        items = ItemScores(ColumnKey("b", "", ""), names, tasks, np.array(rows, np.float32), clusters)
        return {each.model: (each.value, each.n, each.error) for each in items.results()}

    found = errors((0, 1), (0, 0), (1, 1), (0.5, 0.5), (-1, -1), (1.25, 1.25), (NAN, NAN), (2, 4))
    assert found == {
        "a": (0.5, 2, pytest.approx(0.5)), "b": (0.0, 2, None), "c": (1.0, 2, None), "d": (0.5, 2, None),
        "e": (-1.0, 2, 0.0), "f": (1.25, 2, 0.0), "h": (3.0, 2, pytest.approx(1.0)),
    }  # fmt: skip
    # of 4 units a mean of 2 items, deviations .5: (.25 + .25) * 4 / 3 / 2^2
    assert errors((0, 1, NAN, NAN), (0, 1, 0, 1)) == {
        "a": (0.5, 2, pytest.approx(math.sqrt(0.5 * 4 / 3 / 4))), "b": (0.5, 4, pytest.approx(math.sqrt(1 * 4 / 3 / 16))),
    }  # fmt: skip
    assert errors((2.0,), (0.5,)) == {"a": (2.0, 1, None), "b": (0.5, 1, None)}, "one unit has no spread"
    assert errors((0, 1), clusters=("x", "x")) == {"a": (0.5, 2, None)}
    assert errors((0, 1, 1, 0), clusters=("x", "y", "y", "x")) == {"a": (0.5, 4, pytest.approx(math.sqrt(2 * 2 / 16)))}
    assert errors((NAN, NAN)) == {}


def test_a_number_that_two_files_state_counts_once_within_a_tenth_of_a_point() -> None:
    def of(*values: float, **more: Any) -> ResultSet:
        return ResultSet.of([stated("m", value, source=f"f{n}", run=str(n), **more) for n, value in enumerate(values)])

    near, far = of(0.5, 0.501), of(0.5, 0.5011)
    assert [each.source for each in near.results] == ["f0"] and (near.duplicates, near.remarks) == (1, ())
    assert (far.results, far.duplicates) == ((), 0)
    assert far.remarks == ("m has 2 different numbers on b, 0.5 (f0) and 0.5011 (f1): none is used.",)
    four = of(1.0, 2.0, 3.0, 4.0)
    assert four.remarks == ("m has 4 different numbers on b, 1 (f0) and 2 (f1) and 3 (f2): none is used.",)
    same = ResultSet.of([stated("m", 0.5, source="f"), stated("m", 0.5, source="g", verified=True)])
    assert [each.source for each in same.results] == ["f"] and same.duplicates == 1
    later = [stated("m", 0.5, when="2999-01-01T00:00:00+00:00", source=name) for name in ("f", "g")]
    assert ResultSet.of(later).remarks == (
        "1 results are dated after now, m on b for example (2999-01-01T00:00:00+00:00): is a clock wrong?",
    )
    checked = ResultSet.of([stated("m", 0.5, run="1"), stated("m", 0.5001, run="2", verified=True)])
    assert [each.run for each in checked.results] == ["2"]


def test_records_of_a_table_by_date() -> None:
    def line(model: str, score: float, *whens: str, lower: bool = False) -> BoardLine:
        cells = {f"c{n}": stated(model, score, when=when, lower_is_better=lower) for n, when in enumerate(whens)}
        return BoardLine(model, 1, 1, score, NAN, NAN, {}, cells)

    up = _climb(BoardSection("", "acc",
    (line("a", 0.5, "2026-01-02"), line("b", 0.5, "2026-01-03"), line("c", 0.75, "2026-01-02"), line("d", 0.9, ""),
                                         line("e", 0.8, "2026-01-01", "2026-01-09"),
                                         line("f", 0.1, "2026-01-01", ""), line("g", 1.0))))  # fmt: skip
    assert (up.title, up.undated) == ("acc", 3)
    assert up.points == (
        ("2026-01-02", "c", 0.75),
        ("2026-01-02", "a", 0.5),
        ("2026-01-03", "b", 0.5),
        ("2026-01-09", "e", 0.8),
    )
    assert [(step.when, step.model, step.score, round(step.gain, 9)) for step in up.steps] == [
        ("2026-01-02", "c", 0.75, 0.75), ("2026-01-09", "e", 0.8, 0.05),
    ]  # fmt: skip
    down = _climb(
        BoardSection(
            "T",
            "x",
            (
                line("a", 3.0, "1", lower=True),
                line("b", 2.0, "1", lower=True),
                line("c", 2.0, "2", lower=True),
                line("d", 1.0, "3", lower=True),
            ),
        )
    )
    assert down.title == "T" and [(step.model, step.gain) for step in down.steps] == [("b", 2.0), ("d", -1.0)]
    mixed = _climb(BoardSection("T", "x", (line("a", 3.0, "1", lower=True), line("b", 2.0, "2"))))
    assert [step.model for step in mixed.steps] == ["a"], "only where all results fall"
    assert _climb(BoardSection("T", "x", ())).points == ()
