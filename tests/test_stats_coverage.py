"""Intervals hold the truth as often as they say, counted over simulated benchmarks whose truth is known.

Each simulation is seeded. A rate may differ from the nominal one by 3.5 times its own binomial error, and where a method is
known to be approximate at that size, by the slack that is written beside it.
"""

from __future__ import annotations

import csv
import gzip
import math
import os
from pathlib import Path

import numpy as np
import pytest
from interval_coverage import partial_coverage
from scipy import stats as scipy_stats

from firsthand.stats.intervals import cluster_freedom
from firsthand.stats.score_statistics import (
    Differences,
    bootstrap_interval,
    bootstrap_sums,
    clustered_error,
    mcnemar,
    mean_interval,
    paired_difference,
    spread,
    tasks_needed,
)

RUNS = 400
MATRIX = (
    Path(os.environ.get("FIRSTHAND_DATA") or Path(__file__).parents[2] / "shared" / "data")
    / "leaderboards"
    / "mmlu_pro_item_results.csv.gz"
)


def assert_nominal(hits, *, level=0.95, under=0.0, over=0.0):
    """The share of hits is `level`, within the simulation's own error and the slack on either side."""
    rate, error = float(np.mean(hits)), 3.5 * math.sqrt(level * (1 - level) / len(hits))
    assert level - error - under <= rate <= level + error + over, f"{rate:.3f} of {len(hits)}"


def by_task(values):
    return {str(task): list(np.atleast_1d(each)) for task, each in enumerate(values)}


def holds(interval, truth):
    return interval.low <= truth <= interval.high


@pytest.mark.parametrize(("n", "rate"), [(15, 0.5), (40, 0.9), (400, 0.7)])
def test_wilson(n, rate):
    scores = np.random.default_rng(1).random((RUNS, n)) < rate
    assert_nominal([holds(mean_interval([float(x) for x in each]), rate) for each in scores], under=0.01, over=0.02)


@pytest.mark.parametrize("n", [30, 300])
def test_student_and_the_central_limit(n):
    scores = np.random.default_rng(2).beta(2, 3, (RUNS, n))
    found = [mean_interval([float(x) for x in each]) for each in scores]
    assert found[0].method == "t"
    assert_nominal([holds(each, 0.4) for each in found], over=0.01)
    points = [mean_interval([float(x) for x in each]) for each in 100 * scores]  # nothing is known of their ends
    assert_nominal([holds(each, 40) for each in points])
    assert points[0].error == pytest.approx(100 * found[0].error) and points[0].low >= 100 * found[0].low - 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n", "by_t"),
    [("5 % lost", 10, 0.85), ("1 % lost", 50, 0.72), ("quarters, mostly 1", 20, 0.92), ("thirds, mostly 0", 20, 0.9),
     ("5 % lost", 50, 0.95), ("thirds, mostly 0", 100, 0.95), ("beta(5, 5)", 50, 0.98)],
)  # fmt: skip
def test_partial_credit_is_covered_where_few_tasks_fail_altogether(name, n, by_t):
    held, alone, width = partial_coverage(name, n, RUNS)
    assert held >= (0.95 - 3 * math.sqrt(0.95 * 0.05 / RUNS)) * RUNS and alone <= by_t * RUNS
    assert width < (170 if name == "1 % lost" else 145 if n == 10 else 130)


def test_the_interval_of_partial_credit_is_that_of_one_more_task_half_at_either_end():
    scores = [0.9, 1.0, 0.95, 0.8, 1.0, 0.85, 0.99, 0.97]
    weights, values = np.array([1.0] * 8 + [0.5, 0.5]), np.array([*scores, 0.0, 1.0])
    centre = np.average(values, weights=weights)
    variance = np.sum(weights * (values - centre) ** 2) / 8
    half = scipy_stats.t.ppf(0.975, 8) * math.sqrt(variance / 9)
    found = mean_interval(scores)
    assert found.value == pytest.approx(np.mean(scores)) and found.low == pytest.approx(centre - half)
    assert found.high == 1.0 and mean_interval([1 - each for each in scores]).high == pytest.approx(1 - found.low)
    labels = {str(task): str(task // 2) for task in range(8)}
    twice = {str(task): [each] for task, each in enumerate(np.repeat(scores[:4], 2))}
    alone = mean_interval(scores[:4])
    assert mean_interval(twice, clusters=labels).low == pytest.approx(alone.low)  # a cluster of equal tasks is one


def test_repeated_samples():
    rng = np.random.default_rng(3)
    solved = rng.beta(0.8, 0.6, (RUNS, 60))
    scores = rng.binomial(1, solved[..., None], (RUNS, 60, 4)).astype(float)
    truth = 0.8 / 1.4
    assert_nominal([holds(mean_interval(by_task(each)), truth) for each in scores])
    flat = scores.reshape(RUNS, -1)  # as if the 240 attempts were 240 tasks: what must not be done
    naive = [mean_interval([float(x) for x in each]) for each in flat]
    assert np.mean([holds(each, truth) for each in naive]) < 0.85


@pytest.mark.parametrize(("n", "epochs", "right"), [(20, 4, 0.9), (50, 8, 0.9), (30, 4, 0.98), (50, 4, 0.98)])
def test_repeated_attempts_near_one(n, epochs, right):
    rng = np.random.default_rng(23)
    solved = rng.beta(right * 2, (1 - right) * 2, (RUNS, n))
    scores = rng.binomial(1, solved[..., None], (RUNS, n, epochs)).astype(float)
    found = [mean_interval(by_task(each)) for each in scores]
    assert {each.method for each in found} <= {"clustered Wilson", "Wilson"}
    assert np.mean([holds(each, right) for each in found]) > 0.92  # .88 to .92 by Student's t
    assert all(each.high <= 1 and each.low >= 0 for each in found)


@pytest.mark.slow
@pytest.mark.parametrize(("clusters", "size", "binary"), [(12, 5, False), (25, 6, True), (60, 4, True)])
def test_clustered_tasks(clusters, size, binary):
    rng = np.random.default_rng(4)
    ease = rng.beta(1.5, 1, (RUNS, clusters))
    labels = {str(task): f"passage {task // size}" for task in range(clusters * size)}
    chance = np.repeat(ease, size, axis=1)
    scores = (
        (rng.random(chance.shape) < chance).astype(float) if binary else 0.8 * chance + 0.2 * rng.random(chance.shape)
    )
    truth = 0.6 if binary else 0.8 * 0.6 + 0.1
    found = [mean_interval(by_task(each), clusters=labels) for each in scores]
    assert found[0].method == ("clustered Wilson" if binary else "clustered t")
    assert found[0].clusters == clusters and np.mean([each.inflation for each in found]) > 1.2
    assert_nominal([holds(each, truth) for each in found], under=0.015, over=0.01)
    assert np.mean([holds(mean_interval(by_task(each)), truth) for each in scores]) < 0.92


@pytest.mark.slow
def test_clustered_pairs():
    rng = np.random.default_rng(5)
    clusters, size = 20, 6
    labels = {str(task): f"repository {task // size}" for task in range(clusters * size)}
    ease = np.repeat(rng.beta(2, 2, (RUNS, clusters)), size, axis=1)
    taste = np.repeat(rng.normal(0.1, 0.25, (RUNS, clusters)), size, axis=1)
    better = np.clip(ease + taste, 0, 1)
    truth = float(np.mean(np.clip(rng.beta(2, 2, 10**6) + rng.normal(0.1, 0.25, 10**6), 0, 1))) - 0.5
    a, b = (rng.random(ease.shape) < better).astype(float), (rng.random(ease.shape) < ease).astype(float)
    found = [Differences.between(by_task(x), by_task(y), labels) for x, y in zip(a, b, strict=True)]
    assert found[0].method == "clustered t" and found[0].num_units == clusters
    assert_nominal([each.bounds().low <= truth <= each.bounds().high for each in found], under=0.01)
    alone = [Differences.between(by_task(x), by_task(y)) for x, y in zip(a, b, strict=True)]
    assert np.mean([each.bounds().low <= truth <= each.bounds().high for each in alone]) < 0.92


@pytest.mark.slow
def test_clusters_keep_the_level_of_the_test():
    rng = np.random.default_rng(6)
    labels = {str(task): f"{task // 5}" for task in range(60)}
    taste = np.repeat(rng.normal(0, 0.3, (RUNS, 12)), 5, axis=1)
    a = np.clip(0.5 + taste + rng.normal(0, 0.1, taste.shape), 0, 1)
    zeros = by_task(np.full(60, 0.5))
    found = [paired_difference(by_task(each), zeros, clusters=labels) for each in a[:400]]
    assert_nominal([each.verdict == "inconclusive" for each in found], over=0.02)
    for each in found:
        assert (each.p_value < 0.05) == (each.verdict != "inconclusive") == (not each.low <= 0 <= each.high)


@pytest.mark.slow
@pytest.mark.parametrize("bar", [-0.1, 0.0, 0.05])
def test_tango_at_one_sided_bars(bar):
    rng = np.random.default_rng(7)
    win, loss, n = 0.15 + max(bar, 0), 0.15 - min(bar, 0), 150
    draws = rng.multinomial(n, [win, loss, 1 - win - loss], 4000)
    values = [Differences((1.0,) * b + (-1.0,) * c + (0.0,) * s, True, True) for b, c, s in draws]
    assert_nominal([each.p_above(bar) >= 0.05 for each in values], under=0.006, over=0.006)
    assert_nominal([each.p_below(bar) >= 0.05 for each in values], under=0.006, over=0.006)


def test_one_sided_p_values_are_where_the_bounds_touch():
    rng = np.random.default_rng(8)
    labels = tuple(str(i // 3) for i in range(30))
    signs = tuple(float(x) for x in rng.integers(-1, 2, 30))
    for differences in (
        Differences(signs, True, True),
        Differences(tuple(x / 3 for x in signs), False, True),
        Differences(tuple(x / 3 for x in signs), False, True, labels),
        Differences((0.2,) * 9, False, True),
    ):
        low, high = differences.bounds(0.9)
        assert differences.p_above(low) == pytest.approx(0.05, abs=1e-6)
        assert differences.p_below(high) == pytest.approx(0.05, abs=1e-6)
        assert differences.reversed.bounds(0.9) == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "slack"), [("bca", 0.02), ("percentile", 0.03)])
def test_bootstrap_of_a_corpus_metric(method, slack):
    rng = np.random.default_rng(9)
    total = rng.integers(5, 40, (250, 80)).astype(float)
    skill = rng.beta(4, 2, total.shape) * np.clip(total / 30, 0.2, 1)  # long texts go better: no mean of shares
    parts = np.stack([rng.binomial(total.astype(int), skill).astype(float), total], axis=-1)
    long = rng.integers(5, 40, 10**6)
    truth = float(np.sum(long * 2 / 3 * np.clip(long / 30, 0.2, 1)) / np.sum(long))

    def share(sums):
        return sums[:, 0] / sums[:, 1]

    found = [bootstrap_sums(each, share, method=method, resamples=400) for each in parts]
    assert_nominal([holds(each, truth) for each in found], under=slack)
    few = parts[:5]
    found = [bootstrap_sums(each, share, method=method, resamples=600) for each in few]
    by_index = bootstrap_interval(
        lambda chosen: float(parts[0][chosen, 0].sum() / parts[0][chosen, 1].sum()), 80, method=method, resamples=600
    )
    assert by_index.value == pytest.approx(found[0].value)
    assert (by_index.low, by_index.high) == pytest.approx((found[0].low, found[0].high), abs=0.01)


@pytest.mark.slow
def test_bootstrap_over_clusters():
    rng = np.random.default_rng(10)
    labels = [str(i // 5) for i in range(150)]
    ease = np.repeat(rng.beta(2, 2, (300, 30)), 5, axis=1)
    parts = np.stack([(rng.random(ease.shape) < ease).astype(float), np.ones_like(ease)], axis=-1)[:200]

    def share(sums):
        return sums[:, 0] / sums[:, 1]

    found = [bootstrap_sums(each, share, labels=labels, resamples=400) for each in parts]
    assert found[0].clusters == 30
    assert_nominal([holds(each, 0.5) for each in found], under=0.03)
    assert np.mean([holds(bootstrap_sums(each, share, resamples=400), 0.5) for each in parts[:100]]) < 0.88


def test_bca_agrees_with_scipy_on_skewed_values():
    values = np.random.default_rng(11).exponential(1, 60)
    ours = bootstrap_interval(lambda chosen: float(np.mean(values[chosen])), 60, resamples=4000)
    theirs = scipy_stats.bootstrap((values,), np.mean, n_resamples=4000, method="BCa", rng=np.random.default_rng(0))
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.02)
    assert ours.high - ours.value > ours.value - ours.low


def test_the_clustered_error_is_the_cr2_sandwich_of_a_regression_on_a_constant():
    rng = np.random.default_rng(12)
    labels = [str(x) for x in rng.integers(0, 9, 70)]
    values = rng.normal(size=70)
    residual_maker = np.eye(70) - np.full((70, 70), 1 / 70)
    residuals, meat, columns = residual_maker @ values, 0.0, []
    for name in sorted(set(labels)):
        own = [i for i in range(70) if labels[i] == name]
        roots, vectors = np.linalg.eigh(residual_maker[np.ix_(own, own)])
        adjusted = np.ones(len(own)) @ (vectors / np.sqrt(roots)) @ vectors.T / 70  # Bell and McCaffrey (2002)
        meat += float(adjusted @ residuals[own]) ** 2
        columns.append(residual_maker[:, own] @ adjusted)
    assert clustered_error(list(values), labels) == pytest.approx(math.sqrt(meat), rel=1e-9)
    spectrum = np.linalg.eigvalsh(np.array(columns) @ np.array(columns).T)
    sizes = [labels.count(name) for name in sorted(set(labels))]
    assert cluster_freedom(sizes) == pytest.approx(spectrum.sum() ** 2 / (spectrum**2).sum(), rel=1e-9)
    alone = clustered_error(list(values), [str(i) for i in range(70)])
    assert alone == pytest.approx(values.std(ddof=1) / math.sqrt(70), rel=1e-12)


def test_equal_clusters_have_one_degree_of_freedom_less_and_the_plain_correction():
    values, labels = [0.1, 0.5, 0.3, 0.9, 0.2, 0.8], ["a", "a", "b", "b", "c", "c"]
    totals = [0.6 - 2 * 2.8 / 6, 1.2 - 2 * 2.8 / 6, 1.0 - 2 * 2.8 / 6]
    assert clustered_error(values, labels) == pytest.approx(
        math.sqrt(3 / 2 * sum(x * x for x in totals)) / 6, rel=1e-12
    )
    assert cluster_freedom([2, 2, 2]) == pytest.approx(2) and cluster_freedom([5] * 40) == pytest.approx(39)
    assert cluster_freedom([1] * 30) == pytest.approx(29) and cluster_freedom([99, 1]) == pytest.approx(1)
    assert cluster_freedom(SWE_BENCH) == pytest.approx(3.33, abs=0.01)


SWE_BENCH = [231, 75, 44, 34, 32, 22, 22, 19, 10, 8, 2, 1]
"""Tasks of SWE-bench Verified by repository."""


@pytest.mark.slow
@pytest.mark.parametrize("dependence", [0.02, 0.1])
def test_unequal_clusters_are_covered(dependence):
    rng, runs = np.random.default_rng(21), 400
    easy = rng.beta(0.4 * (1 - dependence) / dependence, 0.6 * (1 - dependence) / dependence, (runs, len(SWE_BENCH)))
    right = rng.binomial(SWE_BENCH, easy)
    labels = {f"{c} {i}": f"{c}" for c, size in enumerate(SWE_BENCH) for i in range(size)}
    found = []
    for each in right[:runs]:
        scores = {f"{c} {i}": [float(i < each[c])] for c, size in enumerate(SWE_BENCH) for i in range(size)}
        found.append(holds(mean_interval(scores, clusters=labels), 0.4))
    assert np.mean(found) > 0.92  # .85 and .82 with as many degrees of freedom as repositories


def test_variance_is_split_without_bias():
    rng = np.random.default_rng(13)
    truth = rng.normal(0, 0.3, (400, 40))
    scores = truth[..., None] + rng.normal(0, 0.5, (400, 40, 3))
    parts = [spread(by_task(each)) for each in scores]
    assert np.mean([each.between for each in parts]) == pytest.approx(0.09, abs=0.006)
    assert np.mean([each.within for each in parts]) == pytest.approx(0.25, abs=0.006)
    uneven = spread({"a": [0.0, 1.0], "b": [1.0], "c": [0.5, 0.5, 0.5]})
    assert uneven.attempts == 6 and uneven.within == pytest.approx(0.5 / 3)
    assert math.isnan(spread({"a": [1.0], "b": [0.0]}).within)


@pytest.mark.slow
def test_as_many_tasks_as_are_needed_find_the_effect_four_times_in_five():
    rng = np.random.default_rng(14)
    omega, sigma, epochs, effect = 0.3, 0.4, 2, 0.08
    n = tasks_needed(effect, omega**2, (sigma**2, sigma**2), (epochs, epochs))
    assert n == math.ceil(7.8489 * (0.09 + 0.16) / effect**2)
    taste = effect + rng.normal(0, omega, (RUNS, n))
    noise = rng.normal(0, sigma / math.sqrt(epochs), (2, RUNS, n))
    differences = taste + noise[0] - noise[1]
    found = scipy_stats.ttest_1samp(differences, 0, axis=1).pvalue < 0.05
    assert_nominal(found, level=0.8)
    ours = [paired_difference(by_task(each), by_task(np.zeros(n))).verdict == "better" for each in differences[:12]]
    assert np.sum(np.array(ours) != found[:12]) <= 1


def test_as_many_pairs_as_are_needed_find_a_difference_of_rates():
    from firsthand.stats.score_statistics import paired_tasks_needed, smallest_detectable

    n = paired_tasks_needed(0.05, 0.2)
    assert smallest_detectable(n, disagreement=0.2) == pytest.approx(0.05, abs=2e-4)
    draws = np.random.default_rng(15).multinomial(n, [0.125, 0.075, 0.8], 3000)
    assert_nominal([mcnemar(int(b), int(c)) < 0.05 for b, c, _ in draws], level=0.8, under=0.01, over=0.01)


@pytest.mark.skipif(not MATRIX.exists(), reason="needs the item results of MMLU-Pro")
def test_pairing_separates_two_real_models_that_apart_look_the_same():
    with gzip.open(MATRIX, "rt") as file:
        rows = list(csv.DictReader(file))
    gemini, llama = (
        {row["question_id"]: [float(row[name] == "1")] for row in rows}
        for name in ("gemini-1.5-flash-002", "Meta-Llama-3_1-70B-Instruct")
    )
    n, found = len(rows), paired_difference(gemini, llama)
    rates = [sum(value for (value,) in each.values()) / n for each in (gemini, llama)]
    unpaired = found.difference / math.sqrt(sum(rate * (1 - rate) / n for rate in rates))
    paired = Differences.between(gemini, llama)
    assert (n, round(unpaired, 2), round(paired.mean / paired.error, 2)) == (12032, 1.87, 2.58)
    assert found.verdict == "better" and found.method == "Tango" and 0.008 < found.p_value < 0.012
    categories = {row["question_id"]: row["category"] for row in rows}
    clustered = paired_difference(gemini, llama, clusters=categories)
    assert (clustered.clusters, clustered.verdict) == (14, "inconclusive")  # the categories do not agree
    assert clustered.high - clustered.low > 2 * (found.high - found.low)
