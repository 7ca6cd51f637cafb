"""Ledgers in a tiny language, whose last number follows from the others: a task for a model that may call a calculator.

`tom has 12 gets 9 left` asks for 21, `ann has 20 loses 9 left` for 11. Generated, for Toolformer.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from firsthand.benchmark import Benchmark
from firsthand.errors import ConfigError
from firsthand.loop.concurrency import derive_seed
from firsthand.task import Task
from firsthand.trace import Score, Trace

NAMES = ("tom", "ann", "bob", "sue", "max", "eve")
LIMIT = 30
"""Numbers are below this."""


class Ledger(NamedTuple):
    """One ledger."""

    opening: str
    """All but the last number."""
    call: str
    """The expression whose value is left."""
    left: int

    @property
    def text(self) -> str:
        """The whole ledger."""
        return f"{self.opening} {self.left}"


def random_ledger(rng: Random) -> Ledger:
    """A ledger whose numbers are all from 0 to 29."""
    name, operator = rng.choice(NAMES), rng.choice("+-")
    while True:
        first, second = rng.randrange(LIMIT), rng.randrange(LIMIT)
        left = first + second if operator == "+" else first - second
        if 0 <= left < LIMIT:
            verb = "gets" if operator == "+" else "loses"
            return Ledger(f"{name} has {first} {verb} {second} left", f"{first} {operator} {second}", left)


def toy_ledgers(*, tasks: int = 200) -> Benchmark:
    """Return the benchmark: ledgers without their last number. Equal seeds give equal tasks on any machine."""
    if tasks < 1:
        raise ConfigError(f"tasks is {tasks}: give 1 or more")
    return Benchmark(
        name="toy_ledgers",
        tasks=lambda seed: make_tasks(seed, tasks),
        scorers=(amount_left,),
        description="Ledgers in a tiny language, with the amount that is left as the answer.",
        protocol="generated: the answer must be the amount that is left, which a sum or a difference gives",
        licence="none needed: generated",
        options={"tasks": tasks},
    )


def amount_left(task: Task, trace: Trace) -> Score:
    """1 if the answer is the amount; `calls` is the number of tool calls that were made."""
    calls = sum(call.kind == "tool" for call in trace.calls)
    return Score("amount_left", float((trace.answer or "").strip() == task.secret["answer"]), {"calls": calls})


def make_tasks(seed: int, count: int) -> list[Task]:
    """Return `count` ledgers."""
    rng, made = Random(derive_seed("toy ledgers", seed)), list[Task]()
    while len(made) < count:
        ledger = random_ledger(rng)
        secret = {"answer": str(ledger.left), "call": ledger.call}
        made.append(Task(f"seed{seed}-{len(made):05d}", ledger.opening, context=ledger.opening, secret=secret))
    return made
