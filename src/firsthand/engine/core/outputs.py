"""What comes out of the engine: plain data, and how it is put together. No tensors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from firsthand.errors import FirsthandError


@dataclass(frozen=True)
class Output:
    """What one step brought for one answer. The last one of an answer has a `finish_reason` or an `error`."""

    request_id: int
    index: int
    """Which of the request's answers, or which continuation."""
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Natural log of each token's probability under the model's own distribution, before temperature, penalties or cuts."""
    is_greedy: bool
    """Whether each of these tokens was the most probable one."""
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] = ()
    """For each token the most probable ones as (id, log-prob), if they were asked for."""
    finish_reason: Literal["stop", "length"] | None = None
    """`stop`: a stop token or string, the end of a grammar or a scored continuation; `length`: max_tokens or the context."""
    error: FirsthandError | None = None
    behaviour_logprobs: tuple[float, ...] = ()
    """Natural log of the probability that each sampled token was drawn with, after penalties, biases, temperature, cuts and
    constraints: 0 for greedy and for forced tokens. Empty for a scored continuation."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that were not computed again."""
    waited_s: float = field(default=0.0, compare=False)
    """How long the answer waited until the engine began with it."""
    version: int = 0
    """The version of the weights that computed these tokens."""
    adapter: str | None = None
    """The adapter that they were computed with."""
    adapter_version: int = 0
    """Its version, the same for a whole answer."""

    @property
    def is_last(self) -> bool:
        """Whether nothing more comes for this answer."""
        return self.finish_reason is not None or self.error is not None


@dataclass(frozen=True)
class Scored:
    """The log-prob of each token of a continuation, and whether each was the most probable one.

    Equal scores are equal whatever it cost to compute them.
    """

    logprobs: tuple[float, ...]
    is_greedy: bool
    prompt_tokens: int = field(default=0, compare=False)
    """Tokens of the prefix."""
    cached_tokens: int = field(default=0, compare=False)
    """Tokens of the prefix that were not computed again."""
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] = ()
    """In the place of each token the most probable ones as (id, log-prob), if they were asked for."""
    version: int = field(default=0, compare=False)
    """The version of the weights that computed the last of them."""


def scored(output: Output) -> Scored:
    """The score that an output carries; raises its error if it has one."""
    if output.error is not None:
        raise output.error
    return Scored(
        output.logprobs,
        output.is_greedy,
        output.prompt_tokens,
        output.cached_tokens,
        output.top_logprobs,
        output.version,
    )


def joined(outputs: Iterable[Output]) -> list[Output]:
    """The same outputs, with those that follow each other in one answer made one."""
    found: list[Output] = []
    for output in outputs:
        before = found[-1] if found else None
        if before is None or (before.request_id, before.index) != (output.request_id, output.index) or output.error:
            found.append(output)
            continue
        found[-1] = replace(
            output,
            token_ids=before.token_ids + output.token_ids,
            logprobs=before.logprobs + output.logprobs,
            behaviour_logprobs=before.behaviour_logprobs + output.behaviour_logprobs,
            is_greedy=before.is_greedy and output.is_greedy,
            top_logprobs=before.top_logprobs + output.top_logprobs,
        )
    return found
