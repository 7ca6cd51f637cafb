"""Samples or scores one token from a row of logits.

Left out: queues and memory. The engine calls these functions, and ends the sequences that are done.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from firsthand.engine.core.outputs import Output
from firsthand.engine.core.sequence import Sequence
from firsthand.engine.decoding.constraint import has
from firsthand.engine.decoding.sampler import (
    TokenDraw,
    choose,
    is_on_policy,
    is_plain,
    is_usable,
    most_probable,
    uniform,
)
from firsthand.errors import FirsthandError, ModelError
from firsthand.model import Sampling
from firsthand.nn.compiled_decoder import LogitRow


def sample(sequence: Sequence, row: LogitRow, version: int) -> Output:
    """Sample the next token of an answer, append it, and return it as an output."""
    sampling = sequence.sampling
    token, behaviour = _choose(sequence, row)
    logprob = row.logprob(token)
    _check_usable(logprob)
    sequence.append(token)
    if sequence.guide is not None:
        sequence.guide.advance(token)
    reason: Literal["stop", "length"] | None = None
    if (
        token in sequence.stop_ids
        or (sequence.stopper is not None and sequence.stopper.feed(token))
        or (sequence.guide is not None and sequence.guide.is_done)
    ):
        reason = "stop"
    elif sequence.num_answer >= sequence.max_tokens:
        reason = "length"
    top = (most_probable(row, sampling.top_logprobs),) if sampling.top_logprobs else ()
    # 7 decimals: the compiled draw's exponentials are float32, and more digits would only fill traces
    behaviour = logprob if behaviour is None else min(round(behaviour, 7), 0.0)
    return output(sequence, version, (token,), (logprob,), token == row.best, top, reason, behaviour=(behaviour,))


def rate(sequence: Sequence, position: int, row: LogitRow, version: int) -> list[Output]:
    """Score the token after a position; returns an output once the last one is scored."""
    answer = sequence.tokens[sequence.num_prompt :]
    if answer:
        target = sequence.tokens[position + 1]
        logprob = row.logprob(target)
        _check_usable(logprob)
        sequence.logprobs.append(logprob)
        sequence.is_greedy &= target == row.best
        if sequence.keeps_distribution and not sequence.logprobs[1:]:
            sequence.distribution = row.values.numpy().astype(np.float64) - row.normaliser
        if sequence.sampling.top_logprobs:
            sequence.top_logprobs.append(most_probable(row, sequence.sampling.top_logprobs))
    if len(sequence.logprobs) < len(answer):
        return []
    top = tuple(sequence.top_logprobs)
    return [output(sequence, version, tuple(answer), tuple(sequence.logprobs), sequence.is_greedy, top, "stop")]


def failed(sequence: Sequence, version: int, error: FirsthandError) -> Output:
    """The last output of a sequence that ended with an error."""
    return output(sequence, version, (), (), False, error=error)


def output(
    sequence: Sequence,
    version: int,
    token_ids: tuple[int, ...],
    logprobs: tuple[float, ...],
    is_greedy: bool,
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] = (),
    reason: Literal["stop", "length"] | None = None,
    error: FirsthandError | None = None,
    behaviour: tuple[float, ...] = (),
) -> Output:
    """The output of one step for one sequence."""
    return Output(
        request_id=sequence.request_id,
        index=sequence.index,
        token_ids=token_ids,
        logprobs=logprobs,
        behaviour_logprobs=behaviour,
        is_greedy=is_greedy,
        top_logprobs=top_logprobs,
        finish_reason=reason,
        error=error,
        prompt_tokens=sequence.num_prompt,
        cached_tokens=min(sequence.num_cached or 0, sequence.num_prompt),
        waited_s=sequence.waited_s or 0.0,
        version=version,
        adapter=None if sequence.adapter is None else sequence.adapter.name,
        adapter_version=0 if sequence.adapter is None else sequence.adapter.version,
        distribution=sequence.distribution,
    )


class _Chosen(NamedTuple):
    """The next token of an answer, and its behaviour log-prob."""

    token: int
    behaviour: float | None
    """None where it is the model's own log-prob."""


def _choose(sequence: Sequence, row: LogitRow) -> _Chosen | TokenDraw:
    guide, sampling = sequence.guide, sequence.sampling
    if guide is not None and guide.forced:
        return _Chosen(guide.forced[0], 0.0)
    on_policy = is_on_policy(sampling)
    if row.drawn is not None:
        return _Chosen(row.drawn, None if on_policy else row.drawn_logprob)
    allowed = None if guide is None else guide.allowed
    if sequence.token_filter is not None and sequence.token_filter.binds(sequence.num_answer, sequence.num_prompt):
        repeated = () if sequence.repeats is None else sequence.repeats.after(sequence.tokens)
        allowed = sequence.token_filter.after(sequence.tokens, sequence.num_prompt, allowed, repeated)
    if _is_plain_greedy(sampling) and (allowed is None or has(allowed, row.best)):
        return _Chosen(row.best, 0.0)
    number = uniform(sequence.seed, sequence.index, len(sequence.tokens))
    prompt = sequence.tokens[: sequence.num_prompt]
    drawn = choose(row.values, sampling, number=number, prompt=prompt, counts=sequence.counts, allowed=allowed)
    return _Chosen(drawn.token, None) if on_policy and allowed is None else drawn


def _check_usable(logprob: float) -> None:
    if not is_usable(logprob):
        raise ModelError("the model's logits are not numbers (NaN or infinite): its weights are damaged or diverged")


def _is_plain_greedy(sampling: Sampling) -> bool:
    return sampling.temperature == 0 and is_plain(sampling)
