"""Runs one step: computes the scheduler's plan and gives each sequence its tokens.

A sequence that fails (its logits are not finite, its stopper raises) ends with an error and touches no other: if a step
fails as a whole, each of its chunks is computed again alone.
"""

# M rows that need logits, D hidden

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple, Protocol

from torch import Tensor

from firsthand.engine.compute.runner import Runner, packed_adapter
from firsthand.engine.core.engine_stats import StepCounts
from firsthand.engine.core.outputs import Output, join_outputs
from firsthand.engine.core.scheduler import Scheduler
from firsthand.engine.core.sequence import Sequence, SequenceChunk, SequenceState
from firsthand.engine.decoding.batched_sampler import draw_after
from firsthand.engine.decoding.constraint import Guide, Masks
from firsthand.engine.decoding.speculative import Speculator
from firsthand.engine.decoding.token_choice import failed, rate, sample
from firsthand.errors import FirsthandError, ModelError
from firsthand.nn.compiled_decoder import LogitRow, Logits

LOGIT_ROWS = 64
"""Rows of logits computed at a time; a row is as long as the vocabulary."""


class SteppedEngine(Protocol):
    """The parts of an engine that a step uses."""

    runner: Runner
    scheduler: Scheduler
    speculator: Speculator | None
    version: int
    masks: Masks
    counts: StepCounts

    def end(self, sequence: Sequence) -> None:
        """Remove a sequence from every queue."""


class LogitPosition(NamedTuple):
    """A position that needs logits, and the chunk that computes it."""

    chunk: SequenceChunk
    position: int


def take_step(engine: SteppedEngine) -> list[Output]:
    """Compute one step and return its outputs, in the order of the plan."""
    if engine.speculator is not None:
        engine.speculator.draft(engine.scheduler.running)
    jump_ahead(engine.scheduler)
    plan = engine.scheduler.plan()
    engine.runner.copy(plan.copies)  # also for dropped sequences: the copied blocks stay cached
    if not plan.chunks:
        return []
    engine.counts.steps += 1
    engine.masks.start(_guides(plan.chunks))
    try:
        return _compute(engine, plan.chunks)
    finally:
        engine.masks.finish()


def jump_ahead(scheduler: Scheduler) -> None:
    """Draft the tokens that grammars force, in equal shares of half a step, so that other sequences progress too."""
    forced = [sequence for sequence in scheduler.running if sequence.is_forced and sequence.is_ready]
    share = scheduler.max_batch_tokens // 2 // max(len(forced), 1)
    for sequence in forced:
        assert sequence.guide is not None
        sequence.draft = tuple(islice(sequence.guide.forced, min(share, sequence.max_tokens - sequence.num_answer - 1)))


def _compute(engine: SteppedEngine, chunks: list[SequenceChunk]) -> list[Output]:
    """Run chunks together; if that raises, each alone and without draft tokens, so that only the failing one ends."""
    wanted = [LogitPosition(chunk, position) for chunk in chunks for position in chunk.logit_positions]
    try:
        hidden_MD = engine.runner.hidden(chunks)
    except Exception as error:
        if len(chunks) == 1 and not chunks[0].draft:
            return _fail(engine, chunks[0].sequence, error)
        return [output for chunk in chunks for output in _compute(engine, [chunk.without_draft()])]
    for chunk in chunks:
        _count(engine.counts, chunk)
        engine.scheduler.advance(chunk)
    engine.masks.finish()  # guides may be used from here on
    outputs: list[Output] = []
    for start in range(0, len(wanted), LOGIT_ROWS):
        rows = slice(start, start + LOGIT_ROWS)
        outputs += _compute_logits(engine, wanted[rows], hidden_MD[rows])
    drafted = [chunk for chunk in chunks if chunk.draft]
    for chunk in drafted:
        _report_draft(engine, chunk)
    return join_outputs(outputs) if drafted else outputs


def _compute_logits(engine: SteppedEngine, wanted: list[LogitPosition], hidden_MD: Tensor) -> list[Output]:
    """Compute logits from hidden states and return the outputs; the sequences end with an error if that fails."""
    runner = engine.runner
    try:
        adapters = [packed_adapter(each.chunk) for each in wanted]
        draws = [draw_after(each.chunk, each.position) for each in wanted] if not runner.is_compiled else []
        logits = runner.logits(hidden_MD, adapters, draws)
    except Exception as error:
        sequences = dict.fromkeys(each.chunk.sequence for each in wanted)
        return [output for sequence in sequences for output in _fail(engine, sequence, error)]
    return _apply_logits(engine, wanted, logits)


def _apply_logits(engine: SteppedEngine, wanted: list[LogitPosition], logits: Logits) -> list[Output]:
    """Give each sequence its row of logits; followers of the same prompt are forked here and get the row too."""
    scheduler = engine.scheduler
    outputs: list[Output] = []
    for (chunk, position), row in zip(wanted, logits.rows(), strict=True):
        lead = chunk.sequence
        if lead.state is SequenceState.FINISHED or not chunk.is_draft_accepted(position):
            continue
        if position >= chunk.draft_start:
            scheduler.accept(lead)
        members = [lead, *(follower for follower in lead.followers if follower.state is not SequenceState.FINISHED)]
        scheduler.fork(lead)
        for member in members:
            outputs += _apply_row(engine, member, position, row)
        if lead.goal == "prefix":
            engine.end(lead)
    return outputs


def _apply_row(engine: SteppedEngine, sequence: Sequence, position: int, row: LogitRow) -> list[Output]:
    """Sample or score one token of one sequence, which may end with it."""
    version = engine.version
    try:
        match sequence.goal:
            case "generate":
                brought = [sample(sequence, row, version)]
            case "score":
                brought = rate(sequence, position, row, version)
            case "prefix":
                brought = []
    except Exception as error:
        return _fail(engine, sequence, error)
    if brought and brought[-1].is_last:
        engine.end(sequence)
    return brought


def _count(counts: StepCounts, chunk: SequenceChunk) -> None:
    known = chunk.draft_start - chunk.start
    if chunk.sequence.num_answer and known == 1 and chunk.sequence.goal == "generate":
        counts.decode_tokens += 1
    else:
        counts.prefill_tokens += known


def _report_draft(engine: SteppedEngine, chunk: SequenceChunk) -> None:
    """Tell the speculator how many draft tokens were accepted."""
    accepted = max(len(chunk.sequence.tokens) - chunk.draft_start - 1, 0)
    engine.counts.decode_tokens += accepted
    if chunk.is_forced:
        engine.counts.forced_tokens += accepted
        return
    assert engine.speculator is not None
    engine.speculator.learn(chunk.sequence, len(chunk.draft), accepted)


def _fail(engine: SteppedEngine, sequence: Sequence, error: Exception) -> list[Output]:
    """End a sequence, and its followers, with an error."""
    if not isinstance(error, FirsthandError):
        error = ModelError(f"the request failed: {type(error).__name__}: {error}")
    sequences = [member for member in (sequence, *sequence.followers) if member.goal != "prefix"]
    for member in (sequence, *sequence.followers):
        engine.end(member)
    return [failed(member, engine.version, error) for member in sequences]


def _guides(chunks: list[SequenceChunk]) -> Iterator[Guide]:
    """Yields the guides of the answers that get tokens in this step."""
    for chunk in chunks:
        for sequence in (chunk.sequence, *chunk.sequence.followers) if chunk.logit_positions else ():
            if sequence.guide is not None and sequence.state is not SequenceState.FINISHED:
                yield sequence.guide
