"""What a row of logits means for a sequence: the next token of an answer, or the rating of one that is there.

Nothing here knows of queues or memory: the engine asks, and ends what has ended.
"""

from __future__ import annotations

from typing import Literal

from firsthand.engine.core.outputs import Output
from firsthand.engine.core.sequence import Sequence
from firsthand.engine.decoding.constraint import has
from firsthand.engine.decoding.sampler import choose, is_plain, is_usable, most_probable, uniform
from firsthand.errors import FirsthandError, ModelError
from firsthand.model import Sampling
from firsthand.nn.compiled_decoder import LogitRow


def sample(line: Sequence, row: LogitRow, version: int) -> Output:
    """Choose the next token of an answer, append it, and say so."""
    sampling = line.sampling
    token = _choose(line, row)
    logprob = row.logprob(token)
    _check_usable(logprob)
    line.append(token)
    if line.guide is not None:
        line.guide.advance(token)
    reason: Literal["stop", "length"] | None = None
    if (
        token in line.stop_ids
        or (line.stopper is not None and line.stopper.feed(token))
        or (line.guide is not None and line.guide.is_done)
    ):
        reason = "stop"
    elif line.num_answer >= line.max_tokens:
        reason = "length"
    top = (most_probable(row, sampling.top_logprobs),) if sampling.top_logprobs else ()
    return output(line, version, (token,), (logprob,), token == row.best, top, reason)


def rate(line: Sequence, position: int, row: LogitRow, version: int) -> list[Output]:
    """Score the token after a position; brings an output when it was the last one."""
    answer = line.tokens[line.num_prompt :]
    if answer:
        target = line.tokens[position + 1]
        logprob = row.logprob(target)
        _check_usable(logprob)
        line.logprobs.append(logprob)
        line.is_greedy &= target == row.best
        if line.sampling.top_logprobs:
            line.top_logprobs.append(most_probable(row, line.sampling.top_logprobs))
    if len(line.logprobs) < len(answer):
        return []
    top = tuple(line.top_logprobs)
    return [output(line, version, tuple(answer), tuple(line.logprobs), line.is_greedy, top, "stop")]


def failed(line: Sequence, version: int, error: FirsthandError) -> Output:
    """The last output of a sequence that failed."""
    return output(line, version, (), (), False, error=error)


def output(
    line: Sequence,
    version: int,
    token_ids: tuple[int, ...],
    logprobs: tuple[float, ...],
    is_greedy: bool,
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] = (),
    reason: Literal["stop", "length"] | None = None,
    error: FirsthandError | None = None,
) -> Output:
    """What a step brought for a sequence."""
    return Output(
        request_id=line.request_id,
        index=line.index,
        token_ids=token_ids,
        logprobs=logprobs,
        is_greedy=is_greedy,
        top_logprobs=top_logprobs,
        finish_reason=reason,
        error=error,
        prompt_tokens=line.num_prompt,
        cached_tokens=min(line.num_cached or 0, line.num_prompt),
        waited_s=line.waited_s or 0.0,
        version=version,
        adapter=None if line.adapter is None else line.adapter.name,
        adapter_version=0 if line.adapter is None else line.adapter.version,
    )


def _choose(line: Sequence, row: LogitRow) -> int:
    """The next token of an answer."""
    guide, sampling = line.guide, line.sampling
    if guide is not None and guide.forced:
        return guide.forced[0]
    if row.drawn is not None:
        return row.drawn
    allowed = None if guide is None else guide.allowed
    if line.token_filter is not None and line.token_filter.binds(line.num_answer):
        allowed = line.token_filter.after(line.tokens, line.num_prompt, allowed)
    if _is_plain_greedy(sampling) and (allowed is None or has(allowed, row.best)):
        return row.best
    number = uniform(line.seed, line.index, len(line.tokens))
    prompt = line.tokens[: line.num_prompt]
    return choose(row.values, sampling, number=number, prompt=prompt, counts=line.counts, allowed=allowed)


def _check_usable(logprob: float) -> None:
    if not is_usable(logprob):
        raise ModelError("the model's logits are not numbers (NaN or infinite): its weights are damaged or diverged")


def _is_plain_greedy(sampling: Sampling) -> bool:
    return sampling.temperature == 0 and is_plain(sampling)
