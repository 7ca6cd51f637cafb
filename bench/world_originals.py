"""Steps and resets of worlds beside the originals, on the same tasks: `python bench/world_originals.py [NAME ...]`.

    --each N       tasks of each world (10)
    --tau FOLDER   a checkout of github.com/sierra-research/tau-bench, for `tau`

Names are `hh` (ALFWorld's engine: TextWorld's PddlEnv with `alfred.pddl`, on the same houses), `textworld`, `tau` and `wb`
(MiniWoB++'s enter-text, beside our forms); `pip install alfworld textworld miniwob` brings the originals. A step of ours is
an action by text through `WorldEnvironment`, with the tools offered before it; a step of theirs is their `step` with the
possible actions, where they list them. Actions are equal where the tasks are, else drawn from what is possible. tau-bench
imports litellm to play its customer; no customer speaks here, so an empty module stands for it.
"""

from __future__ import annotations

import argparse
import asyncio
import builtins
import json
import os
import shutil
import statistics
import sys
import time
import types
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from firsthand import catalog
from firsthand.worlds.household.house import House
from firsthand.worlds.household.household_world import HouseholdWorld
from firsthand.worlds.world import WorldEnvironment

STEPS = 20
"""Steps of a random walk."""


class Clock:
    """Wall and processor milliseconds of resets and steps."""

    def __init__(self) -> None:
        self.wall: dict[str, list[float]] = {"reset": [], "step": []}
        self.cpu: dict[str, list[float]] = {"reset": [], "step": []}

    async def timed(self, kind: str, act: Callable[[], Any]) -> Any:
        """What an act returns, or the awaitable that it returns."""
        wall, cpu = time.perf_counter(), time.process_time()
        found = act()
        if isinstance(found, Awaitable):
            found = await found
        self.wall[kind].append(1000 * (time.perf_counter() - wall))
        self.cpu[kind].append(1000 * (time.process_time() - cpu))
        return found

    def __str__(self) -> str:
        return (
            "".join(
                f" {statistics.median(self.wall[kind]):>10.2f} {statistics.mean(self.cpu[kind]):>8.2f}"
                for kind in ("reset", "step")
            )
            + f" {len(self.wall['step']):>6}"
        )


async def our_walk(clock: Clock, environment: WorldEnvironment, choose: Callable[[Sequence[str]], str | None]) -> None:
    """Actions chosen among the admissible ones until there is none, or STEPS were made."""
    await clock.timed("reset", environment.open)
    try:
        for _ in range(STEPS):
            if environment.ended or (action := choose(environment.world.admissible() or ())) is None:
                return
            await clock.timed("step", lambda: _offered_and_acted(environment, action))
    finally:
        await environment.close()


async def _offered_and_acted(environment: WorldEnvironment, action: str) -> str:
    assert environment.tools
    return await environment.act(action)


async def their_walk(clock: Clock, reset: Callable[[], Any], step: Callable[[str], Any], rng: Random) -> None:
    """Random admissible commands of a TextWorld environment."""
    state = await clock.timed("reset", reset)
    for _ in range(STEPS):
        state, _, done = await clock.timed(
            "step", lambda state=state: step(rng.choice(sorted(state.admissible_commands)))
        )
        if done:
            return


def problem(house: House) -> str:
    """A house in the terms of `alfred.pddl`: what a random walk needs; every thing fits everywhere."""
    places = {each.name: each.name.replace(" ", "_") for each in house.receptacles}
    kinds = sorted({name.rpartition(" ")[0] for name in places})
    sorts = sorted({each.name.rpartition(" ")[0] for each in house.things})
    facts = ["(atLocation agent1 loc_0)"]
    for number, each in enumerate(house.receptacles, 1):
        name = places[each.name]
        facts += [
            f"(receptacleType {name} {each.name.rpartition(' ')[0]}Type)",
            f"(receptacleAtLocation {name} loc_{number})",
        ]
        facts += [f"(openable {name})"] if each.openable else []
    where = {each.name: f"loc_{number}" for number, each in enumerate(house.receptacles, 1)}
    for thing in house.things:
        name = thing.name.replace(" ", "_")
        facts += [
            f"(objectType {name} {thing.name.rpartition(' ')[0]}Type)",
            f"(inReceptacle {name} {places[thing.place]})",
            f"(objectAtLocation {name} {where[thing.place]})",
            f"(pickupable {name})",
        ]
    facts += [f"(canContain {kind}Type {sort}Type)" for kind in kinds for sort in sorts]
    objects = [
        "agent1 - agent",
        *(f"loc_{number} - location" for number in range(len(places) + 1)),
        *(f"{name} - receptacle" for name in places.values()),
        *(f"{thing.name.replace(' ', '_')} - object" for thing in house.things),
        *(f"{kind}Type - rtype" for kind in kinds),
        *(f"{sort}Type - otype" for sort in sorts),
    ]
    return (
        f"(define (problem house) (:domain alfred) (:objects {' '.join(objects)}) "
        f"(:init {' '.join(facts)} (= (total-cost) 0)) (:goal (and (checked loc_0))))"
    )


async def household(each: int) -> tuple[Clock, Clock]:
    """ALFWorld's engine."""
    import alfworld
    import textworld
    from textworld.envs.pddl import PddlEnv

    data = Path(alfworld.__file__).parent / "data"
    rules = {"pddl_domain": (data / "alfred.pddl").read_text(), "grammar": (data / "alfred.twl2").read_text()}
    ours, theirs = Clock(), Clock()
    benchmark = catalog.benchmark(f"agentbench_hh:level=2:rounds=1000:tasks={each}")
    for number, task in enumerate(benchmark.tasks(0)):
        environment = benchmark.environment(task)  # type: ignore[misc]
        assert isinstance(environment, WorldEnvironment)
        assert isinstance(environment.world, HouseholdWorld)
        await our_walk(ours, environment, Random(number).choice)
        game = PddlEnv(textworld.EnvInfos(admissible_commands=True, won=True))
        text = problem(environment.world.house)

        def reset(game: Any = game, text: str = text) -> Any:
            game.load({**rules, "pddl_problem": text})
            return game.reset()

        await their_walk(theirs, reset, game.step, Random(number))
    return ours, theirs


async def text_games(each: int) -> tuple[Clock, Clock]:
    """TextWorld's own games, compiled before."""
    import textworld

    ours, theirs = Clock(), Clock()
    benchmark = catalog.benchmark(f"textworld:level=2:rounds=1000:tasks={each}")
    for number, task in enumerate(benchmark.tasks(0)):
        await our_walk(ours, benchmark.environment(task), Random(number).choice)  # type: ignore[misc, arg-type]
        made: list[Any] = []

        def reset(path: str = task.secret["path"], made: list[Any] = made) -> Any:
            infos = textworld.EnvInfos(
                admissible_commands=True, policy_commands=True, won=True, lost=True, score=True, max_score=True,
                description=True, inventory=True,
            )  # fmt: skip
            made.append(textworld.start(path, infos))
            return made[0].reset()

        await their_walk(theirs, reset, lambda command, made=made: made[0].step(command), Random(number))
        made[0].close()
    return ours, theirs


async def service(each: int, checkout: str) -> tuple[Clock, Clock]:
    """tau-bench's Python, by the calls of its own retail tasks."""
    sys.path.insert(0, checkout)
    sys.modules.setdefault("litellm", types.ModuleType("litellm")).completion = None  # type: ignore[attr-defined]
    from tau_bench.envs.retail.env import MockRetailDomainEnv

    ours, theirs = Clock(), Clock()
    heard, builtins.input = builtins.input, lambda _="": "go on"
    try:
        retail = MockRetailDomainEnv(user_strategy="human", task_index=0)
        benchmark = catalog.benchmark("tau_retail")
        tasks = benchmark.tasks(0)
        for number in range(each):
            calls = iter(
                [json.dumps({"name": call.name, "arguments": call.kwargs}) for call in retail.tasks[number].actions]
            )
            await our_walk(ours, benchmark.environment(tasks[number]), lambda _, calls=calls: next(calls, None))  # type: ignore[misc, arg-type]
            await theirs.timed("reset", lambda number=number: retail.reset(number))
            for call in retail.tasks[number].actions:
                await theirs.timed("step", lambda call=call: retail.step(call))
    finally:
        builtins.input = heard
    return ours, theirs


async def browsing(each: int) -> tuple[Clock, Clock]:
    """MiniWoB++'s enter-text, by clicks into its field, beside the fields of our forms."""
    for variable, program in (("MINIWOB_CHROME_BINARY", "chromium"), ("MINIWOB_CHROMEDRIVER", "chromedriver")):
        os.environ.setdefault(variable, shutil.which(program) or program)
    import gymnasium
    import miniwob
    from miniwob.action import ActionTypes

    gymnasium.register_envs(miniwob)
    ours, theirs = Clock(), Clock()
    benchmark = catalog.benchmark("agentbench_wb:level=1:rounds=1000")
    forms = [task for task in benchmark.tasks(0) if task.metadata["kind"] == "form"][:each]
    for task in forms:
        await our_walk(ours, benchmark.environment(task), lambda _: f"type[1] {len(ours.wall['step'])}")  # type: ignore[misc, arg-type]
    game: Any = gymnasium.make("miniwob/enter-text-v1").unwrapped
    for number in range(each):
        seen, _ = await theirs.timed("reset", lambda number=number: game.reset(seed=number))
        field = next(element["ref"] for element in seen["dom_elements"] if element["tag"] == "input_text")
        for _ in range(STEPS):
            act = game.create_action(ActionTypes.CLICK_ELEMENT, ref=field)
            *_, done, _, _ = await theirs.timed("step", lambda act=act: game.step(act))
            if done:
                break
    game.close()
    return ours, theirs


async def main(names: Sequence[str], each: int, tau: str) -> None:
    """One line for each side of each world."""
    print(f"{'world':<11} {'engine':<9} {'reset ms':>10} {'CPU ms':>8} {'step ms':>10} {'CPU ms':>8} {'steps':>6}")
    for name in names:
        made = {"hh": household, "textworld": text_games, "wb": browsing}.get(name)
        ours, theirs = await (made(each) if made is not None else service(each, tau))
        print(f"{name:<11} {'firsthand':<9}{ours}\n{name:<11} {'original':<9}{theirs}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=["hh", "textworld", "tau", "wb"], default=["hh", "textworld", "wb"])
    parser.add_argument("--each", type=int, default=10)
    parser.add_argument("--tau", default="")
    given = parser.parse_args()
    asyncio.run(main(given.names, given.each, given.tau))
