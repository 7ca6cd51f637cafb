"""Single terms of the statistics, worked out by hand: chunks of draws, planned variances, clusters in strata, rounding."""

import itertools
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from firsthand.runs.store import create
from firsthand.runs.task_groups import TaskGroups
from firsthand.stats.bootstrap import _corrected, bootstrap, drawn, unit_strata
from firsthand.stats.comparison_design import Design, from_one
from firsthand.stats.intervals import interval_of, mean_interval, moments, proportion_interval
from firsthand.stats.joint_ranks import rank_ranges, told_apart
from firsthand.stats.paired import LARGE_N, Differences, PairedDifference, sign_flip, tango_statistic
from firsthand.stats.stored_figures import own_figures


def test_the_last_draws_of_many_tasks_are_those_that_were_left_to_make() -> None:
    unit_T = np.zeros(1_500_000, np.int64)  # 2 draws at a time, as 4,000,000 counts hold them
    unit_T[7:] = 1
    chunks = [(len(each), each.dtype, each[:, 6:8].sum(1).tolist()) for each in drawn(unit_T, 3, seed=1)]
    assert chunks == [(2, np.float64, [2.0, 2.0]), (1, np.float64, [2.0])], "2 units are drawn each time"
    few = list(drawn(np.array([0, 1, 1, 2, 3]), 5, 3, np.array([0, 1, 0, 1])))
    assert [each.shape for each in few] == [(5, 5)] and (few[0][:, 1] == few[0][:, 2]).all()
    # units 0 and 2 are one stratum, 1 and 3 the other: two draws of each
    assert (few[0][:, 0] + few[0][:, 3] == 2).all() and (few[0][:, 1] + few[0][:, 4] == 2).all()
    assert list(drawn(np.array([0, 1]), 0)) == []


def test_few_units_of_a_stratum_join_the_first_of_the_smallest_large_enough() -> None:
    assert unit_strata(np.arange(15), ["a"] * 3 + ["b"] * 12) is None, "both are one"
    cases = {(3, 12, 12): "bbc", (3, 12, 11): "cbc", (12, 4, 5): "aaa", (12, 5, 5): "abb", (10, 9, 10): "aac"}
    for sizes, joined in cases.items():
        strata = [name for name, size in zip("abc", sizes, strict=True) for _ in range(size)]
        found = unit_strata(np.arange(sum(sizes)), strata)
        wanted = [name for name, size in zip(joined, sizes, strict=True) for _ in range(size)]
        same = None if found is None else [[x == y for y in found] for x in found]
        assert same == (None if len(set(joined)) == 1 else [[x == y for y in wanted] for x in wanted]), sizes


def test_the_jackknife_is_centred_in_each_stratum_up_to_its_most_groups() -> None:
    for n in (500, 501):
        values, strata = np.arange(n) ** 2 / n, ["a"] * 400 + ["b"] * (n - 400)

        def mean(counts_DT: np.ndarray, values: np.ndarray = values) -> np.ndarray:
            return counts_DT @ values / counts_DT.sum(1)

        stratum_U = np.repeat([0, 1], [400, n - 400])
        draws = np.concatenate([mean(each) for each in drawn(np.arange(n), 60, 3, stratum_U)])
        left = np.array([mean((np.arange(n) % 500 != group)[None].astype(float))[0] for group in range(500)])
        if n == 500:
            left = np.concatenate([left[:400] - left[:400].mean(), left[400:] - left[400:].mean()])
        tails = [_corrected(tail, values.mean(), draws, left) for tail in (0.05, 0.95)]
        found = bootstrap(mean, n, strata=strata, confidence=0.9, resamples=60, seed=3)
        assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, tails)), abs=1e-12), n


def test_a_plan_from_one_agent_has_twice_the_variance_that_its_correlation_leaves() -> None:
    several = {"a": [0.0, 2.0], "b": [4.0, 6.0], "c": [5.0, 11.0], "none": []}
    # within: (2 + 2 + 18) / 3; the means 1, 5 and 8 have the variance 37/3, of which within / 2 is noise
    found = from_one(several, 0.25, confidence=0.9, power=0.7)
    about = "one agent on 3 tasks, and a correlation of 0.25 assumed"
    within = 22 / 3
    assert found == Design(
        pytest.approx(1.5 * (37 / 3 - 11 / 3)), (within, within), None, f"{about} for task means", 0.9, 0.7
    )
    single = from_one({"a": [1.0], "b": [3.0], "c": [8.0]}, 0.25)
    assert single == Design(pytest.approx(1.5 * 13), None, None, f"{about} for single attempts", 0.95, 0.8)
    binary = from_one({"a": [1.0], "b": [0.0], "c": [1.0]}, 0.25)  # the variance is 1/3
    assert binary == Design(pytest.approx(0.5), None, pytest.approx(0.5), f"{about} for single attempts", 0.95, 0.8)
    opposed = from_one({"a": [1.0], "b": [0.0], "c": [1.0]}, -1)
    assert opposed.between == pytest.approx(4 / 3) and opposed.disagreement == 1.0, "no more than all tasks disagree"


def test_clusters_within_strata_are_the_units_of_the_error() -> None:
    found = moments([1, 2, 4, 8, 16, 32], list("aabccd"), list("sssttt"))
    assert found.clusters == ((3, 2), (4, 1), (24, 2), (32, 1))
    assert found.strata == (((3, 2), (4, 1)), ((24, 2), (32, 1)))
    assert (found.n, found.mean, found.lowest, found.highest, found.binary) == (6, 10.5, 1, 32, False)
    # each stratum: (sum - tasks * mean)^2 / (1 - share) of each cluster; means 7/3 and 56/3
    first = (3 - 14 / 3) ** 2 / (1 / 3) + (4 - 7 / 3) ** 2 / (2 / 3)
    second = (24 - 112 / 3) ** 2 / (1 / 3) + (32 - 56 / 3) ** 2 / (2 / 3)
    assert found.error == pytest.approx(math.sqrt(first + second) / 6)
    alone = moments([1, 2, 4, 8, 16, 32], None, list("sssttt"))
    assert alone.clusters == () and alone.strata == (((1, 1), (2, 1), (4, 1)), ((8, 1), (16, 1), (32, 1)))


def test_wilsons_interval_is_that_of_the_successes_whatever_their_share_rounds_to() -> None:
    assert 0.29 * 100 < 29 and 0.57 * 100 < 57
    for wins, n in ((29, 100), (57, 100), (1, 49), (7, 25), (14, 25)):
        found = mean_interval([1.0] * wins + [0.0] * (n - wins), 0.9)
        assert (found.low, found.high) == proportion_interval(wins, n, 0.9), (wins, n)
        assert (found.value, found.n, found.method) == (wins / n, n, "Wilson")
    z, p = 1.6448536269514722, 0.29
    centre, half = (
        (p + z * z / 200) / (1 + z * z / 100),
        z * math.sqrt(p * (1 - p) / 100 + z * z / 40000) / (1 + z * z / 100),
    )
    assert proportion_interval(29, 100, 0.9) == pytest.approx((centre - half, centre + half))


def test_a_difference_whose_variance_is_rounding_noise_tells_nothing_apart() -> None:
    nearly = np.array([[1.0, 1 - 1e-12, 0.0], [1 - 1e-12, 1.0, 0.0], [0.0, 0.0, 2.0]])
    values = np.array([1e-4, 0.0, 5.0])
    # the third: 5 over the root of 3 is 2.89, beyond the quantile of one pair, 1.96, and of two, 2.24 by Bonferroni
    expected = [[False, False, False], [False, False, False], [True, True, False]]
    assert told_apart(values, nearly).tolist() == expected
    for given in ({}, {"critical": 2.0}):
        assert rank_ranges(values, nearly, **given) == [(2, 3), (2, 3), (1, 1)]
    small = np.array([[1.0, 1 - 1e-7], [1 - 1e-7, 1.0]])  # a variance of 2e-7: its root is 0.00045
    assert told_apart(np.array([0.0, 0.01]), small).tolist() == [[False, False], [True, False]]
    assert rank_ranges(np.array([0.0, 0.01]), small, critical=2.0) == [(2, 2), (1, 1)]
    noise = np.array([[1e6, 1e6 - 1e-4], [1e6 - 1e-4, 1e6]])  # 2e-4 of 2e6: 1e-10 of the variances
    assert not told_apart(np.array([0.0, 1.0]), noise).any()


def test_a_gate_of_0_1_scores_takes_the_larger_of_both_p_values() -> None:
    def won(better: int, worse: int, n: int) -> Differences:
        return Differences((1.0,) * better + (-1.0,) * worse + (0.0,) * (n - better - worse), True, True)

    lost = won(0, 3, 4)  # far below the bar: the normal's tail is the larger there
    normal = math.erfc(tango_statistic(0, 3, 4, 0.0) / math.sqrt(2)) / 2
    assert lost.surely_above(0.0) == lost.p_above(0.0) == normal > lost._corrected_tango(0.0) > 0.5
    two = won(2, 0, 2)  # one degree of freedom: Cauchy's distribution
    statistic = tango_statistic(2, 0, 2, 0.0, correction=0.5)
    assert two.surely_above(0.0) == pytest.approx(0.5 - math.atan(statistic) / math.pi)
    assert two.surely_above(0.0) > two.p_above(0.0)
    assert won(1, 0, 1).surely_above(0.0) == 1.0 and won(0, 0, 0).surely_above(0.0) == 1.0


def test_a_difference_is_stored_with_all_its_digits() -> None:
    found = PairedDifference(
        0.123456,
        0.01,
        math.inf,
        1.23456789e-7,
        30,
        12,
        5,
        13,
        "better",
        math.nan,
        "clustered t",
        9,
        lower_is_better=True,
    )
    assert found.to_json() == {
        "difference": 0.123456, "low": 0.01, "high": None, "p_value": 1.23456789e-7, "n": 30, "better": 12, "worse": 5,
        "same": 13, "verdict": "better", "detectable": None, "method": "clustered t", "clusters": 9,
    }  # fmt: skip


def test_signs_as_observed_are_as_extreme_as_themselves_despite_rounding() -> None:
    for tenths in ([1] * 10, [1, 2, 3], [1, 2, -3, 7, 7], [3, -1, 1, 1, 6, 6, 7], [7, 1, 1, -4, 0, 3, 3, 1]):
        sums = [
            abs(sum(s * x for s, x in zip(signs, tenths, strict=True)))
            for signs in itertools.product((1, -1), repeat=len(tenths))
        ]
        share = Fraction(sum(each >= abs(sum(tenths)) for each in sums), len(sums))
        assert sign_flip([each / 10 for each in tenths]) == float(share), tenths
    assert sign_flip([0.1] * 10) == 2 / 1024 and sign_flip([]) == sign_flip([0.0, 0.0]) == 1.0
    # 11 of 15 equal differences are positive: as extreme are 11 or more of either sign
    exact = 2 * sum(math.comb(15, k) for k in range(11, 16)) / 2**15
    assert sign_flip([0.1] * 11 + [-0.1] * 4) == pytest.approx(exact, abs=0.01)
    # 78 of 150, which are drawn in two parts of unlike size
    exact = 2 * sum(math.comb(150, k) for k in range(78, 151)) / 2**150
    assert sign_flip([0.1] * 78 + [-0.1] * 72) == pytest.approx(exact, abs=0.015)
    many = [0.1] * (LARGE_N // 2 + 41) + [-0.1] * (LARGE_N // 2 - 40)  # 2001: a sum of 8.1 with the variance 20.01
    assert sign_flip(many) == pytest.approx(math.erfc(8.1 / math.sqrt(2 * 20.01)), rel=1e-6)


def test_own_figures_are_those_that_any_of_the_runs_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    own = "goal_misspecification"
    first = create(tmp_path, {}, "first", figures={"gone": "gone.py"})
    second, third = create(tmp_path, {}, "second"), create(tmp_path, {}, "third", figures={own: own, "gone": "gone.py"})
    told: list[str] = []
    assert list(own_figures(told.append, first, second, third)) == [own]
    assert len(told) == 1, "what two runs name is tried once"
    assert list(own_figures(told.append, second)) == list(own_figures(told.append)) == [] and len(told) == 1


def test_a_task_without_a_value_leaves_the_clusters_and_strata_of_the_others_as_they_are() -> None:
    values = {"e": [], "a": [1.0, 0.5], "f": [], "b": [0.25], "c": [0.0, 0.0], "d": [1.0], "g": []}
    held = {task: each for task, each in values.items() if each}
    clusters = {"a": "x", "b": "y", "c": "x", "e": "y", "f": "y", "g": "x"}
    found = mean_interval(values, clusters=clusters)
    by_hand = moments([0.75, 0.25, 0.0, 1.0], ["in x", "in y", "in x", "alone d"])
    assert by_hand.clusters == ((0.75, 2), (0.25, 1), (1.0, 1))
    assert found == mean_interval(held, clusters=clusters) == interval_of(by_hand)
    assert found != mean_interval(values) == interval_of(moments([0.75, 0.25, 0.0, 1.0]))
    alone = {"a": "x", "b": "y", "e": "x", "f": "y"}  # only tasks without a value share theirs
    assert mean_interval(values, clusters=alone) == mean_interval(values)
    strata = TaskGroups({}, {"a": "s", "b": "s", "c": "t", "e": "s", "f": "u"})
    split = moments([0.75, 0.25, 0.0, 1.0], None, ["in s", "in s", "in t", "in none"])
    assert mean_interval(values, 0.9, strata) == mean_interval(held, 0.9, strata) == interval_of(split, 0.9)
    none = mean_interval({"a": [], "b": []}, clusters={"a": "x", "b": "x"})
    assert none.n == 0 and math.isnan(none.value)
