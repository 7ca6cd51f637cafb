"""Statistics of unusual inputs: 0 and empty texts given on purpose, chains, exact limits, options that are not defaults."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from firsthand.benchmark import Figure
from firsthand.errors import ConfigError
from firsthand.runs.score_totals import TaskMean
from firsthand.runs.task_groups import TaskGroups
from firsthand.stats.bootstrap import bootstrap, bootstrap_interval, bootstrap_sums
from firsthand.stats.breakdown import Cell, _rank, _scores, _value, check, grids
from firsthand.stats.comparison_design import Design, _grouped, from_one, from_pair
from firsthand.stats.effective_length import Effective, effective
from firsthand.stats.figure_stats import FigureDifference, figure_interval
from firsthand.stats.intervals import Interval, bisect, mean_interval, z_value
from firsthand.stats.multiple_comparisons import all_pairs, compare_to_baseline, corrected, difference
from firsthand.stats.non_inferiority import Check, Gaps, rule, verdict
from firsthand.stats.paired import Differences, judged
from firsthand.stats.power_analysis import (
    epochs_needed,
    margin_tasks_needed,
    paired_tasks_needed,
    smallest_detectable,
    spread,
    tasks_needed,
)
from firsthand.stats.rater_agreement import Judged, agreement, majority
from firsthand.stats.strata import joined_strata, strata_units, stratified_error, stratified_freedom
from same_values import same


def test_strata_that_are_joined_one_after_another_have_one_name() -> None:
    # b and c share cluster 1; a and b cluster 2, so c is below b, which is below a; e and f join last, d is alone
    strata, clusters = ["b", "c", "a", "b", "d", "c", "e", "f"], ["1", "1", "2", "2", "3", "4", "5", "5"]
    assert joined_strata(strata, clusters) == ["a", "a", "a", "a", "d", "a", "e", "e"]
    units = strata_units([1.0, 0.5, 0.25, 0.0, 0.75, 0.125, 0.5, 1.0], strata, clusters)
    # d and e have one unit each: they are taken together
    assert units == (((1.5, 2), (0.25, 2), (0.125, 1)), ((0.75, 1), (1.5, 2)))
    first, second = 1.875 / 5, 2.25 / 3
    squares = [(1.5 - 2 * first) ** 2 / 0.6, (0.25 - 2 * first) ** 2 / 0.6, (0.125 - first) ** 2 / 0.8]
    squares += [(0.75 - second) ** 2 / (2 / 3), (1.5 - 2 * second) ** 2 / (1 / 3)]
    assert stratified_error(units) == pytest.approx(math.sqrt(sum(squares)) / 8)
    crossed = [4 / 0.6 / 5, 4 / 0.6 / 5, 1 / 0.8 / 5]
    three = 25 / (9 + sum(crossed) ** 2 - sum(each * each for each in crossed))
    pair = [1 / (2 / 3) / 3, 4 / (1 / 3) / 3]
    two = 9 / (5 + sum(pair) ** 2 - sum(each * each for each in pair))
    assert stratified_freedom(units) == pytest.approx(64 / (25 / three + 9 / two))
    lone = strata_units([1.0, 0.0, 0.5, 0.25, 0.5, 0.75], ["x", "x", "x", "y", "z", "z"])
    assert lone == (((0.5, 1), (0.75, 1), (0.25, 1)), ((1.0, 1), (0.0, 1), (0.5, 1))), "it joins the smallest"


def test_a_bias_of_0_and_a_verdict_that_changed_are_known_and_an_empty_text_names_a_cluster() -> None:
    items = [
        Judged("i1", ("A", "A", "tie"), "A", "", "A", 0.0, False),
        Judged("i2", ("B", "tie"), "B", "", "A", 1.0, True),
        Judged("i3", ("tie", "B"), "tie", None, None, 0.0, False),
        Judged("i4", ("B", "A"), "A", None, "B", None, None),
    ]
    found = agreement(items, 0.8)
    assert (found.items, found.votes) == (4, 9)
    by_cluster = {"i1": "", "i2": ""}
    assert found.first == mean_interval({"i1": [0.0], "i2": [1.0], "i3": [0.0]}, 0.8, by_cluster)
    assert found.consistent == mean_interval({"i1": [0.0], "i2": [1.0], "i3": [0.0]}, 0.8, by_cluster)
    assert found.first.clusters == 2 and found.with_humans.clusters == 3, "i1 and i2 are one"
    assert found.with_humans.value == pytest.approx((2 / 3 + 1 / 2 + 1 / 2 + 1 / 2) / 4)
    assert found.among_humans is not None and found.among_humans.value == pytest.approx((1 / 3 + 0 + 0 + 0) / 4)
    assert found.decided is not None and found.decided.value == pytest.approx(
        (2 / 3 + 1 / 2 + 1 / 2) / (2 / 3 + 1 / 2 + 1)
    )
    assert found.longer_judge is not None and found.longer_judge.value == pytest.approx(1 / 3)
    assert found.longer_humans is not None
    assert found.longer_humans.value == pytest.approx((2 / 3 + 0 + 1 / 2) / (2 / 3 + 1 / 2 + 1))
    assert found.length_bias is not None
    assert found.length_bias.value == pytest.approx(found.longer_judge.value - found.longer_humans.value)
    assert found.kappa_humans is None, "three people at the first item, two at the others"
    body = found.to_json()
    assert list(body) == list(vars(found)) and body["first"] == found.first.to_json() and body["kappa_humans"] is None
    same = agreement([Judged("a", ("A", "A"), "A"), Judged("b", ("A", "A"), "A")])
    assert math.isnan(same.kappa_humans or 0) and same.to_json()["kappa_humans"] is None
    assert same.first is same.consistent is same.longer_judge is same.longer_humans is same.length_bias is None
    alone = agreement([Judged("a", ("A", "A"), "B"), Judged("b", ("B",), "B")])
    assert alone.among_humans is alone.alpha_humans is alone.kappa_humans is None and alone.with_humans.value == 0.5
    assert majority(["A", "B"]) is None and majority(["B", "A", "B"]) == "B" and majority(["tie"]) == "tie"
    with pytest.raises(ConfigError, match=r"^item x has the label 'C': A, B or tie was expected"):
        agreement([Judged("x", ("A", "D"), "C")])
    with pytest.raises(ConfigError, match=r"^item y has no human vote"):
        agreement([Judged("x", ("A",), "A"), Judged("y", (), "B")])


def cell(value: Any, score: tuple[float, float, float], agent: str = "a") -> Cell:
    return Cell("b", agent, (value,), Interval(*score, 4), 4, 0)


def test_the_value_0_may_be_the_last_length_and_a_threshold_of_0_is_one() -> None:
    rows = [cell(0, (0.5, 0.5, 0.75)), cell(8, (0.25, 0.0, 0.5)), cell(16, (0.125, 0.0, 0.25)), cell(9, (1, 1, 1), "z")]
    found, other = effective(rows, 0.5)
    assert found == Effective("b", "a", 0.5, 0, 0, 16, (), False) and other.agent == "z" and other.is_end
    assert found.sentence("length") == (
        "a on b: the last length that reaches 0.5 is 0; surely reached up to 0, surely not at 16."
    )
    upside = [cell(16, (0.0, 0.0, 0.25)), cell(0, (0.0, 0.0, 0.25)), cell(8, (0.75, 0.25, 1.0))]
    (turned,) = effective(upside, 0.5)
    assert turned == Effective("b", "a", 0.5, 8, None, 16, (16, 0), True)
    assert turned.sentence("depth") == (
        "a on b: the last depth that reaches 0.5 is 8, where the measurement ends (but 16, 0 does not); "
        "surely reached at none, surely not at 16."
    )
    (all_,) = effective(upside, 0.0)
    assert all_ == Effective("b", "a", 0.0, 8, 8, None, (), True)
    (none,) = effective(upside[1:2], 0.25)
    assert none == Effective("b", "a", 0.25, None, None, None, (), False), "its upper bound is the threshold"
    assert (
        replace(none, failing=0).sentence("k") == "a on b: no k reaches 0.25; surely reached at none, surely not at 0."
    )
    assert list(none.to_json()) == [
        "benchmark", "agent", "threshold", "last", "sure", "failing", "gaps", "is_end", "lower_is_better",
    ]  # fmt: skip


def test_cells_keep_0_apart_from_nothing_and_cut_long_values() -> None:
    assert [_value(each) for each in (0, 0.0, "", None, False, " x ")] == [0, 0.0, "", "", "false", " x "]
    assert _value(["é"] * 40) == '["é", ' + '"é", ' * 14 + '"é",' and len(str(_value(["é"] * 40))) == 80
    assert sorted(["b", 10, "", 9.5, -1], key=_rank) == [-1, 9.5, 10, "", "b"]
    task = TaskMean("b", "a", "t", 0.75, 4, 4, True)
    assert _scores(task) == [1.0, 1.0, 1.0, 0.0] and _scores(replace(task, binary=False)) == [0.75]
    assert _scores(replace(task, mean=0.0)) == [0.0] * 4
    check(["one"], [{}, {"one": 0}]), check(["two", "one"], [{"two": 1}, {"one": 1}])
    for by, text in (
        ([], "by is ''"), (["one", "one"], "by is 'one,one'"),
        (["ones"], r"^no task of the run has 'ones' in its metadata; did you mean 'one'\? there are one, zz$"),
        (["one", "qqqqq"], r"^no task of the run has 'qqqqq' in its metadata; there are one, zz$"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=text):
            check(by, [{"zz": 1}, {"one": 1}])
    with pytest.raises(ConfigError, match=r"there are none$"):
        check(["one"], [])
    pair = [
        replace(cell(0, (0.5, 0.25, 0.75)), values=(5, "x")), replace(cell(0, (0.5, 0.25, 0.75)), values=("", 0)),
        replace(cell(0, (0.5, 0.25, 0.75), "z"), values=(0, 2)),
    ]  # fmt: skip
    first, second = grids(pair, ["depth", "length"])
    assert (first.agent, first.by, first.rows, first.columns) == ("a", ("depth", "length"), (5, ""), (0, "x"))
    assert first.cells == {(5, "x"): pair[0], ("", 0): pair[1]} and first.column_name == "length"
    assert (second.agent, second.rows, second.columns) == ("z", (0,), (2,))
    (column,) = grids([cell(0, (0.5, 0.25, 0.75))], ["length"])
    assert (column.rows, column.columns, column.column_name) == ((0,), ("",), "") and list(column.cells) == [(0, "")]
    assert pair[0].to_json(["depth", "length"]) == {
        "benchmark": "b", "agent": "a", "by": {"depth": 5, "length": "x"}, "score": pair[0].score.to_json(),
        "attempts": 4, "errors": 0,
    }  # fmt: skip


def test_plans_at_their_limits() -> None:
    errors = z_value(0.9) + z_value(0.8)  # power 0.9
    levels = {"confidence": 0.9, "power": 0.9}
    assert epochs_needed(0.1, 50, 50 * 0.1**2 / errors**2, (1.0, 2.0), **levels) is None, "nothing is left to them"
    assert epochs_needed(0.5, 50, 0.25, (0.25, 0.5), **levels) == 1
    allowed = 20 * 0.25**2 / errors**2 - 0.05
    assert epochs_needed(0.25, 20, 0.05, (0.25, 0.5), **levels) == math.ceil(0.75 / allowed) == 8
    assert tasks_needed(0.25, 0.0) == 1, "a variance of 0 needs a task"
    assert tasks_needed(0.25, 0.5, (0.25, 1.0), (2, 5), **levels) == math.ceil(errors**2 * (0.5 + 0.125 + 0.2) / 0.0625)
    assert smallest_detectable(9, sd=0.0) == 0.0 and smallest_detectable(9, sd=1.5, **levels) == pytest.approx(
        errors / 2
    )
    assert 0 < smallest_detectable(400, disagreement=0.0) < 0.05, "a share of 0 is given on purpose"
    assert smallest_detectable(1, disagreement=0.5) == 1.0
    with pytest.raises(ConfigError, match=r"^n is 4, disagreement 0\.0, sd 0\.0: "):
        smallest_detectable(4, disagreement=0.0, sd=0.0)
    with pytest.raises(ConfigError, match=r"^n is 0, disagreement None, sd 1: "):
        smallest_detectable(0, sd=1)
    assert paired_tasks_needed(0.25, 0.25) == math.ceil(
        (z_value(0.95) * 0.5 + z_value(0.6) * math.sqrt(0.1875)) ** 2 * 16 + 4
    )
    paired_tasks_needed(0.25, 1.0)
    with pytest.raises(ConfigError, match=r"^disagreement is 0\.2 and effect 0\.25"):
        paired_tasks_needed(0.25, 0.2)
    margin = (z_value(2 * 0.9 - 1) + z_value(0.8)) ** 2 * 0.5 / 0.01
    assert margin_tasks_needed(0.1, 0.5, **levels) == math.ceil(margin)
    for effect in (0.0, -0.1, math.inf):
        with pytest.raises(ConfigError, match=r"^effect is "):
            tasks_needed(effect, 0.5)
    assert spread({"a": [1.0], "b": [], "c": [0.0, 1.0, 0.5]}).to_json() == {
        "between": pytest.approx(0.125 - 0.25 * (1 + 1 / 3) / 2) if 0.125 > 0.25 * 2 / 3 else 0.0,
        "within": 0.25, "tasks": 2, "attempts": 4,
    }  # fmt: skip
    assert bisect(lambda x: x - 0.3, 0.0, 1.0) == pytest.approx(0.3, abs=1e-15)


def test_a_plan_needs_two_tasks_and_a_correlation_up_to_1() -> None:
    scores = {"t1": [1.0], "t2": [0.0], "t3": [], "t4": [0.5]}
    for correlation, share in ((-1, 4), (1, 0), (0, 2)):
        found = from_one(scores, correlation, confidence=0.9, power=0.7)
        assert found == Design(
            pytest.approx(share * 0.25), None, None,
            f"one agent on 3 tasks, and a correlation of {correlation} assumed for single attempts", 0.9, 0.7,
        )  # fmt: skip
    for correlation in (-1.01, 1.01):
        with pytest.raises(ConfigError, match=rf"^correlation is {correlation}: "):
            from_one(scores, correlation)
    with pytest.raises(ConfigError, match=r"^there are scores on 1 task: "):
        from_one({"t1": [1.0, 0.0], "t2": []}, 0.5)
    with pytest.raises(ConfigError, match=r"^the agents have 1 task in common: "):
        from_pair({"t1": [1.0], "t2": [0.0]}, {"t1": [0.0], "t3": [1.0]})
    several = from_one({"t1": [1.0, 0.0], "t2": [0.0, 0.0], "t3": [1.0]}, 0.5)
    assert several.within == (0.25, 0.25) and several.basis.endswith("a correlation of 0.5 assumed for task means")
    pair = from_pair({"t2": [0.25], "t1": [1.0], "t4": [0.5]}, {"t1": [0.5], "t2": [0.0]}, confidence=0.9, power=0.7)
    assert pair == Design(pytest.approx(0.03125), None, None, "both measured on 2 tasks, one attempt each", 0.9, 0.7)
    plan = Design(0.5, None, None, "x", 0.9, 0.7)
    assert plan.tasks(0.25, 2) is plan.effect(50, 2) is None and plan.tasks(0.25, 1) == plan.tasks(0.25)
    needed = plan.tasks(0.25)
    assert needed is not None and plan.epochs(0.25, needed) == 1 and plan.epochs(0.25, needed - 1) is None
    assert plan.effect(50) == pytest.approx((z_value(0.9) + z_value(0.4)) * math.sqrt(0.5 / 50))
    wide = _grouped(plan, 3.0, 2.0)
    assert wide == replace(plan, design_effect=2.25, basis="x, clusters multiplying the variance by 2.2")
    assert _grouped(plan, 2.0, 2.5).basis == "x, strata reducing the variance to 0.64"
    assert _grouped(plan, 0.0, 2.0) == _grouped(plan, 2.0, 0.0) == _grouped(plan, 2.0, 2.0) == plan
    assert wide.tasks(0.25) == math.ceil(needed * 2.25) and replace(wide, disagreement=0.3).effect(9) == (
        smallest_detectable(4, disagreement=0.3, confidence=0.9, power=0.7)
    )
    assert replace(wide, within=(0.5, 0.25)).effect(50, 3) == pytest.approx(
        (z_value(0.9) + z_value(0.4)) * math.sqrt(2.25 * (0.5 + 0.25) / 50)
    )


def test_comparisons_take_clusters_and_confidence_and_none_make_none() -> None:
    a = {"t1": [1.0], "t2": [0.75], "t3": [0.5], "t4": [0.0], "t5": [0.25]}
    b = {"t5": [0.5], "t4": [0.25], "t3": [0.0], "t2": [0.25], "t1": [0.25], "t0": [1.0]}
    c = {task: [each[0] ** 2] for task, each in a.items()}
    groups = {"t1": "g", "t2": "g", "t4": "h", "t5": "h"}
    found = compare_to_baseline({"a": a, "c": c}, b, 0.8, groups)
    assert list(found) == ["a", "c"]
    apart = [Differences.between(each, b, groups) for each in (a, c)]
    assert list(found.values()) == corrected(apart, "holm", 0.8) and found["a"].clusters == 3
    assert found["a"].difference == pytest.approx((0.75 + 0.5 + 0.5 - 0.25 - 0.25) / 5)
    assert found["a"].low <= judged(apart[0], 0.9).low and found["a"].high >= judged(apart[0], 0.9).high
    pairs = all_pairs({"a": a, "b": b, "c": c}, "none", 0.7, groups)
    assert list(pairs) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert pairs["a", "b"] == judged(Differences.between(b, a, groups), 0.7)
    assert pairs["b", "c"] == judged(difference(c, b, groups), 0.7)
    for kind in ("holm", "bh", "none"):
        assert corrected([], kind) == []  # type: ignore[arg-type]


def test_a_gate_of_no_checks_passes_and_each_gap_alone_fails_one() -> None:
    level = Differences((0.0, 0.25, -0.25, 0.125), False, True)
    for gaps, text in (
        (Gaps(baseline_errors=1), "1 attempt of the baseline without a score"),
        (Gaps(candidate_errors=2), "2 attempts of the candidate without a score"),
        (Gaps(missing=1), "1 task that the candidate did not attempt"),
        (Gaps(changed=3), "3 tasks not the same in both runs"),
    ):
        made = Check("a", "b", "s", 0.5, level, 0.9, "pass", "", gaps)
        (failed,), (kept,) = rule([made]), rule([made], gaps_fail=False)
        assert bool(gaps) and (failed.ruling, failed.reason) == ("fail", f"errors: {text}")
        assert kept.ruling == "pass" and kept.reason == "a drop of more than 50.00% is excluded", "its gaps are known"
    assert not Gaps() and str(Gaps(1, 2, 3, 1)).count(", ") == 3 and rule([]) == []
    assert verdict([]) == "pass" and verdict([failed, kept]) == "fail"
    (unsure,) = rule([Check("a", "b", "s", 0.0, level, 0.9, "pass", "")])
    assert [verdict([kept, unsure], each) for each in ("report", "pass", "fail")] == ["inconclusive", "pass", "fail"]  # type: ignore[arg-type]
    assert unsure.reason == (
        f"a drop of {-unsure.bounds.low:.2%} is still possible, and no number of tasks excludes every drop: "
        "allow a small one"
    )
    empty = Check("a", "b", "s", 0.0, Differences((), True, True), 0.9, "pass", "", baseline=0.5)
    (none,) = rule([empty])
    assert (none.ruling, none.reason) == ("inconclusive", "no task has a score on both sides")
    assert none.to_json() | {"x": 0} == {
        "agent": "a", "benchmark": "b", "score": "s", "ruling": "inconclusive", "reason": none.reason, "max_drop": 0.0,
        "confidence": 0.9, "tasks": 0, "baseline": 0.5, "candidate": None, "difference": None, "low": None, "high": None,
        "better": 0, "worse": 0, "worse_tasks": [], "errors": {"baseline": 0, "candidate": 0}, 
        "above_one": 0, "missing": 0,
        "changed": 0, "flaky": [], "no_agent": False, "unmade": {"baseline": 0, "candidate": 0}, "evened": 0, "x": 0,
        "reduce": "mean", "retried": {side: {"attempts": 0, "most": 0} for side in ("baseline", "candidate")},
    }  # fmt: skip


def test_options_of_a_bootstrap_arrive_and_figures_without_an_interval_have_none() -> None:
    values = np.array([0.0, 1.0, 4.0, 9.0, 2.0, 7.0])
    labels, options = list("aabbcd"), {"method": "percentile", "confidence": 0.6, "resamples": 40, "seed": 5}
    found = bootstrap(lambda counts: counts @ values / counts.sum(axis=1), 6, labels=labels, **options)  # type: ignore[arg-type]
    sums = np.stack([values, np.ones(6)], axis=1)
    close = [pytest.approx(each) if isinstance(each, float) else each for each in vars(found).values()]
    for other in (
        bootstrap_interval(lambda chosen: float(values[chosen].mean()), 6, labels=labels, **options),
        bootstrap_sums(sums, lambda rows: rows[:, 0] / rows[:, 1], labels=labels, **options),
    ):
        assert list(vars(other).values()) == close and (other.method, other.clusters) == ("percentile bootstrap", 4)
    for name, value in {"confidence": 0.9, "resamples": 41, "seed": 6, "method": "bca"}.items():
        changed = bootstrap(
            lambda counts: counts @ values / counts.sum(axis=1), 6, labels=labels, **options | {name: value}
        )  # type: ignore[arg-type]
        assert changed != found, name

    def of(counts: Any) -> Any:
        return counts @ np.array([0.25, 0.75, 0.5]) / 3

    figure = Figure("f", ("t1", "t2", "t3"), of)
    unsure = figure_interval(replace(figure, uncertainty=True), None, 0.8)
    assert (
        (unsure.value, unsure.n, unsure.method) == (0.5, 3, "none")
        and math.isnan(unsure.low)
        and math.isnan(unsure.high)
    )
    with np.errstate(divide="ignore"):
        wild = figure_interval(replace(figure, of=lambda counts: 1 / counts[:, 0]), None, 0.8)
    assert same(wild, Interval(1.0, -math.inf, math.inf, 3, error=wild.error))
    nothing = figure_interval(Figure("f", (), of), None, 0.8)
    assert math.isnan(nothing.value) and (nothing.low, nothing.high, nothing.n) == (-math.inf, math.inf, 0)
    other = Figure("f", ("t4", "t3", "t2"), lambda counts: counts @ np.array([1.0, 0.0, 0.25]) / 3)
    pair = FigureDifference.between(figure, other, TaskGroups({"t2": "g", "t3": "g"}, {}), 30)
    assert (pair.n, pair.num_units, pair.draws) == (2, 1, ()) and pair.mean == pytest.approx(
        (0.75 + 0.5) / 3 - 0.25 / 3
    )
    free = FigureDifference.between(figure, other, None, 30)
    assert len(free.draws) == 30 and free.labels is None and free.values == pytest.approx([2 / 3 * 0.5, 2 / 3 * 0.5])
