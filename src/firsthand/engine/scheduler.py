"""Decides what each step computes: continuous batching with chunked prompts, admission by memory, and preemption.

Every running answer gets its next token in every step (decode never starves); what is left of the token budget goes to
prompts, oldest first. When blocks run out, the youngest sequence loses its memory and waits; it is computed again
later, from whatever the prefix tree still holds. No tensors here.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field

from firsthand.engine.blocks import BlockPool, Copy
from firsthand.engine.sequence import Chunk, Sequence, State


def by_arrival(sequence: Sequence) -> tuple[int, int]:
    """The sort key of all queues."""
    return sequence.arrival


@dataclass
class Plan:
    """One step: the chunks to compute after the block copies, which must be made in order."""

    chunks: list[Chunk] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        """Rows of the packed batch."""
        return sum(chunk.end - chunk.start for chunk in self.chunks)

    def drop(self, sequence: Sequence) -> None:
        """Take a sequence out of the step. Its copies stay: they touch only memory that it gave back."""
        self.chunks = [chunk for chunk in self.chunks if chunk.sequence is not sequence]


class Scheduler:
    """Owns the queues; sequences in `running` hold blocks, those in `waiting` hold none. Both are sorted by arrival."""

    def __init__(self, pool: BlockPool, *, max_batch_tokens: int, max_sequences: int):
        assert max_batch_tokens > max_sequences > 0
        self.pool = pool
        self.max_batch_tokens = max_batch_tokens
        self.max_sequences = max_sequences
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.num_preemptions = 0
        self.num_cached_tokens = 0

    @property
    def has_work(self) -> bool:
        """Whether a step would compute anything."""
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait for its turn."""
        sequence.state = State.WAITING
        insort(self.waiting, sequence, key=by_arrival)

    def plan(self) -> Plan:
        """The next step. It is empty only if there is no work."""
        plan = Plan()
        preemptions = self.num_preemptions
        decoding = [s for s in self.running if s.num_needed - s.num_computed == 1]
        prefilling = [s for s in self.running if s.num_needed - s.num_computed > 1]
        for sequence in decoding + prefilling:
            if sequence.state is State.RUNNING:
                self._grow(sequence, plan)
        while self.waiting and len(self.running) < self.max_sequences and self.num_preemptions == preemptions:
            sequence = self.waiting[0]
            if plan.num_tokens >= self.max_batch_tokens or not self._admit(sequence):
                break
            self._grow(sequence, plan)
        return plan

    def fork(self, lead: Sequence) -> None:
        """Start the followers of a sequence from its memory, as many as may run; the others wait."""
        for follower in lead.followers:
            if follower.state is State.FINISHED:
                continue
            follower.num_cached = lead.num_cached
            if len(self.running) >= self.max_sequences:
                self.add(follower)
                continue
            follower.table = self.pool.fork(lead.table)
            follower.num_computed, follower.num_committed = lead.num_computed, lead.num_committed
            self._run(follower)
        lead.followers = []

    def succeed(self, lead: Sequence) -> None:
        """Let the first follower take a sequence's place, with the others behind it, since that one is to be dropped."""
        heirs = [follower for follower in lead.followers if follower.state is not State.FINISHED]
        if not heirs:
            return
        if lead.state is State.RUNNING:
            lead.followers = heirs[:1]
            self.fork(lead)
        else:
            self.add(heirs[0])
        heirs[0].followers, lead.followers = heirs[1:], []

    def advance(self, chunk: Chunk) -> None:
        """Note that a chunk was computed, and let others share its full blocks."""
        sequence = chunk.sequence
        sequence.num_computed = chunk.end
        sequence.num_committed = self.pool.commit(
            sequence.tokens, sequence.table, sequence.num_committed, sequence.num_computed
        )

    def finish(self, sequence: Sequence) -> None:
        """Take a sequence out of its queue and give back its blocks."""
        if sequence.state is State.RUNNING:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        self._release(sequence)
        sequence.state = State.FINISHED

    def restart(self) -> None:
        """Make every running sequence compute its tokens again, with nothing known of any prompt (new weights)."""
        for sequence in list(self.running):
            self._preempt(sequence)
        self.pool.forget()

    def _admit(self, sequence: Sequence) -> bool:
        """Move a sequence from waiting to running if its tokens fit; running ones keep a block each to grow into."""
        pool = self.pool
        known = pool.match(sequence.tokens[: sequence.first_wanted])
        needed = pool.blocks_for(sequence.num_needed + 1) - len(known)
        if needed + len(self.running) > pool.num_available_without(known):
            return False
        sequence.table = pool.take(known)
        sequence.num_computed = len(known) * pool.block_size
        sequence.num_committed = len(known)
        self.num_cached_tokens += sequence.num_computed
        if sequence.num_cached is None:
            sequence.num_cached = sequence.num_computed
        self.waiting.remove(sequence)
        self._run(sequence)
        return True

    def _grow(self, sequence: Sequence, plan: Plan) -> None:
        """Put the next tokens of a sequence into the step, preempting younger ones for memory if need be."""
        start = sequence.num_computed
        end = min(sequence.num_needed, start + self.max_batch_tokens - plan.num_tokens)
        if end <= start:
            return
        while (copies := self.pool.extend(sequence.table, start, end)) is None:
            victim = self.running[-1]
            self._preempt(victim)
            plan.drop(victim)
            if victim is sequence:
                return
        plan.copies += copies
        plan.chunks.append(Chunk(sequence, start, end))

    def _run(self, sequence: Sequence) -> None:
        sequence.state = State.RUNNING
        insort(self.running, sequence, key=by_arrival)

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._release(sequence)
        self.add(sequence)
        self.num_preemptions += 1

    def _release(self, sequence: Sequence) -> None:
        self.pool.release(sequence.table)
        sequence.table = []
        sequence.num_computed = sequence.num_committed = 0
