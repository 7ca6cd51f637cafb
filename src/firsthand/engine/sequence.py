"""One line of tokens being computed, and the plain data that goes into and comes out of the engine. No tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, Protocol

from firsthand.errors import FirsthandError
from firsthand.model import Sampling


class Stopper(Protocol):
    """Watches one answer for an end that only text can show."""

    def feed(self, token_id: int) -> bool:
        """Whether the answer ends with this token."""


@dataclass(frozen=True)
class Request:
    """A prompt to continue, `n` times."""

    prompt: tuple[int, ...]
    """Token ids, at least one."""
    sampling: Sampling = field(default_factory=Sampling)
    """How to choose tokens. Stop strings are the business of `stopper`: the engine knows no text."""
    n: int = 1
    """How many answers to sample. The prompt is computed once."""
    stop_ids: frozenset[int] = frozenset()
    """Tokens that end an answer. The token itself is part of the output."""
    stopper: Callable[[], Stopper] | None = None
    """Makes a Stopper for each answer."""


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
    """`stop`: a stop token, a stop string, or the end of a scored continuation; `length`: max_tokens or the context."""
    error: FirsthandError | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that were not computed again."""
    version: int = 0
    """The version of the weights that computed these tokens."""

    @property
    def is_last(self) -> bool:
        """Whether nothing more comes for this answer."""
        return self.finish_reason is not None or self.error is not None


class State(Enum):
    """Where a sequence is in its life."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(eq=False)
class Sequence:
    """One answer or one scored continuation.

    Its goal is `generate` (sample after the tokens), `score` (rate the tokens after the prompt), or `prefix` (compute
    the prompt that its followers share). Followers start from this sequence's memory once its prompt is computed.
    """

    request_id: int
    index: int
    tokens: list[int]
    num_prompt: int
    goal: Literal["generate", "score", "prefix"] = "generate"
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    max_tokens: int = 0
    stop_ids: frozenset[int] = frozenset()
    stopper: Stopper | None = None
    followers: list[Sequence] = field(default_factory=list)

    state: State = State.WAITING
    table: list[int] = field(default_factory=list)
    num_computed: int = 0
    """Tokens whose keys and values lie in the table's blocks."""
    num_committed: int = 0
    """Blocks of the table that the prefix tree knows."""
    num_cached: int | None = None
    """Prompt tokens found in the prefix tree when the sequence was first admitted."""
    logprobs: list[float] = field(default_factory=list)
    is_greedy: bool = True
    counts: Counter[int] = field(default_factory=Counter)
    """How often each token is in the answer."""

    @property
    def arrival(self) -> tuple[int, int]:
        """Older requests come first, then lower indices."""
        return (self.request_id, self.index)

    @property
    def num_answer(self) -> int:
        """Tokens after the prompt."""
        return len(self.tokens) - self.num_prompt

    @property
    def num_needed(self) -> int:
        """Tokens that must be computed before the sequence can go on: the last scored token need not be."""
        return len(self.tokens) - 1 if self.goal == "score" else len(self.tokens)

    @property
    def first_wanted(self) -> int:
        """Logits are wanted at this position and after it."""
        return self.num_prompt + len(self.logprobs) - 1 if self.goal == "score" else len(self.tokens) - 1

    def append(self, token: int) -> None:
        """Add a sampled token."""
        self.tokens.append(token)
        self.counts[token] += 1


@dataclass(frozen=True)
class Chunk:
    """Positions `start` to `end` of a sequence, computed in one step."""

    sequence: Sequence
    start: int
    end: int

    @property
    def wanted(self) -> range:
        """The positions whose logits are wanted."""
        return range(max(self.start, self.sequence.first_wanted), self.end)
