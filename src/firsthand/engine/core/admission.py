"""Expands a request into sequences; all but the first wait until it has computed their shared prompt."""

from __future__ import annotations

import secrets
from collections import abc

from firsthand.engine.compute.adapter_slots import LoadedAdapter
from firsthand.engine.compute.request_taps import RequestTaps
from firsthand.engine.core.sequence import Request, Sequence, Source
from firsthand.engine.decoding.repeated_ngrams import RepeatedNgrams
from firsthand.engine.decoding.token_filter import TokenFilter
from firsthand.model import Sampling


def answer_sequences(
    request: Request, request_id: int, vocab_size: int, *, max_tokens: int, adapter: LoadedAdapter | None
) -> list[Sequence]:
    """Returns one sequence for each of the request's `n` answers; the first leads the others."""
    sampling = request.sampling
    token_filter = request.token_filter
    if token_filter is None:
        token_filter = TokenFilter.of(sampling, vocab_size, bad=request.bad_sequences, ends=request.stop_ids)
    source = Source(request.source) if request.source else None
    first = None
    if token_filter is not None and token_filter.ngram and request.grammar is None:
        first = RepeatedNgrams(token_filter.ngram, len(request.prompt))
    seed = secrets.randbits(62) if sampling.seed is None else sampling.seed
    sequences = [
        Sequence(
            request_id=request_id,
            index=index,
            tokens=list(request.prompt),
            num_prompt=len(request.prompt),
            sampling=sampling,
            seed=seed,
            max_tokens=max_tokens,
            stop_ids=request.stop_ids,
            stopper=request.stopper() if request.stopper else None,
            guide=request.grammar.guide() if request.grammar else None,
            token_filter=token_filter,
            repeats=first and RepeatedNgrams(first.n, first.num_prompt, beside=first),
            priority=request.priority,
            owner=request.owner,
            adapter=adapter,
            salt=request.salt,
            source=source,
            taps=request.taps,
        )
        for index in range(request.n)
    ]
    sequences[0].followers = sequences[1:]
    return sequences


def score_sequences(
    prefix: abc.Sequence[int],
    continuations: abc.Sequence[abc.Sequence[int]],
    request_id: int,
    *,
    top: int,
    priority: int,
    owner: str,
    adapter: LoadedAdapter | None,
    salt: str = "",
    distribution: bool = False,
    source: tuple[int, ...] = (),
    taps: RequestTaps | None = None,
) -> list[Sequence]:
    """Returns the sequence that computes the prefix, then its followers: one for each continuation to score."""
    sampling = Sampling(top_logprobs=top)
    shared = Source(source) if source else None
    lead = Sequence(
        request_id,
        -1,
        list(prefix),
        len(prefix),
        goal="prefix",
        priority=priority,
        owner=owner,
        adapter=adapter,
        salt=salt,
        source=shared,
        taps=taps,
    )
    lead.followers = [
        Sequence(
            request_id,
            index,
            [*prefix, *continuation],
            len(prefix),
            goal="score",
            sampling=sampling,
            keeps_distribution=distribution,
            priority=priority,
            owner=owner,
            adapter=adapter,
            salt=salt,
            source=shared,
            taps=taps,
        )
        for index, continuation in enumerate(continuations)
    ]
    return [lead, *lead.followers]
