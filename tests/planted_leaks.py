"""Small models that were trained on a benchmark, or on another one of its kind, for the tests of contamination."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import torch

from firsthand.contamination.text_twins import task_text
from firsthand.task import Task
from firsthand.train.fit import fit
from firsthand.train.model_folder import save_model
from firsthand.train.objective import Objective
from firsthand.train.streams import Stream
from firsthand.train.toy_tasks.toy_models import toy_model
from train_tiny import Lists

NAMES = ["Ada", "Ben", "Clara", "Emma", "Frank", "Grace", "Henry", "Irene", "Jack", "Karen", "Leo", "Maria"]
THINGS = ["apples", "books", "coins", "stamps", "pens", "shells", "marbles", "cards"]
WORDS = [" has ", " buys ", " sells ", " finds ", " boxes of ", " and "]
CONTEXT = 256


def make_items(count: int, seed: int) -> list[Task]:
    """Items of one form, with options in a random order: another seed gives a disjoint set."""
    rng = Random(seed)
    made = []
    for number in range(count):
        name, thing = rng.choice(NAMES), rng.choice(THINGS)
        prompt = f"{name}{rng.choice(WORDS[:4])}{rng.randint(10, 99)} boxes of {rng.randint(10, 99)} {thing}"
        options = tuple(rng.sample(["red", "green", "blue", "black"], 4))
        made.append(Task(f"item-{number}", prompt, options))
    return made


def train_on(folder: Path, items: Sequence[Task], *, seed: int, steps: int, batch: int = 6) -> Path:
    """A model of about 100,000 parameters, trained on the items in their order; returns its folder."""
    pieces = [*NAMES, *THINGS, *WORDS, "red", "green", "blue", "black", *"ABCD. \n0123456789"]
    model, tokenizer = toy_model(pieces, seed=seed, context=CONTEXT)
    ids = tokenizer.encode("\n\n".join(map(task_text, items)))
    rng = np.random.default_rng(seed)

    def stream() -> Stream:
        start = int(rng.integers(0, max(1, len(ids) - CONTEXT)))
        part = np.array(ids[start : start + CONTEXT])
        return Stream(part, ce=np.concatenate([[0.0], np.ones(len(part) - 1)]))

    batches = Lists(*([stream() for _ in range(batch)] for _ in range(steps)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    fit(model, batches, objective=Objective(ce=1.0), optimizer=optimizer, schedule=lambda step: 1.0, steps=steps)
    return save_model(model, tokenizer, folder)
