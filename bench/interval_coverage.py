"""Coverage of intervals and error rates of gates, counted over benchmarks of known truth: `python bench/sims.py --coverage`.

Every table is seeded. A rate r of R simulations has a standard error of sqrt(r (1 - r) / R), which is printed with it. The
tests call the same functions with fewer simulations.
"""

from __future__ import annotations

import csv
import gzip
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from firsthand.benchmark import Figure
from firsthand.runs.task_groups import TaskGroups
from firsthand.stats.bootstrap import bootstrap
from firsthand.stats.corpus_formulas import FORMULAS
from firsthand.stats.figure_stats import FigureDifference, figure_interval
from firsthand.stats.intervals import Moments, Scores, interval_of, mean_interval, proportion_interval
from firsthand.stats.multiple_comparisons import corrected
from firsthand.stats.paired import Differences, judged, paired_difference

Array = Any
SEED = 20261127
SWE_BENCH = (231, 75, 44, 34, 32, 22, 22, 19, 10, 8, 2, 1)
"""Tasks of SWE-bench Verified by repository."""
LOST = 0.05
"""The share of tasks on which a candidate fails altogether."""


def main(names: list[str], runs: int) -> None:
    """Print the tables of those names, or all."""
    for name, table in TABLES.items():
        if not names or name in names:
            print(f"\n{name}: {table.__doc__}")
            for line in table(runs):
                print(line, flush=True)


def rate_text(hits: int, runs: int) -> str:
    """A share and its own standard error."""
    rate = hits / runs
    return f"{rate:6.3f} ± {math.sqrt(rate * (1 - rate) / runs):.3f}"


# -- corpus figures --


def documents(rng: np.random.Generator, n: int, lost: float, noise: float, wanted: Array = None) -> Array:
    """Found rightly, found wrongly and missed in n documents of 2 and more labels (n, 3); `lost` of them found nothing."""
    wanted = rng.poisson(8, n) + 2 if wanted is None else wanted
    missed, wrong = rng.binomial(wanted, noise / 2), rng.binomial(wanted, noise / 2)
    kept = rng.random(n) >= lost
    right = np.where(kept, wanted - missed, 0)
    return np.stack([right, np.where(kept, wrong, 0), wanted - right], axis=1).astype(float)


def micro_f1_figure(parts: Array) -> Figure:
    """The Figure of such sums."""
    tasks = tuple(f"{number:05d}" for number in range(len(parts)))
    return Figure("f1", tasks, lambda counts: FORMULAS["micro_f1"].of(counts @ parts))


def true_f1(lost: float, noise: float) -> float:
    """Micro-F1 of all such documents there could be: of the expected sums."""
    wanted, right = 10.0, 10.0 * (1 - noise / 2) * (1 - lost)
    return 2 * right / (2 * right + 10.0 * (noise / 2) * (1 - lost) + wanted - right)


def figure_coverage(n: int, lost: float, noise: float, runs: int, *, beside: bool = True) -> tuple[int, int]:
    """How often the interval holds the truth, and how often BCa alone does, if that is asked for."""
    rng, truth, held, alone = np.random.default_rng(SEED), true_f1(lost, noise), 0, 0
    for _ in range(runs):
        figure = micro_f1_figure(documents(rng, n, lost, noise))
        found = figure_interval(figure)
        held += found.low <= truth <= found.high
        if beside:
            plain = bootstrap(figure.of, n)
            alone += plain.low <= truth <= plain.high
    return held, alone


def figures(runs: int) -> Iterator[str]:
    """coverage of 95 % intervals of micro-F1, and of BCa alone"""
    for lost, noise in ((0.0275, 0.0), (0.0, 0.0286), (0.01, 0.02), (LOST, 0.05)):
        for n in (5, 10, 20, 50, 100):
            held, alone = figure_coverage(n, lost, noise, runs // 4)
            told = f"F1 {true_f1(lost, noise):.3f}, {lost:.1%} lost, {noise:.1%} noise"
            yield f"{told:34s} n={n:4d} {rate_text(held, runs // 4)}   BCa {rate_text(alone, runs // 4)}"


def figure_gate(n: int, noise: float, runs: int, draws: int = 1000) -> tuple[int, int]:
    """How often a gate at the bar passes a candidate that loses LOST of its documents, and how often the bootstrap would."""
    rng, passed, before = np.random.default_rng(SEED + 1), 0, 0
    drop = true_f1(0, noise) - true_f1(LOST, noise)
    for _ in range(runs):
        wanted = rng.poisson(8, n) + 2
        sides = [micro_f1_figure(documents(rng, n, lost, noise, wanted)) for lost in (LOST, 0.0)]
        found = FigureDifference.between(*sides, draws=draws)
        passed += found.surely_above(-drop) < 0.05
        before += found.p_above(-drop) < 0.05
    return passed, before


def figure_gates(runs: int) -> Iterator[str]:
    """a candidate loses 5 % of its documents: passes at a bar of that drop in micro-F1 (at most .05), and the bootstrap's"""
    for noise in (0.0, 0.02, 0.05):
        for n in (10, 20, 50, 100):
            passed, before = figure_gate(n, noise, runs // 2)
            yield f"noise {noise:.0%} n={n:4d} {rate_text(passed, runs // 2)}   before {rate_text(before, runs // 2)}"


def partial_credit(rng: np.random.Generator, n: int) -> tuple[Array, float]:
    """Differences where both score 0 to 1 and the candidate fails LOST of the tasks altogether; their true mean."""
    base, other = rng.beta(8, 1, n), rng.beta(8, 1, n)
    return np.where(rng.random(n) < LOST, 0.0, other) - base, -LOST * 8 / 9


def quarters(rng: np.random.Generator, n: int) -> tuple[Array, float]:
    """The same of scores in quarters that agree wherever the candidate does not fail."""
    base = rng.choice([0, 0.25, 0.5, 0.75, 1], n, p=[0.05, 0.05, 0.1, 0.2, 0.6])
    return np.where(rng.random(n) < LOST, -base, 0.0), -LOST * 0.8125


def epochs(rng: np.random.Generator, n: int) -> tuple[Array, float]:
    """The same of means of four 0/1 attempts."""
    chance = rng.beta(3, 0.6, n)
    worse = np.where(rng.random(n) < LOST, 0.0, chance)
    return (rng.binomial(4, worse) - rng.binomial(4, chance)) / 4.0, -LOST * 3 / 3.6


GATES: dict[str, Callable[[np.random.Generator, int], tuple[Array, float]]] = {
    "partial credit": partial_credit,
    "quarters": quarters,
    "epochs": epochs,
}


def gate_rates(name: str, n: int, runs: int) -> tuple[int, int, int]:
    """Passes at the bar, passes by t alone, and failures of a candidate exactly at the bar."""
    rng = np.random.default_rng([SEED, 2, n, *name.encode()])
    passed = before = failed = 0
    for _ in range(runs):
        values, truth = GATES[name](rng, n)
        found = Differences(tuple(values.tolist()), False, True)
        passed += found.surely_above(truth) < 0.05
        before += found.p_above(truth) < 0.05
        failed += found.reversed.surely_above(-truth) < 0.05
    return passed, before, failed


def gates(runs: int) -> Iterator[str]:
    """a candidate exactly at the bar: false passes (at most .05), those of t alone, and false failures"""
    for name in GATES:
        for n in (10, 20, 50, 100, 200):
            passed, before, failed = (rate_text(each, runs) for each in gate_rates(name, n, runs))
            yield f"{name:16s} n={n:4d} {passed}   t {before}   failures {failed}"


def clustered_gate(sizes: tuple[int, ...], binary: bool, by_cluster: bool, runs: int) -> tuple[int, int]:
    """Passes at the bar with tasks in clusters, and passes by t alone; 10 % of tasks are lost, evenly or by cluster."""
    rng = np.random.default_rng([SEED, 3, binary, by_cluster, *sizes])
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    labels, passed, before = tuple(map(str, cluster)), 0, 0
    for _ in range(runs):
        ease = rng.beta(2.8, 1.2, len(sizes))[cluster]
        lost = rng.beta(0.5, 4.5, len(sizes))[cluster] if by_cluster else np.full(len(cluster), 0.1)
        base = (rng.random(len(cluster)) < ease).astype(float) if binary else ease
        values = np.where(rng.random(len(cluster)) < lost, -base, 0.0)
        found = Differences(tuple(values.tolist()), binary, True, labels)
        passed += found.surely_above(-0.07) < 0.05
        before += found.p_above(-0.07) < 0.05
    return passed, before


CLUSTERINGS = {
    "10 x 10": (10,) * 10,
    "20 x 5": (5,) * 20,
    "40 x 5": (5,) * 40,
    "100 x 3": (3,) * 100,
    "SWE-bench": SWE_BENCH,
}


def clustered_gates(runs: int) -> Iterator[str]:
    """the same with tasks in clusters: false passes, and those of t alone"""
    for binary in (True, False):
        for by_cluster in (False, True):
            for name, sizes in CLUSTERINGS.items():
                passed, before = clustered_gate(sizes, binary, by_cluster, runs // 2)
                told = f"{'0/1' if binary else 'partial'}, lost by {'cluster' if by_cluster else 'task'}, {name}"
                yield f"{told:36s} {rate_text(passed, runs // 2)}   t {rate_text(before, runs // 2)}"


# -- clusters and strata --


def cluster_coverage(icc: float, runs: int, wild_draws: int = 0) -> dict[str, int]:
    """Coverage with SWE-bench's repositories: ours, C - 1 degrees of freedom, and a wild cluster bootstrap-t."""
    rng, sizes = np.random.default_rng([SEED, 4, int(1000 * icc)]), np.array(SWE_BENCH)
    n, held = int(sizes.sum()), {"CR2": 0, "C - 1": 0, "wild": 0}
    plain = float(stats.t.ppf(0.975, len(sizes) - 1))
    signs = rng.choice([-1.0, 1.0], (wild_draws, len(sizes)))
    for _ in range(runs):
        ease = rng.beta(0.4 * (1 - icc) / icc, 0.6 * (1 - icc) / icc, len(sizes))
        totals = rng.binomial(sizes, ease).astype(float)
        mean = totals.sum() / n
        clusters = tuple((float(total), int(size)) for total, size in zip(totals, sizes, strict=True))
        found = interval_of(Moments(n, mean, mean * (1 - mean) * n / (n - 1), 0.0, 1.0, True, clusters))
        held["CR2"] += found.low <= 0.4 <= found.high
        error = math.sqrt(len(sizes) / (len(sizes) - 1) * np.sum((totals - sizes * mean) ** 2)) / n
        held["C - 1"] += abs(mean - 0.4) <= plain * error
        if wild_draws:  # under the null hypothesis, Rademacher signs (Cameron, Gelbach and Miller, 2008)
            null = totals - sizes * 0.4
            shifted = signs @ null / n
            errors = np.sqrt(np.sum((signs * null - sizes * shifted[:, None]) ** 2, axis=1)) / n
            observed = abs(mean - 0.4) / (math.sqrt(np.sum((totals - sizes * mean) ** 2)) / n)
            held["wild"] += np.mean(np.abs(shifted) / np.maximum(errors, 1e-12) >= observed - 1e-12) > 0.05
    return held


def clusters(runs: int) -> Iterator[str]:
    """coverage of 95 % intervals with the 12 repositories of SWE-bench Verified, by intraclass correlation"""
    for icc in (0.02, 0.05, 0.1):
        found = cluster_coverage(icc, runs * 2, 399)
        yield f"icc {icc:4.2f} " + "   ".join(f"{name} {rate_text(each, runs * 2)}" for name, each in found.items())


def strata_coverage(sizes: tuple[int, ...], spread: float, binary: bool, runs: int) -> tuple[int, int, int]:
    """Coverage with strata whose true means differ, without them, and the width with them in % of that without."""
    rng, n, held, alone, widths = np.random.default_rng([SEED, 5, *sizes]), sum(sizes), 0, 0, 0.0
    means = np.clip(0.6 + spread * np.linspace(-1, 1, len(sizes)), 0.02, 0.98)
    stratum = np.repeat(np.arange(len(sizes)), sizes)
    names = {str(task): str(place) for task, place in enumerate(stratum)}
    groups, truth = TaskGroups({}, names), float(means[stratum].mean())
    for _ in range(runs):
        drawn = rng.random(n) < means[stratum] if binary else rng.beta(4 * means[stratum], 4 * (1 - means[stratum]))
        scores: Scores = {str(task): [float(each)] for task, each in enumerate(drawn)}
        found, plain = mean_interval(scores, clusters=groups), mean_interval(scores)
        held += found.low <= truth <= found.high
        alone += plain.low <= truth <= plain.high
        widths += (found.high - found.low) / (plain.high - plain.low)
    return held, alone, round(100 * widths / runs)


def paired_strata(sizes: tuple[int, ...], spread: float, runs: int) -> tuple[int, int]:
    """False verdicts on two 0/1 agents that are equal over all strata and differ in each: with strata, and without."""
    rng, n, found, plain = np.random.default_rng([SEED, 6, *sizes]), sum(sizes), 0, 0
    stratum, place = np.repeat(np.arange(len(sizes)), sizes), np.linspace(-1, 1, len(sizes))
    gain = spread * (place - place @ np.array(sizes) / n)[stratum]
    groups = TaskGroups({}, {str(task): str(each) for task, each in enumerate(stratum)})
    for _ in range(runs):
        ease = rng.random(n)
        a = {str(t): [float(x)] for t, x in enumerate(ease < 0.5 + gain / 2 + 0.1 * rng.normal(size=n))}
        b = {str(t): [float(x)] for t, x in enumerate(ease < 0.5 - gain / 2 + 0.1 * rng.normal(size=n))}
        found += paired_difference(a, b, clusters=groups).verdict != "inconclusive"
        plain += paired_difference(a, b).verdict != "inconclusive"
    return found, plain


STRATA = {
    "14 x 20": (20,) * 14,
    "57 x 4": (4,) * 57,
    "3 x 10": (10,) * 3,
    "40 x 2": (2,) * 40,
    "uneven": (150, 60, 30, 8, 2, 1, 1),
}


def strata(runs: int) -> Iterator[str]:
    """coverage of 95 % intervals over fixed strata, without them, and width in % of that; false verdicts of pairs (.05)"""
    for name, sizes in STRATA.items():
        for spread in (0.1, 0.35):
            for binary in (True, False):
                held, alone, width = strata_coverage(sizes, spread, binary, runs // 2)
                told = f"{name}, means ± {spread}, {'0/1' if binary else 'partial'}"
                covered, without = rate_text(held, runs // 2), rate_text(alone, runs // 2)
                yield f"{told:30s} {covered}   without {without}   width {width} %"
        found, plain = paired_strata(sizes, 0.2, runs // 2)
        yield f"{name + ', pairs':30s} {rate_text(found, runs // 2)}   without {rate_text(plain, runs // 2)}"


# -- partial credit --


def partial_scores(rng: np.random.Generator, name: str, shape: tuple[int, int]) -> tuple[Array, float]:
    """Scores within 0 to 1 of that kind, and their true mean."""
    if name == "5 % lost":
        return np.where(rng.random(shape) < LOST, 0.0, rng.beta(8, 1, shape)), (1 - LOST) * 8 / 9
    if name == "1 % lost":
        return np.where(rng.random(shape) < 0.01, 0.0, rng.beta(30, 1, shape)), 0.99 * 30 / 31
    if name in PARTIAL_SHARES:
        values, shares = PARTIAL_SHARES[name]
        return rng.choice(values, shape, p=shares), float(np.dot(values, shares))
    a, b = {"beta(5, 5)": (5.0, 5.0), "beta(.5, .5)": (0.5, 0.5), "beta(2, 5)": (2.0, 5.0)}[name]
    return rng.beta(a, b, shape), a / (a + b)


PARTIAL_SHARES = {
    "quarters, mostly 1": ([0, 0.25, 0.5, 0.75, 1], [0.02, 0.03, 0.05, 0.1, 0.8]),
    "thirds, mostly 0": ([0, 0.3, 0.6, 1], [0.9, 0.05, 0.03, 0.02]),
}
PARTIAL = ("5 % lost", "1 % lost", *PARTIAL_SHARES, "beta(5, 5)", "beta(.5, .5)", "beta(2, 5)")


def partial_coverage(name: str, n: int, runs: int) -> tuple[int, int, float]:
    """Coverage of means of partial credit, that of t alone, and the width in % of that of t."""
    rng = np.random.default_rng([SEED, 8, n, *name.encode()])
    scores, truth = partial_scores(rng, name, (runs, n))
    held = alone = 0
    widths = [0.0, 0.0]
    for each in scores:
        found = mean_interval(each.tolist())
        half = stats.t.ppf(0.975, n - 1) * found.error if found.method == "t" else found.high - found.value
        low, high = (found.value - half, found.value + half) if found.method == "t" else (found.low, found.high)
        held += found.low <= truth <= found.high
        alone += low <= truth <= high
        widths[0] += found.high - found.low
        widths[1] += min(1.0, high) - max(0.0, low)
    return held, alone, 100 * widths[0] / widths[1]


def partial(runs: int) -> Iterator[str]:
    """coverage of 95 % intervals of mean partial credit, of t alone, and the width in % of that of t"""
    for name in PARTIAL:
        for n in (5, 10, 20, 50, 100, 300):
            held, alone, width = partial_coverage(name, n, runs)
            yield f"{name:20s} n={n:4d} {rate_text(held, runs)}   t {rate_text(alone, runs)}   width {width:.0f} %"


def partial_pair_power(n: int, effect: float, runs: int) -> tuple[int, int]:
    """How often two agents that differ by `effect` in partial credit are told apart: ours, and the gate's two-sided test."""
    rng = np.random.default_rng([SEED, 9, n, int(1000 * effect)])
    found = strict = 0
    for _ in range(runs):
        ease = rng.beta(4, 3, n)
        a, b = (np.clip(ease + rng.normal(more, 0.15, n), 0, 1) for more in (effect, 0.0))
        differences = Differences(tuple((a - b).tolist()), False, True)
        found += judged(differences).verdict != "inconclusive"
        strict += min(differences.surely_above(0.0), differences.reversed.surely_above(0.0)) < 0.025
    return found, strict


def pairs(runs: int) -> Iterator[str]:
    """partial credit of two agents: shares told apart by a comparison, and by the gate's test in its place"""
    for effect in (0.0, 0.05, 0.1):
        for n in (20, 50, 100):
            found, strict = partial_pair_power(n, effect, runs // 4)
            yield f"effect {effect:.2f} n={n:4d} {rate_text(found, runs // 4)}   gate's {rate_text(strict, runs // 4)}"


# -- corpus figures over strata --


def stratified_figure(sizes: tuple[int, ...], runs: int) -> tuple[int, int, int, float]:
    """Coverage of micro-F1 over strata of unlike noise, without them, false verdicts of pairs, and the width in %."""
    rng = np.random.default_rng([SEED, 10, *sizes])
    noises = np.linspace(0.02, 0.9, len(sizes))
    stratum = np.repeat(np.arange(len(sizes)), sizes)
    names = tuple(f"{number:05d}" for number in range(len(stratum)))
    groups = TaskGroups({}, {name: str(each) for name, each in zip(names, stratum, strict=True)})
    right = 10 * (1 - noises / 2) * np.array(sizes)
    truth = float(2 * right.sum() / (2 * right.sum() + (10 * noises * np.array(sizes)).sum()))
    held = alone = false = 0
    widths = [0.0, 0.0]
    for _ in range(runs):
        sides = []
        for _ in range(2):
            wanted = rng.poisson(8, len(stratum)) + 2
            missed, wrong = (rng.binomial(wanted, noises[stratum] / 2) for _ in range(2))
            sides.append(micro_f1_figure(np.stack([wanted - missed, wrong, missed], axis=1).astype(float)))
        found, plain = figure_interval(sides[0], groups), figure_interval(sides[0])
        held += found.low <= truth <= found.high
        alone += plain.low <= truth <= plain.high
        widths[0] += found.high - found.low
        widths[1] += plain.high - plain.low
        false += judged(FigureDifference.between(sides[0], sides[1], groups, draws=1000)).verdict != "inconclusive"
    return held, alone, false, 100 * widths[0] / widths[1]


def figure_strata(runs: int) -> Iterator[str]:
    """coverage of micro-F1 over fixed strata, without them, the width in % of that, and false verdicts of pairs (.05)"""
    for sizes in ((50, 50), (40,) * 5, (3,) * 20, (100, 30, 12, 4, 1)):
        held, alone, false, width = stratified_figure(sizes, runs // 8)
        told = f"{len(sizes)} strata of {min(sizes)} to {max(sizes)}"
        yield (
            f"{told:24s} {rate_text(held, runs // 8)}   without {rate_text(alone, runs // 8)}   width {width:.0f} %   "
            f"pairs {rate_text(false, runs // 8)}"
        )


# -- several effects, and proportions --


def joint_coverage(effects: int, null: int, runs: int) -> tuple[int, int, int]:
    """How often all intervals hold their effects: ours, those at Holm's levels, and how often Holm finds a false one."""
    rng = np.random.default_rng([SEED, 7, effects, null])
    truths = np.concatenate([np.zeros(null), np.linspace(0.02, 0.25, effects - null)])
    ours = at_holm = false = 0
    for _ in range(runs):
        base = rng.normal(0, 0.2, 60)
        others = truths[:, None] + rng.normal(0, 0.2, (effects, 60)) - base
        found = [Differences(tuple(each.tolist()), False, False) for each in others]
        joint = corrected(found)
        ours += all(each.low <= truth <= each.high for each, truth in zip(joint, truths, strict=True))
        false += any(each.verdict != "inconclusive" for each in joint[:null])
        raw = [each.p_value for each in found]
        order, levels = sorted(range(effects), key=raw.__getitem__), [0.0] * effects
        for rank, index in enumerate(order):
            levels[index] = 1 - 0.05 / (effects - rank)
        former = [judged(each, level) for each, level in zip(found, levels, strict=True)]
        at_holm += all(each.low <= truth <= each.high for each, truth in zip(former, truths, strict=True))
    return ours, at_holm, false


def joint(runs: int) -> Iterator[str]:
    """10 effects: all 95 % intervals hold jointly (Bonferroni), those at Holm's levels do; Holm's false verdicts (.05)"""
    for null in (10, 5, 1):
        ours, at_holm, false = joint_coverage(10, null, runs // 2)
        told = "   ".join(rate_text(each, runs // 2) for each in (ours, at_holm, false))
        yield f"{null:2d} of 10 without effect: {told}"


def wilson_coverage(n: int, grid: int = 4000) -> tuple[float, float, float, float]:
    """Exact coverage of Wilson's 95 % interval over a grid of truths: mean, least, where, and least within .1 to .9."""
    bounds = np.array([proportion_interval(hits, n) for hits in range(n + 1)])
    truths = (np.arange(grid) + 0.5) / grid
    held = (bounds[:, :1] <= truths) & (truths <= bounds[:, 1:])
    coverage = (stats.binom.pmf(np.arange(n + 1)[:, None], n, truths) * held).sum(axis=0)
    middle = (truths > 0.1) & (truths < 0.9)
    worst = int(coverage.argmin())
    return float(coverage.mean()), float(coverage[worst]), float(truths[worst]), float(coverage[middle].min())


def wilson(runs: int) -> Iterator[str]:
    """exact coverage of Wilson's 95 % interval over 4,000 truths: mean, least, where, least within .1 to .9"""
    for n in (5, 10, 20, 50, 100, 500, 1000):
        mean, least, where, middle = wilson_coverage(n)
        yield f"n={n:5d} mean {mean:.3f}   least {least:.3f} at {where:.4f}   within .1 to .9 {middle:.3f}"


def tango_gate(n: int, bar: float, won: float, *, corrected: bool = True) -> float:
    """The exact chance that a gate takes 0/1 scores whose true difference is `bar` for more, where `won` of tasks are won.

    `bar` is below 0 for a false pass and above 0, with the candidate in the baseline's place, for a false failure. Without
    `corrected` it is that of Tango's test alone.
    """
    lost, passing = won - bar, 0.0
    for better in range(n + 1):
        if stats.binom.pmf(better, n, won) < 1e-9:
            continue
        most = n - better  # passing falls with the losses, so the first that does not pass ends it
        for worse in range(most + 1):
            found = Differences((1.0,) * better + (-1.0,) * worse + (0.0,) * (most - worse), True, True)
            if (found.surely_above(bar) if corrected else found.p_above(bar)) >= 0.05:
                break
            passing += stats.binom.pmf(better, n, won) * stats.binom.pmf(worse, most, lost / (1 - won))
    return float(passing)


def tango(runs: int) -> Iterator[str]:
    """0/1 scores exactly at the bar: the exact chance of a false pass (of Tango's test alone), by the share of tasks won"""
    for bar, sizes in ((-0.1, (8, 20)), (-0.05, (52, 100)), (-0.02, (132,)), (0.03, (100,)), (0.05, (40,))):
        for n in sizes:
            told = []
            for won in (max(each, bar + each) for each in TANGO_WON):
                ours, alone = (tango_gate(n, bar, won, corrected=each) for each in (True, False))
                told.append(f"{won:.0%} {ours:.3f} ({alone:.3f})")
            yield f"bar {bar:+.0%} n={n:4d} won: {'   '.join(told)}"


TANGO_WON = (0.0, 0.02, 0.1, 0.45)


def mmlu_pro(runs: int) -> Iterator[str]:
    """gemini-1.5-flash-002 against Llama-3.1-70B-Instruct on 12,032 questions (needs FIRSTHAND_DATA)"""
    folder = Path(os.environ.get("FIRSTHAND_DATA") or Path(__file__).parents[2] / "shared" / "data")
    path = folder / "leaderboards" / "mmlu_pro_item_results.csv.gz"
    if not path.exists():
        yield f"there is no {path}: set FIRSTHAND_DATA to the folder with leaderboards/mmlu_pro_item_results.csv.gz"
        return
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    a, b = (
        {row["question_id"]: [float(row[name] == "1")] for row in rows}
        for name in ("gemini-1.5-flash-002", "Meta-Llama-3_1-70B-Instruct")
    )
    rates = [sum(value for (value,) in each.values()) / len(rows) for each in (a, b)]
    paired = Differences.between(a, b)
    unpaired = paired.mean / math.sqrt(sum(rate * (1 - rate) / len(rows) for rate in rates))
    yield f"unpaired z {unpaired:.2f}, paired z {paired.mean / paired.error:.2f}"
    categories = {row["question_id"]: row["category"] for row in rows}
    for name, groups in (("alone", None), ("clusters", categories), ("strata", TaskGroups({}, categories))):
        found = paired_difference(a, b, clusters=groups)
        told = f"{found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}] p = {found.p_value:.3f}"
        yield f"questions as {name:8s} {told} {found.method}, {found.verdict}"


TABLES: dict[str, Callable[[int], Iterator[str]]] = {
    "figures": figures,
    "figure-gates": figure_gates,
    "gates": gates,
    "clustered-gates": clustered_gates,
    "clusters": clusters,
    "strata": strata,
    "partial": partial,
    "pairs": pairs,
    "figure-strata": figure_strata,
    "joint": joint,
    "wilson": wilson,
    "tango": tango,
    "mmlu-pro": mmlu_pro,
}
