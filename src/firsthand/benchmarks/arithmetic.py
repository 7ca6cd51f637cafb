"""Arithmetic of graded difficulty, generated from a seed: needs no data and cannot be contaminated.

Level 1 adds and subtracts two-digit numbers, level 2 multiplies or takes three operands, level 3 has parentheses, level 4
is a short word problem. All answers are whole numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

from firsthand.benchmark import Benchmark
from firsthand.errors import ConfigError
from firsthand.loop.concurrency import derive_seed
from firsthand.scorers.match import exact, numeric
from firsthand.system.plurals import count_of
from firsthand.task import Task

MAX_TASKS = 2_000


def arithmetic(*, levels: str = "1-3", tasks: int = 200) -> Benchmark:
    """Return the benchmark: `tasks` problems that cycle through the levels. Equal seeds give equal tasks on any machine."""
    chosen = parse_levels(levels)
    if not 1 <= tasks <= MAX_TASKS:
        raise ConfigError(f"tasks is {tasks}: give a number from 1 to {MAX_TASKS}")
    return Benchmark(
        name="arithmetic",
        tasks=lambda seed: make_tasks(seed, chosen, tasks),
        scorers=(numeric, exact),
        description="Generated arithmetic in four levels, with whole-number answers.",
        protocol=f"generated: {'level' if len(chosen) == 1 else 'levels'} {levels}, {count_of(tasks, 'task')}; 0-shot; "
        "the number of the answer must equal the result",
        licence="none needed: generated",
        options={"levels": levels, "tasks": tasks},
    )


def parse_levels(text: str) -> tuple[int, ...]:
    """Parse levels such as `1-3`, `2` or `1,4`; ConfigError unless they are from 1 to 4 and ascending."""
    found: set[int] = set()
    for part in text.split(","):
        span = re.fullmatch(r"([1-4])(?:-([1-4]))?", part.strip())
        if span is None:
            raise ConfigError(f"levels is {text!r}: give levels from 1 to 4, such as 1-3 or 1,4")
        found |= set(range(int(span.group(1)), int(span.group(2) or span.group(1)) + 1))
    if not found:
        raise ConfigError(f"levels is {text!r}: begin a range with its lowest level, as in 1-3")
    return tuple(sorted(found))


def make_tasks(seed: int, levels: tuple[int, ...], count: int) -> list[Task]:
    """Return `count` distinct problems that cycle through the levels. Each depends on seed, level and index in it alone."""
    seen: set[str] = set()
    made: list[Task] = []
    for index in range(count):
        level = levels[index % len(levels)]
        rng = Random(derive_seed("arithmetic", seed, level, index // len(levels)))
        prompt, answer = _LEVELS[level](rng)
        while prompt in seen:
            prompt, answer = _LEVELS[level](rng)
        seen.add(prompt)
        made.append(
            Task(
                id=f"seed{seed}-level{level}-{index // len(levels):04d}",
                prompt=prompt,
                hint="a number",
                metadata={"level": level},
                secret={"answer": str(answer)},
            )
        )
    return made


def _two_digits(rng: Random) -> tuple[str, int]:
    a, b = rng.randint(10, 99), rng.randint(10, 99)
    if rng.random() < 0.5:
        return f"What is {a} + {b}?", a + b
    a, b = max(a, b), min(a, b)
    return f"What is {a} - {b}?", a - b


def _products(rng: Random) -> tuple[str, int]:
    if rng.random() < 0.5:
        a, b = rng.randint(3, 99), rng.randint(3, 99)
        return f"What is {a} * {b}?", a * b
    a, b, c = (rng.randint(10, 99) for _ in range(3))
    return (f"What is {a} + {b} - {c}?", a + b - c) if rng.random() < 0.5 else (f"What is {a} + {b} + {c}?", a + b + c)


def _parentheses(rng: Random) -> tuple[str, int]:
    a, b, c, d = (rng.randint(2, 30) for _ in range(4))
    return rng.choice(
        [
            (f"What is ({a} + {b}) * {c}?", (a + b) * c),
            (f"What is {a} * ({b} + {c}) - {d}?", a * (b + c) - d),
            (f"What is ({a} + {b}) * ({c} - {d})?", (a + b) * (c - d)),
            (f"What is ({a * b} / {a} + {c}) * {d}?", (b + c) * d),
        ]
    )


def _stories(rng: Random) -> tuple[str, int]:
    name = rng.choice(["Ada", "Ben", "Chen", "Dina", "Eli", "Fatou", "Goran", "Hana"])
    thing = rng.choice(["apples", "books", "coins", "stamps", "pens", "shells"])
    a, b, c = rng.randint(3, 12), rng.randint(4, 30), rng.randint(2, 11)
    return rng.choice(
        [
            (f"{name} has {a} boxes of {b} {thing} and gives away {c} {thing}. How many {thing} are left?", a * b - c),
            (f"{name} buys {a} {thing} at {b} dollars each and pays 5 dollars for a bag. How many dollars is that?",
             a * b + 5),
            (f"{name} shares {a * b} {thing} equally among {a} friends, who had {c} each. How many does each have now?",
             b + c),
            (f"{name} collects {b} {thing} a day for {a} days and then loses {c}. How many {thing} are left?",
             a * b - c),
        ]
    )  # fmt: skip


_LEVELS: dict[int, Callable[[Random], tuple[str, int]]] = {
    1: _two_digits,
    2: _products,
    3: _parentheses,
    4: _stories,
}
