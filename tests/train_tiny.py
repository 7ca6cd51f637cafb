"""Small models, streams and batches for the tests of training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from engine_tiny import VOCAB, tiny_model
from firsthand.nn.decoder import Decoder
from firsthand.train.streams import Stream


def model(seed: int = 0) -> Decoder:
    return tiny_model(seed, vocab_size=VOCAB)


def streams_of_all_kinds(count: int = 12, seed: int = 0) -> list[Stream]:
    """Streams of unequal lengths with every part of the loss; each second and third one form a comparison."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(count):
        length = int(rng.integers(2, 20))
        mask = (rng.random(length) < 0.7).astype(np.float32)
        numbers = {name: -rng.random(length) * 3 for name in ("behaviour", "reference")}
        compared = {} if index % 3 == 0 else {"pair": index // 3, "label": 1.0 if index % 3 == 1 else -1.0}
        found.append(
            Stream(
                rng.integers(0, VOCAB, length), ce=mask * rng.random(length), pg=mask, advantage=rng.normal(size=length),
                ref_kl=mask, value=np.ones(length), returns=rng.normal(size=length), old_values=rng.normal(size=length),
                **numbers, **compared,
            )
        )  # fmt: skip
    return found


class Lists:
    """Batches out of lists, which count the steps that they have yielded."""

    def __init__(self, *steps: Sequence[Stream]):
        self.steps = [list(streams) for streams in steps]
        self.position = 0

    def __iter__(self) -> Iterator[list[Stream]]:
        while self.position < len(self.steps):
            self.position += 1
            yield self.steps[self.position - 1]

    def state(self) -> dict[str, int]:
        return {"position": self.position}

    def load(self, state: Mapping[str, int]) -> None:
        self.position = state["position"]


class Kept:
    """Keeps the metrics of each step."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        self.rows.append({"step": step, **metrics})
