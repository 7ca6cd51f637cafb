"""Formulas of ranks, bounded means, strata, power and calibration, each written out once more on a small case."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

from firsthand.errors import ConfigError
from firsthand.runs.task_groups import TaskGroups
from firsthand.stats.bootstrap import drawn, unit_strata, units
from firsthand.stats.bounded_mean import _statistic, _unseen, lowest_mean, score_p_value
from firsthand.stats.confidence_formulas import brier_score, expected_calibration_error, selective_accuracy
from firsthand.stats.corpus_formulas import BINS, FORMULAS, calibrated_bins, rms_calibration_error
from firsthand.stats.effective_length import Effective, effective
from firsthand.stats.figures import calibration, figure_detail, micro_f1
from firsthand.stats.intervals import (
    Interval,
    _repeats,
    bisect,
    cluster_labels,
    clustered_error,
    mean_interval,
    proportion_interval,
    standard_deviation,
    stratum_labels,
    t_value,
    task_means,
    z_value,
)
from firsthand.stats.joint_ranks import DRAWS, RankRange, _bonferroni, rank_ranges, told_apart
from firsthand.stats.multiple_comparisons import benjamini_hochberg, holm
from firsthand.stats.paired import mcnemar, sign_flip, tango_interval, tango_statistic
from firsthand.stats.pareto import frontier
from firsthand.stats.power_analysis import paired_tasks_needed, smallest_detectable, spread, tasks_needed
from firsthand.stats.rater_agreement import cohen_kappa, fleiss_kappa, krippendorff_alpha
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
    assert (score_p_value(values, 0.6, 0.0), score_p_value(values, 0.0 - 1e-9, 0.0)) == (1.0, 0.0)
    assert score_p_value([1.0], 0.0, -1.0) == 1.0 == score_p_value(values, 0.2, 0.0, labels=["a"] * 5)
    assert lowest_mean(lambda bar: bar, 0.5, 0.0, 0.25) == pytest.approx(0.25)
    assert lowest_mean(lambda bar: bar, 0.25, 0.0, 0.25) == 0.25 and lowest_mean(lambda bar: 0.5, 0.9, 0.1, 0.25) == 0.1


# -- strata and clusters --


def test_strata_join_where_they_share_a_cluster_or_have_one_unit() -> None:
    assert joined_strata(list("xyzw"), list("abab")) == ["x", "y", "x", "y"]
    assert joined_strata(list("xyzyw"), list("abaca")) == ["x", "y", "x", "y", "x"]
    assert joined_strata(list("xyxz"), list("aabb")) == ["x"] * 4, "z shares b with x, and y shares a"
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
    assert unit_strata(np.arange(18), ["s"] * 9 + ["t"] * 9) is None
    unit = units(24, [f"c{n // 2}" for n in range(24)])
    assert unit_strata(unit, ["s"] * 12 + ["t"] * 12) is None, "of twelve clusters each has six"
    stratum = np.array([0] * 2 + [1] * 3)
    rng, counts = np.random.default_rng(4), next(drawn(np.array([0, 1, 2, 3, 4, 4]), 6, 4, stratum))
    first = rng.multinomial(2, [0.5, 0.5], size=6)
    second = rng.multinomial(3, [1 / 3] * 3, size=6)
    assert counts.tolist() == np.hstack([first, second, second[:, 2:]]).tolist() and counts.dtype == np.float64


# -- intervals and tests --


def test_intervals_of_proportions_and_means_by_their_formulas() -> None:
    z = float(stats.norm.ppf(0.95))
    assert z_value(0.9) == pytest.approx(z) and t_value(3.5, 0.9) == pytest.approx(stats.t.ppf(0.95, 3.5))
    for confidence in (0.0, 1.0, -0.5):
        for function in (z_value, lambda level: t_value(3, level)):
            with pytest.raises(ConfigError, match=f"confidence is {confidence}: give a number between 0 and 1"):
                function(confidence)
    centre = (0.3 + z * z / 20) / (1 + z * z / 10)
    half = z / (1 + z * z / 10) * math.sqrt(0.21 / 10 + z * z / 400)
    assert proportion_interval(3, 10, 0.9) == pytest.approx((centre - half, centre + half))
    assert proportion_interval(0, 10, 0.9)[0] == 0.0 and proportion_interval(10, 10, 0.9)[1] == 1.0
    assert 0 < proportion_interval(10, 10, 0.9)[0] < 1 and proportion_interval(0, 0) == (0.0, 1.0)
    for successes in (-0.1, 10.1):
        with pytest.raises(ConfigError, match="give a count from 0 to n"):
            proportion_interval(successes, 10)
    assert task_means({"a": [1.0, 0.5], "b": [], "c": [0.25]}) == [0.75, 0.25]
    assert _repeats({"a": [1.0, 0.0], "b": [0.0, 0.0], "c": []}) == 2 and _repeats({"a": [0.5, 1.0]}) == 1
    assert _repeats({"a": [1.0, 0.0], "b": [1.0]}) == 1 == _repeats({})
    assert mean_interval([1.0, 0.0, 1.0], 0.9) == mean_interval({"a": [1.0], "b": [0.0], "c": [1.0]}, 0.9)
    twice = mean_interval({"a": [1.0, 0.0], "b": [1.0, 1.0], "c": [0.0, 0.0]}, 0.9)
    assert twice.method == "clustered Wilson" and twice.value == 0.5
    with pytest.raises(ConfigError, match="a score is inf: a mean needs finite numbers"):
        mean_interval([math.inf])
    assert bisect(lambda x: x - 0.3, 0.0, 1.0) == pytest.approx(0.3) and standard_deviation([1, 2, 4]) == pytest.approx(
        math.sqrt(7 / 3)
    )


def test_tests_of_pairs_by_their_formulas() -> None:
    assert mcnemar(5, 1) == pytest.approx(2 * (1 + 6) / 64) == mcnemar(1, 5) and mcnemar(2, 2) == 1.0 == mcnemar(0, 0)
    # of the eight signs of 1, 2 and 4, only all alike have a sum of 7 or more
    assert sign_flip([1.0, 2.0, 4.0, 0.0]) == 2 / 8 and sign_flip([1.0, -2.0, 4.0]) == 6 / 8 and sign_flip([0.0]) == 1.0
    assert sign_flip([1.0] * 13 + [-1.0]) == pytest.approx(30 / 2**14), "14 tasks are counted, not sampled"
    many = [1.0] * 1100 + [-1.0] * 901
    assert sign_flip(many) == pytest.approx(math.erfc(199 / math.sqrt(2 * 2001)), rel=1e-6)
    sampled = sign_flip([1.0] * 12 + [-1.0] * 3)
    exact = 2 * sum(math.comb(15, k) for k in range(4)) / 2**15
    assert sampled == pytest.approx(exact, rel=0.1) and (sampled * 20001) % 1 == pytest.approx(0, abs=1e-6)
    better, worse, n, d = 7, 2, 20, 0.1
    linear = -better - worse + (2 * n - better + worse) * d
    losses = (math.sqrt(linear**2 + 8 * n * worse * d * (1 - d)) - linear) / (4 * n)
    deviation = math.sqrt(n * (2 * losses + d * (1 - d)))
    assert tango_statistic(better, worse, n, d) == pytest.approx((5 - 2) / deviation)
    assert tango_statistic(better, worse, n, d, 0.5) == pytest.approx((5 - 2 - 0.5) / deviation)
    assert tango_statistic(better, worse, n, 0.25) == 0.0
    low, high = tango_interval(better, worse, n, 0.9)
    assert tango_statistic(better, worse, n, low) == pytest.approx(z_value(0.9), rel=1e-6)
    assert tango_statistic(better, worse, n, high) == pytest.approx(-z_value(0.9), rel=1e-6)
    assert tango_interval(5, 0, 5)[1] == 1.0 and tango_interval(0, 5, 5)[0] == -1.0
    assert tango_interval(5, 0, 5)[0] == -tango_interval(0, 5, 5)[1] < 1
    assert holm([0.04, 0.01, 0.03, 0.5]) == pytest.approx([0.09, 0.04, 0.09, 0.5]) and holm([0.6, 0.5]) == [1.0, 1.0]
    assert benjamini_hochberg([0.04, 0.01, 0.03, 0.5]) == pytest.approx([0.16 / 3, 0.04, 0.16 / 3, 0.5])
    assert benjamini_hochberg([0.05, 0.02, 0.05]) == pytest.approx([0.05, 0.05, 0.05]) and holm([]) == []


def test_power_by_connor_and_miller() -> None:
    z_alpha, z_power = z_value(0.9), z_value(0.4)
    levels = {"confidence": 0.9, "power": 0.7}
    variance = 0.1 + 0.2 / 2 + 0.3 / 3
    assert tasks_needed(0.1, 0.1, (0.2, 0.3), (2, 3), **levels) == math.ceil((z_alpha + z_power) ** 2 * variance / 0.01)
    assert tasks_needed(9.0, 0.1, **levels) == 1 and tasks_needed(0.5, 0.0) == 1
    root = z_alpha * math.sqrt(0.3) + z_power * math.sqrt(0.3 - 0.01)
    assert paired_tasks_needed(0.1, 0.3, **levels) == math.ceil((root / 0.1) ** 2 + 10)
    assert paired_tasks_needed(0.3, 0.3, **levels) == math.ceil(
        ((z_alpha * math.sqrt(0.3) + z_power * math.sqrt(0.21)) / 0.3) ** 2 + 1 / 0.3
    )
    for disagreement in (0.09, 1.01):
        with pytest.raises(ConfigError, match=f"disagreement is {disagreement:g} and effect 0.1: scores that differ"):
            paired_tasks_needed(0.1, disagreement)
    assert smallest_detectable(25, sd=0.5, **levels) == pytest.approx((z_alpha + z_power) * 0.1)
    d = smallest_detectable(60, disagreement=0.3, **levels)
    surplus = d * math.sqrt(60 - 1 / d) - z_alpha * math.sqrt(0.3) - z_power * math.sqrt(0.3 - d * d)
    assert d < 0.3 and surplus == pytest.approx(0, abs=1e-9)
    large = smallest_detectable(8, disagreement=0.1, **levels)
    surplus = large * math.sqrt(8 - 1 / large) - z_alpha * math.sqrt(large) - z_power * math.sqrt(large - large**2)
    assert large > 0.1 and surplus == pytest.approx(0, abs=1e-9), "so large a difference disagrees on as many"
    assert smallest_detectable(2, disagreement=0.5) == 1.0
    for wrong in ({"n": 0, "sd": 1.0}, {"n": 5}, {"n": 5, "sd": 1.0, "disagreement": 0.5}):
        with pytest.raises(ConfigError, match="give n of 1 or more and one of the two"):
            smallest_detectable(wrong.pop("n"), **wrong)  # type: ignore[arg-type]
    parts = spread({"a": [1.0, 0.0, 0.5], "b": [0.25], "c": [1.0, 0.5], "d": []})
    within = (0.5 + 0.125) / 3
    means = float(np.var([0.5, 0.25, 0.75], ddof=1))
    assert parts.within == pytest.approx(within) and (parts.tasks, parts.attempts) == (3, 6)
    assert parts.between == pytest.approx(max(0.0, means - within * (1 / 3 + 1 + 1 / 2) / 3))
    assert parts.total == parts.between + parts.within
    assert spread({"a": [1.0, 0.0], "b": [0.0, 0.5]}).to_json()["tasks"] == 2
    assert spread({"a": [1.0], "b": [0.0]}).to_json() == {"between": None, "within": None, "tasks": 2, "attempts": 2}


# -- calibration, corpora and raters --


def test_calibration_of_confidences_by_hand() -> None:
    sure, right = [0.9, 0.2, 0.6, 0.4, 0.8], [1.0, 0.0, 0.0, 1.0, 1.0]
    # by confidence: .2 .4 | .6 .8 | .9, with outcomes 0 1 | 0 1 | 1
    assert expected_calibration_error(sure, right, 3) == pytest.approx((2 * 0.2 + 2 * 0.2 + 0.1) / 5)
    assert expected_calibration_error(sure, right, 9) == pytest.approx((0.2 + 0.6 + 0.6 + 0.2 + 0.1) / 5)
    assert brier_score(sure, right) == pytest.approx((0.01 + 0.04 + 0.36 + 0.36 + 0.04) / 5)
    assert [selective_accuracy(sure, right, share) for share in (0.01, 0.4, 0.6, 1.0)] == pytest.approx(
        [1, 1, 2 / 3, 0.6]
    )
    for share in (0.0, 1.01):
        with pytest.raises(ConfigError, match="give a share above 0, at most 1"):
            selective_accuracy(sure, right, share)
    for wrong in (([], []), ([0.5], []), ([1.1], [1.0]), ([-0.1], [1.0])):
        with pytest.raises(ConfigError):
            brier_score(*wrong)
    # bins of two: .2 .4 | .6 .8 .9, whose gaps add up to -.4 and .3
    assert rms_calibration_error(sure, right, bin_size=2) == pytest.approx(math.sqrt((0.4**2 / 2 + 0.3**2 / 3) / 5))
    assert rms_calibration_error(sure, right, bin_size=2, published=True) == pytest.approx(math.sqrt(0.4**2 / 2 / 5))
    assert rms_calibration_error(sure, right) == pytest.approx(0.1 / 5)
    assert math.isnan(rms_calibration_error([], []))
    for wrong in (([0.5], [], 1), ([0.5], [1.0], 0)):
        with pytest.raises(ConfigError, match="give one for each attempt"):
            rms_calibration_error(wrong[0], wrong[1], bin_size=wrong[2])
    score = calibration("c", 0.35, True)
    sums = [0.0] * 30
    sums[9:12] = [1.0, 0.35, 1.0]
    assert (score.value, score.detail) == (pytest.approx(0.65), figure_detail("calibration_error", sums))
    assert calibration("c", 1.0, False).detail["corpus"]["sums"][27:] == [1.0, 1.0, 0.0]
    for confidence in (-0.01, 1.01):
        with pytest.raises(ConfigError, match="0 to 1 was expected"):
            calibration("c", confidence, True)
    parts = np.array([[2.0, 0.5, 1.0] + [0.0] * 27, [1.0, 0.25, 0.0] + [0.0] * 27])
    draws, rng = calibrated_bins(parts), np.random.default_rng(0)
    first = rng.binomial(np.array([[2] + [0] * 9, [1] + [0] * 9]), np.array([[0.25] + [0.0] * 9, [0.25] + [0.0] * 9]))
    assert len(draws) == 400 and draws[0] == pytest.approx(abs(0.75 - first.sum()) / 3) and BINS == 10


def test_figures_of_a_corpus_by_hand() -> None:
    def of(name: str, *sums: float) -> float:
        return float(FORMULAS[name].of(np.array([sums]))[0])

    precisions = [6 / 8, 3 / 7, 0.5 / 6, 0.25 / 5]
    bleu = math.exp(sum(map(math.log, precisions)) / 4) * math.exp(1 - 10 / 8)
    assert of("bleu", 6, 3, 0, 0, 8, 7, 6, 5, 8, 10) == pytest.approx(bleu)
    assert of("bleu", 6, 3, 0, 0, 8, 7, 6, 5, 12, 10) == pytest.approx(bleu / math.exp(1 - 10 / 8))
    assert of("bleu", 0, 0, 0, 0, 8, 7, 6, 5, 8, 10) == 0.0 == of("bleu", 6, 3, 1, 0, 8, 7, 6, 0, 8, 10)
    orders = [8, 10, 6, 7, 9, 3, 6, 8, 0, 5, 7, 0, 4, 6, 0, 0, 5, 0]
    precision, recall = (6 / 8 + 3 / 7) / 5, (6 / 10 + 3 / 9) / 5
    assert of("chrf", *orders) == pytest.approx(5 * precision * recall / (4 * precision + recall))
    assert of("chrf", *[0.0] * 18) == 0.0
    assert of("micro_f1", 3, 1, 2) == 6 / 9 and of("micro_f1", 0, 0, 0) == 1.0 and of("micro_f1", 0, 1, 0) == 0.0
    assert of("share", 3, 4) == 0.75 and of("share", 0, 0) == 0.0
    bins = [2, 1.5, 1, 1, 0.25, 1, *[0] * 24]
    assert of("calibration_error", *bins) == pytest.approx((0.5 + 0.75) / 3)
    empty = {name: FORMULAS[name].empty for name in FORMULAS}
    assert empty["bleu"](list(range(10))) == [0.0] * 9 + [9]  # type: ignore[misc]
    assert empty["chrf"]([1, 2, 3, 4, 5, 6]) == [0.0, 2, 0.0, 0.0, 5, 0.0]  # type: ignore[misc]
    assert empty["micro_f1"]([3, 1, 2]) == [0.0, 0.0, 5] and empty["share"]([3, 4]) == [0.0, 4]  # type: ignore[misc]
    found = micro_f1("labels", ["a", "b", "b", "c"], ["b", "d", "e", "f"])
    assert found.value == pytest.approx(2 / 7) and found.detail == figure_detail("micro_f1", (1, 2, 3))
    assert micro_f1("l", [], []).value == 1.0 and micro_f1("l", ["a"], []).value == 0.0
    with pytest.raises(ConfigError, match="'share' with 3 sums is no figure of a corpus: there are bleu"):
        figure_detail("share", (1, 2, 3))
    assert figure_detail("share", (1, 2), why="w") == {"corpus": {"figure": "share", "sums": [1.0, 2.0]}, "why": "w"}


def test_raters_agree_beyond_chance_by_hand() -> None:
    first, second = ["a", "a", "b", "b", "c"], ["a", "b", "b", "b", "a"]
    # equal 3 of 5; by chance (2 * 2 + 2 * 3) / 25
    assert cohen_kappa(first, second) == pytest.approx((3 / 5 - 10 / 25) / (1 - 10 / 25))
    assert cohen_kappa([1, 2, 4], [1, 3, 4], weights="interval") == pytest.approx(
        1 - (1 / 3) / ((0 + 4 + 9 + 1 + 1 + 4 + 9 + 1 + 0) / 9)
    )
    assert math.isnan(cohen_kappa(["a"], ["a"]))
    for wrong in ((["a"], []), ([], [])):
        with pytest.raises(ConfigError, match="give one label each for the same items"):
            cohen_kappa(*wrong)
    # items rated (2, 1), (3, 0), (1, 2): within (2 + 6 + 2) / 18; shares 6/9 and 3/9
    chance = 4 / 9 + 1 / 9
    assert fleiss_kappa([[2, 1], [3, 0], [1, 2]]) == pytest.approx((10 / 18 - chance) / (1 - chance))
    assert math.isnan(fleiss_kappa([[2, 0], [2, 0]]))
    for counts in ([[1, 0]], [[2, 0], [1, 0]], [[2], [1, 1]]):
        with pytest.raises(ConfigError, match="use alpha"):
            fleiss_kappa(counts)
    units_ = [[1, 2], [2, 2, 3], [3], [1, 1]]
    totals, n = {1: 3, 2: 3, 3: 1}, 7
    nominal_observed = 2 / 1 + 2 * 2 / 2
    nominal_expected = 2 * (3 * 3 + 3 * 1 + 3 * 1)
    assert krippendorff_alpha(units_) == pytest.approx(1 - (n - 1) * nominal_observed / nominal_expected)
    interval_expected = 2 * (3 * 3 * 1 + 3 * 1 * 4 + 3 * 1 * 1)
    assert krippendorff_alpha(units_, level="interval") == pytest.approx(1 - (n - 1) * 4 / interval_expected)
    between = {(1, 2): (6 - 3) ** 2, (2, 3): (4 - 2) ** 2, (1, 3): (7 - 2) ** 2}
    observed = 2 * between[1, 2] / 1 + 2 * 2 * between[2, 3] / 2
    expected = sum(2 * totals[a] * totals[b] * distance for (a, b), distance in between.items())
    assert krippendorff_alpha(units_, level="ordinal") == pytest.approx(1 - (n - 1) * observed / expected)
    assert math.isnan(krippendorff_alpha([[1, 1], [2]]))


def test_the_effective_length_is_the_last_that_reaches_and_its_bounds_are_sure() -> None:
    from firsthand.stats.breakdown import Cell

    def cells(*scores: tuple[float, float, float], agent: str = "a") -> list[Cell]:
        return [Cell("b", agent, (2**n,), Interval(*each, 4), 4, 0) for n, each in enumerate(scores)]

    made = cells((0.9, 0.8, 1.0), (0.7, 0.5, 0.9), (0.8, 0.75, 0.85), (0.5, 0.4, 0.79))
    other = cells((0.1, 0.0, 0.2), agent="z")
    assert effective([*made, *other], 0.8) == [
        Effective("b", "a", 0.8, 4, 1, 8, (2,), False), Effective("b", "z", 0.8, None, None, 1, (), False),
    ]  # fmt: skip
    assert effective(made[:3], 0.75) == [Effective("b", "a", 0.75, 4, 4, None, (2,), True)]
    assert effective(made[3:], 0.79) == [Effective("b", "a", 0.79, None, None, None, (), False)], "a bound that touches"
