"""Breaks a run's scores down by task metadata, such as length, depth or position: mean and interval for each cell.

Any key of the metadata works (`level`, `subject`), and several at once. Numbers are as in the summary of the run: first
scores, epochs reduced as in the run, attempts without a score count as 0, and intervals account for clusters within a cell.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from firsthand.errors import ConfigError, nearest
from firsthand.message import Json
from firsthand.runs.run_folder import Run
from firsthand.runs.score_totals import TaskMean
from firsthand.stats.intervals import CONFIDENCE, Clusters, Interval, Scores, mean_interval
from firsthand.stats.task_scores import harm_benchmarks, reduced_benchmarks, task_scores

Value = str | float | int
AXES = (("group", "length"), ("depth", "length"), ("position",), ("depth",), ("length",))
"""The keys that a report breaks tasks down by: the first entry whose keys they have."""


@dataclass(frozen=True)
class Cell:
    """One agent's tasks that agree in the keys."""

    benchmark: str
    agent: str
    values: tuple[Value, ...]
    """The value of each key; an empty text where the metadata have none."""
    score: Interval
    attempts: int
    errors: int
    """Attempts without a score. Each counts as 0; one without a score of harm, or a verdict of its judge, is left out."""
    lower_is_better: bool = False
    """True for a score of harm (`Score.is_harm`)."""

    def to_json(self, by: Sequence[str]) -> Json:
        """The cell as a JSON object; `by` names the keys."""
        return {
            "benchmark": self.benchmark,
            "agent": self.agent,
            "by": dict(zip(by, self.values, strict=True)),
            "score": self.score.to_json(),
            "attempts": self.attempts,
            "errors": self.errors,
        }


@dataclass(frozen=True)
class Grid:
    """The cells of one agent on one benchmark as rows and columns; a single column where there is one key."""

    benchmark: str
    agent: str
    by: tuple[str, ...]
    rows: tuple[Value, ...]
    columns: tuple[Value, ...]
    cells: Mapping[tuple[Value, Value], Cell]
    """By row and column; a place without a task has none."""

    @property
    def column_name(self) -> str:
        """The name of the columns' key; empty for a single column."""
        return self.by[1] if len(self.by) == 2 else ""


def cells(run: Run, by: Sequence[str], confidence: float = CONFIDENCE, benchmark: str | None = None) -> list[Cell]:
    """The cells of each agent on that benchmark, or on each whose tasks have any of the keys, their values in order."""
    names = run.benchmarks() if benchmark is None else [benchmark]
    metadata = {(name, task): found for name in names for task, found in run.metadata(name)}
    check(by, metadata.values())
    having = {name for (name, _), found in metadata.items() if any(key in found for key in by)}
    placed: dict[tuple[str, str, tuple[Value, ...]], list[TaskMean]] = {}
    for each in run.task_means():
        if each.benchmark in having:
            found = metadata.get((each.benchmark, each.task), {})
            values = tuple(_value(found.get(key)) for key in by)
            placed.setdefault((each.benchmark, each.agent, values), []).append(each)
    clusters = run.clusters()
    harms = harm_benchmarks(run)
    reduced = task_scores(run, having & (reduced_benchmarks(run) | harms))
    made = [
        _cell(
            *place,
            tasks,
            reduced.get(place[:2], {} if place[0] in harms else None),
            clusters.get(place[0]),
            confidence,
            lower_is_better=place[0] in harms,
        )
        for place, tasks in placed.items()
    ]
    order = {pair: place for place, pair in enumerate(dict.fromkeys((cell.benchmark, cell.agent) for cell in made))}
    return sorted(made, key=lambda cell: (order[cell.benchmark, cell.agent], [*map(_rank, cell.values)]))


def check(by: Sequence[str], metadata: Iterable[Json]) -> None:
    """ConfigError where a key is in no task's metadata, with those there are."""
    known = sorted({key for found in metadata for key in found})
    if not by or len(set(by)) < len(by):
        raise ConfigError(f"by is {','.join(by)!r}: name each key once, such as length or depth,length")
    for key in by:
        if key not in known:
            close = nearest(key, known)
            hint = f" did you mean {close!r}?" if close else ""
            raise ConfigError(
                f"no task of the run has {key!r} in its metadata;{hint} there are {', '.join(known) or 'none'}"
            )


def grids(found: Sequence[Cell], by: Sequence[str]) -> list[Grid]:
    """A Grid of each agent on each benchmark; `by` is one key, or rows and columns."""
    if len(by) > 2:
        raise ConfigError(f"by is {','.join(by)}: a grid has rows and columns, so name one or two keys")
    made: dict[tuple[str, str], dict[tuple[Value, Value], Cell]] = {}
    for cell in found:
        row, column = cell.values if len(by) == 2 else (cell.values[0], "")
        made.setdefault((cell.benchmark, cell.agent), {})[row, column] = cell
    return [
        Grid(
            benchmark,
            agent,
            tuple(by),
            _sorted({row for row, _ in grid}),
            _sorted({column for _, column in grid}),
            grid,
        )
        for (benchmark, agent), grid in made.items()
    ]


def own_grids(run: Run, confidence: float = CONFIDENCE) -> list[Grid]:
    """The grids of the benchmarks whose tasks have a length, depth or position, by the first of AXES that fits."""
    made: list[Grid] = []
    for benchmark in run.benchmarks():
        _, first = next(run.metadata(benchmark))  # the others have its keys
        by = next((keys for keys in AXES if {*keys} <= {*first}), None)
        made += grids(cells(run, by, confidence, benchmark), by) if by else []
    return made


def _cell(
    benchmark: str,
    agent: str,
    values: tuple[Value, ...],
    tasks: Sequence[TaskMean],
    reduced: Scores | None,
    clusters: Clusters | None,
    confidence: float,
    *,
    lower_is_better: bool = False,
) -> Cell:
    attempts = sum(each.attempts for each in tasks)
    scores = {each.task: _scores(each) if reduced is None else reduced.get(each.task, ()) for each in tasks}
    score = mean_interval(scores, confidence, clusters)
    errors = sum(each.errors for each in tasks)
    return Cell(benchmark, agent, values, score, attempts, errors, lower_is_better)


def _scores(task: TaskMean) -> list[float]:
    """The scores of a task's attempts where each is 0 or 1, in no order; else their mean alone."""
    if task.mean is None:
        return []
    if not task.binary:
        return [task.mean]
    ones = round(task.mean * task.counted)
    return [1.0] * ones + [0.0] * (task.counted - ones)


def _value(found: object) -> Value:
    if isinstance(found, str | int | float) and not isinstance(found, bool):
        return found
    return "" if found is None else json.dumps(found, ensure_ascii=False, default=str)[:80]


def _rank(value: Value) -> tuple[bool, float, str]:
    """Numbers by size, then texts."""
    return (True, 0.0, value) if isinstance(value, str) else (False, float(value), "")


def _sorted(values: set[Value]) -> tuple[Value, ...]:
    return tuple(sorted(values, key=_rank))
