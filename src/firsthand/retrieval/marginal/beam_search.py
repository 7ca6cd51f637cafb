"""Beam search over tokens, given any next-token distribution.

A hypothesis ends with a token that ends the turn, or at `max_tokens`. Scores are log-probs, which only fall as a hypothesis
grows, so the search stops when no open hypothesis can overtake the best `beams` ended ones. Scores are not divided by
length: what is returned is the most probable sequence found.
"""

# V vocabulary

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
NextTokens = Callable[[tuple[int, ...]], Awaitable[Floats]]
"""The log-prob of every token after the tokens of an answer so far, shape (V,)."""


@dataclass(frozen=True)
class Hypothesis:
    """An answer, or the beginning of one."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Of each token under the distribution that was searched."""
    logprob: float
    is_ended: bool = False
    """True if its last token ends the turn."""

    @property
    def order(self) -> tuple[float, tuple[int, ...]]:
        """Sort key: the most probable first, ties by token ids."""
        return (-self.logprob, self.ids)


async def beam_search(
    next_tokens: NextTokens, *, end_ids: Collection[int], max_tokens: int, beams: int = 1
) -> list[Hypothesis]:
    """At most `beams` answers, the most probable first; greedy decoding with one beam. All beams advance in lock-step."""
    live = [Hypothesis((), (), 0.0)]
    done: list[Hypothesis] = []
    for length in range(1, max_tokens + 1):
        distributions = await asyncio.gather(*(next_tokens(each.ids) for each in live))
        grown = _grown(live, distributions, end_ids, beams)
        is_last = length == max_tokens
        done += [each for each in grown[:beams] if each.is_ended or is_last]
        done = sorted(done, key=lambda each: each.order)[:beams]
        live = [] if is_last else [each for each in grown if not each.is_ended][:beams]
        worst = done[-1].logprob if len(done) == beams else -np.inf
        live = [each for each in live if each.logprob > worst]
        if not live:
            break
    return done


def _grown(
    live: Sequence[Hypothesis], distributions: Sequence[Floats], end_ids: Collection[int], beams: int
) -> list[Hypothesis]:
    """Continuations of the hypotheses by one token, the most probable first: `beams` and one for each token that ends."""
    count = beams + len(end_ids)
    grown: list[Hypothesis] = []
    for hypothesis, logprobs_V in zip(live, distributions, strict=True):
        for token in top_tokens(logprobs_V, count):
            logprob = float(logprobs_V[token])
            ids = (*hypothesis.ids, token)
            grown.append(
                Hypothesis(ids, (*hypothesis.logprobs, logprob), hypothesis.logprob + logprob, token in end_ids)
            )
    return sorted(grown, key=lambda each: each.order)


def top_tokens(logprobs_V: Floats, count: int) -> list[int]:
    """The most probable tokens, best first, ties by id; tokens of probability 0 are left out."""
    count = min(count, len(logprobs_V))
    if count == 1:
        best = int(np.argmax(logprobs_V))
        return [best] if logprobs_V[best] > -np.inf else []
    least = np.partition(logprobs_V, -count)[-count]
    found = np.flatnonzero((logprobs_V >= least) & (logprobs_V > -np.inf))
    return [int(token) for token in sorted(found, key=lambda token: (-logprobs_V[token], token))[:count]]
