"""Boards of few items, and numbers that are no shares: what may be told apart, and which errors are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtri

from firsthand.boards.board_columns import board_columns
from firsthand.boards.board_results import BoardResult, ColumnKey, ItemScores, ResultSet
from firsthand.boards.board_spec import BenchmarkEntry, BoardSpec
from firsthand.boards.make_board import _weighted_degrees, make_board
from firsthand.boards.result_formats.helm_results import helm_run_results
from firsthand.boards.result_formats.inspect_logs import inspect_results
from firsthand.stats.intervals import proportion_interval
from firsthand.stats.joint_ranks import _largest_difference, _of_few, rank_ranges, told_apart

NAMES = tuple("abcdefgh")


def table(scores: Any, clusters: tuple[str, ...] = ()) -> ItemScores:
    scores = np.array(scores, np.float32)
    tasks = tuple(map(str, range(scores.shape[1])))
    return ItemScores(ColumnKey("b", "", ""), NAMES[: len(scores)], tasks, scores, clusters)


def ranks(items: ItemScores) -> list[tuple[int, int]]:
    [section] = make_board(ResultSet.of([], [items]), BoardSpec()).sections
    return [(line.rank_low, line.rank_high) for line in section.lines]


def told(*results: BoardResult) -> bool:
    [section] = make_board(ResultSet.of(results), BoardSpec()).sections
    return section.lines[0].rank_high == 1


@pytest.mark.parametrize(("size", "kind"), [(8, "right"), (20, "right"), (12, "thirds"), (12, "normal")])
def test_equal_models_of_few_items_are_seldom_told_apart(size: int, kind: str) -> None:
    rng = np.random.default_rng(size)
    draw = {
        "right": lambda: rng.random((8, size)) < 0.5,
        "thirds": lambda: rng.integers(0, 3, (8, size)) / 2,
        "normal": lambda: rng.normal(0, 1, (8, size)),
    }[kind]
    wrong = sum(any(each != (1, 8) for each in ranks(table(draw()))) for _ in range(40))
    assert wrong <= 5


def test_five_items_that_all_favour_one_of_two_models_are_the_fewest_that_tell_them_apart() -> None:
    assert ranks(table([[1] * 5 + [0], [0] * 6])) == [(1, 1), (2, 2)]
    assert ranks(table([[1] * 4 + [0], [0] * 5])) == [(1, 2), (1, 2)]
    assert ranks(table([[1] * 6 + [0.5], [0] * 6 + [0.4]])) == [(1, 1), (2, 2)]
    assert ranks(table([[0.9, 0.8, 0.9, 0.8, 0.9, 0.5], [0.1, 0.2, 0.2, 0.1, 0.1, 0.5]])) == [(1, 2), (1, 2)]


def test_p_bounds_are_mcnemars_mid_p_values_and_those_of_signs() -> None:
    found = table([[1, 1, 1, 0, 1], [0, 0, 0, 1, 1], [1, 1, 1, 0, math.nan]]).p_bounds([0, 2], [0, 1])
    assert found == pytest.approx(np.array([[1, 0.375], [1, 0.375]]))  # 2 (1 + 4 / 2) / 16 of 3 to 1
    assert table([[1] * 5, [0] * 5]).p_bounds([1], [0, 1]) == pytest.approx(np.array([[1 / 32, 1]]))
    lumpy = table([[1, 0.5, 1, 0], [0, 0, 0, 0]])
    assert lumpy.p_bounds([0], [1, 0]) == pytest.approx(np.array([[0.25, 1]]))
    grouped = table([[1, 1, 1, 0], [0, 0, 0, 0]], ("x", "x", "y", "z"))
    assert grouped.p_bounds([0], [1]) == pytest.approx(np.array([[0.5]])) and grouped.units().tolist() == [3, 3]


def test_values_of_few_degrees_of_freedom_need_the_larger_lead() -> None:
    values, covariance = np.array([2.5, 0.0]), np.diag([0.5, 0.5])
    for degrees, expected in ((np.array([9.0, np.inf]), True), (np.array([4.0, np.inf]), False), (np.zeros(2), False)):
        assert told_apart(values, covariance, degrees=degrees)[0, 1] == expected
        assert (rank_ranges(values, covariance, degrees=degrees)[0].high == 1) == expected
    assert not told_apart(values, covariance, p_bounds=lambda rows, others: np.full((2, 2), 0.06)).any()
    assert told_apart(values, covariance, p_bounds=lambda rows, others: np.full((2, 2), 0.04)).any()


def test_more_values_than_are_drawn_for_have_p_bounds_too() -> None:
    values, covariance = np.arange(700.0)[::-1] * 100, np.eye(700)
    none = rank_ranges(values, covariance, p_bounds=lambda rows, others: np.ones((len(rows), len(others))))
    assert all((each.low, each.high) == (1, 700) for each in none)
    assert rank_ranges(values, covariance)[3] == (4, 4)


def test_right_and_wrong_items_have_wilsons_interval() -> None:
    [section] = make_board(ResultSet.of([], [table([[1] * 5 + [0] * 3, [1] * 7 + [0.5]])]), BoardSpec()).sections
    lines = {line.model: line for line in section.lines}
    assert (lines["a"].low, lines["a"].high) == proportion_interval(5, 8)
    assert lines["b"].high == 1 and lines["b"].low > 0.8


def test_a_stated_error_of_0_is_not_certain() -> None:
    assert BoardResult("m", "b", 1.0, error=0.0, n=5).standard_error == pytest.approx(math.sqrt(7 / 9 * 2 / 9 / 9))
    assert math.isnan(BoardResult("m", "b", 1.0, error=0.0).standard_error)
    few = [BoardResult("a", "b", 1.0, error=0.0, n=5), BoardResult("c", "b", 0.4, error=0.2449, n=5)]
    assert not told(*few)
    assert told(BoardResult("a", "b", 1.0, error=0.0, n=50), BoardResult("c", "b", 0.4, error=0.07, n=50))


@pytest.mark.parametrize("metric", ["word_perplexity", "bits_per_byte", "spearman", "mcc"])
def test_numbers_that_are_no_shares_get_no_error_of_one(metric: str) -> None:
    assert math.isnan(BoardResult("m", "b", 0.5, metric=metric, n=100).standard_error)
    assert not told(
        BoardResult("m", "b", 0.9, metric=metric, n=1000), BoardResult("k", "b", 0.1, metric=metric, n=1000)
    )


def test_where_lower_is_better_only_an_error_rate_is_a_share_and_nothing_is_a_percent() -> None:
    assert math.isnan(BoardResult("m", "b", 0.5, n=100, lower_is_better=True).standard_error)
    assert BoardResult("m", "b", 0.5, metric="error rate", n=100, lower_is_better=True).standard_error < 0.05
    for metric, value in (("", 18.7), ("error rate", 0.187), ("word error rate", 18.7)):
        results = [BoardResult("m", "b", 18.7, metric=metric, lower_is_better=True)]
        [section] = make_board(ResultSet.of(results), BoardSpec()).sections
        assert section.lines[0].score == pytest.approx(value)


def test_results_that_disagree_on_the_direction_are_named() -> None:
    results = [BoardResult("m", "b", 0.5, lower_is_better=True), BoardResult("k", "b", 0.4)]
    assert any(
        "Lower is better on b by 1 result, m" in each for each in make_board(ResultSet.of(results), BoardSpec()).remarks
    )
    assert make_board(ResultSet.of(results[:1]), BoardSpec()).remarks == ("Lower is better on b.",)


@pytest.mark.parametrize(
    ("counted", "n"), [([{"name": {"name": "num_instances", "split": "test"}, "mean": 100.0}], 100), ([], 0)]
)
def test_helm_runs_count_the_instances_that_were_run(counted: list[Any], n: int) -> None:
    other = {"name": {"name": "num_instances", "split": "valid"}, "mean": 7.0}
    stats = [{"name": {"name": "exact_match", "split": "test"}, "mean": 0.6}, other, *counted]
    [found] = helm_run_results({"name": "x", "adapter_spec": {"model": "m", "max_eval_instances": 1000}}, stats, "f")
    assert found.n == n


def test_inspect_counts_samples_once_for_all_epochs_and_names_those_without_a_score() -> None:
    results = {
        "total_samples": 500,
        "completed_samples": 500,
        "scores": [{"name": "s", "metrics": {"mean": {"value": 0.6}}}],
    }
    body = {"status": "success", "eval": {"task": "t", "model": "m", "config": {"epochs": 10}}, "results": results}
    [found] = inspect_results(body, "f", [])
    assert isinstance(found, BoardResult) and found.n == 50
    said: list[str] = []
    samples = [{"id": 1, "scores": {"s": {"value": "C"}}}, {"id": 2, "error": {}, "scores": {}}]
    assert len(list(inspect_results({**body, "results": {"total_samples": 2}, "samples": samples}, "f", said))) == 1
    assert said == ["m has no score by s on 1 of the 2 samples of t: its score is that of the others (f)."]
    assert list(inspect_results({**body, "results": {}, "samples": samples[:1]}, "f", said)) and len(said) == 1


def test_few_degrees_of_freedom_move_the_quantile_towards_bonferronis_bound() -> None:
    size = 8
    alike = np.full((size, size), 0.5) + np.diag(np.linspace(0.01, 0.5, size))
    near = np.linalg.cholesky(alike)[:, :2]  # of two factors alone, as three items would estimate it
    errors = np.sqrt(np.where(np.eye(size) > 0, np.inf, 2 * np.ones((size, size))))
    equal = _of_few(np.eye(size), errors, np.full(size, np.inf), 0.95, 0)
    bound = float(ndtri(1 - 0.05 / (size * (size - 1))))
    found = [_of_few(np.eye(size), errors, np.full(size, each), 0.95, 0) for each in (0.0, 10.0, 1e9)]
    assert found == pytest.approx([bound, (bound + equal) / 2, equal])
    assert _of_few(np.eye(size), errors, np.array([3.0] * 3 + [np.inf] * 5), 0.95, 0) == equal
    lone = near @ near.T
    spread = np.diag(lone)[:, None] + np.diag(lone)[None, :] - 2 * lone
    seen = np.sqrt(np.where(spread < 1e-9, np.inf, spread))
    raw, few = (_of_few(lone, seen, np.full(size, each), 0.95, 0) for each in (np.inf, 8.0))
    half = lone / 2 + np.diag(np.diag(lone)) / 2
    apart = np.diag(half)[:, None] + np.diag(half)[None, :] - 2 * half
    drawn = _largest_difference(half, np.sqrt(np.where(np.isinf(seen), np.inf, apart)), np.inf, 0.95, 0)
    assert raw < drawn and few == pytest.approx(drawn * 8 / 18 + bound * 10 / 18)


def test_a_weighted_sum_has_the_degrees_of_freedom_of_welch_and_satterthwaite() -> None:
    results = [BoardResult("m", "x", 0.5, error=0.1, n=11), BoardResult("m", "y", 0.5, error=0.2, n=6)]
    results += [BoardResult("k", "x", 0.5, error=0.1, n=11), BoardResult("k", "y", 0.5, error=0.2)]
    columns, _ = board_columns(ResultSet.of(results), BoardSpec(), protocols={}, metrics={})
    both = 0.05**2 / (0.01**2 / 10 + 0.04**2 / 5)
    assert _weighted_degrees(columns, [1.0, 1.0], ["m", "k"]) == pytest.approx([both, 0.05**2 / (0.01**2 / 10)])
    assert _weighted_degrees(columns, [2.0, 0.0], ["m", "k"]) == pytest.approx([10, 10])
    assert _weighted_degrees(columns, [0.0, 3.0], ["k", "m"]) == pytest.approx([math.inf, 5])
    twice = 0.08**2 / (0.04**2 / 10 + 0.04**2 / 5)
    assert _weighted_degrees(columns, [2.0, 1.0], ["m"]) == pytest.approx([twice])


def test_a_weighted_board_of_few_items_needs_the_larger_lead() -> None:
    spec = BoardSpec(rule="weighted", benchmarks={"x": BenchmarkEntry("g")})
    for n, high in ((6, 2), (60, 1)):
        results = [BoardResult("m", "x", 0.8, error=0.1, n=n), BoardResult("k", "x", 0.47, error=0.1, n=n)]
        assert make_board(ResultSet.of(results), spec).sections[0].lines[0].rank_high == high


@pytest.mark.parametrize("metric", ["ece", "calibration_error", "expected calibration error"])
def test_a_calibration_error_is_no_share(metric: str) -> None:
    assert math.isnan(BoardResult("m", "b", 0.1, metric=metric, n=100, lower_is_better=True).standard_error)


@pytest.mark.parametrize("metric", ["attack_success_rate", "Hallucination rate", "toxic fraction", "errors"])
def test_a_rate_of_which_lower_is_better_is_a_share(metric: str) -> None:
    each = BoardResult("m", "b", 0.1, metric=metric, n=100, lower_is_better=True)
    assert each.standard_error < 0.05 and each.is_bounded
    assert not BoardResult("m", "b", 0.1, metric="translation edit rate", n=100, lower_is_better=True).is_bounded


def test_p_bounds_take_the_places_of_all_values_and_the_level_of_all_pairs() -> None:
    values, errors = np.array([9.0, 99.0, 0.0]), np.array([np.nan, 0.5, 0.5])
    found = rank_ranges(values, errors, p_bounds=lambda rows, others: np.where(rows[:, None] * others > 0, 0.9, 0.0))
    assert found[1].high == 3
    assert not told_apart(
        np.array([99.0, 0, 0]), np.eye(3), p_bounds=lambda rows, others: np.full((len(rows), len(others)), 0.04)
    ).any()
    assert math.isnan(BoardResult("m", "spearman", 0.5, n=100).standard_error)
