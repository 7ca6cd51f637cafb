"""Each function of the scheduler on its own: what it starts, cuts, preempts and releases, with the numbers after it."""

from __future__ import annotations

from typing import Any

import pytest

from firsthand.engine.core.scheduler import Scheduler
from firsthand.engine.core.sequence import Sequence, SequenceChunk, SequenceState
from firsthand.engine.core.step_plan import StepPlan
from firsthand.engine.memory.blocks import BlockPool
from scheduler_tiny import Clock, running, scheduler, sequence, spans

WAITING, RUNNING, FINISHED = SequenceState.WAITING, SequenceState.RUNNING, SequenceState.FINISHED


def test_a_scheduler_begins_empty_with_the_limits_it_was_given() -> None:
    s = scheduler(tokens=6, most=5)
    assert (s.max_batch_tokens, s.max_sequences, s.shared_prompt_tokens) == (6, 5, 6) and not s.has_work
    assert (s.num_preemptions, s.num_prompt_tokens, s.num_cached_tokens, s.running, len(s.waiting)) == (0, 0, 0, [], 0)
    assert s.pinned_prefixes.pool is s.pool and s.oldest_wait_s == 0.0
    assert scheduler(shared_prompt_tokens=3).shared_prompt_tokens == 3
    for tokens, most in ((5, 5), (5, 0)):
        with pytest.raises(AssertionError):
            scheduler(tokens=tokens, most=most)


def test_a_new_sequence_waits_from_now_on_in_the_place_of_its_conversation() -> None:
    s = scheduler()
    table: list[int] = []
    s.pool.extend(table, 0, 6)
    ids = list(range(300, 306))
    s.pool.commit(ids, table, 0, 6, (None, "salt"))
    s.pool.keep(ids, table, 6, 9, (None, "salt"))
    clock: Any = s.clock
    next_turn, same, other = sequence(3, 7, salt="salt"), sequence(3, 6, salt="salt"), sequence(3, 7)
    for each in (next_turn, same, other):
        clock.now += 1.5
        s.add(each)
    assert [each.conversation for each in (next_turn, same, other)] == [9, None, None], (
        "the last token is computed again"
    )
    assert [each.arrived_s for each in (next_turn, same, other)] == [101.5, 103.0, 104.5] and len(s.waiting) == 3
    clock.now = 110.0
    assert s.oldest_wait_s == 8.5 and s.has_work and {each.state for each in s.waiting} == {WAITING}


def test_a_started_sequence_runs_by_rank_and_its_wait_is_told_once() -> None:
    s = scheduler()
    clock: Any = s.clock
    old, young, urgent = sequence(1), sequence(2), sequence(3, priority=-1)
    for each in (old, young, urgent):
        s.add(each)
    clock.now = 102.0
    for each in (young, urgent, old):
        s._start(each)
    assert s.running == [urgent, old, young] and {each.state for each in s.running} == {RUNNING} and len(s.waiting) == 0
    assert [each.waited_s for each in s.running] == [2.0, 2.0, 2.0] and s.waiting.num_running(old) == 2
    s._preempt(old)
    clock.now = 109.0
    s._start(old)
    assert old.waited_s == 2.0 and s.num_preemptions == 1
    at_once = sequence(4)
    s.add(at_once)
    s._start(at_once)
    s._preempt(at_once)
    clock.now = 120.0
    s._start(at_once)
    assert at_once.waited_s == 0.0 and at_once.arrived_s == 109.0


def test_a_preempted_sequence_keeps_its_text_in_the_cache_and_nothing_else() -> None:
    s = scheduler()
    one = running(s, 1, 7)
    one.num_committed = s.pool.commit(one.tokens, one.table, 0, 6)
    s._preempt(one)
    assert (one.state, one.table, one.num_computed, one.num_committed) == (WAITING, [], 0, 0)
    assert s.running == [] and one in s.waiting and s.num_preemptions == 1 and s.pool.num_used == 0
    assert s.pool.find(one.tokens).num_tokens == 6 and s.pool.find(one.tokens[:6]).note is None
    assert s.waiting.num_running(one) == 0
    stale = running(s, 2, 7)
    stale.is_stale = True
    s._preempt(stale)
    assert s.pool.find(stale.tokens).num_tokens == 0 and not stale.is_stale and s.num_preemptions == 2


def test_a_finished_answer_leaves_a_note_for_its_next_turn_and_a_scored_text_none() -> None:
    s = scheduler()
    for goal, conversation, note in (("generate", None, 1), ("generate", 8, 8), ("score", None, None)):
        one = running(s, 1 if goal == "generate" else 2, 7, goal=goal, prompt=3)
        one.conversation = conversation
        one.num_computed = 6
        one.num_committed = s.pool.commit(one.tokens, one.table, 0, 6)
        s.finish(one)
        assert (one.state, one.table, s.running, s.pool.num_used) == (FINISHED, [], [], 0)
        assert s.pool.find(one.tokens[:6]).note == note and s.num_preemptions == 0
    waits = sequence(5)
    s.add(waits)
    s.finish(waits)
    assert waits.state is FINISHED and len(s.waiting) == 0 and not s.has_work
    s.finish(waits)


def test_computed_tokens_enter_the_cache_in_whole_blocks_and_at_the_end_of_the_prompt() -> None:
    s = scheduler()
    one = running(s, 1, 10, computed=3)
    s.pool.extend(one.table, 3, 12)
    s.advance(SequenceChunk(one, 3, 9))
    assert (one.num_computed, one.num_committed) == (9, 2) and s.pool.find(one.tokens).num_tokens == 8
    s.advance(SequenceChunk(one, 9, 12, (7, 7)))
    assert (one.num_computed, one.num_committed) == (10, 2) and s.pool.find(one.tokens).num_tokens == 10
    one.tokens += [7, 7]
    s.accept(one)
    assert (one.num_computed, one.num_committed) == (11, 2) and s.pool.find(one.tokens).num_tokens == 10
    s.accept(one)
    assert (one.num_computed, one.num_committed) == (12, 3) and s.pool.find(one.tokens).num_tokens == 12
    stale = running(s, 2, 9, computed=1)
    s.pool.extend(stale.table, 1, 9)
    stale.is_stale = True
    s.advance(SequenceChunk(stale, 1, 9))
    assert (stale.num_computed, stale.num_committed) == (9, 0) and s.pool.find(stale.tokens).num_tokens == 0
    salted = running(s, 3, 5, computed=1, salt="s")
    s.pool.extend(salted.table, 1, 5)
    s.advance(SequenceChunk(salted, 1, 5))
    assert s.pool.find(salted.tokens, (None, "s")).num_tokens == 5 and s.pool.find(salted.tokens).num_tokens == 0
    near = Scheduler(BlockPool(9, 4, window=5), max_batch_tokens=9, max_sequences=2, clock=Clock())
    long = running(near, 4, 13, computed=0)
    near.pool.extend(long.table, 0, 12)
    near.advance(SequenceChunk(long, 0, 12))
    assert long.table == [0, 0, 3], "blocks behind the window are released"


def test_new_weights_stop_what_runs_or_leave_it_to_go_on_alone() -> None:
    for recompute in (True, False):
        s = scheduler()
        one, two = running(s, 1, 9), running(s, 2, 5)
        s.pool.commit(one.tokens, one.table, 0, 8)
        pins = [s.pinned_prefixes.add(one.tokens[:8]), s.pinned_prefixes.add(one.tokens[:4])]
        s.restart(recompute=recompute)
        assert not any(pin.is_pinned for pin in pins) and s.pool.find(one.tokens).num_tokens == 0
        assert (len(s.running), len(s.waiting), s.num_preemptions) == ((0, 2, 2) if recompute else (2, 0, 0))
        assert (one.is_stale, two.is_stale, one.num_computed) == ((False, False, 0) if recompute else (True, True, 8))
    s = scheduler()
    running(s, 1)
    s.restart()
    assert s.running == [], "computed again unless told otherwise"


def test_the_prefixes_of_an_adapter_are_unpinned_and_dropped() -> None:
    s = scheduler()
    for space in (1, 2):
        table: list[int] = []
        s.pool.extend(table, 0, 4)
        s.pool.commit([1, 2, 3, 4], table, 0, 4, space)
        s.pool.release(table)
    one, two = s.pinned_prefixes.add([1, 2, 3, 4], 1), s.pinned_prefixes.add([1, 2, 3, 4], 2)
    s.forget_adapter(1)
    assert (one.is_pinned, two.is_pinned) == (False, True)
    assert [s.pool.find([1, 2, 3, 4], space).num_tokens for space in (1, 2)] == [0, 4]


def test_followers_start_from_the_blocks_of_their_lead_and_those_without_a_slot_wait() -> None:
    s = scheduler(most=2)
    lead = running(s, 1, 7, computed=7)
    lead.num_cached, lead.num_committed, lead.is_stale, lead.conversation = 4, 1, True, 6
    lead.followers = [Sequence(1, index, list(lead.tokens), 7) for index in range(1, 5)]
    gone, second, third, fourth = lead.followers
    gone.state = FINISHED
    s.fork(lead)
    assert lead.followers == [] and s.running == [lead, second] and list(s.waiting) == [third, fourth]
    assert second.table == lead.table and second.table is not lead.table and second.state is RUNNING
    assert (second.num_computed, second.num_committed, second.is_stale) == (7, 1, True)
    for each in (third, fourth):
        assert (each.table, each.num_computed, each.is_stale, each.state) == ([], 0, False, WAITING)
    for each in (second, third, fourth):
        assert (each.num_cached, each.num_charged, each.arrived_s, each.conversation) == (4, 7, 100.0, 6)
    assert gone.table == [] and gone.num_cached is None and s.pool._references[:2] == [2, 2]


def test_a_follower_starts_at_once_only_with_a_slot_a_block_for_each_and_none_before_it() -> None:
    s = scheduler(4, most=3)
    follower = sequence(9)
    follower.arrived_s = 100.0
    assert s._can_start_now(follower)
    running(s, 1, 5)
    running(s, 2, 5)
    assert s.pool.num_available == 2 and not s._can_start_now(follower), "one block for each that runs, and none more"
    s.pool._free.append(3)
    assert s._can_start_now(follower)
    s.max_sequences = 2
    assert not s._can_start_now(follower)
    s.max_sequences = 3
    s.waiting.add(follower)
    later = sequence(10)
    later.arrived_s = 100.0
    s.waiting.add(later)
    assert s._can_start_now(follower) and not s._can_start_now(later)


def test_the_first_follower_leads_in_place_of_one_that_is_dropped() -> None:
    for is_running in (True, False):
        s = scheduler()
        lead = running(s, 1, 7, computed=3) if is_running else sequence(1, 7)
        lead.arrived_s, lead.conversation = 77.0, 4
        first, second, gone, third = lead.followers = [
            Sequence(1, index, list(lead.tokens), 7) for index in range(1, 5)
        ]
        first.state = gone.state = FINISHED
        s.promote_follower(lead)
        assert second.followers == [third] and lead.followers == [] and first.followers == []
        assert (
            (second.arrived_s, second.conversation) == (77.0, 4) and third.state is WAITING and third not in s.waiting
        )
        assert (second.state, second.num_computed) == ((RUNNING, 3) if is_running else (WAITING, 0))
        assert (second in s.waiting) is not is_running
        third.state = FINISHED
        second.followers = [third]
        s.promote_follower(second)
        assert second.followers == [third], "nobody is left to lead"


def test_a_waiting_sequence_is_admitted_with_what_is_cached_of_it() -> None:
    s = scheduler()
    ids = list(range(100, 110))
    table: list[int] = []
    s.pool.extend(table, 0, 9)
    s.pool.commit(ids, table, 0, 9)
    s.pool.keep(ids, table, 9)
    s.pool.release(table)
    one = sequence(1, 12, prompt=8)
    s.add(one)
    assert s._admit(one, StepPlan())
    assert (one.num_computed, one.num_committed, one.num_cached, one.num_charged) == (9, 2, 8, 9) and one.table == table
    assert (s.num_cached_tokens, s.num_prompt_tokens) == (8, 8) and one.state is RUNNING
    s._preempt(one)
    one.num_charged = 11
    assert s._admit(one, StepPlan()) and (one.num_cached, one.num_charged) == (8, 11)
    assert (s.num_cached_tokens, s.num_prompt_tokens) == (8, 8), "counted when it is first admitted"


def test_admission_preempts_a_victim_and_drops_pins_only_if_nothing_runs() -> None:
    s = scheduler(4, most=2)
    low = running(s, 1, 13, priority=1)
    urgent = sequence(2, 9)
    s.add(urgent)
    plan = StepPlan()
    plan.add(SequenceChunk(low, 12, 13), [])
    assert s._admit(urgent, plan) and spans(plan) == [] and s.running == [urgent] and low.state is WAITING
    s = scheduler(4)
    table: list[int] = []
    s.pool.extend(table, 0, 8)
    s.pool.commit(list(range(8)), table, 0, 8)
    pin = s.pinned_prefixes.add(list(range(8)))
    s.pool.release(table)
    busy, long = running(s, 1, 4), sequence(2, 11)
    s.add(long)
    assert not s._admit(long, StepPlan()) and pin.is_pinned and s.running == [busy] and long.num_cached is None
    s.finish(busy)
    assert s._admit(long, StepPlan()) and not pin.is_pinned
    s = scheduler(2)
    never = sequence(1, 99)
    s.add(never)
    assert not s._admit(never, StepPlan()) and never.state is WAITING
