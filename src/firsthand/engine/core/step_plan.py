"""What one step is to compute, as the scheduler decides it and the runner carries it out."""

from __future__ import annotations

from dataclasses import dataclass, field

from firsthand.engine.core.sequence import Chunk, Sequence
from firsthand.engine.memory.blocks import BlockCopy


@dataclass
class StepPlan:
    """One step: the chunks to compute after the block copies, which must be made in order."""

    chunks: list[Chunk] = field(default_factory=list)
    copies: list[BlockCopy] = field(default_factory=list)
    num_tokens: int = 0
    """Rows of the packed batch."""
    is_out_of_blocks: bool = False
    """Whether somebody lost its memory for others to go on."""

    def add(self, chunk: Chunk, copies: list[BlockCopy]) -> None:
        """Put a chunk into the step."""
        self.chunks.append(chunk)
        self.copies += copies
        self.num_tokens += chunk.end - chunk.start

    def drop(self, sequence: Sequence) -> None:
        """Take a sequence out of the step. Its copies stay: they touch only memory that it gave back."""
        self.chunks = [chunk for chunk in self.chunks if chunk.sequence is not sequence]
        self.num_tokens = sum(chunk.end - chunk.start for chunk in self.chunks)
