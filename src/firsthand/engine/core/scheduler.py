"""Decides what each step computes: continuous batching with chunked prefill, admission by memory, and preemption.

Every running answer gets its next token in every step, so decoding never starves. The rest of the token budget goes to
prompts, running and waiting ones alike, in the order of `request_queue.py`. While an owner of few requests has one under
way, a step takes only a few prompt tokens of any other owner, so a long prompt does not make each token of a short answer
wait. A request starts only if its tokens fit the KV cache, and none overtakes one that waits for memory. A request whose
prompt shares a prefix with one being computed in this step starts a step later and finds it cached, so requests that
arrive together compute a shared prefix once.

When blocks run out, the sequence of lowest priority (the youngest of equals) is preempted: it loses its blocks, waits,
and is recomputed later from what the prefix cache still holds. A waiting request also preempts one of lower priority
or, if its owner has nothing running, the youngest of the owner with most sequences: it need not wait for another
owner's long answer, and the preempted one mostly finds its blocks still cached. No tensors here.
"""

from __future__ import annotations

import time
from bisect import insort
from collections import Counter, abc
from collections.abc import Callable

from firsthand.engine.core.prompt_shares import PromptShares
from firsthand.engine.core.request_queue import WaitingQueue, rank
from firsthand.engine.core.sequence import Sequence, SequenceChunk, SequenceState
from firsthand.engine.core.step_plan import StepPlan
from firsthand.engine.memory.blocks import BlockPool, PrefixMatch
from firsthand.engine.memory.pinned_prefixes import PinnedPrefixes
from firsthand.engine.memory.window_pool import SlidingWindowPool

MIN_SHARED_TOKENS = 32
"""A request waits one step for a shared prefix of at least this many tokens."""

SHARED_PROMPT_TOKENS = 64
"""Prompt tokens of one owner in a step that another owner of few requests waits for. On a CPU a step's time grows with its
tokens, and steps of 64 compute as many a second as steps of 512, within 5 %."""
FEW_SEQUENCES = 8
"""An owner with more sequences running wants throughput, and no step is kept short for it."""


class Scheduler:
    """Owns the waiting queue and the running sequences.

    Sequences in `running`, sorted by rank, have blocks; those in `waiting` have none. Followers are in neither until
    their lead has computed the prompt (`fork`).
    """

    def __init__(
        self,
        pool: BlockPool | SlidingWindowPool,
        *,
        max_batch_tokens: int,
        max_sequences: int,
        shared_prompt_tokens: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        assert max_batch_tokens > max_sequences > 0
        self.pool = pool
        self.max_batch_tokens = max_batch_tokens
        self.max_sequences = max_sequences
        self.shared_prompt_tokens = shared_prompt_tokens or max_batch_tokens
        self.clock = clock
        self.waiting = WaitingQueue()
        self.running: list[Sequence] = []
        self.pinned_prefixes = PinnedPrefixes(pool)
        self.num_preemptions = 0
        self.num_prompt_tokens = 0
        self.num_cached_tokens = 0

    @property
    def has_work(self) -> bool:
        """True if a step would compute anything."""
        return bool(self.waiting or self.running)

    @property
    def oldest_wait_s(self) -> float:
        """Seconds that the oldest waiting sequence has waited; 0 if none waits."""
        now = self.clock()
        return max((now - sequence.arrived_s for sequence in self.waiting), default=0.0)

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence."""
        sequence.arrived_s = self.clock()
        sequence.conversation = self.pool.find(sequence.tokens[: sequence.first_logit_position], sequence.space).note
        self.waiting.add(sequence)

    def plan(self) -> StepPlan:
        """Returns the next step. It is empty only if there is no work."""
        plan = StepPlan()
        for decoding in [s for s in self.running if s.num_needed - s.num_computed == 1]:
            if decoding.state is SequenceState.RUNNING:  # else it was preempted by one before it
                self._schedule(decoding, plan)
        prefilling = [s for s in self.running if s.num_needed - s.num_computed > 1]
        shares = self._prompt_shares()
        is_closed = False  # memory is short, or the first waiting sequence cannot start
        while plan.num_tokens < self.max_batch_tokens:
            is_closed |= plan.is_out_of_blocks
            waiting = None if is_closed else self.waiting.first()
            sequence = self._next(prefilling if waiting is None else [*prefilling, waiting])
            if sequence is None:
                break
            if sequence in prefilling:  # a sequence preempted in this step may be both prefilling and waiting
                prefilling.remove(sequence)
            most = shares.left(sequence)
            if sequence is waiting:
                is_closed = not most or self._is_being_computed(sequence, plan) or not self._admit(sequence, plan)
            if sequence.state is SequenceState.RUNNING and most:
                before = plan.num_tokens
                self._schedule(sequence, plan, most)
                shares.take(sequence, plan.num_tokens - before)
        return plan

    def _prompt_shares(self) -> PromptShares:
        """Returns the prompt tokens that each owner may have in the next step."""
        if self.shared_prompt_tokens >= self.max_batch_tokens:
            return PromptShares({}, self.max_batch_tokens)
        counts = Counter((sequence.priority, sequence.owner) for sequence in self.running)
        if (first := self.waiting.first()) is not None:
            counts[first.priority, first.owner] += 1
        few = [flow for flow, count in counts.items() if count <= FEW_SEQUENCES]
        most = {
            flow: self.shared_prompt_tokens
            for flow in counts
            if any(owner != flow[1] and priority <= flow[0] for priority, owner in few)
        }
        return PromptShares(most, self.max_batch_tokens)

    def fork(self, lead: Sequence) -> None:
        """Start the followers of a sequence from its block table, as many as can run; the others wait.

        Waiting followers find the prompt in the prefix cache later.
        """
        for follower in lead.followers:
            if follower.state is SequenceState.FINISHED:
                continue
            follower.num_cached, follower.num_charged = lead.num_cached, lead.num_computed
            follower.arrived_s, follower.conversation = lead.arrived_s, lead.conversation
            if not self._can_start_now(follower):
                self.waiting.add(follower)
                continue
            follower.table = self.pool.fork(lead.table)
            follower.num_computed, follower.num_committed = lead.num_computed, lead.num_committed
            follower.is_stale = lead.is_stale
            self._start(follower)
        lead.followers = []

    def promote_follower(self, lead: Sequence) -> None:
        """Let the first follower lead the others in place of a sequence that is about to be dropped."""
        remaining = [follower for follower in lead.followers if follower.state is not SequenceState.FINISHED]
        if not remaining:
            return
        if lead.state is SequenceState.RUNNING:
            lead.followers = remaining[:1]
            self.fork(lead)
        else:
            remaining[0].arrived_s, remaining[0].conversation = lead.arrived_s, lead.conversation
            self.waiting.add(remaining[0])
        remaining[0].followers, lead.followers = remaining[1:], []

    def advance(self, chunk: SequenceChunk) -> None:
        """Record that a chunk was computed, and add its full blocks and the end of the prompt to the prefix cache."""
        sequence = chunk.sequence
        self._set_computed(sequence, chunk.draft_start)
        if chunk.draft_start == sequence.num_prompt and not sequence.is_stale:
            self.pool.keep(sequence.tokens, sequence.table, sequence.num_computed, space=sequence.space)

    def accept(self, sequence: Sequence) -> None:
        """Record that one more draft token was accepted."""
        self._set_computed(sequence, sequence.num_computed + 1)

    def finish(self, sequence: Sequence) -> None:
        """Remove a sequence and release its blocks; its computed tokens stay in the prefix cache."""
        if sequence.state is SequenceState.RUNNING:
            self._release_memory(sequence, note=sequence.place[0] if sequence.goal == "generate" else None)
            self.waiting.stop(sequence)
        else:
            self.waiting.discard(sequence)
        sequence.state = SequenceState.FINISHED

    def restart(self, *, recompute: bool = True) -> None:
        """Empty the prefix cache for new weights.

        Running sequences are recomputed, or else continue with their blocks, which no other sequence will reuse.
        """
        for sequence in list(self.running):
            if recompute:
                self._preempt(sequence)
            else:
                sequence.is_stale = True
        while self.pinned_prefixes.drop_oldest():
            pass
        self.pool.forget()

    def forget_adapter(self, adapter: int) -> None:
        """Drop cached and pinned prefixes of an adapter. No sequence may use it any more."""
        self.pinned_prefixes.drop_adapter(adapter)
        self.pool.forget_adapter(adapter)

    def _next(self, ready: list[Sequence]) -> Sequence | None:
        """Returns the sequence whose prompt is computed next."""
        if len(ready) < 2:
            return ready[0] if ready else None
        return self.waiting.earlier(min(ready, key=rank), min(ready, key=self.waiting.order))

    def _can_start_now(self, follower: Sequence) -> bool:
        """True if a follower can run at once: a slot and blocks are free, and no earlier sequence waits."""
        if len(self.running) >= self.max_sequences or self.pool.num_available <= len(self.running):
            return False
        first = self.waiting.first()
        return first is None or self._next([follower, first]) is follower

    def _admit(self, sequence: Sequence, plan: StepPlan) -> bool:
        """Start a waiting sequence if a slot is free and its tokens fit; returns whether it started.

        Preempts others one by one if it may. Pinned prefixes are dropped only if nothing runs, when no other blocks
        could come free.
        """
        while (found := self._match_if_fits(sequence)) is None:
            if (victim := self._victim_for(sequence)) is not None:
                self._preempt(victim)
                plan.drop(victim)
            elif self.running or not self.pinned_prefixes.drop_oldest():
                return False
        sequence.table = self.pool.take(found.blocks)
        sequence.num_computed = found.num_tokens
        sequence.num_committed = found.num_tokens // self.pool.block_size
        sequence.num_charged = max(sequence.num_charged, found.num_tokens)
        if sequence.num_cached is None:
            sequence.num_cached = min(found.num_tokens, sequence.num_prompt)
            self.num_cached_tokens += sequence.num_cached
            self.num_prompt_tokens += sequence.num_prompt
        self._start(sequence)
        return True

    def _is_being_computed(self, sequence: Sequence, plan: StepPlan) -> bool:
        """True if this step computes more of a waiting sequence's prefix than is cached yet."""
        shared = (
            self.pool.find(sequence.tokens[: sequence.first_logit_position], sequence.space).num_tokens
            + MIN_SHARED_TOKENS
        )
        return shared <= sequence.first_logit_position and any(
            chunk.start < shared <= chunk.draft_start
            and chunk.sequence.tokens[:shared] == sequence.tokens[:shared]
            and chunk.sequence.space == sequence.space
            and not chunk.sequence.is_stale
            for chunk in plan.chunks
        )

    def _match_if_fits(self, sequence: Sequence) -> PrefixMatch | None:
        """Returns the cached prefix of a sequence if a slot and memory for the rest are free, else None.

        Each running sequence keeps one block to grow. A cached partial block may have to be copied, so it is left out
        if memory is short.
        """
        if len(self.running) >= self.max_sequences:
            return None
        limit = sequence.first_logit_position
        for _ in range(2):  # the whole cached prefix, then its full blocks alone
            found = self.pool.find(sequence.tokens[:limit], sequence.space)
            full = found.num_tokens // self.pool.block_size
            if all(self._has_room(part, blocks, full, sequence) for part, blocks in self.pool.split(found.blocks)):
                return found
            limit = full * self.pool.block_size
        return None

    def _has_room(self, part: BlockPool, blocks: abc.Sequence[int], full: int, sequence: Sequence) -> bool:
        """True if a pool has memory for a sequence with `full` cached full blocks and perhaps a partial one.

        It needs the rest of its blocks, one for its first new token included, and one block for each running sequence
        to grow.
        """
        most = part.most_blocks_for(sequence.num_needed + 1, self.max_batch_tokens) + len(self.running)
        needed = most - sum(block != part.null_block for block in blocks[:full])
        return needed <= part.num_available_without(blocks)

    def _victim_for(self, sequence: Sequence) -> Sequence | None:
        """Returns the running sequence that a waiting one may preempt, or None.

        That is the last one of lower priority; or, for an owner with nothing running, the youngest of the owner that
        has most, as long as that owner keeps another.
        """
        own_rank = rank(sequence)
        lower = [s for s in self.running if s.priority > sequence.priority and rank(s) > own_rank]
        if lower:
            return lower[-1]
        if self.waiting.num_running(sequence):
            return None
        peers = [s for s in self.running if s.priority == sequence.priority]
        ((owner, count),) = Counter(s.owner for s in peers).most_common(1) or [("", 0)]
        return [s for s in peers if s.owner == owner][-1] if count > 1 else None

    def _schedule(self, sequence: Sequence, plan: StepPlan, most: int | None = None) -> None:
        """Put the next tokens of a sequence, at most `most`, into the step, preempting others if blocks run out."""
        start = sequence.num_computed
        end = min(
            sequence.num_needed, start + min(self.max_batch_tokens - plan.num_tokens, most or self.max_batch_tokens)
        )
        if end <= start:
            return
        self.waiting.charge(sequence, end)
        if sequence.draft and self._schedule_with_draft(sequence, plan, start, end):
            return
        while (copies := self.pool.extend(sequence.table, start, end)) is None:
            if len(self.running) == 1 and self.pinned_prefixes.drop_oldest():
                continue
            victim = self.running[-1]
            self._preempt(victim)
            plan.drop(victim)
            plan.is_out_of_blocks = True
            if victim is sequence:
                return
        plan.add(SequenceChunk(sequence, start, end), copies)

    def _schedule_with_draft(self, sequence: Sequence, plan: StepPlan, start: int, end: int) -> bool:
        """Put a sequence's draft tokens into the step too, if that takes no block that a running sequence may need."""
        draft, sequence.draft = sequence.draft[: self.max_batch_tokens - plan.num_tokens - 1], ()
        missing = self.pool.needed(sequence.table, start, end + len(draft))
        if end - start > 1 or not draft or (missing > 0 and self.pool.num_available - missing < len(self.running)):
            return False
        copies = self.pool.extend(sequence.table, start, end + len(draft))
        if copies is None:
            return False
        plan.add(SequenceChunk(sequence, start, end + len(draft), draft, sequence.is_forced), copies)
        return True

    def _set_computed(self, sequence: Sequence, num_computed: int) -> None:
        """Record the computed length: full blocks enter the prefix cache, blocks behind the window are released."""
        sequence.num_computed = num_computed
        if not sequence.is_stale:
            sequence.num_committed = self.pool.commit(
                sequence.tokens, sequence.table, sequence.num_committed, num_computed, sequence.space
            )
        self.pool.trim(sequence.table, num_computed)

    def _start(self, sequence: Sequence) -> None:
        """Move a sequence that has blocks to the running ones."""
        sequence.state = SequenceState.RUNNING
        if sequence.waited_s is None:
            sequence.waited_s = self.clock() - sequence.arrived_s
        self.waiting.start(sequence)
        insort(self.running, sequence, key=rank)

    def _release_memory(self, sequence: Sequence, note: int | None = None) -> None:
        """Stop a running sequence and release its blocks; they stay cached."""
        self.running.remove(sequence)
        if not sequence.is_stale:
            self.pool.keep(sequence.tokens, sequence.table, sequence.num_computed, note, sequence.space)
        self.pool.release(sequence.table)
        sequence.table, sequence.is_stale = [], False
        sequence.num_computed = sequence.num_committed = 0

    def _preempt(self, sequence: Sequence) -> None:
        """Move a running sequence back to the queue, without blocks; it resumes from what is still cached then."""
        self._release_memory(sequence)
        self.waiting.put_back(sequence)
        sequence.state = SequenceState.WAITING
        self.num_preemptions += 1
