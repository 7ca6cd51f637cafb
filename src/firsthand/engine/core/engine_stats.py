"""Counters of an engine since its start, and its current load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass
class StepCounts:
    """Counters that steps increment; see `Stats` for their meaning."""

    steps: int = 0
    prefill_tokens: int = 0
    decode_tokens: int = 0
    forced_tokens: int = 0


@dataclass(frozen=True)
class Stats:
    """Counters of an engine since its start, and its current load."""

    requests: int
    """Requests accepted, scoring requests included."""
    refused: int
    """Requests refused because too many waited."""
    steps: int
    prompt_tokens: int
    """Prompt tokens of the requests that started, counted once per prompt."""
    cached_tokens: int
    """Of these, tokens found in the prefix cache."""
    prefill_tokens: int
    """Computed tokens of prompts and scored continuations, and of answers recomputed after preemption."""
    decode_tokens: int
    """Computed tokens of answers, rejected draft tokens not counted."""
    drafted_tokens: int
    """Draft tokens that were verified."""
    accepted_tokens: int
    """Draft tokens that were accepted."""
    forced_tokens: int
    """Extra tokens that a step computed because a grammar forced them (jump-ahead decoding)."""
    preemptions: int
    """Times a running sequence lost its blocks."""
    running: int
    """Sequences being computed."""
    waiting: int
    waiting_by_priority: Mapping[int, int]
    oldest_wait_s: float
    """Seconds that the oldest waiting sequence has waited."""
    num_blocks: int
    """KV blocks: used, cached and free."""
    used_blocks: int
    """Blocks of running sequences and of pinned prefixes."""
    pinned_blocks: int
    """Blocks of pinned prefixes; running sequences may share them."""
    cached_blocks: int
    """Unreferenced blocks that the prefix cache still holds."""
    pinned_prefixes: int
    adapters: int = 0
    """Adapters in memory, including unloaded ones that requests still use."""
    adapter_bytes: int = 0
    not_compiled: str | None = None
    """Why steps run module by module and not in the compiled step, in a few words; None if they are compiled."""

    @property
    def free_blocks(self) -> int:
        """Blocks that can be allocated, cached ones included."""
        return self.num_blocks - self.used_blocks
