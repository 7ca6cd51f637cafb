"""Groups rows of a table that ask the same question: they are one draw, however often the table holds it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import NamedTuple

from firsthand.benchmarks.protocols.protocol import Item
from firsthand.benchmarks.sources.tables import TableRow
from firsthand.system.plurals import count_of
from firsthand.task import Task

MOST_NAMED = 5


class Grouped(NamedTuple):
    """The tasks of a table, with what its protocol says about rows that ask the same."""

    tasks: list[Task]
    counted: str
    """`, 6 different questions`; empty if all questions differ."""
    warnings: list[str]


def group_repeats(tasks: Sequence[Task], items: Sequence[Item], rows: Sequence[TableRow]) -> Grouped:
    """The tasks, those that ask the same in a cluster of their own, and a warning where their targets differ.

    A task that has a cluster keeps it. Questions are the same if text, choices and messages are; examples before them may
    differ. Tasks of two strata are not grouped.

    Args:
        tasks: A task for each row.
        items: What each was made of.
        rows: The rows, to name those whose target differs from an earlier one's.
    """
    places: dict[Hashable, list[int]] = defaultdict(list)
    for place, (task, item) in enumerate(zip(tasks, items, strict=True)):
        places[_question(task, item)].append(place)
    repeated = [each for each in places.values() if len(each) > 1]
    if not repeated:
        return Grouped(list(tasks), "", [])
    found = list(tasks)
    contrary: list[int] = []
    for each in repeated:
        first = tasks[each[0]]
        contrary += [place for place in each if _reference(tasks[place]) != _reference(first)]
        by_stratum: dict[object, list[int]] = defaultdict(list)
        for place in each:
            by_stratum[tasks[place].metadata.get("stratum")].append(place)
        for alike in (alike for alike in by_stratum.values() if len(alike) > 1):
            same = f"the question of {tasks[alike[0]].id}"
            for place in alike:
                found[place] = replace(tasks[place], metadata={"cluster": same, **tasks[place].metadata})
    return Grouped(found, f", {count_of(len(places), 'different question', ',')}", _warnings(contrary, rows))


def _warnings(contrary: Sequence[int], rows: Sequence[TableRow]) -> list[str]:
    if not contrary:
        return []
    named = [rows[place].where.rpartition(", ")[2] for place in sorted(contrary)]
    more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    asks = "row asks" if len(named) == 1 else "rows ask"
    told = f"{len(named)} {asks} what an earlier row asks, with another target"
    return [f"CONTRADICTION: {told} ({', '.join(named[:MOST_NAMED])}{more})"]


def _question(task: Task, item: Item) -> Hashable:
    return item.question, task.choices, repr(task.conversation) if task.conversation else ""


def _reference(task: Task) -> dict[str, object]:
    """Return the values that the scorer compares with; the other columns of a row, such as its number, may differ."""
    return {name: value for name, value in task.secret.items() if name != "columns"}
