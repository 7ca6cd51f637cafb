"""Small runs whose scores are given: agents, benchmarks, tasks and epochs, without any model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from firsthand.message import assistant, user
from firsthand.model import Usage
from firsthand.runs.store import Run, create
from firsthand.task import Task
from firsthand.trace import Call, Failure, Node, Score, Trace

Epochs = Sequence[Mapping[str, float | Score] | None]
"""The scores of each attempt at a task by name; None is an attempt that failed."""


def scored_run(home: Path, name: str, scores: Mapping[str, Mapping[str, Mapping[str, Epochs]]], **more: Any) -> Run:
    """A finished run: agent -> benchmark -> task -> epochs. Its attempts answer `AGENT TASK EPOCH`.

    The metadata of a task has the first `letter` of its id.
    """
    run = create(home, {"seed": 0}, name, command=["firsthand"], **more)
    tasks: dict[str, dict[str, Task]] = {}
    for benchmarks in scores.values():
        for benchmark, tries in benchmarks.items():
            tasks.setdefault(benchmark, {}).update(
                {each: Task(each, f"{each}?", secret={"answer": "x"}, metadata={"letter": each[0]}) for each in tries}
            )
    for benchmark, known in tasks.items():
        run.add_tasks(benchmark, [*known.values()])
    for agent, benchmarks in scores.items():
        run.add_agent(agent, {"name": agent})
        for benchmark, tries in benchmarks.items():
            for task, epochs in tries.items():
                for epoch, values in enumerate(epochs):
                    run.append(_attempt(name, agent, benchmark, task, epoch, values))
    run.finish("done")
    return run


def _attempt(name: str, agent: str, benchmark: str, task: str, epoch: int, values: Mapping[str, Any] | None) -> Trace:
    given = [each if isinstance(each, Score) else Score(score, each) for score, each in (values or {}).items()]
    answer = f"{agent} {task} {epoch}"
    nodes = (Node(None, user(f"{task}?")), Node(0, assistant(answer)))
    calls = (Call("0", "generate", 0, 0.0, 1.0, "", Usage(5, 0, 3), (1,)),)
    error = Failure("ModelError", "gone") if values is None else None
    return Trace(
        f"{name}-{agent}-{benchmark}-{task}-{epoch}", benchmark, task, {"name": agent}, epoch, 0, "", 1.0, nodes, calls,
        answer=answer, scores=tuple(given), error=error, stop_reason="error" if error else "done",
    )  # fmt: skip
