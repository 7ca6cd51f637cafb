"""Resets, steps and lost attempts of worlds with instant players: `python bench/worlds.py [NAME ...]`.

    --each N       tasks of each world (20), evenly spread
    --at-once N    attempts that run together (64)
    --pause-s X    seconds between two resets, as an agent's attempt takes (0): sandboxes are started ahead in them
    --hosts MODEL  instead: how often the two hosts of lateral thinking puzzles agree, on questions whose answer is known

Names are benchmarks with a world; without any, AgentBench's environments that are there. A step is one action of the random
player through `rollout`: model, grammar check, parser, world and record. AgentBench's files come from $FIRSTHAND_DATA.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from firsthand import catalog
from firsthand.benchmark import Benchmark
from firsthand.benchmarks.agentbench import WEIGHTS
from firsthand.benchmarks.agentbench_ltp import agentbench_ltp
from firsthand.errors import FirsthandError
from firsthand.stats.rater_agreement import cohen_kappa
from firsthand.task import Task
from firsthand.trace import Trace
from firsthand.worlds.players import PlayerName, play
from firsthand.worlds.puzzles.puzzle import Puzzle
from firsthand.worlds.puzzles.puzzle_judge import ModelHost, PuzzleHost, RuleHost

RESETS = 10
RESAMPLES = 2000


class Played(NamedTuple):
    """The attempts of one player, and their wall time."""

    traces: list[Trace]
    wall_s: float

    @property
    def mean(self) -> float:
        """The mean score; a lost attempt counts as 0."""
        return sum(trace.value() or 0.0 for trace in self.traces) / len(self.traces)

    @property
    def steps_per_s(self) -> float:
        """Rounds of all attempts for each second."""
        return sum(trace.final_state.get("rounds", 0) for trace in self.traces) / self.wall_s

    @property
    def lost(self) -> int:
        """Attempts that ended with an error."""
        return sum(trace.error is not None for trace in self.traces)


async def played(benchmark: Benchmark, tasks: Sequence[Task], player: PlayerName, at_once: int) -> Played:
    """All tasks by one player, `at_once` at a time."""
    gate = asyncio.Semaphore(at_once)

    async def one(task: Task, seed: int) -> Trace:
        async with gate:
            return await play(benchmark, task, player, seed=seed)

    began = time.perf_counter()
    traces = await asyncio.gather(*(one(task, place) for place, task in enumerate(tasks)))
    return Played(list(traces), time.perf_counter() - began)


async def reset_ms(benchmark: Benchmark, tasks: Sequence[Task], pause_s: float) -> tuple[float, float]:
    """Median milliseconds to make and open an environment, and until its first action can begin if nothing else is done."""
    assert benchmark.environment is not None
    opened, prepared = [], []
    for place in range(RESETS):
        began = time.perf_counter()
        environment = benchmark.environment(tasks[place % len(tasks)])
        await environment.open()
        opened.append(1000 * (time.perf_counter() - began))
        if (wait := getattr(getattr(environment, "world", None), "prepared", None)) is not None:
            await wait()
        prepared.append(1000 * (time.perf_counter() - began))
        await environment.close()
        await asyncio.sleep(pause_s)
    return statistics.median(opened), statistics.median(prepared)


async def worlds(names: Sequence[str], each: int, at_once: int, pause_s: float) -> None:
    """One line for each world."""
    print(
        f"{'world':<16} {'tasks':>5} {'reset ms':>9} {'ready ms':>9} {'steps/s':>8} {'optimal':>8} {'random':>7} "
        f"{'lost':>5} {'wall s':>7}"
    )
    total_s = 0.0
    for name in names:
        try:
            benchmark = catalog.benchmark(name)
            tasks = benchmark.tasks(0)
        except FirsthandError as error:
            print(f"{name:<16} left out: {error}")
            continue
        chosen = [tasks[place * len(tasks) // each] for place in range(min(each, len(tasks)))]
        reset, ready = await reset_ms(benchmark, chosen, pause_s)
        optimal = await played(benchmark, chosen, "optimal", at_once)
        drawn = await played(benchmark, chosen, "random", at_once)
        total_s += optimal.wall_s
        print(
            f"{name:<16} {len(chosen):>5} {reset:>9.1f} {ready:>9.1f} {drawn.steps_per_s:>8.0f} {optimal.mean:>8.3f} "
            f"{drawn.mean:>7.3f} {optimal.lost + drawn.lost:>5} {optimal.wall_s + drawn.wall_s:>7.1f}",
            flush=True,
        )
    print(f"the optimal player, all of them: {total_s:.1f} s")


def questions(puzzles: Sequence[Puzzle]) -> list[tuple[Puzzle, str, str]]:
    """(puzzle, question, the true answer): a point, its denial, and a point of another puzzle."""
    made = []
    for place, puzzle in enumerate(puzzles):
        point = puzzle.answer_keys[0].rstrip(".")
        other = puzzles[(place + 1) % len(puzzles)].answer_keys[-1].rstrip(".")
        made += [
            (puzzle, f"Is it true that {point}?", "yes"),
            (puzzle, f"Is it true that it is not so that {point}?", "no"),
            (puzzle, f"Is it true that {other}?", "irrelevant"),
        ]
    return made


async def hosts(model: str, each: int) -> None:
    """Both hosts on questions of known answers, and their agreement beyond chance."""
    tasks = agentbench_ltp().tasks(0)
    puzzles = [
        Puzzle.from_json(tasks[place * len(tasks) // each].secret["puzzle"]) for place in range(min(each, len(tasks)))
    ]
    asked = questions(puzzles)
    said: dict[str, list[str]] = {}
    both: tuple[tuple[str, PuzzleHost], ...] = (("rules", RuleHost()), (model, ModelHost(catalog.model(model))))
    for name, host in both:
        said[name] = [(await host.answer(puzzle, question, (), ())).verdict for puzzle, question, _ in asked]
        right = sum(verdict == truth for verdict, (_, _, truth) in zip(said[name], asked, strict=True))
        print(f"{name}: {right} of {len(asked)} right; {dict(Counter(said[name]))}")
    rules, other = said["rules"], said[model]
    agreed = sum(a == b for a, b in zip(rules, other, strict=True)) / len(asked)
    low, high = kappa_interval(rules, other, [puzzle.story for puzzle, _, _ in asked])
    kappa = cohen_kappa(rules, other)
    print(
        f"agreement {agreed:.3f}, Cohen's kappa {kappa:.3f} [{low:.3f}, {high:.3f}] (95%, bootstrap of puzzles), "
        f"{len(asked)} questions about {len(puzzles)} puzzles"
    )


def kappa_interval(first: Sequence[str], second: Sequence[str], clusters: Sequence[str]) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of kappa when whole clusters are drawn again; draws without a kappa are left out."""
    rng, groups = (
        Random(0),
        [[at for at, each in enumerate(clusters) if each == name] for name in dict.fromkeys(clusters)],
    )
    found = []
    for _ in range(RESAMPLES):
        rows = [at for _ in groups for at in rng.choice(groups)]
        kappa = cohen_kappa([first[at] for at in rows], [second[at] for at in rows])
        found += [] if math.isnan(kappa) else [kappa]
    found.sort()
    if not found:
        return math.nan, math.nan
    return found[int(0.025 * len(found))], found[min(len(found) - 1, int(0.975 * len(found)))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--each", type=int, default=20)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--pause-s", type=float, default=0.0)
    parser.add_argument("--hosts", default="")
    given = parser.parse_args()
    if given.hosts:
        asyncio.run(hosts(given.hosts, given.each))
    else:
        here = [f"agentbench_{name}" for name in WEIGHTS if catalog.is_ours("benchmark", f"agentbench_{name}")]
        asyncio.run(worlds(given.names or here, given.each, given.at_once, given.pause_s))
