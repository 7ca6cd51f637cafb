"""Priorities, fairness between runs, aging, and who makes room."""

import random
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from engine_tiny import tiny_model
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.request_queue import AGING_S, MAX_IDLE, Heap, WaitingQueue
from firsthand.engine.core.scheduler import Scheduler
from firsthand.engine.core.sequence import Request, Sequence, SequenceState
from firsthand.engine.core.step_plan import StepPlan
from firsthand.engine.memory.blocks import BlockPool
from firsthand.model import Sampling


class Bench:
    """A scheduler with a made-up model, a clock that is set by hand, and a count of what each run got."""

    def __init__(self, *, blocks: int = 4000, tokens: int = 64, sequences: int = 8, shared: int | None = None):
        self.now = 0.0
        self.s = Scheduler(
            BlockPool(blocks, 4),
            max_batch_tokens=tokens,
            max_sequences=sequences,
            shared_prompt_tokens=shared,
            clock=lambda: self.now,
        )
        self.got: Counter[str] = Counter()
        self.ended: list[int] = []
        self.next_id = 0

    def add(
        self, owner: str = "", *, prompt: int | list[int] = 8, answer: int = 8, priority: int = 0, n: int = 1
    ) -> Sequence:
        tokens = prompt if isinstance(prompt, list) else [self.next_id * 1000 + i for i in range(prompt)]
        lines = [
            Sequence(self.next_id, i, list(tokens), len(tokens), max_tokens=answer, owner=owner, priority=priority)
            for i in range(n)
        ]
        lines[0].followers = lines[1:]
        self.next_id += 1
        self.s.add(lines[0])
        return lines[0]

    def step(self, count: int = 1) -> StepPlan:
        for _ in range(count):
            plan = self.s.plan()
            assert plan.num_tokens == sum(c.end - c.start for c in plan.chunks) <= self.s.max_batch_tokens
            assert len({chunk.sequence for chunk in plan.chunks}) == len(plan.chunks), "a sequence is computed twice"
            for chunk in plan.chunks:
                line = chunk.sequence
                self.got[line.owner] += chunk.end - chunk.start
                wanted = bool(chunk.logit_positions)
                self.s.advance(chunk)
                if wanted:
                    members = [line, *line.followers]
                    self.s.fork(line)
                    for member in members:
                        member.append(7 + member.index)
                        if member.num_answer >= member.max_tokens:
                            self.s.finish(member)
                            self.ended.append(member.request_id)
            self.s.pool.check()
        return plan


@pytest.mark.slow
def test_a_single_request_does_not_wait_behind_ten_thousand_of_another_run() -> None:
    b = Bench()
    for _ in range(10_000):
        b.add("heavy", answer=400)
    b.step(5)
    one = b.add("light")
    b.step()
    assert one.state is SequenceState.RUNNING, "it takes the place of one of those many"
    b.step(9)
    assert one.request_id in b.ended


@pytest.mark.slow
def test_runs_get_equal_shares_however_much_they_queue_and_however_long_their_prompts_are() -> None:
    b = Bench()
    shapes = {"many short": (8, 4), "long prompts": (200, 2), "long answers": (4, 60)}
    for owner, (prompt, answer) in shapes.items():
        for _ in range(900):
            b.add(owner, prompt=prompt, answer=answer)
    b.step(60)
    b.got.clear()
    b.step(400)
    total = sum(b.got.values())
    assert all(0.25 < b.got[owner] / total < 0.42 for owner in shapes), b.got


def test_a_long_prompt_does_not_hold_up_a_short_one_of_another_run() -> None:
    b = Bench()
    long = b.add("long", prompt=3000)
    b.step(3)
    short = b.add("short", prompt=5, answer=1)
    b.step(2)
    assert short.request_id in b.ended and long.num_computed < 400


def test_within_a_run_requests_go_in_the_order_they_came() -> None:
    b = Bench(sequences=1)
    for _ in range(20):
        b.add("one", answer=2)
    while b.s.has_work:
        b.step()
    assert b.ended == sorted(b.ended)


@pytest.mark.slow
def test_a_run_saves_nothing_up_by_pausing_and_pays_for_what_it_took_too_much() -> None:
    b = Bench(sequences=1)
    b.add("idle", answer=1)
    b.step(2)
    for _ in range(50):
        b.add("busy", answer=20)
    b.step(500)
    for _ in range(50):
        b.add("idle", answer=20)
    b.got.clear()
    b.step(300)
    assert abs(b.got["idle"] - b.got["busy"]) < 60, b.got


def test_lower_numbers_go_first_and_take_the_place_of_higher_ones() -> None:
    b = Bench(sequences=2)
    background = [b.add("same", answer=100, priority=5) for _ in range(6)]
    b.step(3)
    urgent = b.add("same", answer=3, priority=-1)
    plain = b.add("same", answer=3)
    b.step()
    assert {line.request_id for line in b.s.running} == {urgent.request_id, plain.request_id}
    b.step(3)
    assert b.ended == [urgent.request_id, plain.request_id]
    b.step(1)
    assert all(line in background for line in b.s.running)
    assert b.s.num_cached_tokens == 0 and all(line.num_computed > 8 for line in b.s.running), "it goes on where it was"


def test_memory_is_taken_from_the_lowest_priority_then_from_the_youngest() -> None:
    b = Bench(blocks=9, sequences=4, tokens=32)
    low = b.add(answer=20, priority=1)
    b.step()
    old, young = b.add(answer=20), b.add(answer=20)
    lost: list[Sequence] = []
    while b.s.has_work:
        before = list(b.s.running)
        b.step()
        lost += [line for line in before if line.state is SequenceState.WAITING]
    assert lost[:2] == [low, young], "the low one came first and lost its memory first; of equals the youngest"
    assert old not in lost
    assert b.ended == [old.request_id, young.request_id, low.request_id]


def test_waiting_makes_up_for_priority_in_the_end() -> None:
    b = Bench(sequences=1, tokens=9)
    low = b.add(answer=4, priority=2)
    b.add(answer=4)
    for _ in range(3):
        b.step(2)
        b.add(answer=4)
    assert low.state is SequenceState.WAITING
    b.now = 2 * AGING_S + 1
    for _ in range(12):
        b.add(answer=4)
    for _ in range(200):
        if low.request_id in b.ended:
            break
        b.step()
    assert low.request_id in b.ended
    assert len(b.ended) < 8, "those that came later by two levels' worth of waiting let it pass"


def test_no_request_starves_while_higher_priorities_never_stop_coming() -> None:
    b = Bench(sequences=2, tokens=16)
    low = b.add("batch", answer=30, priority=3)
    for _ in range(500):
        b.now += 0.5
        if b.now % 2 == 0:
            b.add("chat", answer=6)
            b.add("chat", answer=6)
        b.step()
        if low.request_id in b.ended:
            break
    assert low.request_id in b.ended and AGING_S < b.now < 6 * AGING_S
    assert len(b.s.waiting) > 5, "there was more to do than could be done"


@pytest.mark.slow
def test_a_next_turn_has_its_conversations_place_in_the_queue() -> None:
    b = Bench(sequences=2, tokens=32)
    first = [b.add("agents", answer=5), b.add("agents", answer=5)]
    cold = [b.add("agents", answer=5) for _ in range(500)]
    while first[0].request_id not in b.ended:
        b.step()
    turn = b.add("agents", prompt=[*first[0].tokens, 1, 2, 3], answer=5)
    also_cold = b.add("agents", prompt=[*first[0].tokens[:-2], 1, 2, 3], answer=5)
    while turn.request_id not in b.ended:
        b.step()
    assert turn.num_cached == len(first[0].tokens) - 1
    assert len(b.ended) < 8
    assert also_cold.request_id not in b.ended, "a text that only begins alike is not the same conversation"
    assert cold[-1].request_id not in b.ended


def test_samples_of_one_prompt_do_not_take_all_places_from_another_run() -> None:
    b = Bench(sequences=4, tokens=32)
    chats = [b.add("chat", answer=4) for _ in range(12)]
    b.add("samples", answer=20, n=40)
    while any(chat.request_id not in b.ended for chat in chats):
        b.step()
    assert b.ended.count(12) < 8
    while b.s.has_work:
        b.step()
    assert b.ended.count(12) == 40 and b.got["samples"] == 8 + 40 * 19, "and none computes the prompt again"


def test_samples_leave_free_places_to_those_who_are_before_them() -> None:
    b = Bench(sequences=4, tokens=12)
    b.add("samples", answer=20, n=40)
    for _ in range(5):
        b.add("chat", answer=20)
    b.step()
    assert [line.owner for line in b.s.running] == ["samples", "chat"], "the step was full before the second chat"
    b.step(3)
    assert Counter(line.owner for line in b.s.running) == {"chat": 2, "samples": 2}


def test_an_owners_only_answer_is_not_taken_for_another_owner_and_the_youngest_of_several_is() -> None:
    b = Bench(sequences=1)
    first = b.add("a", answer=30)
    b.step(2)
    b.add("b", answer=3)
    b.step(5)
    assert b.s.running == [first] and b.s.num_preemptions == 0
    b = Bench(sequences=2)
    old, young = b.add("a", answer=30), b.add("a", answer=30)
    b.step(2)
    other = b.add("b", answer=30)
    b.step(5)
    assert b.s.running == [old, other] and b.s.num_preemptions == 1 and young.state is SequenceState.WAITING


def test_an_owner_is_charged_what_was_computed_for_it_and_shared_prompts_once() -> None:
    b = Bench(sequences=4, tokens=32)
    prompt = list(range(40))
    b.add("one", prompt=prompt, answer=5, n=7)
    b.add("one", prompt=[*prompt, 1, 2, 3], answer=4, n=2)  # which finds the first 40 in the cache
    b.add("one", prompt=9, answer=2)
    while b.s.has_work:
        b.step()
    assert b.s.num_preemptions == 0
    assert b.s.waiting._flows[0, "one"].served == b.got["one"]
    once, others = (40 + 7 * 4) + (3 + 2 * 3) + (9 + 1), 8
    assert once <= b.got["one"] <= once + others, (
        "an answer that had to wait computes the last token of its prompt again"
    )


def test_preempted_tokens_are_not_charged_twice() -> None:
    w = WaitingQueue()
    a, b = (Sequence(i, 0, [1] * 10, 10, owner=owner) for i, owner in enumerate("ab"))
    for line in (a, b):
        w.add(line)
    w.start(a)
    w.charge(a, 10)
    w.charge(a, 4)
    w.put_back(a)
    assert w.first() is b
    w.start(b)
    w.charge(b, 9)
    w.put_back(b)
    assert w.first() is b, "a was served 10 tokens and b 9"
    w.start(b)
    w.charge(b, 8)
    w.charge(b, 10)
    w.put_back(b)
    assert w.first() is a, "now both got 10, and a came first"


@pytest.mark.slow
def test_names_of_runs_are_forgotten() -> None:
    b = Bench()
    for i in range(2 * MAX_IDLE):
        b.add(f"run {i}", prompt=2, answer=1)
    while b.s.has_work:
        b.step()
    assert len(b.s.waiting._flows) <= MAX_IDLE
    assert not b.s.waiting._levels


def test_a_heap_with_removals_and_changes_equals_a_sorted_list() -> None:
    rng = random.Random(3)
    heap: Heap[int] = Heap()
    plain: dict[int, tuple[float, ...]] = {}
    for _ in range(4000):
        item, key = rng.randrange(60), (rng.randrange(20), rng.random())
        if rng.random() < 0.5:
            heap.push(item, key)
            plain[item] = key
        else:
            heap.remove(item)
            plain.pop(item, None)
        assert heap.first() == min(plain, key=lambda item: plain[item], default=None)
        assert len(heap) == len(plain) and len(heap._entries) <= 2 * len(plain) + 64


def calls_of(work: Callable[[], Any]) -> tuple[int, Any]:
    """How many functions are called, ours and C's, and what comes of it."""
    count = 0

    def note(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        found = work()
    finally:
        sys.setprofile(None)
    return count, found


@pytest.mark.slow
def test_planning_and_aborting_do_not_depend_on_the_length_of_the_queue() -> None:
    def calls(waiting: int) -> tuple[int, float]:
        b = Bench(blocks=20_000, tokens=512, sequences=64)
        lines = [b.add(f"run {i % 50}", prompt=40, answer=10**6) for i in range(64 + waiting)]
        b.step(20)
        plans = []
        for _ in range(30):
            count, plan = calls_of(b.s.plan)
            plans.append(count)
            for chunk in plan.chunks:
                b.s.advance(chunk)
                chunk.sequence.append(7)
        victims = [line for line in lines if line.state is SequenceState.WAITING][-200:]
        return sorted(plans)[15], sum(calls_of(partial(b.s.finish, line))[0] for line in victims) / 200

    (short, few), (long, many) = calls(200), calls(10_000)
    assert long < 1.2 * short + 50, f"{short} calls a plan with 200 waiting, {long} with 10,000"
    assert many < 2 * few + 50, f"{few} calls an abort with 200 waiting, {many} with 10,000"


def test_a_long_prompt_adds_a_bounded_number_of_tokens_to_each_step_of_another_owners_answer() -> None:
    b = Bench(tokens=512, sequences=64, shared=64)
    long = b.add("long", prompt=3900)
    plan = b.step()
    assert plan.num_tokens == 512, "alone, it fills the step"
    short = b.add("short", prompt=20, answer=8)
    first = b.step()
    assert {chunk.sequence.owner for chunk in first.chunks} == {"long", "short"} and short.num_answer == 1
    assert first.num_tokens == 64 + 20
    for answered in range(2, 9):
        assert b.step().num_tokens == 64 + 1 and short.num_answer == answered
    assert short.request_id in b.ended and long.num_computed == 512 + 8 * 64, "and the long one goes on meanwhile"
    assert b.step().num_tokens == 512, "alone again"


def test_many_long_prompts_of_one_owner_share_what_one_of_them_may_have() -> None:
    b = Bench(tokens=512, sequences=64, shared=64)
    for _ in range(5):
        b.add("long", prompt=700)
    b.add("chat", prompt=4, answer=50)
    b.step()
    for _ in range(20):
        plan = b.step()
        prompts = [chunk for chunk in plan.chunks if chunk.sequence.owner == "long" and chunk.end > chunk.start + 1]
        assert sum(chunk.end - chunk.start for chunk in prompts) <= 64


def test_prompts_fill_the_step_where_nobody_waits_for_it() -> None:
    alone = Bench(tokens=512, sequences=64, shared=64)
    for _ in range(4):
        alone.add("one", prompt=400, answer=40)
    assert alone.step().num_tokens == 512
    crowd = Bench(tokens=512, sequences=64, shared=64)
    for _ in range(10):
        crowd.add("crowd", prompt=4, answer=60)
    crowd.step()
    crowd.add("other", prompt=900)
    assert crowd.step().num_tokens == 512, "an owner of many requests wants throughput"
    lower = Bench(tokens=512, sequences=64, shared=64)
    lower.add("background", prompt=4, answer=60, priority=3)
    lower.step()
    lower.add("urgent", prompt=900)
    assert lower.step().num_tokens == 512, "nobody of higher priority keeps a step short for one of lower priority"


def test_short_steps_for_another_owner_change_no_bit_of_an_answer() -> None:
    rng = random.Random(5)
    prompts = {owner: tuple(rng.randrange(90) for _ in range(size)) for owner, size in (("long", 300), ("short", 9))}

    def answers(owners: list[str], shared: int | None) -> dict[str, list[tuple[tuple[int, ...], tuple[float, ...]]]]:
        engine = Engine(tiny_model(3, max_position=512), EngineConfig(kv_memory_bytes=1 << 22))
        engine.scheduler.shared_prompt_tokens = shared or engine.config.max_batch_tokens
        ids = {
            engine.add(Request(prompts[owner], Sampling(max_tokens=6, seed=1), owner=owner)): owner for owner in owners
        }
        found: dict[str, list[tuple[tuple[int, ...], tuple[float, ...]]]] = {owner: [] for owner in owners}
        while engine.has_work:
            for output in engine.step():
                found[ids[output.request_id]].append((output.token_ids, output.logprobs))
        return found

    assert Engine(tiny_model(3), EngineConfig(kv_memory_bytes=1 << 22)).scheduler.shared_prompt_tokens == 64
    together = answers(["long", "short"], 16)
    assert together == answers(["long", "short"], None)
    assert together == answers(["long"], None) | answers(["short"], None)
