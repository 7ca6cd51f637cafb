"""Simulated players that err at a stated rate, by grammar or by choice: `python bench/world_errors.py`.

    --each N   tasks of a row (60)

A simulated player knows the world and plays its optimal action, except that at each step, with the rate of the row, it
writes what is no action (grammar) or an admissible action at random (choice). The optimal players of household and shopping
plan anew from any state, so an error costs rounds and not the game. A row is one world, with its rounds as the limit.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Literal

from firsthand import catalog
from firsthand.loop.concurrency import derive_seed
from firsthand.message import Message
from firsthand.stats.intervals import proportion_interval
from firsthand.task import Task
from firsthand.trace import Trace
from firsthand.worlds.players import NextAction, play
from firsthand.worlds.world import World

Error = Literal["grammar", "choice"]
WORLDS = (
    *(f"agentbench_hh:level={level}:rounds=14" for level in (1, 2, 3)),
    *(f"agentbench_ws:level={level}:rounds=8" for level in (1, 3)),
)
RATES: tuple[tuple[Error, float], ...] = (
    ("grammar", 0.0), ("grammar", 0.2), ("choice", 0.2), ("grammar", 0.5), ("choice", 0.5),
)  # fmt: skip


def erring(error: Error, rate: float, task: Task, seed: int = 0) -> NextAction:
    """The optimal player with errors of one kind."""
    rng = Random(derive_seed("erring player", seed, error, task.id))

    def act(world: World, messages: Sequence[Message]) -> str:
        if rng.random() >= rate:
            return world.optimal()
        return "I would like to act" if error == "grammar" else world.random(rng)

    return act


async def row(world: str, error: Error, rate: float, each: int) -> str:
    """Wins, rounds, invalid actions and reasons of one player in one world."""
    benchmark = catalog.benchmark(f"{world}:tasks={each}")
    traces: list[Trace] = [
        await play(benchmark, task, erring(error, rate, task), thought=False) for task in benchmark.tasks(0)
    ]
    won = sum(trace.value() == 1 for trace in traces)
    found = proportion_interval(won, each)
    rounds = sum(trace.final_state["rounds"] for trace in traces)
    invalid = sum(trace.final_state["invalid_actions"] for trace in traces)
    reasons = Counter(str(trace.scores[0].detail["reason"]) for trace in traces if trace.value() != 1)
    why = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common()) or "-"
    kind = "none" if rate == 0 else error
    return (
        f"| `{world}` | {kind} | {rate:.1f} | {each} | {won / each:.2f} [{found.low:.2f}, {found.high:.2f}] "
        f"| {rounds / each:.1f} | {invalid / max(rounds, 1):.0%} | {why} |"
    )


async def main(each: int) -> None:
    """All rows."""
    print("| world | error | rate | tasks | won [95%] | rounds | invalid | why not won |\n|" + "---|" * 8)
    for world in WORLDS:
        for error, rate in RATES:
            print(await row(world, error, rate, each), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=60)
    asyncio.run(main(parser.parse_args().each))
