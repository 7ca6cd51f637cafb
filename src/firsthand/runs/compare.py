"""Two agents, in one run or in two, task by task: which tasks got better, worse, or stayed the same.

The statistics of the paired values (intervals, tests) are in `evals/stats.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from firsthand.errors import ConfigError, unknown
from firsthand.runs.store import Run

Key = tuple[str, str]
"""Benchmark and task id."""


@dataclass(frozen=True)
class Attempted:
    """The attempts of one agent at one task, its epochs together."""

    values: tuple[float, ...]
    """The score of each attempt that has one."""
    trace_ids: tuple[str, ...]
    num_unscored: int
    """Attempts that ended in an error, or have no such score."""

    @property
    def value(self) -> float:
        """The mean score over the epochs."""
        return fmean(self.values)


@dataclass(frozen=True)
class Pair:
    """One task that both sides attempted."""

    benchmark: str
    task_id: str
    a: Attempted
    b: Attempted

    @property
    def change(self) -> Literal["better", "worse", "same"]:
        """How `b` did against `a`."""
        if self.b.value == self.a.value:
            return "same"
        return "better" if self.b.value > self.a.value else "worse"


@dataclass(frozen=True)
class Comparison:
    """Side `b` against side `a` on the tasks that both have scores for."""

    a: str
    b: str
    pairs: tuple[Pair, ...]
    only_a: tuple[Key, ...]
    """Tasks with a score on side `a` alone."""
    only_b: tuple[Key, ...]
    changed: tuple[Key, ...]
    """Tasks of one id that are not the same task in both runs; they are not paired."""

    @property
    def values(self) -> tuple[list[float], list[float]]:
        """The paired scores, task by task: those of `a`, and those of `b`."""
        return [pair.a.value for pair in self.pairs], [pair.b.value for pair in self.pairs]

    def tasks(self, change: Literal["better", "worse", "same"]) -> list[Pair]:
        """The tasks on which `b` did so, the largest difference first."""
        chosen = [pair for pair in self.pairs if pair.change == change]
        return sorted(chosen, key=lambda pair: -abs(pair.b.value - pair.a.value))

    @property
    def num_unscored(self) -> tuple[int, int]:
        """Attempts of each side at the paired tasks that have no score: failures, which the values leave out."""
        return sum(pair.a.num_unscored for pair in self.pairs), sum(pair.b.num_unscored for pair in self.pairs)


def compare(
    run_a: Run,
    run_b: Run,
    *,
    agent_a: str | None = None,
    agent_b: str | None = None,
    benchmark: str | None = None,
    score: str | None = None,
    error_value: float | None = None,
) -> Comparison:
    """The paired scores of two agents, or of one agent in two runs.

    Args:
        agent_a: May be left out where `run_a` has one agent only.
        agent_b: The same for `run_b`; if it has several, the one named like `agent_a`.
        benchmark: Compare on this benchmark alone.
        score: The name of a score; the first of each trace, if left out.
        error_value: What an attempt without a score counts as, such as 0; None leaves it out.
    """
    name_a = _agent(run_a, agent_a)
    name_b = _agent(run_b, agent_b or (name_a if name_a in _agents(run_b) else None))
    side_a = _side(run_a, name_a, benchmark, score, error_value)
    side_b = _side(run_b, name_b, benchmark, score, error_value)
    changed = _changed(run_a, run_b)
    pairs = [Pair(*key, side_a[key], side_b[key]) for key in side_a if key in side_b and key not in changed]
    return Comparison(
        a=f"{run_a.id}/{name_a}",
        b=f"{run_b.id}/{name_b}",
        pairs=tuple(pairs),
        only_a=tuple(key for key in side_a if key not in side_b),
        only_b=tuple(key for key in side_b if key not in side_a),
        changed=tuple(key for key in side_a if key in side_b and key in changed),
    )


def _agents(run: Run) -> list[str]:
    return list(run.agents()) or list(dict.fromkeys(row.agent for row in run.rows()))


def _agent(run: Run, name: str | None) -> str:
    agents = _agents(run)
    if name is None and len(agents) == 1:
        return agents[0]
    if name is None:
        known = ", ".join(agents) or "none yet"
        raise ConfigError(f"run {run.id} has {len(agents)} agents ({known}): say which to compare")
    if name not in agents:
        raise unknown("agent", name, agents, see=f"firsthand show {run.id}")
    return name


def _side(
    run: Run, agent: str, benchmark: str | None, score: str | None, error_value: float | None
) -> Mapping[Key, Attempted]:
    """The agent's attempts at each task, of those tasks that have a value."""
    attempts: dict[Key, list[tuple[int, str, float | None]]] = defaultdict(list)
    if score is None:
        for row in run.rows(benchmark=benchmark, agent=agent):
            attempts[row.benchmark, row.task_id].append((row.epoch, row.id, row.score))
    else:
        for trace in run.traces(benchmark=benchmark, agent=agent):
            found = trace.score(score)
            value = found.value if found else None
            attempts[trace.benchmark, trace.task_id].append((trace.epoch, trace.id, value))
    sides = {key: _attempted(tries, error_value) for key, tries in sorted(attempts.items())}
    return {key: side for key, side in sides.items() if side.values}


def _attempted(tries: list[tuple[int, str, float | None]], error_value: float | None) -> Attempted:
    tries = sorted(tries)
    values = [error_value if value is None else value for _, _, value in tries]
    return Attempted(
        values=tuple(value for value in values if value is not None),
        trace_ids=tuple(trace_id for _, trace_id, _ in tries),
        num_unscored=sum(value is None for _, _, value in tries),
    )


def _changed(run_a: Run, run_b: Run) -> set[Key]:
    if run_a.path == run_b.path:
        return set()
    tasks_a, tasks_b = run_a.tasks(), run_b.tasks()
    return {key for key, task in tasks_a.items() if key in tasks_b and tasks_b[key] != task}
