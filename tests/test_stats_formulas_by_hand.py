"""Formulas of intervals, tests, power, calibration and raters, each written out once more on a small case."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from firsthand.errors import ConfigError
from firsthand.stats.confidence_formulas import brier_score, expected_calibration_error, selective_accuracy
from firsthand.stats.corpus_formulas import BINS, FORMULAS, calibrated_bins, rms_calibration_error
from firsthand.stats.effective_length import Effective, effective
from firsthand.stats.figures import calibration, figure_detail, micro_f1
from firsthand.stats.intervals import (
    Interval,
    _repeats,
    bisect,
    mean_interval,
    proportion_interval,
    standard_deviation,
    t_value,
    task_means,
    z_value,
)
from firsthand.stats.multiple_comparisons import benjamini_hochberg, corrected, holm
from firsthand.stats.paired import Differences, mcnemar, paired_difference, sign_flip, tango_interval, tango_statistic
from firsthand.stats.power_analysis import epochs_needed, paired_tasks_needed, smallest_detectable, spread, tasks_needed
from firsthand.stats.rater_agreement import (
    Judged,
    _kappas,
    _ratio,
    agreement,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
)

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
    for large in (1e308, -1e308, 1.0000001e100):
        with pytest.raises(ConfigError, match="give one within 1e\\+100"):
            paired_difference({"a": [large], "b": [0.5]}, {"a": [0.5], "b": [0.25]})
    assert paired_difference({"a": [1e100], "b": [0.5]}, {"a": [0.5], "b": [0.25]}).verdict == "inconclusive"
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
    for effect in (0, 0.0, -0.1, math.nan, math.inf):
        for plan in (
            lambda e=effect: paired_tasks_needed(e, 0.2), lambda e=effect: tasks_needed(e, 0.2),
            lambda e=effect: epochs_needed(e, 10, 0.2, (0.1, 0.1)),
        ):  # fmt: skip
            with pytest.raises(ConfigError) as refused:
                plan()
            assert str(refused.value) == f"effect is {effect}: give a difference above 0, such as 0.02"
    assert paired_tasks_needed(1.0, 1.0) == math.ceil(z_value(0.95) ** 2 + 1), "all differ: sqrt(1 - 1) is nothing"
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
    for figure in (expected_calibration_error, brier_score, selective_accuracy):
        with pytest.raises(ConfigError, match="a confidence is not from 0 to 1: give probabilities"):
            figure([0.5, math.nan], [1.0, 0.0])
        assert figure([0.0, 1.0], [0.0, 1.0]) == (figure is selective_accuracy), "both ends are probabilities"
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
    assert of("share", 3, 4) == 0.75 and of("share", 1, 1) == 1.0 and of("share", 0, 0) == 0.0
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


def test_kappa_and_ratio_of_sums_are_0_where_they_are_not_defined() -> None:
    table = np.array([[4, 1, 0], [0, 2, 1], [2, 0, 5]])
    chance = (5 * 6 + 3 * 3 + 7 * 6) / 15**2
    kappa = (11 / 15 - chance) / (1 - chance)
    one_label = np.zeros((3, 3))
    one_label[1, 1] = 6
    rows = np.array([table.ravel(), one_label.ravel(), np.zeros(9)])
    assert _kappas(rows).tolist() == pytest.approx([kappa, 0.0, 0.0])
    unlike = np.array([[4, 1, 0], [0, 2, 3], [2, 0, 5]])  # 5, 5, 7 by one and 6, 3, 8 by the other: 101 of 17 x 17
    unlike_kappa = (11 / 17 - 101 / 289) / (1 - 101 / 289)
    swapped = _kappas(np.array([unlike.ravel(), unlike.T.ravel(), 3 * unlike.ravel()])).tolist()
    assert swapped == pytest.approx([unlike_kappa] * 3), "whoever is the first, and however many they are"
    never, always = np.zeros((3, 3)), np.diag([2.0, 0.0, 2.0])
    never[0, 1] = never[1, 0] = 2
    assert _kappas(np.array([never.ravel(), always.ravel()])).tolist() == pytest.approx([-1.0, 1.0])
    assert _ratio(np.array([[1.0, 4.0], [3.0, 0.0], [0.0, 2.0]])).tolist() == [0.25, 0.0, 0.0]
    small = np.array([[0.125, 0.25], [0.25, 0.25], [1.0, 1.0], [0.75, 1.5], [0.0, 0.5], [2**-30, 2**-29], [0.0, 0.0]])
    assert _ratio(small).tolist() == [0.5, 1.0, 1.0, 0.5, 0.0, 0.5, 0.0], "a denominator may be below 1"


def test_shares_of_few_decided_votes_are_of_those_votes() -> None:
    ties = ("tie",) * 3
    found = agreement([Judged("1", ("A", *ties), "A", longer="A"), Judged("2", ("B", *ties), "A", longer="A")])
    assert found.decided is not None and found.longer_humans is not None and found.longer_judge is not None
    assert (found.decided.value, found.longer_humans.value, found.longer_judge.value) == (0.5, 0.5, 1.0)
    assert found.length_bias is not None and found.length_bias.value == 0.5
    assert (found.items, found.votes, found.with_humans.value) == (2, 8, 0.125)
    one = agreement([Judged("1", ("A", *ties), "A"), Judged("2", ties, "tie")])
    assert one.decided is not None and one.decided.value == 1.0
    assert (one.longer_judge, one.longer_humans, one.length_bias) == (None, None, None)


def test_intervals_of_discoveries_are_as_wide_as_their_number_after_correction_asks() -> None:
    strong, close, weak = (
        Differences(tuple(mean + step * (n - 6) for n in range(12)), False, True)
        for mean, step in ((0.5, 0.01), (0.3, 0.1), (0.0, 0.1))
    )
    assert 0.05 / 1.5 < close.p_value < 0.05, "found alone, and not among three"
    found = corrected([strong, close, weak], "bh")
    assert [each.verdict for each in found] == ["better", "inconclusive", "inconclusive"]
    assert (found[0].low, found[0].high) == pytest.approx(strong.bounds(1 - 0.05 / 3))


def test_selective_accuracy_takes_the_whole_share_where_the_product_is_rounded_down():
    for share, count in ((0.29, 29), (0.57, 57), (0.58, 58), (0.295, 29), (1.0, 100)):
        assert (
            selective_accuracy(np.linspace(1, 0, 100), [1] * (count - 1) + [0] * (101 - count), share)
            == (count - 1) / count
        )


def test_calibration_refuses_no_bins_and_outcomes_that_are_no_numbers():
    with pytest.raises(ConfigError, match="bins is 0: give 1 or more"):
        expected_calibration_error([0.5], [1], 0)
    for formula in (brier_score, selective_accuracy, expected_calibration_error):
        for outcome in (math.nan, math.inf):
            with pytest.raises(ConfigError, match="an outcome is not a finite number"):
                formula([0.5, 0.5], [1, outcome])
