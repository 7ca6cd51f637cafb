"""The waiting queue, one function at a time: who is served, credited, remembered while idle, and who is first."""

from __future__ import annotations

from typing import Any

from firsthand.engine.core.request_queue import AGING_S, MAX_IDLE, Flow, Heap, WaitingQueue, _first, _key, rank
from firsthand.engine.core.sequence import Sequence


def one(id: int, owner: str = "a", priority: int = 0, index: int = 0, **fields: Any) -> Sequence:
    return Sequence(id, index, [1], 1, owner=owner, priority=priority, **fields)


def flows(queue: WaitingQueue) -> dict[tuple[int, str], tuple[int, int, int]]:
    """What each owner was served, how many of its sequences run and how many wait."""
    return {key: (flow.served, flow.num_running, len(flow.waiting)) for key, flow in queue._flows.items()}


def test_a_heap_gives_the_smallest_key_and_forgets_what_was_removed_or_pushed_again() -> None:
    heap: Heap[str] = Heap()
    assert heap.first() is None and len(heap) == 0 and not heap
    for name, key in (("c", (3.0,)), ("a", (1.0, 5.0)), ("b", (1.0, 2.0))):
        heap.push(name, key)
    assert heap.first() == "b" and list(heap) == ["c", "a", "b"] and heap.key("a") == (1.0, 5.0)
    heap.push("b", (9.0,))
    assert heap.first() == "a" and len(heap) == 3 and heap.key("b") == (9.0,)
    heap.remove("a")
    heap.remove("a")
    assert heap.first() == "c" and "a" not in heap and "b" in heap
    heap.push("b", (3.0,))
    assert heap.first() == "c", "of equal keys the one that came first"
    for _ in range(65):
        heap.push("c", (4.0,))
    assert len(heap._entries) <= 2 * 2 + 64 and heap.first() == "b"
    small: Heap[int] = Heap()
    for turn in range(66):
        small.push(1, (float(-turn),))
        assert len(small._entries) == turn + 1
    small.push(1, (5.0,))
    assert small._entries == [((5.0,), 67, 1)], "67 entries for one item are one too many"


def test_ranks_are_by_arrival_and_priority_then_by_request() -> None:
    assert AGING_S == 30 and rank(one(7, priority=2, index=3, arrived_s=5.0)) == (65.0, 7, 3)
    assert rank(one(7, priority=-1)) == (-30.0, 7, 0)


def test_a_sequence_waits_in_its_flow_and_the_flow_in_its_level() -> None:
    queue = WaitingQueue()
    assert queue.first() is None and len(queue) == 0 and list(queue) == []
    a, b, low = one(5), one(6, "b"), one(1, priority=3)
    for each in (b, a, low):
        queue.add(each)
    assert len(queue) == 3 and a in queue and list(queue) == [b, a, low] and sorted(queue._levels) == [0, 3]
    assert flows(queue) == {(0, "b"): (0, 0, 1), (0, "a"): (0, 0, 1), (3, "a"): (0, 0, 1)}
    assert queue.first() is a, "the earlier request of two that were served alike"
    assert _key(queue._flow(b)) == (0, 6, 6, 0) and _first(queue._levels[0]) is queue._flow(a)
    queue.discard(a)
    queue.discard(a)
    assert a not in queue and queue.first() is b and list(queue._idle) == [(0, "a")]
    queue.discard(low)
    assert sorted(queue._levels) == [0] and len(queue) == 1
    queue.discard(b)
    assert queue._levels == {} and queue.first() is None and list(queue._idle) == [(0, "a"), (3, "a"), (0, "b")]


def test_a_conversation_keeps_its_place_among_those_of_its_owner() -> None:
    queue = WaitingQueue()
    new, turn = one(4), one(9, conversation=2)
    queue.add(new)
    queue.add(turn)
    assert queue.first() is turn and queue.order(turn) == (0, 0, 2, 9, 0) and queue.order(new) == (0, 0, 4, 4, 0)


def test_an_owner_is_charged_for_each_position_once_and_the_least_served_goes_first() -> None:
    queue = WaitingQueue()
    a, b = one(1), one(2, "b")
    for each in (a, b):
        queue.add(each)
    queue.charge(a, 5)
    queue.charge(a, 5)
    queue.charge(a, 3)
    assert a.num_charged == 5 and flows(queue)[0, "a"] == (5, 0, 1) and queue.first() is b
    queue.charge(a, 8)
    b.num_charged = 2
    queue.charge(b, 9)
    assert a.num_charged == 8 and (flows(queue)[0, "a"][0], flows(queue)[0, "b"][0]) == (8, 7) and queue.first() is b
    queue.charge(b, 11)
    assert queue.first() is a and queue.order(b) == (0, 9, 2, 2, 0)
    assert queue._levels[0].key(queue._flow(b)) == (9, 2, 2, 0), "keys are updated when they surface"


def test_running_sequences_are_counted_by_owner_and_priority() -> None:
    queue = WaitingQueue()
    a, more, other = one(1), one(2), one(3, priority=1)
    queue.add(a)
    for each in (a, more, other):
        queue.start(each)
    assert flows(queue) == {(0, "a"): (0, 2, 0), (1, "a"): (0, 1, 0)} and len(queue) == 0 and list(queue._idle) == []
    assert queue.num_running(a) == 2 and queue.num_running(other) == 1
    queue.put_back(more)
    assert flows(queue)[0, "a"] == (0, 1, 1) and more in queue and queue._levels.keys() == {0}
    queue.stop(a)
    assert flows(queue)[0, "a"] == (0, 0, 1) and list(queue._idle) == [], "one of its sequences waits"
    queue.stop(other)
    assert list(queue._idle) == [(1, "a")]
    queue.add(one(8, priority=1))
    assert list(queue._idle) == []


def test_an_owner_that_returns_gets_no_credit_for_its_pause() -> None:
    queue = WaitingQueue()
    busy, idle = one(1), one(2, "b")
    queue.add(busy)
    queue.start(busy)
    queue.charge(busy, 50)
    queue.add(idle)
    assert flows(queue)[0, "b"] == (50, 0, 1), "as much as the one that started last, where none waits"
    queue.charge(idle, 7)
    queue.add(one(3))
    assert flows(queue)[0, "a"] == (57, 1, 1), "as much as the least served that waits"
    queue.charge(idle, 9)
    queue.add(one(4, "b"))
    assert flows(queue)[0, "b"] == (59, 0, 2), "it did not pause"
    queue.put_back(busy)
    assert flows(queue)[0, "a"] == (57, 0, 2)
    queue.add(one(5, "c"))
    assert flows(queue)[0, "c"] == (57, 0, 1)
    queue.add(one(6, "c", priority=2))
    assert flows(queue)[2, "c"] == (0, 0, 1), "levels know nothing of each other"
    other = WaitingQueue()
    x, y = one(1, "x"), one(2, "y")
    for each, tokens in ((x, 5), (y, 20)):
        other.start(each)
        other.charge(each, tokens)
    other.add(one(3, "z"))
    assert flows(other) == {(0, "x"): (5, 1, 0), (0, "y"): (25, 1, 0), (0, "z"): (25, 0, 1)}, (
        "the latest to start counts"
    )
    other.put_back(x)
    assert flows(other)[0, "x"] == (5, 0, 1), "to be preempted is no pause"
    rich = one(7, "d")
    queue._flows[0, "d"] = Flow(0, "d", served=90)
    queue.add(rich)
    assert flows(queue)[0, "d"] == (90, 0, 1), "never less than it was served"


def test_idle_owners_are_remembered_for_a_while() -> None:
    queue = WaitingQueue()
    for id in range(MAX_IDLE):
        each = one(id, f"o{id}")
        queue.add(each)
        queue.start(each)
        queue.charge(each, 2)
        queue.stop(each)
    assert len(queue._idle) == len(queue._flows) == MAX_IDLE == 1024
    again = one(5000, "o0")
    queue.start(again)
    queue.stop(again)
    assert len(queue._idle) == MAX_IDLE and next(iter(queue._idle)) == (0, "o1") and list(queue._idle)[-1] == (0, "o0")
    last = one(5001, "new")
    queue.start(last)
    queue.stop(last)
    assert (
        len(queue._idle) == MAX_IDLE and (0, "o1") not in queue._flows and {(0, "o0"), (0, "o2")} <= set(queue._flows)
    )


def test_an_older_sequence_of_a_lower_level_goes_first_once_it_has_aged() -> None:
    queue = WaitingQueue()
    urgent, low = one(1, arrived_s=100.0), one(2, "b", priority=2, arrived_s=41.0)
    for each in (urgent, low):
        queue.add(each)
    assert queue.first() is urgent and queue.earlier(urgent, low) is low
    old = one(3, "c", priority=2, arrived_s=39.0)
    queue.add(old)
    assert queue.first() is old and queue.earlier(old, urgent) is old and queue.earlier(urgent, urgent) is urgent
    same = one(4, "d", arrived_s=90.0)
    queue.discard(old)
    queue.charge(urgent, 0)
    queue.add(same)
    assert queue.first() is urgent, "age does not count within a priority"
