"""RAG-Token and RAG-Sequence: decoding from K prompts, one for each document, in lock-step (Lewis et al., 2020, §2.1, §2.5).

RAG-Token mixes the next-token distributions of all prompts at every step: p(y_i|x,y_<i) = sum_z p(z|x) p(y_i|x,z,y_<i).
RAG-Sequence mixes whole answers: p(y|x) = sum_z p(z|x) prod_i p(y_i|x,z,y_<i). With one document both are plain decoding.
The K prompts of a step are asked together, so the engine computes them as one batch; its prefix cache keeps
what was computed.
"""

# K documents, V vocabulary

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Literal

import numpy as np

from firsthand.retrieval.marginal.beam_search import Floats, Hypothesis, NextTokens, beam_search
from firsthand.retrieval.marginal.document_prior import log_sum

NextOfDocument = Callable[[int, tuple[int, ...]], Awaitable[Floats]]
"""The log-prob of every token, shape (V,), after the prompt of a document (its number) and the tokens of an answer."""
AnswerLogprob = Callable[[int, tuple[int, ...]], Awaitable[float]]
"""The log-prob of all tokens of an answer after the prompt of a document."""


def mixture(logprobs_KV: Sequence[Floats], document_logprobs_K: Sequence[float]) -> Floats:
    """log sum_z p(z) p(token|z) for every token: shape (V,)."""
    joint_KV = np.stack(logprobs_KV) + np.asarray(document_logprobs_K, np.float64)[:, None]
    top_V = joint_KV.max(0)
    finite_V = np.where(np.isfinite(top_V), top_V, 0.0)
    with np.errstate(divide="ignore"):
        mixed_V: Floats = finite_V + np.log(np.exp(joint_KV - finite_V).sum(0))
    return mixed_V


async def rag_token_decoding(
    next_of: NextOfDocument,
    document_logprobs_K: Sequence[float],
    *,
    end_ids: Collection[int],
    max_tokens: int,
    beams: int = 1,
) -> list[Hypothesis]:
    """At most `beams` answers under RAG-Token, best first: an ordinary beam search over the mixed distribution.

    The prior p(z|x) is the same at every token: the mixture does not learn from the tokens so far which document is meant.
    """
    numbers = range(len(document_logprobs_K))

    async def mixed(ids: tuple[int, ...]) -> Floats:
        return mixture(await asyncio.gather(*(next_of(z, ids) for z in numbers)), document_logprobs_K)

    return await beam_search(mixed, end_ids=end_ids, max_tokens=max_tokens, beams=beams)


async def rag_sequence_decoding(
    next_of: NextOfDocument,
    answer_logprob: AnswerLogprob,
    document_logprobs_K: Sequence[float],
    *,
    end_ids: Collection[int],
    max_tokens: int,
    beams: int = 4,
    decoding: Literal["thorough", "fast"] = "thorough",
) -> list[Hypothesis]:
    """The answers of all documents' beams under RAG-Sequence, best first; `logprob` is log p(y|x), `logprobs` are empty.

    A beam search for each document gives the candidates. Thorough decoding computes p(y|x,z) of every candidate under every
    document; fast decoding takes 0 where y was not in the beam of z, which underestimates p(y|x) and saves those passes.
    """
    numbers = range(len(document_logprobs_K))

    def after(z: int) -> NextTokens:
        return lambda ids: next_of(z, ids)

    searches = (beam_search(after(z), end_ids=end_ids, max_tokens=max_tokens, beams=beams) for z in numbers)
    found = await asyncio.gather(*searches)
    candidates = {each.ids: each for beam in found for each in beam}
    known = {(z, each.ids): each.logprob for z, beam in zip(numbers, found, strict=True) for each in beam}
    missing = [(z, ids) for ids in candidates for z in numbers if (z, ids) not in known]
    if decoding == "thorough" and missing:
        known |= dict(zip(missing, await asyncio.gather(*(answer_logprob(z, ids) for z, ids in missing)), strict=True))

    def marginal(ids: tuple[int, ...]) -> float:
        return log_sum([document_logprobs_K[z] + known[z, ids] for z in numbers if (z, ids) in known])

    answers = [Hypothesis(ids, (), marginal(ids), each.is_ended) for ids, each in candidates.items()]
    return sorted(answers, key=lambda each: each.order)
