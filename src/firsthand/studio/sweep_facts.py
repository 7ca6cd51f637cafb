"""Settings and results of several training runs: what parallel coordinates draw, and which settings go with the result."""

# R runs

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


def ranked(values: Sequence[float]) -> list[float]:
    """Length R: ranks from 1 on, equal values sharing the mean of theirs."""
    order = sorted(values)
    return [(bisect_left(order, value) + 1 + bisect_right(order, value)) / 2 for value in values]


def _correlation(a: Sequence[float], b: Sequence[float]) -> float:
    a, b = _centred(a), _centred(b)
    size = math.sqrt(_product(a, a) * _product(b, b))
    return _product(a, b) / size if size else 0.0


def _correlation_ratio(words: Sequence[str], ranks: Sequence[float]) -> float:
    """The root of the share of the ranks' variance that lies between the words."""
    ranks = _centred(ranks)
    total = _product(ranks, ranks)
    if not total:
        return 0.0
    groups = [[rank for rank, each in zip(ranks, words, strict=True) if each == word] for word in dict.fromkeys(words)]
    return math.sqrt(sum(math.fsum(group) ** 2 / len(group) for group in groups) / total)


def _centred(values: Sequence[float]) -> list[float]:
    mean = math.fsum(values) / len(values)
    return [value - mean for value in values]


def _product(a: Sequence[float], b: Sequence[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


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
