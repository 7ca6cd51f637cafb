"""Differences of scores, corrections, plans, rulings and agreement: each number from its formula, each sentence whole."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from firsthand.benchmark import Figure
from firsthand.errors import ConfigError
from firsthand.runs.flaky import Flaky
from firsthand.runs.task_groups import TaskGroups
from firsthand.stats.bootstrap import bootstrap_sums
from firsthand.stats.bounded_mean import lowest_mean, score_p_value
from firsthand.stats.comparison_design import Design, _from_one, _from_pair, _grouped, from_one, from_pair
from firsthand.stats.figure_stats import FigureDifference
from firsthand.stats.intervals import Bounds, Interval, mean_interval, t_value, unseen_share, z_value
from firsthand.stats.multiple_comparisons import all_pairs, compare_to_baseline, corrected, difference
from firsthand.stats.non_inferiority import Check, Gaps, _ruled, _unsure, rule
from firsthand.stats.paired import (
    Differences,
    PairedDifference,
    _detectable,
    judged,
    mcnemar,
    paired_difference,
    settled,
    sign_flip,
    tango_interval,
    tango_statistic,
)
from firsthand.stats.power_analysis import (
    _standard_errors,
    check_effect,
    epochs_needed,
    margin_tasks_needed,
    paired_spread,
    smallest_detectable,
    spread,
)
from firsthand.stats.rater_agreement import (
    Judged,
    _confusions,
    _kappas,
    _ratio,
    agreement,
    fleiss_kappa,
    krippendorff_alpha,
)
from firsthand.stats.strata import strata_units, stratified_error, stratified_freedom
from same_values import same

A = {"t1": [1.0], "t2": [0.0], "t3": [1.0], "t4": [1.0], "t5": [1.0], "t6": []}
B = {"t1": [1.0], "t2": [1.0], "t3": [0.0], "t4": [0.0], "t5": [0.0], "t7": [1.0]}


# -- differences --


def test_differences_of_0_and_1_are_tangos_and_mcnemars() -> None:
    found = Differences.between(A, B)
    assert found == Differences((0.0, -1.0, 1.0, 1.0, 1.0), True, True)
    assert (found.n, found.mean, found.counts, found.num_units, found.freedom) == (5, 0.4, (3, 1), 5, 4)
    assert found.method == "Tango" and found.bounds(0.9) == tango_interval(3, 1, 5, 0.9)
    p_above = float(stats.norm.sf(tango_statistic(3, 1, 5, -0.25)))
    assert found.p_above(-0.25) == pytest.approx(p_above) and found.p_below(0.25) == found.reversed.p_above(-0.25)
    own = 2 * float(stats.norm.sf(tango_statistic(3, 1, 5, 0.0)))
    assert mcnemar(3, 1) == 0.625 and found.p_value == max(0.625, own)
    yates = float(stats.t.sf(tango_statistic(3, 1, 5, -0.25, 0.5), 4))
    assert found._corrected_tango(-0.25) == pytest.approx(yates) and found.surely_above(-0.25) == max(p_above, yates)
    low = lowest_mean(found.surely_above, found.bounds(0.8).low, -1.0, 0.1)
    high = -lowest_mean(found.reversed.surely_above, -found.bounds(0.8).high, -1.0, 0.1)
    assert found.sure_bounds(0.8) == (low, high) and low < found.bounds(0.8).low
    result = paired_difference(A, B, 0.9)
    detectable = smallest_detectable(5, disagreement=5 / 7, confidence=0.9)
    assert result == PairedDifference(
        0.4, min(0.0, found.bounds(0.9).low), found.bounds(0.9).high, found.p_value, 5, 3, 1, 1, "inconclusive",
        detectable, "Tango",
    )  # fmt: skip
    assert found.error == pytest.approx(float(np.std([0, -1, 1, 1, 1], ddof=1)) / math.sqrt(5))


def test_differences_of_other_scores_are_students_by_cluster_and_stratum() -> None:
    values = (0.5, -0.25, 0.75, 0.25, 0.5, 0.0)
    found = Differences(values, False, True)
    error = float(np.std(values, ddof=1)) / math.sqrt(6)
    assert (found.method, found.error, found.freedom) == ("paired t", pytest.approx(error), 5)
    half = t_value(5, 0.9) * error
    assert found.bounds(0.9) == pytest.approx((found.mean - half, found.mean + half))
    assert Differences((0.9, -0.9, 0.9), False, True).bounds(0.99) == (-1.0, 1.0)
    assert Differences((0.9, -0.9, 0.9), False, False).bounds(0.99).high > 1
    assert found.p_above(0.1) == pytest.approx(float(stats.t.sf((found.mean - 0.1) / error, 5)))
    assert found.surely_above(-0.5) == max(found.p_above(-0.5), score_p_value(values, -0.5, -1.0))
    assert replace(found, unit=False).surely_above(-0.5) == found.p_above(-0.5)
    assert replace(found, unit=False).sure_bounds(0.9) == found.bounds(0.9)
    assert found.p_value == max(sign_flip(values), 2 * found.p_above(0.0))
    clustered = replace(found, labels=tuple("aabbbc"))
    assert (clustered.method, clustered.num_units, clustered.sums) == ("clustered t", 3, [0.25, 1.5, 0.0])
    assert clustered.p_value == max(sign_flip([0.25, 1.5, 0.0]), 2 * clustered.p_above(0.0))
    for bar in (-0.5, 0.0):
        sure = score_p_value(values, bar, -1.0, labels=tuple("aabbbc"))
        assert clustered.surely_above(bar) == max(clustered.p_above(bar), sure) == sure != found.surely_above(bar)
    low = lowest_mean(clustered.surely_above, clustered.bounds(0.9).low, -1.0, 0.05)
    assert clustered.sure_bounds(0.9).low == pytest.approx(low)
    assert found.sums == list(values)
    layered = replace(found, strata=tuple("xxxyyy"))
    units = strata_units(values, list("xxxyyy"))
    assert layered.units == units and layered.method == "stratified t"
    assert (layered.error, layered.freedom) == (stratified_error(units), stratified_freedom(units))
    assert layered.p_value == 2 * layered.p_above(0.0), "neither exact test knows strata"
    gain = error / layered.error
    assert layered.surely_above(-0.5) == pytest.approx(
        max(layered.p_above(-0.5), score_p_value(values, -0.5, -1.0, gain=gain))
    )
    both = replace(layered, labels=tuple("aabccd"))
    assert both.method == "stratified clustered t" and both.units == strata_units(
        values, list("xxxyyy"), list("aabccd")
    )
    sure = score_p_value(values, -0.5, -1.0, labels=tuple("aabccd"), gain=both._unstratified / both.error)
    assert both.surely_above(-0.5) == pytest.approx(sure) and sure > both.p_above(-0.5)
    binary = Differences((1.0, 0.0, 1.0, 0.0, -1.0, 0.0), True, True, strata=tuple("xxxyyy"))
    scale = (binary._unstratified / binary.error) ** 2 * (z_value(0.95) / t_value(binary.freedom, 0.95)) ** 2
    assert binary.method == "stratified Tango" and binary._tango == pytest.approx((2 * scale, scale, 6 * scale))
    corrected_ = tango_statistic(2 * scale, scale, 6 * scale, -0.5, correction=scale / 2)
    assert binary._corrected_tango(-0.5) == pytest.approx(float(stats.t.sf(corrected_, binary.freedom)))
    pure = replace(found, values=(0.5, 0.5, 0.5, 0.0, 0.0, 0.0), strata=tuple("xxxyyy"))
    assert pure.units == () and pure.method == "paired t", "each stratum agrees in itself"
    assert replace(binary, labels=tuple("aabccd")).method == "stratified clustered t"


def test_equal_differences_and_none() -> None:
    equal = Differences((0.5, 0.5, 0.5), False, True, labels=("a", "a", "b"))
    unseen = unseen_share(2, 0.9)
    assert (equal.method, equal.error) == ("clustered, equal differences", 0.0)
    assert equal.bounds(0.9) == pytest.approx((0.5 * (1 - unseen) - unseen, 0.5 * (1 - unseen) + unseen))
    assert equal.p_above(0.25) == pytest.approx((1.25 / 1.5) ** 2) == equal.surely_above(0.25)
    assert (equal.p_above(0.5), equal.p_above(-1.5)) == (1.0, 0.0) and equal.sure_bounds(0.9) == equal.bounds(0.9)
    assert replace(equal, labels=None).method == "equal differences"
    wide = replace(equal, unit=False)
    assert wide.bounds() == (-math.inf, math.inf) and wide.p_above(0.25) == 1.0
    none = Differences((), True, True)
    assert none.p_above(0.0) == 1.0 and none.surely_above(0.0) == 1.0
    lost = judged(none)
    assert (lost.n, lost.p_value, lost.verdict) == (0, 1.0, "inconclusive") and math.isnan(lost.difference)
    assert _detectable(equal, 0.9) != _detectable(equal, 0.9), "nothing is known where all are equal"
    flips = Differences((1.0,) * 7 + (-1.0,) * 5 + (0.0,) * 48, True, True)
    assert _detectable(flips, 0.9) == smallest_detectable(60, disagreement=13 / 62, confidence=0.9) < 1
    six = Differences((0.5, -0.25, 0.75, 0.25, 0.5, 0.0), False, True)
    assert _detectable(six, 0.9) == smallest_detectable(6, sd=six.error * math.sqrt(6), confidence=0.9)


def test_a_verdict_follows_from_the_sign_and_what_is_better() -> None:
    found = PairedDifference(0.25, 0.125, 0.5, 0.01, 8, 5, 1, 2, "inconclusive", 0.5)
    assert settled(found, True) == replace(found, verdict="better")
    assert settled(replace(found, lower_is_better=True), True).verdict == "worse"
    assert settled(replace(found, difference=-0.25), True).verdict == "worse"
    assert settled(replace(found, difference=-0.25, lower_is_better=True), True).verdict == "better"
    assert settled(found, False) == replace(found, low=0.0)
    below = replace(found, difference=-0.25, low=-0.5, high=-0.125, verdict="worse")
    assert settled(below, False) == replace(below, high=0.0, verdict="inconclusive")
    figure = FigureDifference(-0.25, tuple(np.linspace(-0.5, -0.125, 400)), 8, (5, 1), labels=tuple("abcdefgh"),
                              lower_is_better=True, unit=True)  # fmt: skip
    made = judged(figure, 0.9)
    assert (made.verdict, made.lower_is_better, made.clusters, made.method) == ("better", True, 8, "paired bootstrap")
    assert (made.better, made.worse, made.same, made.p_value) == (5, 1, 2, figure.p_value)
    assert (made.low, made.high) == figure.bounds(0.9)


# -- corrections --


def test_comparisons_are_the_later_against_the_earlier_and_each_against_the_baseline() -> None:
    agents: Any = {"one": A, "two": B, "three": {task: [0.0] for task in A}}
    found = all_pairs(agents, "bh", 0.9)
    assert list(found) == [("one", "two"), ("one", "three"), ("two", "three")]
    raw = [Differences.between(*pair) for pair in ((B, A), (agents["three"], A), (agents["three"], B))]
    assert list(found.values()) == corrected(raw, "bh", 0.9) != corrected(raw, "holm", 0.9)
    assert list(all_pairs(agents).values()) == corrected(raw, "holm", 0.95)
    based = compare_to_baseline({"two": B, "three": agents["three"]}, A, 0.9)
    assert list(based) == ["two", "three"] and list(based.values()) == corrected(raw[:2], "holm", 0.9)
    groups = TaskGroups({"t1": "g", "t2": "g"}, {})
    assert compare_to_baseline({"two": B}, A, 0.9, groups)["two"] == corrected([Differences.between(B, A, groups)],
                                                                               "holm", 0.9)[0]  # fmt: skip
    assert all_pairs({"one": A, "two": B}, clusters=groups)["one", "two"].clusters == 4
    assert difference(A, B, groups) == Differences.between(A, B, groups)
    figure = Figure("f", ("a", "b", "c"), lambda counts: counts @ np.array([0.5, 0.25, 1.0]) / counts.sum(axis=1))
    other = replace(figure, of=lambda counts: counts @ np.array([0.0, 0.75, 0.5]) / counts.sum(axis=1))
    made: Any = difference(figure, other, TaskGroups({"a": "g", "b": "g"}, {}))
    assert made.mean == pytest.approx((0.5 - 0.5 + 0.5) / 3) and made.num_units == 2
    assert corrected([]) == []


def test_intervals_are_as_wide_as_their_correction_asks() -> None:
    strong = Differences(tuple(0.5 + 0.01 * n for n in range(12)), False, True)
    medium = Differences(tuple(0.3 + 0.09 * (n - 6) for n in range(12)), False, True)
    weak = Differences(tuple(0.1 * (n - 6) for n in range(12)), False, True)
    found = [strong, medium, weak]
    ps = [each.p_value for each in found]
    assert ps[0] < ps[1] < 0.05 < ps[2]
    holm, bh, none = (corrected(found, each) for each in ("holm", "bh", "none"))  # type: ignore[arg-type]
    assert [each.p_value for each in holm] == pytest.approx([3 * ps[0], 2 * ps[1], ps[2]])
    assert [each.p_value for each in bh] == pytest.approx([3 * ps[0], 1.5 * ps[1], ps[2]])
    assert [each.p_value for each in none] == ps
    for made, level in ((holm, 1 - 0.05 / 3), (bh, 1 - 0.05 * 2 / 3), (none, 0.95)):
        assert (made[0].low, made[0].high) == pytest.approx(strong.bounds(level))
        assert [each.verdict for each in made] == ["better", "better", "inconclusive"]


# -- power --


def test_variances_are_split_and_planned_with() -> None:
    z = z_value(0.9) + z_value(0.5)
    assert _standard_errors(0.9, 0.75) == pytest.approx(z)
    for power in (0.5, 1.0):
        with pytest.raises(ConfigError, match=f"power is {power}: give a number between 0.5 and 1, such as 0.8"):
            _standard_errors(0.9, power)
    for effect in (0.0, -0.5, math.inf, math.nan):
        with pytest.raises(ConfigError) as refused:
            check_effect(effect)
        assert str(refused.value) == f"effect is {effect}: give a difference above 0, such as 0.02"
    check_effect(1e-9)
    levels = {"confidence": 0.9, "power": 0.75}
    allowed = 40 * 0.2**2 / z**2 - 0.05
    assert epochs_needed(0.2, 40, 0.05, (0.3, 0.5), **levels) == math.ceil(0.8 / allowed)
    assert epochs_needed(0.2, 40, 40 * 0.2**2 / z**2, (0.3, 0.5), **levels) is None
    assert epochs_needed(0.2, 40, 0.05, (0.0, 0.0), **levels) == 1
    with pytest.raises(ConfigError):
        epochs_needed(0.0, 40, 0.05, (0.3, 0.5))
    needed = (z_value(0.8) + z_value(0.5)) ** 2 * 0.3 / 0.1**2
    assert margin_tasks_needed(0.1, 0.3, confidence=0.9, power=0.75) == math.ceil(needed)
    a = {"a": [1.0, 0.0], "b": [1.0, 1.0, 0.0], "c": [0.5]}
    b = {"c": [1.0], "b": [0.0, 1.0], "a": [0.0, 0.25], "d": [1.0]}
    first, second = spread(a), spread({task: b[task] for task in "abc"})
    noise = first.within * (1 / 2 + 1 / 3 + 1) / 3 + second.within * (1 / 2 + 1 / 2 + 1) / 3
    between = float(np.var([0.5 - 0.125, 2 / 3 - 0.5, 0.5 - 1.0], ddof=1)) - noise
    found = paired_spread(a, b)
    assert found.between == pytest.approx(max(0.0, between)) and found.within == pytest.approx(
        first.within + second.within
    )
    assert (found.tasks, found.attempts) == (3, 6 + 5)


def test_a_plan_from_one_agent_or_two_has_the_variance_of_their_difference() -> None:
    ones = {f"t{n}": [value] for n, value in enumerate((1.0, 0.0, 0.0, 1.0, 1.0))}
    design = _from_one(ones, 0.25, 0.9, 0.7)
    assert design == Design(
        pytest.approx(1.5 * 0.3), None, pytest.approx(0.45),
        "one agent on 5 tasks, and a correlation of 0.25 assumed for single attempts", 0.9, 0.7,
    )  # fmt: skip
    opposed = _from_one(ones, -1.0, 0.9, 0.7)
    assert (opposed.between, opposed.disagreement) == (pytest.approx(1.2), 1.0), "no more than all tasks"
    shares = {task: [value[0] / 2] for task, value in ones.items()}
    assert _from_one(shares, 0.25, 0.9, 0.7) == replace(design, between=pytest.approx(1.5 * 0.075), disagreement=None)
    several = {"a": [1.0, 0.0], "b": [0.25, 0.5], "c": [0.0, 0.0]}
    parts = spread(several)
    assert _from_one(several, -0.5, 0.9, 0.7) == Design(
        3 * parts.between, (parts.within, parts.within), None,
        "one agent on 3 tasks, and a correlation of -0.5 assumed for task means", 0.9, 0.7,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="there are scores on 1 task: a variance needs 2 or more"):
        _from_one({"a": [1.0], "b": []}, 0.5, 0.9, 0.7)
    groups = TaskGroups({"t0": "g", "t3": "g", "t4": "g"}, {})
    error = mean_interval(ones, clusters=groups).error
    grouped = _grouped(design, error, math.sqrt(0.3 / 5))
    assert from_one(ones, 0.25, groups, confidence=0.9, power=0.7) == replace(
        grouped, design_effect=pytest.approx(grouped.design_effect)
    )
    assert from_one(ones, 0.25, groups).design_effect == pytest.approx(error**2 / 0.06) and error**2 > 0.06

    eight = {f"t{n}": [value] for n, value in enumerate((1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0))}
    layered = from_one(eight, 0.25, TaskGroups({}, {f"t{n}": "x" if n < 4 else "y" for n in range(8)}))
    # within each stratum .75 of squares over 1 - 1/4, of 8 tasks; without strata 2 over 7 * 8
    assert layered.design_effect == pytest.approx((2 * 0.75 / 0.75 / 64) / (2 / 56)) and layered.design_effect < 1

    differences = Differences.between(A, B)
    pair = _from_pair(A, B, differences, 0.9, 0.7)
    assert pair == Design(
        pytest.approx(0.8 - 0.16), None, 0.8, "both measured on 5 tasks, disagreeing on 80.0%", 0.9, 0.7
    )
    one, other = {"a": [1.0, 0.0], "b": [0.5, 0.0]}, {"a": [0.25, 0.5], "b": [1.0, 1.0]}
    within = (1 / 2 + 1 / 8) / 2, 1 / 32 / 2
    repeated = _from_pair(one, other, Differences.between(one, other), 0.9, 0.7)
    assert repeated.within == pytest.approx(within) and repeated.between == paired_spread(one, other).between
    halves = {task: [each / 2 for each in values] for task, values in A.items()}
    one_each = _from_pair(halves, B, Differences.between(halves, B), 0.9, 0.7)
    variance = float(np.var([-0.5, -1.0, 0.5, 0.5, 0.5], ddof=1))
    assert one_each == Design(
        pytest.approx(variance), None, None, "both measured on 5 tasks, one attempt each", 0.9, 0.7
    )
    groups = TaskGroups({"t3": "g", "t4": "g", "t5": "g"}, {})
    clustered = Differences.between(A, B, groups).error
    assert from_pair(A, B, groups, confidence=0.9, power=0.7) == _grouped(pair, clustered, differences.error)
    assert from_pair(A, B, groups).design_effect == pytest.approx((clustered / differences.error) ** 2)


# -- gates --


def check(values: tuple[float, ...], *, binary: bool = False, **more: Any) -> Check:
    made: dict[str, Any] = {
        "agent": "a", "benchmark": "b", "score": "s", "max_drop": 0.25, "confidence": 0.9, "ruling": "pass", "reason": "",
        "differences": Differences(values, binary, True),
    }  # fmt: skip
    return Check(**made | more)


def test_a_ruling_comes_from_the_first_reason_that_holds() -> None:
    level = tuple(0.05 * (-1) ** n for n in range(20))
    good = check(level)
    assert (_ruled(good, 1.0, True).ruling, _ruled(good, 0.0, True).ruling) == ("pass", "pass")
    gaps = replace(good, gaps=Gaps(candidate_errors=2))
    told = "errors: 2 attempts of the candidate without a score"
    assert same(_ruled(gaps, 1.0, True), replace(gaps, ruling="fail", reason=told))
    assert _ruled(gaps, 1.0, False).reason == "a drop of more than 25.00% is excluded"
    bad = check(tuple(-0.75 + each for each in level))
    fails = bad.gain.reversed.surely_above(0.25)
    assert _ruled(bad, fails, True).reason == "the score dropped by more than 25.00%" and fails < 0.1
    assert _ruled(bad, 0.1, True).ruling == "inconclusive", "at the level itself nothing is shown"
    draws = tuple(float(each) for each in np.linspace(0.5, 0.75, 99))
    error = FigureDifference(0.625, draws, 9, (0, 9), lower_is_better=True)
    rising = check((), differences=error)
    assert rising.drop == "rise" and rising.gain == error.reversed
    assert _ruled(rising, 0.01, True).reason == "the score rose by more than 25.00%"
    assert [each.ruling for each in rule([good, bad, rising])] == ["pass", "fail", "fail"]
    several = rule([check(tuple(-0.45 + 2 * each for each in level))] * 9)
    alone = several[0].gain.reversed.surely_above(0.25)
    assert alone < 0.1 < 9 * alone and several[0].ruling == "inconclusive", "failing is corrected for their number"


def test_checks_without_a_pair_correct_no_other_check_and_keep_their_places() -> None:
    level = tuple(0.05 * (-1) ** n for n in range(20))
    bad = check(tuple(-0.48 + 2 * each for each in level))
    absent = check((), differences=difference({}, {}, None), gaps=Gaps(no_agent=True))
    unpaired = replace(absent, gaps=Gaps(candidate_errors=3))
    ruled = rule([absent, unpaired, bad, absent, bad], gaps_fail=False)
    assert [each.ruling for each in ruled] == ["pass", "inconclusive", "fail", "pass", "fail"]
    fails = bad.gain.reversed.surely_above(0.25)
    assert 2 * fails < 0.1 < 5 * fails, "two are corrected for, not five"
    assert [each.to_json()["no_agent"] for each in ruled] == [True, False, False, True, False]


def test_an_inconclusive_check_says_what_is_possible_and_how_many_tasks_decide() -> None:
    few = check((1.0, 0.0, 0.0, 0.0, -1.0), binary=True)
    needed = margin_tasks_needed(0.25, (2 + 1) / (5 + 2), confidence=0.9)
    assert _unsure(few, "25%") == (
        f"a drop of {-few.bounds.low:.2%} is still possible, 25% is allowed; underpowered: {needed} tasks decide with 80% "
        "power, if both are equally good"
    )
    wide = check((0.5, -0.5, 0.25, 0.0, -0.25))
    variance = wide.differences.error**2 * 5
    needed = max(6, margin_tasks_needed(0.25, variance, confidence=0.9))
    assert f"underpowered: {needed} tasks" in _unsure(wide, "25%")
    assert "underpowered: 6 tasks" in _unsure(replace(wide, max_drop=0.9), "90%"), "one more than there are"
    rising = check((), differences=FigureDifference(0.1, (0.0, 0.1, 0.3), 3, (0, 1), lower_is_better=True))
    high = rising.bounds.high
    assert rising.bounds.low < 0.0 < 0.3 < high, "three tasks tell less than their draws"
    assert _unsure(replace(rising, max_drop=0.0), "0%") == (
        f"a rise of {high:.2%} is still possible, and no number of tasks excludes every rise: allow a small one"
    )
    assert rising.bounds == rising.differences.sure_bounds(0.8)
    assert check(()).bounds == Bounds(-math.inf, math.inf)
    body = replace(
        rising, worse=("t",), flaky=(Flaky("b", "u", "between", (0.0, 1.0)),), baseline=0.5, candidate=0.625
    ).to_json()
    assert (body["tasks"], body["better"], body["worse"]) == (3, 0, 1)
    assert (body["low"], body["high"]) == tuple(rising.bounds)
    assert (body["difference"], body["confidence"], body["worse_tasks"]) == (0.125, 0.9, ["t"])
    assert body["flaky"] == [{"task": "u", "where": "between", "values": [0.0, 1.0]}]
    assert str(Gaps(missing=1, changed=2)) == (
        "1 task that the candidate did not attempt, 2 tasks not the same in both runs"
    )


# -- judges --


def test_agreement_is_bootstrapped_by_cluster_from_the_counts_of_each_item() -> None:
    items = [
        Judged("1", ("A", "A", "B"), "A", "p", "A", 0.75, True), Judged("2", ("B", "B", "tie"), "A", "p", "B", 0.5, False),
        Judged("3", ("tie", "tie", "A"), "tie", None, "A"), Judged("4", ("A", "B", "tie"), "B", "q", None, 0.25, True),
        Judged("5", ("B", "B", "B"), "B", "q", "A", None, None),
    ]  # fmt: skip
    found = agreement(items, 0.8)
    clusters = ["p", "p", "alone 3", "q", "q"]

    def holds(found: Interval | None, rows: Any, figure: Any = _ratio) -> bool:
        """True if it is the bootstrap's interval, or one that reaches farther, of three clusters."""
        drawn = bootstrap_sums(np.array(rows, dtype=float), figure, labels=clusters, confidence=0.8)
        assert found is not None and (found.value, found.n, found.clusters) == (drawn.value, drawn.n, drawn.clusters)
        return found.low <= drawn.low <= drawn.high <= found.high

    third = 1 / 3
    assert (found.items, found.votes) == (5, 15)
    assert holds(found.with_humans, [[2 * third, 1], [0, 1], [2 * third, 1], [third, 1], [1, 1]])
    by_item = dict(zip("12345", ([2 * third], [0.0], [2 * third], [third], [1.0]), strict=True))
    means = mean_interval(by_item, 0.8, dict(zip("12345", clusters, strict=True)))
    assert (found.with_humans.low, found.with_humans.high) == pytest.approx((means.low, means.high))
    among = bootstrap_sums(np.array([[third, 1], [third, 1], [third, 1], [0, 1], [1, 1]]), _ratio, labels=clusters)
    assert found.among_humans is not None and found.among_humans.value == pytest.approx(among.value, abs=1e-12)
    assert holds(found.decided, [[2 * third, 1], [0, 2 * third], [0, 0], [third, 2 * third], [1, 1]])
    confusion = np.zeros((5, 9))
    confusion[0, 0] = confusion[1, 6] = confusion[2, 4] = confusion[4, 8] = 1  # A-A, B-A, tie-tie, none, B-B
    assert (_confusions(items) == confusion).all() and holds(found.kappa, confusion, _kappas)
    ours = [[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 1.0]]
    theirs = [[2 * third, 1.0], [2 * third, 2 * third], [third, third], [0.0, 0.0], [0.0, 1.0]]
    assert holds(found.longer_judge, ours) and holds(found.longer_humans, theirs)
    both = np.hstack([ours, theirs])
    assert holds(found.length_bias, both, lambda sums: _ratio(sums[:, :2]) - _ratio(sums[:, 2:]))
    assert found.first == mean_interval({"1": [0.75], "2": [0.5], "4": [0.25]}, 0.8, {"1": "p", "2": "p", "4": "q"})
    assert found.consistent == mean_interval({"1": [1.0], "2": [0.0], "4": [1.0]}, 0.8, {"1": "p", "2": "p", "4": "q"})
    assert found.kappa_humans == fleiss_kappa([[2, 0, 1], [0, 1, 2], [1, 2, 0], [1, 1, 1], [0, 0, 3]])
    assert found.alpha_humans == krippendorff_alpha([each.humans for each in items])
    judges = [("A", "A", "B", "A"), ("B", "B", "tie", "A"), ("tie", "tie", "A", "tie"), ("A", "B", "tie", "B"), "BBBB"]
    assert found.alpha_with_judge == krippendorff_alpha(judges)
    uneven = agreement([replace(items[0], humans=("A", "B")), *items[1:]])
    assert uneven.kappa_humans is None and uneven.alpha_humans is not None and uneven.votes == 14
    single = agreement([replace(each, humans=each.humans[:1], longer=None) for each in items])
    assert (single.among_humans, single.kappa_humans, single.alpha_humans, single.longer_judge) == (None,) * 4
    assert single.alpha_with_judge == krippendorff_alpha([(each.humans[0], each.verdict) for each in items])
    body = replace(found, kappa_humans=math.nan, decided=None).to_json()
    assert (body["items"], body["kappa_humans"], body["decided"]) == (5, None, None)
    assert body["with_humans"] == found.with_humans.to_json() and list(body) == list(vars(found))
    alone = agreement([replace(each, cluster=None) for each in items], 0.8)
    assert (alone.with_humans.clusters, found.with_humans.clusters) == (0, 3)
