"""Small cases of the statistics worked out by hand: sentences, records and edges around the numbers of test_stats_pinned."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError
from firsthand.runs.flaky import Flaky
from firsthand.runs.task_groups import TaskGroups
from firsthand.stats.bootstrap import bootstrap, bootstrap_interval, drawn, of_chosen, unit_strata, units
from firsthand.stats.comparison_design import Design, _grouped, from_one, from_pair
from firsthand.stats.intervals import (
    Bounds,
    Interval,
    bisect,
    cluster_labels,
    equal_bounds,
    mean_interval,
    proportion_interval,
    stratum_labels,
    t_value,
    unbounded_mean_interval,
    unseen_share,
    z_value,
)  # fmt: skip
from firsthand.stats.joint_ranks import _bonferroni, rank_ranges, told_apart
from firsthand.stats.multiple_comparisons import all_pairs, benjamini_hochberg, holm
from firsthand.stats.non_inferiority import Check, Gaps, _unsure, rule, verdict
from firsthand.stats.paired import Differences, PairedDifference, settled
from firsthand.stats.power_analysis import Spread, margin_tasks_needed, paired_spread, smallest_detectable, spread
from firsthand.stats.score_statistics import finite
from firsthand.stats.strata import joined_strata

# -- intervals and records --


def test_intervals_and_differences_as_json() -> None:
    interval = Interval(0.5, -math.inf, 0.75, 4, "t", 0.25)
    assert interval.to_json() == {"value": 0.5, "low": None, "high": 0.75, "n": 4, "method": "t", "error": 0.25}
    grouped = replace(interval, clusters=2, inflation=math.nan).to_json()
    assert (grouped["clusters"], grouped["inflation"]) == (2, None)
    found = PairedDifference(0.5, 0.25, math.inf, 0.01, 9, 5, 3, 1, "better", math.nan, "Tango", 2)
    assert found.to_json() == {
        "difference": 0.5, "low": 0.25, "high": None, "p_value": 0.01, "n": 9, "better": 5, "worse": 3, "same": 1,
        "verdict": "better", "detectable": None, "method": "Tango", "clusters": 2,
    }  # fmt: skip
    assert settled(found, False).verdict == "inconclusive" and settled(found, False).low == 0.0
    assert settled(replace(found, lower_is_better=True), True).verdict == "worse"
    assert settled(replace(found, difference=-0.5), True).verdict == "worse"
    assert Spread(0.5, math.nan, 3, 4).to_json() == {"between": 0.5, "within": None, "tasks": 3, "attempts": 4}
    assert Spread(0.5, 0.25, 3, 4).total == 0.75 and finite(math.nan) is None and finite(0.0) == 0.0


def test_bounds_of_equal_values_and_of_none() -> None:
    assert unseen_share(3, 0.95) == pytest.approx(1 - 0.025 ** (1 / 3))
    u = unseen_share(2, 0.9)
    assert equal_bounds(0.25, 2, True, 0.9) == Bounds(pytest.approx(0.25 * (1 - u)), pytest.approx(0.25 * (1 - u) + u))
    assert equal_bounds(0.25, 2, False, 0.9) == Bounds(-math.inf, math.inf)
    assert bisect(lambda x: x - 0.3, 0.0, 1.0) == pytest.approx(0.3)
    none = mean_interval({"a": []})
    assert none.n == 0 and math.isnan(none.value) and none.method == ""
    assert (
        proportion_interval(0, 0) == Bounds(0.0, 1.0)
        and proportion_interval(0, 5).low == 0.0
        and proportion_interval(5, 5).high == 1.0
    )
    z = z_value(0.9)
    centre, half = (0.25 + z * z / 8) / (1 + z * z / 4), z / (1 + z * z / 4) * math.sqrt(0.25 * 0.75 / 4 + z * z / 64)
    assert proportion_interval(1, 4, 0.9) == pytest.approx((centre - half, centre + half))
    for wrong in (-1, 6):
        with pytest.raises(ConfigError, match="give a count from 0 to n"):
            proportion_interval(wrong, 5)
    for confidence in (0, 1):
        with pytest.raises(ConfigError, match="give a number between 0 and 1"):
            t_value(3, confidence)
    with pytest.raises(ConfigError, match="a score is nan"):
        mean_interval([0.5, math.nan])


def test_tasks_of_one_name_in_cluster_and_stratum() -> None:
    assert cluster_labels(["a", "b", "c"], {"a": "x", "c": "x"}) == ["in x", "alone b", "in x"]
    assert cluster_labels(["a", "b"], {"a": "x"}) is None and cluster_labels(["a"], None) is None
    groups = TaskGroups({}, {"a": "s", "b": "t"})
    assert stratum_labels(["a", "b", "c"], groups) == ["in s", "in t", "in none"]
    assert stratum_labels(["a"], groups) is None and stratum_labels(["a", "b"], {"a": "x"}) is None
    assert len({*joined_strata(["s", "t", "u"], ["1", "1", "2"])}) == 2


# -- several comparisons, draws, ranks --


def test_corrections_in_the_order_given() -> None:
    assert holm([0.04, 0.01, 0.03, 0.5]) == pytest.approx([0.09, 0.04, 0.09, 0.5])
    assert benjamini_hochberg([0.04, 0.01, 0.03, 0.9]) == pytest.approx([0.16 / 3, 0.04, 0.16 / 3, 0.9])
    assert holm([]) == [] == benjamini_hochberg([]) and holm([0.7, 0.6]) == [1.0, 1.0]
    rounded = math.nextafter(1.0, 2.0)  # as a sum of probabilities may be
    assert holm([rounded]) == [1.0] == benjamini_hochberg([rounded])
    scores = {"a": {"t": [0.0]}, "b": {"t": [1.0]}, "c": {"t": [0.5]}}
    pairs = all_pairs(scores)
    assert {pair: each.difference for pair, each in pairs.items()} == {
        ("a", "b"): 1.0,
        ("a", "c"): 0.5,
        ("b", "c"): -0.5,
    }


def test_draws_take_units_whole_and_within_their_strata() -> None:
    unit_T = units(5, ["x", "y", "x", "z", "y"])
    assert unit_T.tolist() == [0, 1, 0, 2, 1] and units(2, None).tolist() == [0, 1]
    for n, labels in ((0, None), (2, ["a"])):
        with pytest.raises(ConfigError):
            units(n, labels)
    counts = next(drawn(unit_T, 50, seed=1))
    assert counts.shape == (50, 5) and (counts[:, 0] == counts[:, 2]).all() and (counts[:, [0, 1, 3]].sum(1) == 3).all()
    assert not np.array_equal(counts, next(drawn(unit_T, 50, seed=2)))
    strata = unit_strata(np.arange(24), ["s"] * 12 + ["t"] * 12)
    assert strata is not None and strata.tolist() == [0] * 12 + [1] * 12
    within = next(drawn(np.arange(24), 20, stratum_U=strata))
    assert (within[:, :12].sum(1) == 12).all() and (within[:, 12:].sum(1) == 12).all()
    assert unit_strata(np.arange(24), None) is None is unit_strata(np.arange(24), ["s"] * 24)
    few = unit_strata(np.arange(25), ["s"] * 12 + ["t"] * 10 + ["u"] * 3)
    assert few is not None and len({*few[12:].tolist()}) == 1 and few[0] != few[12], "three join the smallest large one"
    repeated = of_chosen(lambda chosen: float(chosen.tolist() == [0, 0, 2]))
    assert repeated(np.array([[2, 0, 1], [1, 1, 1]])).tolist() == [1.0, 0.0]


def test_a_bootstrap_of_one_unit_knows_no_bounds_and_says_its_method() -> None:
    found = bootstrap(lambda counts: counts @ np.array([0.25, 0.75]) / 2, 2, labels=["a", "a"])
    assert (found.value, found.low, found.high, found.method, found.clusters) == (
        0.5,
        -math.inf,
        math.inf,
        "BCa bootstrap",
        1,
    )
    values = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 0.0])
    plain = bootstrap_interval(
        lambda chosen: float(values[chosen].mean()), 6, method="percentile", resamples=400, seed=3
    )
    draws = np.concatenate([counts @ values / 6 for counts in drawn(np.arange(6), 400, 3)])
    assert (plain.low, plain.high) == tuple(np.quantile(draws, [0.025, 0.975])) and plain.error == pytest.approx(
        draws.std(ddof=1)
    )
    assert (plain.method, plain.n, plain.clusters) == ("percentile bootstrap", 6, 0)
    with pytest.raises(ConfigError, match="not a finite number for some draws"):
        bootstrap_interval(lambda chosen: math.nan, 6)


def test_ranks_hold_together_with_a_known_or_a_bonferroni_bound() -> None:
    values, errors = np.array([3.0, 1.0, 0.0]), np.array([0.1, 0.1, math.nan])
    assert rank_ranges(values, errors) == [(1, 2), (2, 3), (1, 3)]
    assert rank_ranges(values, np.array([1.0, 1.0, 1.0]), critical=1.2) == [(1, 1), (2, 3), (2, 3)]
    assert rank_ranges(values, np.array([1.0, 1.0, 1.0]), critical=2.0) == [(1, 2), (1, 3), (2, 3)]
    assert rank_ranges(values, np.eye(3), critical=2.0) == rank_ranges(values, np.ones(3), critical=2.0)
    assert _bonferroni(3, np.inf, 0.94) == pytest.approx(z_value(1 - 0.02)) and _bonferroni(
        2, 5, 0.95
    ) == pytest.approx(t_value(5, 0.95))
    assert told_apart(np.array([1.0]), np.eye(1)).tolist() == [[False]]


# -- plans --


def test_a_plan_in_tasks_attempts_and_effects() -> None:
    split = Design(0.1, (0.04, 0.08), design_effect=2.0)
    z = z_value(0.95) + z_value(0.6)
    assert split.tasks(0.1, 2) == math.ceil(2 * math.ceil(z * z * (0.1 + 0.02 + 0.04) / 0.01))
    assert split.effect(100, 4) == pytest.approx(z * math.sqrt(2 * (0.1 + 0.12 / 4) / 100))
    allowed = 100 * 0.15**2 / z**2 - 0.1
    assert split.epochs(0.15, 200) == math.ceil(0.12 / allowed) and split.epochs(0.001, 200) is None
    single = Design(0.2, None)
    assert (single.tasks(0.1, 2), single.effect(50, 2)) == (None, None) and single.tasks(0.1) == math.ceil(
        z * z * 0.2 / 0.01
    )
    enough = single.tasks(0.1)
    assert enough is not None and single.epochs(0.1, enough) == 1 and single.epochs(0.1, enough - 1) is None
    flips = Design(0.2, None, 0.3)
    assert flips.effect(100) == smallest_detectable(100, disagreement=0.3) and flips.tasks(0.4) is not None


def test_a_plan_says_what_its_variance_is_of() -> None:
    a, b = {f"t{n}": [float(n < 3)] for n in range(4)}, {f"t{n}": [float(n < 1)] for n in range(4)}
    pair = from_pair(a, b)
    assert (pair.between, pair.within, pair.disagreement) == (0.25, None, 0.5), "half disagree, by a mean of half"
    assert pair.basis == "both measured on 4 tasks, disagreeing on 50.0%"
    half = {task: [value[0] / 2] for task, value in a.items()}
    assert (
        from_pair(half, b).basis == "both measured on 4 tasks, one attempt each"
        and from_pair(half, b).disagreement is None
    )
    several = from_pair(
        {t: [v[0], 1.0] for t, v in a.items()}, {t: [v[0], 0.0] for t, v in b.items()}, confidence=0.9, power=0.7
    )
    assert several.basis == "both measured on 4 tasks, several attempts each" and (
        several.confidence,
        several.power,
    ) == (0.9, 0.7)
    assert several.within == (0.125, 0.125), "one task of four whose two attempts differ, a variance of a half"
    one = from_one(a, 0.5)
    assert one.basis == "one agent on 4 tasks, and a correlation of 0.5 assumed for single attempts"
    assert one.between == pytest.approx(0.25) == one.disagreement and from_one(a, -1.0).disagreement == 1.0
    assert from_one({t: [v[0], 1.0] for t, v in a.items()}, 0.5).basis.endswith("assumed for task means")
    assert from_one(half, 0.5).disagreement is None
    for wrong in (-1.1, 1.1):
        with pytest.raises(ConfigError, match="give a number from -1 to 1"):
            from_one(a, wrong)
    with pytest.raises(ConfigError, match="there are scores on 1 task: a variance needs 2 or more"):
        from_one({"t": [1.0]}, 0.5)
    with pytest.raises(ConfigError, match="the agents have 1 task in common"):
        from_pair({"t0": [1.0]}, b)
    base = Design(0.1, None, basis="b")
    assert _grouped(base, 0.2, 0.1).basis == "b, clusters multiplying the variance by 4.0"
    assert _grouped(base, 0.05, 0.1).basis == "b, strata reducing the variance to 0.25"
    assert _grouped(base, 0.1, 0.1) == base == _grouped(base, math.nan, 0.1) == _grouped(base, 0.1, 0.0)
    assert margin_tasks_needed(0.1, 0.2) == math.ceil((z_value(0.9) + z_value(0.6)) ** 2 * 0.2 / 0.01)
    parts = paired_spread({"t": [1.0], "u": [0.0], "v": []}, {"t": [1.0], "u": [1.0], "v": [1.0]})
    assert (
        (parts.tasks, parts.attempts) == (2, 4)
        and math.isnan(parts.within)
        and math.isnan(spread({"t": [1.0, 0.0]}).within)
    )


# -- gates --


def check_of(a: list[float], b: list[float], **changes: Any) -> Check:
    found = Differences.between({str(n): [v] for n, v in enumerate(a)}, {str(n): [v] for n, v in enumerate(b)})
    made: dict[str, Any] = {"agent": "ada", "benchmark": "sums", "score": "exact", "max_drop": 0.1, "differences": found,
                            "confidence": 0.95, "ruling": "inconclusive", "reason": ""}  # fmt: skip
    return Check(**{**made, **changes})


def test_a_check_as_json_and_its_gaps_in_words() -> None:
    gaps = Gaps(1, 2, 3, 1)
    assert str(gaps) == (
        "1 attempt of the baseline without a score, 2 attempts of the candidate without a score, 3 tasks that the "
        "candidate did not attempt, 1 task not the same in both runs"
    )
    assert (
        not Gaps() and all(bool(Gaps(*[int(n == place) for n in range(4)])) for place in range(4)) and str(Gaps()) == ""
    )
    made = check_of(
        [1, 0, 1, 1],
        [1, 1, 0, 0],
        gaps=gaps,
        baseline=0.5,
        candidate=0.75,
        worse=("1",),
        reason="why",
        flaky=(Flaky("sums", "9", "b", (0.0, 1.0)),),
    )
    low, high = made.bounds
    assert made.to_json() == {
        "agent": "ada",
        "benchmark": "sums",
        "score": "exact",
        "ruling": "inconclusive",
        "reason": "why",
        "max_drop": 0.1,
        "confidence": 0.95,
        "tasks": 4,
        "baseline": 0.5,
        "candidate": 0.75,
        "difference": 0.25,
        "low": low,
        "high": high,
        "better": 2,
        "worse": 1,
        "worse_tasks": ["1"],
        "errors": {"baseline": 1, "candidate": 2},
        "above_one": 0,
        "unmade": {"baseline": 0, "candidate": 0},
        "reduce": "mean",
        "retried": {side: {"attempts": 0, "most": 0} for side in ("baseline", "candidate")},
        "evened": 0,
        "missing": 3,
        "no_agent": False,
        "changed": 1,
        "flaky": [{"task": "9", "where": "b", "values": [0.0, 1.0]}],
    }
    assert (low, high) == pytest.approx(made.differences.sure_bounds(0.9))


def test_rulings_and_what_is_said_of_them() -> None:
    same = [1.0, 0.0] * 300
    passed, gapped, none, failed, unsure, strict = rule([
        check_of(same, same), check_of(same, same, gaps=Gaps(missing=1)), check_of([], []),
        check_of([0.0] * 60, [1.0] * 60),
        check_of([1.0, 0.0] * 5, [1.0, 0.0] * 5), check_of([1.0, 0.0] * 5, [1.0, 0.0] * 5, max_drop=0.0),
    ])  # fmt: skip
    assert (passed.ruling, passed.reason) == ("pass", "a drop of more than 10.00% is excluded")
    assert (gapped.ruling, gapped.reason) == ("fail", "errors: 1 task that the candidate did not attempt")
    assert (none.ruling, none.reason) == ("inconclusive", "no task has a score on both sides")
    assert (failed.ruling, failed.reason) == ("fail", "the score dropped by more than 10.00%")
    needed = max(11, margin_tasks_needed(0.1, 1 / 12))
    assert (
        unsure.reason
        == f"a drop of {-unsure.bounds.low:.2%} is still possible, 10.00% is allowed; underpowered: {needed} "
        "tasks decide with 80% power, if both are equally good"
    )
    assert strict.reason.endswith("is still possible, and no number of tasks excludes every drop: allow a small one")
    assert rule([check_of(same, same, gaps=Gaps(missing=1))], gaps_fail=False)[0].ruling == "pass"
    equal = check_of([0.5] * 3, [0.5] * 3)
    assert _unsure(replace(equal, differences=replace(equal.differences, unit=False)), "10.00%") == (
        "nothing is known of the spread, 10.00% is allowed"
    )
    for rulings, told in ((["pass"], ("pass",) * 3), (["pass", "inconclusive"], ("inconclusive", "pass", "fail")),
                          (["inconclusive", "fail"], ("fail",) * 3), ([], ("pass",) * 3)):  # fmt: skip
        given = [replace(equal, ruling=each) for each in rulings]  # type: ignore[arg-type]
        assert tuple(verdict(given, each) for each in ("report", "pass", "fail")) == told  # type: ignore[arg-type]


def test_means_of_unbounded_values_have_students_interval_wherever_they_lie() -> None:
    for values in ([0.10, 0.37], [0.05, 0.9, 0.02], [0.0, 1.0, 1.0], [0.05, 1.01, 0.02]):
        found, spread = unbounded_mean_interval(values), np.std(values, ddof=1) / math.sqrt(len(values))
        half = t_value(len(values) - 1, 0.95) * spread
        assert (found.value, found.low, found.high) == pytest.approx(
            (np.mean(values), np.mean(values) - half, np.mean(values) + half)
        )
        assert (found.n, found.method, found.error) == (len(values), "t", pytest.approx(spread))
        moved = unbounded_mean_interval([value + 7 for value in values])
        assert (moved.low, moved.high) == pytest.approx((found.low + 7, found.high + 7)), (
            "no place of the scale is special"
        )
    for values in ([0.5], [0.0, 0.0, 0.0]):
        found = unbounded_mean_interval(values)
        assert (found.low, found.high, found.method) == (-math.inf, math.inf, "equal values")
        assert found.value == values[0] and found.n == len(values)
    none = unbounded_mean_interval([])
    assert none.n == 0 and math.isnan(none.value)
    with pytest.raises(ConfigError, match="a score is nan"):
        unbounded_mean_interval([math.nan])
    wide, narrow = unbounded_mean_interval([0.2, 0.4], 0.99), unbounded_mean_interval([0.2, 0.4])
    assert wide.high > narrow.high
