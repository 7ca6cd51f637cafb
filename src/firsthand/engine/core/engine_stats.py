"""What an engine tells about itself: counters since it was made, and its present load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from firsthand._moved import warn_renamed


@dataclass
class StepCounts:
    """What steps have computed so far; `Stats` says what each number means."""

    steps: int = 0
    prefill_tokens: int = 0
    decode_tokens: int = 0
    forced_tokens: int = 0


@dataclass(frozen=True)
class Stats:
    """What an engine has done since it was made, and what it is doing."""

    requests: int
    """Requests taken, jobs of scoring among them."""
    refused: int
    """Requests refused because too many waited."""
    steps: int
    prompt_tokens: int
    """Prompt tokens of the requests that were started; an answer more to a prompt brings none."""
    cached_tokens: int
    """Prompt tokens among these that did not have to be computed, because the prefix tree held them."""
    prefill_tokens: int
    """Computed tokens of prompts and scored continuations, and answers computed again after preemption."""
    decode_tokens: int
    """Computed tokens of answers, without wrong guesses."""
    drafted_tokens: int
    """Guesses that were verified."""
    accepted_tokens: int
    """Guesses that were right and became part of an answer."""
    forced_tokens: int
    """Tokens that a grammar forced and a step computed besides its own: jump-ahead."""
    preemptions: int
    """How often a running sequence had to make room."""
    running: int
    """Sequences being computed."""
    waiting: int
    waiting_by_priority: Mapping[int, int]
    oldest_wait_s: float
    """How long the oldest of the waiting sequences has been here."""
    num_blocks: int
    """Blocks of keys and values that there are: used, cached and empty ones."""
    used_blocks: int
    """Blocks of running sequences and of holds."""
    pinned_blocks: int
    """Blocks of holds, which may be in use otherwise too."""
    cached_blocks: int
    """Blocks with known text that nobody uses."""
    pinned_prefixes: int
    adapters: int = 0
    """Adapters in memory, those counted that were unloaded and still answer."""
    adapter_bytes: int = 0

    @property
    def holds(self) -> int:
        """Deprecated: the old name of `pinned_prefixes`."""
        warn_renamed("Stats.holds", "pinned_prefixes")
        return self.pinned_prefixes

    @property
    def held_blocks(self) -> int:
        """Deprecated: the old name of `pinned_blocks`."""
        warn_renamed("Stats.held_blocks", "pinned_blocks")
        return self.pinned_blocks

    @property
    def free_blocks(self) -> int:
        """Blocks that can be had, those with cached text included."""
        return self.num_blocks - self.used_blocks
