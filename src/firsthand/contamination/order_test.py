"""Exchangeability of a file's order: a model that never saw the file finds all orders of its items equally likely.

Oren et al. (2024), "Proving test set contamination in black-box language models": the log-prob of shards in the file's order
against random orders of the same items; one-sided t-test over shards. The null hypothesis is that items are exchangeable:
that nothing but having seen the file tells its order. Numbered, sorted or ever longer items have an order of their own, so
that any model finds it more probable; such files are tested against a reference model alone.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from random import Random

import numpy as np
from scipy.stats import kendalltau

from firsthand.contamination.leak_evidence import Evidence, not_finite, paired_p_value
from firsthand.contamination.text_twins import task_text
from firsthand.loop.concurrency import derive_seed
from firsthand.model import Model, TokenCapability
from firsthand.task import Task

SHARDS, PERMUTATIONS = 16, 8
MIN_SHARDS = 6
ASKS = "Is the file's own order of items more probable than other orders?"
LIMITS = (
    "Finds only a file that was learned in its order, not items that were shuffled or rewritten before training. Items with "
    "an order of their own (by topic, by difficulty) look like a leak; a reference model corrects for that."
)
OWN_ORDER = 0.01
"""p-value below which numbers, initial letters or lengths that rise or fall along the file are an order of its own."""
_NUMBER = re.compile(r"\d{1,15}")


async def order_evidence(
    model: Model,
    tasks: Sequence[Task],
    *,
    reference: Model | None = None,
    shards: int = SHARDS,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Evidence:
    """The test over `shards` runs of neighbouring items, each as long as the contexts of both models allow.

    The gain of a `reference` model is subtracted. Without one the test is not run on items that have an order of their own.
    """
    if not isinstance(model, TokenCapability):
        return Evidence(
            "order", ASKS, detail="not run: the model does not give the log-probs of a text's tokens", limits=LIMITS
        )
    if reference is not None and not isinstance(reference, TokenCapability):
        told = "not run: the reference model does not give the log-probs of a text's tokens"
        return Evidence("order", ASKS, detail=told, limits=LIMITS)
    raters = [model] if reference is None else [model, reference]
    groups = await _shards(raters, tasks, shards)
    if len(groups) < MIN_SHARDS:
        told = f"not run: the items make {len(groups)} shards of two or more, and {MIN_SHARDS} are needed"
        return Evidence("order", ASKS, detail=told, limits=LIMITS)

    if reference is None and (order := own_order([text for group in groups for text in group])):
        told = f"not run: the items have an order of their own, by {order}: name a model that cannot have "
        told += "seen them (--reference)"
        return Evidence("order", ASKS, detail=told, limits=LIMITS)

    async def gain(rater: TokenCapability, number: int, group: list[str]) -> float:
        rng = Random(derive_seed("order", seed, number))
        own = await _total(rater, group)
        others = []
        for _ in range(permutations):
            shuffled = list(group)
            while shuffled == group:
                rng.shuffle(shuffled)
            others.append(await _total(rater, shuffled))
        return own - float(np.mean(others))

    gains = np.array(await asyncio.gather(*(gain(model, i, group) for i, group in enumerate(groups))))
    if not np.isfinite(gains).all():
        return not_finite("order", ASKS, LIMITS)
    told = (
        f"the file's order is {gains.mean():+.2f} nats more probable than {permutations} others, over {len(groups)} shards, "
        f"{int((gains > 0).sum())} of them above 0"
    )
    if reference is not None:
        gains = gains - np.array(await asyncio.gather(*(gain(reference, i, each) for i, each in enumerate(groups))))
        told += f"; beyond the reference model {gains.mean():+.2f}"
        if not np.isfinite(gains).all():
            return not_finite("order", ASKS, LIMITS)
    return Evidence(
        "order", ASKS, float(gains.mean()), paired_p_value(gains), sum(map(len, groups)), told, limits=LIMITS
    )


def own_order(texts: Sequence[str]) -> str:
    """By which of a number, the alphabet or the length the texts rise or fall; empty if by none (Kendall's tau)."""
    numbers = [int(found[0]) if (found := _NUMBER.search(text)) else -1 for text in texts]
    ranks = {text: rank for rank, text in enumerate(sorted(texts, key=str.casefold))}
    features = {"number": numbers, "alphabet": [ranks[text] for text in texts], "length": list(map(len, texts))}
    for name, values in features.items():
        if len(set(values)) > 1 and kendalltau(range(len(values)), values).pvalue <= OWN_ORDER:
            return name
    return ""


async def _total(rater: TokenCapability, texts: Sequence[str]) -> float:
    return float(sum(each.logprob for each in await rater.rate(await rater.tokenize(_joined(texts)))))


def _joined(texts: Sequence[str]) -> str:
    return "\n\n".join(texts)


async def _shards(raters: Sequence[TokenCapability], tasks: Sequence[Task], most: int) -> list[list[str]]:
    """Runs of neighbouring, distinct items, two or more each, that fit whole into the context of every rater."""
    texts = list(dict.fromkeys(task_text(task) for task in tasks))
    contexts = [(await rater.load()).context for rater in raters]
    size = max(2, len(texts) // most)
    groups: list[list[str]] = []
    for start in range(0, len(texts) - 1, size):
        group: list[str] = []
        lengths = [0 for _ in raters]
        for text in texts[start : start + size]:
            lengths = [
                length + len(await rater.tokenize(f"\n\n{text}")) for length, rater in zip(lengths, raters, strict=True)
            ]
            if any(length > context for length, context in zip(lengths, contexts, strict=True)):
                break
            group.append(text)
        if len(group) > 1:
            groups.append(group)
    return groups[:most]
