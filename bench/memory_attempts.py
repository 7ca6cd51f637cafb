"""Accuracy and tokens of episodic and procedural memory beside no memory, on tasks that come again and on new ones.

python bench/memory_attempts.py --models FILE.gguf --tasks 20

A first pass without memory attempts the first half of the tasks; its traces are what each memory learns from. Then the same
tasks come again, and the other half comes as new tasks of the same kind. Temperature is 0: only the memory differs.
"""

from __future__ import annotations

import argparse
import asyncio

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.memory import Memory
from firsthand.patterns.direct import direct
from firsthand.rollout import rollout
from firsthand.sampling import Sampling
from firsthand.stats.intervals import proportion_interval
from firsthand.task import Task
from firsthand.trace import Trace

MEMORIES = ("episodic", "procedural")


async def attempts(
    model: object, memory: Memory | None, benchmark: Benchmark, tasks: list[Task], at_once: int, max_tokens: int
) -> list[Trace]:
    """The traces of the tasks, in order; the memory stays as it was."""
    agent = Agent("a", model, direct, sampling=Sampling(temperature=0.0, max_tokens=max_tokens), memory=memory)
    slots = asyncio.Semaphore(at_once)

    async def one(task: Task) -> Trace:
        async with slots:
            return await rollout(agent, task, benchmark=benchmark)

    return await asyncio.gather(*map(one, tasks))


async def taught(name: str, traces: list[Trace]) -> Memory:
    """A memory that has learnt from these traces."""
    memory = catalog.memory(name)
    for trace in traces:
        for item in memory.learn(trace):
            await memory.write(item)
    return memory


def row(name: str, which: str, traces: list[Trace]) -> str:
    """A line of the table."""
    right, count = sum(trace.scores[0].value for trace in traces if trace.scores), len(traces)
    low, high = proportion_interval(right, count)
    prompt = sum(trace.usage.prompt_tokens for trace in traces) / count
    written = sum(trace.usage.completion_tokens for trace in traces) / count
    errors = sum(trace.error is not None for trace in traces)
    score = f"{right / count:.2f} [{low:.2f}, {high:.2f}]"
    return f"| {name} | {which} | {score} | {prompt:.0f} | {written:.0f} | {errors} |"


async def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", required=True)
    parser.add_argument("--benchmark", default="arithmetic:levels=1-2")
    parser.add_argument("--tasks", type=int, default=40, help="half of them come again, half are new")
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    benchmark = catalog.benchmark(given.benchmark)
    tasks = list(benchmark.tasks(given.seed))[: given.tasks]
    again, new = tasks[: len(tasks) // 2], tasks[len(tasks) // 2 :]
    for name in given.models.split(","):
        model = catalog.model(name)
        print(f"\n{name}: {given.benchmark}, {len(again)} tasks again and {len(new)} new, seed {given.seed}")
        print("| memory | tasks | accuracy | prompt tokens | written | errors |\n|---|---|---|---|---|---|")
        common = (benchmark, given.at_once, given.max_tokens)
        first = await attempts(model, None, common[0], again, *common[1:])
        print(row("none", "again", first), flush=True)
        print(row("none", "new", await attempts(model, None, common[0], new, *common[1:])), flush=True)
        for memory in MEMORIES:
            for label, chosen in (("again", again), ("new", new)):
                held = await taught(memory, first)
                print(row(memory, label, await attempts(model, held, common[0], chosen, *common[1:])), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
