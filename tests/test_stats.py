"""Intervals cover, tests keep their level, and what is printed together agrees.

Coverage is counted exactly, by summing the probability of every possible outcome, wherever outcomes are few enough.
"""

from __future__ import annotations

import math
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from firsthand.errors import ConfigError
from firsthand.stats.intervals import interval_of, moments
from firsthand.stats.score_statistics import (
    Differences,
    all_pairs,
    benjamini_hochberg,
    bootstrap_sums,
    compare_to_baseline,
    corrected,
    holm,
    mcnemar,
    mean_interval,
    paired_difference,
    proportion_interval,
    sign_flip,
    smallest_detectable,
    tango_interval,
)


def by_task(values):
    return {str(index): [float(value)] for index, value in enumerate(values)}


def counts(better, worse, same):
    """Two agents whose 0/1 scores differ this way."""
    return by_task([1] * better + [0] * worse + [1] * same), by_task([0] * better + [1] * worse + [1] * same)


def outcomes(n, win, loss):
    """Every (wins, losses) over n tasks and its probability."""
    pairs = [(b, c) for b in range(n + 1) for c in range(n + 1 - b)]
    table = np.array([[b, c, n - b - c] for b, c in pairs])
    return pairs, scipy_stats.multinomial.pmf(table, n, [win, loss, 1 - win - loss])


def test_wilson_gives_the_numbers_of_newcombe_1998():
    for successes, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        assert proportion_interval(successes, n) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.slow
@given(n=st.integers(1, 500), data=st.data())
@settings(max_examples=100, deadline=None)
def test_wilson_agrees_with_scipy(n, data):
    successes = data.draw(st.integers(0, n))
    theirs = scipy_stats.binomtest(successes, n).proportion_ci(0.9, method="wilson")
    assert proportion_interval(successes, n, 0.9) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize("n", [20, 50])
def test_wilson_covers_at_its_level(n):
    bounds = np.array([proportion_interval(k, n) for k in range(n + 1)])
    rates = np.linspace(0.05, 0.95, 181)
    chance = scipy_stats.binom.pmf(np.arange(n + 1)[None], n, rates[:, None])
    coverage = (chance * ((bounds[:, 0] <= rates[:, None]) & (rates[:, None] <= bounds[:, 1]))).sum(axis=1)
    assert 0.945 < coverage.mean() < 0.965
    assert coverage.min() > 0.91


def test_tango_gives_the_published_interval_of_bentur_2009():
    # Fagerland, Lydersen and Laake (2014), table of intervals for airway hyper-responsiveness: 1 against 7 of 21.
    assert tango_interval(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize("n", [20, 40])
def test_paired_intervals_cover_at_their_level_whatever_the_correlation(n):
    pairs = [(b, c) for b in range(n + 1) for c in range(n + 1 - b)]
    found = [paired_difference(*counts(b, c, n - b - c)) for b, c in pairs]
    coverage = []
    for p, q, correlation in product((0.3, 0.5, 0.7, 0.9), (0.4, 0.6, 0.8), (0.0, 0.3, 0.6)):
        both = p * q + correlation * math.sqrt(p * (1 - p) * q * (1 - q))
        win, loss = p - both, q - both
        if min(win, loss) < 0 or win + loss > 1:
            continue
        _, chance = outcomes(n, win, loss)
        covered = [each.low - 1e-12 <= p - q <= each.high + 1e-12 for each in found]
        coverage.append(float(chance @ np.array(covered)))
    assert len(coverage) > 20
    assert min(coverage) > 0.93
    assert 0.945 < np.mean(coverage) < 0.985


@pytest.mark.parametrize("n", [20, 40, pytest.param(100, marks=pytest.mark.slow)])
def test_the_paired_p_value_is_not_too_small_when_nothing_differs(n):
    pairs = [(b, c) for b in range(n + 1) for c in range(n + 1 - b)]
    p_values = np.array([paired_difference(*counts(b, c, n - b - c)).p_value for b, c in pairs])
    for disagreement in (0.05, 0.1, 0.2, 0.4, 0.6, 0.9, 1.0):
        _, chance = outcomes(n, disagreement / 2, disagreement / 2)
        for level in (0.01, 0.05, 0.1):
            assert chance @ (p_values < level) <= level


def test_mcnemar_gives_the_published_exact_p_value():
    assert mcnemar(1, 7) == pytest.approx(0.0703, abs=5e-5)
    assert mcnemar(3, 12) == pytest.approx(scipy_stats.binomtest(3, 15).pvalue)
    assert mcnemar(0, 0) == 1 and mcnemar(4, 4) == 1


@pytest.mark.parametrize("n", [5, 12, 30])
def test_verdict_p_value_and_interval_never_contradict_each_other(n):
    for b in range(n + 1):
        for c in range(n + 1 - b):
            found = paired_difference(*counts(b, c, n - b - c))
            assert found.low <= found.difference <= found.high
            assert (found.p_value < 0.05) == (found.verdict != "inconclusive") == (not found.low <= 0 <= found.high)
            assert (found.better, found.worse, found.same) == (b, c, n - b - c)
    assert paired_difference(*counts(n, 0, 0)).verdict == ("better" if n > 5 else found.verdict)


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=25),
    st.sampled_from([1.0, 10.0]),
)
@settings(max_examples=150, deadline=None)
def test_general_scores_never_contradict_themselves_either(pairs, scale):
    a, b = by_task(x * scale for x, _ in pairs), by_task(y * scale for _, y in pairs)
    found, back = paired_difference(a, b), paired_difference(b, a)
    assert (found.p_value < 0.05) == (found.verdict != "inconclusive") == (not found.low <= 0 <= found.high)
    assert found.difference == pytest.approx(-back.difference) and found.p_value == pytest.approx(back.p_value)
    assert found.low == pytest.approx(-back.high, abs=1e-9)


def test_the_t_interval_and_the_sign_flip_test_agree_with_scipy():
    rng = np.random.default_rng(0)
    values = rng.normal(3, 2, 12)
    ours = mean_interval(list(values))
    theirs = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    small = rng.normal(0.5, 1, 10)
    reference = scipy_stats.permutation_test(
        (small,), np.sum, permutation_type="samples", alternative="two-sided", n_resamples=10_000
    )
    assert sign_flip(list(small)) == pytest.approx(reference.pvalue, abs=1e-9)


def test_sampled_flips_are_reproducible_and_near_the_t_test():
    values = list(np.random.default_rng(1).normal(0.3, 1, 60))
    assert sign_flip(values) == sign_flip(values)
    assert sign_flip(values) == pytest.approx(scipy_stats.ttest_1samp(values, 0).pvalue, abs=0.01)
    many = list(np.random.default_rng(2).normal(0.04, 1, 3000))
    assert sign_flip(many) == pytest.approx(scipy_stats.ttest_1samp(many, 0).pvalue, abs=0.003)


def test_paired_t_covers_at_its_level_with_a_few_epochs_per_task():
    rng = np.random.default_rng(3)
    n, runs = 30, 1500
    hard = rng.beta(2, 2, (runs, n))
    a = rng.binomial(4, np.clip(hard + 0.1, 0, 1)) / 4
    b = rng.binomial(4, hard) / 4
    truth = float(np.mean(np.clip(rng.beta(2, 2, 2_000_000) + 0.1, 0, 1)) - 0.5)
    difference = a - b
    half = scipy_stats.t.ppf(0.975, n - 1) * difference.std(axis=1, ddof=1) / math.sqrt(n)
    assert np.mean(np.abs(difference.mean(axis=1) - truth) <= half) == pytest.approx(0.95, abs=0.02)
    ours = paired_difference(by_task(a[0]), by_task(b[0]))
    assert ours.high == pytest.approx(max(difference[0].mean() + half[0], 0.0))


def test_several_attempts_at_one_task_do_not_narrow_the_interval_like_new_tasks():
    once = {str(i): [float(i % 2)] for i in range(20)}
    copied = {task: values * 10 for task, values in once.items()}
    assert mean_interval(copied) == mean_interval(once)
    assert paired_difference(copied, once).n == 20
    noisy = mean_interval({"a": [1, 0], "b": [1, 1], "c": [0, 0], "d": []})
    assert noisy.value == pytest.approx(0.5) and noisy.n == 3


def test_degenerate_means_claim_no_certainty():
    assert math.isnan(mean_interval([]).value)
    one = mean_interval([0.5])
    assert one.low == pytest.approx(0.0125) and one.high == pytest.approx(0.9875)
    same = mean_interval([0.4] * 30)
    assert 0.3 < same.low < 0.4 < same.high < 0.5
    assert mean_interval([7.0, 7.0]).high == math.inf and mean_interval([7.0, 7.0]).to_json()["high"] is None
    assert mean_interval([1.0] * 10).low == pytest.approx(proportion_interval(10, 10).low)


def test_agents_without_a_common_task_cannot_be_told_apart():
    found = paired_difference({"a": [1.0]}, {"b": [0.0]})
    assert found.n == 0 and found.verdict == "inconclusive" and found.p_value == 1
    assert found.to_json()["difference"] is None


def test_equal_differences_are_judged_by_their_number():
    assert paired_difference(by_task([0.5] * 3), by_task([0.2] * 3)).verdict == "inconclusive"
    assert paired_difference(by_task([0.5] * 40), by_task([0.2] * 40)).verdict == "better"
    unchanged = paired_difference(by_task([0.5] * 10), by_task([0.5] * 10))
    assert unchanged.low < 0 < unchanged.high


@pytest.mark.parametrize(("n", "disagreement"), [(40, 0.3), (100, 0.2), (200, 0.4)])
def test_the_smallest_detectable_difference_is_found_four_times_in_five(n, disagreement):
    d = smallest_detectable(n, disagreement=disagreement)
    share = max(disagreement, d)
    pairs, chance = outcomes(n, (share + d) / 2, (share - d) / 2)
    found = np.array([mcnemar(b, c) for b, c in pairs])
    assert chance @ (found < 0.05) == pytest.approx(0.8, abs=0.03)


def test_the_smallest_detectable_difference_of_general_scores_is_millers():
    assert smallest_detectable(100, sd=0.5) == pytest.approx(2.8016 * 0.05, abs=1e-4)
    assert smallest_detectable(2, disagreement=0.5) == 1.0
    with pytest.raises(ConfigError, match="one of the two"):
        smallest_detectable(10)


def test_holm_gives_the_textbook_values():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]


def assert_agree(each, joint=True):
    """The verdict is that of p; the interval leaves out 0 only with a verdict, and always where it is not a joint one."""
    leaves_out_0 = not each.low <= 0 <= each.high
    assert (each.p_value < 0.05) == (each.verdict != "inconclusive") and (
        each.verdict != "inconclusive"
    ) >= leaves_out_0
    assert joint or leaves_out_0 == (each.verdict != "inconclusive")


def test_intervals_under_holm_are_at_the_bonferroni_level_of_all_comparisons():
    rng = np.random.default_rng(6)
    found = [Differences(tuple(rng.normal(0.1 * k, 0.3, 40)), False, False) for k in range(4)]
    for each, alone in zip(corrected(found), found, strict=True):
        values = np.array(alone.values)
        half = scipy_stats.t.ppf(1 - 0.05 / 4 / 2, 39) * values.std(ddof=1) / math.sqrt(40)
        ends = (values.mean() - half, values.mean() + half)
        expected = ends if each.verdict != "inconclusive" else (min(ends[0], 0), max(ends[1], 0))
        assert (each.low, each.high) == pytest.approx(expected, abs=1e-9)
    assert corrected(found[:1])[0] == paired_difference(by_task(found[0].values), by_task(np.zeros(40)))


def test_corrected_comparisons_agree_with_their_intervals():
    rng = np.random.default_rng(5)
    baseline = by_task(rng.random(40) < 0.4)
    for _ in range(20):
        others = {str(k): by_task(rng.random(40) < 0.4 + 0.1 * k) for k in range(5)}
        found = compare_to_baseline(others, baseline)
        assert list(found) == list(others)
        for each in found.values():
            assert_agree(each)
        alone = [paired_difference(values, baseline) for values in others.values()]
        assert all(c.p_value >= a.p_value for c, a in zip(found.values(), alone, strict=True))
        ordered = sorted(found.values(), key=lambda each: each.p_value)
        assert all(x.p_value <= y.p_value for x, y in pairwise(ordered))


def test_bad_numbers_are_refused_in_words():
    with pytest.raises(ConfigError, match="finite"):
        mean_interval([0.1, math.nan])
    with pytest.raises(ConfigError, match="successes"):
        proportion_interval(3, 2)
    with pytest.raises(ConfigError, match="confidence"):
        proportion_interval(1, 2, 95)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_false_discovery_rates_agree_with_scipy(p_values):
    assert benjamini_hochberg(p_values) == pytest.approx(list(scipy_stats.false_discovery_control(p_values)))


@pytest.mark.parametrize("correction", ["holm", "bh", "none"])
def test_every_two_agents_are_compared_and_agree_with_their_intervals(correction):
    rng = np.random.default_rng(8)
    for _ in range(6):
        agents = {str(k): by_task(rng.random(60) < 0.3 + 0.12 * k) for k in range(5)}
        found = all_pairs(agents, correction)
        assert len(found) == 10 and next(iter(found)) == ("0", "1")
        for (first, later), each in found.items():
            alone = paired_difference(agents[later], agents[first])
            assert_agree(each, joint=correction == "holm")
            assert each.p_value >= alone.p_value and each.difference == alone.difference
            assert each.high - each.low >= alone.high - alone.low - 1e-9 or correction == "none"


@pytest.mark.slow
def test_benjamini_and_hochberg_find_more_and_keep_the_share_of_false_ones():
    rng = np.random.default_rng(9)
    false_share, more = [], 0
    for _ in range(120):
        skills = [0.5] * 6 + [0.8] * 4
        first = by_task(rng.random(80) < 0.5)
        found = [Differences.between(by_task(rng.random(80) < skill), first) for skill in skills]
        verdicts = {
            name: [each.verdict != "inconclusive" for each in corrected(found, name)] for name in ("holm", "bh")
        }
        assert sum(verdicts["bh"]) >= sum(verdicts["holm"])
        more += sum(verdicts["bh"]) > sum(verdicts["holm"])
        false_share.append(sum(verdicts["bh"][:6]) / max(1, sum(verdicts["bh"])))
    assert np.mean(false_share) < 0.06 and more > 5


def test_the_cautious_answer_to_one_cluster_and_to_equal_ones():
    one = mean_interval({f"t{n}": [float(n % 2)] for n in range(40)}, clusters={f"t{n}": "book" for n in range(40)})
    assert one.clusters == 1 and one.high - one.low > 0.9
    passages = {f"t{n}": str(n // 10) for n in range(40)}
    perfect = mean_interval({task: [1.0] for task in passages}, clusters=passages)
    assert perfect.low < mean_interval([1.0] * 40).low and perfect.high == 1
    own = {f"t{n}": str(n) for n in range(40)}
    scores = {f"t{n}": [float(n % 3 > 0)] for n in range(40)}
    assert mean_interval(scores, clusters=own) == mean_interval(scores)
    some = mean_interval(scores, clusters={"t0": "x", "t1": "x"})
    assert some.clusters == 39 and some.low == pytest.approx(mean_interval(scores).low, abs=0.02)


def test_bad_bootstraps_are_refused_in_words():
    with pytest.raises(ConfigError, match="no tasks"):
        bootstrap_sums(np.zeros((0, 2)), lambda sums: sums[:, 0])
    with pytest.raises(ConfigError, match="3 labels for 2 tasks"):
        bootstrap_sums(np.ones((2, 1)), lambda sums: sums[:, 0], labels=["a", "b", "c"])
    with pytest.raises(ConfigError, match="not a finite number"), np.errstate(invalid="ignore"):
        bootstrap_sums(np.array([[0.0], [0.0], [1.0]]), lambda sums: sums[:, 0] / sums[:, 0])
    assert bootstrap_sums(np.ones((1, 1)), lambda sums: sums[:, 0]).high == math.inf
    same = bootstrap_sums(np.ones((20, 2)), lambda sums: sums[:, 0] / sums[:, 1])
    assert same.low == same.high == same.value == 1


def test_scores_that_rounding_puts_above_1_keep_the_interval_of_partial_credit():
    above = 1 + 4e-16
    partial = [0.9, 0.95, 0.99, 0.97, 0.92, 0.96, 0.98, 0.94, 0.93]
    assert mean_interval([*partial, above]) == mean_interval([*partial, 1.0])
    assert mean_interval([above] * 10) == mean_interval([1.0] * 10)
    assert interval_of(moments([*partial, above])).high == 1.0  # as SQLite's sums of a run of an earlier version
    assert interval_of(moments([above] * 10)).high == 1.0
    better, worse = by_task([above] * 20), by_task([0.5, 0.75] * 10)
    assert paired_difference(better, worse) == paired_difference(by_task([1.0] * 20), worse)
    assert mean_interval([*partial, 1.1]) != mean_interval([*partial, 1.0])
