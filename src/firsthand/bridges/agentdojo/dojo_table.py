"""Measures guards against the gullible agent: benign utility, utility under attack, attack success and questions asked."""

from __future__ import annotations

from collections.abc import Sequence

from firsthand.agent import Agent
from firsthand.bridges.agentdojo.dojo_benchmark import dojo_benchmark, world_of
from firsthand.bridges.agentdojo.dojo_suites import VERSION, ground_truth
from firsthand.bridges.agentdojo.gullible import gullible
from firsthand.loop.approval import Approval, Ask
from firsthand.message import Json
from firsthand.providers.scripted import Scripted
from firsthand.safety.guard_tally import GuardTally, tallied
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


async def measured(
    rules: Sequence[str] | None,
    attack: str,
    *,
    suite: str = "all",
    human: bool = False,
    plan: bool = True,
    drafts: bool = False,
    version: str = VERSION,
    only: Sequence[str] = (),
) -> GuardTally:
    """The results of these rules, or of no guard, on the gullible agent under an attack.

    `human` answers each question as a person would who knows the user's task to the letter: yes to the calls of its ground
    truth. Otherwise nobody is there, and a question is a no. `only` takes tasks by their ids.
    """
    benchmark = dojo_benchmark(suite, attack, version, plan, drafts)
    tasks = (task for task in benchmark.tasks(0) if not only or task.id in only)

    def agent_for(task: Task, ask: Ask) -> Agent:
        guard = None if rules is None else CallPolicy(tuple(rules))
        return Agent("gullible", Scripted([]), gullible, guard=guard, approval=Approval({"irreversible": "allow"}, ask))

    score = None if attack == "none" else "attack_success"
    return await tallied(benchmark, tasks, agent_for, _needs if human else None, attack=score)


def _needs(task: Task, tool: Tool, arguments: Json) -> bool:
    facts = task.metadata["dojo"]
    truth = ground_truth(facts["version"], facts["suite"], facts["user_task"], world_of(facts))
    return any(name == tool.name and tool.validate(given) == tool.validate(arguments) for name, given in truth)
