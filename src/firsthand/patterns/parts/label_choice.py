"""Lets a model choose among a few labels by likelihood, so that its choice cannot fail to parse."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from firsthand.context import Context
from firsthand.errors import ModelError, PromptTooLong, TransientError
from firsthand.model import Likelihood
from firsthand.patterns.parts.verdicts import normalised


@dataclass(frozen=True)
class LabelChoice:
    """The chosen label, and the probability of each."""

    label: str
    probabilities: Mapping[str, float]


async def choose(ctx: Context, labels: Sequence[str]) -> LabelChoice:
    """The label that is most probable as the model's next words.

    A label that others begin with (`refund`, `refund_status`) has the probability that none of these is written.
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
    shares, _ = normalised(_apart(dict(zip(labels, likelihoods, strict=True))))
    return LabelChoice(max(shares, key=lambda label: shares[label]), shares)


async def chance_correct(ctx: Context, shown: str = "") -> float:
    """The probability that the model calls the proposed answer correct, after a conversation and what is `shown` now.

    Of six pairs of words this one was the least biased towards one side in the small models it was tried on (LOG.md).
    """
    asked = f"{shown}Is the proposed answer correct or incorrect? Answer in one word."
    return (await choose(ctx.say(asked), ("correct", "incorrect"))).probabilities["correct"]


def _apart(likelihoods: Mapping[str, Likelihood]) -> dict[str, float]:
    """The log-prob of each label without that of the longer labels which begin with it.

    A longer one that is likelier or has no more tokens is written in other tokens: it is no part of the shorter one's.
    """
    found = {}
    for label, own in likelihoods.items():
        longer = {name for name in likelihoods if name != label and name.startswith(label)}
        nearest = [
            likelihoods[name] for name in longer if not any(name != each and name.startswith(each) for each in longer)
        ]
        parts = [each.logprob for each in nearest if each.num_tokens > own.num_tokens and each.logprob <= own.logprob]
        rest = 1.0 - sum(math.exp(each - own.logprob) for each in parts) if math.isfinite(own.logprob) else 1.0
        found[label] = own.logprob + math.log(rest) if rest > 0 else -math.inf
    return found


async def _in_words(ctx: Context, labels: Sequence[str]) -> LabelChoice:
    said = (await ctx.say(f"Answer with one of these words only: {', '.join(labels)}.").generate()).said
    found = {label: re.search(rf"(?<!\w){re.escape(label)}(?!\w)", said, re.IGNORECASE) for label in labels}
    places = {label: match.start() for label, match in found.items() if match}
    chosen = min(places, key=lambda label: (places[label], -len(label)), default=labels[0])
    return LabelChoice(chosen, {label: float(label == chosen) for label in labels})
