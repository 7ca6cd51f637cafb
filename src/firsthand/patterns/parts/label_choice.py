"""Lets a model choose among a few labels by likelihood, so that its choice cannot fail to parse."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from firsthand.context import Context
from firsthand.errors import ModelError, PromptTooLong, TransientError
from firsthand.patterns.parts.verdicts import normalised


@dataclass(frozen=True)
class LabelChoice:
    """The chosen label, and the probability of each."""

    label: str
    probabilities: Mapping[str, float]


async def choose(ctx: Context, labels: Sequence[str]) -> LabelChoice:
    """The label that is most probable as the model's next words.

    A model that cannot score after a conversation (most endpoints behind an API) is asked in words instead: the label it
    names first as a word has probability 1, or if it names none the first label. ModelError if all labels have probability
    0, or one has a log-prob that is no number.
    """
    try:
        likelihoods = await ctx.score(labels)
    except (TransientError, PromptTooLong):
        raise
    except ModelError:
        return await _in_words(ctx, labels)
    shares, _ = normalised({label: each.logprob for label, each in zip(labels, likelihoods, strict=True)})
    return LabelChoice(max(shares, key=lambda label: shares[label]), shares)


async def chance_correct(ctx: Context, shown: str = "") -> float:
    """The probability that the model calls the proposed answer correct, after a conversation and what is `shown` now.

    Of six pairs of words this one was the least biased towards one side in the small models it was tried on (LOG.md).
    """
    asked = f"{shown}Is the proposed answer correct or incorrect? Answer in one word."
    return (await choose(ctx.say(asked), ("correct", "incorrect"))).probabilities["correct"]


async def _in_words(ctx: Context, labels: Sequence[str]) -> LabelChoice:
    said = (await ctx.say(f"Answer with one of these words only: {', '.join(labels)}.").generate()).text
    found = {label: re.search(rf"(?<!\w){re.escape(label)}(?!\w)", said, re.IGNORECASE) for label in labels}
    places = {label: match.start() for label, match in found.items() if match}
    chosen = min(places, key=lambda label: (places[label], -len(label)), default=labels[0])
    return LabelChoice(chosen, {label: float(label == chosen) for label in labels})
