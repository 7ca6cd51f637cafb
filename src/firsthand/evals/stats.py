"""Intervals, paired comparisons and power for scores: pure functions from numbers to numbers.

Tasks are the unit. Several attempts at one task are averaged before anything else is computed, because they are not
independent draws from the benchmark (Miller, 2024, "Adding Error Bars to Evals", arXiv 2411.00640). Below a few hundred
tasks the central limit theorem gives intervals that are too narrow for 0/1 scores (Bowyer et al., 2025, arXiv 2503.01747),
so those get score intervals. Left out: ratings of preferences, corpus metrics (BLEU of a whole test set), clusters of tasks.

numpy and scipy are imported where they are used, so that importing this module costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from firsthand.errors import ConfigError
from firsthand.message import Json

Verdict = Literal["better", "worse", "cannot tell"]

CONFIDENCE = 0.95
EXACT_FLIPS = 14
"""Up to this many tasks that differ, all 2^n sign flips are counted."""
SAMPLED_FLIPS = 20_000
LARGE_N = 2000
"""From here on the sign-flip distribution is taken as normal."""
SEED = 20241101


class Bounds(NamedTuple):
    """The two ends of an interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Interval:
    """A mean over `n` tasks and the interval that holds the true mean with the stated confidence; NaN if n is 0."""

    value: float
    low: float
    high: float
    n: int

    def to_json(self) -> Json:
        """The numbers as a JSON object; what is not finite becomes null."""
        return {"value": finite(self.value), "low": finite(self.low), "high": finite(self.high), "n": self.n}


@dataclass(frozen=True)
class PairedDifference:
    """How much higher A scored than B on the tasks both attempted.

    `verdict`, `p_value` and the interval agree by construction: `verdict` is `better` or `worse` exactly when
    p_value < 1 - confidence, which is exactly when the interval leaves out 0. See `paired_difference`.
    """

    difference: float
    low: float
    high: float
    p_value: float
    n: int
    better: int
    """Tasks on which A scored higher."""
    worse: int
    same: int
    verdict: Verdict
    detectable: float
    """The smallest true difference that this comparison would have found 4 times in 5; NaN if unknown."""

    def to_json(self) -> Json:
        """The numbers as a JSON object; what is not finite becomes null."""
        return {
            "difference": finite(self.difference),
            "low": finite(self.low),
            "high": finite(self.high),
            "p_value": self.p_value,
            "n": self.n,
            "better": self.better,
            "worse": self.worse,
            "same": self.same,
            "verdict": self.verdict,
            "detectable": finite(self.detectable),
        }


def finite(value: float) -> float | None:
    """The value, or None if JSON cannot hold it."""
    return value if math.isfinite(value) else None


def proportion_interval(successes: int, n: int, confidence: float = CONFIDENCE) -> Bounds:
    """Wilson's score interval for a proportion (Wilson, 1927; recommended by Brown, Cai and DasGupta, 2001).

    It never leaves 0 to 1 and is of use at 0 or n successes. With n = 0 nothing is known: 0 to 1.
    """
    if not 0 <= successes <= n:
        raise ConfigError(f"{successes} successes of {n}: give a count from 0 to n")
    if n == 0:
        return Bounds(0.0, 1.0)
    z = _z(confidence)
    share, shrink = successes / n, 1 + z * z / n
    centre = (share + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Bounds(0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half)


def mean_interval(values: Sequence[float] | Mapping[str, Sequence[float]], confidence: float = CONFIDENCE) -> Interval:
    """The mean score and its interval. Give one value per task, or task -> the values of its attempts.

    Values that are all 0 or 1 get Wilson's interval; others Student's t, cut to 0..1 if all values lie there. If all n
    values are equal (n = 1 too) the spread is unknown, and t would claim certainty: for values in 0..1 the interval then
    allows a share 1 - (alpha/2)^(1/n) of tasks, the most that n equal draws leave possible, to score anything; for
    others it is unbounded. With n = 0 everything is NaN.
    """
    means = task_means(values) if isinstance(values, Mapping) else [_number(value) for value in values]
    n = len(means)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = math.fsum(means) / n
    if _all_binary(means):
        return Interval(mean, *proportion_interval(round(sum(means)), n, confidence), n)
    unit = all(0 <= value <= 1 for value in means)
    if len(set(means)) == 1:
        unseen = _unseen_share(n, confidence)
        low, high = (mean * (1 - unseen), mean * (1 - unseen) + unseen) if unit else (-math.inf, math.inf)
        return Interval(mean, low, high, n)
    half = _t_half(means, confidence)
    low, high = mean - half, mean + half
    return Interval(mean, max(0.0, low), min(1.0, high), n) if unit else Interval(mean, low, high, n)


def task_means(values: Mapping[str, Sequence[float]]) -> list[float]:
    """The mean over the attempts at each task; a task without an attempt is left out."""
    return [math.fsum(map(_number, each)) / len(each) for each in values.values() if each]


def paired_difference(
    a: Mapping[str, Sequence[float]], b: Mapping[str, Sequence[float]], confidence: float = CONFIDENCE
) -> PairedDifference:
    """How A differs from B on the tasks both attempted (task -> values of its attempts).

    0/1 scores: Tango's score interval for paired proportions (Tango, 1998, Statistics in Medicine 17:891) and
    McNemar's exact test, whose error rate never exceeds its level.
    Other scores: paired t interval and a sign-flip permutation test, exact up to 14 tasks that differ, sampled with a
    fixed seed above. The test and the interval come from different approximations and can disagree near the edge. Then
    the more cautious of the two is printed in both places: the p-value is the larger of the test's and the interval's
    own, and the interval is stretched to 0 where the test alone finds nothing.
    """
    common = [task for task in a if a[task] and b.get(task)]
    means_a, means_b = task_means({t: a[t] for t in common}), task_means({t: b[t] for t in common})
    if not common:
        return PairedDifference(math.nan, math.nan, math.nan, 1.0, 0, 0, 0, 0, "cannot tell", math.nan)
    differences = [x - y for x, y in zip(means_a, means_b, strict=True)]
    better, worse = sum(d > 1e-12 for d in differences), sum(d < -1e-12 for d in differences)
    n = len(common)
    if _all_binary(means_a + means_b):
        low, high = tango_interval(better, worse, n, confidence)
        p_value = max(mcnemar(better, worse), _mcnemar_score(better, worse))
        disagreement = (better + worse + 1) / (n + 2)
        detectable = smallest_detectable(n, disagreement=disagreement, confidence=confidence)
    else:
        unit = all(0 <= value <= 1 for value in means_a + means_b)
        (low, high), p_interval = _mean_test(differences, unit, confidence)
        p_value = max(sign_flip(differences), p_interval)
        sd = (_standard_deviation(differences) if n > 1 else 0.0) or math.nan
        detectable = smallest_detectable(n, sd=sd, confidence=confidence)
    centre = math.fsum(differences) / n
    found = PairedDifference(
        centre, low, high, p_value, n, better, worse, n - better - worse, "cannot tell", detectable
    )
    return settled(found, p_value < 1 - confidence)


def settled(found: PairedDifference, significant: bool) -> PairedDifference:
    """The same comparison with the verdict that follows, and its interval stretched to 0 if there is none."""
    if not significant:
        return replace(found, verdict="cannot tell", low=min(found.low, 0.0), high=max(found.high, 0.0))
    return replace(found, verdict="better" if found.difference > 0 else "worse")


def tango_interval(better: int, worse: int, n: int, confidence: float = CONFIDENCE) -> Bounds:
    """Tango's score interval for the difference of two paired proportions, (better - worse) / n."""
    z = _z(confidence)

    def statistic(d: float) -> float:
        """The score statistic of the null hypothesis that the difference is d."""
        linear = -better - worse + (2 * n - better + worse) * d
        root = math.sqrt(max(0.0, linear * linear + 8 * n * worse * d * (1 - d)))
        losses = max(0.0, (root - linear) / (4 * n))
        variance = n * (2 * losses + d * (1 - d))
        distance = better - worse - n * d
        return 0.0 if abs(distance) < 1e-12 else distance / math.sqrt(max(variance, 1e-300))

    centre = (better - worse) / n
    low = -1.0 if better - worse == -n else _bisect(lambda d: z - statistic(d), -1.0, centre)
    high = 1.0 if better - worse == n else _bisect(lambda d: -z - statistic(d), centre, 1.0)
    return Bounds(low, high)


def mcnemar(better: int, worse: int) -> float:
    """The two-sided p-value of McNemar's exact test (McNemar, 1947): were wins and losses the tosses of a fair coin?

    Exact, not mid-p: mid-p has more power, but was found to reject up to 5.7 % of true nulls at the 5 % level.
    """
    from scipy.special import bdtr

    total, fewer = better + worse, min(better, worse)
    if total == 0:
        return 1.0
    return min(1.0, 2 * float(bdtr(fewer, total, 0.5)))


def sign_flip(differences: Sequence[float]) -> float:
    """The two-sided p-value of the sign-flip test: how often chance signs give a sum as far from 0 (Fisher, 1935)."""
    import numpy as np

    values = np.array([d for d in differences if abs(d) > 1e-12])
    n, observed = len(values), abs(math.fsum(values)) - 1e-9
    if n == 0:
        return 1.0
    if n <= EXACT_FLIPS:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return float(np.mean(np.abs((2 * bits - 1) @ values) >= observed))
    if n > LARGE_N:
        return math.erfc(max(observed, 0.0) / math.sqrt(2 * float(values @ values)))
    rng = np.random.default_rng(SEED)
    hits, chunk = 0, max(1, min(SAMPLED_FLIPS, 2_000_000 // n))
    for start in range(0, SAMPLED_FLIPS, chunk):
        signs = rng.integers(0, 2, size=(min(chunk, SAMPLED_FLIPS - start), n), dtype=np.int8) * 2 - 1
        hits += int(np.sum(np.abs(signs @ values) >= observed))
    return (1 + hits) / (1 + SAMPLED_FLIPS)


def smallest_detectable(
    n: int,
    *,
    disagreement: float | None = None,
    sd: float | None = None,
    confidence: float = CONFIDENCE,
    power: float = 0.8,
) -> float:
    """The smallest true difference that a paired comparison over n tasks finds with this power.

    Give `disagreement`, the share of tasks on which one of two 0/1 scores is right and the other wrong (Connor, 1987,
    Biometrics 43:207, less 1/d tasks because the test is exact; a difference d needs a share of at least d), or `sd`,
    the standard deviation of the differences (Miller, 2024, section 5). At most 1 for 0/1 scores, which means: nothing
    could have been seen.
    """
    if n < 1 or (disagreement is None) == (sd is None):
        raise ConfigError(f"n is {n}, disagreement {disagreement}, sd {sd}: give n of 1 or more and one of the two")
    z_alpha, z_power = _z(confidence), _z(2 * power - 1)
    if sd is not None:
        return (z_alpha + z_power) * sd / math.sqrt(n)

    def surplus(d: float) -> float:
        share = max(disagreement or 0.0, d)
        return (
            d * math.sqrt(max(0.0, n - 1 / d))
            - z_alpha * math.sqrt(share)
            - z_power * math.sqrt(max(0.0, share - d * d))
        )

    return 1.0 if surplus(1.0) <= 0 else _bisect(surplus, 0.0, 1.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for how many there are, in the order given (Holm, 1979)."""
    count, corrected, largest = len(p_values), [1.0] * len(p_values), 0.0
    for rank, index in enumerate(_ascending(p_values)):
        largest = max(largest, min(1.0, (count - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def compare_to_baseline(
    others: Mapping[str, Mapping[str, Sequence[float]]],
    baseline: Mapping[str, Sequence[float]],
    confidence: float = CONFIDENCE,
) -> dict[str, PairedDifference]:
    """Each of several agents against one, with Holm's correction in the p-values, the verdicts and the intervals.

    The comparison with the i-th smallest of k p-values gets its interval at the level Holm tests it at, 1 - alpha/(k-i+1),
    stretched to 0 if it was not found to differ: so each interval still agrees with its corrected p-value.
    """
    names = list(others)
    raw = [paired_difference(others[name], baseline, confidence).p_value for name in names]
    corrected, results = holm(raw), {}
    for rank, index in enumerate(_ascending(raw)):
        level = 1 - (1 - confidence) / (len(names) - rank)
        found = paired_difference(others[names[index]], baseline, level)
        significant = corrected[index] < 1 - confidence
        results[names[index]] = settled(replace(found, p_value=corrected[index]), significant)
    return {name: results[name] for name in names}


def _ascending(values: Sequence[float]) -> list[int]:
    return sorted(range(len(values)), key=lambda index: values[index])


def _z(confidence: float) -> float:
    from statistics import NormalDist

    if not 0 < confidence < 1:
        raise ConfigError(f"confidence is {confidence}: give a number between 0 and 1, such as 0.95")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _number(value: float) -> float:
    if not math.isfinite(value):
        raise ConfigError(f"a score is {value}: a mean needs finite numbers, so let the scorer give one")
    return float(value)


def _all_binary(values: Iterable[float]) -> bool:
    return all(value in (0.0, 1.0) for value in values)


def _unseen_share(n: int, confidence: float) -> float:
    return float(1 - ((1 - confidence) / 2) ** (1 / n))


def _standard_deviation(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _t_half(values: Sequence[float], confidence: float) -> float:
    from scipy.special import stdtrit

    n = len(values)
    return float(stdtrit(n - 1, (1 + confidence) / 2)) * _standard_deviation(values) / math.sqrt(n)


def _mean_test(differences: Sequence[float], unit: bool, confidence: float) -> tuple[Bounds, float]:
    """The t interval of a mean difference, and the p-value at which it touches 0. Equal ones: see `mean_interval`."""
    from scipy.special import stdtr

    n, mean = len(differences), math.fsum(differences) / len(differences)
    if max(differences) - min(differences) < 1e-12:
        if not unit:
            return Bounds(-math.inf, math.inf), 1.0
        unseen = _unseen_share(n, confidence)
        return Bounds(mean * (1 - unseen) - unseen, mean * (1 - unseen) + unseen), min(1.0, 2 * (1 + abs(mean)) ** -n)
    half = _t_half(differences, confidence)
    statistic = abs(mean) * math.sqrt(n) / _standard_deviation(differences)
    low, high = (max(-1.0, mean - half), min(1.0, mean + half)) if unit else (mean - half, mean + half)
    return Bounds(low, high), 2 * float(stdtr(n - 1, -statistic))


def _mcnemar_score(better: int, worse: int) -> float:
    """The p-value at which Tango's interval touches 0: McNemar's uncorrected statistic."""
    total = better + worse
    return 1.0 if total == 0 else math.erfc(abs(better - worse) / math.sqrt(2 * total))


def _bisect(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a function that goes from negative to positive between two points is 0."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2
