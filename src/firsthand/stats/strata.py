"""The standard error of a mean over fixed strata, such as MMLU's subjects: the variance within them.

The share of each stratum is that of the tasks, so the mean is the plain one, and what the strata differ by is no uncertainty
(Cochran, 1977, Sampling Techniques, section 5.4). Within a stratum the units are clusters, or tasks, and the error is
`Moments.error`'s: CR2 with Satterthwaite's degrees of freedom.
"""

# H strata, U units

from __future__ import annotations

import math
from collections.abc import Sequence

Units = tuple[tuple[float, int], ...]
"""Of each cluster, or task, its tasks' means added up, and their number."""
Strata = tuple[Units, ...]


def strata_units(means: Sequence[float], strata: Sequence[str], clusters: Sequence[str] | None = None) -> Strata:
    """The units of each stratum, each with two or more; empty if there are not two such strata.

    Strata that share a cluster are one. Strata of one unit have no variance to be known: they are taken together, and what
    remains single joins the smallest other one (collapsed strata; Cochran, 1977, section 5A.12), which errs on the side
    of a larger variance.
    """
    named = clusters if clusters is not None else [str(place) for place in range(len(means))]
    joined = joined_strata(strata, named)
    sums: dict[str, dict[str, tuple[float, int]]] = {}
    for mean, stratum, unit in zip(means, joined, named, strict=True):
        own = sums.setdefault(stratum, {})
        total, size = own.get(unit, (0.0, 0))
        own[unit] = (total + mean, size + 1)
    found = [tuple(own.values()) for own in sums.values()]
    single = tuple(units[0] for units in found if len(units) == 1)
    several = sorted((units for units in found if len(units) > 1), key=len)
    if len(single) > 1:
        several.append(single)
    elif single and several:
        several[0] = several[0] + single
    return tuple(several) if len(several) > 1 else ()


def stratified_error(strata: Strata) -> float:
    """The standard error of the mean over all tasks, from the units of each stratum."""
    n = sum(_size(units) for units in strata)
    squares = 0.0
    for units in strata:
        size = _size(units)
        mean = math.fsum(total for total, _ in units) / size
        squares += math.fsum((total - count * mean) ** 2 / (1 - count / size) for total, count in units)
    return math.sqrt(squares) / n


def stratified_freedom(strata: Strata) -> float:
    """Satterthwaite's degrees of freedom of that error, for tasks that vary alike in all strata."""
    n = sum(_size(units) for units in strata)
    return n * n / math.fsum(_size(units) ** 2 / cluster_freedom([count for _, count in units]) for units in strata)


def cluster_freedom(sizes: Sequence[int]) -> float:
    """Satterthwaite's degrees of freedom of `clustered_error` (Bell and McCaffrey, 2002): C - 1 for C equal clusters.

    A cluster with most of the tasks leaves few: the 12 repositories of SWE-bench Verified count as 3.3.
    """
    n = sum(sizes)
    if len(sizes) < 2:
        return 0.0
    crossed = [size * size / (1 - size / n) / n for size in sizes]
    off_diagonal = math.fsum(crossed) ** 2 - math.fsum(each * each for each in crossed)
    return n * n / (math.fsum(size * size for size in sizes) + off_diagonal)


def _size(units: Units) -> int:
    return sum(count for _, count in units)


def joined_strata(strata: Sequence[str], clusters: Sequence[str]) -> list[str]:
    """The stratum of each task, with those that share a cluster under one name."""
    leader: dict[str, str] = {}

    def of(stratum: str) -> str:
        while (above := leader.get(stratum, stratum)) != stratum:
            stratum = above
        return stratum

    first: dict[str, str] = {}
    for stratum, cluster in zip(strata, clusters, strict=True):
        one, other = of(first.setdefault(cluster, stratum)), of(stratum)
        if one != other:
            leader[other] = one
    return [of(stratum) for stratum in strata]
