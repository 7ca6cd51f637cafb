"""Min-k% and Min-k%++: the least probable tokens of an item beside those of its twin.

Min-k% Prob is the mean log-prob of the k% least probable tokens (Shi et al., 2024); Min-k%++ first standardises each of them
by mean and deviation over the vocabulary at its place (Zhang et al., 2025). A raw value says nothing, because texts differ
in how hard they are. The control is the item's twin, and with a reference model the reference's own difference.
"""

# N tokens, V vocabulary, P items with a twin

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from firsthand.contamination.leak_evidence import MIN_PAIRS, Evidence, not_finite, paired_p_value
from firsthand.contamination.text_twins import task_text
from firsthand.model import DistributionCapability, Model, TokenCapability
from firsthand.task import Task

Floats = NDArray[np.float64]
SHARE = 0.2
"""k: the part of the tokens that counts, as in both papers."""
MAX_TOKENS = 256
MAX_DISTRIBUTIONS = 64
"""Tokens of a text whose whole distribution is computed for Min-k%++."""
LIMITS = (
    "Weak against a text that was seen once; a twin that reads less naturally looks like a leak without a reference."
)


def min_k(logprobs_N: Floats, share: float = SHARE) -> float:
    """The mean of the lowest `share` of the values, at least one of them."""
    count = max(1, int(len(logprobs_N) * share))
    return float(np.sort(logprobs_N)[:count].mean())


def standardised(logprob: float, logprobs_V: Floats) -> float:
    """A token's log-prob less the expected one at its place, over the deviation there, by the model's own distribution."""
    finite = logprobs_V[np.isfinite(logprobs_V)]
    chances = np.exp(finite)
    mean = float((chances * finite).sum())
    variance = float((chances * finite**2).sum()) - mean**2
    return (logprob - mean) / math.sqrt(max(variance, 1e-12))


async def text_logprobs(model: TokenCapability, text: str) -> Floats:
    """Shape (N - 1,): the log-prob of each token of a raw text after the first."""
    ids = (await model.tokenize(text))[: MAX_TOKENS + 1]
    return np.array([each.logprob for each in await model.rate(ids)], np.float64)


async def text_standardised(model: Model, text: str) -> Floats:
    """Shape (N - 1,): the standardised log-prob of each token after the first."""
    assert isinstance(model, TokenCapability) and isinstance(model, DistributionCapability)
    ids = (await model.tokenize(text))[: MAX_DISTRIBUTIONS + 1]
    found = []
    for place in range(1, len(ids)):
        logprobs_V = await model.next_logprobs(ids[:place])
        found.append(standardised(float(logprobs_V[ids[place]]), logprobs_V))
    return np.array(found, np.float64)


async def min_k_evidence(
    model: Model, tasks: Sequence[Task], twins: Mapping[str, str], *, reference: Model | None = None, plus: bool = False
) -> Evidence:
    """The test that items are more likely than their twins by Min-k%, or with `plus` by Min-k%++.

    Args:
        model: A model that gives log-probs of tokens.
        tasks: The items; without a reference `without_answers(items)`, because a model that calculates prefers right
            answers to those of twins.
        twins: Task id -> the text of its twin, as `twins_of(tasks, seed)` makes them of the same tasks.
        reference: A model that cannot have seen the items; its differences are subtracted.
        plus: Standardise each log-prob over the vocabulary.
    """
    name = "min-k%++" if plus else "min-k%"
    asks = f"Are the least probable {SHARE:.0%} of an item's tokens more probable than those of its fresh twin?"
    needed = (TokenCapability, DistributionCapability) if plus else (TokenCapability,)
    models = [model] if reference is None else [model, reference]
    if not all(isinstance(each, kind) for each in models for kind in needed):
        what = "whole distributions" if plus else "the log-probs of a text's tokens"
        return Evidence(name, asks, detail=f"not run: the model does not give {what}", limits=LIMITS)
    paired = [task for task in tasks if task.id in twins]
    if len(paired) < MIN_PAIRS:
        told = f"not run: {len(paired)} items have a twin, and {MIN_PAIRS} are needed (numbers or names to replace)"
        return Evidence(name, asks, detail=told, limits=LIMITS)

    async def value(each: Model, text: str) -> float:
        if plus:
            found = await text_standardised(each, text)
        else:
            assert isinstance(each, TokenCapability)
            found = await text_logprobs(each, text)
        if not np.isfinite(found).all():  # sorted last, they would not be among the lowest
            return math.nan
        return min_k(found) if len(found) else 0.0

    async def difference(task: Task) -> float:
        own = [await value(each, task_text(task)) - await value(each, twins[task.id]) for each in models]
        return own[0] - (own[1] if len(own) > 1 else 0.0)

    differences = np.array(await asyncio.gather(*map(difference, paired)))
    if not np.isfinite(differences).all():
        return not_finite(name, asks, LIMITS)
    mean = float(differences.mean())
    told = f"items beat their twins by {mean:+.3f} on average, {int((differences > 0).sum())} of {len(paired)} do"
    if reference is not None:
        told += ", beyond the reference model"
    return Evidence(name, asks, mean, paired_p_value(differences), len(paired), told, limits=LIMITS)
