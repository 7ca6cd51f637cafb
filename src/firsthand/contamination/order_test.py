"""Exchangeability of a file's order: a model that never saw the file finds all orders of its items equally likely.

Oren et al. (2024), "Proving test set contamination in black-box language models": the log-prob of shards in the file's order
against random orders of the same items; one-sided t-test over shards. The p-value holds whatever the items are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random

import numpy as np

from firsthand.contamination.leak_evidence import Evidence, not_finite, paired_p_value
from firsthand.contamination.text_twins import task_text
from firsthand.loop.concurrency import derive_seed
from firsthand.model import Model, ModelFacts, TokenCapability
from firsthand.task import Task

SHARDS, PERMUTATIONS = 16, 8
MIN_SHARDS = 6
ASKS = "Is the file's own order of items more probable than other orders?"
LIMITS = "Finds only a file that was learned in its order, not items that were shuffled or rewritten before training."


async def order_evidence(
    model: Model, tasks: Sequence[Task], *, shards: int = SHARDS, permutations: int = PERMUTATIONS, seed: int = 0
) -> Evidence:
    """The test over `shards` runs of neighbouring items, each as long as the model's context allows."""
    if not isinstance(model, TokenCapability):
        return Evidence(
            "order", ASKS, detail="not run: the model does not give the log-probs of a text's tokens", limits=LIMITS
        )
    facts = await model.load()
    groups = await _shards(model, facts, tasks, shards)
    if len(groups) < MIN_SHARDS:
        told = f"not run: the items make {len(groups)} shards of two or more, and {MIN_SHARDS} are needed"
        return Evidence("order", ASKS, detail=told, limits=LIMITS)

    async def total(texts: Sequence[str]) -> float:
        ids = (await model.tokenize("\n\n".join(texts)))[: facts.context]
        return float(sum(each.logprob for each in await model.rate(ids)))

    async def gain(number: int, group: list[str]) -> float:
        rng = Random(derive_seed("order", seed, number))
        own = await total(group)
        others = []
        for _ in range(permutations):
            shuffled = list(group)
            while shuffled == group:
                rng.shuffle(shuffled)
            others.append(await total(shuffled))
        return own - float(np.mean(others))

    gains = np.array(await asyncio.gather(*(gain(i, group) for i, group in enumerate(groups))))
    if not np.isfinite(gains).all():
        return not_finite("order", ASKS, LIMITS)
    told = (
        f"the file's order is {gains.mean():+.2f} nats more probable than {permutations} others, over {len(groups)} shards, "
        f"{int((gains > 0).sum())} of them above 0"
    )
    return Evidence(
        "order", ASKS, float(gains.mean()), paired_p_value(gains), sum(map(len, groups)), told, limits=LIMITS
    )


async def _shards(model: TokenCapability, facts: ModelFacts, tasks: Sequence[Task], most: int) -> list[list[str]]:
    """Runs of neighbouring, distinct items that fit into the context together, two or more each."""
    texts = list(dict.fromkeys(task_text(task) for task in tasks))
    size = max(2, len(texts) // most)
    groups: list[list[str]] = []
    for start in range(0, len(texts) - 1, size):
        group: list[str] = []
        length = 0
        for text in texts[start : start + size]:
            length += len(await model.tokenize(text)) + 2
            if length > facts.context:
                break
            group.append(text)
        if len(group) > 1:
            groups.append(group)
    return groups[:most]
