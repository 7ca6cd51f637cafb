"""Scores continuations with a local model: one scoring request for each distinct prefix."""

from __future__ import annotations

from collections.abc import Sequence

from firsthand.engine.compute.request_taps import RequestTaps
from firsthand.errors import ModelError
from firsthand.model import Likelihood, Prompt, Scored, Usage
from firsthand.providers.local_completions import Loaded, encode_pair
from firsthand.system import request_owner


async def likelihoods(
    loaded: Loaded, prompt: Prompt, continuations: Sequence[str], adapter: str | None, taps: RequestTaps | None = None
) -> Scored:
    """Returns the likelihood of each continuation. ModelError for one that has no tokens."""
    pairs = [encode_pair(loaded, prompt, continuation) for continuation in continuations]
    for (_, ids), continuation in zip(pairs, continuations, strict=True):
        if not ids:
            raise ModelError(f"the continuation {continuation!r} has no tokens: give some text to score")
    by_prefix: dict[tuple[int, ...], list[int]] = {}
    for index, (prefix, _) in enumerate(pairs):
        by_prefix.setdefault(prefix, []).append(index)
    found: dict[int, Likelihood] = {}
    cached = 0
    for prefix, indices in by_prefix.items():
        continued = [pairs[index][1] for index in indices]
        starts, source = (prefix, ()) if loaded.sources is None else (loaded.sources.starts, prefix)
        results = await loaded.worker.score(
            starts, continued, owner=request_owner.current(), adapter=adapter, source=source, taps=taps
        )
        cached += results[0].cached_tokens
        for index, result in zip(indices, results, strict=True):
            logprob, count = sum(result.logprobs), len(result.logprobs)
            found[index] = Likelihood(continuations[index], logprob, count, result.is_greedy)
    computed = sum(map(len, by_prefix)) + sum(len(ids) for _, ids in pairs)
    return Scored(tuple(found[index] for index in range(len(pairs))), Usage(computed, cached))
