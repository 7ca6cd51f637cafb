"""Scores out of line with a model's other benchmarks: planted ones are found, clean tables are left alone."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from firsthand.boards.board_columns import BoardColumn
from firsthand.boards.board_results import BoardResult, ColumnKey
from firsthand.boards.board_spec import BenchmarkEntry
from firsthand.boards.cross_reference import DEVIATIONS, cross_reference, fit_table
from firsthand.errors import ConfigError


def odds_table(seed: int, models: int = 30, columns: int = 10) -> np.ndarray:
    """Log odds with an ability for each model, a slope and a difficulty for each benchmark, and noise of .35."""
    draw = np.random.default_rng(seed)
    ability, slope, ease = draw.normal(0, 1, models), draw.uniform(0.5, 1.2, columns), draw.normal(0, 0.8, columns)
    return ease + ability[:, None] * slope + 0.35 * draw.normal(size=(models, columns))


def board(odds: np.ndarray, **more: object) -> list[BoardColumn]:
    shares = 1 / (1 + np.exp(-odds))
    made = []
    for j in range(odds.shape[1]):
        cells = {
            f"m{i}": BoardResult(f"m{i}", f"b{j}", float(shares[i, j]), n=1000)
            for i in range(len(odds))
            if np.isfinite(odds[i, j])
        }
        made.append(BoardColumn(f"b{j}", ColumnKey(f"b{j}", "", ""), BenchmarkEntry(**more), cells, None, 1.0))  # type: ignore[arg-type]
    return made


@pytest.mark.slow
def test_a_raised_score_is_out_of_line_and_its_neighbours_are_not():
    odds = odds_table(3)
    odds[3, 2] += 12 * 0.35
    odds[7, 5] = np.nan
    found = cross_reference(board(odds), tables=100)
    assert [(each.model, each.benchmark) for each in found.flagged] == [("m3", "b2")]
    (line,) = found.flagged
    assert line.z > found.critical > 3 and 0.01 < line.p_value <= 0.05
    assert line.low < line.expected < line.high < line.score and len(found.scores) == 299
    assert json.dumps(found.to_json())


def test_the_expected_score_is_that_of_the_table_without_the_outlier():
    clean, raised = odds_table(1), odds_table(1)
    raised[3, 2] += 9 * 0.35
    told = {(e.model, e.benchmark): e.expected for e in cross_reference(board(raised), tables=24).scores}
    was = {(e.model, e.benchmark): e.expected for e in cross_reference(board(clean), tables=24).scores}
    assert told["m3", "b2"] == pytest.approx(was["m3", "b2"], abs=0.03)
    assert told["m9", "b2"] == pytest.approx(was["m9", "b2"], abs=0.03)


def test_a_score_does_not_move_what_is_expected_of_it():
    odds = odds_table(3, 10, 6)
    most, raised = int(odds.mean(1).argmax()), odds.copy()  # the ablest model has the most leverage
    raised[most, 2] += 0.1
    none = np.full(odds.shape, np.nan)
    assert fit_table(raised, none).expected[most, 2] == pytest.approx(
        fit_table(odds, none).expected[most, 2], abs=0.003
    )


@pytest.mark.slow
def test_clean_tables_have_a_flag_no_more_often_than_stated():
    alarms = sum(bool(cross_reference(board(odds_table(seed, 16, 6)), tables=60).flagged) for seed in range(12))
    assert alarms <= 3  # .6 expected at 5 %; more than 3 has a probability of 0.2 %


def heavy_table(seed: int, kind: str, models: int = 30, columns: int = 10) -> np.ndarray:
    """As `odds_table`, with deviations of another kind."""
    draw = np.random.default_rng(seed)
    ability, slope, ease = draw.normal(0, 1, models), draw.uniform(0.5, 1.2, columns), draw.normal(0, 0.8, columns)
    size = (models, columns)
    noise = draw.laplace(size=size) if kind == "laplace" else draw.standard_t(float(kind[1:]), size)
    return ease + ability[:, None] * slope + 0.27 * noise


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["t5", "laplace"])
def test_heavy_tails_raise_no_more_alarms_than_stated(kind: str):
    reports = [cross_reference(board(heavy_table(seed, kind)), tables=50) for seed in range(12)]
    assert sum(bool(each.flagged) and not each.heavy_tailed for each in reports) <= 3  # normal tables only: 8 of 12


@pytest.mark.slow
def test_the_kinds_of_deviation_are_those_that_the_tails_allow():
    normal = cross_reference(board(odds_table(2)), tables=99)
    assert "normal" in normal.deviations and "laplace" not in normal.deviations and not normal.heavy_tailed
    heavy = cross_reference(board(heavy_table(1, "t5")), tables=99)
    assert heavy.deviations == ("normal", "t10", "laplace", "t5") and heavy.critical > normal.critical + 1


def test_each_kind_of_deviation_has_the_scale_of_a_normal_one():
    """By Huber's proposal 2, which is the scale that the simulated tables are divided by."""
    for kind, made in DEVIATIONS.items():
        sizes, scale = np.abs(made(np.random.default_rng(1), (100_000,))), 1.0
        for _ in range(30):
            scale = float(np.sqrt(np.mean(np.minimum(sizes, 1.345 * scale) ** 2) / 0.7102))
        assert scale == pytest.approx(1, abs=0.01), kind


@pytest.mark.slow
def test_tails_heavier_than_every_kind_have_no_rate(tmp_path: Path, cli: Callable[..., tuple[int, str, str]]):
    odds = heavy_table(2, "t1")
    assert cross_reference(board(odds), tables=99).heavy_tailed
    table = tmp_path / "scores.csv"
    rows = [f"m{i}," + ",".join(f"{x + 500:.6f}" for x in row) for i, row in enumerate(odds)]
    table.write_text("\n".join(["model," + ",".join(f"b{j}" for j in range(10)), *rows]))
    own = tmp_path / "own.toml"
    scales = "\n".join(f"b{j} = {{ scale = 1000 }}" for j in range(10))
    own.write_text(f'rule = "each"\nresults = ["scores.csv"]\n[benchmarks]\n{scales}\n')
    code, out, err = cli("board", str(own), "--cross-reference")
    assert code == 0, err
    assert "no rate of false alarms is claimed" in " ".join(out.split()) and "simulated tables" not in out


def test_a_score_is_flagged_exactly_where_its_corrected_p_value_is_at_most_alpha():
    """An interpolated quantile of 100 simulated tables is exceeded by 5.9 % of clean ones, not by 5 %."""
    for seed in (8, 10, 18, 35):
        found = cross_reference(board(odds_table(seed, 12, 5)), tables=19, alpha=0.2)
        assert all(each.flagged == (each.p_value <= 0.2) for each in found.scores)
        counts = [(each.p_value - 0.04) * 20 for each in found.scores if each.p_value < 1]  # a fifth of alpha is spent
        assert counts and np.allclose(counts, np.round(counts))


def test_too_few_simulated_tables_for_the_rate_are_refused():
    with pytest.raises(ConfigError, match=r"tables is 23: a false alarm rate of 0\.05 needs 24 or more"):
        cross_reference(board(odds_table(1, 16, 6)), tables=23)


def test_a_benchmark_of_which_less_is_better_is_out_of_line_upwards_when_it_is_low():
    odds = odds_table(2)
    odds[:, 4] *= -1
    odds[3, 4] -= 9 * 0.35
    columns = board(odds)
    columns[4] = BoardColumn("b4", columns[4].key, BenchmarkEntry(lower_is_better=True), columns[4].cells, None, 1.0)
    (line,) = cross_reference(columns, tables=60).flagged
    assert (line.model, line.benchmark) == ("m3", "b4") and line.z > 0 and line.score < line.low


def test_a_score_of_few_items_may_lie_further_off():
    odds = odds_table(4)
    errors = np.full(odds.shape, 0.05)
    exact = fit_table(odds, errors).error[3, 2]
    errors[3, 2] = 1.0
    assert fit_table(odds, errors).error[3, 2] == pytest.approx(np.hypot(exact, 1.0), rel=0.01)


def test_too_few_results_are_left_out_and_too_small_a_table_is_refused():
    odds = odds_table(5)
    odds[0, 3:] = np.nan
    odds[7:, 9] = np.nan
    assert cross_reference(board(odds), tables=24).left_out == ("b9", "m0")
    for small in (odds[:7, :5], odds[1:, :3]):
        with pytest.raises(ConfigError, match="it needs 4 benchmarks with results of 8 models"):
            cross_reference(board(small))


@pytest.mark.slow
def test_the_command_names_the_score(tmp_path: Path, cli: Callable[..., tuple[int, str, str]]):
    odds = odds_table(1, 20, 6)
    odds[3, 2] += 10 * 0.35
    table = tmp_path / "scores.csv"
    rows = [f"m{i}," + ",".join(f"{100 / (1 + np.exp(-x)):.2f}" for x in row) for i, row in enumerate(odds)]
    table.write_text("\n".join(["model," + ",".join(f"b{j}" for j in range(6)), *rows]))
    code, out, err = cli("board", str(table), "--cross-reference", "--json")
    assert code == 0, err
    (line,) = json.loads(out)["cross_reference"]["flagged"]
    assert (line["model"], line["benchmark"]) == ("m3", "b2") and 0 < line["expected"] < line["score"] < 1
    code, out, _ = cli("board", str(table), "--cross-reference", "--models", "m?")
    assert code == 0 and "cross-reference" in out and "Expected from the model's other benchmarks" in out
    code, _, err = cli("board", str(table), "--cross-reference", "--watch")
    assert code == 2 and "watch and cross_reference do not go together" in err


def test_a_benchmark_without_any_ability_in_it_hardly_counts():
    draw = np.random.default_rng(1)
    ability = draw.normal(size=400)
    odds = ability[:, None] * np.array([1.0, 0.9, 1.1, 1.0, 0.0, 0.0]) + 0.3 * draw.normal(size=(400, 6))
    expected = fit_table(odds, np.full_like(odds, 0.05)).expected
    for column in range(4):
        assert np.corrcoef(expected[:, column], ability)[0, 1] > 0.98


@pytest.mark.slow
def test_the_simulation_is_that_of_seed_0_unless_another_is_given():
    columns = board(odds_table(3))
    assert cross_reference(columns, tables=100) == cross_reference(columns, tables=100, seed=0)
    assert cross_reference(columns, tables=100) != cross_reference(columns, tables=100, seed=1)
