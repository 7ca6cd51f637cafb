"""Scripted players of the evaluations of concerns: one that is always good and one that is always bad.

A metric that is silently 0 or 1 looks like a result. So each benchmark is played by two agents that know the reference: the
good one must score 1 and the bad one 0 on its first score, on every task. `control_scores` plays them without any model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from firsthand.agent import Agent, Pattern
from firsthand.benchmark import Benchmark
from firsthand.benchmarks.concerns import acting_players, speaking_players
from firsthand.errors import ConfigError
from firsthand.message import Message
from firsthand.patterns.audit import audit
from firsthand.patterns.direct import direct
from firsthand.patterns.parts.probes import PROBES
from firsthand.patterns.probed_cot import probed_cot
from firsthand.patterns.react import react
from firsthand.providers.scripted import Reply, Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.trace import Trace

Side = Literal["good", "bad"]
SIDES: tuple[Side, ...] = ("good", "bad")
PATTERNS: Mapping[str, tuple[Pattern, dict[str, Any]]] = {
    "irreversible_actions": (react, {"native": True}),
    "scope_creep": (react, {"native": True}),
    "evaluation_gaming": (react, {"native": True}),
    "faithfulness": (probed_cot, {}),
    "joint_alignment": (audit, {}),
}
"""The pattern that each benchmark is played by, where that is not `direct`."""
REPLIES: Mapping[str, Callable[[Task, Side, Sequence[Message]], Reply]] = {
    "irreversible_actions": acting_players.errand,
    "scope_creep": acting_players.access,
    "evaluation_gaming": acting_players.exercise,
    "joint_alignment": acting_players.audited,
    "goal_misspecification": speaking_players.plan,
    "faithfulness": speaking_players.chain,
    "paired_requests": speaking_players.request,
    "xstest": speaking_players.request,
}
CHOICES: Mapping[str, Callable[[Task, Side, str], int]] = {
    "sycophancy": speaking_players.opinion,
    "abstention": speaking_players.knowledge,
    "many_shot": speaking_players.rule,
    "ai_risk": speaking_players.labelled,
}
"""Name of the benchmark -> the continuation that a side prefers after a probe of a task."""


def player(benchmark: Benchmark, side: Side, seed: int = 0) -> Agent:
    """Return the agent that plays a side of a benchmark's tasks of a seed; ConfigError if the benchmark has no player."""
    name = benchmark.name.partition(":")[0]
    if name not in REPLIES and name not in CHOICES:
        known = ", ".join(sorted({*REPLIES, *CHOICES}))
        raise ConfigError(f"{benchmark.name} has no scripted players: there are some of {known}")
    tasks = list(benchmark.tasks(seed))
    pattern, options = PATTERNS.get(name, (direct, {}))
    model = Scripted(
        lambda messages, sampling, index: REPLIES[name](_task_of(tasks, messages), side, messages),
        score=_scoring(name, tasks, side),
        name=f"scripted-{side}",
        fingerprint=f"scripted-{side}-{name}",
    )
    return Agent(side, model, pattern, options=options)


async def play(benchmark: Benchmark, side: Side, *, seed: int = 0, limit: int | None = None) -> list[Trace]:
    """Return the traces of a side's attempts at the first `limit` tasks, or at all of them."""
    agent = player(benchmark, side, seed)
    tasks = list(benchmark.tasks(seed))[:limit]
    return list(await asyncio.gather(*(rollout(agent, task, benchmark=benchmark, seed=seed) for task in tasks)))


async def control_scores(benchmark: Benchmark, *, seed: int = 0, limit: int | None = None) -> dict[Side, float]:
    """Return the mean first score of both sides; NaN counts as a failure. They are 1 and 0 where the metric works."""
    found: dict[Side, float] = {}
    for side in SIDES:
        values = [trace.value() for trace in await play(benchmark, side, seed=seed, limit=limit)]
        found[side] = sum(float("nan") if value is None else value for value in values) / max(1, len(values))
    return found


def _task_of(tasks: Sequence[Task], messages: Sequence[Message]) -> Task:
    """The task whose prompt, the longest that fits, is in the conversation."""
    said = "\n".join(message.text for message in messages)
    return max((task for task in tasks if task.prompt in said), key=lambda task: len(task.prompt))


def _scoring(name: str, tasks: Sequence[Task], side: Side) -> Callable[[str, str], float]:
    """Log-probs by which the text that a side prefers is e^4 times as probable as any other."""
    if name == "faithfulness":
        return lambda prompt, text: -1.0 if text == speaking_players.concluded(tasks, side, prompt) else -5.0
    if name == "joint_alignment":
        preferred = {task.metadata["choices"][SIDES.index(side)] for task in tasks}
        return lambda prompt, text: -1.0 if text in preferred else -5.0
    chosen: dict[str, str] = {}
    for task in tasks if name in CHOICES else ():
        for probe in task.metadata[PROBES]:
            said = "\n".join(text for _, text in probe["turns"])
            chosen[said] = probe["continuations"][CHOICES[name](task, side, probe["name"])]
    return lambda prompt, text: -1.0 if text == chosen[prompt] else -5.0
