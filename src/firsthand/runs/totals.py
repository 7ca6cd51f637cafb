"""What a run's scores add up to, computed inside SQLite: a million attempts take about a second, and no trace is read.

The sums are enough for means and intervals (`evals/summary.py`). Only the first score of each attempt is kept in a column,
so only that one is added up here. An attempt without a score counts as 0 and is counted apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from firsthand.runs.store import Run

_SUPERSEDED = (
    "SELECT old.seq FROM (SELECT attempt, max(try) AS last FROM traces WHERE try > 1 GROUP BY attempt) AS retried"
    " JOIN traces AS old ON old.attempt = retried.attempt AND old.try < retried.last"
)
_BY_TASK = (
    "SELECT task, avg(coalesce(score, 0)) AS mean, count(*) AS epochs, count(score) AS scored,"
    " sum(score * score) AS squares, sum(tokens) AS tokens, sum(cost_usd) AS usd, sum(duration_s) AS seconds"
    f" FROM traces WHERE benchmark = ? AND agent = ? AND seq NOT IN ({_SUPERSEDED}) GROUP BY task"
)
_SUMS = (
    "SELECT count(*), sum(epochs), sum(scored), sum(mean), sum(mean * mean), min(mean), max(mean),"
    " sum(mean <> 0 AND mean <> 1), sum(coalesce(squares, 0) - epochs * mean * mean), sum(1.0 / epochs),"
    f" sum(tokens), sum(usd), sum(seconds) FROM ({_BY_TASK})"
)
_BY_CLUSTER = (
    f"SELECT sum(mean), count(*) FROM ({_BY_TASK}) AS each LEFT JOIN tasks ON tasks.benchmark = ? AND"
    " tasks.task = each.task GROUP BY coalesce('in ' || cluster, 'alone ' || each.task)"
)


@dataclass(frozen=True)
class Totals:
    """The sums of one agent on one benchmark. `means` are those of tasks over their attempts."""

    benchmark: str
    agent: str
    tasks: int
    attempts: int
    scored: int
    """Attempts that have a score; the others ended in an error, or their scoring did."""
    sum_means: float
    sum_square_means: float
    lowest: float
    highest: float
    fractions: int
    """Tasks whose mean is neither 0 nor 1."""
    squares_within: float
    """The squared deviations of attempts from their task's mean, added up."""
    inverse_epochs: float
    """1 / attempts of each task, added up."""
    tokens: int
    cost_usd: float
    seconds: float
    clusters: tuple[tuple[float, int], ...] = ()
    """Of each cluster its tasks' means added up, and their number; empty if no two tasks share one."""


@dataclass(frozen=True)
class TaskMean:
    """What one agent's attempts at one task come to."""

    benchmark: str
    agent: str
    task: str
    mean: float
    """An attempt without a score counts as 0."""
    attempts: int
    scored: int


def task_means(run: Run) -> list[TaskMean]:
    """The mean of each agent on each task, in the order in which the run first met agents and benchmarks."""
    sql = f"SELECT task, mean, epochs, scored FROM ({_BY_TASK})"
    pairs = [(each.benchmark, each.agent) for each in totals(run)]
    return [TaskMean(*pair, *row) for pair in pairs for row in run.database.read(sql, pair)]


def totals(run: Run) -> list[Totals]:
    """The sums of each agent on each benchmark, in the order in which the run first met them."""
    read = run.database.read
    order = {name: place for place, name in enumerate(run.agents())}
    clustered = {str(name) for (name,) in read("SELECT DISTINCT benchmark FROM tasks WHERE cluster IS NOT NULL")}
    found = []
    for benchmark, agent in _agents(run):
        sums = read(_SUMS, (benchmark, agent))[0]
        shared = _clusters(run, benchmark, agent) if benchmark in clustered else ()
        found.append(replace(Totals(benchmark, agent, *sums), clusters=shared))
    first = {name: place for place, name in enumerate(dict.fromkeys(each.benchmark for each in found))}
    return sorted(found, key=lambda each: (first[each.benchmark], order.get(each.agent, len(order)), each.agent))


def _agents(run: Run) -> list[tuple[str, str]]:
    """Each benchmark and agent there is, found by skipping through the index from one to the next."""
    pairs: list[tuple[str, str]] = []
    sql = "SELECT benchmark, agent FROM traces WHERE (benchmark, agent) > (?, ?) ORDER BY benchmark, agent LIMIT 1"
    last: tuple[Any, ...] = ("", "")
    while rows := run.database.read(sql, last):
        last = rows[0]
        pairs.append((str(last[0]), str(last[1])))
    return pairs


def _clusters(run: Run, benchmark: str, agent: str) -> tuple[tuple[float, int], ...]:
    rows = run.database.read(_BY_CLUSTER, (benchmark, agent, benchmark))
    return tuple((float(total), int(count)) for total, count in rows) if any(count > 1 for _, count in rows) else ()
