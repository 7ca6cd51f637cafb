"""Trains a two-layer attention-only model on repeated random texts until it has induction heads: 15 s on one core."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import numpy as np

from firsthand.loop.concurrency import derive_seed
from firsthand.message import Json
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.decoder import Decoder, initialise
from firsthand.train.fit import fit
from firsthand.train.objective import Objective
from firsthand.train.optimizers import optimizer_for
from firsthand.train.recipe_settings import OptimizerSettings
from firsthand.train.schedules import ScheduleSettings
from firsthand.train.streams import Stream

VOCABULARY = 32
BEGIN = VOCABULARY
"""The id of the begin token; random tokens are the ids below."""


def attention_only(*, layers: int = 2, hidden: int = 64, heads: int = 4, context: int = 128, seed: int = 0) -> Decoder:
    """A decoder whose MLPs write zeros and are not trained: attention alone moves information."""
    architecture = Architecture(
        family="llama", vocab_size=VOCABULARY + 1, hidden_size=hidden, intermediate_size=2, num_layers=layers,
        num_heads=heads, num_kv_heads=heads, head_dim=hidden // heads, max_position=context, norm_eps=1e-5,
        windows=(None,) * layers, ropes=(Rope(theta=1000.0),) * layers, tie_embeddings=False,
    )  # fmt: skip
    model = initialise(Decoder(architecture), seed=seed, std=0.1)
    for name, weight in model.named_parameters():
        if ".mlp" in name:
            if name.endswith("down_proj.weight"):
                weight.data.zero_()
            weight.requires_grad_(False)
    return model


class RepeatedTexts:
    """Batches of texts that repeat 6 to 24 random tokens; the second half counts. Each depends on seed and number alone."""

    def __init__(self, batch: int, seed: int):
        self.batch, self.seed, self.drawn = batch, seed, 0

    def __iter__(self) -> Iterator[list[Stream]]:
        """Yields the streams of each step."""
        while True:
            rng = Random(derive_seed("repeated", self.seed, self.drawn))
            self.drawn += 1
            half = rng.randint(6, 24)
            yield [self._text(rng, half) for _ in range(self.batch)]

    def _text(self, rng: Random, half: int) -> Stream:
        ids = [rng.randrange(VOCABULARY) for _ in range(half)]
        counts = np.zeros(2 * half + 1, np.float32)
        counts[half + 2 :] = 1
        return Stream(np.array([BEGIN, *ids, *ids], np.int32), ce=counts)

    def state(self) -> Json:
        """The number of batches so far."""
        return {"drawn": self.drawn}

    def load(self, state: Json) -> None:
        """Continue from a state."""
        self.drawn = int(state["drawn"])


def trained_induction_model(*, steps: int = 400, batch: int = 48, layers: int = 2, seed: int = 0) -> Decoder:
    """The model after training; with one layer it cannot learn the task, which is the control."""
    model = attention_only(layers=layers, seed=seed)
    settings = OptimizerSettings(optimizer="muon", lr=1e-2, weight_decay=0.0)
    fit(
        model, RepeatedTexts(batch, seed), objective=Objective(ce=1.0), optimizer=optimizer_for(model, settings),
        schedule=ScheduleSettings(warmup_steps=min(20, steps), final_lr=0.1).over(steps), steps=steps,
    )  # fmt: skip
    return model.eval()
