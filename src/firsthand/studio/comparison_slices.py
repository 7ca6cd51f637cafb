"""A comparison by parts of the tasks, and the agents by quality and cost with the frontier."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from firsthand.runs.pairing import Comparison, Pair
from firsthand.runs.run_folder import Run
from firsthand.runs.score_totals import ScoreMean, Totals
from firsthand.stats.agent_scores import agent_scores
from firsthand.stats.multiple_comparisons import corrected, difference
from firsthand.stats.paired import PairedDifference
from firsthand.stats.pareto import frontier
from firsthand.stats.task_scores import harm_benchmarks

MAX_SLICES = 24
MOST_VALUES = 24
MAX_VALUE_CHARS = 80


@dataclass(frozen=True)
class Slice:
    """The paired difference on the tasks with one value of a metadata key."""

    benchmark: str
    value: str
    difference: PairedDifference
    before: float
    after: float
    """Mean scores of the two sides."""


def metadata_keys(run: Run, benchmarks: Iterable[str]) -> dict[str, dict[tuple[str, str], str]]:
    """Key -> (benchmark, task id) -> its value as text, of keys with 2 to MOST_VALUES values."""
    found: dict[str, dict[tuple[str, str], str]] = {}
    for benchmark in benchmarks:
        for task_id, metadata in run.metadata(benchmark):
            for key, value in metadata.items():
                if isinstance(value, str | int | float | bool):
                    found.setdefault(key, {})[benchmark, task_id] = _shown(str(value))
    return {key: values for key, values in sorted(found.items()) if 2 <= len(set(values.values())) <= MOST_VALUES}


def _shown(value: str) -> str:
    """The value, or the beginning of a long one and a part of its hash, so that passages that begin alike stay apart."""
    if len(value) <= MAX_VALUE_CHARS:
        return value
    digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{value[:MAX_VALUE_CHARS]}… {digest[:8]}"


def slices_of(comparison: Comparison, values: Mapping[tuple[str, str], str]) -> list[Slice]:
    """The comparison for each value, the largest loss first; p-values are Holm-corrected over the slices."""
    parts: dict[tuple[str, str], list[Pair]] = {}
    for pair in comparison.pairs:
        value = values.get((pair.benchmark, pair.task_id))
        if value is not None:
            parts.setdefault((pair.benchmark, value), []).append(pair)
    chosen = sorted(parts, key=lambda key: (-len(parts[key]), key))[:MAX_SLICES]
    found = [
        difference(
            {pair.task_id: pair.b.drawn for pair in parts[key]},
            {pair.task_id: pair.a.drawn for pair in parts[key]},
            comparison.clusters.get(key[0]),
            lower_is_better=key[0] in comparison.harms,
        )
        for key in chosen
    ]
    slices = [
        Slice(
            key[0], key[1], each, _mean(pair.a.value for pair in parts[key]), _mean(pair.b.value for pair in parts[key])
        )
        for key, each in zip(chosen, corrected(found), strict=True)
    ]
    return sorted(slices, key=lambda each: (_gain(each.difference), each.benchmark, each.value))


def _gain(found: PairedDifference) -> float:
    return -found.difference if found.lower_is_better else found.difference


@dataclass(frozen=True)
class CostPoint:
    """A name on a plot of quality against cost, with its place from 0 to 100 on both axes."""

    name: str
    score: float
    cost: float
    x: float
    y: float
    on_frontier: bool


CostPlot = tuple[str, list["CostPoint"], str]
"""A benchmark, its points, and the unit of cost."""


def cost_plots(sides: Sequence[tuple[Run, str, str]], benchmarks: Iterable[str]) -> list[CostPlot]:
    """For each benchmark its name, the agents by score and cost per attempt, and the unit; see `scatter_points`.

    Args:
        sides: Run, agent and shown name of each.
        benchmarks: The benchmarks that are plotted.
    """
    rows: dict[str, list[tuple[str, float, float, float]]] = {benchmark: [] for benchmark in benchmarks}
    known: dict[Run, dict[tuple[str, str], Totals]] = {}  # the totals and scores of a run are asked for once
    scores: dict[Run, list[ScoreMean]] = {}
    for run, agent, name in sides:
        if run not in known:
            totals = run.totals()
            known[run] = {(total.benchmark, total.agent): total for total in totals}
            scores[run] = list(agent_scores(run, totals=totals))
        for each in scores[run]:
            if each.agent == agent and each.benchmark in rows and each.mean is not None:
                total = known[run][each.benchmark, agent]
                row = (name, each.mean, total.tokens / total.attempts, total.cost_usd / total.attempts)
                rows[each.benchmark].append(row)
    harms = {benchmark for run in known for benchmark in harm_benchmarks(run)}
    return [
        (benchmark, *scatter_points(found, lower_is_better=benchmark in harms)) for benchmark, found in rows.items()
    ]


def scatter_points(
    rows: Sequence[tuple[str, float, float, float]], *, lower_is_better: bool = False
) -> tuple[list[CostPoint], str]:
    """Points of (name, quality, tokens, USD) rows with their Pareto frontier, and the unit of cost.

    Cost is money if every row has some, else tokens; its axis is logarithmic. Rows without a cost are left out.
    """
    is_money = bool(rows) and all(money > 0 for *_, money in rows)
    priced = [(name, score, money if is_money else tokens) for name, score, tokens, money in rows]
    priced = [row for row in priced if row[2] > 0 and math.isfinite(row[1])]
    best = set(frontier([(cost, -score if lower_is_better else score) for _, score, cost in priced]))
    across, up = _scale([math.log(cost) for *_, cost in priced]), _scale([score for _, score, _ in priced])
    return [
        CostPoint(name, score, cost, across[place], up[place], place in best)
        for place, (name, score, cost) in enumerate(priced)
    ], ("USD" if is_money else "tokens")


def _scale(values: Sequence[float]) -> list[float]:
    """The values from 5 to 95; all at 50 if they are equal."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    return [round(5 + 90 * (value - low) / (high - low), 2) if high > low else 50.0 for value in values]


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found)
