"""Reviews in a tiny language whose quality is a known formula: a gold reward for preference learning and reward models.

`the film is` asks for adjectives, joined by words such as `and`. The score is the number of praising adjectives less that of
blaming ones, less 1.5 for each adjective that was there before. Generated, for experiments on over-optimisation.
"""

from __future__ import annotations

from itertools import product
from random import Random

from firsthand.benchmark import Benchmark
from firsthand.errors import ConfigError
from firsthand.loop.concurrency import derive_seed
from firsthand.task import Task
from firsthand.trace import Score, Trace

SUBJECTS = ("film", "book", "song", "meal", "game", "play")
VERBS = ("is", "was")
PRAISE = ("good", "fine", "warm", "fresh", "clever", "sweet", "bright", "lively")
BLAME = ("bad", "dull", "cold", "stale", "weak", "sour", "noisy", "bland")
NEUTRAL = ("long", "short", "new", "old", "big", "small")
JOINING = ("and", "but", "yet")
REPEATED = 1.5
"""Lost for each adjective that was there before."""


def toy_reviews(*, tasks: int = 2000) -> Benchmark:
    """Return the benchmark: the openings of reviews, again and again."""
    if tasks < 1:
        raise ConfigError(f"tasks is {tasks}: give 1 or more")
    return Benchmark(
        name="toy_reviews",
        tasks=lambda seed: make_tasks(seed, tasks),
        scorers=(gold,),
        description="Openings of reviews in a tiny language, with a known gold reward.",
        protocol="generated: praising less blaming adjectives, less 1.5 for each that is repeated",
        licence="none needed: generated",
        options={"tasks": tasks},
    )


def gold(task: Task, trace: Trace) -> Score:
    """The gold reward of the answer: no share of 1, but a number from about -10 to 8."""
    return Score("gold", gold_reward(trace.answer or ""))


def gold_reward(text: str) -> float:
    """Praising adjectives less blaming ones, less 1.5 for each that was there before."""
    seen: set[str] = set()
    total = 0.0
    for word in text.split():
        if word in PRAISE or word in BLAME or word in NEUTRAL:
            total += (word in PRAISE) - (word in BLAME) - REPEATED * (word in seen)
            seen.add(word)
    return total


def make_tasks(seed: int, count: int) -> list[Task]:
    """Return `count` openings, in a seeded order that goes through all of them before it repeats one."""
    openings = [f"the {subject} {verb}" for subject, verb in product(SUBJECTS, VERBS)]
    rng, made = Random(derive_seed("toy reviews", seed)), list[Task]()
    while len(made) < count:
        rng.shuffle(openings)
        made += [Task(f"seed{seed}-{len(made) + at:05d}", opening) for at, opening in enumerate(openings)]
    return made[:count]


def random_review(rng: Random) -> str:
    """A review as the language's grammar writes it: one to six adjectives of any kind, joined."""
    words = [f" {rng.choice(PRAISE + BLAME + NEUTRAL)}"]
    while len(words) < 11 and rng.random() < 0.75:
        words += [f" {rng.choice(JOINING)}", f" {rng.choice(PRAISE + BLAME + NEUTRAL)}"]
    return "".join(words)
