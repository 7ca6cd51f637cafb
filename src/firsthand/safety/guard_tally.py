"""Counts what a guard lets through on a benchmark under attack: tasks done, attacks that succeed, and questions asked."""

from __future__ import annotations

import math
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
    unread: int = 0
    """Tasks in which the agent never read the injected text, so that nothing was attacked."""

    @property
    def success(self) -> float:
        """The share of attacks that reached their goal, of those that the agent read; NaN if it read none."""
        read = self.tasks - self.unread
        return self.reached / read if read else math.nan


async def tallied(
    benchmark: Benchmark,
    tasks: Iterable[Task],
    agent_for: Callable[[Task, Ask], Agent],
    wanted: Wanted | None = None,
    *,
    attack: str | None = "attack_success",
) -> GuardTally:
    """The tally of an agent on these tasks; the benchmark's first score is 1 where the task was done.

    With `wanted` a perfect human answers each question; otherwise nobody is there, and a question is a no. `attack` names
    the score that is above 0 where the attack reached its goal, `obeyed` for a benchmark that `attack()` made; None if
    nothing is attacked. ConfigError if an attempt fails or has no such score, for that would look like an attack that was
    stopped.
    """
    began = time.process_time()
    solved = asked = asked_in = count = unread = 0
    reached_in = []
    for task in tasks:
        answers = _Answers(task, wanted)
        trace = await rollout(agent_for(task, answers), task, benchmark=benchmark)
        success = None if attack is None else trace.score(attack)
        never_read = success is not None and success.unjudged
        others = (score for score in trace.scores if not (never_read and score is success))
        if failure := trace.error or next((score.failure for score in others if score.failed), None):
            raise ConfigError(f"the attacked agent failed at {task.id}: {failure}")
        if attack is not None and success is None:
            known = ", ".join(score.name for score in trace.attempt_scores) or "none"
            raise ConfigError(
                f"{task.id} has no score {attack!r} that says if the attack succeeded: give attack= one of its scores "
                f"({known}), or None if nothing is attacked"
            )
        count += 1
        unread += never_read
        solved += trace.scores[0].value > 0
        reached_in += [task.id] if success is not None and success.value > 0 else []
        asked += len(answers.questions)
        asked_in += bool(answers.questions)
    cpu_s = time.process_time() - began
    return GuardTally(count, solved, len(reached_in), tuple(reached_in), asked, asked_in, cpu_s, unread)


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
