"""Bounds of means and of bootstrapped figures, each beside its formula written out once more."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from firsthand.errors import ConfigError
from firsthand.stats.bootstrap import (
    MAX_LEFT_OUT,
    _bounds,
    _corrected,
    bootstrap,
    bootstrap_interval,
    bootstrap_sums,
    drawn,
    of_chosen,
    unit_strata,
)
from firsthand.stats.figure_stats import (
    strata_gain,
)
from firsthand.stats.intervals import (
    Bounds,
    Interval,
    Moments,
    _with_one_more,
    equal_bounds,
    interval_of,
    moments,
    proportion_interval,
    unseen_share,
    z_value,
)
from firsthand.stats.strata import cluster_freedom, strata_units, stratified_error, stratified_freedom

# -- means --


def t_of(freedom: float, confidence: float) -> float:
    return float(stats.t.ppf((1 + confidence) / 2, freedom))


def test_an_interval_is_by_the_kind_of_its_values() -> None:
    plain = Moments(5, 0.4, 0.05, 0.1, 0.7, False)
    error, half = 0.1, t_of(4, 0.9) * 0.1
    t = Bounds(0.4 - half, 0.4 + half)
    stretched = _with_one_more(0.4, error, 4, t, 0.9)
    assert interval_of(plain, 0.9) == Interval(0.4, *stretched, 5, "t", pytest.approx(error), 0, 1.0)
    wide = interval_of(replace(plain, highest=1.7), 0.9)
    assert wide == Interval(0.4, *map(pytest.approx, t), 5, "t", pytest.approx(error), 0, 1.0)  # type: ignore[arg-type]
    binary = Moments(5, 0.4, 0.3, 0.0, 1.0, True)
    wilson = proportion_interval(2, 5, 0.9)
    assert interval_of(binary, 0.9) == Interval(0.4, *wilson, 5, "Wilson", math.sqrt(0.3 / 5), 0, 1.0)
    equal = interval_of(Moments(4, 0.25, 0.0, 0.25, 0.25, False), 0.9)
    unseen = 1 - 0.05 ** (1 / 4)
    assert equal == Interval(
        0.25, 0.25 * (1 - unseen), pytest.approx(0.25 * (1 - unseen) + unseen), 4, "equal values", 0.0
    )
    assert (interval_of(Moments(4, 2.0, 0.0, 2.0, 2.0, False)).low, equal_bounds(0.5, 2, False, 0.9).high) == (
        -math.inf, math.inf,
    )  # fmt: skip
    assert equal_bounds(0.25, 4, True, 0.9) == Bounds(equal.low, equal.high) and unseen_share(4, 0.9) == unseen
    none = interval_of(Moments(0, math.nan, math.nan, math.nan, math.nan, False))
    assert math.isnan(none.value) and none.n == 0 and none.method == ""


def test_clusters_and_repeats_have_wilson_at_their_effective_number_and_others_a_clustered_t() -> None:
    values, labels = [1.0, 1.0, 0.0, 1.0, 0.0], ["a", "a", "b", "b", "c"]
    found = moments(values, labels)
    assert found.clusters == ((2.0, 2), (1.0, 2), (0.0, 1)) and (found.n, found.binary, found.repeats) == (5, True, 1)
    squares = [(2 - 1.2) ** 2 / 0.6, (1 - 1.2) ** 2 / 0.6, (0 - 0.6) ** 2 / 0.8]
    error = math.sqrt(sum(squares)) / 5
    assert found.error == pytest.approx(error) and found.freedom == cluster_freedom([2, 2, 1])
    shrunk = min(1.0, (z_value(0.9) / t_of(found.freedom, 0.9)) ** 2)
    effective = min(5, 0.24 / error**2) * shrunk
    interval = interval_of(found, 0.9)
    assert interval.method == "clustered Wilson" and interval.clusters == 3
    assert (interval.low, interval.high) == pytest.approx(proportion_interval(0.6 * effective, effective, 0.9))
    assert interval.inflation == pytest.approx(error / math.sqrt(0.3 / 5)) and interval.error == pytest.approx(error)
    halves = Moments(4, 0.5, 1 / 24, 0.25, 0.75, False, repeats=4)
    again = interval_of(halves, 0.9)
    effective = min(16, 0.25 / (1 / 24 / 4)) * (z_value(0.9) / t_of(3, 0.9)) ** 2
    assert again.method == "clustered Wilson" and (again.clusters, again.inflation) == (0, 1.0)
    assert (again.low, again.high) == pytest.approx(proportion_interval(0.5 * effective, effective, 0.9))
    shares = moments([1.5, 0.5, 0.25, 1.0, 0.0], labels)
    half = t_of(shares.freedom, 0.9) * shares.error
    t = interval_of(shares, 0.9)
    assert t.method == "clustered t" and (t.low, t.high) == pytest.approx((0.65 - half, 0.65 + half))
    alone = moments([0.5, 0.25], ["a", "a"])
    assert math.isnan(alone.error) and interval_of(alone, 0.9).method == "clustered equal values"
    assert interval_of(alone, 0.9).high == equal_bounds(0.375, 1, True, 0.9).high, "of one cluster, not of two tasks"


def test_strata_leave_out_what_they_differ_by_and_are_left_out_where_each_agrees_in_itself() -> None:
    values, strata = [1.0, 1.0, 0.0, 0.0, 0.0, 1.0], list("xxxyyy")
    found = moments(values, None, strata)
    units = strata_units(values, strata)
    assert (
        found.strata == units and found.error == stratified_error(units) and found.freedom == stratified_freedom(units)
    )
    # each stratum has squares 2/3 about its mean; CR2 divides by 1 - 1/3
    error = math.sqrt(2 * (2 / 3) / (2 / 3)) / 6
    assert found.error == pytest.approx(error)
    interval = interval_of(found, 0.9)
    effective = min(12, 0.25 / error**2) * min(1.0, (z_value(0.9) / t_of(found.freedom, 0.9)) ** 2)
    assert interval.method == "stratified Wilson" and interval.inflation == pytest.approx(error / math.sqrt(0.3 / 6))
    assert (interval.low, interval.high) == pytest.approx(proportion_interval(0.5 * effective, effective, 0.9))
    quiet = interval_of(moments([1.0] * 5 + [0.0] * 7, None, ["x"] * 6 + ["y"] * 6), 0.9)
    freedom = stratified_freedom((((1.0, 1),) * 6, ((0.0, 1),) * 6))
    effective = 24 * min(1.0, (z_value(0.9) / t_of(freedom, 0.9)) ** 2)  # of an error of 1/12, at most twice 12 tasks
    assert (quiet.low, quiet.high) == pytest.approx(proportion_interval(5 / 12 * effective, effective, 0.9))
    labelled = interval_of(moments(values, list("aabccd"), strata), 0.9)
    assert labelled.method == "stratified clustered Wilson" and labelled.clusters == 4
    pure = interval_of(moments([1.0, 1.0, 0.0, 0.0], None, list("xxyy")), 0.9)
    assert pure.method == "Wilson" and (pure.low, pure.high) == proportion_interval(2, 4, 0.9)
    t = interval_of(moments([0.25, 0.5, 0.75, 1.5], None, list("xxyy")), 0.9)
    assert t.method == "stratified t"
    assert strata_gain([0.25, 0.5, 0.75, 1.5], None, list("xxyy")) == pytest.approx(
        float(np.std([0.25, 0.5, 0.75, 1.5], ddof=1)) / 2 / t.error
    )
    assert strata_gain([1.0, 0.0], None, None) == 1.0 == strata_gain([1.0, 1.0, 0.0, 0.0], None, list("xxyy"))


def test_one_more_unit_stands_half_at_0_and_half_at_1() -> None:
    # five units of mean .9 and variance s2 = 5 * error^2; the sixth is at 0 and at 1, half each
    mean, error = 0.9, 0.05
    values_mean = (5 * 0.9 + 0.5) / 6
    squares = 4 * 5 * error**2 + 5 * (0.9 - values_mean) ** 2 + (values_mean**2 + (1 - values_mean) ** 2) / 2
    half = t_of(5, 0.9) * math.sqrt(squares / 5 / 6)
    found = _with_one_more(mean, error, 4, Bounds(0.88, 0.92), 0.9)
    assert found == pytest.approx((values_mean - half, min(1.0, values_mean + half)))
    assert _with_one_more(mean, error, 4, Bounds(0.1, 1.3), 0.9) == (0.1, 1.0)
    assert _with_one_more(mean, error, 4, Bounds(-0.1, 0.95), 0.9)[0] == 0.0


def test_one_more_unit_makes_no_interval_narrower_on_either_side() -> None:
    inner = _with_one_more(0.5, 0.05, 9, Bounds(0.5, 0.5), 0.9)
    assert 0 < inner.low < 0.5 < inner.high < 1 and inner.low + inner.high == pytest.approx(1.0)
    for low, high in ((0.01, 0.99), (0.01, 0.5), (0.5, 0.99), (0.0, 1.0), (-0.2, 0.5), (0.5, 1.2)):
        wanted = Bounds(max(0.0, min(low, inner.low)), min(1.0, max(high, inner.high)))
        assert _with_one_more(0.5, 0.05, 9, Bounds(low, high), 0.9) == wanted, (low, high)


def test_of_one_task_or_one_cluster_there_is_no_error() -> None:
    for found in (moments([0.5]), moments([1.0], ["a"]), moments([0.5, 0.25, 1.0], ["a"] * 3)):
        assert math.isnan(found.error)
    assert moments([0.5, 0.5]).error == 0.0 and moments([0.25, 0.75]).error == pytest.approx(0.25)
    one = interval_of(moments([0.5]), 0.9)
    assert math.isnan(one.error) and one.to_json()["error"] is None and one.method == "equal values"
    assert (one.low, one.high) == pytest.approx((0.025, 0.975)), "0.95 of the tasks may score anything"
    assert math.isnan(moments([]).error) and math.isnan(interval_of(moments([])).error)


# -- bootstrap --


def micro(counts: Any) -> Any:
    """Of sums per task: right of right and wrong."""
    sums = counts @ np.array([[1.0, 3.0], [2.0, 2.0], [0.0, 1.0], [4.0, 5.0], [1.0, 2.0], [3.0, 3.0]])
    return sums[:, 0] / np.maximum(sums[:, 1], 1)


def test_a_bootstrap_is_the_quantiles_of_its_draws_by_cluster_and_stratum() -> None:
    found = bootstrap(micro, 6, method="percentile", confidence=0.8, resamples=300, seed=5)
    draws = np.concatenate([micro(counts) for counts in drawn(np.arange(6), 300, 5)])
    low, high = np.quantile(draws, [0.1, 0.9])
    assert found == Interval(11 / 16, low, high, 6, "percentile bootstrap", pytest.approx(draws.std(ddof=1)), 0)
    labels = list("aabbcc")
    found = bootstrap(micro, 6, labels=labels, method="percentile", confidence=0.5, resamples=300, seed=5)
    draws = np.concatenate([micro(counts) for counts in drawn(np.array([0, 0, 1, 1, 2, 2]), 300, 5)])
    assert (found.low, found.high) == tuple(np.quantile(draws, [0.25, 0.75])) and found.clusters == 3
    left_out = np.array([micro(np.array([[float(n != skip) for n in range(6)]]))[0] for skip in range(6)])
    draws = np.concatenate([micro(counts) for counts in drawn(np.arange(6), 300, 5)])
    tails = [_corrected(tail, 11 / 16, draws, left_out) for tail in (0.1, 0.9)]
    bca = bootstrap(micro, 6, confidence=0.8, resamples=300, seed=5)
    assert bca.method == "BCa bootstrap" and (bca.low, bca.high) == pytest.approx(tuple(np.quantile(draws, tails)))
    asked: list[Any] = []
    bootstrap(lambda counts: asked.append(counts) or micro(counts), 6, labels=labels, resamples=9)
    assert asked[-1].tolist() == [[0, 0, 1, 1, 1, 1], [1, 1, 0, 0, 1, 1], [1, 1, 1, 1, 0, 0]], "a cluster at a time"
    given, out = np.array([0.1, 0.2, 0.3, 0.3, 0.5]), np.array([0.2, 0.4, 0.9])
    bias, away = stats.norm.ppf((2 + 2 / 2) / 5), out.mean() - out
    bend = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    shifted = bias + stats.norm.ppf(0.1)
    assert _corrected(0.1, 0.3, given, out) == pytest.approx(stats.norm.cdf(bias + shifted / (1 - bend * shifted)))
    edge = stats.norm.ppf(1 / 10)  # of five draws that are all above, half a draw is below
    assert _corrected(0.5, 0.0, given, np.ones(3)) == pytest.approx(stats.norm.cdf(2 * edge))
    with pytest.raises(ConfigError, match="not a finite number for some draws"):
        _bounds(0.5, np.array([0.0, np.inf]), lambda: left_out, "percentile", 0.9)
    assert _bounds(9.0, np.arange(11.0), lambda: left_out, "percentile", 0.8) == pytest.approx((1.0, 9.0))


def test_the_jackknife_of_a_stratified_figure_is_about_the_mean_of_each_stratum() -> None:
    n = 24
    values, strata = np.arange(n) ** 2 / 100.0, ["x" if k < 12 else "y" for k in range(n)]

    def of(counts: Any) -> Any:
        return counts @ values / counts.sum(axis=1)

    unit = np.arange(n)
    stratum = unit_strata(unit, strata)
    assert stratum is not None and stratum.tolist() == [0] * 12 + [1] * 12
    draws = np.concatenate([of(counts) for counts in drawn(unit, 400, stratum_U=stratum)])
    out = np.array([of(np.array([[float(k != skip) for k in range(n)]]))[0] for skip in range(n)])
    out[:12] -= out[:12].mean()
    out[12:] -= out[12:].mean()
    value = values.mean()
    tails = [_corrected(tail, value, draws, out) for tail in (0.05, 0.95)]
    found = bootstrap(of, n, strata=strata, confidence=0.9, resamples=400)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, tails)))
    many = MAX_LEFT_OUT + 2  # the jackknife then leaves out tasks 0 and 500 together
    long = np.arange(many) / many
    asked: list[Any] = []

    def mean(counts: Any) -> Any:
        asked.append(counts)
        return counts @ long / counts.sum(axis=1)

    bootstrap(mean, many, resamples=5)
    assert asked[-1].shape == (MAX_LEFT_OUT, many) and (asked[-1][0] == 0).nonzero()[0].tolist() == [0, 500]
    assert (asked[-1][499] == 0).nonzero()[0].tolist() == [499]


def test_figures_of_sums_and_of_chosen_tasks_are_bootstrapped_alike() -> None:
    parts = [[1, 3], [2, 2], [0, 1], [4, 5], [1, 2], [3, 3]]
    options: Any = {"labels": list("abcdef"), "confidence": 0.8, "resamples": 200}
    whole = bootstrap(micro, 6, **options)
    assert bootstrap_sums(np.array(parts), lambda sums: sums[:, 0] / np.maximum(sums[:, 1], 1), **options) == whole

    def share(chosen: Any) -> float:
        return sum(parts[n][0] for n in chosen) / sum(parts[n][1] for n in chosen)

    assert bootstrap_interval(share, 6, **options) == whole and whole.clusters == 6
    seen: list[Any] = []
    of = of_chosen(lambda chosen: seen.append(chosen.tolist()) or len(chosen) / 4)
    assert of(np.array([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0]])).tolist() == [0.75, 1.0]
    assert seen == [[0, 0, 2], [1, 1, 1, 2]]
