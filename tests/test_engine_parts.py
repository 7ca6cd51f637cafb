"""Parts of the engine without a model: limits, shares, victims, memory, adapters and counters, to the last number."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine_tiny import VOCAB, tiny_model
from firsthand.engine.compute.adapter_slots import AdapterSlots, check_adapter_name
from firsthand.engine.compute.devices import explain_out_of_memory, kv_bytes_on, pick_device
from firsthand.engine.compute.packing import fitting_state, kv_dtype
from firsthand.engine.compute.request_taps import RequestTaps
from firsthand.engine.core import request_checks as checks
from firsthand.engine.core.admission import answer_sequences, score_sequences
from firsthand.engine.core.engine_config import EngineConfig, default_kv_bytes
from firsthand.engine.core.live_requests import LiveRequests
from firsthand.engine.core.outputs import Output, join_outputs, score_output
from firsthand.engine.core.prompt_shares import PromptShares
from firsthand.engine.core.request_queue import AGING_S, Heap, WaitingQueue, rank
from firsthand.engine.core.scheduler import Scheduler
from firsthand.engine.core.sequence import Request, Sequence, SequenceChunk, Source
from firsthand.engine.core.step_plan import StepPlan
from firsthand.engine.memory.available_memory import free_bytes
from firsthand.engine.memory.blocks import BlockCopy, BlockPool
from firsthand.engine.memory.pinned_prefixes import PinnedPrefixes
from firsthand.engine.memory.prefix_cache import adapter_of, space_of
from firsthand.engine.memory.window_pool import SlidingWindowPool, divide, open_pool
from firsthand.errors import ConfigError, ModelError, PromptTooLong, QueueFull
from firsthand.model import Sampling

ARCHITECTURE = tiny_model().architecture
"""96 tokens, a context of 256."""


def sequence(id: int, count: int = 4, **fields: Any) -> Sequence:
    return Sequence(id, 0, list(range(count)), count, **fields)


# -- what a request may ask for --


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"n": 0}, "n is 0: give 1 to 1024"),
        ({"n": 1025}, "n is 1025"),
        ({"priority": -1001}, "priority is -1001: give -1000 to 1000"),
        ({"priority": 1001}, "priority is 1001"),
        ({"owner": "x" * 257}, "owner is "),
        ({"salt": "x" * 257}, "salt is "),
        ({"prompt": (1,) * 256}, "the prompt has 256 tokens and at least 1 must follow: the model's context is 256"),
        ({"prompt": ()}, "the prompt is empty"),
        ({"prompt": (1, VOCAB)}, "token 1 of the prompt is 96: expected a whole number from 0 to 95"),
        ({"prompt": (1, 2, -1)}, "token 2 of the prompt is -1"),
        ({"prompt": "ab"}, "token 0 of the prompt is 'a'"),
        ({"stop_ids": frozenset(range(1025))}, "there are 1025 stop_ids: give at most 1024"),
        ({"stop_ids": frozenset({VOCAB})}, "of stop_ids is 96"),
        ({"sampling": Sampling(seed=2**64)}, "seed is "),
        ({"sampling": Sampling(seed=-(2**63) - 1)}, "seed is "),
        ({"sampling": Sampling(logit_bias=((VOCAB, 1.0),))}, "of logit_bias is 96"),
        ({"sampling": Sampling(stop_ids=(VOCAB,))}, "of stop_ids is 96"),
        ({"sampling": Sampling(allowed_token_ids=(VOCAB,))}, "of allowed_token_ids is 96"),
        ({"sampling": Sampling(bad_words=("a",))}, "bad_words that were not encoded"),
        ({"bad_sequences": ((1,), (2, VOCAB))}, "token 1 of bad sequence 1 is 96"),
        ({"bad_sequences": ((1,), ())}, "bad sequence 1 is empty"),
        ({"bad_sequences": ((1,),) * (checks.MAX_BAD_SEQUENCES + 1)}, "bad_sequences: give at most"),
        ({"stopper": 3}, "stopper is 3: give None or a function"),
    ],
)
def test_a_request_is_refused_just_beyond_each_limit(fields: dict[str, Any], said: str) -> None:
    with pytest.raises((ConfigError, ModelError)) as caught:
        checks.check_request(Request(**{"prompt": (1, 2), **fields}), ARCHITECTURE)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1024}, {"priority": -1000}, {"priority": 1000}, {"owner": "x" * 256, "salt": "y" * 256}, {"prompt": (95,) * 255},
        {"sampling": Sampling(top_logprobs=100, seed=2**64 - 1)}, {"sampling": Sampling(seed=-(2**63))},
        {"sampling": Sampling(logit_bias=((95, 1.0), (0, 1.0)), stop_ids=(0, 95), allowed_token_ids=(0, 95))},
        {"stop_ids": frozenset({0, 95})}, {"bad_sequences": ((1,),) * checks.MAX_BAD_SEQUENCES},
        {"sampling": Sampling(bad_words=("a",)), "bad_sequences": ((1,),)},
    ],
)  # fmt: skip
def test_a_request_is_taken_at_each_limit(fields: dict[str, Any]) -> None:
    checks.check_request(Request(**{"prompt": (1, 2), **fields}), ARCHITECTURE)


def test_as_many_stop_ids_as_are_allowed_are_taken() -> None:
    wide = replace(ARCHITECTURE, vocab_size=2000)
    checks.check_request(Request((1,), stop_ids=frozenset(range(1024))), wide)
    with pytest.raises(ConfigError, match="there are 1025 stop_ids"):
        checks.check_request(Request((1,), stop_ids=frozenset(range(1025))), wide)


def test_a_score_is_checked_to_its_last_token() -> None:
    def check(prefix: Any, continuations: Any, **more: Any) -> None:
        checks.check_score(prefix, continuations, more.pop("priority", 0), more.pop("owner", ""), ARCHITECTURE, **more)

    check((1,) * 200, [(1,) * 56, (), (95,)], top=100, salt="x" * 256, priority=1000, owner="o" * 256)
    check((1,) * 256, [])
    for prefix, continuations, more, said in (
        ((1,) * 200, [(1,), (1,) * 57], {}, "the prompt has 200 tokens and at least 57 must follow"),
        ((1,), [(1,), (2, 96)], {}, "token 1 of continuation 1 is 96"),
        ((), [(1,)], {}, "the prefix is empty"),
        ((1,), [(1,), 5], {}, "continuation 1 is 5"),
        ((1,), 5, {}, "the argument continuations is 5: give a tuple or list of continuations"),
        (5, [], {}, "the prefix is 5: give a tuple or list of token ids"),
        ((1,), [(1,)], {"top": 101}, "top is 101"),
        ((1,), [(1,)], {"salt": "x" * 257}, "salt is"),
        ((1,), [(1,)], {"owner": "x" * 257}, "owner is"),
        ((1,), [(1,)], {"priority": 1001}, "priority is 1001"),
        ((1,), [()] * 65537, {}, "there are 65537 continuations: give at most 65536"),
    ):
        with pytest.raises((ConfigError, ModelError)) as caught:
            check(prefix, continuations, **more)
        assert said in str(caught.value), said
    checks.check_prefix((1, 2), "s", ARCHITECTURE)
    for tokens, salt in (((), ""), ((96,), ""), ((1,), "x" * 257)):
        with pytest.raises((ConfigError, ModelError)):
            checks.check_prefix(tokens, salt, ARCHITECTURE)


def test_a_sequence_has_room_up_to_the_last_block() -> None:
    pool, near = BlockPool(5, 16), BlockPool(8, 16, window=32)
    checks.check_room(60, 20, pool, 512)
    with pytest.raises(PromptTooLong, match="may need 96 tokens of memory and there is room for 80"):
        checks.check_room(61, 20, pool, 512)
    assert (near.num_usable, near.most_blocks_for(1000, 16), near.most_blocks_for(33, 16)) == (7, 5, 3)
    checks.check_room(1000, 0, near, 48)
    with pytest.raises(PromptTooLong, match="may need 128 tokens of memory and there is room for 112"):
        checks.check_room(1000, 0, near, 49)
    both = SlidingWindowPool(pool, near)
    assert (both.num_usable, both.num_available, both.num_blocks, both.block_size) == (12, 5, 5, 16)
    with pytest.raises(PromptTooLong, match="room for 80"):
        checks.check_room(81, 0, both, 16)


def test_the_queue_refuses_at_its_limits_and_counts_it() -> None:
    live = LiveRequests(max_tokens=10, max_waiting=2)
    live.check_room(10, num_waiting=1)
    with pytest.raises(ConfigError, match="have 11 prompt tokens together and the engine takes 10"):
        live.check_room(11, num_waiting=0)
    assert live.num_refused == 0
    with pytest.raises(QueueFull, match=r"2 requests wait \(at most 2 may\) and 0 prompt tokens"):
        live.check_room(1, num_waiting=2)
    answers = [sequence(0, 3), Sequence(0, 1, [1, 2, 3, 4, 5], 3, goal="score")]
    live.enter(answers)
    assert (live.num_tokens, live.next_id, len(live), 0 in live, 1 in live) == (8, 1, 1, True, False)
    live.check_room(2, num_waiting=0)
    with pytest.raises(QueueFull, match="8 prompt tokens are live"):
        live.check_room(3, num_waiting=0)
    assert live.num_refused == 2 and live.sequences(0) == answers and live.sequences(7) == []
    assert live.leave(answers[1]) and live.num_tokens == 3 and 0 in live and not live.leave(answers[1])
    assert live.leave(answers[0]) and live.num_tokens == 0 and 0 not in live and live.num_tokens == 0


# -- sequences --


def test_a_request_becomes_a_sequence_for_each_answer() -> None:
    taps, stopper = RequestTaps({}), lambda: SimpleNamespace(feed=lambda token: False)
    sampling = Sampling(seed=0, min_tokens=2, top_logprobs=1)
    request = Request(
        (1, 2, 3), sampling, 3, frozenset({9}), stopper, ((4, 5),), None, 7, "own", None, "salt", (8,), taps
    )
    made = answer_sequences(request, 5, VOCAB, max_tokens=6, adapter=None)
    assert [(each.request_id, each.index, each.tokens, each.num_prompt) for each in made] == [
        (5, index, [1, 2, 3], 3) for index in range(3)
    ]
    assert made[0].tokens is not made[1].tokens and made[0].followers == made[1:] and made[1].followers == []
    one = made[1]
    assert (one.seed, one.max_tokens, one.stop_ids, one.priority, one.owner, one.salt) == (0, 6, {9}, 7, "own", "salt")
    assert one.taps is taps and one.sampling is sampling and one.stopper is not made[0].stopper
    assert one.source is made[0].source and one.source is not None and one.source.ids == (8,)
    assert one.token_filter is made[0].token_filter and one.token_filter is not None and one.token_filter.binds(1)
    plain = answer_sequences(Request((1,)), 0, VOCAB, max_tokens=1, adapter=None)[0]
    assert (plain.token_filter, plain.source, plain.stopper, plain.guide, plain.taps) == (None,) * 5
    seeds = {answer_sequences(Request((1,)), 0, VOCAB, max_tokens=1, adapter=None)[0].seed for _ in range(3)}
    assert len(seeds) == 3 and all(0 <= seed < 2**62 for seed in seeds)
    for fields in ({"allowed_token_ids": (1,)}, {"min_tokens": 1}):
        assert answer_sequences(Request((1,), Sampling(**fields)), 0, VOCAB, max_tokens=1, adapter=None)[0].token_filter


def test_continuations_follow_the_sequence_of_their_prefix() -> None:
    taps = RequestTaps({}, edits=False)
    lead, *others = score_sequences(
        (1, 2),
        [(3,), (4, 5)],
        6,
        top=3,
        priority=2,
        owner="o",
        adapter=None,
        salt="s",
        distribution=True,
        source=(9,),
        taps=taps,
    )
    assert (lead.index, lead.tokens, lead.num_prompt, lead.goal, lead.followers) == (-1, [1, 2], 2, "prefix", others)
    assert [(each.index, each.tokens, each.num_prompt, each.goal) for each in others] == [
        (0, [1, 2, 3], 2, "score"), (1, [1, 2, 4, 5], 2, "score"),
    ]  # fmt: skip
    for each in (lead, *others):
        assert (each.request_id, each.priority, each.owner, each.salt, each.taps) == (6, 2, "o", "s", taps)
        assert each.source is lead.source and each.source is not None and each.source.ids == (9,)
    assert [each.keeps_distribution for each in others] == [True, True] and others[0].sampling.top_logprobs == 3
    assert [(each.num_needed, each.first_logit_position) for each in (lead, *others)] == [(2, 1), (2, 1), (3, 1)]
    bare = score_sequences((1,), [(2,)], 0, top=0, priority=0, owner="", adapter=None)
    assert bare[0].source is None and not bare[1].keeps_distribution


def test_a_sequence_knows_where_it_stands() -> None:
    made = Sequence(3, 1, [1, 2, 3, 4, 5], 3)
    assert (made.num_answer, made.num_needed, made.first_logit_position, made.arrival, made.place) == (
        2,
        5,
        4,
        (3, 1),
        (3, 3, 1),
    )
    made.conversation = 0
    assert made.place == (0, 3, 1)
    made.num_computed = 4
    assert made.is_ready
    made.num_computed = 3
    assert not made.is_ready
    made.num_computed, made.followers = 4, [sequence(9)]
    assert not made.is_ready
    fresh = Sequence(3, 0, [1, 2], 2, num_computed=1)
    assert not fresh.is_ready, "there is no answer yet"
    made.append(7)
    made.append(7)
    assert made.tokens[-2:] == [7, 7] and made.counts == Counter({7: 2})
    chunk = SequenceChunk(made, 2, 9, (20, 21))
    assert (chunk.draft_start, chunk.tokens, chunk.without_draft()) == (
        7,
        [3, 4, 5, 7, 7, 20, 21],
        SequenceChunk(made, 2, 7),
    )
    assert chunk.logit_positions == range(6, 9)
    assert chunk.is_draft_accepted(6) and not chunk.is_draft_accepted(7)
    made.append(20)
    assert chunk.is_draft_accepted(7) and not chunk.is_draft_accepted(8)
    made.append(99)
    assert not chunk.is_draft_accepted(8) and not chunk.is_draft_accepted(7)
    scored = Sequence(0, 0, [1, 2, 3, 4], 2, goal="score", logprobs=[-1.0])
    assert (scored.num_needed, scored.first_logit_position) == (3, 2)
    adapter: Any = SimpleNamespace(id=4)
    spaces = [
        Sequence(1, 0, [1], 1), Sequence(1, 0, [1], 1, adapter=adapter), Sequence(1, 0, [1], 1, adapter=adapter, salt="s"),
        Sequence(1, 0, [1], 1, source=Source((5,))), Sequence(1, 0, [1], 1, adapter=adapter, taps=RequestTaps({})),
        Sequence(1, 0, [1], 1, adapter=adapter, taps=RequestTaps({}, edits=False)),
    ]  # fmt: skip
    assert [each.space for each in spaces] == [None, 4, (4, "s"), (None, "", (5,)), (4, "", "tapped", 1), 4]
    assert [adapter_of(each.space) for each in spaces] == [None, 4, 4, None, 4, 4]
    assert space_of(None, "", ()) is None and space_of(3, "s", (1,)) == (3, "s", (1,))


# -- who is next, and who makes room --


def test_each_owner_has_its_share_of_a_step() -> None:
    shares = PromptShares({(0, "a"): 10}, 64)
    a, b, later = sequence(0, owner="a"), sequence(1, owner="b"), sequence(2, owner="a", priority=1)
    assert [shares.left(each) for each in (a, b, later)] == [10, 64, 64]
    shares.take(a, 7)
    shares.take(a, -5)
    shares.take(b, 64)
    assert [shares.left(each) for each in (a, b, later)] == [3, 0, 64]
    shares.take(a, 5)
    assert shares.left(a) == 0


def scheduler(**more: Any) -> Scheduler:
    return Scheduler(
        BlockPool(64, 16), **{"max_batch_tokens": 128, "max_sequences": 32, "clock": lambda: 100.0, **more}
    )


def running(made: Scheduler, *owners: tuple[str, int, int], first: int = 0) -> list[Sequence]:
    """Sequences by (owner, priority, count), which run."""
    begun = []
    for owner, priority, count in owners:
        for _ in range(count):
            each = sequence(first + len(begun), owner=owner, priority=priority)
            each.arrived_s = 50.0
            made._start(each)
            begun.append(each)
    return begun


@pytest.mark.parametrize(
    "owners, waits, expected",
    [
        ([("a", 0, 1), ("b", 0, 9)], None, {(0, "b"): 32}),
        ([("a", 0, 1), ("b", 0, 8)], None, {(0, "a"): 32, (0, "b"): 32}),
        ([("a", 0, 1), ("b", 0, 8)], ("b", 0), {(0, "b"): 32}),
        ([("a", 1, 1), ("b", 0, 9)], None, {}),
        ([("a", 0, 1), ("b", 1, 9)], None, {(1, "b"): 32}),
        ([("a", 0, 3)], None, {}),
        ([("a", 0, 9), ("b", 0, 9)], None, {}),
        ([("a", 0, 9)], ("b", 0), {(0, "a"): 32}),
        ([], None, {}),
    ],
)
def test_prompts_are_cut_short_for_another_owner_of_few_requests(owners: Any, waits: Any, expected: Any) -> None:
    made = scheduler(shared_prompt_tokens=32)
    running(made, *owners)
    if waits:
        made.waiting.add(sequence(99, owner=waits[0], priority=waits[1]))
    assert made._prompt_shares()._most == expected
    whole = scheduler(shared_prompt_tokens=128)
    running(whole, *owners)
    assert whole._prompt_shares()._most == {} and whole._prompt_shares().left(sequence(0)) == 128
    assert scheduler().shared_prompt_tokens == 128


def test_a_waiting_request_preempts_the_last_of_lower_priority_or_of_the_busiest_owner() -> None:
    def victim(made: Scheduler, owner: str, *, arrived_s: float = 50.0) -> Sequence | None:
        new = sequence(50, owner=owner)
        new.arrived_s = arrived_s
        made.waiting.add(new)
        found = made._victim_for(new)
        made.waiting.discard(new)
        return found

    made = scheduler()
    low = running(made, ("a", 0, 1), ("b", 2, 2), ("c", 1, 1))
    assert victim(made, "d") is low[2], "the last by rank of those of lower priority"
    assert victim(made, "d", arrived_s=50.0 + 1.5 * AGING_S) is low[2]
    late = victim(made, "d", arrived_s=50.0 + 3 * AGING_S)
    assert late is None, "those of lower priority have waited for as long as that counts"
    made = scheduler()
    peers = running(made, ("a", 0, 3), ("b", 0, 2))
    assert victim(made, "d") is peers[2], "the youngest of the owner with most"
    assert victim(made, "b") is None, "it has something running"
    made = scheduler()
    running(made, ("a", 0, 1), ("b", 0, 1))
    assert victim(made, "d") is None, "each owner keeps one"
    assert victim(scheduler(), "d") is None


def test_ranks_age_and_the_oldest_wait_is_told() -> None:
    old, urgent = sequence(1, priority=1), sequence(2, priority=0)
    old.arrived_s, urgent.arrived_s = 0.0, AGING_S - 1
    assert rank(urgent) < rank(old) == (AGING_S, 1, 0)
    urgent.arrived_s = AGING_S + 1
    assert rank(old) < rank(urgent)
    made = scheduler()
    assert made.oldest_wait_s == 0.0 and not made.has_work
    for each, at in ((sequence(1), 90.0), (sequence(2), 60.0)):
        made.add(each)
        each.arrived_s = at
    assert made.oldest_wait_s == 40.0 and made.has_work


def test_the_least_served_owner_is_first_and_a_pause_earns_nothing() -> None:
    queue = WaitingQueue()
    a, b, c = (sequence(id, owner=owner) for id, owner in ((1, "a"), (2, "b"), (3, "a")))
    for each in (a, c, b):
        queue.add(each)
    assert queue.first() is a and len(queue) == 3 and b in queue
    queue.start(a)
    queue.charge(a, 4)
    queue.charge(a, 3)
    assert a not in queue and queue.num_running(c) == 1 and a.num_charged == 4
    assert queue.order(c) == (0, 4, 3, 3, 0) and queue.order(b) == (0, 0, 2, 2, 0)
    assert queue.first() is b
    queue.start(b)
    queue.charge(b, 9)
    assert queue.first() is c
    d = sequence(4, owner="d")
    queue.add(d)
    assert queue.order(d)[1] == 4, "a newcomer is credited with the least served waiting owner"
    queue.stop(b)
    e = sequence(5, owner="b")
    queue.add(e)
    assert queue.order(e)[1] == 9, "what it had beyond its share is remembered"
    queue.discard(c)
    queue.discard(c)
    queue.put_back(a)
    assert queue.num_running(a) == 0 and a in queue and set(queue) == {a, d, e}
    urgent = sequence(6, owner="z", priority=-1)
    queue.add(urgent)
    assert queue.first() is urgent


def test_a_heap_gives_the_smallest_key_that_is_still_there() -> None:
    heap: Heap[str] = Heap()
    for item, key in (("a", 3.0), ("b", 2.0), ("c", 4.0)):
        heap.push(item, (key,))
    heap.push("b", (5.0,))
    assert (heap.first(), heap.key("b"), len(heap), "c" in heap, sorted(heap)) == (
        "a",
        (5.0,),
        3,
        True,
        ["a", "b", "c"],
    )
    heap.remove("a")
    heap.remove("a")
    assert heap.first() == "c"
    for _ in range(300):
        heap.push("c", (9.0,))
    assert heap.first() == "b" and len(heap._entries) <= 2 * 2 + 65
    for item in ("b", "c"):
        heap.remove(item)
    assert heap.first() is None and len(heap) == 0


def test_a_plan_loses_a_preempted_sequence_and_keeps_its_copies() -> None:
    plan, one, two = StepPlan(), sequence(0), sequence(1)
    plan.add(SequenceChunk(one, 0, 4), [BlockCopy(1, 2)])
    plan.add(SequenceChunk(two, 1, 4), [])
    plan.add(SequenceChunk(one, 4, 5), [BlockCopy(3, 4)])
    assert plan.num_tokens == 8
    plan.drop(one)
    assert [chunk.sequence for chunk in plan.chunks] == [two] and plan.num_tokens == 3
    assert plan.copies == [BlockCopy(1, 2), BlockCopy(3, 4)]


# -- results --


def test_outputs_of_one_answer_in_a_row_are_one() -> None:
    def out(id: int, index: int, *tokens: int, greedy: bool = True, **more: Any) -> Output:
        logprobs = tuple(-float(token) for token in tokens)
        return Output(id, index, tokens, logprobs, greedy, behaviour_logprobs=logprobs, **more)

    error = ModelError("x")
    parts = [
        out(0, 0, 1, top_logprobs=(((1, -1.0),),)), out(0, 0, 2, greedy=False, top_logprobs=(((2, -2.0),),), finish_reason="stop"),
        out(0, 1, 3), out(1, 1, 4), out(1, 1, error=error), out(0, 0, 5),
    ]  # fmt: skip
    joined = join_outputs(parts)
    assert joined[0] == Output(
        0, 0, (1, 2), (-1.0, -2.0), False, (((1, -1.0),), ((2, -2.0),)), "stop", behaviour_logprobs=(-1.0, -2.0)
    )
    assert joined[1:] == parts[2:] and join_outputs([]) == []
    scored = score_output(
        Output(
            0,
            0,
            (1,),
            (-0.5,),
            True,
            (((1, -0.5),),),
            "stop",
            prompt_tokens=4,
            cached_tokens=3,
            version=2,
            distribution=np.zeros(2),
        )  # fmt: skip
    )
    assert (scored.logprobs, scored.is_greedy, scored.prompt_tokens, scored.cached_tokens) == ((-0.5,), True, 4, 3)
    assert (scored.top_logprobs, scored.version) == ((((1, -0.5),),), 2) and scored.distribution is not None
    with pytest.raises(ModelError, match="x"):
        score_output(parts[4])
    assert [each.is_last for each in (parts[0], parts[1], parts[4])] == [False, True, True]


# -- memory --


def test_the_pools_are_divided_to_the_last_block() -> None:
    small = EngineConfig(max_batch_tokens=8, max_sequences=4)

    def opened(windows: Any, memory: int, config: EngineConfig = EngineConfig(), **more: Any) -> Any:
        options = {"layer_bytes": 100, "extra_bytes": 10, "max_position": 256, **more}
        made = open_pool(windows, config, memory_bytes=memory, **options)
        return tuple((part.num_blocks, part.window) for part in made.pools)

    assert opened((None, 32), 100_000) == ((740, None), (185, 32))
    assert opened((None, 32), 100_000, small) == ((879, None), (33, 32))
    assert opened((None, 32), 420, small) == ((2, None), (2, 32))
    assert opened((None, 64, 32), 100_000, small)[1] == (2 * 4 * (4 + 2) + 1, 64), "the widest window counts"
    assert opened((32, 16), 2100) == ((10, 32),) and opened((None, None), 2100) == ((10, None),)
    assert [window for _, window in opened((256, 255), 2100)] == [None, 255] and opened((256, None), 2100) == (
        (10, None),
    )
    assert opened((None, None), 2100, free_bytes=2100) == ((10, None),)
    for memory, more, said in (
        (419, {}, "a block of 16 tokens takes 210 bytes, and the engine needs two or more"),
        (2100, {"free_bytes": 2099}, "kv_memory_bytes is 2,100 and 2,099 bytes of memory are free"),
    ):
        with pytest.raises(ConfigError, match=said):
            opened((None, 32), memory, **more)
    assert divide(1000, 10, 5, alone=3, useful=100) == (89, 22) and divide(1000, 10, 5, alone=30, useful=100) == (
        85,
        30,
    )
    assert divide(1000, 10, 5, alone=30, useful=7) == (96, 7) and divide(60, 10, 5, alone=30, useful=70) == (4, 4)


def test_blocks_are_counted_by_what_they_need_and_what_is_left() -> None:
    pool = BlockPool(8, 4)
    table: list[int] = []
    assert pool.extend(table, 0, 9) == [] and len(table) == 3 and pool.blocks_for(8) == 2 and pool.blocks_for(9) == 3
    pool.commit(list(range(9)), table, 0, 9)
    pool.keep(list(range(9)), table, 9, note=5)
    fork = pool.fork(table)
    assert pool.needed(fork, 8, 9) == 1 and pool.needed(fork, 4, 13) == 2 + 1 and pool.num_used == 3
    assert pool.extend(fork, 0, 8 * 4 + 1) is None and pool.num_used == 3
    copies = pool.extend(fork, 9, 10)
    assert copies == [BlockCopy(table[2], fork[2])] and fork[2] not in table
    pool.release(fork)
    pool.release(table)
    assert (pool.num_cached, pool.num_available, pool.num_used) == (3, 8, 0)
    found = pool.find(range(9))
    assert (found.num_tokens, found.note, len(found.blocks)) == (9, 5, 3) and pool.match(range(9)) == table[:2]
    assert pool.find([*range(8), 99]).note is None and pool.find(range(6)).num_tokens == 6
    assert pool.num_available_without(found.blocks) == 5
    pins = PinnedPrefixes(pool)
    prefix = pins.add(list(range(9)))
    assert (prefix.num_tokens, pins.num_blocks, len(pins)) == (9, 3, 1)
    again = pins.add(list(range(4)), None)
    assert (pins.num_blocks, len(pins)) == (3, 2), "a block is counted once"
    pins.release(prefix)
    assert (pins.num_blocks, prefix.is_pinned, again.is_pinned) == (1, False, True)
    pins.drop_adapter(3)
    assert again.is_pinned and pins.drop_oldest() and not pins.drop_oldest()
    pool.check()


def test_memory_is_what_the_tightest_group_leaves(tmp_path: Path) -> None:
    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    write("proc/meminfo", "MemTotal: 900 kB\nMemFree: 5 kB\nMemAvailable: 700 kB\n")
    assert free_bytes(tmp_path) == 700 * 1024
    write("proc/self/cgroup", "0::/a/b\n")
    write("sys/fs/cgroup/a/b/memory.max", "max")
    write("sys/fs/cgroup/a/memory.max", "500000")
    write("sys/fs/cgroup/a/memory.current", "200000")
    write("sys/fs/cgroup/a/memory.stat", "active_file 7\ninactive_file 1000\n")
    assert free_bytes(tmp_path) == 301_000
    write("sys/fs/cgroup/a/memory.current", "600000")
    assert free_bytes(tmp_path) == 0
    write("proc/self/cgroup", "5:cpu,memory:/x\n4:cpu:/a\n")
    write("sys/fs/cgroup/memory/x/memory.limit_in_bytes", str(1 << 60))
    write("sys/fs/cgroup/memory/x/memory.usage_in_bytes", "1")
    assert free_bytes(tmp_path) == 700 * 1024, "a number that large is no limit"
    write("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "400000")
    write("sys/fs/cgroup/memory/x/memory.stat", "total_inactive_file 11\ninactive_file 99\n")
    assert free_bytes(tmp_path) == 400_010
    assert 0 < default_kv_bytes() <= 2 << 30


def test_memory_on_a_gpu_is_half_of_what_is_free_and_devices_are_named() -> None:
    import torch

    class Gpu:
        def mem_get_info(self, device: Any) -> tuple[int, int]:
            return 1001, 5000

    assert kv_bytes_on(torch.device("cuda"), Gpu()) == 500
    assert pick_device("cpu") == "cpu" and pick_device("auto") in ("cpu", "cuda")
    for raised, expected in ((MemoryError("no\nmore"), ModelError), (RuntimeError("DefaultCPUAllocator: no"), ModelError),
                             (RuntimeError("other"), RuntimeError), (MemoryError(), ModelError)):  # fmt: skip
        with pytest.raises(expected) as caught, explain_out_of_memory("a cache"):
            raise raised
        if expected is ModelError:
            said = str(raised).partition("\n")[0] or "MemoryError"
            assert str(caught.value) == f"there is no memory for a cache: {said}"


def test_keys_and_values_are_rounded_where_the_weights_are() -> None:
    import torch

    embed, half = torch.zeros(1), torch.zeros(1, dtype=torch.bfloat16)
    auto = EngineConfig()
    assert kv_dtype(auto, "float16", embed) == kv_dtype(auto, "int8", embed) == torch.float16
    assert kv_dtype(auto, "float32", embed) == torch.float32 and kv_dtype(auto, "float16", half) == torch.bfloat16
    for name in ("float32", "float16", "int8"):
        assert kv_dtype(EngineConfig(kv_cache=name), "float32", half) == getattr(torch, name)  # type: ignore[arg-type]
    model = tiny_model()
    state = dict(model.state_dict())
    state.pop("lm_head.weight", None)
    fitted = fitting_state(state, model)
    assert fitted["lm_head.weight"] is state["embed.weight"] and "lm_head.weight" not in state
    for change, said in (
        ({"extra": embed}, "1 tensors are missing, unknown or of another shape, the first is 'extra'"),
        ({"embed.weight": embed}, "2 tensors .*'embed.weight'"),
    ):
        with pytest.raises(ConfigError, match=said):
            fitting_state({**state, **change}, model)


# -- adapters --


def packed(size: int) -> Any:
    return SimpleNamespace(size_bytes=size)


def test_adapters_have_room_by_number_and_bytes_and_leave_with_their_last_sequence() -> None:
    slots = AdapterSlots(None, EngineConfig(max_adapters=2, adapter_memory_bytes=10), tiles_of=None)  # type: ignore[arg-type]
    assert slots.add("a", packed(6), 3) is None and slots.versions == {"a": 3} and slots.size_bytes == 6
    with pytest.raises(ConfigError, match="'b' of 5 bytes: 1 take 6 bytes; unload one"):
        slots.add("b", packed(5), 0)
    assert slots.add("b", packed(4), 0) is None
    with pytest.raises(ConfigError, match="an adapter 'a' is loaded already"):
        slots.add("a", packed(1), 0)
    with pytest.raises(
        ConfigError, match=r"no room for the adapter 'c' of 0 bytes: 2 take 10 bytes.*max_adapters \(2\)"
    ):
        slots.add("c", packed(0), 0)
    old = slots.get("a")
    assert slots.add("a", packed(6), 4, replace=True) is old and old.is_leaving and len(slots) == 2
    used = slots.get("a")
    assert (used.id, used.version, slots.get("b").id) == (3, 4, 2)
    slots.enter(used, 2)
    with pytest.raises(ConfigError, match="no room"):
        slots.add("a", packed(0), 5, replace=True)
    assert slots.remove("b") is not None and slots.size_bytes == 6
    assert slots.add("a", packed(4), 5, replace=True) is None and (len(slots), slots.size_bytes) == (2, 10)
    with pytest.raises(ConfigError, match="2 take 10 bytes, 1 of them unloaded but in use by requests"):
        slots.add("d", packed(0), 0)
    assert slots.leave(used) is None and slots.leave(used) is used and len(slots) == 1
    with pytest.raises(ConfigError, match="no adapter 'b' is loaded: there are a"):
        slots.get("b")
    new = slots.get("a")
    slots.enter(new, 1)
    assert slots.leave(new) is None and slots.remove("a") is new and len(slots) == 0
    for name, fine in (
        ("a.B_1@:/+-", True),
        ("x" * 256, True),
        ("x" * 257, False),
        ("", False),
        ("a b", False),
        (3, False),
        ("é", False),
    ):
        if fine:
            check_adapter_name(name)
        else:
            with pytest.raises(ConfigError, match="an adapter's name is"):
                check_adapter_name(name)


@pytest.mark.parametrize(
    "name, good, bad",
    [
        ("block_size", (1, 1024), (0, 1025)), ("max_batch_tokens", (65,), (64,)), ("max_waiting", (1,), (0,)),
        ("max_live_tokens", (1,), (0,)), ("kv_memory_bytes", (None, 1), (0,)), ("device", ("cpu", "cuda", "cuda:0"), ("gpu", "cuda:")),
        ("threads", (None, 1, 1024), (0, 1025)), ("draft_tokens", (1, 256), (0, 257)), ("max_adapters", (0,), (-1,)),
        ("max_adapter_rank", (1, 4096), (0, 4097)), ("adapter_memory_bytes", (1, (1 << 62) - 1), (0, 1 << 62)),
        ("speculate_below", (0,), (-1,)),
    ],
)  # fmt: skip
def test_a_setting_of_the_engine_is_checked_at_both_ends(name: str, good: Any, bad: Any) -> None:
    for value in good:
        assert getattr(EngineConfig(**{name: value}), name) == value
    for value in bad:
        with pytest.raises(ConfigError, match=f"{name} is "):
            EngineConfig(**{name: value})
