"""Small decoders for the studies: fresh weights, training on a copy, sampled answers, and the log-odds of two tokens."""

# B texts, V vocabulary

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from random import Random

import torch

from firsthand.interp.activations import run_with_cache
from firsthand.loop.concurrency import derive_seed
from firsthand.message import Json
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.decoder import Decoder, initialise
from firsthand.train.fit import fit
from firsthand.train.objective import Objective
from firsthand.train.optimizers import optimizer_for
from firsthand.train.recipe_settings import OptimizerSettings
from firsthand.train.schedules import ScheduleSettings
from firsthand.train.streams import Batches, Stream

ROWS = 512
"""Texts of one forward pass."""


def small_decoder(vocabulary: int, context: int, *, layers: int = 2, hidden: int = 64, seed: int = 0) -> Decoder:
    """Fresh weights of a Llama of some 0.1 million parameters."""
    architecture = Architecture(
        family="llama", vocab_size=vocabulary, hidden_size=hidden, intermediate_size=2 * hidden, num_layers=layers,
        num_heads=4, num_kv_heads=4, head_dim=hidden // 4, max_position=context, norm_eps=1e-5,
        windows=(None,) * layers, ropes=(Rope(theta=100.0),) * layers, tie_embeddings=False,
    )  # fmt: skip
    return initialise(Decoder(architecture), seed=seed, std=0.1)


def trained_copy(
    model: Decoder, batches: Batches, *, steps: int, lr: float, objective: Objective | None = None,
    optimizer: str = "adamw", values: torch.nn.Module | None = None,
) -> Decoder:  # fmt: skip
    """A copy of the model, trained on; the model stays as it is, and a value head is trained in place."""
    copy = deepcopy(model)
    train_in_place(copy, batches, steps=steps, lr=lr, objective=objective, optimizer=optimizer, values=values)
    return copy


def train_in_place(
    model: Decoder, batches: Batches, *, steps: int, lr: float, objective: Objective | None = None,
    optimizer: str = "adamw", values: torch.nn.Module | None = None,
) -> None:  # fmt: skip
    """Trains the model itself, as batches that it samples need."""
    settings = OptimizerSettings(optimizer=optimizer, lr=lr, weight_decay=0.0)  # type: ignore[arg-type]
    whole = model if values is None else torch.nn.ModuleDict({"model": model, "value_head": values})
    fit(
        model, batches, objective=objective or Objective(ce=1.0), optimizer=optimizer_for(whole, settings),
        schedule=ScheduleSettings(warmup_steps=min(10, steps)).over(steps), steps=steps, values=values,
    )  # fmt: skip
    model.eval()


class DrawnStreams:
    """Batches drawn from a list of examples, each of one stream or of a comparison's two; a seed decides the order."""

    def __init__(self, examples: Sequence[Sequence[Stream]], seed: int, *, batch: int = 64):
        self.examples, self.seed, self.batch, self.drawn = examples, seed, batch, 0

    def __iter__(self) -> Iterator[list[Stream]]:
        """Yields the streams of each step."""
        while True:
            rng = Random(derive_seed("drawn streams", self.seed, self.drawn))
            self.drawn += 1
            chosen = rng.sample(range(len(self.examples)), min(self.batch, len(self.examples)))
            yield [stream for index in chosen for stream in self.examples[index]]

    def state(self) -> Json:
        """The number of batches so far."""
        return {"drawn": self.drawn}

    def load(self, state: Json) -> None:
        """Continue from a state."""
        self.drawn = int(state["drawn"])


@torch.no_grad()
def sampled_replies(
    model: Decoder, prompts: Sequence[Sequence[int]], tokens: int, *, seed: int, temperature: float = 1.0, end: int = -1
) -> list[list[int]]:
    """A reply of `tokens` tokens to each prompt, cut after `end`; temperature 0 takes the most probable token."""
    generator = torch.Generator().manual_seed(seed)
    texts = [list(prompt) for prompt in prompts]
    for _ in range(tokens):
        for start in range(0, len(texts), ROWS):
            rows = texts[start : start + ROWS]
            logits_NV, cache = run_with_cache(model, rows, ())
            logits_BV = logits_NV[cache.last]
            if temperature:
                chosen = torch.multinomial((logits_BV / temperature).softmax(-1), 1, generator=generator)[:, 0]
            else:
                chosen = logits_BV.argmax(-1)
            for text, id in zip(rows, chosen.tolist(), strict=True):
                text.append(id)
    replies = [text[len(prompt) :] for text, prompt in zip(texts, prompts, strict=True)]
    return [reply[: reply.index(end) + 1] if end in reply else reply for reply in replies]


@torch.no_grad()
def log_odds(model: Decoder, texts: Sequence[Sequence[int]], one: Sequence[int], other: Sequence[int]) -> list[float]:
    """log p(one) - log p(other) as the next token of each text; tokens by text."""
    found: list[float] = []
    for start in range(0, len(texts), ROWS):
        logits_NV, cache = run_with_cache(model, texts[start : start + ROWS], ())
        logits_BV = logits_NV[cache.last]
        rows = torch.arange(len(logits_BV))
        a, b = torch.tensor(one[start : start + ROWS]), torch.tensor(other[start : start + ROWS])
        found += (logits_BV[rows, a] - logits_BV[rows, b]).tolist()
    return found
