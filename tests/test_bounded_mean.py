"""The score test of a bounded mean, beside a direct maximisation of the likelihood, Tango's test and exact chances."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from interval_coverage import (
    clustered_gate,
    figure_coverage,
    figure_gate,
    gate_rates,
    micro_f1_figure,
    tango_gate,
    true_f1,
)
from scipy import optimize
from scipy import stats as scipy_stats

from firsthand.benchmark import Figure
from firsthand.stats.bounded_mean import lowest_mean, score_p_value
from firsthand.stats.figure_stats import FigureDifference, figure_interval, influences
from firsthand.stats.figures import slow_figure
from firsthand.stats.intervals import equal_bounds
from firsthand.stats.non_inferiority import Check, rule
from firsthand.stats.paired import Differences, tango_statistic


def by_maximisation(values, bar, lowest):
    """The p-value from weights found by a general optimiser, without multipliers; the unseen value is one more point."""
    values = np.asarray(values)
    points = np.append(values, lowest) - bar

    def loss(weights):
        return -np.sum(np.log(np.maximum(weights[:-1], 1e-12)))

    found = optimize.minimize(
        loss,
        np.full(len(points), 1 / len(points)),
        jac=lambda weights: np.append(-1 / np.maximum(weights[:-1], 1e-12), 0.0),
        bounds=[(0, 1)] * len(points),
        constraints=[
            {"type": "eq", "fun": lambda weights: weights.sum() - 1, "jac": lambda weights: np.ones(len(points))},
            {"type": "eq", "fun": lambda weights: weights @ points, "jac": lambda weights: points},
        ],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 2000},
    )
    statistic = (values.mean() - bar) * math.sqrt(len(values)) / math.sqrt(found.x @ points**2)
    return float(scipy_stats.t.sf(statistic, len(values) - 1))


@pytest.mark.parametrize("bar", [-0.3, -0.15, -0.07])
def test_the_p_value_is_that_of_the_most_likely_distribution_with_the_mean_at_the_bar(bar):
    seen = [-1.0, -0.5, *np.linspace(-0.1, 0.2, 14)]  # the loss of 1 was seen, so the floor is 0
    assert score_p_value(seen, bar, -1.0) == pytest.approx(by_maximisation(seen, bar, -1.0), rel=1e-4)


def test_losses_that_nobody_saw_get_the_weight_that_makes_them_most_likely():
    small = list(np.linspace(-0.02, 0.03, 12))
    expected = by_maximisation(small, -0.2, -1.0)
    unseen = math.exp(
        sum(math.log((1 + min(-0.2, scipy_stats.hmean([1 + x for x in small]) - 1)) / (1 + x)) for x in small)
    )
    assert score_p_value(small, -0.2, -1.0) == pytest.approx(max(expected, unseen), rel=1e-4)
    assert unseen > expected > 0.01  # the chance that twelve tasks miss the loss decides


def test_differences_of_0_1_scores_give_tangos_statistic():
    better, worse, n = 4, 3, 60
    values = [1.0] * better + [-1.0] * worse + [0.0] * (n - better - worse)
    for bar in (-0.2, -0.05, 0.01):
        expected = scipy_stats.t.sf(tango_statistic(better, worse, n, bar), n - 1)
        assert score_p_value(values, bar, -1.0) == pytest.approx(expected, rel=1e-9)


def test_equal_values_have_the_exact_chance_of_missing_every_loss():
    assert score_p_value([0.0] * 20, -0.05, -1.0) == pytest.approx(0.95**20, rel=1e-9)
    assert score_p_value([0.5] * 20, 0.47, 0.0) == pytest.approx(0.94**20, rel=1e-9)


def test_a_bar_at_or_above_the_mean_or_below_the_lowest_value_needs_no_test():
    assert score_p_value([0.1, 0.3], 0.2, -1.0) == 1.0 and score_p_value([0.4], 0.0, -1.0) == 1.0
    assert score_p_value([0.1, 0.3], -1.5, -1.0) == 0.0
    assert score_p_value([0.1, 0.3], 0.1, -1.0, labels=["one", "one"]) == 1.0


def test_a_mean_that_is_the_bar_up_to_rounding_is_not_above_it():
    base, candidate = [100, 94, 0, 45, 57], [51, 80, 82, 39, 69]  # hundredths
    rng, sides = np.random.default_rng(4), [(base, candidate)]
    for _ in range(300):  # partial credit in tenths whose drop is 5 % in whole numbers
        first = rng.integers(3, 9, 20)
        sides.append(((10 * first).tolist(), (10 * (first - rng.permutation([1] * 10 + [0] * 10))).tolist()))
    for before, after in sides:
        for clusters in (None, {f"t{place}": str(place % 4) for place in range(len(before))}):
            a, b = ({f"t{place}": [each / 100] for place, each in enumerate(side)} for side in (before, after))
            drop = sum(before) / 100 / len(before) - sum(after) / 100 / len(after)
            for found in (Differences.between(b, a, clusters), Differences.between(a, b, clusters)):
                for bar in (found.mean, math.nextafter(found.mean, -1), math.copysign(round(drop, 4), found.mean)):
                    assert found.surely_above(bar) >= 0.5 - 1e-6 and found.reversed.surely_above(-bar) >= 0.5 - 1e-6
                alone = score_p_value(found.values, math.nextafter(found.mean, -1), -1.0, labels=found.labels)
                assert alone >= 0.5 - 1e-6
            made = Check("a", "b", "s", round(drop, 4), Differences.between(b, a, clusters), 0.95, "pass", "")
            assert rule([made])[0].ruling == "inconclusive"


def test_the_p_value_falls_with_the_bar_and_the_bound_is_where_it_touches_the_level():
    values = list(np.random.default_rng(1).beta(6, 1, 30) - np.random.default_rng(2).beta(6, 1, 30))
    mean = float(np.mean(values))
    found = [score_p_value(values, bar, -1.0) for bar in np.linspace(-0.9, mean - 1e-6, 60)]
    assert all(a <= b + 1e-12 for a, b in pairwise(found))
    low = lowest_mean(lambda bar: score_p_value(values, bar, -1.0), mean - 1e-9, -1.0, 0.05)
    assert score_p_value(values, low, -1.0) == pytest.approx(0.05, abs=1e-6)
    assert lowest_mean(lambda bar: 0.01, 0.3, 0.0, 0.05) == 0.3  # rejected everywhere: the bound stays
    assert lowest_mean(lambda bar: 0.9, 0.3, 0.0, 0.05) == 0.0


def test_a_start_that_is_rejected_exactly_at_the_level_stands() -> None:
    asked: list[float] = []

    def constant(p: float):
        def p_above(bar: float) -> float:
            asked.append(bar)
            return p

        return p_above

    for p, found in ((0.05, 0.3), (0.05 + 5e-13, 0.3), (0.05 + 5e-12, -1.0), (0.049, 0.3), (0.0, 0.3), (1.0, -1.0)):
        assert lowest_mean(constant(p), 0.3, -1.0, 0.05) == found, p
    asked.clear()
    assert lowest_mean(constant(0.05), 0.3, -1.0, 0.05) == 0.3 and asked == [0.3]
    # p rises with the bar: rejected exactly at the lowest one alone, nowhere, and up to 0.1
    assert lowest_mean(lambda bar: 0.05 + (bar + 1.0), 0.3, -1.0, 0.05) == -1.0
    assert lowest_mean(lambda bar: 0.06 + (bar + 1.0), 0.3, -1.0, 0.05) == -1.0
    assert lowest_mean(lambda bar: 0.05 + (bar - 0.1) / 4, 0.3, -0.1, 0.05) == pytest.approx(0.1, abs=1e-11)


def test_clusters_count_for_as_many_tasks_as_have_their_error_and_may_lose_half():
    labels = [str(i // 5) for i in range(100)]
    alone = list(np.tile([-0.4, -0.2, 0.0, 0.2, 0.5], 20))
    together = list(np.repeat(alone[:5], 5)) * 4
    assert score_p_value(together, -0.15, -1.0) < 0.001
    assert score_p_value(together, -0.15, -1.0, labels=labels) > score_p_value(alone, -0.15, -1.0, labels=labels)
    quiet = [0.001 * (i % 5) for i in range(100)]  # 20 clusters without a loss
    unseen = scipy_stats.t.sf((0.002 + 0.07) * math.sqrt(20 / (0.07 * 0.43)), 19)
    assert score_p_value(quiet, -0.07, -1.0, labels=labels) == pytest.approx(unseen, rel=0.1)


def test_the_statistic_of_clustered_tasks_is_divided_by_the_factor_of_their_error():
    rng, labels = np.random.default_rng(0), [str(i // 4) for i in range(120)]
    values = (np.repeat(rng.exponential(0.1, 30) - 0.05, 4) + rng.normal(0, 0.02, 120)).round(3)
    bar, sums = float(values.mean() - 0.03), values.reshape(30, 4).sum(axis=1)
    weights = (1 + bar) / (120 * (1 + values))  # the multiplier is at its bound, so an unseen loss of 1 has a share
    variance = weights @ (values - bar) ** 2 + (1 - weights.sum()) * (1 + bar) ** 2
    error = math.sqrt(30 / 29 * np.sum((sums - 4 * values.mean()) ** 2)) / 120
    effect = error / (values.std(ddof=1) / math.sqrt(120))
    expected = scipy_stats.t.sf(0.03 * math.sqrt(120 / variance) / effect, 29)
    assert effect > 1.5 and weights.sum() < 1
    assert score_p_value(list(values), bar, -1.0, labels=labels) == pytest.approx(expected, rel=1e-6)


def ruled(values: list[float], max_drop: float) -> Check:
    check = Check("ada", "notes", "part", max_drop, Differences(tuple(values), False, True), 0.95, "inconclusive", "")
    return rule([check])[0]


def test_the_ruling_waits_for_enough_tasks_to_have_shown_a_loss_or_a_gain():
    alike = [0.01 * (n % 3 - 1) for n in range(30)]
    assert ruled(alike, 0.05).ruling == "inconclusive" and ruled(alike * 3, 0.05).ruling == "pass"
    worse = [each - 0.05 for each in alike]
    assert ruled(worse, 0.01).ruling == "inconclusive" and ruled(worse * 10, 0.01).ruling == "fail"
    for each in (ruled(alike, 0.05), ruled(worse, 0.01)):
        assert each.differences.p_above(-0.06) < 0.05 and each.bounds.low < -0.06  # Student's t is surer
    assert ruled(alike, 0.05).bounds == pytest.approx(Differences(tuple(alike), False, True).sure_bounds(0.9))


def test_a_comparison_keeps_its_numbers_and_only_the_gate_is_wider():
    values = tuple(np.random.default_rng(3).normal(0, 0.02, 20))
    found = Differences(values, False, True)
    half = scipy_stats.t.ppf(0.95, 19) * np.std(values, ddof=1) / math.sqrt(20)
    assert found.bounds(0.9) == pytest.approx((np.mean(values) - half, np.mean(values) + half))
    low, high = found.sure_bounds(0.9)
    assert low < found.bounds(0.9).low - 0.05 and high > found.bounds(0.9).high + 0.05
    assert found.surely_above(low) == pytest.approx(0.05, abs=1e-6)
    assert found.reversed.sure_bounds(0.9) == pytest.approx((-high, -low), abs=1e-9)
    same = Differences(values, False, False)
    assert same.sure_bounds(0.9) == same.bounds(0.9) and same.surely_above(-0.3) == same.p_above(-0.3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["partial credit", "quarters", "epochs"])
def test_a_gate_passes_a_candidate_at_the_bar_at_most_one_time_in_twenty(name):
    found = [gate_rates(name, n, 250) for n in (20, 100)]
    for passed, by_t, failed in found:
        assert max(passed, failed) <= 250 * 0.05 + 3 * math.sqrt(250 * 0.05 * 0.95)
        assert passed <= by_t
    assert max(by_t for _, by_t, _ in found) > 18  # of 250: Student's t errs more often than it says


@pytest.mark.slow
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("by_cluster", [True, False])
def test_a_gate_over_clusters_passes_a_candidate_at_the_bar_at_most_one_time_in_twenty(binary, by_cluster):
    for sizes in ((10,) * 10, (5,) * 40, (3,) * 100):
        assert clustered_gate(sizes, binary, by_cluster, 200)[0] <= 200 * 0.05 + 3 * math.sqrt(200 * 0.05 * 0.95)


def test_influences_are_the_derivative_of_a_figure():
    parts = np.array([[3.0, 1, 0], [2, 0, 2], [5, 1, 1], [0, 2, 1]])
    right, wrong, missed = parts.sum(axis=0)
    whole = 2 * right + wrong + missed
    slopes = np.array([2 / whole - 4 * right / whole**2, -2 * right / whole**2, -2 * right / whole**2])
    expected = 2 * right / whole + 4 * (parts - parts.mean(axis=0)) @ slopes
    assert influences(micro_f1_figure(parts)) == pytest.approx(expected, abs=2e-4)
    assert influences(micro_f1_figure(parts)).mean() == pytest.approx(2 * right / whole, abs=1e-12)
    scores = np.array([0.2, 0.9, 0.4])
    mean = Figure("mean", ("a", "b", "c"), lambda counts: counts @ scores / counts.sum(axis=1))
    assert influences(mean) == pytest.approx(scores, abs=1e-4)
    assert influences(mean, ["c", "a"]) == pytest.approx([0.4, 0.2], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 10, 20])
@pytest.mark.parametrize(("lost", "noise"), [(0.0275, 0.0), (0.0, 0.0286)])
def test_micro_f1_near_1_is_covered(n, lost, noise):
    assert true_f1(lost, noise) == pytest.approx(0.986, abs=5e-4)
    held, by_bca = figure_coverage(n, lost, noise, 40, beside=n == 5)
    assert held >= 38 and by_bca <= 33  # by BCa alone .18 and .72 at n = 5


@pytest.mark.parametrize("n", [10, 20, 50, 100])
def test_a_gate_on_micro_f1_does_not_pass_the_loss_of_one_document_in_twenty(n):
    passed, by_bootstrap = figure_gate(n, 0.02, 60, draws=300)
    assert passed <= 60 * 0.05 + 3 * math.sqrt(60 * 0.05 * 0.95)
    assert n > 20 or by_bootstrap > 10  # of 60, where nothing lost is seen


def test_a_gate_over_many_or_slow_documents_still_knows_the_chance_of_missing_every_loss():
    tasks = tuple(str(number) for number in range(30))
    good, same = ([0.9 + 0.001 * (number % 7) for number in range(30)], [0.9] * 30)
    sides = [
        slow_figure("f", tasks, lambda at, each=each: float(np.mean([each[i] for i in at]))) for each in (good, same)
    ]
    found = FigureDifference.between(*sides)
    assert found.p_above(-0.02) < 0.01 and not found.values
    assert found.surely_above(-0.02) == pytest.approx((0.98 / (1 + found.mean)) ** 30)
    assert found.surely_above(0.5) == 1.0
    low, high = found.sure_bounds(0.9)
    assert found.surely_above(low) == pytest.approx(0.05, abs=1e-6) and high > 0.05
    interval = figure_interval(sides[0])
    assert interval.low == pytest.approx(equal_bounds(interval.value, 30, True, 0.95).low)


def test_a_figure_near_0_reaches_as_far_up_as_its_complement_near_1_down():
    right = micro_f1_figure(np.array([[9.0, 0, 0]] * 8 + [[9, 1, 0], [8, 0, 1]]))
    wrong = Figure("missed", right.tasks, lambda counts: 1 - right.of(counts))
    near_1, near_0 = figure_interval(right), figure_interval(wrong)
    assert near_0.high == pytest.approx(1 - near_1.low, abs=1e-6) and near_1.low < 0.8 < 1 - near_0.value
    level = score_p_value(influences(right).tolist(), near_1.low, 0.0)
    assert level == pytest.approx(0.025, abs=1e-6)


def test_a_figure_beyond_0_to_1_keeps_its_bootstrap():
    logs = np.random.default_rng(4).normal(2, 0.1, 40)
    figure = Figure("perplexity", tuple(map(str, range(40))), lambda counts: np.exp(counts @ logs / counts.sum(axis=1)))
    from firsthand.stats.bootstrap import bootstrap

    plain, found = bootstrap(figure.of, 40), figure_interval(figure)
    assert (found.low, found.high) == (plain.low, plain.high)
    difference = FigureDifference.between(figure, figure, draws=100)
    assert difference.surely_above(-0.1) == difference.p_above(-0.1)


@pytest.mark.parametrize(
    ("n", "bar", "won"),
    [(8, -0.08, 0.45), (52, -0.05, 0.0), (20, -0.1, 0.45), (100, 0.03, 0.03), (40, 0.05, 0.07), (59, -0.03, 0.0)],
)
def test_a_gate_errs_at_its_bar_in_one_of_twenty_even_where_nothing_is_won(n: int, bar: float, won: float) -> None:
    ours, alone = tango_gate(n, bar, won), tango_gate(n, bar, won, corrected=False)
    assert ours <= 0.05 and ours <= alone
    assert alone > 0.05 or (n, bar) == (59, -0.03)  # Tango's own test errs more often


def test_the_gate_of_0_1_scores_corrects_tango_by_half_a_task_and_its_bounds_agree() -> None:
    found = Differences((1.0,) * 3 + (-1.0,) * 4 + (0.0,) * 53, True, True)
    expected = scipy_stats.t.sf(corrected_by_hand(3, 4, 60, -0.1), 59)
    assert found.surely_above(-0.1) == pytest.approx(expected, abs=1e-7)
    assert found.surely_above(-0.1) > found.p_above(-0.1)
    low, high = found.sure_bounds(0.9)
    assert low < found.bounds(0.9).low and high > found.bounds(0.9).high
    assert found.surely_above(low) == pytest.approx(0.05, abs=1e-6)
    assert found.reversed.sure_bounds(0.9) == pytest.approx((-high, -low), abs=1e-9)
    alone = Differences((0.0,), True, True)
    assert alone.surely_above(-0.5) == 1.0 and alone.sure_bounds(0.9).low == -1.0


def corrected_by_hand(better: int, worse: int, n: int, d: float) -> float:
    """(wins - losses - 1/2 - n d) over Tango's standard error, its estimate by maximising the likelihood."""
    from scipy.optimize import minimize_scalar

    def unlikely(lost: float) -> float:
        return -(
            better * math.log(lost + d) + worse * math.log(lost) + (n - better - worse) * math.log(1 - 2 * lost - d)
        )

    lost = minimize_scalar(unlikely, bounds=(max(0.0, -d) + 1e-9, (1 - d) / 2 - 1e-9), method="bounded",
                           options={"xatol": 1e-13}).x  # fmt: skip
    return (better - worse - 0.5 - n * d) / math.sqrt(n * (2 * lost + d - d * d))
