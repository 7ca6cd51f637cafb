"""Settings and results of several training runs: what parallel coordinates draw, and which settings go with the result."""

# R runs

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firsthand.message import Json

MAX_AXES = 16
MIN_RUNS = 3


@dataclass(frozen=True)
class Importance:
    """The association of one setting with the result over the runs. Settings may move together."""

    setting: str
    kind: str
    """`rank correlation` of a number, or `correlation ratio` of ranks between the values of a word."""
    strength: float
    """From 0, nothing, to 1."""
    direction: float
    """The rank correlation, from -1 to 1; 0 for words."""
    runs: int


def axes_of(configs: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, float]]) -> list[Json]:
    """The axes of parallel coordinates: settings that differ, then results, each with the value of each run.

    A numeric axis has numbers, and `log` where they are positive and span two decades or more; any other has words.
    """
    found: list[Json] = []
    for rows, is_setting in ((configs, True), (results, False)):
        names = dict.fromkeys(name for row in rows for name in row)
        for name in names:
            values = [row.get(name) for row in rows]
            if is_setting and (len({str(value) for value in values}) < 2 or not all(_is_scalar(v) for v in values)):
                continue
            found.append({"name": name, "is_setting": is_setting, **_axis(values)})
    settings = [axis for axis in found if axis["is_setting"]][:MAX_AXES]
    return settings + [axis for axis in found if not axis["is_setting"]][: max(1, MAX_AXES - len(settings))]


def importances(axes: Sequence[Json], target: str) -> list[Importance]:
    """The settings by how strongly they go with a result, the strongest first; none without MIN_RUNS runs that have both."""
    results: list[float | None] = next(
        (axis["values"] for axis in axes if axis["name"] == target and not axis["is_setting"]), []
    )
    found = []
    for axis in axes:
        pairs = [(x, y) for x, y in zip(axis["values"], results, strict=False) if x is not None and y is not None]
        if not axis["is_setting"] or len(pairs) < MIN_RUNS:
            continue
        ranks = ranked([y for _, y in pairs])
        if axis["kind"] == "number":
            rho = _correlation(ranked([x for x, _ in pairs]), ranks)
            found.append(Importance(axis["name"], "rank correlation", abs(rho), rho, len(pairs)))
        else:
            ratio = _correlation_ratio([str(x) for x, _ in pairs], ranks)
            found.append(Importance(axis["name"], "correlation ratio", ratio, 0.0, len(pairs)))
    return sorted(found, key=lambda each: (-each.strength, each.setting))


def ranked(values: Sequence[float]) -> NDArray[np.float64]:
    """Shape (R): ranks from 1 on, equal values sharing the mean of theirs."""
    _, places, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = ((ends - counts + 1 + ends) / 2)[places]
    return ranks


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / size if size else 0.0


def _correlation_ratio(words: Sequence[str], ranks: NDArray[np.float64]) -> float:
    """The root of the share of the ranks' variance that lies between the words."""
    total = float(((ranks - ranks.mean()) ** 2).sum())
    if not total:
        return 0.0
    groups = [ranks[[place for place, each in enumerate(words) if each == word]] for word in dict.fromkeys(words)]
    between = sum(len(group) * float(group.mean() - ranks.mean()) ** 2 for group in groups)
    return math.sqrt(between / total)


def _axis(values: Sequence[Any]) -> Json:
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        numbers = [float(v) if v is not None and math.isfinite(v) else None for v in values]
        finite = [v for v in numbers if v is not None]
        is_log = bool(finite) and min(finite) > 0 and max(finite) / min(finite) >= 100
        return {"kind": "number", "log": is_log, "values": numbers}
    return {"kind": "word", "log": False, "values": [None if value is None else str(value)[:60] for value in values]}


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)
