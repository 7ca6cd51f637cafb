"""A modular recurrence over a row of digits: a task that a tiny model solves by writing its steps, and guesses otherwise.

`33142=?` asks for the last of s_i = (2 s_{i-1} + d_i) mod 5, from s_0 = 0. An answer is the last state alone, or all states,
a colon and the last state; the score reads what is after the last colon. Generated from a seed, for reinforcement learning.
"""

from __future__ import annotations

from random import Random

from firsthand.benchmark import Benchmark
from firsthand.errors import ConfigError
from firsthand.loop.concurrency import derive_seed
from firsthand.task import Task
from firsthand.trace import Score, Trace

MODULUS, FACTOR = 5, 2
MAX_LENGTH = 64


def recurrence(*, length: int = 8, tasks: int = 2000) -> Benchmark:
    """Return the benchmark: `tasks` rows of `length` digits. Equal seeds give equal tasks on any machine."""
    if not 1 <= length <= MAX_LENGTH:
        raise ConfigError(f"length is {length}: give a number from 1 to {MAX_LENGTH}")
    if not 1 <= tasks <= MODULUS**length:
        raise ConfigError(f"tasks is {tasks}: there are {MODULUS**length} rows of {length} digits")
    return Benchmark(
        name="recurrence",
        tasks=lambda seed: make_tasks(seed, length, tasks),
        scorers=(last_state,),
        description="A modular recurrence over a row of digits, with the last state as the answer.",
        protocol=f"generated: {length} digits from 0 to 4; what follows the last colon of the answer must be the last state",
        licence="none needed: generated",
        options={"length": length, "tasks": tasks},
    )


def last_state(task: Task, trace: Trace) -> Score:
    """1 if the text after the last colon of the answer is the last state; `stepwise` is 1 if there is a colon."""
    answer = (trace.answer or "").strip()
    correct = answer.rpartition(":")[2].strip() == task.secret["answer"]
    return Score("last_state", float(correct), {"stepwise": float(":" in answer)})


def make_tasks(seed: int, length: int, count: int) -> list[Task]:
    """Return `count` distinct rows of digits."""
    rng, seen = Random(derive_seed("recurrence", seed, length)), set[str]()
    made: list[Task] = []
    while len(made) < count:
        digits = "".join(str(rng.randrange(MODULUS)) for _ in range(length))
        if digits not in seen:
            seen.add(digits)
            secret = {"answer": states(digits)[-1], "steps": solution(digits)}
            made.append(Task(f"seed{seed}-{len(made):05d}", f"{digits}=?", secret=secret))
    return made


def states(digits: str) -> str:
    """The state after each digit."""
    state, found = 0, ""
    for digit in digits:
        state = (FACTOR * state + int(digit)) % MODULUS
        found += str(state)
    return found


def solution(digits: str) -> str:
    """The answer with its steps."""
    found = states(digits)
    return f"{found}:{found[-1]}"
