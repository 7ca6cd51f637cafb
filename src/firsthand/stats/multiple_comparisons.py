"""Corrects p-values, verdicts and intervals for multiple comparisons.

Among twenty equal agents, one differs from the baseline at p < 0.05 by chance. Holm's correction controls the family-wise
error rate; Benjamini and Hochberg's controls the false discovery rate, which has more power where many comparisons are made
and a few false ones do no harm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Literal

from firsthand.benchmark import Figure
from firsthand.errors import ConfigError
from firsthand.stats.figure_stats import FigureDifference
from firsthand.stats.intervals import CONFIDENCE, Clusters, Scores
from firsthand.stats.paired import Differences, PairedDifference, judged, settled

Correction = Literal["holm", "bh", "none"]
MAX_AGENTS = 200
"""Agents whose pairs are all compared: 19,900 pairs."""


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for how many there are, in the order given (Holm, 1979)."""
    count, corrected, largest = len(p_values), [1.0] * len(p_values), 0.0
    for rank, index in enumerate(_ascending(p_values)):
        largest = max(largest, min(1.0, (count - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """The p-values as false discovery rates, in the order given (Benjamini and Hochberg, 1995)."""
    count, corrected, smallest = len(p_values), [1.0] * len(p_values), 1.0
    for rank, index in reversed(list(enumerate(_ascending(p_values), 1))):
        smallest = min(smallest, count / rank * p_values[index])
        corrected[index] = smallest
    return corrected


def compare_to_baseline(
    others: Mapping[str, Scores | Figure],
    baseline: Scores | Figure,
    confidence: float = CONFIDENCE,
    clusters: Clusters | None = None,
    *,
    lower_is_better: bool = False,
) -> dict[str, PairedDifference]:
    """Each of several agents against one, with Holm's correction in the p-values, the verdicts and the intervals."""
    found = [difference(values, baseline, clusters, lower_is_better=lower_is_better) for values in others.values()]
    return dict(zip(others, corrected(found, "holm", confidence), strict=True))


def all_pairs(
    agents: Mapping[str, Scores | Figure],
    correction: Correction = "holm",
    confidence: float = CONFIDENCE,
    clusters: Clusters | None = None,
    *,
    lower_is_better: bool = False,
) -> dict[tuple[str, str], PairedDifference]:
    """Every two agents, the later one against the earlier, corrected for how many pairs there are.

    Raises:
        ConfigError: More than `MAX_AGENTS` agents, whose pairs would take minutes and gigabytes.
    """
    if len(agents) > MAX_AGENTS:
        raise ConfigError(
            f"more agents ({len(agents):,}) than the {MAX_AGENTS} whose pairs are compared: name runs with fewer"
        )
    pairs = list(combinations(agents, 2))
    found = [
        difference(agents[later], agents[first], clusters, lower_is_better=lower_is_better) for first, later in pairs
    ]
    return dict(zip(pairs, corrected(found, correction, confidence), strict=True))


def difference(
    a: Scores | Figure, b: Scores | Figure, clusters: Clusters | None, *, lower_is_better: bool = False
) -> Differences | FigureDifference:
    """The difference of A from B: in the mean of their scores, or in a Figure, which tells itself if lower is better."""
    if isinstance(a, Figure) and isinstance(b, Figure):
        return FigureDifference.between(a, b, clusters)
    assert not isinstance(a, Figure) and not isinstance(b, Figure), "both sides have the same scores"
    return Differences.between(a, b, clusters, lower_is_better=lower_is_better)


def corrected(
    found: Sequence[Differences | FigureDifference], correction: Correction = "holm", confidence: float = CONFIDENCE
) -> list[PairedDifference]:
    """The comparisons in the order given, with p-values, verdicts and intervals that allow for their number.

    Under Holm's correction the intervals of k comparisons hold jointly: each is at the level 1 - alpha/k (Bonferroni). Holm
    finds a little more than they show, so a verdict may stand beside an interval that reaches 0. Under Benjamini and
    Hochberg's all that were found to differ, R of k, get theirs at 1 - R*alpha/k (Benjamini and Yekutieli, 2005). An
    interval is stretched to 0 where no difference was found.
    """
    raw, alpha, count = [each.p_value for each in found], 1 - confidence, len(found)
    adjusted = holm(raw) if correction == "holm" else benjamini_hochberg(raw) if correction == "bh" else raw
    discoveries = max(1, sum(p < alpha for p in adjusted))
    results = []
    share = {"holm": 1 / max(1, count), "bh": discoveries / max(1, count), "none": 1.0}[correction]
    for each, p_value in zip(found, adjusted, strict=True):
        result = replace(judged(each, 1 - alpha * share), p_value=p_value)
        results.append(settled(result, p_value < alpha))
    return results


def _ascending(values: Sequence[float]) -> list[int]:
    return sorted(range(len(values)), key=lambda index: values[index])
