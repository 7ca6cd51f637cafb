"""Where guesses at the next tokens come from: the sequence's own text, or a smaller model.

Left out: guesses from the texts of other requests, trees of guesses, and heads trained on the model itself (EAGLE, Medusa).
"""

# M rows, V vocabulary

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as Row
from dataclasses import dataclass, field

import torch
from torch import Tensor

from firsthand.engine.compute.runner import Runner
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.sequence import Chunk, Sequence
from firsthand.engine.decoding.sampler import choose, uniform
from firsthand.engine.decoding.speculative import Ask, Drafter, Speculator
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
    """Who guesses for a model, as the config or the caller says; a draft model gets `num_blocks` of that type."""
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
class Index:
    """Where each run of MIN_MATCH tokens in a text was seen: its last place, and for each place the one before it."""

    last: dict[tuple[int, ...], int] = field(default_factory=dict)
    """The position after the run."""
    before: list[int] = field(default_factory=list)
    """For each position, an earlier one that the same run precedes; 0 is none."""

    def extend(self, tokens: Row[int]) -> None:
        """Take in the tokens that came since the last call; the last token's own run is left for the next one."""
        for end in range(len(self.before), len(tokens)):
            if end < MIN_MATCH:
                self.before.append(0)
                continue
            run = tuple(tokens[end - MIN_MATCH : end])
            self.before.append(self.last.get(run, 0))
            self.last[run] = end


class PromptLookup:
    """Guesses that a text which repeats itself will do so again (Saxena, 2023).

    It proposes what followed the longest match of the text's end, the latest of equals, among the last few places where
    its last MIN_MATCH tokens stood before; no more tokens than matched, since a short match is seldom right for long.
    """

    def __init__(self) -> None:
        self._indexes: dict[Sequence, Index] = {}

    def propose(self, asks: Row[Ask]) -> list[list[int]]:
        """For each sequence what followed the longest match of its end."""
        return [self._look_up(line, most) for line, most in asks]

    def forget(self, line: Sequence) -> None:
        """Drop a sequence's index."""
        self._indexes.pop(line, None)

    def _look_up(self, line: Sequence, most: int) -> list[int]:
        tokens = line.tokens
        index = self._indexes.setdefault(line, Index())
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


def match_length(tokens: Row[int], place: int) -> int:
    """How many tokens before `place` equal those at the end of the text, up to MAX_MATCH."""
    length = 0
    for back in range(1, min(place, MAX_MATCH) + 1):
        if tokens[place - back] != tokens[-back]:
            break
        length = back
    return length


@dataclass
class Shadow:
    """A sequence as the draft model knows it."""

    line: Sequence
    own: Sequence
    """The sequence's tokens and the guesses after them, in the draft model's memory."""
    num_known: int = 0
    """How many of its tokens are not guesses."""

    @property
    def guesses(self) -> list[int]:
        """What the draft model has chosen after the known tokens."""
        return self.own.tokens[self.num_known :]

    def follow(self) -> None:
        """Take over the sequence's tokens, and keep what was computed of guesses that came true."""
        tokens, own, right = self.line.tokens, self.own, self.num_known
        while right < min(len(own.tokens), len(tokens)) and own.tokens[right] == tokens[right]:
            right += 1
        own.tokens[right:] = tokens[right:]
        own.num_computed = min(own.num_computed, right, len(tokens) - 1)  # the last one's logits are wanted
        self.num_known = len(tokens)

    def choose(self, logits_V: Tensor) -> None:
        """Guess the next token as the target would choose it from these logits."""
        line, place = self.line, len(self.own.tokens)
        number = uniform(line.seed, line.index, place)
        counts = line.counts + Counter(self.guesses)
        prompt = line.tokens[: line.num_prompt]
        self.own.tokens.append(choose(logits_V, line.sampling, number=number, prompt=prompt, counts=counts).token)


class DraftModel:
    """Guesses with a smaller model of the same vocabulary, for all sequences together.

    It samples as the target does, with the target's own random numbers, so that two models which agree on a distribution
    agree on the token drawn from it. It keeps keys and values of its own, shared between sequences with the same prompt.
    A sequence gets no guesses until its prompt is computed here too, at most `max_batch_tokens` of prompts a step; one that
    finds no memory gets none either, after those that are not asked for lost theirs. It needs no notice of preemption.
    """

    def __init__(self, runner: Runner, pool: BlockPool, *, max_batch_tokens: int):
        self.runner = runner
        self.pool = pool
        self.max_batch_tokens = max_batch_tokens
        self._shadows: dict[Sequence, Shadow] = {}

    def propose(self, asks: Row[Ask]) -> list[list[int]]:
        """For each sequence what the draft model would choose next, `most` times; none for those not caught up."""
        shadows = [self._shadow(line) for line, _ in asks]
        pieces = self._catch_up(shadows)
        while pieces:
            self._run(pieces)
            pieces = [
                (shadow, chunk)
                for shadow, (_, most) in zip(shadows, asks, strict=True)
                if 0 < len(shadow.guesses) < most and (chunk := self._chunk(shadow, len(shadow.own.tokens)))
            ]
        return [shadow.guesses for shadow in shadows]

    def forget(self, line: Sequence) -> None:
        """Give back a sequence's memory."""
        shadow = self._shadows.pop(line, None)
        if shadow is not None:
            self.pool.release(shadow.own.table)

    def _shadow(self, line: Sequence) -> Shadow:
        if line not in self._shadows:
            self._shadows[line] = Shadow(line, Sequence(line.request_id, line.index, [], line.num_prompt))
        shadow = self._shadows[line]
        shadow.follow()
        return shadow

    def _catch_up(self, shadows: Row[Shadow]) -> list[tuple[Shadow, Chunk]]:
        """What must be computed of the sequences' own tokens, as far as a step goes.

        Of several answers to one prompt only the first starts, so that the others find the prompt in memory.
        """
        budget, starting = self.max_batch_tokens, set[int]()
        pieces: list[tuple[Shadow, Chunk]] = []
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

    def _chunk(self, shadow: Shadow, end: int) -> Chunk | None:
        """A chunk up to `end`, if there is memory for it and the model has such positions."""
        own = shadow.own
        if end > self.runner.model.architecture.max_position:
            return None
        copies = self.pool.extend(own.table, own.num_computed, end)
        if copies is None:
            return None
        self.runner.copy(copies)
        return Chunk(own, own.num_computed, end)

    def _make_room(self, asked: Row[Shadow]) -> bool:
        """Take the memory of sequences that are not asked for; whether there were any."""
        others = [line for line, shadow in self._shadows.items() if shadow.own.table and shadow not in asked]
        for line in others:
            self.forget(line)
        return bool(others)

    def _run(self, pieces: Row[tuple[Shadow, Chunk]]) -> None:
        """Compute, and add a guess to each sequence that was computed to its end."""
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
