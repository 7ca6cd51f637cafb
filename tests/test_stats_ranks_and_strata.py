"""Ranks that hold together, bounded means and strata, each by its formula written out once more on a small case."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

from firsthand.runs.task_groups import TaskGroups
from firsthand.stats.bootstrap import drawn, unit_strata, units
from firsthand.stats.bounded_mean import _statistic, _unseen, lowest_mean, score_p_value
from firsthand.stats.intervals import (
    cluster_labels,
    clustered_error,
    standard_deviation,
    stratum_labels,
)
from firsthand.stats.joint_ranks import DRAWS, RankRange, _bonferroni, rank_ranges, told_apart
from firsthand.stats.pareto import frontier
from firsthand.stats.strata import (
    cluster_freedom,
    joined_strata,
    strata_units,
    stratified_error,
    stratified_freedom,
)

# -- ranks --


def largest_differences(covariance: Any, seed: int, degrees: float = math.inf) -> Any:
    """The largest studentised difference of each draw of correlated errors."""
    size, generator = len(covariance), np.random.default_rng(seed)
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.clip(values, 0, None))
    found = []
    for _ in range(DRAWS // 200):
        draws = generator.standard_normal((200, size)) @ root.T
        if math.isfinite(degrees):
            draws = draws / np.sqrt(generator.chisquare(degrees, (200, 1)) / degrees)
        pairs = [
            np.abs(draws[:, i] - draws[:, j]) / math.sqrt(covariance[i][i] + covariance[j][j] - 2 * covariance[i][j])
            for i in range(size)
            for j in range(i + 1, size)
        ]
        found.append(np.max(pairs, axis=0))
    return np.concatenate(found)


def test_values_are_told_apart_beyond_the_quantile_of_their_largest_difference() -> None:
    covariance = np.array([[1.0, 0.5, 0.0], [0.5, 2.0, 0.25], [0.0, 0.25, 0.5]])
    for degrees, confidence, seed in ((math.inf, 0.95, 0), (7.0, 0.8, 3)):
        critical = float(np.quantile(largest_differences(covariance, seed, degrees), confidence))
        errors = {(0, 1): math.sqrt(2.0), (0, 2): math.sqrt(1.5), (1, 2): math.sqrt(2.0)}
        for (high, low), error in errors.items():
            for factor, apart in ((0.999, False), (1.001, True)):
                values = np.zeros(3)
                values[high], values[low] = critical * error * factor, 0.0
                (rest,) = {0, 1, 2} - {high, low}
                values[rest] = values[high] / 2
                told = told_apart(values, covariance, degrees=degrees, confidence=confidence, seed=seed)
                assert bool(told[high, low]) is apart and not told[low, high] and not told.diagonal().any()
    told = told_apart(np.array([9.0, 3.0, 0.0]), covariance)
    assert told.tolist() == [[False, True, True], [False, False, False], [False, False, False]]
    assert rank_ranges(np.array([9.0, 3.0, 0.0]), covariance) == [RankRange(1, 1), RankRange(2, 3), RankRange(2, 3)]
    same = np.array([[1.0, 1.0], [1.0, 1.0]])  # one model under two names
    assert not told_apart(np.array([9.0, 0.0]), same).any()
    assert rank_ranges(np.array([9.0, 0.0]), same, critical=0.1) == [RankRange(1, 2)] * 2
    assert rank_ranges(np.array([9.0, 0.0]), np.array([0.5, 0.25])) == [RankRange(1, 1), RankRange(2, 2)]
    known = rank_ranges(np.array([9.0, 5.0, 0.0]), np.array([0.5, math.inf, 0.25]))
    assert known == [RankRange(1, 2), RankRange(1, 3), RankRange(2, 3)], "what has no variance is told apart from none"
    many = rank_ranges(np.arange(300.0), np.full(300, 0.25), critical=4.0)  # apart by more than 4 * sqrt(2) / 4
    assert many == [RankRange(max(1, 299 - n), min(300, 301 - n)) for n in range(300)]
    assert rank_ranges(np.array([]), np.array([])) == [] and rank_ranges(np.array([1.0]), np.array([1.0])) == [(1, 1)]
    assert _bonferroni(4, math.inf, 0.88) == pytest.approx(stats.norm.ppf(1 - 0.12 / 12))
    assert _bonferroni(4, 3.0, 0.88) == pytest.approx(stats.t.ppf(0.99, 3))
    assert frontier([(3.0, 0.5), (1.0, 0.25), (1.0, 0.125), (2.0, 0.25), (3.0, 0.5), (0.5, math.nan), (4.0, 0.75)]) == [
        1, 0, 4, 6,
    ]  # fmt: skip


# -- bounded means --


def test_the_score_statistic_has_the_variance_of_the_most_likely_weights() -> None:
    residuals, counts = np.array([-0.25, 0.5]), np.array([3, 5])
    n, mean = 8, (-0.75 + 2.5) / 8

    def slope(tilt: float) -> float:
        return float(np.sum(counts * residuals / (1 + tilt * residuals)))

    for depth in (0.5, 2.0):
        most = 1 / max(depth, 0.25 * (1 + 1e-12))
        tilt = most if slope(most) >= 0 else optimize.brentq(slope, 0.0, most)
        weights = counts / (n * (1 + tilt * residuals))
        unseen = max(0.0, 1 - weights.sum())
        variance = float(weights @ residuals**2) + unseen * depth**2
        assert _statistic(residuals, counts, depth) == pytest.approx(mean * math.sqrt(n / variance))
    assert _statistic(np.array([0.25, 0.5]), counts, 0.0) == math.inf
    assert _unseen(np.array([0.0, 0.5]), np.array([1, 2]), 0.25) == 0.0
    explained = 3 / (1 / 0.5 + 2 / 0.8)
    for bar in (0.4, 0.9):
        at = min(bar, explained)
        assert _unseen(np.array([0.5, 0.8]), np.array([1, 2]), bar) == pytest.approx((at / 0.5) * (at / 0.8) ** 2)
    assert _unseen(np.array([0.5]), np.array([2]), 0.0) == 0.0


def test_the_p_value_of_a_bounded_mean_is_the_larger_of_two_tests() -> None:
    values = [0.25, 0.5, 0.5, 0.75, 1.0]
    found, counts = np.array([0.25, 0.5, 0.75, 1.0]), np.array([1, 2, 1, 1])
    for bar, gain in ((0.3, 1.0), (0.5, 2.0), (0.1, 0.5)):
        statistic = _statistic(found - bar, counts, bar) * gain
        expected = max(float(stats.t.sf(statistic, 4)), _unseen(found, counts, bar))
        assert score_p_value(values, bar, 0.0, gain=gain) == pytest.approx(expected)
    labels = ["a", "a", "b", "c", "c"]
    bar, gain, mean = 0.4, 1.5, 0.6
    effect = max(1.0, clustered_error(values, labels) / (standard_deviation(values) / math.sqrt(5)))
    residuals = (np.array([0.75, 0.5, 1.75]) - bar * np.array([2, 1, 2])) / (5 / 3)
    by_cluster = _statistic(residuals, np.ones(3), bar - mean / 2) * gain
    statistic = _statistic(found - bar, counts, bar) * gain
    expected = float(stats.t.sf(min(statistic / effect, by_cluster), cluster_freedom([2, 1, 2])))
    assert effect > 1 and score_p_value(values, bar, 0.0, labels=labels, gain=gain) == pytest.approx(expected)
    below = float(stats.t.sf(_statistic(found - 0.2, counts, 0.2) / effect, cluster_freedom([2, 1, 2])))
    assert score_p_value(values, 0.2, 0.0, labels=labels) == pytest.approx(below), "a bar that no lost cluster reaches"
    quiet, three = [0.6, 0.62, 0.58, 0.6] * 6, [name for name in "abc" for _ in range(8)]  # cluster means are equal
    by_cluster = _statistic(np.full(3, 0.1 * 8 / 8), np.ones(3), 0.5 - (0.1 + 0.6) / 2)
    alone = _statistic(np.array([0.08, 0.1, 0.12]), np.array([6, 12, 6]), 0.4)
    assert by_cluster < alone, "a cluster that nobody saw may lose half of what its tasks have"
    assert score_p_value(quiet, 0.5, 0.1, labels=three) == pytest.approx(float(stats.t.sf(by_cluster, 2)))
    assert (score_p_value(values, 0.6, 0.0), score_p_value(values, 0.0 - 1e-9, 0.0)) == (1.0, 0.0)
    assert score_p_value([1.0], 0.0, -1.0) == 1.0 == score_p_value(values, 0.2, 0.0, labels=["a"] * 5)
    assert lowest_mean(lambda bar: bar, 0.5, 0.0, 0.25) == pytest.approx(0.25)
    assert lowest_mean(lambda bar: bar, 0.25, 0.0, 0.25) == 0.25 and lowest_mean(lambda bar: 0.5, 0.9, 0.1, 0.25) == 0.1


# -- strata and clusters --


def test_strata_join_where_they_share_a_cluster_or_have_one_unit() -> None:
    assert joined_strata(list("xyzw"), list("abab")) == ["x", "y", "x", "y"]
    assert joined_strata(list("xyzyw"), list("abaca")) == ["x", "y", "x", "y", "x"]
    assert joined_strata(list("xyxz"), list("aabb")) == ["x"] * 4, "z shares b with x, and y shares a"
    # y joins x by a, z joins y by b, then w joins z by c: one stratum of four, whoever leads
    assert joined_strata(list("xyyzzw"), list("aabbcc")) == ["x"] * 6
    assert joined_strata(list("xyzwyw"), list("aabbcc")) == ["x"] * 6, "two pairs are joined by a third cluster"
    assert joined_strata(list("xyzwwy"), list("aabbcc")) == ["z"] * 6, "the leader of the first named leads"
    assert joined_strata(list("xyvzyvw"), list("aabbccd")) == ["x"] * 6 + ["w"]
    assert joined_strata([], []) == [] and joined_strata(["x"], ["a"]) == ["x"]
    values = [1.0, 0.5, 0.25, 0.75, 0.5, 2.0]
    assert strata_units(values, list("xxyyyx")) == (((1.0, 1), (0.5, 1), (2.0, 1)), ((0.25, 1), (0.75, 1), (0.5, 1)))
    assert strata_units(values, list("xxyyzw")) == (
        ((1.0, 1), (0.5, 1)), ((0.25, 1), (0.75, 1)), ((0.5, 1), (2.0, 1)),
    ), "two of one unit are taken together"  # fmt: skip
    assert strata_units(values, list("xxyyyz")) == (
        ((1.0, 1), (0.5, 1), (2.0, 1)), ((0.25, 1), (0.75, 1), (0.5, 1)),
    ), "a single one joins the smallest"  # fmt: skip
    assert strata_units(values, list("xxxyyy"), list("aabccd")) == (
        ((1.5, 2), (0.25, 1)), ((1.25, 2), (2.0, 1)),
    )  # fmt: skip
    assert strata_units(values, ["x"] * 6) == () == strata_units([1.0], ["x"]) == strata_units([1.0, 2.0], ["x", "x"])
    strata = (((1.5, 2), (0.25, 1)), ((1.25, 2), (2.0, 1), (0.0, 2)))
    squares = 0.0
    for part in strata:
        size, mean = sum(n for _, n in part), sum(t for t, _ in part) / sum(n for _, n in part)
        squares += sum((t - n * mean) ** 2 / (1 - n / size) for t, n in part)
    assert stratified_error(strata) == pytest.approx(math.sqrt(squares) / 8)
    assert stratified_freedom(strata) == pytest.approx(
        64 / (9 / cluster_freedom([2, 1]) + 25 / cluster_freedom([2, 1, 2]))
    )
    assert cluster_freedom([3, 3, 3]) == pytest.approx(2.0) and cluster_freedom([5]) == 0.0
    crossed = [4 / (1 - 2 / 3) / 3, 1 / (1 - 1 / 3) / 3]
    assert cluster_freedom([2, 1]) == pytest.approx(9 / (5 + sum(crossed) ** 2 - sum(each**2 for each in crossed)))
    groups = TaskGroups({"a": "g", "b": "g"}, {"a": "x", "b": "x", "c": "y"})
    assert dict(groups) == {} and cluster_labels(["a", "b"], groups) is None, "a stratum of one cluster has no clusters"
    assert cluster_labels(["a", "g", "b"], {"a": "g", "b": "g"}) == ["in g", "alone g", "in g"]
    assert cluster_labels(["a", "c"], {"a": "g", "b": "g"}) is None
    assert stratum_labels(["a", "c", "z"], groups) == ["in x", "in y", "in none"]
    assert stratum_labels(["a", "b"], groups) is None is stratum_labels(["a", "c"], {"a": "g"})


def test_small_strata_are_drawn_together_and_units_within_theirs() -> None:
    sizes = (("s", 12), ("t", 11), ("u", 4), ("v", 7))
    strata = [name for name, size in sizes for _ in range(size)]
    found = unit_strata(np.arange(34), strata)
    assert found is not None and found.tolist() == [0] * 12 + [1] * 11 + [2] * 11, "four and seven are enough together"
    found = unit_strata(np.arange(30), strata[:23] + ["u"] * 7)
    assert found is not None and found.tolist() == [0] * 12 + [1] * 18, "seven join the smallest of the others"
    found = unit_strata(np.arange(33), strata[:23] + ["u"] * 4 + ["v"] * 6)
    assert found is not None and found.tolist() == [0] * 12 + [1] * 11 + [2] * 10, "ten together are enough"
    assert unit_strata(np.arange(18), ["s"] * 9 + ["t"] * 9) is None
    found = unit_strata(np.arange(20), ["s"] * 10 + ["t"] * 10)
    assert found is not None and found.tolist() == [0] * 10 + [1] * 10, "ten are enough"
    unit = units(24, [f"c{n // 2}" for n in range(24)])
    assert unit_strata(unit, ["s"] * 12 + ["t"] * 12) is None, "of twelve clusters each has six"
    stratum = np.array([0] * 2 + [1] * 3)
    rng, counts = np.random.default_rng(4), next(drawn(np.array([0, 1, 2, 3, 4, 4]), 6, 4, stratum))
    first = rng.multinomial(2, [0.5, 0.5], size=6)
    second = rng.multinomial(3, [1 / 3] * 3, size=6)
    assert counts.tolist() == np.hstack([first, second, second[:, 2:]]).tolist() and counts.dtype == np.float64


def test_the_gain_of_strata_multiplies_whichever_statistic_decides() -> None:
    labels = [str(at // 5) for at in range(100)]
    quiet = [0.001 * (at % 5) for at in range(100)]
    alone = [(-0.4, -0.2, 0.0, 0.2, 0.5)[at % 5] for at in range(100)]
    together = [(-0.4, -0.2, 0.0, 0.2, 0.5)[at // 5 % 5] for at in range(100)]
    # in this order: a cluster that nobody saw decides, it does too, and the clustered error decides
    for values, bar in ((quiet, -0.07), (alone, -0.15), (together, -0.05)):
        plain = -float(stats.t.ppf(score_p_value(values, bar, -1.0, labels=labels), 19))
        assert 1 < plain < 4
        for gain in (0.25, 0.5, 1.5, 2.0):
            found = score_p_value(values, bar, -1.0, labels=labels, gain=gain)
            assert found == pytest.approx(float(stats.t.sf(gain * plain, 19)), rel=1e-9)
    seen = [-1.0, *alone]
    single = -float(stats.t.ppf(score_p_value(seen, -0.15, -1.0), 100))
    for gain in (0.25, 0.5, 0.75):
        found = score_p_value(seen, -0.15, -1.0, gain=gain)
        assert found == pytest.approx(float(stats.t.sf(gain * single, 100)), rel=1e-9)


@pytest.mark.parametrize("critical", [None, 3.0])
def test_a_lead_that_other_reasons_than_chance_could_take_tells_nothing_apart(critical: float | None) -> None:
    values, errors = np.array([3.0, 9.0, 2.0, 0.0]), np.array([0.01, math.nan, 0.01, 0.01])
    slack = np.zeros((4, 4))
    assert rank_ranges(values, errors, critical=critical) == [(1, 2), (1, 4), (2, 3), (3, 4)]
    slack[0, 2], slack[3, 0] = 1.5, 9.0
    assert rank_ranges(values, errors, critical=critical, slack=slack) == [(1, 3), (1, 4), (1, 3), (3, 4)]
    slack[0, 2] = 0.5
    assert rank_ranges(values, np.diag(errors**2), critical=critical, slack=slack)[0] == (1, 2)
