"""Run the solver chain that an Inspect task brings, its tools included, on our model, for `inspect:task=...`."""

from __future__ import annotations

from firsthand import catalog
from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.loop.pattern_options import checked
from firsthand.task import Task


def _check_task(task: Task) -> None:
    if "inspect" not in task.metadata:
        raise ConfigError(
            f"{task.id} is no sample of an Inspect task: use inspect_solver with inspect:task=FILE.py@NAME"
        )


@checked(task=_check_task)
async def inspect_solver(task: Task, ctx: Context) -> str:
    """The completion that the task's own solvers leave behind.

    Every generation is an effect of this attempt: recorded, budgeted, and not made again when a run is resumed. The tools
    of the solvers are Inspect's and are run by it, so a resumed attempt runs them again.
    """
    _check_task(task)
    answer: str = await catalog.module_attribute("benchmark", "inspect", "solve")(task, ctx)
    return answer
