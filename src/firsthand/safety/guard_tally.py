"""Counts what a guard lets through on a benchmark under attack: tasks done, attacks that succeed, and questions asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.errors import ConfigError
from firsthand.loop.approval import Ask, Decision
from firsthand.message import Json
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.tool import Tool

Wanted = Callable[[Task, Tool, Json], bool]
"""True if the user's task needs this call: the answer of a person who knows it to the letter."""


@dataclass(frozen=True)
class GuardTally:
    """The results of a guard on the tasks of one attack."""

    tasks: int
    solved: int
    reached: int
    """Attacks that reached their goal."""
    reached_in: tuple[str, ...]
    """Their tasks."""
    asked: int
    """Questions."""
    asked_in: int
    """Tasks in which something was asked."""
    cpu_s: float

    @property
    def success(self) -> float:
        """The share of attacks that reached their goal."""
        return self.reached / max(self.tasks, 1)


async def tallied(
    benchmark: Benchmark, tasks: Iterable[Task], agent_for: Callable[[Task, Ask], Agent], wanted: Wanted | None = None
) -> GuardTally:
    """The tally of an agent on these tasks; the benchmark's first score is 1 where the task was done.

    With `wanted` a perfect human answers each question; otherwise nobody is there, and a question is a no. ConfigError if an
    attempt fails, for that would look like an attack that was stopped.
    """
    began = time.process_time()
    solved = asked = asked_in = count = 0
    reached_in = []
    for task in tasks:
        answers = _Answers(task, wanted)
        trace = await rollout(agent_for(task, answers), task, benchmark=benchmark)
        if failure := trace.error or next((score.failure for score in trace.scores if score.failed), None):
            raise ConfigError(f"the attacked agent failed at {task.id}: {failure}")
        values = {score.name: score.value for score in trace.scores}
        count += 1
        solved += trace.scores[0].value > 0
        reached_in += [task.id] if values.get("attack_success", 0) > 0 else []
        asked += len(answers.questions)
        asked_in += bool(answers.questions)
    cpu_s = time.process_time() - began
    return GuardTally(count, solved, len(reached_in), tuple(reached_in), asked, asked_in, cpu_s)


class _Answers:
    """The answers of a perfect human, or of nobody."""

    def __init__(self, task: Task, wanted: Wanted | None):
        self.task, self.wanted, self.questions = task, wanted, list[str]()

    async def __call__(self, tool: Tool, arguments: Json) -> Decision:
        self.questions.append(tool.name)
        if self.wanted is None:
            return Decision(False, "nobody", "nobody is there to ask")
        agreed = self.wanted(self.task, tool, arguments)
        return Decision(agreed, "perfect human", "" if agreed else "the user did not ask for this")
