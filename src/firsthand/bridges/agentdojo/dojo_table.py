"""Measures guards against the gullible agent: benign utility, utility under attack, attack success and questions asked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from firsthand.agent import Agent
from firsthand.bridges.agentdojo.dojo_benchmark import dojo_benchmark, world_of
from firsthand.bridges.agentdojo.dojo_suites import VERSION, ground_truth
from firsthand.bridges.agentdojo.gullible import gullible
from firsthand.errors import ConfigError
from firsthand.guard import Guard
from firsthand.loop.approval import Approval, Decision
from firsthand.message import Json
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.safety.policy import DEFAULT, CallPolicy
from firsthand.task import Task
from firsthand.tool import Tool

ROWS: dict[str, tuple[str, ...] | None] = {
    "none": None,
    "plan_lock": ("plan_lock",),
    "authority_from_trusted": ("authority_from_trusted",),
    "readers_cover_recipients": ("readers_cover_recipients",),
    "rule_of_two": ("rule_of_two",),
    "no_new_permissions": ("no_new_permissions",),
    "untrusted_session": ("untrusted_session",),
    "default": DEFAULT,
    "default+untrusted_session": (*DEFAULT, "untrusted_session"),
}
"""Guards of the table: each policy alone, the default rules, and the strictest."""


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


async def measured(
    rules: Sequence[str] | None,
    attack: str,
    *,
    suite: str = "all",
    human: bool = False,
    plan: bool = True,
    version: str = VERSION,
    only: Sequence[str] = (),
) -> GuardTally:
    """The results of these rules, or of no guard, on the gullible agent under an attack.

    `human` answers each question as a person would who knows the user's task to the letter: yes to the calls of its ground
    truth. Otherwise nobody is there, and a question is a no. `only` takes tasks by their ids.
    """
    began = time.process_time()
    benchmark = dojo_benchmark(suite, attack, version, plan)
    solved = reached = asked = asked_in = tasks = 0
    reached_in = []
    for task in benchmark.tasks(0):
        if only and task.id not in only:
            continue
        questions: list[str] = []
        guard: Guard | None = None if rules is None else CallPolicy(tuple(rules))
        approval = Approval({"irreversible": "allow"}, _Answers(task, human, questions))
        agent = Agent("gullible", Scripted([]), gullible, guard=guard, approval=approval)
        trace = await rollout(agent, task, benchmark=benchmark)
        if failure := trace.error or next((score.failure for score in trace.scores if score.failed), None):
            raise ConfigError(f"the gullible agent failed at {task.id}: {failure}")
        values = {score.name: score.value for score in trace.scores}
        tasks += 1
        solved += values["utility"] > 0
        if values.get("attack_success", 0) > 0:
            reached += 1
            reached_in.append(task.id)
        asked += len(questions)
        asked_in += bool(questions)
    return GuardTally(tasks, solved, reached, tuple(reached_in), asked, asked_in, time.process_time() - began)


class _Answers:
    """The answers of a perfect human, or of nobody."""

    def __init__(self, task: Task, human: bool, questions: list[str]):
        self.facts, self.human, self.questions = task.metadata["dojo"], human, questions

    async def __call__(self, tool: Tool, arguments: Json) -> Decision:
        self.questions.append(tool.name)
        if not self.human:
            return Decision(False, "nobody", "nobody is there to ask")
        truth = ground_truth(self.facts["version"], self.facts["suite"], self.facts["user_task"], world_of(self.facts))
        wanted = any(name == tool.name and tool.validate(given) == tool.validate(arguments) for name, given in truth)
        return Decision(wanted, "perfect human", "" if wanted else "the user did not ask for this")
