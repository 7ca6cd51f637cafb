"""Measures a judge's agreement with people: agreement rates, kappa, alpha and biases, each with an interval.

The ceiling is the agreement of people with each other on the same items. Items that share a question are not independent:
name their clusters, and the bootstrap draws whole clusters. Formulas: Cohen (1960), Fleiss (1971), Krippendorff (2011).
Pure functions from labels to numbers; `scorers/human_votes.py` reads them from runs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.stats.bootstrap import bootstrap_sums
from firsthand.stats.intervals import (
    CONFIDENCE,
    Interval,
    Moments,
    interval_of,
    mean_interval,
    moments,
    unseen_share,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

Level = Literal["nominal", "ordinal", "interval"]
LABELS = ("A", "tie", "B")
_TINY = 1e-12
_STEP = 1e-4


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable], *, weights: Level = "nominal") -> float:
    """Cohen's kappa of two raters of the same items: agreement beyond what their own label counts give by chance.

    With `weights="interval"` the labels are numbers and disagreement counts by its square (Cohen, 1968). NaN where both
    raters used one and the same label only: then nothing is left to agree on.
    """
    if len(first) != len(second) or not first:
        raise ConfigError(
            f"the raters rated {len(first)} and {len(second)} items: give one label each for the same items"
        )
    if weights == "ordinal":
        raise ConfigError("weights is 'ordinal': kappa takes 'nominal' or 'interval'; alpha takes ordinal labels")
    size, pairs = len(first), list(zip(first, second, strict=True))
    if weights == "nominal":
        ours, theirs = Counter(first), Counter(second)
        expected: float = size * size - sum(count * theirs[label] for label, count in ours.items())
        return 1 - size * sum(a != b for a, b in pairs) / expected if expected > 0 else math.nan
    observed = math.fsum(float(a - b) ** 2 for a, b in pairs)  # type: ignore[operator]
    # every label of one rater with every one of the other: all pairs, less those within a rater
    expected = _squared_differences([*first, *second]) - _squared_differences(first) - _squared_differences(second)
    return 1 - size * observed / expected if expected > 0 else math.nan


def fleiss_kappa(counts: Sequence[Sequence[int]]) -> float:
    """Fleiss' kappa: `counts[i][j]` raters gave item i label j, every item having as many raters, two or more."""
    raters = {sum(row) for row in counts}
    if len(raters) != 1 or min(raters) < 2 or len({len(row) for row in counts}) != 1:
        raise ConfigError("items with different numbers of ratings, or fewer than 2, have no Fleiss' kappa: use alpha")
    n, labels = raters.pop(), len(counts[0])
    within = sum(sum(c * c for c in row) - n for row in counts) / (len(counts) * n * (n - 1))
    shares = [sum(row[label] for row in counts) / (len(counts) * n) for label in range(labels)]
    chance = sum(share * share for share in shares)
    return (within - chance) / (1 - chance) if chance < 1 else math.nan


def krippendorff_alpha(units: Sequence[Sequence[Any]], *, level: Level = "nominal") -> float:
    """Krippendorff's alpha of any number of raters, ratings missing or not: `units[i]` are the labels that item i got.

    Items with fewer than two labels say nothing and are left out. 1 is agreement, 0 what chance gives; NaN where there is
    one label only. For `ordinal` and `interval` the labels are numbers.
    """
    paired = [list(unit) for unit in units if len(unit) >= 2]
    totals = Counter(label for unit in paired for label in unit)
    if not totals:
        return math.nan
    if level == "ordinal":
        middles = _middle_ranks(totals)
        paired = [[middles[label] for label in unit] for unit in paired]
    within = _differing_pairs if level == "nominal" else _squared_differences
    observed = math.fsum(within(unit) / (len(unit) - 1) for unit in paired)
    expected = within([label for unit in paired for label in unit])
    return 1 - (totals.total() - 1) * observed / expected if expected > 0 else math.nan


@dataclass(frozen=True)
class Judged:
    """One pair of answers: what people said, what the judge said, all of `A`, `B`, `tie`."""

    item: str
    humans: tuple[str, ...]
    verdict: str
    cluster: str | None = None
    """The cluster of the item, such as its question."""
    longer: Literal["A", "B"] | None = None
    """The longer answer; None if they are equally long."""
    first: float | None = None
    """The judge's mean chance of preferring the answer shown first, over both orders; None where a rule settled the pair."""
    consistent: bool | None = None
    """True if the judge gave the same verdict in both orders; None if it was not asked twice."""


@dataclass(frozen=True)
class Agreement:
    """The agreement and biases of a judge on a set of human votes, with intervals where they have one."""

    items: int
    votes: int
    with_humans: Interval
    """The chance that the judge says what a random one of the people said."""
    among_humans: Interval | None
    """The chance that two of the people said the same: the ceiling; None where each item has one vote."""
    decided: Interval | None
    """The same as `with_humans` where neither the judge nor the person called a tie (MT-Bench's second setup)."""
    kappa: Interval
    """Cohen's kappa of the judge with the majority of the people; items without a majority are left out.

    NaN where all have one and the same label, or none has a majority.
    """
    kappa_humans: float | None
    """Fleiss' kappa among the people; NaN where it is not defined."""
    alpha_humans: float | None
    """Krippendorff's alpha (nominal) among the people."""
    alpha_with_judge: float | None
    """The same with the judge as one more rater: below `alpha_humans` it disagrees more than they do."""
    first: Interval | None
    """The judge's chance of preferring what it was shown first, ties half: 0.5 has no position bias."""
    consistent: Interval | None
    """The share of pairs with the same verdict in both orders, of those judged twice."""
    longer_judge: Interval | None
    """The share of decided pairs that the longer answer wins."""
    longer_humans: Interval | None
    """The same for the people's votes."""
    length_bias: Interval | None
    """The first minus the second: what the judge adds to people's liking for length."""

    def to_json(self) -> Json:
        """The figures as a JSON object."""
        return {
            name: value.to_json() if isinstance(value, Interval) else _finite(value)
            for name, value in vars(self).items()
        }


def agreement(judged: Sequence[Judged], confidence: float = CONFIDENCE) -> Agreement:
    """The agreement of a judge with people.

    Intervals are of a bootstrap of whole clusters (BCa, 2,000 draws, fixed seed), which is too narrow for few of them: they
    reach at least as far as the interval that `mean_interval` gives for the items' influences, such as clustered
    Student's t. For position bias they are those of any mean score.
    Where all draws are equal, as in perfect agreement, the share of items that so many leave possible may say anything else.
    """
    import numpy as np

    for each in judged:
        if unknown := {each.verdict, *each.humans} - set(LABELS):
            raise ConfigError(f"item {each.item} has the label {sorted(unknown)[0]!r}: A, B or tie was expected")
        if not each.humans:
            raise ConfigError(f"item {each.item} has no human vote to agree with: leave it out")
    if not judged:
        raise ConfigError("there is nothing to compare: no item has both a verdict and a human vote")
    clusters = [each.cluster if each.cluster is not None else f"alone {each.item}" for each in judged]
    shared = clusters if len(set(clusters)) < len(clusters) else None

    def rate(pairs: Sequence[tuple[float, float]]) -> Interval:
        """Numerator over denominator, both summed over items."""
        return figure(np.array(pairs), _ratio, 0.0, 1.0)

    def figure(parts: Array, of: Callable[[Array], Array], least: float, most: float) -> Interval:
        """A figure of sums over items, with its interval; one item more could be as low as `least` or as high as `most`."""
        found = bootstrap_sums(parts, of, labels=shared, confidence=confidence)
        if found.high - found.low > _TINY:
            return _widened(found, interval_of(_influences(parts, of, shared), confidence), least, most)
        telling = {label for label, row in zip(clusters, parts, strict=True) if row.any()}
        unseen = unseen_share(len(telling), confidence)
        low, high = (found.value * (1 - unseen) + end * unseen for end in (least, most))
        return replace(found, low=low, high=high, method="equal draws")

    def kappa() -> Interval:
        confusions = _confusions(judged)
        chance = float(_chance(confusions.sum(axis=0))[0])
        if not chance < 1:
            return Interval(math.nan, math.nan, math.nan, len(judged))
        return figure(confusions, _kappas, -chance / (1 - chance), 1.0)

    def rate_if_any(pairs: Sequence[tuple[float, float]]) -> Interval | None:
        return rate(pairs) if any(below for _, below in pairs) else None

    longer = [_longer(each, (each.verdict,)) for each in judged]
    longer_said = [_longer(each, each.humans) for each in judged]
    comparable = any(below for _, below in longer) and any(below for _, below in longer_said)
    several = all(len(each.humans) >= 2 for each in judged)
    by_raters = [[each.humans.count(label) for label in LABELS] for each in judged]
    return Agreement(
        len(judged),
        sum(len(each.humans) for each in judged),
        rate([(sum(vote == each.verdict for vote in each.humans) / len(each.humans), 1) for each in judged]),
        rate([_same_pairs(each.humans) for each in judged]) if several else None,
        rate_if_any([_decided(each) for each in judged]),
        kappa(),
        fleiss_kappa(by_raters) if several and len({sum(row) for row in by_raters}) == 1 else None,
        krippendorff_alpha([each.humans for each in judged]) if several else None,
        krippendorff_alpha([(*each.humans, each.verdict) for each in judged]),
        _mean(judged, "first", confidence),
        _mean(judged, "consistent", confidence),
        rate_if_any(longer),
        rate_if_any(longer_said),
        figure(
            np.array([(*ours, *theirs) for ours, theirs in zip(longer, longer_said, strict=True)]),
            lambda sums: _ratio(sums[:, :2]) - _ratio(sums[:, 2:]),
            -1.0,
            1.0,
        )
        if comparable
        else None,
    )


def _influences(parts: Array, of: Callable[[Array], Array], labels: Sequence[str] | None) -> Moments:
    """The moments of the figure as if each item alone made it, by its derivative; of a rate of items, their scores.

    Items that are in none of the sums, such as ties where wins are counted, say nothing and are left out.
    """
    import numpy as np

    telling = np.flatnonzero(parts.any(axis=1))
    chosen, total, n = parts[telling], parts.sum(axis=0), len(telling)
    step = _STEP * n
    slopes = (of(total + step * chosen) - of(total - step * chosen)) / (2 * step)
    values = np.round(float(of(total[None])[0]) + n * (slopes - slopes.mean()), 7)
    named = [labels[place] for place in telling.tolist()] if labels is not None else None
    return moments(values.tolist(), named if named and len(set(named)) < n else None)


def _widened(found: Interval, other: Interval, least: float, most: float) -> Interval:
    """The interval with what another adds on either side, up to the least and the most that the figure can be."""
    low, high = min(found.low, max(other.low, least)), max(found.high, min(other.high, most))
    if (low, high) == (found.low, found.high):
        return found
    return replace(found, low=low, high=high, method=f"{found.method} and {other.method}")


def majority(votes: Sequence[str]) -> str | None:
    """The label that more than half of the people gave, or None."""
    label, count = Counter(votes).most_common(1)[0]
    return label if 2 * count > len(votes) else None


def _mean(judged: Sequence[Judged], name: str, confidence: float) -> Interval | None:
    """The mean over the items where it is known: none of 200 is no certainty, as a bootstrap would have it."""
    known = {each.item: [float(getattr(each, name))] for each in judged if getattr(each, name) is not None}
    clusters = {each.item: each.cluster for each in judged if each.cluster is not None and each.item in known}
    return mean_interval(known, confidence, clusters) if known else None


def _same_pairs(votes: Sequence[str]) -> tuple[float, float]:
    pairs = len(votes) * (len(votes) - 1) / 2
    return 1 - _differing_pairs(votes) / pairs, 1.0


def _decided(each: Judged) -> tuple[float, float]:
    decided = [vote for vote in each.humans if vote != "tie"] if each.verdict != "tie" else []
    return sum(vote == each.verdict for vote in decided) / len(each.humans), len(decided) / len(each.humans)


def _longer(each: Judged, votes: Sequence[str]) -> tuple[float, float]:
    decided = [vote for vote in votes if vote != "tie"] if each.longer else []
    return sum(vote == each.longer for vote in decided) / len(votes), len(decided) / len(votes)


def _confusions(judged: Sequence[Judged]) -> Array:
    """A row per item: which of the 9 pairs (majority, verdict) it is; all zeros without a majority."""
    import numpy as np

    rows = np.zeros((len(judged), len(LABELS) ** 2))
    for row, each in zip(rows, judged, strict=True):
        if (people := majority(each.humans)) is not None:
            row[LABELS.index(people) * len(LABELS) + LABELS.index(each.verdict)] = 1
    return rows


def _kappas(sums: Array) -> Array:
    """Cohen's kappa of each row of pair counts; 0 for a draw where it is not defined."""
    import numpy as np

    tables = sums.reshape(-1, len(LABELS), len(LABELS))
    same = np.trace(tables, axis1=1, axis2=2) / np.maximum(tables.sum(axis=(1, 2)), 1)
    chance = _chance(sums)
    return np.where(chance < 1, (same - chance) / np.maximum(1 - chance, 1e-12), 0.0)


def _chance(sums: Array) -> Array:
    """The agreement that chance gives, of each row of pair counts; 1 without any pair, as with one label."""
    import numpy as np

    tables = sums.reshape(-1, len(LABELS), len(LABELS))
    n = tables.sum(axis=(1, 2))
    both = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1)
    return np.where(n > 0, both / np.maximum(n, 1) ** 2, 1.0)


def _ratio(sums: Array) -> Array:
    import numpy as np

    return np.where(sums[:, 1] > 0, sums[:, 0] / np.maximum(sums[:, 1], 1e-12), 0.0)


def _differing_pairs(labels: Sequence[Hashable]) -> float:
    """The number of pairs of different labels, by the counts of each: a list of pairs is quadratic in the labels."""
    return (len(labels) ** 2 - sum(count * count for count in Counter(labels).values())) / 2


def _squared_differences(labels: Sequence[Any]) -> float:
    """The sum of the squared differences of all pairs of numbers, by their squares about the mean; 0 if all are equal."""
    shifted = [float(label - labels[0]) for label in labels]
    mean = math.fsum(shifted) / len(shifted)
    return len(shifted) * math.fsum((each - mean) ** 2 for each in shifted)


def _middle_ranks(totals: Counter[Any]) -> dict[Any, float]:
    """The mean rank of the labels of each value: ordinal distances are differences of these."""
    below, ranks = 0, dict[Any, float]()
    for label in sorted(totals):
        ranks[label] = below + totals[label] / 2
        below += totals[label]
    return ranks


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
