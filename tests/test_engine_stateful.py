"""Random operations against a plain model of memory: who holds which block, and which text each slot of it is the end of."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine_tiny import VOCAB, drain, tiny_engine, tiny_model, tokens
from firsthand.engine.core.outputs import Output
from firsthand.engine.core.scheduler import Scheduler
from firsthand.engine.core.sequence import Request, Sequence, SequenceState
from firsthand.engine.core.step_plan import StepPlan
from firsthand.engine.memory.blocks import BlockPool
from firsthand.engine.memory.pinned_prefixes import PinnedPrefix
from firsthand.engine.memory.window_pool import SlidingWindowPool
from firsthand.errors import FirsthandError
from firsthand.model import Sampling
from firsthand.nn.quant import best_mode

WEIGHTS = best_mode()
LETTERS = st.integers(0, 1)
Text = tuple[int, ...]


class SchedulerMachine(RuleBasedStateMachine):
    """The scheduler and its pool, with a made-up model whose next token is a function of the text.

    The reference knows nothing of trees, eviction or copies on write: it keeps for every slot of every block the whole text
    up to it, and counts the tables that name a block.
    """

    @initialize(
        num_blocks=st.integers(6, 14),
        block_size=st.integers(1, 4),
        num_window_blocks=st.integers(5, 10),
        window=st.sampled_from([2, 5]),
        kind=st.sampled_from(["whole", "windows", "mixed"]),
        max_sequences=st.integers(1, 5),
        batch=st.integers(1, 8),
    )
    def start(
        self,
        num_blocks: int,
        block_size: int,
        num_window_blocks: int,
        window: int,
        kind: str,
        max_sequences: int,
        batch: int,
    ) -> None:
        self.now = 0.0
        self.pool: BlockPool | SlidingWindowPool = BlockPool(
            num_blocks, block_size, window=window if kind == "windows" else None
        )
        if kind == "mixed":
            self.pool = SlidingWindowPool(
                BlockPool(num_blocks, block_size), BlockPool(num_window_blocks, block_size, window=window)
            )
        self.scheduler = Scheduler(
            self.pool, max_batch_tokens=max_sequences + batch, max_sequences=max_sequences, clock=lambda: self.now
        )
        self.slots: dict[tuple[BlockPool, int, int], Text] = {}
        self.live: dict[tuple[int, int], Sequence] = {}
        self.holds: list[tuple[PinnedPrefix, Text, list[int]]] = []
        self.known: list[Text] = [(0,)]
        self.num_requests = 0

    @rule(
        start=st.integers(0, 1 << 16),
        cut=st.integers(0, 6),
        more=st.lists(LETTERS, min_size=1, max_size=9),
        n=st.integers(1, 4),
        new=st.integers(1, 12),
        priority=st.integers(-1, 1),
        owner=st.sampled_from("abc"),
        scored=st.booleans(),
    )
    def add(
        self, start: int, cut: int, more: list[int], n: int, new: int, priority: int, owner: str, scored: bool
    ) -> None:
        """A prompt that goes on from an earlier text, or from a part of one."""
        text = self.known[start % len(self.known)]
        prompt = [*text[: max(len(text) - cut, 0)], *more]
        chunk = self.scheduler.max_batch_tokens
        if any(part.most_blocks_for(len(prompt) + new, chunk) > part.num_usable for part in self.pool.pools):
            return
        request_id, size = self.num_requests, len(prompt)
        self.num_requests += 1
        asked: dict[str, Any] = {"priority": priority, "owner": owner}
        if scored:
            lead = Sequence(request_id, -1, prompt, size, goal="prefix", **asked)
            lead.followers = [
                Sequence(request_id, i, [*prompt, *([i % 2] * (new - 1))], size, goal="score", **asked)
                for i in range(n)
            ]
            lines = [lead, *lead.followers]
        else:
            lines = [Sequence(request_id, i, list(prompt), size, max_tokens=new, **asked) for i in range(n)]
            lines[0].followers = lines[1:]
        self.live.update({line.arrival: line for line in lines})
        self.scheduler.add(lines[0])

    @precondition(lambda self: self.scheduler.has_work)
    @rule(seconds=st.sampled_from([0.0, 1.0, 40.0]))
    def step(self, seconds: float) -> None:
        self.now += seconds
        plan = self.scheduler.plan()
        for source, target, is_near in plan.copies:
            part = self.pool.pools[is_near]
            for slot in range(self.pool.block_size):
                self.slots.pop((part, target, slot), None)
                if (part, source, slot) in self.slots:
                    self.slots[part, target, slot] = self.slots[part, source, slot]
        assert plan.chunks, "there is work, so a step computes something"
        assert plan.num_tokens == sum(c.end - c.start for c in plan.chunks) <= self.scheduler.max_batch_tokens
        assert len({chunk.sequence for chunk in plan.chunks}) == len(plan.chunks), "a sequence is computed twice"
        self.write(plan)
        for chunk in plan.chunks:
            self.scheduler.advance(chunk)
        for chunk in plan.chunks:
            for position in chunk.logit_positions:
                self.read(chunk.sequence, position)

    @precondition(lambda self: self.live)
    @rule(place=st.integers(0, 1 << 16), whole=st.booleans())
    def abort(self, place: int, whole: bool) -> None:
        request_id, index = list(self.live)[place % len(self.live)]
        whole |= index < 0  # the prefix of a score is no answer
        for key in [key for key in self.live if key[0] == request_id and (whole or key[1] == index)]:
            if not whole:
                self.scheduler.promote_follower(self.live[key])
            self.end(self.live[key])

    @rule(places=st.lists(st.integers(0, 1 << 16), min_size=1, max_size=4))
    def hold(self, places: list[int]) -> None:
        for place in places:
            text = self.known[-1 - place % len(self.known)]
            hold = self.scheduler.pinned_prefixes.add(text)
            table = self.scheduler.pinned_prefixes._tables.get(hold, self.pool.find(()).blocks)
            self.holds.append((hold, text[: hold.num_tokens], table))

    @precondition(lambda self: self.holds)
    @rule(place=st.integers(0, 1 << 16))
    def release(self, place: int) -> None:
        hold, _, _ = self.holds.pop(place % len(self.holds))
        self.scheduler.pinned_prefixes.release(hold)
        assert not hold.is_pinned

    @rule()
    def load(self) -> None:
        self.scheduler.restart()
        self.slots.clear()
        assert self.pool.num_used == 0 and self.pool.num_cached == 0

    @invariant()
    def memory_is_as_the_reference_says(self) -> None:
        if not hasattr(self, "pool"):
            return
        self.pool.check()
        held = [(text, blocks) for hold, text, blocks in self.holds if hold.is_pinned]
        tables = [line.table for line in self.scheduler.running] + [blocks for _, blocks in held]
        num_used = num_held = 0
        for place, part in enumerate(self.pool.pools):
            counts = Counter(b for table in tables for b in self.pool.split(table)[place][1] if b != part.null_block)
            assert {b: c for b, c in enumerate(part._references) if c} == dict(counts)
            assert part.num_used == len(counts)
            num_used += len(counts)
            mine = {b for _, table in held for b in self.pool.split(table)[place][1]} - {part.null_block}
            assert len(mine) <= part.num_usable // 2
            num_held += len(mine)
        assert self.pool.num_used == num_used and self.scheduler.pinned_prefixes.num_blocks == num_held
        for line in self.scheduler.running:
            self.check_text(line.tokens[: line.num_computed], line.table)
        for text, blocks in held:
            self.check_text(list(text), blocks)
        assert len(self.scheduler.running) <= self.scheduler.max_sequences
        queued = {*self.scheduler.running, *self.scheduler.waiting}
        led = {
            follower for line in queued for follower in line.followers if follower.state is not SequenceState.FINISHED
        }
        assert queued | led == set(self.live.values()), "a sequence got lost, or an ended one stayed"
        assert all(not line.table and line.state is SequenceState.WAITING for line in self.scheduler.waiting)

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        for _ in range(4000):
            if not self.scheduler.has_work:
                break
            self.step(0.0)
            self.memory_is_as_the_reference_says()
        assert not self.live, "every sequence comes to its end"
        for hold, _, _ in self.holds:
            self.scheduler.pinned_prefixes.release(hold)
        assert self.pool.num_used == 0, "memory is back at its level"
        assert len(self.scheduler.waiting._flows) <= 9

    def write(self, plan: StepPlan) -> None:
        """Compute the chunks: nobody writes where another may read, and everybody reads what belongs to its text."""
        size = self.pool.block_size
        tables = [line.table for line in self.scheduler.running] + [b for hold, _, b in self.holds if hold.is_pinned]
        for place, part in enumerate(self.pool.pools):
            counts = Counter(block for table in tables for block in self.pool.split(table)[place][1])
            for chunk in plan.chunks:
                line, blocks = chunk.sequence, self.pool.split(chunk.sequence.table)[place][1]
                assert line.state is SequenceState.RUNNING and chunk.start == line.num_computed
                for p in range(chunk.start, chunk.end):
                    block = blocks[p // size]
                    assert counts[block] == 1, "a block is written that somebody else has"
                    node = part._node.get(block)
                    assert node is None or len(node.tokens) <= p % size, "known text is overwritten"
                    self.slots[part, block, p % size] = tuple(line.tokens[: p + 1])
        for chunk in plan.chunks:
            self.check_text(chunk.sequence.tokens[: chunk.end], chunk.sequence.table, since=chunk.start)

    def check_text(self, text: list[int], table: list[int], since: int | None = None) -> None:
        """Every slot that a token at `since` or later may read holds this very text."""
        since = len(text) if since is None else since
        for part, blocks in self.pool.split(table):
            for p in range(0 if part.window is None else max(since - part.window + 1, 0), len(text)):
                block = blocks[p // part.block_size]
                assert block != part.null_block
                assert self.slots[part, block, p % part.block_size] == tuple(text[: p + 1])

    def read(self, line: Sequence, position: int) -> None:
        """What the engine does with the logits after a position."""
        if line.state is SequenceState.FINISHED:
            return
        members = [line, *(follower for follower in line.followers if follower.state is not SequenceState.FINISHED)]
        self.scheduler.fork(line)
        for member in members:
            if line.goal == "generate":
                member.append(hash((*member.tokens, member.index)) % 2)
                if member.num_answer >= member.max_tokens:
                    self.end(member)
            elif member.goal == "score":
                if len(member.tokens) > member.num_prompt:
                    member.logprobs.append(0.0)
                if len(member.logprobs) >= member.num_answer:
                    self.end(member)
        if line.goal == "prefix":
            self.end(line)

    def end(self, line: Sequence) -> None:
        self.scheduler.finish(line)
        self.known = [*self.known[-20:], tuple(line.tokens)]
        del self.live[line.arrival]


SchedulerMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None, derandomize=True, print_blob=False
)
TestScheduler = SchedulerMachine.TestCase


class EngineMachine(RuleBasedStateMachine):
    """The whole engine with a tiny model: every answer is what an engine with nothing else to do gives, or is aborted."""

    @initialize(
        blocks=st.integers(9, 40),
        window=st.sampled_from([None, 20]),
        only_windows=st.booleans(),
        speculation=st.sampled_from(["off", "prompt_lookup"]),
        max_sequences=st.integers(1, 9),
        batch=st.integers(2, 60),
    )
    def start(
        self, blocks: int, window: int | None, only_windows: bool, speculation: str, max_sequences: int, batch: int
    ) -> None:
        self.shape: dict[str, Any] = {"window": window, "only_windows": only_windows}
        self.settings: dict[str, Any] = {"speculation": speculation, "weights": WEIGHTS}
        self.engine = tiny_engine(
            **self.shape,
            kv_memory_bytes=16 * 512 * blocks,
            max_sequences=max_sequences,
            max_batch_tokens=max_sequences + batch,
            **self.settings,
        )
        self.most = (min(part.num_blocks for part in self.engine.pool.pools) - 1) * 16
        self.seed = 0
        self.requests: dict[int, tuple[Request, int]] = {}
        self.scores: dict[int, tuple[Text, list[Text], int]] = {}
        self.found: dict[tuple[int, int], list[Output]] = {}
        self.dropped: set[tuple[int, int]] = set()
        self.holds: list[PinnedPrefix] = []
        self.known: list[Text] = [tuple(range(30))]

    @rule(
        start=st.integers(0, 1 << 16),
        cut=st.integers(0, 30),
        more=st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=20),
        n=st.integers(1, 4),
        new=st.integers(1, 30),
        way=st.integers(0, 2),
        priority=st.integers(-1, 1),
        owner=st.sampled_from("abc"),
    )
    def add(self, start: int, cut: int, more: list[int], n: int, new: int, way: int, priority: int, owner: str) -> None:
        text = self.known[start % len(self.known)]
        prompt = (*text[: max(len(text) - cut, 0)], *more)
        ways = [{}, {"temperature": 1.0, "seed": start}, {"temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.2}]
        sampling = Sampling(max_tokens=new, **{"seed": 1, **ways[way]})
        request = Request(prompt, sampling, n=n, priority=priority, owner=owner)
        try:
            self.requests[self.engine.add(request)] = (request, self.seed)
        except FirsthandError:
            assert len(prompt) + new > min(256, self.most)

    @rule(start=st.integers(0, 1 << 16), continuations=st.lists(st.lists(LETTERS, max_size=9), max_size=4))
    def score(self, start: int, continuations: list[list[int]]) -> None:
        text = self.known[start % len(self.known)]
        try:
            request_id = self.engine.add_score(text, continuations)
        except FirsthandError:
            assert len(text) + 9 > min(256, self.most)
            return
        self.scores[request_id] = (text, [tuple(c) for c in continuations], self.seed)

    @precondition(lambda self: self.engine.has_work)
    @rule(times=st.integers(1, 12))
    def step(self, times: int) -> None:
        for _ in range(times):
            for output in self.engine.step():
                key = (output.request_id, output.index)
                assert output.error is None and key not in self.dropped
                outputs = self.found.setdefault(key, [])
                assert not outputs or not outputs[-1].is_last, "an answer ends once"
                outputs.append(output)
                if output.is_last and output.request_id in self.requests:
                    prompt = self.requests[output.request_id][0].prompt
                    self.known = [*self.known[-20:], (*prompt, *tokens(outputs))[:200]]

    @precondition(lambda self: self.requests or self.scores)
    @rule(place=st.integers(0, 1 << 16), whole=st.booleans())
    def abort(self, place: int, whole: bool) -> None:
        """One of the youngest requests or scores, or one answer or continuation of it."""
        sizes = {request_id: request.n for request_id, (request, _) in self.requests.items()}
        sizes |= {request_id: len(continuations) for request_id, (_, continuations, _) in self.scores.items()}
        request_id = sorted(sizes)[-1 - place % min(len(sizes), 8)]
        index = None if whole else place % max(sizes[request_id], 1)
        self.engine.abort(request_id, index)
        self.dropped |= {(request_id, i) for i in range(sizes[request_id]) if index in (None, i)}

    @rule(place=st.integers(0, 1 << 16))
    def hold(self, place: int) -> None:
        self.holds.append(self.engine.pin_prefix(self.known[place % len(self.known)]))

    @precondition(lambda self: self.holds)
    @rule(place=st.integers(0, 1 << 16))
    def release(self, place: int) -> None:
        self.engine.unpin_prefix(self.holds.pop(place % len(self.holds)))

    @rule(seed=st.integers(0, 1))
    def load(self, seed: int) -> None:
        """New weights; what is under way then mixes both, so it is not compared."""
        if not self.engine.has_work:
            self.seed = seed
            model = tiny_model(seed, **self.shape)
            self.engine.load(model.state_dict(), version=seed)

    @invariant()
    def memory_is_whole(self) -> None:
        if hasattr(self, "engine"):
            self.engine.pool.check()
            stats = self.engine.stats()
            assert stats.used_blocks + stats.free_blocks == stats.num_blocks
            assert stats.running or stats.used_blocks == stats.pinned_blocks

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        while self.engine.has_work:
            self.step(1)
            self.memory_is_whole()
        for hold in self.holds:
            self.engine.unpin_prefix(hold)
        stats = self.engine.stats()
        assert (stats.used_blocks, stats.pinned_blocks, stats.pinned_prefixes) == (0, 0, 0)
        assert not self.engine.live and self.engine.live.num_tokens == 0
        for request_id, (request, seed) in self.requests.items():
            alone = None
            for index in range(request.n):
                key = (request_id, index)
                if key in self.dropped:
                    continue
                alone = alone or self.alone(request, seed)
                assert self.found[key][-1].is_last and tokens(self.found[key]) == alone[index]
        for request_id, (text, continuations, seed) in self.scores.items():
            plain = self.engine_alone(seed).score(text, continuations) if continuations else []
            for index, expected in enumerate(plain):
                if (request_id, index) in self.dropped:
                    continue
                (output,) = self.found[request_id, index]
                assert output.token_ids == continuations[index] and output.logprobs == expected.logprobs

    def engine_alone(self, seed: int) -> Any:
        return tiny_engine(seed, **self.shape, weights=WEIGHTS)

    def alone(self, request: Request, seed: int) -> list[Text]:
        engine = self.engine_alone(seed)
        engine.add(request)
        found = drain(engine)
        return [tokens(found[0, index]) for index in range(request.n)]


EngineMachine.TestCase.settings = settings(
    max_examples=8, stateful_step_count=120, deadline=None, derandomize=True, print_blob=False
)
TestEngine = pytest.mark.slow(
    pytest.mark.skipif(WEIGHTS != "float16", reason="needs equal rows")(EngineMachine.TestCase)
)
