"""Scores out of line, against the fit, the simulation and the report written out in plain Python from their definitions."""

from __future__ import annotations

import math
from statistics import fmean, median, pstdev

import numpy as np
import pytest

from firsthand.boards.board_columns import BoardColumn
from firsthand.boards.board_results import BoardResult, ColumnKey
from firsthand.boards.board_spec import BenchmarkEntry
from firsthand.boards.cross_reference import (
    DEVIATIONS,
    CrossReference,
    OutOfLine,
    _tail,
    _tails_of_clean,
    cross_reference,
    fit_table,
)  # fmt: skip
from firsthand.errors import ConfigError

NAN = math.nan
SCORES = [
    [0.9, 12.0, 31.0, 5.0, NAN],
    [1.4, 15.5, NAN, 5.5, 0.30],
    [2.2, 18.0, 44.0, 6.75, 0.35],
    [2.9, NAN, 47.0, 6.5, 0.52],
    [3.1, 24.0, 58.0, 8.0, 0.55],
    [4.0, 27.5, 61.0, 12.5, 0.50],
    [4.4, 31.0, 75.0, 9.0, 0.81],
    [5.3, 33.0, 77.0, 9.75, 0.78],
    [19.0, 95.0, 230.0, 31.0, 3.10],
]
ERRORS = [[0.1 + 0.05 * i, 1.0, 0.5 + 0.25 * (i % 3), NAN if i == 4 else 0.2 * i, 0.01 * (i + 1)] for i in range(9)]
ROWS, COLUMNS = range(9), range(5)


def there(i: int, j: int) -> bool:
    return not math.isnan(SCORES[i][j])


def middle(values: list[list[float]], j: int) -> float:
    return median(values[i][j] for i in ROWS if there(i, j))


def proposal_2(rest: list[list[float]], j: int) -> float:
    """Huber's scale of a column's residuals after four rounds: bound 1.345, consistency .7102, two parameters fitted."""
    sizes = [abs(rest[i][j]) for i in ROWS if there(i, j)]
    found = max(1.4826 * median(sizes), 1e-6)
    for _ in range(4):
        squares = sum(min(size, 1.345 * found) ** 2 for size in sizes)
        found = max(math.sqrt(squares / (0.7102 * (len(sizes) - 2))), 1e-6)
    return found


def weight(i: int, j: int, z: float) -> float:
    return 1.345 / max(abs(z), 1.345) if there(i, j) else 0.0


def expected_and_error() -> tuple[list[list[float]], list[list[float]], list[float]]:
    """The robust fit of rank one that leaves out the column in question, cell by cell."""
    centre = [middle(SCORES, j) for j in COLUMNS]
    spread = [1.4826 * median(abs(SCORES[i][j] - centre[j]) for i in ROWS if there(i, j)) for j in COLUMNS]
    table = [[(SCORES[i][j] - centre[j]) / spread[j] if there(i, j) else 0.0 for j in COLUMNS] for i in ROWS]
    w = [[float(there(i, j)) for j in COLUMNS] for i in ROWS]
    loading = [1.0] * 5
    for _ in range(12):
        ability = [
            sum(w[i][j] * loading[j] * table[i][j] for j in COLUMNS) / sum(w[i][j] * loading[j] ** 2 for j in COLUMNS)
            for i in ROWS
        ]
        ability = [(each - fmean(ability)) / pstdev(ability) for each in ability]
        loading = [
            sum(w[i][j] * ability[i] * table[i][j] for i in ROWS) / sum(w[i][j] * ability[i] ** 2 for i in ROWS)
            for j in COLUMNS
        ]
        rest = [[table[i][j] - loading[j] * ability[i] for j in COLUMNS] for i in ROWS]
        w = [[weight(i, j, rest[i][j] / proposal_2(rest, j)) for j in COLUMNS] for i in ROWS]
    others = [
        [
            sum(w[i][k] * loading[k] * table[i][k] for k in COLUMNS if k != j)
            / sum(w[i][k] * loading[k] ** 2 for k in COLUMNS if k != j)
            for j in COLUMNS
        ]
        for i in ROWS
    ]
    expected, error, leverages = [[NAN] * 5 for _ in ROWS], [[NAN] * 5 for _ in ROWS], []
    for j in COLUMNS:
        v = [float(there(i, j)) for i in ROWS]
        for _ in range(12):
            total = sum(v)
            mean_x = sum(v[i] * others[i][j] for i in ROWS) / total
            mean_y = sum(v[i] * table[i][j] for i in ROWS) / total
            width = sum(v[i] * (others[i][j] - mean_x) ** 2 for i in ROWS)
            slope = sum(v[i] * (others[i][j] - mean_x) * (table[i][j] - mean_y) for i in ROWS) / width
            column = [table[i][j] - mean_y - slope * (others[i][j] - mean_x) for i in ROWS]
            scale = proposal_2([[value] * 5 for value in column], j)
            v = [weight(i, j, column[i] / scale) for i in ROWS]
        noise = [0.0 if math.isnan(ERRORS[i][j]) else (ERRORS[i][j] / spread[j]) ** 2 for i in ROWS]
        usual = median(noise[i] for i in ROWS if there(i, j))
        for i in ROWS:
            if there(i, j):
                leverages.append(1 / total + (others[i][j] - mean_x) ** 2 / width)
                leverage = min(leverages[-1], 0.9) * v[i]
                expected[i][j] = (table[i][j] - column[i] / (1 - leverage)) * spread[j] + centre[j]
                variance = scale**2 * (1 + leverage / (1 - leverage)) + max(noise[i] - usual, 0.0)
                error[i][j] = math.sqrt(variance) * spread[j]
    return expected, error, leverages


def test_the_fit_of_a_table_with_gaps_is_the_one_written_out_cell_by_cell() -> None:
    fit = fit_table(np.array(SCORES), np.array(ERRORS))
    expected, error, leverages = expected_and_error()
    assert max(leverages) > 0.9 > sorted(leverages)[-6], "the case has a leverage that is bounded, and others"
    np.testing.assert_allclose(fit.expected, expected, rtol=1e-9)
    np.testing.assert_allclose(fit.error, error, rtol=1e-9)
    np.testing.assert_allclose(fit.z, (np.array(SCORES) - expected) / np.array(error), rtol=1e-7, atol=1e-9)
    other = np.array(SCORES)[::-1] * 2 + 1
    both = fit_table(np.stack([SCORES, other]), np.stack([ERRORS, np.array(ERRORS)[::-1] * 2]))
    np.testing.assert_allclose(both.expected[0], expected, rtol=1e-9)
    np.testing.assert_allclose(both.expected[1], np.array(expected)[::-1] * 2 + 1, rtol=1e-9)
    np.testing.assert_allclose(both.error[1], np.array(error)[::-1] * 2, rtol=1e-9)


def test_clean_tables_are_drawn_from_the_fit_forty_at_a_time_from_a_seed_of_each_kind() -> None:
    scores, errors = np.array(SCORES), np.array(ERRORS)
    fit = fit_table(scores, errors)
    found = _tails_of_clean(scores, errors, fit, 43, 7)
    assert list(found) == ["normal", "t10", "laplace", "t5"] == list(DEVIATIONS)
    for place, kind in enumerate(found):
        draw = np.random.default_rng([7, place])
        made = np.concatenate([fit.expected + fit.error * DEVIATIONS[kind](draw, (size, 9, 5)) for size in (40, 3)])
        together = _tail(fit_table(made, np.broadcast_to(errors, made.shape)).z)
        np.testing.assert_allclose(found[kind], together, rtol=1e-9, err_msg=kind)


def column(name: str, cells: dict[str, float], *, lower: bool = False, n: int = 0) -> BoardColumn:
    results = {model: BoardResult(model, name, value, n=n) for model, value in cells.items()}
    return BoardColumn(name, ColumnKey(name, "", ""), BenchmarkEntry(lower_is_better=lower), results, None, 1.0)


def table_of_columns() -> list[BoardColumn]:
    """Five benchmarks of ten models, the second of shares, the third better where it is lower; and what is left out."""
    draw = np.random.default_rng(3)
    columns = []
    for j, name in enumerate(("points", "share", "loss", "elo", "gaps")):
        cells = {}
        for i in range(10):
            value = i - 4.5 + 0.4 * draw.standard_normal() + (6.0 if (i, j) == (4, 3) else 0.0)
            if (i, j) != (2, 4):
                cells[f"m{i}"] = {"share": 1 / (1 + math.exp(-value / 2)), "loss": 20 - value}.get(
                    name, 10 + value * (j + 1)
                )
        columns.append(column(name, cells, lower=name == "loss", n=50 if name == "share" else 0))
    few = column("few", {f"m{i}": float(i) for i in range(7)})
    flat = column("flat", {f"m{i}": float(i % 2) for i in range(9)})
    columns[0].cells["stray"] = BoardResult("stray", "points", 3.0)  # type: ignore[index]
    return [columns[0], few, *columns[1:], flat]


def test_a_report_has_each_score_with_its_range_its_corrected_p_value_and_what_was_left_out() -> None:
    given = table_of_columns()
    kept, models = [each for each in given if each.name not in ("few", "flat")], [f"m{i}" for i in range(10)]

    def odds(share: float) -> float:
        return math.log((share * 50 + 0.5) / 51 / (1 - (share * 50 + 0.5) / 51))

    scores, errors = np.full((10, 5), NAN), np.full((10, 5), NAN)
    for i, model in enumerate(models):
        for j, each in enumerate(kept):
            if model in each.cells:
                value = each.cells[model].value
                scores[i, j] = odds(value) if each.name == "share" else value
                if each.name == "share":
                    half = (value * 50 + 0.5) / 51
                    share = (value * 50 + 2) / 54
                    errors[i, j] = math.sqrt(share * (1 - share) / 54) / (half * (1 - half))
    fit = fit_table(scores, errors)
    own, clean = _tail(fit.z), _tails_of_clean(scores, errors, fit, 9, 5)
    # of alpha .5 a fifth is spent on kinds: floor(.4 * (9 + 1)) = 4 simulated tables may stand out as much
    lighter = {kind: sum(w <= own.weight for w in tails.weight) for kind, tails in clean.items()}
    heavier = {kind: sum(w >= own.weight for w in tails.weight) for kind, tails in clean.items()}
    allowed = [kind for kind in clean if kind == "normal" or (1 + lighter[kind]) / 10 > 0.1]
    outs = {kind: sorted((np.log(clean[kind].largest) - clean[kind].bound) / clean[kind].excess) for kind in allowed}
    critical = math.exp(own.bound + max(each[-4] for each in outs.values()) * own.excess)
    found = cross_reference(given, alpha=0.5, tables=9, seed=5)
    assert isinstance(found, CrossReference)
    assert (found.alpha, found.tables, found.deviations) == (0.5, 9, tuple(allowed))
    assert found.heavy_tailed == all((1 + each) / 10 <= 0.1 for each in heavier.values())
    assert found.critical == pytest.approx(critical, rel=1e-9)
    assert found.left_out == ("few", "flat", "stray"), "benchmarks first, in their order"
    by_place = {}
    for i, model in enumerate(models):
        for j, each in enumerate(kept):
            if model not in each.cells:
                continue
            z, centre, reach = fit.z[i, j], fit.expected[i, j], critical * fit.error[i, j]
            ends = [centre, centre - reach, centre + reach]
            ends = [1 / (1 + math.exp(-end)) for end in ends] if each.name == "share" else ends
            out = (math.log(abs(z)) - own.bound) / own.excess
            p = 0.1 + max((1 + sum(other >= out for other in kind)) / 10 for kind in outs.values())
            by_place[model, each.name] = (
                each.cells[model].value, *ends, -z if each.name == "loss" else z, min(1.0, p), abs(z) > critical
            )  # fmt: skip
    assert len(found.scores) == 49 == len(by_place)
    for each in found.scores:
        told = (each.score, each.expected, each.low, each.high, each.z, each.p_value)
        assert told == pytest.approx(by_place[each.model, each.benchmark][:6], rel=1e-7), each
        assert each.flagged is bool(by_place[each.model, each.benchmark][6])
    order = sorted(found.scores, key=lambda each: (-abs(each.z), each.model, each.benchmark))
    assert list(found.scores) == order and (order[0].model, order[0].benchmark) == ("m4", "elo")
    assert found.flagged == tuple(each for each in order if each.flagged) and found.flagged[0] is found.scores[0]
    worst = found.scores[0]
    assert worst.to_json() == {
        "model": "m4", "benchmark": "elo", "score": worst.score, "expected": worst.expected, "low": worst.low,
        "high": worst.high, "z": worst.z, "p_value": worst.p_value, "flagged": True,
    }  # fmt: skip
    assert OutOfLine(**worst.to_json()) == worst


def test_one_table_fewer_than_the_rate_needs_is_refused_with_the_number_that_it_needs() -> None:
    # alpha .25 leaves .2 for the test: floor(.2 * (tables + 1)) is 1 from 4 tables on
    given = table_of_columns()
    assert cross_reference(given, alpha=0.25, tables=4).tables == 4
    with pytest.raises(ConfigError, match=r"^tables is 3: a false alarm rate of 0\.25 needs 4 or more$"):
        cross_reference(given, alpha=0.25, tables=3)


def test_a_model_that_goes_takes_a_benchmark_of_eight_models_with_it() -> None:
    # `edge` has eight models, one of which has too few benchmarks: without it `edge` has seven, and goes too
    full = [column(f"b{j}", {f"m{i}": float((i * (j + 2)) % 11 + i) for i in range(9)}) for j in range(4)]
    edge = column("edge", {**{f"m{i}": float(i * i) for i in range(7)}, "lone": 5.0})
    found = cross_reference([*full, edge], tables=24)
    assert found.left_out == ("edge", "lone") and len(found.scores) == 36
    with pytest.raises(
        ConfigError,
        match=r"^cross_reference found 0 benchmarks with 0 models that share them: it needs 4 benchmarks with results of "
        r"8 models$",
    ):
        cross_reference([*full[:3], edge], tables=24)
