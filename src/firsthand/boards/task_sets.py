"""Tells apart tasks of one id that are not one task in two runs, so that a board does not rank them as the same.

Tables of one name, whose rows have no ids, have the same ids whatever they ask. Files of other tools hold ids alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from firsthand.boards.board_results import BoardResult, ColumnKey, ItemScores
from firsthand.runs.run_folder import Run
from firsthand.runs.task_groups import problem_digest
from firsthand.system.plurals import count_of

_DIGEST = 16
"""Characters of a digest that are kept."""
Problems = Mapping[str, Mapping[str, str]]
"""Benchmark -> task id -> digest of the task."""


def problems_of(run: Run) -> Problems:
    """The digest of each task of a run, which is equal for tasks that `compare` pairs."""
    found: dict[str, dict[str, str]] = {}
    for (benchmark, task), each in run.tasks().items():
        found.setdefault(benchmark, {})[task] = problem_digest(each)[:_DIGEST]
    return found


def tasks_hash(tasks: Iterable[str], problems: Mapping[str, str]) -> str:
    """A hash of the tasks by id and content; of the ids alone where the run does not hold the tasks."""
    text = "\n".join(sorted(f"{task} {problems[task]}" if task in problems else task for task in tasks))
    return f"tasks-{zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x}"


@dataclass
class _TaskSet:
    """The tasks of one column, by id, as its first run that has them has them."""

    key: ColumnKey
    run: str
    tasks: dict[str, str]


@dataclass
class TaskSets:
    """The task sets of each column, as its runs come."""

    remarks: list[str] = field(default_factory=list)
    sets: dict[ColumnKey, list[_TaskSet]] = field(default_factory=dict)
    placed: dict[tuple[ColumnKey, str, bool], tuple[ColumnKey, Mapping[str, str]]] = field(default_factory=dict)

    def place(
        self, found: BoardResult | ItemScores, source: str, name: str, problems: Problems
    ) -> BoardResult | ItemScores:
        """The result of a source, such as a run, in the column of its tasks.

        If none of the tasks that it shares by id with a column is the same there, it has a column of its own, whose protocol
        has the source's name. If some are not, these are items of another name. A figure has no items: one task is enough.
        """
        is_figure = isinstance(found, BoardResult)
        at = (found.key, source, is_figure)
        if at not in self.placed:
            self.placed[at] = self._place(found.key, name, problems.get(found.key.benchmark, {}), is_figure)
        key, names = self.placed[at]
        if isinstance(found, BoardResult):
            return replace(found, protocol=key.protocol)
        return replace(found, key=key, tasks=tuple(names.get(task, task) for task in found.tasks))

    def place_read(self, found: BoardResult | ItemScores, source: str) -> BoardResult | ItemScores:
        """The result of a file in the column of its tasks, where it holds their digests."""
        if isinstance(found, BoardResult) or not found.problems:
            return found
        digests = {task: digest for task, digest in zip(found.tasks, found.problems, strict=True) if digest}
        name = next((each.run for each in found.abouts if each.run), source)
        return self.place(found, source, name, {found.key.benchmark: digests})

    def _place(
        self, key: ColumnKey, run: str, tasks: Mapping[str, str], is_figure: bool
    ) -> tuple[ColumnKey, Mapping[str, str]]:
        sets = self.sets.setdefault(key, [])
        for each in sets:
            shared = tasks.keys() & each.tasks.keys()
            other = {task for task in shared if tasks[task] != each.tasks[task]}
            if not other or (len(other) < len(shared) and not is_figure):
                each.tasks |= {task: digest for task, digest in tasks.items() if task not in each.tasks}
                self._tell(key, each.run, run, len(other), len(shared), "these count as different items")
                return each.key, {task: f"{task} ({tasks[task][:12]})" for task in other}
            self._tell(key, each.run, run, len(other), len(shared), "the two are in tables of their own")
        if sets:
            key = key._replace(protocol="; ".join(filter(None, (key.protocol, f"the tasks of {run}"))))
        sets.append(_TaskSet(key, run, dict(tasks)))
        return key, {}

    def _tell(self, key: ColumnKey, one: str, two: str, other: int, shared: int, so: str) -> None:
        if other:
            are = "is another task" if other == 1 else "are other tasks"
            told = f"{other:,} of the {count_of(shared, 'task')} that {one} and {two} both have by id {are}: {so}."
            self.remarks.append(f"{key.benchmark}: {told}")
