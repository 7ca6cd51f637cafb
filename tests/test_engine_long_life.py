"""Lives of a thousand random operations: scheduler and engine against the reference of `test_engine_stateful`.

Hypothesis gives a life 8 KiB of choices, which the operations of those machines have used up after 250 to 500. These lives
are drawn from seeds: a failure names the seed, and the same seed lives the same life everywhere.
"""

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, ClassVar

import pytest

from engine_tiny import VOCAB
from test_engine_stateful import WEIGHTS, EngineMachine, SchedulerMachine
from thorough import repetitions

pytestmark = pytest.mark.slow

OPERATIONS = 1000
OFTEN = {"step": 8, "add": 3, "load": 1}
"""How much more often an operation is done than another; all others 2."""
Arguments = Callable[[Random], dict[str, Any]]


class LongLife:
    """A life of one of the machines; after each operation all that it holds to is checked."""

    machine: Callable[[], Any]
    invariant_name: str
    start_with: Arguments
    operations: ClassVar[dict[str, Arguments]]

    def __init__(self, seed: int):
        self.rng = Random(seed)
        self.life = type(self).machine()
        self.life.start(**type(self).start_with(self.rng))
        self.check = getattr(self.life, type(self).invariant_name)
        self.done = Counter[str]()

    def act(self) -> None:
        names = [name for name in self.operations if self.can(name)]
        (name,) = self.rng.choices(names, [OFTEN.get(name, 2) for name in names])
        getattr(self.life, name)(**self.operations[name](self.rng))
        self.check()
        self.done[name] += 1

    def can(self, name: str) -> bool:
        """Whether the machine would choose an operation now."""
        preconditions = getattr(type(self.life), name).hypothesis_stateful_rule.preconditions
        return all(precondition(self.life) for precondition in preconditions)


def tokens(rng: Random, vocab: int, least: int, most: int) -> list[int]:
    return [rng.randrange(vocab) for _ in range(rng.randint(least, most))]


class SchedulerLife(LongLife):
    machine = SchedulerMachine
    invariant_name = "memory_is_as_the_reference_says"

    @staticmethod
    def start_with(rng: Random) -> dict[str, Any]:
        return {
            "num_blocks": rng.randint(6, 14),
            "block_size": rng.randint(1, 4),
            "num_window_blocks": rng.randint(5, 10),
            "window": rng.choice([2, 5, 8]),
            "kind": rng.choice(["whole", "windows", "mixed"]),
            "max_sequences": rng.randint(1, 5),
            "batch": rng.randint(1, 20),
        }

    operations: ClassVar[dict[str, Arguments]] = {
        "add": lambda rng: {
            "start": rng.randrange(1 << 16),
            "cut": rng.randint(0, 6),
            "more": tokens(rng, 2, 1, 9),
            "n": rng.randint(1, 4),
            "new": rng.randint(1, 12),
            "priority": rng.randint(-1, 1),
            "owner": rng.choice("abc"),
            "scored": rng.random() < 0.4,
        },
        "step": lambda rng: {"seconds": rng.choice([0.0, 1.0, 40.0])},
        "abort": lambda rng: {"place": rng.randrange(1 << 16), "whole": rng.random() < 0.5},
        "hold": lambda rng: {"places": tokens(rng, 1 << 16, 1, 4)},
        "release": lambda rng: {"place": rng.randrange(1 << 16)},
        "load": lambda rng: {},
    }


class EngineLife(LongLife):
    machine = EngineMachine
    invariant_name = "memory_is_whole"

    @staticmethod
    def start_with(rng: Random) -> dict[str, Any]:
        return {
            "blocks": rng.randint(9, 40),
            "window": rng.choice([None, 20]),
            "only_windows": rng.random() < 0.5,
            "speculation": rng.choice(["off", "prompt_lookup"]),
            "max_sequences": rng.randint(1, 9),
            "batch": rng.randint(2, 60),
        }

    operations: ClassVar[dict[str, Arguments]] = {
        "add": lambda rng: {
            "start": rng.randrange(1 << 16),
            "cut": rng.randint(0, 30),
            "more": tokens(rng, VOCAB, 1, 20),
            "n": rng.randint(1, 4),
            "new": rng.randint(1, 30),
            "way": rng.randint(0, 2),
            "priority": rng.randint(-1, 1),
            "owner": rng.choice("abc"),
        },
        "score": lambda rng: {
            "start": rng.randrange(1 << 16),
            "continuations": [tokens(rng, 2, 0, 9) for _ in range(rng.randint(0, 4))],
        },
        "step": lambda rng: {"times": rng.randint(1, 12)},
        "abort": lambda rng: {"place": rng.randrange(1 << 16), "whole": rng.random() < 0.5},
        "hold": lambda rng: {"place": rng.randrange(1 << 16)},
        "release": lambda rng: {"place": rng.randrange(1 << 16)},
        "load": lambda rng: {"seed": rng.randint(0, 1)},
    }


@pytest.mark.parametrize(
    ("life", "num_lives"),
    [
        (SchedulerLife, repetitions(25, 6)),
        pytest.param(
            EngineLife, repetitions(6, 2), marks=pytest.mark.skipif(WEIGHTS != "float16", reason="needs equal rows")
        ),
    ],
)
def test_memory_is_as_a_plain_allocator_says_over_lives_of_a_thousand_operations(
    life: type[LongLife], num_lives: int
) -> None:
    done = Counter[str]()
    for seed in range(num_lives):
        lived = life(seed)
        try:
            for number in range(OPERATIONS):
                try:
                    lived.act()
                except Exception as error:
                    error.add_note(f"{life.__name__}({seed}), operation {number}")
                    raise
        finally:
            lived.life.teardown()
        done += lived.done
    assert done.total() == OPERATIONS * num_lives
    for name in life.operations:
        assert done[name] > 20 * num_lives, name
