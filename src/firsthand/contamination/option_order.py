"""Order of options: a model that learned a multiple-choice file finds the file's own order of options more probable.

Ni et al. (2024), "Training on the benchmark is not all you need": the log-prob of the question with its options in the
file's order against random orders. The rank of the file's order is uniform for a model that never saw the file, where
options have no natural order.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import numpy as np

from firsthand.contamination.leak_evidence import MIN_PAIRS, Evidence, not_finite, paired_p_value
from firsthand.loop.concurrency import derive_seed
from firsthand.model import Model
from firsthand.task import Task

ORDERS = 5
ASKS = "Is the file's order of a question's options more probable than other orders?"
LIMITS = (
    "Options with an order of their own (numbers, dates, 'all of the above') look like a leak; a reference model corrects "
    "for that. Sets whose options are shuffled when they are loaded cannot be tested."
)


def natural_order(choices: Sequence[str]) -> bool:
    """True if the options have an order by themselves: sorted numbers or words, or one that speaks of the others."""
    texts = [each.strip().casefold() for each in choices]
    if any("of the above" in each or "both a" in each or "none of" in each for each in texts):
        return True
    try:
        values = [float(each.replace(",", "").strip("$%")) for each in texts]
    except ValueError:
        return texts in (sorted(texts), sorted(texts, reverse=True))
    return values in (sorted(values), sorted(values, reverse=True))


async def option_evidence(
    model: Model, tasks: Sequence[Task], *, reference: Model | None = None, orders: int = ORDERS, seed: int = 0
) -> Evidence:
    """The test over questions with three or more options that have no natural order."""
    usable = [task for task in tasks if len(set(task.choices)) >= 3 and not natural_order(task.choices)]
    if len(usable) < MIN_PAIRS:
        told = (
            f"not run: {len(usable)} questions have three options without a natural order, and {MIN_PAIRS} are needed"
        )
        return Evidence("options", ASKS, detail=told, limits=LIMITS)

    async def gain(each: Model, task: Task) -> float:
        rng = Random(derive_seed("options", seed, task.id))
        shuffled: list[list[str]] = []
        equals = math.prod(math.factorial(count) for count in Counter(task.choices).values())
        most = math.factorial(len(task.choices)) // equals - 1  # of equal options no order is another one
        while len(shuffled) < min(orders, most):
            order = rng.sample(task.choices, len(task.choices))
            if tuple(order) != task.choices and order not in shuffled:
                shuffled.append(order)
        texts = [replace(task, choices=tuple(order)).question for order in (task.choices, *shuffled)]
        head = task.prompt + "\n"
        scored = await each.score(head, [text.removeprefix(head) for text in texts])
        values = [one.logprob for one in scored.likelihoods]
        return values[0] - float(np.mean(values[1:]))

    gains = np.array(await asyncio.gather(*(gain(model, task) for task in usable)))
    above = int((gains > 0).sum())
    told = f"the file's order is {gains.mean():+.2f} nats more probable than others, in {above} of {len(usable)}"
    if reference is not None:
        gains = gains - np.array(await asyncio.gather(*(gain(reference, task) for task in usable)))
        told += f"; beyond the reference model {gains.mean():+.2f}"
    if not np.isfinite(gains).all():
        return not_finite("options", ASKS, LIMITS)
    return Evidence("options", ASKS, float(gains.mean()), paired_p_value(gains), len(usable), told, limits=LIMITS)
