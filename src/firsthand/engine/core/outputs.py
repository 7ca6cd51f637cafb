"""The engine's results as plain data, without tensors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from firsthand.errors import FirsthandError


@dataclass(frozen=True)
class Output:
    """The tokens that one step added to one answer. An answer's last output has a `finish_reason` or an `error`."""

    request_id: int
    index: int
    """Index of the answer, or of the continuation."""
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Natural log of each token's probability under the model's distribution, before temperature, penalties and cuts."""
    is_greedy: bool
    """True if each of these tokens was the most probable one."""
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] = ()
    """For each token the most probable ones as (id, log-prob), if requested."""
    finish_reason: Literal["stop", "length"] | None = None
    """`stop`: a stop token or string, the end of a grammar or of a scored continuation; `length`: max_tokens or the
    context."""
    error: FirsthandError | None = None
    behaviour_logprobs: tuple[float, ...] = ()
    """Natural log of the probability that each sampled token was drawn with, after penalties, biases, temperature, cuts and
    constraints: 0 for greedy and for forced tokens. Empty for a scored continuation."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens found in the prefix cache."""
    waited_s: float = field(default=0.0, compare=False)
    """Seconds that the answer waited before it first ran."""
    version: int = 0
    """Version of the weights that computed these tokens."""
    adapter: str | None = None
    """Name of the adapter that computed them; None for the base model."""
    adapter_version: int = 0
    """Version of that adapter, the same for a whole answer."""
    distribution: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)
    """The log-prob of every token in place of a continuation's first one, shape (vocabulary,), if requested."""

    @property
    def is_last(self) -> bool:
        """True if nothing more comes for this answer."""
        return self.finish_reason is not None or self.error is not None


@dataclass(frozen=True)
class ScoreOutput:
    """The log-prob of each token of a continuation. Comparison ignores what the score cost to compute."""

    logprobs: tuple[float, ...]
    is_greedy: bool
    prompt_tokens: int = field(default=0, compare=False)
    """Tokens of the prefix."""
    cached_tokens: int = field(default=0, compare=False)
    """Tokens of the prefix found in the prefix cache."""
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] = ()
    """At each token's position the most probable tokens as (id, log-prob), if requested."""
    version: int = field(default=0, compare=False)
    """Version of the weights that computed the last of them."""
    distribution: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)
    """The log-prob of every token in place of the first one, if requested."""


def score_output(output: Output) -> ScoreOutput:
    """Returns the score that an output carries; raises its error if it has one."""
    if output.error is not None:
        raise output.error
    return ScoreOutput(
        output.logprobs,
        output.is_greedy,
        output.prompt_tokens,
        output.cached_tokens,
        output.top_logprobs,
        output.version,
        output.distribution,
    )


def join_outputs(outputs: Iterable[Output]) -> list[Output]:
    """Returns the outputs with consecutive ones of the same answer merged into one."""
    joined: list[Output] = []
    for output in outputs:
        before = joined[-1] if joined else None
        if before is None or (before.request_id, before.index) != (output.request_id, output.index) or output.error:
            joined.append(output)
            continue
        joined[-1] = replace(
            output,
            token_ids=before.token_ids + output.token_ids,
            logprobs=before.logprobs + output.logprobs,
            behaviour_logprobs=before.behaviour_logprobs + output.behaviour_logprobs,
            is_greedy=before.is_greedy and output.is_greedy,
            top_logprobs=before.top_logprobs + output.top_logprobs,
        )
    return joined
