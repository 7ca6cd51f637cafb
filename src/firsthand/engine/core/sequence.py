"""Requests, and the sequences of tokens being computed for them. No tensors here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from firsthand.engine.decoding.constraint import CompiledGrammar, Guide
from firsthand.engine.decoding.repeated_ngrams import RepeatedNgrams
from firsthand.engine.decoding.token_filter import TokenFilter
from firsthand.engine.memory.prefix_cache import Space, space_of
from firsthand.model import Sampling

if TYPE_CHECKING:
    from firsthand.engine.compute.adapter_slots import LoadedAdapter
    from firsthand.engine.compute.request_taps import RequestTaps


class Stopper(Protocol):
    """Watches one answer for an end that only its text shows."""

    def feed(self, token_id: int) -> bool:
        """Returns whether the answer ends with this token."""


@dataclass(frozen=True)
class Request:
    """A prompt to continue, `n` times."""

    prompt: tuple[int, ...]
    """Token ids, at least one."""
    sampling: Sampling = field(default_factory=Sampling)
    """Sampling settings. Stop strings are checked by `stopper`: the engine knows no text."""
    n: int = 1
    """Number of answers to sample. The prompt is computed once."""
    stop_ids: frozenset[int] = frozenset()
    """Tokens that end an answer. The token itself is part of the output."""
    stopper: Callable[[], Stopper] | None = None
    """Returns a new Stopper, one for each answer."""
    bad_sequences: tuple[tuple[int, ...], ...] = ()
    """Token sequences that no answer may contain: `Sampling.bad_words` in the model's tokens."""
    grammar: CompiledGrammar | None = None
    """Constraint on the answers: `Sampling.grammar`, compiled by `Grammars` for the model's tokenizer."""
    priority: int = 0
    """Lower numbers go first, as in vLLM; may be negative."""
    owner: str = ""
    """Owner of the request, such as a client or a run's agent. Owners of one priority share the engine fairly. Set by
    the server for its clients, and by `request_owner.py` for attempts."""
    adapter: str | None = None
    """Name of a loaded LoRA adapter (see `adapter_slots.py`); None is the base model."""
    salt: str = ""
    """Requests share cached prefixes with requests of the same salt only."""
    source: tuple[int, ...] = ()
    """The text that an encoder-decoder reads; the prompt is then how the output begins. Empty for all other models."""
    taps: RequestTaps | None = None
    """Read or edit the activations of this request's tokens; it is then computed module by module."""
    token_filter: TokenFilter | None = None
    """The filter made of the sampling, `bad_sequences` and `stop_ids`, so that requests of the same ones share it, and none
    of its ids are checked again; None makes it for this request."""


@dataclass(frozen=True, eq=False)
class Source:
    """The source text of a request to an encoder-decoder, which all of its answers share."""

    ids: tuple[int, ...]


class SequenceState(Enum):
    """State of a sequence in the scheduler."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(eq=False)
class Sequence:
    """One answer or one scored continuation.

    Its goal is `generate` (sample after the tokens), `score` (score the tokens after the prompt), or `prefix` (compute
    the prompt that its followers share). Followers are forked from this sequence once its prompt is computed.
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
    guide: Guide | None = None
    """Follows the answer through its grammar; None without one."""
    token_filter: TokenFilter | None = None
    """Allowed tokens of its request, if not all."""
    repeats: RepeatedNgrams | None = None
    """The n-grams that it may not repeat; None if it may, as under a grammar."""
    followers: list[Sequence] = field(default_factory=list)
    priority: int = 0
    owner: str = ""
    adapter: LoadedAdapter | None = None
    """LoRA adapter that computes it; None is the base model."""
    salt: str = ""
    source: Source | None = None
    taps: RequestTaps | None = None
    """Functions on the activations of its tokens; None without any."""
    arrived_s: float = 0.0
    """Arrival on the scheduler's clock, in seconds."""
    waited_s: float | None = None
    """Seconds that it waited before it first ran."""

    state: SequenceState = SequenceState.WAITING
    is_stale: bool = False
    """True if its blocks were computed with old weights, so that no other sequence may use them."""
    table: list[int] = field(default_factory=list)
    num_computed: int = 0
    """Tokens whose keys and values are in the table's blocks."""
    num_committed: int = 0
    """Blocks of the table that are in the prefix cache."""
    num_cached: int | None = None
    """Prompt tokens found in the prefix cache when the sequence was first admitted."""
    num_charged: int = 0
    """Tokens that its owner was charged for, or got from the cache."""
    conversation: int | None = None
    """Id of the request that began the conversation which the prompt continues."""
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    """At each position of a scored continuation the most probable tokens, if requested."""
    keeps_distribution: bool = False
    """True if a scored continuation reports the log-prob of every token in place of its first one."""
    distribution: NDArray[np.float64] | None = None
    is_greedy: bool = True
    counts: Counter[int] = field(default_factory=Counter)
    """Number of times each token occurs in the answer."""
    draft: tuple[int, ...] = ()
    """Draft tokens to verify in the next step (see `speculative.py`)."""

    @property
    def space(self) -> Space:
        """The part of the prefix cache it shares: same adapter, salt and source text. Taps that edit: its own."""
        adapter = None if self.adapter is None else self.adapter.id
        if self.taps is not None and self.taps.edits:
            return (adapter, self.salt, "tapped", self.request_id)
        return space_of(adapter, self.salt, () if self.source is None else self.source.ids)

    @property
    def arrival(self) -> tuple[int, int]:
        """Sort key: older requests first, then lower indices."""
        return (self.request_id, self.index)

    @property
    def place(self) -> tuple[int, int, int]:
        """Sort key within its owner: by the request that began its conversation."""
        return (self.request_id if self.conversation is None else self.conversation, *self.arrival)

    @property
    def num_answer(self) -> int:
        """Number of tokens after the prompt."""
        return len(self.tokens) - self.num_prompt

    @property
    def num_needed(self) -> int:
        """Tokens that must be computed before the sequence can continue; the last scored token need not be."""
        return len(self.tokens) - 1 if self.goal == "score" else len(self.tokens)

    @property
    def first_logit_position(self) -> int:
        """First position whose logits are needed."""
        return self.num_prompt + len(self.logprobs) - 1 if self.goal == "score" else len(self.tokens) - 1

    @property
    def is_ready(self) -> bool:
        """True if the next step gives a token of the answer, so that tokens after it may be drafted."""
        is_decoding = self.num_answer > 0 and self.num_needed - self.num_computed == 1
        return is_decoding and self.goal == "generate" and not self.followers

    @property
    def is_forced(self) -> bool:
        """True if a grammar forces the next token."""
        return self.guide is not None and bool(self.guide.forced)

    def append(self, token: int) -> None:
        """Add a sampled token."""
        self.tokens.append(token)
        self.counts[token] += 1


@dataclass(frozen=True)
class SequenceChunk:
    """Positions `start` to `end` of a sequence, computed in one step."""

    sequence: Sequence
    start: int
    end: int
    draft: tuple[int, ...] = ()
    """Draft tokens, the last ones of the chunk."""
    is_forced: bool = False
    """True if a grammar forces the draft tokens, so that they will be accepted."""

    @property
    def draft_start(self) -> int:
        """First position of the draft tokens; `end` without any."""
        return self.end - len(self.draft)

    @property
    def tokens(self) -> list[int]:
        """The tokens to compute, draft tokens included."""
        return [*self.sequence.tokens[self.start : self.draft_start], *self.draft]

    @property
    def logit_positions(self) -> range:
        """The positions whose logits are needed."""
        return range(max(self.start, self.sequence.first_logit_position), self.end)

    def without_draft(self) -> SequenceChunk:
        """Returns the chunk without its draft tokens."""
        return SequenceChunk(self.sequence, self.start, self.draft_start)

    def is_draft_accepted(self, position: int) -> bool:
        """True if the draft token at a position is what the sequence chose there, or if there is no draft token.

        Ask for positions in order, each after the sequence chose its token there. After the first rejected draft token
        the rest are rejected too, since the sequence has no token at their positions.
        """
        if position < self.draft_start:
            return True
        tokens = self.sequence.tokens
        return position == len(tokens) - 1 and tokens[position] == self.draft[position - self.draft_start]
