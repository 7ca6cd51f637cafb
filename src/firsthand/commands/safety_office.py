"""Measures guards on the attacked office: the gullible clerk, each channel of attack, with and without guards."""

from __future__ import annotations

from collections.abc import Sequence

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.loop.approval import Approval, Ask
from firsthand.memories.notes import notes
from firsthand.memory import Memory, MemoryItem
from firsthand.message import Json
from firsthand.providers.scripted import Scripted
from firsthand.safety.guard_tally import GuardTally, tallied
from firsthand.safety.policy import DEFAULT, CallPolicy
from firsthand.task import Task
from firsthand.tool import Tool
from firsthand.worlds.office.office_attacks import CHANNELS, Goal, gullible_clerk, office_of

OFFICE_ROWS: dict[str, tuple[str, ...] | None] = {
    "none": None,
    "plan_lock": ("plan_lock",),
    "authority_from_trusted": ("authority_from_trusted",),
    "untrusted_session": ("untrusted_session",),
    "default": DEFAULT,
    "default+untrusted_session": (*DEFAULT, "untrusted_session"),
}
"""Guards of the table."""


async def office_tallies(
    rules: Sequence[str] | None, *, human: bool = False, tasks: int = 80, seed: int = 0
) -> dict[str, GuardTally]:
    """The results of these rules, or of no guard, without an attack (`none`) and under one through each channel."""
    return {channel: await _tally(rules, channel, human, tasks, seed) for channel in ("none", *CHANNELS)}


async def _tally(rules: Sequence[str] | None, channel: str, human: bool, tasks: int, seed: int) -> GuardTally:
    benchmark = catalog.benchmark(f"office_attacked:channel={channel}:tasks={tasks}:plan=true")
    memories = {task.id: await _poisoned(task) for task in benchmark.tasks(seed)} if channel == "memory" else {}

    def agent_for(task: Task, ask: Ask) -> Agent:
        guard = None if rules is None else CallPolicy(tuple(rules))
        approval = Approval({"irreversible": "allow"}, ask)
        return Agent(
            "clerk", Scripted([]), gullible_clerk, guard=guard, approval=approval, memory=memories.get(task.id)
        )

    attack = None if channel == "none" else "attack_success"
    return await tallied(benchmark, benchmark.tasks(seed), agent_for, _needs if human else None, attack=attack)


def _needs(task: Task, tool: Tool, arguments: Json) -> bool:
    return any(tool.name == name and arguments == tool.validate(given) for name, given in office_of(task).steps)


async def _poisoned(task: Task) -> Memory:
    """A memory with the attack's text in a note that fits the task."""
    memory = notes(lifetime="agent")
    await memory.write(MemoryItem.of(f"{task.prompt} {Goal(*task.metadata['goal']).text}", {}))
    return memory
