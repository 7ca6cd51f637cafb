"""What fits, what a step takes, whose blocks it takes for it, and who is next: the scheduler's functions one at a time."""

from __future__ import annotations

from typing import Any

from firsthand.engine.core.prompt_shares import PromptShares
from firsthand.engine.core.scheduler import Scheduler
from firsthand.engine.core.sequence import SequenceChunk, SequenceState, Source
from firsthand.engine.core.step_plan import StepPlan
from firsthand.engine.memory.blocks import BlockCopy, BlockPool
from firsthand.engine.memory.window_pool import BlockTable, SlidingWindowPool
from scheduler_tiny import Clock, running, scheduler, sequence, spans

WAITING = SequenceState.WAITING


def test_a_match_is_given_up_to_its_full_blocks_where_a_copy_does_not_fit() -> None:
    s = scheduler(3)
    ids = list(range(100, 107))
    table: list[int] = []
    s.pool.extend(table, 0, 6)
    s.pool.commit(ids, table, 0, 6)
    s.pool.keep(ids, table, 6)
    s.pool.release(table)
    one = sequence(1, 7)
    found = s._match_if_fits(one)
    assert found is not None and (found.blocks, found.num_tokens) == ([0, 1], 6)
    assert s.pool._allocate() == 2
    found = s._match_if_fits(one)
    assert found is not None and (found.blocks, found.num_tokens) == ([0], 4), "the partial block's copy has no room"
    s.pool.take([1])
    assert s._match_if_fits(one) is None
    s.pool.release([1])
    s.max_sequences = 0
    assert s._match_if_fits(one) is None
    scored = sequence(1, 7, prompt=5, goal="score")
    s.max_sequences = 1
    found = s._match_if_fits(scored)
    assert found is not None and found.num_tokens == 4, "logits are wanted from the prompt's last token on"


def test_room_is_for_the_first_new_token_and_a_block_for_each_that_runs() -> None:
    s = scheduler(6)
    assert s._has_room(s.pool, [], 0, sequence(1, 23)) and not s._has_room(s.pool, [], 0, sequence(1, 24))  # type: ignore[arg-type]
    scored = sequence(1, 24, prompt=2, goal="score")
    assert s._has_room(s.pool, [], 0, scored)  # type: ignore[arg-type]
    running(s, 2, 5)
    assert s._has_room(s.pool, [], 0, sequence(1, 15)) and not s._has_room(s.pool, [], 0, sequence(1, 16))  # type: ignore[arg-type]
    assert s._has_room(s.pool, [0], 1, sequence(1, 19)) and not s._has_room(s.pool, [0], 0, sequence(1, 19))  # type: ignore[arg-type]
    near = BlockPool(6, 4, window=5)
    assert s._has_room(near, [0, 0], 2, sequence(1, 15)) and not s._has_room(near, [0, 0], 2, sequence(1, 16))


def test_a_prefix_is_being_computed_if_this_step_takes_it_32_tokens_further() -> None:
    s = scheduler(32, tokens=64)
    lead = running(s, 1, 60, computed=1, first=0)
    for count, end, expected in ((33, 32, True), (32, 32, False), (33, 31, False), (60, 50, True), (33, 33, True)):
        plan = StepPlan([SequenceChunk(lead, 0, end)])
        assert s._is_being_computed(sequence(2, count, first=0), plan) is expected, (count, end)
    plan = StepPlan([SequenceChunk(lead, 0, 40)])
    assert not s._is_being_computed(sequence(2, 40, first=1), plan) and not s._is_being_computed(
        sequence(2, 40, first=0, salt="x"), plan
    )
    assert not s._is_being_computed(sequence(2, 40, first=0), StepPlan([SequenceChunk(lead, 32, 40)])), (
        "computed before"
    )
    assert s._is_being_computed(sequence(2, 40, first=0), StepPlan([SequenceChunk(lead, 31, 40)]))
    assert not s._is_being_computed(sequence(2, 40, first=0), StepPlan([SequenceChunk(lead, 0, 33, (1, 2))]))
    assert s._is_being_computed(sequence(2, 40, first=0), StepPlan([SequenceChunk(lead, 0, 34, (1, 2))]))
    lead.is_stale = True
    assert not s._is_being_computed(sequence(2, 40, first=0), plan)
    scored = sequence(2, 40, first=0, prompt=33, goal="score")
    lead.is_stale = False
    assert s._is_being_computed(scored, plan) and not s._is_being_computed(
        sequence(2, 40, first=0, prompt=32, goal="score"), plan
    )


def test_the_next_tokens_of_a_sequence_fill_what_is_left_of_the_step() -> None:
    s = scheduler(tokens=12)
    one = running(s, 1, 30, computed=2)
    plan = StepPlan(num_tokens=5)
    s._schedule(one, plan)
    assert spans(plan) == [(1, 2, 9)] and plan.num_tokens == 12 and one.num_charged == 9 and len(one.table) == 3
    s._schedule(one, plan)
    assert len(plan.chunks) == 1
    plan = StepPlan(num_tokens=5)
    s._schedule(one, plan, 3)
    assert spans(plan) == [(1, 2, 5)] and plan.num_tokens == 8
    short = running(s, 2, 6, computed=3)
    short.draft = (1, 2)
    s._schedule(short, plan, 99)
    assert spans(plan)[1:] == [(2, 3, 6)] and short.draft == (), "no draft while it has more than a token to compute"
    shared = s.pool.fork(short.table)
    plan = StepPlan()
    s._schedule(short, plan)
    assert plan.copies == [BlockCopy(shared[0], short.table[0]), BlockCopy(shared[1], short.table[1])]


def test_the_last_ones_lose_their_blocks_until_the_next_tokens_fit() -> None:
    s = scheduler(4, tokens=30)
    first, middle, last = running(s, 1, 9), running(s, 2, 5), running(s, 3, 5)
    plan = StepPlan()
    for each in (middle, last):
        plan.add(SequenceChunk(each, 4, 5), [])
    s._schedule(first, plan)
    assert spans(plan) == [(2, 4, 5), (1, 8, 9)] and plan.is_out_of_blocks and plan.num_tokens == 2
    assert s.running == [first, middle] and last.state is WAITING and s.num_preemptions == 1
    s._schedule(middle, plan)
    assert s.running == [first] and spans(plan) == [(1, 8, 9)], "it was the last itself"
    assert StepPlan().is_out_of_blocks is False
    for others in (0, 1):
        s = scheduler(4, tokens=30)
        one = running(s, 1, 13, computed=8)
        kept: list[int] = []
        s.pool.extend(kept, 0, 4)
        s.pool.commit([7, 7, 7, 7], kept, 0, 4)
        pin = s.pinned_prefixes.add([7, 7, 7, 7])
        s.pool.release(kept)
        if others:
            running(s, 2, 5)
        plan = StepPlan()
        s._schedule(one, plan, 4)
        assert spans(plan) == [(1, 8, 12)] and pin.is_pinned and plan.is_out_of_blocks is bool(others)
        plan = StepPlan()
        s._schedule(one, plan)
        assert spans(plan) == [(1, 8, 13)] and not pin.is_pinned and not plan.is_out_of_blocks


def test_a_draft_goes_into_the_step_if_it_takes_no_block_that_another_may_need() -> None:
    s = scheduler(5, tokens=8)
    one = running(s, 1, 4)
    one.draft = (7, 8, 9)
    plan = StepPlan(num_tokens=5)
    assert s._schedule_with_draft(one, plan, 3, 4) and one.draft == ()
    assert plan.chunks == [SequenceChunk(one, 3, 6, (7, 8), False)] and plan.num_tokens == 8, "8 - 5 - 1 of them"
    assert not s._schedule_with_draft(one, StepPlan(), 3, 4) and len(one.table) == 2
    one.draft = (7,)
    assert not s._schedule_with_draft(one, StepPlan(num_tokens=7), 3, 4) and one.draft == ()
    one.draft = (7,)
    assert not s._schedule_with_draft(one, StepPlan(), 2, 4)
    two, three = running(s, 2, 5), running(s, 3, 5)
    assert s.pool.num_available == 1
    for draft, expected in (((1, 2, 3, 4), True), ((1, 2, 3, 4, 5), False)):
        one.draft = draft
        assert s._schedule_with_draft(one, StepPlan(), 3, 4) is expected, draft
    s.finish(three)
    assert s.pool.num_available == 2 and len(s.running) == 2
    one.draft = (1, 2, 3, 4, 5)
    assert not s._schedule_with_draft(one, StepPlan(), 3, 4), "one missing, two running, one left"
    s.finish(two)
    s.pool._allocate()
    assert s.pool.num_available == 2, "one is missing, so that one is left for the one that runs"
    one.draft = (1, 2, 3, 4, 5)
    assert s._schedule_with_draft(one, StepPlan(), 3, 4) and len(one.table) == 3


def test_the_next_sequence_is_the_fairest_unless_an_older_one_of_lower_priority_aged() -> None:
    s = scheduler()
    a, b = sequence(1, owner="a"), sequence(2, owner="b")
    for each in (a, b):
        s.add(each)
    s._start(b)
    s.waiting.charge(a, 4)
    assert s._next([]) is None and s._next([a]) is a and s._next([a, b]) is b, "b was served less"
    late = sequence(3, priority=1)
    late.arrived_s = 69.0
    s.waiting.add(late)
    assert s._next([a, late]) is late, "31 seconds make up for a level"
    late.arrived_s = 71.0
    assert s._next([late, a]) is a


def test_a_plan_decodes_first_then_continues_prompts_then_admits() -> None:
    s = scheduler(32, tokens=12)
    decoding, prompt = running(s, 1, 5), running(s, 2, 9, computed=2)
    new, later = sequence(3, 6), sequence(4, 6)
    s.add(new)
    s.add(later)
    plan = s.plan()
    assert spans(plan) == [(1, 4, 5), (2, 2, 9), (3, 0, 4)] and plan.num_tokens == 12 and later.state is WAITING
    assert s.running == [decoding, prompt, new]
    assert spans(scheduler().plan()) == []
    s = scheduler(32, tokens=12, shared_prompt_tokens=3)
    running(s, 1, 5, owner="a")
    long = running(s, 2, 30, computed=2, owner="b")
    more = sequence(3, 30, owner="b")
    s.add(more)
    assert spans(s.plan()) == [(1, 4, 5), (2, 2, 5)] and more.state is WAITING, "the share of b is used up"
    assert long.num_charged == 5
    s = scheduler(32, tokens=12, shared_prompt_tokens=3)
    running(s, 1, 5, owner="a")
    running(s, 2, 4, computed=2, owner="b")
    running(s, 3, 30, computed=2, owner="b")
    assert spans(s.plan()) == [(1, 4, 5), (2, 2, 4), (3, 2, 3)], "the share is of both together"


def test_one_that_lost_its_blocks_in_this_step_is_not_decoded_in_it() -> None:
    s = scheduler(4)
    first, second, third = running(s, 1, 9), running(s, 2, 5), running(s, 3, 5)
    plan = s.plan()
    assert spans(plan) == [(1, 8, 9)] and plan.is_out_of_blocks and s.running == [first]
    assert second.state is third.state is WAITING and third.table == [] and s.num_preemptions == 2


def test_the_victim_is_the_last_of_lower_priority_or_the_youngest_of_an_owner_of_several() -> None:
    s = scheduler(most=9)
    new = sequence(9, owner="new")
    new.arrived_s = 100.0
    s.waiting.add(new)
    assert s._victim_for(new) is None
    only = running(s, 1, owner="a")
    assert s._victim_for(new) is None, "its owner keeps one"
    pair = [running(s, id, owner="b") for id in (2, 3)]
    assert s._victim_for(new) is pair[-1]
    low = [running(s, id, owner="c", priority=priority) for id, priority in ((4, 2), (5, 1))]
    assert s.running[-1] is low[0] and s._victim_for(new) is low[0]
    low[0].arrived_s = 39.0
    s.running.sort(key=lambda each: each.arrived_s + 30 * each.priority)
    assert s._victim_for(new) is low[1], "the other has waited longer than its priority counts"
    s.finish(low[1])
    assert s._victim_for(new) is pair[-1]
    s.waiting.start(new)
    assert s._victim_for(sequence(10, owner="new", arrived_s=100.0)) is None and only in s.running, (
        "its owner has one running"
    )


def test_shares_are_limited_for_those_that_others_of_few_requests_wait_for() -> None:
    s = scheduler(64, tokens=12, most=11, shared_prompt_tokens=3)
    running(s, 1, owner="a")
    assert s._prompt_shares()._most == {}
    for id in range(2, 11):
        running(s, id, owner="b", priority=1)
    assert s._prompt_shares()._most == {(1, "b"): 3}, "a is waited for by b, which has nine"
    s.finish(s.running[-1])
    assert s._prompt_shares()._most == {(1, "b"): 3}, "b has eight, but of a lower priority"
    c = sequence(20, owner="c")
    s.add(c)
    shares = s._prompt_shares()
    assert shares._most == {(0, "a"): 3, (0, "c"): 3, (1, "b"): 3}
    shares.take(c, 2)
    shares.take(c, -5)
    others = [sequence(1, owner="a"), sequence(1, owner="d"), sequence(1, owner="c", priority=1)]
    assert [shares.left(each) for each in (c, *others)] == [1, 3, 12, 12]
    shares.take(c, 9)
    assert shares.left(c) == 0 and PromptShares({}, 7).left(c) == 7
    for count, limited in ((8, {(0, "a"): 3, (0, "b"): 3}), (9, {(0, "b"): 3})):
        many = scheduler(64, tokens=12, most=11, shared_prompt_tokens=3)
        running(many, 0, owner="a")
        for id in range(1, count + 1):
            running(many, id, owner="b")
        assert many._prompt_shares()._most == limited, "an owner of nine wants throughput"
    s.shared_prompt_tokens = 12
    assert s._prompt_shares()._most == {}


def test_a_sequence_has_a_prefix_space_of_its_own_only_if_taps_edit_it() -> None:
    from firsthand.engine.compute.request_taps import RequestTaps

    adapter: Any = type("Loaded", (), {"id": 4})()
    assert sequence(1).space is None and sequence(1, adapter=adapter).space == 4
    assert sequence(1, adapter=adapter, salt="s", source=Source((3, 2))).space == (4, "s", (3, 2))
    edits, reads = RequestTaps({}), RequestTaps({}, edits=False)
    assert sequence(7, taps=edits, salt="s").space == (None, "s", "tapped", 7)
    assert sequence(7, taps=edits, adapter=adapter).space == (4, "", "tapped", 7) and sequence(
        7, taps=reads, salt="s"
    ).space == (None, "s")


def test_a_mixed_pool_needs_room_in_both_parts() -> None:
    pool = SlidingWindowPool(BlockPool(16, 4), BlockPool(5, 4, window=6))
    s = Scheduler(pool, max_batch_tokens=4, max_sequences=3, clock=Clock())
    one = sequence(1, 40)
    assert s._match_if_fits(one) is None, "the window needs 3 + 2 blocks and there are 4"
    pool.window_pool._free.append(9)
    found = s._match_if_fits(one)
    assert found is not None and isinstance(found.blocks, BlockTable) and found.num_tokens == 0
