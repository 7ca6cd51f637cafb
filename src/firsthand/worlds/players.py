"""Players that are no language model: optimal, random, idle, or a person; run by the same `rollout`.

A player answers `thought_action` as a model would, so its actions pass the grammar, the parser and the world's checks. With
native actions it makes tool calls, and the pattern is `react` with `native`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Literal

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark, NamedSetting
from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.loop.budget import Limits
from firsthand.loop.concurrency import derive_seed
from firsthand.message import Message, ToolCall, assistant
from firsthand.patterns.react import react
from firsthand.patterns.thought_action import thought_action
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.sampling import Sampling
from firsthand.task import Task
from firsthand.trace import Trace
from firsthand.worlds.world import InvalidAction, World, WorldCall, WorldEnvironment

PlayerName = Literal["optimal", "random", "idle"]
MAX_DRAWS = 1000
NextAction = Callable[[World, Sequence[Message]], str]
"""The next text action, given the world and the conversation so far."""


def next_action(player: PlayerName, task: Task, seed: int = 0) -> NextAction:
    """The actions of the optimal or the random player at a task; the random one draws from what is admissible."""
    if player == "optimal":
        return lambda world, messages: world.optimal()
    if player != "random":
        raise ConfigError(f"the player is {player!r}: actions come from optimal or random")
    rng = Random(derive_seed("random player", seed, task.id))

    def draw(world: World, messages: Sequence[Message]) -> str:
        listed = world.admissible()
        return rng.choice(listed) if listed else world.random(rng)

    return draw


async def play(
    benchmark: Benchmark,
    task: Task,
    player: PlayerName | NextAction,
    *,
    seed: int = 0,
    limits: Limits | None = None,
    thought: bool = True,
) -> Trace:
    """One attempt of a player at a task of a benchmark whose environment is a WorldEnvironment.

    The player `idle` ends the attempt without an action. Without `thought` text actions are written without a thought.
    """
    made = None if benchmark.environment is None else benchmark.environment(task)
    if not isinstance(made, WorldEnvironment):
        raise ConfigError(f"{benchmark.name} is no world: a player needs one, such as agentbench_db")
    setting = NamedSetting(benchmark.name, benchmark.scorers, lambda _: made)
    if player == "idle":
        agent = Agent("idle", Scripted([], name="scripted:idle", fingerprint="scripted:idle"), idle)
        return await rollout(agent, task, benchmark=setting, seed=seed)
    chosen = next_action(player, task, seed) if isinstance(player, str) else player
    name = player if isinstance(player, str) else "person"
    native = made.actions == "native"

    def reply(messages: Sequence[Message], sampling: Sampling, index: int) -> str | Message:
        if native and made.ended is not None:
            return "The answer is done."
        if not native:
            opening = f"Thought: I am the {name} player.\n" if thought else ""
            return f"{opening}Action: {chosen(made.world, messages)}"
        call = _readable(made.world, chosen, messages)
        return assistant("", ToolCall(f"call_{made.rounds}", call.name, dict(call.arguments)))

    model = Scripted(reply, name=f"scripted:{name}", fingerprint=f"scripted:{name}:{seed}")
    sampling = Sampling(max_tokens=100_000)
    options = {"native": True, "max_steps": made.limit + 1} if native else {"max_steps": made.limit, "thought": thought}
    if not native and name == "person":  # who may write what they like, and is told what is wrong
        options["constrained"] = False
    pattern = react if native else thought_action
    agent = Agent(name, model, pattern, options, sampling=sampling, limits=limits or Limits())
    return await rollout(agent, task, benchmark=setting, seed=seed)


async def idle(task: Task, ctx: Context) -> str:
    """Return an empty answer without an action: the score of doing nothing."""
    return ""


def _readable(world: World, chosen: NextAction, messages: Sequence[Message]) -> WorldCall:
    """The next action as a native call. One outside the grammar has none, so another one is drawn."""
    for _ in range(MAX_DRAWS):
        with contextlib.suppress(InvalidAction):
            return world.read(chosen(world, messages))
    raise ConfigError(f"the player gave {MAX_DRAWS} actions outside the grammar: play it with text actions")
