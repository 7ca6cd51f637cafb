"""Statistics pinned by number: each against a formula that is written out here, numpy, scipy, or a sum done by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from firsthand.benchmark import Figure
from firsthand.commands.gate import got_worse
from firsthand.runs.store import create
from firsthand.stats.bootstrap import MAX_LEFT_OUT, RESAMPLES, SEED, bootstrap, bootstrap_sums
from firsthand.stats.breakdown import Cell, cells
from firsthand.stats.comparison_design import Design, from_one, from_pair
from firsthand.stats.corpus_formulas import FORMULAS, rms_calibration_error
from firsthand.stats.effective_length import effective
from firsthand.stats.figure_stats import DRAWS, FigureDifference, figure_interval
from firsthand.stats.figures import calibration, figures, micro_f1
from firsthand.stats.intervals import Interval, mean_interval, proportion_interval, t_value
from firsthand.stats.multiple_comparisons import corrected
from firsthand.stats.non_inferiority import Check, rule
from firsthand.stats.paired import Differences, judged, mcnemar, paired_difference, sign_flip, tango_interval
from firsthand.stats.pareto import frontier
from firsthand.stats.power_analysis import (
    epochs_needed,
    margin_tasks_needed,
    paired_spread,
    paired_tasks_needed,
    smallest_detectable,
    spread,
    tasks_needed,
)
from firsthand.stats.rater_agreement import cohen_kappa, fleiss_kappa, krippendorff_alpha, majority
from firsthand.stats.run_summary import summary
from firsthand.task import Task
from firsthand.trace import Failure, Score, Trace

LABELS = ["a", "a", "a", "b", "b", "c", "d", "d"]
VALUES = [3.0, 2.5, 4.0, -1.0, 0.5, 2.0, 1.0, 0.0]
Z95 = float(scipy_stats.norm.ppf(0.975))


def by_task(values: Sequence[float]) -> dict[str, list[float]]:
    return {str(index): [float(value)] for index, value in enumerate(values)}


def named(labels: Sequence[str]) -> dict[str, str]:
    return {str(index): label for index, label in enumerate(labels)}


def cr2(values: Sequence[float], labels: Sequence[str]) -> tuple[float, float]:
    """The cluster-robust standard error (CR2) of a mean and its degrees of freedom, in Bell and McCaffrey's matrices."""
    n = len(values)
    hat = np.ones((n, n)) / n
    residuals = np.asarray(values) - np.mean(values)
    variance, columns = 0.0, []
    for name in sorted(set(labels)):
        of = np.flatnonzero(np.array(labels) == name)
        weights, vectors = np.linalg.eigh(np.eye(len(of)) - hat[np.ix_(of, of)])
        root = vectors @ np.diag(weights**-0.5) @ vectors.T  # (I - H)^(-1/2) of the cluster
        score = np.ones(len(of)) @ root / n
        variance += float(score @ residuals[of]) ** 2
        columns.append((np.eye(n) - hat)[:, of] @ score)
    found = np.linalg.eigvalsh(np.array(columns) @ np.array(columns).T)
    return math.sqrt(variance), float(found.sum() ** 2 / np.square(found).sum())


def wilson(share: float, n: float, z: float = Z95) -> tuple[float, float]:
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return centre - half, centre + half


def test_the_clustered_t_interval_has_the_error_and_freedom_of_bell_and_mccaffrey() -> None:
    found = mean_interval(by_task(VALUES), clusters=named(LABELS))
    error, freedom = cr2(VALUES, LABELS)
    assert cr2([1.0, 2.0, 4.0, 7.0], list("aabb"))[1] == pytest.approx(1) and 1 < freedom < 3
    half = float(scipy_stats.t.ppf(0.975, freedom)) * error
    assert (found.method, found.clusters, found.n) == ("clustered t", 4, 8)
    assert found.error == pytest.approx(error, rel=1e-12)
    assert (found.low, found.high) == pytest.approx((1.5 - half, 1.5 + half), rel=1e-9)
    assert found.inflation == pytest.approx(error / (np.std(VALUES, ddof=1) / math.sqrt(8)), rel=1e-12)
    assert mean_interval(by_task(VALUES), 0.8, named(LABELS)).low == pytest.approx(
        1.5 - float(scipy_stats.t.ppf(0.9, freedom)) * error
    )


def test_the_clustered_paired_t_has_the_degrees_of_freedom_of_its_clusters() -> None:
    found = Differences.between(by_task(VALUES), by_task([0.0] * 8), named(LABELS))
    error, freedom = cr2(VALUES, LABELS)
    half = float(scipy_stats.t.ppf(0.95, freedom)) * error
    assert found.bounds(0.9) == pytest.approx((1.5 - half, 1.5 + half), rel=1e-9)
    assert found.p_above(0.5) == pytest.approx(float(scipy_stats.t.sf(1.0 / error, freedom)), rel=1e-9)
    assert found.p_below(0.5) == pytest.approx(float(scipy_stats.t.cdf(1.0 / error, freedom)), rel=1e-9)
    assert found.sums == [9.5, -0.5, 2.0, 1.0]
    plain = Differences.between(by_task(VALUES), by_task([0.0] * 8))
    theirs = scipy_stats.ttest_1samp(VALUES, 0).confidence_interval(0.9)
    assert plain.bounds(0.9) == pytest.approx((theirs.low, theirs.high), rel=1e-9)


@pytest.mark.parametrize("binary", [[1, 1, 1, 0, 0, 1, 0, 1], [1, 0, 1, 0, 1, 1, 0, 1]])
def test_clustered_wilson_has_the_effective_number_of_korn_and_graubard(binary: list[int]) -> None:
    found = mean_interval(by_task(binary), clusters=named(LABELS))
    share, (error, freedom) = float(np.mean(binary)), cr2(binary, LABELS)
    effective = min(8.0, share * (1 - share) / error**2) * (Z95 / float(scipy_stats.t.ppf(0.975, freedom))) ** 2
    assert found.method == "clustered Wilson"
    assert (found.low, found.high) == pytest.approx(wilson(share, effective), rel=1e-9)
    capped = (
        share * (1 - share) / error**2 > 8
    )  # the second has less spread between clusters than within: n is the most
    assert capped == (binary[1] == 0)


def test_equal_values_of_clusters_leave_possible_what_that_many_draws_do() -> None:
    found = mean_interval(by_task([1.0] * 8), clusters=named(LABELS))
    unseen = 1 - 0.025 ** (1 / 4)
    assert (found.low, found.high) == pytest.approx((1 - unseen, 1.0)) and found.method == "clustered equal values"
    alone = mean_interval(by_task([0.25] * 8))
    unseen = 1 - 0.025 ** (1 / 8)
    assert (alone.low, alone.high) == pytest.approx((0.25 * (1 - unseen), 0.25 * (1 - unseen) + unseen))


def test_a_t_interval_of_shares_is_cut_to_0_and_1_and_others_are_not() -> None:
    near = [0.0, 0.5, 0.0, 0.1]
    assert mean_interval(near).low == 0.0 and mean_interval([1 - value for value in near]).high == 1.0
    raw = scipy_stats.ttest_1samp(near, 0).confidence_interval(0.95)
    wide = [*near, -0.0001]
    assert raw.low < 0 and mean_interval(wide).low == pytest.approx(
        scipy_stats.ttest_1samp(wide, 0).confidence_interval(0.95).low
    )
    assert proportion_interval(3, 10, 0.9) == pytest.approx(wilson(0.3, 10, float(scipy_stats.norm.ppf(0.95))))


def bca(value: float, draws: Any, left_out: Any, confidence: float = 0.95) -> tuple[float, float]:
    """Efron (1987), equations 2.3 and 6.6: percentiles at Phi(z0 + (z0 + z) / (1 - a (z0 + z)))."""
    norm = scipy_stats.norm
    z0 = norm.ppf((np.sum(draws < value) + 0.5 * np.sum(draws == value)) / len(draws))
    away = np.mean(left_out) - left_out
    a = np.sum(away**3) / (6 * np.sum(away**2) ** 1.5)
    zs = [z0 + norm.ppf(tail) for tail in ((1 - confidence) / 2, (1 + confidence) / 2)]
    low, high = (np.quantile(draws, norm.cdf(z0 + z / (1 - a * z))) for z in zs)
    return float(low), float(high)


@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_bca_reads_the_percentiles_of_efron_1987(confidence: float) -> None:
    values = np.array([0.1, 0.2, 0.2, 0.4, 0.5, 0.9, 1.6, 3.0, 7.0, 12.0, 1.0, 1.0])
    counts = np.random.default_rng(SEED).multinomial(12, np.full(12, 1 / 12), size=RESAMPLES).astype(float)

    def spread_of(rows: Any) -> Any:  # a biased and skewed figure, for z0 and a to be far from 0
        means = rows @ values / rows.sum(axis=1)
        return rows @ values**2 / rows.sum(axis=1) - means**2

    draws, left_out = spread_of(counts), spread_of(1 - np.eye(12))
    value = float(spread_of(np.ones((1, 12)))[0])
    found = bootstrap(spread_of, 12, confidence=confidence)
    assert np.mean(draws < value) > 0.55 and found.value == value
    assert (found.low, found.high) == pytest.approx(bca(value, draws, left_out, confidence), rel=1e-9)
    assert found.error == pytest.approx(float(np.std(draws, ddof=1)), rel=1e-12)
    plain = bootstrap(spread_of, 12, confidence=confidence, method="percentile")
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    assert (plain.low, plain.high) == pytest.approx(tuple(np.quantile(draws, tails)), rel=1e-12)


def test_bca_counts_half_of_the_draws_that_equal_the_figure() -> None:
    hits = np.array([1.0] * 3 + [0.0] * 9)
    counts = np.random.default_rng(SEED).multinomial(12, np.full(12, 1 / 12), size=RESAMPLES).astype(float)
    draws, left_out = counts @ hits / 12, (1 - np.eye(12)) @ hits / 11
    found = bootstrap_sums(np.stack([hits, np.ones(12)], axis=1), lambda sums: sums[:, 0] / sums[:, 1])
    assert np.mean(draws == 0.25) > 0.2
    assert (found.low, found.high) == pytest.approx(bca(0.25, draws, left_out), rel=1e-9)


def test_clusters_are_drawn_whole_and_as_many_as_there_are() -> None:
    parts = np.array([[1.0, 2.0], [3.0, 1.0], [0.0, 1.0], [5.0, 4.0], [2.0, 2.0], [1.0, 1.0]])
    labels = ["x", "x", "y", "z", "z", "z"]
    whole = np.array([[4.0, 3.0], [0.0, 1.0], [8.0, 7.0]])
    counts = np.random.default_rng(SEED).multinomial(3, np.full(3, 1 / 3), size=RESAMPLES).astype(float)
    draws = (counts @ whole)[:, 0] / (counts @ whole)[:, 1]
    found = bootstrap_sums(parts, lambda sums: sums[:, 0] / sums[:, 1], labels=labels, method="percentile")
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), rel=1e-12)
    assert found.clusters == 3 and MAX_LEFT_OUT == 500


def test_the_calibration_error_adds_up_a_bin_before_it_takes_the_absolute_value() -> None:
    stated = [(0.12, False), (0.18, True), (0.93, True), (0.97, False)]
    rows = np.array([calibration("sure", sure, right).detail["corpus"]["sums"] for sure, right in stated])
    error = float(FORMULAS["calibration_error"].of(rows.sum(axis=0, keepdims=True))[0])
    assert error == pytest.approx(
        (abs(0.30 - 1) + abs(1.90 - 1)) / 4
    )  # not the 0.12 + 0.82 + 0.07 + 0.97 of each alone
    assert FORMULAS["calibration_error"].lower_is_better


@pytest.mark.parametrize(
    ("confidence", "bin"), [(0.0, 0), (0.0999, 0), (0.1, 1), (0.2, 2), (0.5, 5), (0.8999, 8), (0.9, 9), (1.0, 9)]
)
def test_a_confidence_on_an_edge_is_in_the_bin_above_and_certainty_in_the_last(confidence: float, bin: int) -> None:
    score = calibration("sure", confidence, True)
    sums = score.detail["corpus"]["sums"]
    assert sums[3 * bin : 3 * bin + 3] == [1.0, confidence, 1.0] and sum(map(bool, sums)) == 2 + bool(confidence)
    assert len(sums) == 30 and score.value == pytest.approx(1 - confidence)


def test_the_rms_calibration_error_bins_by_count_and_gives_the_rest_to_the_last() -> None:
    sure, right = [0.9, 0.1, 0.5, 0.7, 0.3], [1.0, 0.0, 0.0, 0.0, 1.0]
    # sorted: (.1, 0) (.3, 1) | (.5, 0) (.7, 0) (.9, 1)
    expected = math.sqrt(2 / 5 * (0.2 - 0.5) ** 2 + 3 / 5 * (0.7 - 1 / 3) ** 2)
    assert rms_calibration_error(sure, right, bin_size=2) == pytest.approx(expected)
    published = math.sqrt(2 / 5 * (0.2 - 0.5) ** 2)
    assert rms_calibration_error(sure, right, bin_size=2, published=True) == pytest.approx(published)
    assert rms_calibration_error(sure, right) == pytest.approx(abs(0.5 - 0.4))


def test_micro_f1_adds_up_what_was_right_wrong_and_missed() -> None:
    shares = [micro_f1("f1", "abc", "bcde"), micro_f1("f1", "x", "y"), micro_f1("f1", "", "")]
    assert [each.value for each in shares] == pytest.approx([2 * 2 / 7, 0.0, 1.0])
    sums = np.array([each.detail["corpus"]["sums"] for each in shares])
    assert sums.tolist() == [[2, 1, 2], [0, 1, 1], [0, 0, 0]]
    assert float(FORMULAS["micro_f1"].of(sums.sum(axis=0, keepdims=True))[0]) == pytest.approx(4 / (4 + 2 + 3))
    assert FORMULAS["micro_f1"].of(np.zeros((1, 3)))[0] == 1.0
    assert FORMULAS["micro_f1"].empty is not None and FORMULAS["micro_f1"].empty([2, 1, 2]) == [0, 0, 4]


def gated(values: Sequence[float], max_drop: float, confidence: float = 0.95) -> Check:
    differences = Differences.between(by_task(values), by_task([0.0] * len(values)))
    return Check("a", "b", "s", max_drop, differences, confidence, "inconclusive", "")


def test_a_gate_is_one_sided_at_its_level() -> None:
    values = [0.5, -1.5, 1.0, 2.0, -2.5, 0.5, 1.5, -3.0, 2.5, -1.0]
    error = float(np.std(values, ddof=1)) / math.sqrt(10)
    at = {p: float(scipy_stats.t.isf(p, 9)) * error for p in (0.04, 0.06)}
    low, high = gated(values, 1.0).bounds
    half = float(scipy_stats.t.ppf(0.95, 9)) * error
    assert (low, high) == pytest.approx((-half, half), rel=1e-9)
    (passes,) = rule([gated(values, at[0.04])])  # one-sided p = 0.04, two-sided 0.08
    (unsure,) = rule([gated(values, at[0.06])])
    assert (passes.ruling, unsure.ruling) == ("pass", "inconclusive")
    assert rule([gated(values, at[0.06], 0.9)])[0].ruling == "pass"
    dropped = [value - 5.0 for value in values]
    (fails,) = rule([gated(dropped, 5.0 - at[0.04])])
    (perhaps,) = rule([gated(dropped, 5.0 - at[0.06])])
    assert (fails.ruling, perhaps.ruling) == ("fail", "inconclusive")
    two = rule([gated(dropped, 5.0 - at[0.04]), gated(dropped, 5.0 - at[0.04])])  # Holm: 0.08
    assert [each.ruling for each in two] == ["inconclusive", "inconclusive"]
    both = rule([gated(values, at[0.04]), gated(values, at[0.04])])  # passing needs no correction
    assert [each.ruling for each in both] == ["pass", "pass"]


def test_the_sign_flip_counts_the_signs_that_were_seen() -> None:
    ones = [1.0] * 100
    assert sign_flip(ones) == 1 / 20_001  # none of the sampled signs is as far, and the observed ones count
    assert sign_flip([1.0] * 14) == 2 / 2**14 and sign_flip([0.0, 0.0]) == 1.0
    assert sign_flip([1.0, 1.0, 1.0, 0.0, -1.0]) == 10 / 16  # 4 of 4 and 3 of 4 alike, both ways
    rng = np.random.default_rng(20241101)
    values = np.linspace(-0.4, 1.0, 40)
    signs = rng.integers(0, 2, size=(20_000, 40), dtype=np.int8) * 2 - 1
    hits = int(np.sum(np.abs(signs @ values) >= values.sum() - 1e-9))
    assert hits == 4 and sign_flip(list(values)) == (1 + hits) / 20_001
    many = [1.0] * 1100 + [-1.0] * 1000
    assert sign_flip(many) == pytest.approx(2 * float(scipy_stats.norm.sf(100 / math.sqrt(2100))), rel=1e-6)


def test_tango_statistic_and_mcnemar_hold_where_all_win_or_lose() -> None:
    assert tango_interval(4, 0, 4)[1] == 1.0 and tango_interval(0, 4, 4)[0] == -1.0
    assert tango_interval(4, 0, 4)[0] == pytest.approx(-tango_interval(0, 4, 4)[1])
    z2 = Z95**2
    assert tango_interval(0, 0, 10) == pytest.approx((-z2 / (10 + z2), z2 / (10 + z2)), abs=1e-9)  # solved by hand
    assert mcnemar(0, 6) == pytest.approx(2 / 64)


def test_unequal_epochs_take_the_mean_of_one_over_k() -> None:
    a = {"x": [1.0, 0.0], "y": [1.0, 1.0, 0.0, 1.0], "z": [0.0], "w": [1.0, 0.0, 0.0]}
    within = (0.5 + 0.75 + 0.0 + 2 / 3) / (10 - 4)
    means = [0.5, 0.75, 0.0, 1 / 3]
    between = float(np.var(means, ddof=1)) - within * (1 / 2 + 1 / 4 + 1 + 1 / 3) / 4
    found = spread(a)
    assert (found.within, found.between) == pytest.approx((within, max(0.0, between)), rel=1e-12)
    assert (found.tasks, found.attempts, found.total) == (4, 10, pytest.approx(within + max(0.0, between)))
    b = {"x": [9.0, 10.0, 11.0], "y": [0.0, 0.5], "z": [-7.0, -8.0], "w": [3.0]}
    within_b = (2.0 + 0.125 + 0.5) / (8 - 4)
    gaps = [0.5 - 10.0, 0.75 - 0.25, 7.5, 1 / 3 - 3.0]
    noise = within * (1 / 2 + 1 / 4 + 1 + 1 / 3) / 4 + within_b * (1 / 3 + 1 / 2 + 1 / 2 + 1) / 4
    pair = paired_spread(a, b)
    assert pair.within == pytest.approx(within + within_b, rel=1e-12)
    assert pair.between == pytest.approx(float(np.var(gaps, ddof=1)) - noise, rel=1e-12)
    design = from_pair(a, b)
    assert design.within == pytest.approx((within, within_b)) and design.between == pytest.approx(pair.between)


def test_a_run_with_unequal_epochs_has_the_spread_of_its_scores(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    scores = {"x": [1.0, 0.0], "y": [1.0, 1.0, 0.0, 1.0], "z": [0.0], "w": [1.0, 0.0, 0.0], "v": [1.0, 1.0]}
    run = create(tmp_path, {}, "uneven")
    run.add_agent("one", {"name": "one"})
    for task, values in scores.items():
        for epoch, value in enumerate(values):
            made = (Score("exact", value),)
            run.append(Trace(f"{task}-{epoch}", "sums", task, {"name": "one"}, epoch, 0, "", 1.0, scores=made))
    (line,) = summary(run)
    expected = spread(scores)
    assert expected.between > 0
    assert (line.spread.between, line.spread.within) == pytest.approx((expected.between, expected.within), rel=1e-9)
    mine = mean_interval(scores)
    z = Z95 + float(scipy_stats.norm.ppf(0.8))
    assert line.detectable == pytest.approx(z * math.sqrt(2) * line.score.error)  # of two agents on tasks of their own
    assert (line.score.low, line.score.high, line.score.n) == pytest.approx((mine.low, mine.high, 5))


def test_powers_formulas_by_hand() -> None:
    z = float(scipy_stats.norm.ppf(0.975) + scipy_stats.norm.ppf(0.8))
    assert tasks_needed(0.1, 0.05, (0.2, 0.4), (2, 5)) == math.ceil(z**2 * (0.05 + 0.1 + 0.08) / 0.01)
    assert epochs_needed(0.1, 100, 0.05, (0.2, 0.4)) == math.ceil(0.6 / (100 * 0.01 / z**2 - 0.05))
    assert smallest_detectable(50, sd=0.3, power=0.9) == pytest.approx(
        float(scipy_stats.norm.ppf(0.975) + scipy_stats.norm.ppf(0.9)) * 0.3 / math.sqrt(50)
    )
    root = Z95 * math.sqrt(0.2) + float(scipy_stats.norm.ppf(0.8)) * math.sqrt(0.2 - 0.0025)
    assert paired_tasks_needed(0.05, 0.2) == math.ceil((root / 0.05) ** 2 + 20)
    one_sided = float(scipy_stats.norm.ppf(0.95) + scipy_stats.norm.ppf(0.8))
    assert margin_tasks_needed(0.02, 0.1) == math.ceil(one_sided**2 * 0.1 / 0.0004)
    rare = Design(0.05, None, disagreement=0.05)  # an effect of 0.1 needs that much disagreement
    assert rare.tasks(0.1) == paired_tasks_needed(0.1, 0.1) and rare.tasks(0.02) == paired_tasks_needed(0.02, 0.05)
    assert rare.effect(200) == smallest_detectable(200, disagreement=0.05)
    one = from_one(by_task([1.0, 0.0, 0.0, 0.0]), 0.25)
    assert one.between == pytest.approx(2 * 0.75 * 0.25) and one.disagreement == pytest.approx(0.375)
    for correlation in (-1.0, 0.0, 1.0):
        plan = from_one(by_task([1.0, 0.0, 0.0, 0.0]), correlation)
        assert plan.between == pytest.approx(2 * (1 - correlation) * 0.25)
    found = judged(Differences.between(by_task(VALUES), by_task([0.0] * 8)))
    sd = float(np.std(VALUES, ddof=1))
    assert found.detectable == pytest.approx(z * sd / math.sqrt(8))
    binary = paired_difference(by_task([1, 1, 1, 0, 1, 1]), by_task([1, 0, 1, 1, 1, 1]))
    assert binary.detectable == pytest.approx(smallest_detectable(6, disagreement=3 / 8))


def test_several_comparisons_have_the_interval_of_their_correction() -> None:
    rng = np.random.default_rng(1)
    found = [Differences.between(by_task(rng.normal(m, 1, 30)), by_task([0.0] * 30)) for m in (3.0, 2.0, 0.1, 1.5)]
    for place, (each, made) in enumerate(zip(found, corrected(found, "holm"), strict=True)):
        low, high = each.bounds(1 - 0.05 / 4)  # jointly: Bonferroni's level for all
        assert (made.low, made.high) == pytest.approx((min(low, 0.0), max(high, 0.0)) if place == 2 else (low, high))
    for each, made in zip(found, corrected(found, "bh"), strict=True):
        low, high = each.bounds(1 - 3 * 0.05 / 4)
        assert made.high == pytest.approx(max(high, 0.0)) and made.low == pytest.approx(
            low if made.verdict == "better" else min(low, 0.0)
        )


def mean_figure(values: Sequence[float], lower_is_better: bool = False) -> Figure:
    row, tasks = np.array(values), tuple(f"t{index:02d}" for index in range(len(values)))
    own = {task: [value] for task, value in zip(tasks, values, strict=True)}
    return Figure("f", tasks, lambda counts: counts @ row / counts.sum(axis=1), lower_is_better, values=own)


def test_a_difference_of_figures_counts_its_draws() -> None:
    a, b = [0.2, 0.9, 0.4, 0.7, 0.6, 0.8], [0.1, 0.5, 0.6, 0.7, 0.2, 0.4]
    gaps = np.array(a) - np.array(b)
    counts = np.random.default_rng(SEED).multinomial(6, np.full(6, 1 / 6), size=DRAWS).astype(float)
    draws = np.sort(counts @ np.array(a) / 6 - counts @ np.array(b) / 6)
    found = FigureDifference.between(mean_figure(a), mean_figure(b))
    assert found.mean == pytest.approx(gaps.mean()) and found.counts == (4, 1) and found.n == 6
    assert found.draws == pytest.approx(draws.tolist(), abs=1e-12)
    low = math.floor(0.025 * (DRAWS + 1)) - 1
    means = Differences(tuple(gaps.tolist()), binary=False, unit=True)
    assert found.bounds() == pytest.approx(tuple(means.bounds()), abs=1e-4), (
        "Student's t of the six tasks, which is the wider"
    )
    assert means.bounds().low < draws[low] and means.bounds().high > draws[-1 - low]
    assert found.p_above(0.0) == pytest.approx(means.p_above(0.0), rel=1e-3) and found.p_value == pytest.approx(
        means.p_value
    )
    # of 1,000 tasks with a long tail above the draws are the wider there, and Student's t below
    tail = np.sort(np.random.default_rng(3).exponential(size=DRAWS))
    skewed = FigureDifference(1.0, tuple(tail.tolist()), 1000, (0, 0))
    half = t_value(999, 0.95) * float(np.std(tail, ddof=1)) * math.sqrt(1000 / 999)
    assert skewed.bounds() == pytest.approx((1 - half, tail[-1 - low]), abs=1e-12)
    assert skewed.reversed.bounds() == pytest.approx((-tail[-1 - low], half - 1), abs=1e-12)
    assert skewed.p_below(3.5) == (1 + int(np.sum(tail >= 3.5))) / (1 + DRAWS)
    assert skewed.reversed.p_above(-3.5) == (1 + int(np.sum(tail >= 3.5))) / (1 + DRAWS)
    assert found.error == pytest.approx(float(np.std(draws, ddof=1)))
    assert list(found.reversed.draws) == sorted(found.reversed.draws) and found.reversed.reversed == found
    assert found.reversed.bounds() == pytest.approx([-each for each in found.bounds()][::-1])
    turned = FigureDifference.between(mean_figure(a, True), mean_figure(b, True))
    assert turned.counts == (1, 4) and judged(turned).lower_is_better
    assert found.reversed.mean == -found.mean and found.reversed.counts == (1, 4)
    assert figure_interval(mean_figure(a)).value == pytest.approx(0.6)


def test_agreement_of_raters_is_that_of_the_published_tables() -> None:
    fleiss = [  # Fleiss (1971), the table of 10 subjects and 14 raters as reprinted in textbooks: kappa 0.210
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert fleiss_kappa(fleiss) == pytest.approx(0.2099, abs=5e-5)
    first, second = "y" * 20 + "y" * 5 + "n" * 10 + "n" * 15, "y" * 20 + "n" * 5 + "y" * 10 + "n" * 15
    assert cohen_kappa(first, second) == pytest.approx((0.7 - 0.5) / 0.5)  # 25 and 30 of 50 say yes
    assert cohen_kappa([1, 2, 3, 3], [1, 2, 3, 1], weights="interval") == pytest.approx(1 - 1.0 / (26 / 16))
    units = [[1, 1], [2, 2, 2], [3, 2], [1], [3, 3]]  # of the coincidences by hand
    # coincidences: 11: 2, 22: 3, 23: 1, 32: 1, 33: 2; totals 2, 4, 3; n 9
    observed, expected = 2 / 9, (2 * (2 * 4 + 2 * 3 + 4 * 3)) / (9 * 8)
    assert krippendorff_alpha(units) == pytest.approx(1 - observed / expected)
    squares = 2 * (2 * 4 * 1 + 2 * 3 * 4 + 4 * 3 * 1) / (9 * 8)
    assert krippendorff_alpha(units, level="interval") == pytest.approx(1 - observed / squares)
    ranks = 2 * (2 * 4 * 3.0**2 + 2 * 3 * 6.5**2 + 4 * 3 * 3.5**2) / (9 * 8)
    assert krippendorff_alpha(units, level="ordinal") == pytest.approx(1 - (2 / 9) * 3.5**2 / ranks)
    assert majority(["A", "B"]) is None and majority(["A", "A", "B"]) == "A" and majority(["A", "A", "B", "B"]) is None


def test_the_frontier_drops_what_costs_more_or_as_much_for_no_better_score() -> None:
    points = [(1.0, 0.5), (1.0, 0.4), (2.0, 0.5), (3.0, 0.9), (3.0, 0.9), (0.5, math.nan), (4.0, 0.8)]
    assert frontier(points) == [0, 3, 4]


def test_a_length_is_reached_or_missed_where_its_bound_is_the_threshold() -> None:
    def cells(*scores: tuple[float, float, float]) -> list[Cell]:
        return [
            Cell("b", "a", (256 << place,), Interval(value, low, high, 9), 9, 0)
            for place, (value, low, high) in enumerate(scores)
        ]

    (found,) = effective(cells((0.9, 0.85, 0.95), (0.8, 0.7, 0.85), (0.85, 0.8, 0.9), (0.5, 0.4, 0.84)), 0.85)
    assert (found.last, found.sure, found.failing, found.gaps, found.is_end) == (1024, 256, 2048, (512,), False)
    (none,) = effective(cells((0.5, 0.4, 0.85)), 0.85)
    assert (none.last, none.sure, none.failing, none.is_end) == (None, None, None, False)
    (end,) = effective(cells((0.85, 0.8, 0.9)), 0.85)
    assert (end.last, end.is_end) == (256, True)


def test_a_figure_takes_the_place_of_a_score_only_if_every_agent_has_it() -> None:
    def made(agent: str) -> list[Trace]:
        return [Trace(agent, "b", "1", {"name": agent}, 0, 0, "", 0.0, scores=(Score("exact", 1.0),))]

    def own(traces: Sequence[Trace]) -> list[Figure]:
        names = ("exact", "macro") if traces[0].agent["name"] == "one" else ()
        return [replace(mean_figure([1.0]), name=name) for name in names]

    assert set(figures({"one": made("one"), "two": made("two")}, own)) == {"macro"}
    assert set(figures({"one": made("one")}, own)) == {"exact", "macro"}


@pytest.mark.parametrize("kind", ["binary", "shares", "any", "clusters", "figure", "equal", "equal figure"])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_a_bound_excludes_a_bar_exactly_where_the_one_sided_test_does(kind: str, confidence: float) -> None:
    rng, alpha = np.random.default_rng(len(kind)), (1 - confidence) / 2
    for n in (2, 3, 10, 41):
        values = {
            "binary": rng.choice([-1.0, 0.0, 0.0, 1.0], n), "shares": rng.uniform(-1, 1, n), "equal": np.full(n, 0.25),
        }.get(kind, rng.normal(0.3, 1, n))  # fmt: skip
        labels = tuple(str(index // 2) for index in range(n)) if kind == "clusters" else None
        unit = kind in ("binary", "shares", "equal")
        found: Differences | FigureDifference = Differences(tuple(values), kind == "binary", unit, labels)
        if "figure" in kind:
            draws = np.sort(np.full(200, 0.25) if kind == "equal figure" else rng.normal(0.1, 0.1, 199 + n))
            found = FigureDifference(0.25, tuple(draws.tolist()), n, (0, 0), unit=True)
        low, high = found.bounds(confidence)
        for bar in np.linspace(-0.99, 0.99, 34):
            if min(abs(bar - low), abs(bar - high)) > 1e-6:
                assert bool(found.p_above(bar) < alpha) is bool(bar < low), (n, bar)
                assert bool(found.p_below(bar) < alpha) is bool(bar > high), (n, bar)


def test_a_cell_counts_every_attempt_without_a_score_and_a_task_by_its_mean(tmp_path: Any) -> None:
    rng = np.random.default_rng(4)
    run = create(tmp_path, {"benchmarks": ["b"]}, "cells")
    tasks = [Task(str(index), "?", metadata={"length": index % 3}) for index in range(9)]
    run.add_tasks("b", tasks)
    run.add_agent("a", {"name": "a"})
    values = {task.id: [None if rng.random() < 0.4 else float(rng.integers(0, 2)) for _ in range(3)] for task in tasks}
    values |= {"3": [None, 1.0, None], "4": [None, None, None]}
    for task, made in values.items():
        for epoch, value in enumerate(made):
            scores, error = ((), Failure("E", "gone")) if value is None else ((Score("s", value),), None)
            run.append(
                Trace(f"{task}-{epoch}", "b", task, {"name": "a"}, epoch, 0, "", 1.0, scores=scores, error=error)
            )
    for cell in cells(run, ["length"]):
        own = [values[task.id] for task in tasks if (task.metadata["length"],) == cell.values]
        assert (cell.attempts, cell.errors) == (9, sum(value is None for made in own for value in made))
        assert cell.score.value == pytest.approx(
            float(np.mean([np.mean([value or 0.0 for value in made]) for made in own]))
        )
    run.close()


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), max_size=6), st.integers(0, 4))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_the_effective_length_is_what_its_sentence_says(rows: list[tuple[int, int, int]], threshold: int) -> None:
    made = [
        Cell("b", "a", (place,), Interval(float(value), float(min(low, value)), float(max(high, value)), 5), 5, 0)
        for place, (low, value, high) in enumerate(rows)
    ]
    if not made:
        assert effective([], threshold) == []
        return
    (found,) = effective(made, threshold)
    reached = [place for place, cell in enumerate(made) if cell.score.value >= threshold]
    assert found.last == (max(reached) if reached else None) and found.is_end is (len(rows) - 1 in reached)
    assert found.gaps == tuple(place for place in range(max(reached, default=0)) if place not in reached)
    assert found.sure == max((place for place, cell in enumerate(made) if cell.score.low >= threshold), default=None)
    assert found.failing == min((place for place, cell in enumerate(made) if cell.score.high < threshold), default=None)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=8))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_the_frontier_is_what_nothing_dominates(points: list[tuple[int, int]]) -> None:
    def dominated(cost: int, score: int) -> bool:
        return any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in points)

    found = frontier([(float(cost), float(score)) for cost, score in points])
    assert sorted(found) == [index for index, point in enumerate(points) if not dominated(*point)]
    assert [points[index][0] for index in found] == sorted(points[index][0] for index in found)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_corrected_intervals_are_at_the_levels_the_corrections_test_at(confidence: float) -> None:
    """Of seven comparisons four are below alpha alone, and fewer once corrected."""
    wins = [(14, 1), (11, 1), (10, 2), (9, 2), (8, 5), (5, 5), (12, 3)]
    values = [[1.0] * a + [-1.0] * b + [0.0] * (40 - a - b) for a, b in wins]
    found = [Differences.between(by_task(each), by_task([0.0] * 40)) for each in values]
    raw, alpha, k = [each.p_value for each in found], 1 - confidence, len(wins)
    adjusted = list(scipy_stats.false_discovery_control(raw))
    discoveries = sum(p < alpha for p in adjusted)
    assert 0 < discoveries < sum(p < alpha for p in raw) or confidence == 0.9
    shares = {"none": [1.0] * k, "bh": [discoveries / k] * k, "holm": [1 / k] * k}
    for correction, share in shares.items():
        for each, made, part in zip(corrected(found, correction, confidence), found, share, strict=True):  # type: ignore[arg-type]
            low, high = made.bounds(1 - alpha * part)
            differs = each.verdict != "inconclusive"
            assert (each.low, each.high) == pytest.approx((low, high) if differs else (min(low, 0.0), max(high, 0.0)))
    assert [each.p_value for each in corrected(found, "bh", confidence)] == pytest.approx(adjusted)


def test_repeated_attempts_count_as_no_more_than_they_are() -> None:
    """Wilson's interval at the number of tasks with that standard error, and at most at the number of attempts."""
    for values in ([[1.0, 0.0]] * 9 + [[1.0, 1.0]], [[1.0, 0.0]] * 5 + [[0.0, 0.0]] * 4 + [[1.0, 1.0]] * 3):
        n, means = len(values), [sum(each) / 2 for each in values]
        found, mean = mean_interval({str(place): each for place, each in enumerate(values)}), float(np.mean(means))
        error = float(np.std(means, ddof=1)) / math.sqrt(n)
        shrunk = float(scipy_stats.norm.ppf(0.975) / scipy_stats.t.ppf(0.975, n - 1)) ** 2
        size = min(2 * n, mean * (1 - mean) / error**2) * shrunk
        assert size > n * shrunk
        assert (found.low, found.high) == pytest.approx(proportion_interval(mean * size, size), abs=1e-6)


def test_a_task_without_values_on_one_side_is_left_out_of_a_difference() -> None:
    a, b = {"p": [1.0], "q": [1.0], "r": [], "s": [0.5]}, {"p": [0.0, 1.0], "q": [], "r": [1.0]}
    for one, other, difference in ((a, b, 0.5), (b, a, -0.5)):
        found = Differences.between(one, other)
        assert found.values == (difference,)


def test_the_losses_of_a_check_are_the_tasks_that_got_worse_the_worst_first() -> None:
    a = {"p": [1.0], "q": [0.5], "r": [0.0, 1.0], "s": [1.0], "only": [1.0]}
    b = {"p": [0.75], "q": [0.5], "r": [1.0], "s": [0.0, 0.0]}
    assert got_worse(a, b, lower_is_better=False) == ["s: 1 -> 0", "p: 1 -> 0.75"]
    assert got_worse(a, b, lower_is_better=True) == ["r: 0.5 -> 1"]
