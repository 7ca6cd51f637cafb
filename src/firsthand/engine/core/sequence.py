"""One line of tokens being computed, and the plain data that goes into and comes out of the engine. No tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Literal, Protocol

from firsthand.engine.decoding.constraint import CompiledGrammar, Guide
from firsthand.engine.decoding.token_filter import TokenFilter
from firsthand.engine.memory.prefix_cache import Space, space_of
from firsthand.model import Sampling

if TYPE_CHECKING:
    from firsthand.engine.compute.adapter_slots import LoadedAdapter


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
    bad_sequences: tuple[tuple[int, ...], ...] = ()
    """Tokens that no answer may have one after another: `Sampling.bad_words`, in the model's own tokens."""
    grammar: CompiledGrammar | None = None
    """What the answers must look like: `Sampling.grammar`, read by `Grammars` for the model's tokenizer."""
    priority: int = 0
    """The lower number goes first, as in vLLM; it may be negative."""
    run: str = ""
    """Who asks, such as a client or an agent of a Run: those of one priority share the engine fairly, whoever sends how
    much. Who runs attempts says it (`asker`), a server by its clients."""
    adapter: str | None = None
    """The loaded adapter that the model answers with (see `adapters`); None is the model as it is."""
    salt: str = ""
    """Requests of one salt share what is known of their texts, and with no others."""


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
    guide: Guide | None = None
    """Follows the answer through its grammar."""
    token_filter: TokenFilter | None = None
    """Which tokens its request permits, if not all."""
    followers: list[Sequence] = field(default_factory=list)
    priority: int = 0
    run: str = ""
    adapter: LoadedAdapter | None = None
    """What its tokens are computed with beside the weights."""
    salt: str = ""
    arrived_s: float = 0.0
    """When it came, on the scheduler's clock."""
    waited_s: float | None = None
    """How long it waited until it ran for the first time."""

    state: State = State.WAITING
    is_stale: bool = False
    """Whether its memory was begun under weights of the past: then nobody else may use it."""
    table: list[int] = field(default_factory=list)
    num_computed: int = 0
    """Tokens whose keys and values lie in the table's blocks."""
    num_committed: int = 0
    """Blocks of the table that the prefix tree knows."""
    num_cached: int | None = None
    """Prompt tokens found in the prefix tree when the sequence was first admitted."""
    num_charged: int = 0
    """Tokens that its run was charged for, or got for nothing."""
    conversation: int | None = None
    """The request whose answer the prompt goes on from, or that one's conversation."""
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    """Of a scored continuation, if they were asked for: the most probable tokens in the place of each of its tokens."""
    is_greedy: bool = True
    counts: Counter[int] = field(default_factory=Counter)
    """How often each token is in the answer."""
    draft: tuple[int, ...] = ()
    """Guesses at the next tokens, to be verified in the next step (see `speculative`)."""

    @property
    def space(self) -> Space:
        """With whose texts it shares memory: those computed with the same adapter, and of the same salt."""
        return space_of(None if self.adapter is None else self.adapter.id, self.salt)

    @property
    def arrival(self) -> tuple[int, int]:
        """Older requests come first, then lower indices."""
        return (self.request_id, self.index)

    @property
    def place(self) -> tuple[int, int, int]:
        """The place within its run: next to the request that its conversation began with."""
        return (self.request_id if self.conversation is None else self.conversation, *self.arrival)

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

    @property
    def is_ready(self) -> bool:
        """Whether the next step brings a token of the answer, so that the tokens after it may be drafted."""
        is_decoding = self.num_answer > 0 and self.num_needed - self.num_computed == 1
        return is_decoding and self.goal == "generate" and not self.followers

    @property
    def is_forced(self) -> bool:
        """Whether a grammar has decided the next token."""
        return self.guide is not None and bool(self.guide.forced)

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
    draft: tuple[int, ...] = ()
    """The last tokens of the chunk, where they are only guesses."""
    is_forced: bool = False
    """Whether the guesses are what a grammar forces, and so are right."""

    @property
    def end_known(self) -> int:
        """Where the guesses begin."""
        return self.end - len(self.draft)

    @property
    def tokens(self) -> list[int]:
        """The tokens to compute, guesses included."""
        return [*self.sequence.tokens[self.start : self.end_known], *self.draft]

    @property
    def wanted(self) -> range:
        """The positions whose logits are wanted."""
        return range(max(self.start, self.sequence.first_wanted), self.end)

    def without_draft(self) -> Chunk:
        """The same chunk with its guesses cut off."""
        return Chunk(self.sequence, self.start, self.end_known)

    def is_guessed_right(self, position: int) -> bool:
        """Whether the guess at a position is what the sequence has chosen; true where there is no guess.

        Positions must be asked in order, each after the sequence chose its token there: the rest of a draft falls with
        its first wrong guess, since the sequence then has no token at their positions.
        """
        if position < self.end_known:
            return True
        tokens = self.sequence.tokens
        return position == len(tokens) - 1 and tokens[position] == self.draft[position - self.end_known]
