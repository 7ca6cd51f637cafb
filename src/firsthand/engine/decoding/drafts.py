"""Drafters for speculative decoding: prompt look-up in the sequence's own text, and a smaller model.

Left out: drafts from the texts of other requests, trees of drafts, and heads trained on the model itself (EAGLE, Medusa).
"""

# M rows, V vocabulary

from __future__ import annotations

from collections import Counter, abc
from dataclasses import dataclass, field

import torch
from torch import Tensor

from firsthand.engine.compute.runner import Runner
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.sequence import Sequence, SequenceChunk
from firsthand.engine.decoding.sampler import choose, uniform
from firsthand.engine.decoding.speculative import Drafter, DraftRequest, Speculator
from firsthand.engine.memory.blocks import BlockPool
from firsthand.errors import ConfigError
from firsthand.nn.architecture import Architecture
from firsthand.nn.decoder import Decoder

MIN_MATCH = 3
MAX_MATCH = 32
MAX_CANDIDATES = 8


def speculator(
    draft: Decoder | Drafter | None,
    config: EngineConfig,
    target: Architecture,
    *,
    num_blocks: int,
    kv_dtype: torch.dtype,
) -> Speculator | None:
    """The Speculator that the config or the caller requests for, or None; a draft model gets `num_blocks` of `kv_dtype`."""
    if draft is None and config.speculation == "off":
        return None
    if draft is not None and config.speculation != "off":
        raise ConfigError(f"speculation is {config.speculation!r} and a draft is given: choose one of them")
    if draft is None:
        draft = PromptLookup()
    elif isinstance(draft, Decoder):
        if draft.architecture.vocab_size != target.vocab_size:
            raise ConfigError(
                f"the draft model has {draft.architecture.vocab_size} tokens and the model {target.vocab_size}: "
                "they must share one vocabulary"
            )
        draft = DraftModel(
            Runner(draft, num_blocks=num_blocks, block_size=config.block_size, kv_dtype=kv_dtype),
            BlockPool(num_blocks, config.block_size),
            max_batch_tokens=config.max_batch_tokens,
        )
    return Speculator(
        draft,
        vocab_size=target.vocab_size,
        draft_tokens=config.draft_tokens,
        max_rows=min(config.speculate_below, config.max_batch_tokens // 2),  # half a step, so that prompts get on too
    )


@dataclass
class NgramIndex:
    """The positions of each run of MIN_MATCH tokens in a text: the last one, and for each position the one before it."""

    last: dict[tuple[int, ...], int] = field(default_factory=dict)
    """The position after the run."""
    before: list[int] = field(default_factory=list)
    """For each position, an earlier one after the same run; 0 is none."""

    def extend(self, tokens: abc.Sequence[int]) -> None:
        """Add the tokens since the last call; the run that ends with the last token is added by the next call."""
        for end in range(len(self.before), len(tokens)):
            if end < MIN_MATCH:
                self.before.append(0)
                continue
            run = tuple(tokens[end - MIN_MATCH : end])
            self.before.append(self.last.get(run, 0))
            self.last[run] = end


class PromptLookup:
    """Drafts what followed an earlier occurrence of the text's end (Saxena, 2023).

    It proposes what followed the longest match of the text's end, the latest of equals, among the last few positions of
    its last MIN_MATCH tokens; no more tokens than matched, since a short match is seldom right for long.
    """

    def __init__(self) -> None:
        self._indexes: dict[Sequence, NgramIndex] = {}

    def propose(self, requests: abc.Sequence[DraftRequest]) -> list[list[int]]:
        """For each sequence the tokens after the longest match of its end."""
        return [self._look_up(sequence, most) for sequence, most in requests]

    def forget(self, sequence: Sequence) -> None:
        """Drop a sequence's index."""
        self._indexes.pop(sequence, None)

    def _look_up(self, sequence: Sequence, most: int) -> list[int]:
        tokens = sequence.tokens
        index = self._indexes.setdefault(sequence, NgramIndex())
        index.extend(tokens)
        place = index.last.get(tuple(tokens[-MIN_MATCH:]), 0)
        best, best_length = 0, 0
        for _ in range(MAX_CANDIDATES):
            if not place or best_length >= MAX_MATCH:
                break
            length = match_length(tokens, place)
            if length > best_length:
                best, best_length = place, length
            place = index.before[place]
        if best_length < MIN_MATCH:
            return []
        source = tokens[best : best + most]
        # a match that reaches the end of the text repeats itself
        return [source[i % len(source)] for i in range(min(most, best_length))]


def match_length(tokens: abc.Sequence[int], place: int) -> int:
    """The number of tokens before `place` that equal those at the end of the text, up to MAX_MATCH."""
    length = 0
    for back in range(1, min(place, MAX_MATCH) + 1):
        if tokens[place - back] != tokens[-back]:
            break
        length = back
    return length


@dataclass
class Shadow:
    """A sequence's state in the draft model."""

    target: Sequence
    own: Sequence
    """The target's tokens and the draft tokens after them, in the draft model's memory."""
    num_known: int = 0
    """Number of its tokens that are not draft tokens."""

    @property
    def draft(self) -> list[int]:
        """The draft tokens after the known ones."""
        return self.own.tokens[self.num_known :]

    def follow(self) -> None:
        """Take over the target's tokens, and keep what was computed of accepted draft tokens."""
        tokens, own, right = self.target.tokens, self.own, self.num_known
        while right < min(len(own.tokens), len(tokens)) and own.tokens[right] == tokens[right]:
            right += 1
        own.tokens[right:] = tokens[right:]
        own.num_computed = min(own.num_computed, right, len(tokens) - 1)  # the last one's logits are wanted
        self.num_known = len(tokens)

    def choose(self, logits_V: Tensor) -> None:
        """Draft the next token as the target would sample it from these logits."""
        sequence, place = self.target, len(self.own.tokens)
        number = uniform(sequence.seed, sequence.index, place)
        counts = sequence.counts + Counter(self.draft)
        prompt = sequence.tokens[: sequence.num_prompt]
        self.own.tokens.append(choose(logits_V, sequence.sampling, number=number, prompt=prompt, counts=counts).token)


class DraftModel:
    """Drafts with a smaller model of the same vocabulary, for all sequences together.

    It samples as the target does, with the target's own random numbers, so that two models which agree on a distribution
    agree on the token drawn from it. It has a KV cache of its own, shared between sequences with the same prompt.
    A sequence gets no draft until its prompt is computed here too, at most `max_batch_tokens` of prompts a step; nor if
    there is no memory for it even after sequences without a request lost theirs. It needs no notice of preemption.
    """

    def __init__(self, runner: Runner, pool: BlockPool, *, max_batch_tokens: int):
        self.runner = runner
        self.pool = pool
        self.max_batch_tokens = max_batch_tokens
        self._shadows: dict[Sequence, Shadow] = {}

    def propose(self, requests: abc.Sequence[DraftRequest]) -> list[list[int]]:
        """For each sequence the draft model's next `most` tokens; none for those not caught up."""
        shadows = [self._shadow(sequence) for sequence, _ in requests]
        pieces = self._catch_up(shadows)
        while pieces:
            self._run(pieces)
            pieces = [
                (shadow, chunk)
                for shadow, (_, most) in zip(shadows, requests, strict=True)
                if 0 < len(shadow.draft) < most and (chunk := self._chunk(shadow, len(shadow.own.tokens)))
            ]
        return [shadow.draft for shadow in shadows]

    def forget(self, sequence: Sequence) -> None:
        """Free a sequence's memory."""
        shadow = self._shadows.pop(sequence, None)
        if shadow is not None:
            self.pool.release(shadow.own.table)

    def _shadow(self, sequence: Sequence) -> Shadow:
        if sequence not in self._shadows:
            self._shadows[sequence] = Shadow(
                sequence, Sequence(sequence.request_id, sequence.index, [], sequence.num_prompt)
            )
        shadow = self._shadows[sequence]
        shadow.follow()
        return shadow

    def _catch_up(self, shadows: abc.Sequence[Shadow]) -> list[tuple[Shadow, SequenceChunk]]:
        """The chunks of the sequences' own tokens to compute, within one step.

        Of several answers to one prompt only the first starts, so that the others find the prompt in the cache.
        """
        budget, starting = self.max_batch_tokens, set[int]()
        pieces: list[tuple[Shadow, SequenceChunk]] = []
        for shadow in shadows:
            own = shadow.own
            if budget == 0 or len(own.tokens) > self.runner.model.architecture.max_position:
                continue
            if not own.table:
                if own.request_id in starting:
                    continue
                starting.add(own.request_id)
                self._match(own)
            end = min(len(own.tokens), own.num_computed + budget)
            chunk = self._chunk(shadow, end) or (self._make_room(shadows) and self._chunk(shadow, end))
            if chunk:
                budget -= chunk.end - chunk.start
                pieces.append((shadow, chunk))
        return pieces

    def _match(self, own: Sequence) -> None:
        own.table = self.pool.take(self.pool.match(own.tokens[:-1]))
        own.num_committed = len(own.table)
        own.num_computed = own.num_committed * self.pool.block_size

    def _chunk(self, shadow: Shadow, end: int) -> SequenceChunk | None:
        """A chunk up to `end`; None if there is no memory for it or the model has no such positions."""
        own = shadow.own
        if end > self.runner.model.architecture.max_position:
            return None
        copies = self.pool.extend(own.table, own.num_computed, end)
        if copies is None:
            return None
        self.runner.copy(copies)
        return SequenceChunk(own, own.num_computed, end)

    def _make_room(self, asked: abc.Sequence[Shadow]) -> bool:
        """Free the memory of sequences without a request; returns whether there were any."""
        others = [sequence for sequence, shadow in self._shadows.items() if shadow.own.table and shadow not in asked]
        for sequence in others:
            self.forget(sequence)
        return bool(others)

    def _run(self, pieces: abc.Sequence[tuple[Shadow, SequenceChunk]]) -> None:
        """Compute, and add a draft token to each sequence that was computed to its end."""
        hidden_MD = self.runner.hidden([chunk for _, chunk in pieces])
        ended = [shadow for shadow, chunk in pieces if chunk.end == len(shadow.own.tokens)]
        for shadow, chunk in pieces:
            own = shadow.own
            own.num_computed = chunk.end
            own.num_committed = self.pool.commit(
                own.tokens, own.table, own.num_committed, min(chunk.end, shadow.num_known)
            )
        if ended:
            for shadow, logits_V in zip(ended, self.runner.logits(hidden_MD).values, strict=True):
                shadow.choose(logits_V)
