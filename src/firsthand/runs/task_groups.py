"""Clusters and strata of a benchmark's tasks: which tasks are dependent, and which groups of them are fixed.

A cluster is a draw, like a passage or a repository: another test set would have other ones. A stratum is fixed, like a
subject of MMLU: another test set would have the same ones, with other tasks.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Protocol

from firsthand.errors import ConfigError, nearest
from firsthand.message import Json, canonical
from firsthand.task import Task


class TaskGroups(dict[str, str]):
    """Task -> the cluster it belongs to, and beside it `strata`, task -> the stratum it belongs to.

    A stratum that is one cluster has no clusters: its tasks are drawn one by one.
    """

    strata: Mapping[str, str]

    def __init__(self, clusters: Mapping[str, str], strata: Mapping[str, str]) -> None:
        within: dict[str, set[str | None]] = defaultdict(set)
        for task, stratum in strata.items():
            within[stratum].add(clusters.get(task))
        whole = {task for task, stratum in strata.items() if len(within[stratum]) == 1}
        super().__init__({task: cluster for task, cluster in clusters.items() if task not in whole})
        self.strata = dict(strata)


class _Tasks(Protocol):
    def benchmarks(self) -> list[str]: ...

    def metadata(self, benchmark: str, limit: int | None = None) -> Iterator[tuple[str, Json]]: ...


def task_groups(clusters: Mapping[str, dict[str, str]], run: _Tasks, strata: str | None) -> dict[str, dict[str, str]]:
    """The clusters by benchmark, as `TaskGroups` of those benchmarks that have strata; `strata` as in `task_strata`."""
    grouped = task_strata(run, strata)
    return {**clusters, **{name: TaskGroups(clusters.get(name, {}), each) for name, each in grouped.items()}}


def task_strata(run: _Tasks, key: str | None) -> dict[str, dict[str, str]]:
    """Benchmark -> task -> stratum, of the benchmarks whose first task has one: by `key`, or by what the tasks say.

    A task without the key is of a stratum of those without. ConfigError if a key is given that no benchmark has.
    """
    named, known = key or "stratum", set[str]()
    found: dict[str, dict[str, str]] = {}
    for benchmark in run.benchmarks():
        first = next((metadata for _, metadata in run.metadata(benchmark, 1)), {})  # the others have its keys
        known |= {*first}
        if named in first:
            found[benchmark] = {task: str(metadata.get(named, "")) for task, metadata in run.metadata(benchmark)}
    if key is not None and not found:
        close = nearest(key, known)
        hint = f" did you mean {close!r}?" if close else ""
        raise ConfigError(f"strata is {key!r}, which no task has;{hint} there are {', '.join(sorted(known)) or 'none'}")
    return found


def common_groups(*runs: Mapping[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """The groups of several runs by benchmark: the last run's, but a run that knows strata goes before one that does not."""
    found: dict[str, dict[str, str]] = {}
    for groups in runs:
        for benchmark, each in groups.items():
            if isinstance(each, TaskGroups) or not isinstance(found.get(benchmark), TaskGroups):
                found[benchmark] = each
    return found


def same_problem(one: Task, other: Task) -> bool:
    """True if two tasks differ in nothing but the groups they are counted in."""
    return one == other or _ungrouped(one) == _ungrouped(other)


def problem_digest(task: Task) -> str:
    """A SHA-256 that is equal for two tasks of which `same_problem` is true."""
    return hashlib.sha256(canonical(_ungrouped(task).to_json()).encode("utf-8", "surrogatepass")).hexdigest()


def _ungrouped(task: Task) -> Task:
    kept = {key: value for key, value in task.metadata.items() if key not in ("cluster", "stratum")}
    return replace(task, metadata=kept)
