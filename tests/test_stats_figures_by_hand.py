"""Intervals of figures and of their differences, and the scores they are made of, by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import stdtr

from firsthand.benchmark import Figure
from firsthand.runs.task_groups import TaskGroups
from firsthand.stats.bootstrap import (
    bootstrap,
    drawn,
)
from firsthand.stats.bounded_mean import lowest_mean, score_p_value
from firsthand.stats.corpus_formulas import FORMULAS, calibrated_bins, calibrated_rms, rms_calibration_errors
from firsthand.stats.figure_stats import (
    MAX_INFLUENCES,
    NO_INTERVAL,
    SLOW_DRAWS,
    FigureDifference,
    _compared,
    _resampled,
    _with_unseen,
    figure_interval,
    figure_value,
    influences,
    strata_gain,
)
from firsthand.stats.figures import (
    CALIBRATION,
    _of_confidences,
    _share,
    _stated,
    _summed,
    figure_detail,
    figures,
    slow_figure,
)
from firsthand.stats.intervals import (
    Interval,
    equal_bounds,
    t_value,
    unseen_share,
)
from firsthand.stats.non_inferiority import Check, rule
from firsthand.stats.paired import Differences, judged, paired_difference, sign_flip
from firsthand.stats.strata import cluster_freedom
from firsthand.trace import Failure, Score
from made_traces import trace
from same_values import same


def micro(counts: Any) -> Any:
    """Of sums per task: right of right and wrong."""
    sums = counts @ np.array([[1.0, 3.0], [2.0, 2.0], [0.0, 1.0], [4.0, 5.0], [1.0, 2.0], [3.0, 3.0]])
    return sums[:, 0] / np.maximum(sums[:, 1], 1)


# -- intervals of figures --


def figure(of: Any = micro, tasks: str = "abcdef", **more: Any) -> Figure:
    return Figure("f", tuple(tasks), of, **more)


def test_a_figures_interval_takes_its_groups_method_and_draws() -> None:
    groups = TaskGroups({"a": "one", "b": "one"}, {})
    labels = ["in one", "in one", *(f"alone {task}" for task in "cdef")]
    found = _resampled(figure(method="percentile"), groups, 0.8)
    assert found == bootstrap(micro, 6, labels=labels, method="percentile", confidence=0.8)
    slow = _resampled(figure(slow=True), None, 0.8)
    assert slow == bootstrap(micro, 6, confidence=0.8, resamples=SLOW_DRAWS)
    tasks = [chr(97 + n) for n in range(24)]
    values = np.arange(24) / 24

    def mean(counts: Any) -> Any:
        return counts @ values / counts.sum(axis=1)

    strata = {task: "x" if n % 2 else "y" for n, task in enumerate(tasks)}
    layered = _resampled(figure(mean, "".join(tasks)), TaskGroups({}, strata), 0.8)
    assert layered == bootstrap(mean, 24, strata=[f"in {strata[task]}" for task in tasks], confidence=0.8)
    spread = _resampled(figure(uncertainty=True), None, 0.8)
    assert (spread.value, spread.n, spread.method) == (11 / 16, 6, NO_INTERVAL) and math.isnan(spread.low)
    infinite = _resampled(figure(lambda counts: np.where((counts == 1).all(axis=1), 0.5, np.inf)), None, 0.8)
    assert same(infinite, Interval(0.5, -math.inf, math.inf, 6, error=infinite.error)) and infinite.method == ""
    perfect = _resampled(figure(lambda counts: counts[:, 0] * 0 + 1.0), groups, 0.8)
    assert (perfect.low, perfect.high) == equal_bounds(1.0, 5, True, 0.8) and perfect.method == "equal draws"
    large = _resampled(figure(lambda counts: counts[:, 0] * 0 + 7.0), None, 0.8)
    assert (large.low, large.high, large.n) == (-math.inf, math.inf, 6)
    assert math.isnan(figure_value(figure(tasks=""))) and figure_value(figure()) == 11 / 16


def test_a_figure_in_0_to_1_reaches_as_far_as_tasks_that_nobody_saw_may_take_it() -> None:
    made = figure()
    bare = Interval(11 / 16, 0.6, 0.7, 6, "BCa bootstrap")
    values = influences(made)
    assert values.mean() == pytest.approx(11 / 16) and values[2] < values[5]
    low = lowest_mean(lambda bar: score_p_value(values.tolist(), bar, 0.0), 0.6, 0.0, 0.1)
    high = 1 - lowest_mean(lambda bar: score_p_value((1 - values).tolist(), bar, 0.0), 0.3, 0.0, 0.1)
    assert low < 0.6 and high > 0.7
    assert same(_with_unseen(bare, made, None, 0.8), replace(bare, low=low, high=pytest.approx(high)))
    for wide in (replace(bare, low=0.0, high=1.0), replace(bare, value=1.0), replace(bare, value=0.0),
                 replace(bare, method="equal draws"), replace(bare, low=-math.inf), replace(bare, high=math.inf),
                 replace(bare, low=0.7)):  # fmt: skip
        assert same(_with_unseen(wide, made, None, 0.8), wide)
    slow = _with_unseen(replace(bare, clusters=3), replace(made, slow=True), None, 0.8)
    assert (slow.low, slow.high) == equal_bounds(11 / 16, 3, True, 0.8)
    groups = TaskGroups({task: "one" if task < "c" else "two" if task < "e" else "three" for task in "abcdef"}, {})
    labels = ["1", "1", "2", "2", "3", "3"]
    low = lowest_mean(lambda bar: score_p_value(values.tolist(), bar, 0.0, labels=labels), 0.6, 0.0, 0.1)
    assert _with_unseen(bare, made, groups, 0.8).low == pytest.approx(low)
    labels, layers = ["1", "1", "2", "3", "4", "5"], ["x", "x", "x", "y", "x", "y"]
    gain = strata_gain(values, labels, layers)
    assert gain > 1.05
    more: Any = {"labels": labels, "gain": gain}
    low = lowest_mean(lambda bar: score_p_value(values.tolist(), bar, 0.0, **more), 0.6, 0.0, 0.1)
    high = 1 - lowest_mean(lambda bar: score_p_value((1 - values).tolist(), bar, 0.0, **more), 0.3, 0.0, 0.1)
    strata = TaskGroups({"a": "one", "b": "one"}, dict(zip("abcdef", layers, strict=True)))
    assert same(_with_unseen(bare, made, strata, 0.8), replace(bare, low=pytest.approx(low), high=pytest.approx(high)))
    assert MAX_INFLUENCES == 2000


def test_an_error_that_chance_makes_as_large_may_be_0() -> None:
    plain = figure_interval(figure(), None, 0.8)
    assert plain.value == 11 / 16 and plain.low > 0
    # the upper quantile of an interval at 80 % is the one of 90 %: .77, 11/16 itself, and .57
    for draws, low in (([0.5, 0.6, 0.7, 0.8], 0.0), ([11 / 16] * 3, 0.0), ([0.1, 0.2, 0.3, 11 / 16], plain.low)):
        made = figure(by_chance=lambda draws=draws: np.array(draws))
        assert figure_interval(made, None, 0.8) == replace(plain, low=low)
    zero = figure(lambda counts: counts[:, 0] * 0.0, by_chance=lambda: np.ones(3))
    assert figure_interval(zero, None, 0.8) == figure_interval(replace(zero, by_chance=None), None, 0.8)


# -- differences of figures --


def test_a_difference_of_figures_is_drawn_from_common_tasks_by_cluster() -> None:
    def mean_of(tasks: str, values: list[float], **more: Any) -> Figure:
        return Figure("f", tuple(tasks), lambda counts: counts @ np.array(values) / counts.sum(axis=1),
                      values={task: [value] for task, value in zip(tasks, values, strict=True)}, **more)  # fmt: skip

    a, b = mean_of("edcba", [1.0, 0.5, 0.25, 0.75, 0.0]), mean_of("abcdz", [0.25, 0.5, 0.5, 0.0, 1.0])
    differences = np.array([0.0 - 0.25, 0.75 - 0.5, 0.25 - 0.5, 0.5 - 0.0])  # a, b, c, d
    groups = TaskGroups({"a": "g", "d": "g"}, {})
    found = FigureDifference.between(a, b, groups, draws=60)
    draws = np.concatenate([counts @ differences / counts.sum(1) for counts in drawn(np.array([0, 1, 2, 0]), 60)])
    assert found.mean == pytest.approx(0.0625) and found.draws == pytest.approx(sorted(draws.tolist()))
    assert (found.n, found.counts, found.labels) == (4, (2, 2), ("in g", "alone b", "alone c", "in g"))
    assert (found.num_units, found.unit, found.lower_is_better, found.gain) == (3, True, False, 1.0)
    assert found.values == pytest.approx(tuple(differences), abs=1e-3)
    assert found.error == pytest.approx(float(np.std(draws, ddof=1))) and not found.equal
    at, means = 0.1 * 61, Differences(found.values, binary=False, unit=True, labels=found.labels)
    drawn_bounds, t_bounds = (found.draws[math.floor(at) - 1], found.draws[-math.floor(at)]), means.bounds(0.8)
    assert found.bounds(0.8) == pytest.approx((min(drawn_bounds[0], t_bounds[0]), max(drawn_bounds[1], t_bounds[1])))
    above, below = (1 + sum(each <= 0 for each in found.draws)) / 61, (1 + sum(each >= 0 for each in found.draws)) / 61
    assert found.p_above(0.0) == pytest.approx(max(above, means.p_above(0.0)))
    assert found.p_below(0.0) == pytest.approx(max(below, means.p_below(0.0)))
    assert sign_flip([0.25, 0.25, -0.25]) == 1.0 == found.p_value, "all signs give as large a sum"
    sure = max(found.p_above(-0.5), score_p_value(found.values, -0.5, -1.0, labels=found.labels))
    assert found.surely_above(-0.5) == sure
    low = lowest_mean(found.surely_above, found.bounds(0.8).low, -1.0, 0.1)
    high = -lowest_mean(found.reversed.surely_above, -found.bounds(0.8).high, -1.0, 0.1)
    assert found.sure_bounds(0.8) == pytest.approx((min(found.bounds(0.8).low, low), max(found.bounds(0.8).high, high)))
    slow = FigureDifference.between(replace(a, slow=True), b, draws=900)
    assert len(slow.draws) == SLOW_DRAWS and (slow.values, slow.gain) == ((), 1.0)
    other = FigureDifference.between(a, replace(b, slow=True), draws=300)
    assert (len(other.draws), other.values) == (SLOW_DRAWS, ())
    assert len(FigureDifference.between(replace(a, slow=True), b, draws=90).draws) == 90
    bar = slow.mean - 0.25
    assert slow.surely_above(bar) == max(slow.p_above(bar), ((1 + bar) / (1 + slow.mean)) ** 4)
    assert slow.surely_above(slow.mean) == 1.0 and slow.surely_above(-1.5) == slow.p_above(-1.5)
    wide = FigureDifference.between(mean_of("ab", [2.0, 0.5]), mean_of("ab", [0.5, 0.75]), draws=20)
    assert not wide.unit and wide.sure_bounds(0.8) == wide.bounds(0.8) and wide.surely_above(0.0) == wide.p_above(0.0)
    together = FigureDifference.between(a, b, TaskGroups(dict.fromkeys("abcd", "g"), {}), draws=60)
    assert together.draws == () and together.error == 0.0 and together.bounds() == (-math.inf, math.inf)
    strata = TaskGroups({}, {"a": "x", "c": "x", "b": "y", "d": "y"})
    layered = FigureDifference.between(a, b, strata, draws=20)
    assert layered.gain == pytest.approx(strata_gain(differences, None, ["x", "y", "x", "y"]), rel=1e-3) != 1.0


def test_the_gain_of_strata_is_that_of_clustered_errors() -> None:
    values, strata = [1.0, 1.5, 0.0, 1.5, 5.0, 5.0, 4.0, 7.0], ["x"] * 4 + ["y"] * 4
    labels = ["a", "a", "b", "b", "d", "d", "e", "e"]
    residuals = np.array(values) - np.mean(values)
    within = np.array(values) - np.repeat([1.0, 5.25], 4)
    pairs = [[0, 1], [2, 3], [4, 5], [6, 7]]
    whole = np.sqrt(4 / 3 * sum(residuals[each].sum() ** 2 for each in pairs))
    layered = np.sqrt(2 * sum(within[each].sum() ** 2 for each in pairs))
    assert strata_gain(values, labels, strata) == pytest.approx(whole / layered) != strata_gain(values, None, strata)


def test_tasks_won_and_lost_are_counted_where_both_have_values_and_turned_where_lower_is_better() -> None:
    def with_values(values: dict[str, list[float]], **more: Any) -> Figure:
        return Figure("f", tuple(values), lambda counts: counts.sum(1), values=values, **more)

    a = with_values({"a": [1.0, 0.0], "b": [1.0], "c": [0.5], "d": [0.25]})
    b = with_values({"a": [0.25], "b": [0.0, 0.5], "c": [0.5], "d": [1.0]})
    assert _compared(a, b, "abcd") == (2, 1)
    assert _compared(replace(a, lower_is_better=True), b, "abcd") == (1, 2)
    assert _compared(a, replace(b, values={"a": [1.0]}), "ab") == (0, 0) == _compared(replace(a, values={}), b, "a")


def test_a_gate_of_a_slow_figure_counts_each_cluster_once() -> None:
    draws = tuple(np.linspace(0.3, 0.7, 99).tolist())
    slow = FigureDifference(0.5, draws, 9, (3, 0), labels=("a", "a", "b"), unit=True)
    spread, freedom = float(np.std(draws, ddof=1)) * math.sqrt(2), cluster_freedom([2, 1])
    assert slow.p_above(0.2) == pytest.approx(float(stdtr(freedom, -0.3 / spread))) and slow.num_units == 2
    assert slow.surely_above(0.2) == pytest.approx((1.2 / 1.5) ** 2), "of two clusters, not of nine tasks"
    assert replace(slow, labels=None).surely_above(0.2) == pytest.approx((1.2 / 1.5) ** 9)
    assert slow.surely_above(0.5) == 1.0


SHARE = FORMULAS["share"]


def shares(parts: Any) -> Figure:
    """A share of all tasks' parts and wholes (T, 2)."""
    return Figure("share", tuple(f"t{place}" for place in range(len(parts))), lambda counts: SHARE.of(counts @ parts))


def one_more_each(n: int) -> tuple[Figure, Figure, Any]:
    """Two shares of as many tasks of 4 parts, of which the first has one more right, or two, and the differences."""
    gains = np.array([1.0, 1.0, 2.0, 1.0, 2.0, 1.0, 1.0, 2.0, 1.0, 1.0][:n])
    whole = np.full(n, 4.0)
    return shares(np.stack([1 + gains, whole], 1)), shares(np.stack([np.ones(n), whole], 1)), gains / 4


def test_figures_of_few_tasks_are_compared_as_means_of_the_same_answers() -> None:
    for n, verdict in ((2, "inconclusive"), (3, "inconclusive"), (5, "inconclusive"), (6, "better"), (10, "better")):
        a, b, gains = one_more_each(n)
        found = judged(FigureDifference.between(a, b))
        means = paired_difference({str(i): [x] for i, x in enumerate(gains)}, {str(i): [0.0] for i in range(n)})
        assert (found.verdict, found.p_value) == (verdict, pytest.approx(means.p_value, rel=1e-3)), n
        assert (found.low, found.high) == pytest.approx((means.low, means.high), abs=1e-4), n
        turned = judged(FigureDifference.between(b, a))
        assert (turned.p_value, turned.low) == pytest.approx((found.p_value, -found.high)), n


def test_the_difference_of_two_figures_within_0_to_1_is_within_1_and_another_is_not() -> None:
    a, b = (shares(np.array([[right, 4.0], [1.0, 4.0]])) for right in (4.0, 1.0))
    found = FigureDifference.between(a, b)
    half = t_value(1, 0.95) * 0.375
    assert half > 4 and found.bounds() == (-1.0, 1.0) == found.reversed.bounds()
    assert tuple(replace(found, unit=False).bounds()) == pytest.approx((0.375 - half, 0.375 + half), rel=1e-3)


def test_figures_of_few_clusters_are_compared_as_means_of_the_same_answers() -> None:
    a, b, gains = one_more_each(10)
    for sizes in ((5, 5), (6, 2, 2)):
        cluster = dict(zip(a.tasks, np.repeat(range(len(sizes)), sizes).astype(str), strict=True))
        found = judged(FigureDifference.between(a, b, cluster))
        scores = {task: [gain] for task, gain in zip(a.tasks, gains, strict=True)}
        means = paired_difference(scores, {task: [0.0] for task in scores}, clusters=cluster)
        assert found.verdict == "inconclusive" and found.p_value == pytest.approx(means.p_value, rel=1e-3)
        assert (found.low, found.high) == pytest.approx((means.low, means.high), abs=1e-3)


def test_slow_figures_of_few_tasks_are_compared_by_the_spread_of_their_draws() -> None:
    for n, verdict in ((3, "inconclusive"), (5, "inconclusive"), (8, "better")):
        a, b, gains = one_more_each(n)
        difference = FigureDifference.between(replace(a, slow=True), b)
        found = judged(difference)
        half = t_value(n - 1, 0.95) * float(np.std(gains, ddof=1)) / math.sqrt(n)
        assert found.verdict == verdict and found.p_value >= 0.5 ** (n - 1), n
        bounds = difference.bounds()
        assert (bounds.high - bounds.low) / 2 == pytest.approx(half, rel=0.15), n
    flat = FigureDifference.between(a, b)
    unknown = replace(flat, values=(0.25,) * 8)  # as of a median, which small weights do not move
    assert unknown.p_value == max(0.5**7, 2 * unknown.p_above(0.0)) and unknown.bounds() != flat.bounds()


def test_a_comparison_of_figures_with_strata_has_the_error_within_them() -> None:
    parts = np.stack([np.array([3.0, 2.0, 3.0, 2.0, 3.0, 3.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0]), np.full(12, 4.0)], 1)
    a, b = shares(parts), shares(np.stack([np.ones(12), np.full(12, 4.0)], 1))
    groups = TaskGroups({}, {task: "xy"[place > 5] for place, task in enumerate(a.tasks)})
    found, plain = FigureDifference.between(a, b, groups), FigureDifference.between(a, b)
    scores = {task: [part / 4] for task, part in zip(a.tasks, parts[:, 0], strict=True)}
    within = Differences.between(scores, {task: [0.25] for task in scores}, groups)
    assert (found.strata, plain.strata) == (tuple(f"in {groups.strata[task]}" for task in sorted(a.tasks)), None)
    assert found.p_above(0.0) == pytest.approx(max(within.p_above(0.0), (1 + sum(d <= 0 for d in found.draws)) / 10001))
    assert found.p_value < plain.p_value == pytest.approx(sign_flip([x - 1 for x in parts[:, 0]]), rel=1e-6)


def test_comparisons_of_equal_agents_figures_keep_their_level_and_find_what_many_tasks_show() -> None:
    rng = np.random.default_rng(7)

    def made(n: int, right: float) -> Figure:
        sizes = rng.integers(1, 8, n)
        return shares(np.stack([rng.binomial(sizes, right), sizes], 1).astype(float))

    for n, clusters in ((3, 0), (5, 0), (8, 0), (20, 2), (40, 4)):
        groups = {f"t{task}": str(task * clusters // n) for task in range(n)} if clusters else None
        found = [FigureDifference.between(made(n, 0.7), made(n, 0.7), groups, draws=400).p_value for _ in range(60)]
        assert sum(p < 0.05 for p in found) <= 7, (n, clusters)
    found = [FigureDifference.between(made(80, 0.7), made(80, 0.6), draws=400).p_value for _ in range(40)]
    assert sum(p < 0.05 for p in found) >= 16


def test_equal_draws_but_for_rounding_tell_no_detectable_effect_and_no_number_of_tasks() -> None:
    a, b = (shares(np.array([[right, 4.0]] * 3)) for right in (3.0, 2.0))
    equal = FigureDifference.between(a, b)
    rounded = replace(equal, draws=(0.25 - 1e-16, 0.25, 0.25 + 1e-16))
    for found in (equal, rounded, FigureDifference(0.3, (0.3, 0.1 + 0.2), 3, (3, 0), unit=True)):
        assert found.equal and found.error == 0.0 and math.isnan(judged(found).detectable)
    assert replace(equal, draws=(0.25, 0.25 + 1e-9)).error > 0
    made = Check("a", "b", "s", 0.05, rounded.reversed, 0.95, "pass", "")
    (ruled,) = rule([made])
    assert ruled.ruling == "inconclusive" and ruled.reason.endswith("5.00% is allowed")


def test_equal_draws_leave_possible_what_so_many_units_do() -> None:
    equal = FigureDifference(0.5, (0.5, 0.5, 0.5), 9, (3, 0), labels=("a", "a", "b"), unit=True)
    unseen = unseen_share(2, 0.9)
    assert equal.bounds(0.9) == pytest.approx((0.5 * (1 - unseen) - unseen, 0.5 * (1 - unseen) + unseen))
    assert equal.sure_bounds(0.9) == equal.bounds(0.9)
    assert equal.p_above(0.2) == pytest.approx((1.2 / 1.5) ** 2) == equal.surely_above(0.2)
    assert (equal.p_above(0.5), equal.p_above(-2.0), equal.p_below(0.2)) == (1.0, 0.0, 1.0)
    assert (equal.reversed.counts, equal.reversed.mean, equal.reversed.num_units) == ((0, 3), -0.5, 2)
    assert equal.p_below(0.75) == pytest.approx((0.25 / 0.5) ** 2), "of -0.5 above -0.75"
    assert replace(equal, unit=False).p_above(0.2) == 1.0
    assert replace(equal, unit=False).bounds(0.9) == (-math.inf, math.inf) and equal.method == "equal draws"


# -- figures of scores --


def test_shares_are_read_only_where_they_are_whole() -> None:
    def share(body: Any, **more: Any) -> Any:
        return _share(trace("i", scores=(Score("s", 0.5, {} if body is None else {"corpus": body}),), **more), "s")

    good = {"figure": "share", "sums": [1, 2.5]}
    assert share(good) == good
    for bad in (None, {"figure": "none", "sums": [1, 2]}, {"figure": "share", "sums": [1]}, {"figure": "share"},
                {"figure": "share", "sums": (1, 2)}, {"figure": "share", "sums": [1, "2"]}, {"sums": [1, 2]},
                {"figure": "share", "sums": [1, math.inf]}):  # fmt: skip
        assert share(bad) is None
    assert share(good, error=Failure("Gone", "x")) is None
    assert _share(trace("i"), "other") is None


def test_a_figure_adds_up_the_shares_of_a_task_and_takes_failed_ones_for_empty() -> None:
    shares: Any = [
        ("t1", 0.5, {"sums": [1.0, 2.0, 0.0]}), ("t2", None, None), ("t1", None, {"sums": [2.0, 0.0, 1.0]}),
        ("t3", None, None), ("t4", 0.25, {"sums": [0.0, 1.0, 1.0]}),
    ]  # fmt: skip
    empties = {"t2": [0.0, 0.0, 4.0], "t1": [0.0, 0.0, 1.0]}
    found = _summed("s", "micro_f1", shares, empties, [])
    assert (found.name, found.tasks, found.lower_is_better, found.by_chance) == ("s", ("t1", "t2", "t4"), False, None)
    assert found.values == {"t1": [0.5, 0.0], "t2": [0.0], "t4": [0.25]}
    assert found.of(np.array([[1.0, 1.0, 0.0], [2.0, 0.0, 1.0]])).tolist() == pytest.approx(
        [6 / (6 + 2 + 1 + 4), 12 / (12 + 4 + 2 + 2)]
    )
    assert _summed("s", "micro_f1", shares, {}, []).tasks == ("t1", "t4")
    of_all = _summed("s", "micro_f1", shares, empties, [0.0, 0.0, 2.5])
    assert of_all.tasks == ("t1", "t2", "t3", "t4") and of_all.values["t3"] == [0.0]
    once = np.array([[0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 1.0, 0.0]])
    assert of_all.of(once).tolist() == pytest.approx([0.0, 6 / (6 + 2 + 1 + 2.5)])
    bins = [0.0] * 30
    bins[3:6] = [2.0, 0.3, 1.0]
    calibrated = _summed("c", "calibration_error", [("t", 0.5, {"sums": bins}), ("u", None, None)], {}, [])
    assert calibrated.tasks == ("t",) and calibrated.lower_is_better and calibrated.by_chance is not None
    assert calibrated.by_chance().tolist() == calibrated_bins(np.array([bins])).tolist()


def test_stated_confidences_make_a_figure_by_task_and_only_sound_ones_count() -> None:
    def sure(task: str, confidence: Any, value: float = 1.0, name: str = "s", **more: Any) -> Any:
        detail = {} if confidence is None else {"confidence": confidence}
        return trace(f"{task}{confidence}", task, scores=(Score(name, value, detail, **more),))

    assert _stated(sure("a", 0.75, 0.5), "s") == (0.75, 0.5) and _stated(sure("a", 0), "s") == (0.0, 1.0)
    assert _stated(sure("a", 1), "s") == (1.0, 1.0)
    for bad in (None, 1.01, -0.01, "0.5"):
        assert _stated(sure("a", bad), "s") is None
    assert _stated(sure("a", 0.5, failure="x"), "s") is None is _stated(sure("a", 0.5, name="t"), "s")
    share = {"confidence": 0.5, "corpus": {"figure": "share", "sums": [1, 2]}}
    assert _stated(trace("i", scores=(Score("s", 1.0, share),)), "s") is None
    assert _stated(trace("i", scores=(Score("s", 1.0, {"confidence": 0.5}),), error=Failure("Gone", "x")), "s") is None
    made = [sure("b", 0.75, 1.0), sure("a", 0.5, 0.0), sure("c", None), sure("b", 0.25, 1.0)]
    found = _of_confidences(made, "s")
    assert (found.name, found.tasks, found.lower_is_better, found.method) == (
        CALIBRATION,
        ("b", "a"),
        True,
        "percentile",
    )
    assert found.values == {"b": [0.25, 0.75], "a": [0.5]}
    weights = np.array([[1.0, 2.0], [2.0, 0.0]])
    pairs = ((0.75, 0.25, 0.5), (1.0, 1.0, 0.0))
    expected = rms_calibration_errors(*pairs, np.array([[1.0, 1.0, 2.0], [2.0, 2.0, 0.0]]))
    assert found.of(weights).tolist() == pytest.approx(expected.tolist())
    assert found.by_chance is not None and found.by_chance().tolist() == calibrated_rms(pairs[0]).tolist()
    assert _of_confidences([sure("c", None)], "s").tasks == ()
    agents = figures({"one": [sure("z", 0.5), sure("a", 0.25)], "two": [sure("z", None)]})
    assert {agent: each.tasks for agent, each in agents[CALIBRATION].items()} == {"one": ("a", "z"), "two": ()}


def test_scores_of_one_name_are_a_figure_only_where_all_are_shares_of_one_formula() -> None:
    def attempt(task: str, formula: str = "share", sums: Any = (1, 4), *, agent: str = "a", **more: Any) -> Any:
        scores = (Score("s", 0.25, figure_detail(formula, sums)), Score("plain", 1.0))
        return trace(f"{agent}{task}", task, agent=agent, **{"scores": scores, **more})

    def lost(task: str) -> Any:
        return attempt(task, agent="b", error=Failure("Gone", "x"))

    agents = {
        "a": [attempt("t"), attempt("u", sums=(3, 6))],
        "b": [lost("u"), attempt("t", sums=(2, 4), agent="b"), lost("v")],
    }
    found = figures(agents)
    assert list(found) == ["s"] and {name: each.tasks for name, each in found["s"].items()} == {
        "a": ("t", "u"), "b": ("t", "u", "v"),
    }  # fmt: skip
    assert figure_value(found["s"]["a"]) == 0.4 and figure_value(found["s"]["b"]) == 2 / 15, (
        "2 of 4, none of 6 and of 5"
    )
    assert figure_value(figures(agents, errors=False)["s"]["b"]) == 0.5
    assert figures({"a": [attempt("t"), attempt("u", "micro_f1", (1, 0, 0))]}) == {}
    assert figures({"a": [attempt("t"), attempt("u", scores=(Score("s", 0.5),))]}) == {}
    failed = attempt("u", scores=(Score("s", 0.5, failure="x"),))
    assert figures({"a": [attempt("t"), failed]})["s"]["a"].tasks == ("t", "u") and figures({}) == {}


def test_a_slow_figure_is_of_the_indices_that_were_drawn() -> None:
    found = slow_figure("bleu", ("a", "b"), lambda chosen: sum(chosen) / 8 + isinstance(chosen, list), uncertainty=True)
    assert (found.name, found.tasks, found.method, found.slow, found.uncertainty) == (
        "bleu", ("a", "b"), "percentile", True, True,
    )  # fmt: skip
    assert found.of(np.array([[0.0, 3.0], [1.0, 1.0]])).tolist() == [1 + 3 / 8, 1 + 1 / 8]
    assert not slow_figure("x", (), lambda chosen: 0.0).uncertainty
