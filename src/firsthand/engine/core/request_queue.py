"""The waiting queue, fair between request owners.

Waiting sequences are ordered

1. by priority, lower numbers first;
2. then by owner, the least served first. Service is computed tokens: cached prompt tokens and recomputation after
   preemption are free. An owner that returns from a pause is credited with the service of the least served waiting one,
   so idle time earns nothing (the Virtual Token Counter of Sheng et al., 2024);
3. then, within an owner, by the arrival of the conversation: a prompt that continues a finished answer takes that
   answer's place, so an agent's next turn does not wait behind thousands of new prompts while its KV blocks are
   evicted.

Aging prevents starvation: AGING_S seconds of waiting make up for one level of priority. It does not count within a
priority, where it would undo fairness.

No operation is linear in the queue's length: these are heaps, whose removed entries are dropped when they surface.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

from firsthand.engine.core.sequence import Sequence

AGING_S = 30.0
MAX_IDLE = 1024
T = TypeVar("T", bound=Hashable)
Key = tuple[float, ...]


def rank(sequence: Sequence) -> Key:
    """Returns the sort key by arrival, where AGING_S seconds make up for one level of priority."""
    return (sequence.arrived_s + AGING_S * sequence.priority, *sequence.arrival)


class Heap(Generic[T]):
    """Items by key. Removing an item, or pushing it again, leaves a dead entry that is dropped later."""

    def __init__(self) -> None:
        self._entries: list[tuple[Key, int, T]] = []
        self._tickets: dict[T, tuple[Key, int]] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def __contains__(self, item: T) -> bool:
        return item in self._tickets

    def __iter__(self) -> Iterator[T]:
        return iter(self._tickets)

    def push(self, item: T, key: Key) -> None:
        """Add an item, or change its key."""
        self._next += 1
        self._tickets[item] = (key, self._next)
        heappush(self._entries, (key, self._next, item))
        self._compact()

    def remove(self, item: T) -> None:
        """Remove an item; it may be absent."""
        if self._tickets.pop(item, None) is not None:
            self._compact()

    def key(self, item: T) -> Key:
        """Returns the key that an item was pushed with."""
        return self._tickets[item][0]

    def first(self) -> T | None:
        """Returns the item with the smallest key; None if empty."""
        while self._entries and not self._is_alive(self._entries[0]):
            heappop(self._entries)
        return self._entries[0][2] if self._entries else None

    def _is_alive(self, entry: tuple[Key, int, T]) -> bool:
        key, ticket, item = entry
        return self._tickets.get(item) == (key, ticket)

    def _compact(self) -> None:
        if len(self._entries) > 2 * len(self._tickets) + 64:
            self._entries = [entry for entry in self._entries if self._is_alive(entry)]
            heapify(self._entries)


@dataclass(eq=False)
class Flow:
    """The sequences of one owner at one priority."""

    priority: int
    owner: str
    served: int = 0
    """Tokens computed for it, or credited when it returned from a pause."""
    num_running: int = 0
    waiting: Heap[Sequence] = field(default_factory=Heap)


class WaitingQueue:
    """The waiting sequences of all owners, and the service that each owner received."""

    def __init__(self) -> None:
        self._flows: dict[tuple[int, str], Flow] = {}
        self._idle: OrderedDict[tuple[int, str], None] = OrderedDict()
        self._levels: dict[int, Heap[Flow]] = {}
        self._latest: dict[int, Flow] = {}
        self._ranks: Heap[Sequence] = Heap()

    def __len__(self) -> int:
        return len(self._ranks)

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence in self._ranks

    def __iter__(self) -> Iterator[Sequence]:
        """Iterates in no particular order."""
        return iter(self._ranks)

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence."""
        self._push(self._activate(sequence), sequence)

    def put_back(self, sequence: Sequence) -> None:
        """Queue a preempted sequence; this does not count as a pause of its owner."""
        flow = self._flow(sequence)
        flow.num_running -= 1
        self._push(flow, sequence)

    def discard(self, sequence: Sequence) -> None:
        """Remove a sequence; it may be absent."""
        if sequence not in self._ranks:
            return
        flow = self._flow(sequence)
        self._ranks.remove(sequence)
        flow.waiting.remove(sequence)
        if not flow.waiting:
            level = self._levels[flow.priority]
            level.remove(flow)
            if not level:
                del self._levels[flow.priority]
        self._set_idle(flow)

    def start(self, sequence: Sequence) -> None:
        """Record that a sequence now runs, whether it waited or not."""
        flow = self._activate(sequence)
        flow.num_running += 1
        self._latest[flow.priority] = flow
        self.discard(sequence)

    def stop(self, sequence: Sequence) -> None:
        """Record that a sequence stopped running."""
        flow = self._flow(sequence)
        flow.num_running -= 1
        self._set_idle(flow)

    def charge(self, sequence: Sequence, end: int) -> None:
        """Charge the owner for computing a sequence up to position `end`; earlier positions are not charged again."""
        if end > sequence.num_charged:
            self._flow(sequence).served += end - sequence.num_charged
            sequence.num_charged = end

    def first(self) -> Sequence | None:
        """Returns the next sequence; None if none waits."""
        if not self._levels:
            return None
        flow = self._first_flow(min(self._levels))
        return self.earlier(_first(self._ranks), _first(flow.waiting))

    def order(self, sequence: Sequence) -> Key:
        """Returns the sort key of a waiting or running sequence, aging left out."""
        return (sequence.priority, self._flow(sequence).served, *sequence.place)

    def earlier(self, oldest: Sequence, fairest: Sequence) -> Sequence:
        """Returns which of the first by rank and the first by order is next."""
        return oldest if oldest.priority > fairest.priority else fairest

    def num_running(self, sequence: Sequence) -> int:
        """Returns how many sequences of the same owner and priority are running."""
        return self._flow(sequence).num_running

    def _push(self, flow: Flow, sequence: Sequence) -> None:
        flow.waiting.push(sequence, sequence.place)
        self._ranks.push(sequence, rank(sequence))
        self._levels.setdefault(flow.priority, Heap()).push(flow, _key(flow))

    def _flow(self, sequence: Sequence) -> Flow:
        return self._flows[sequence.priority, sequence.owner]

    def _first_flow(self, priority: int) -> Flow:
        """Returns the next flow of a priority. Keys grow while flows are served, and are updated when they surface."""
        level = self._levels[priority]
        while True:
            flow = _first(level)
            if level.key(flow) == (key := _key(flow)):
                return flow
            level.push(flow, key)

    def _activate(self, sequence: Sequence) -> Flow:
        """Returns the sequence's flow, its service brought up to date if none of its sequences waits."""
        key = (sequence.priority, sequence.owner)
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = Flow(*key)
        self._idle.pop(key, None)
        if not flow.waiting:
            reference = (
                self._first_flow(flow.priority) if flow.priority in self._levels else self._latest.get(flow.priority)
            )
            flow.served = max(flow.served, reference.served if reference else 0)
        return flow

    def _set_idle(self, flow: Flow) -> None:
        """Remember an idle flow for a while, so that an owner served beyond its share stays behind when it returns."""
        if not flow.waiting and flow.num_running == 0:
            self._idle[flow.priority, flow.owner] = None
            if len(self._idle) > MAX_IDLE:
                del self._flows[self._idle.popitem(last=False)[0]]


def _key(flow: Flow) -> Key:
    return (flow.served, *_first(flow.waiting).place)


def _first(heap: Heap[T]) -> T:
    first = heap.first()
    assert first is not None
    return first
