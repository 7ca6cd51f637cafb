"""One step as the scheduler planned it."""

from __future__ import annotations

from dataclasses import dataclass, field

from firsthand.engine.core.sequence import Sequence, SequenceChunk
from firsthand.engine.memory.blocks import BlockCopy


@dataclass
class StepPlan:
    """The block copies of a step, to be made first and in order, and the chunks to compute."""

    chunks: list[SequenceChunk] = field(default_factory=list)
    copies: list[BlockCopy] = field(default_factory=list)
    num_tokens: int = 0
    """Rows of the packed batch."""
    is_out_of_blocks: bool = False
    """True if a sequence was preempted for lack of blocks."""

    def add(self, chunk: SequenceChunk, copies: list[BlockCopy]) -> None:
        """Add a chunk to the step."""
        self.chunks.append(chunk)
        self.copies += copies
        self.num_tokens += chunk.end - chunk.start

    def drop(self, sequence: Sequence) -> None:
        """Remove a sequence from the step. Its copies stay: they touch only blocks that it released."""
        self.chunks = [chunk for chunk in self.chunks if chunk.sequence is not sequence]
        self.num_tokens = sum(chunk.end - chunk.start for chunk in self.chunks)
