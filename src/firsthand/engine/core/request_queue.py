"""Who is next: the queue of an engine, fair between runs.

The order of waiting sequences is
1. by priority, the lower number first;
2. then by run, the one that has been served least first. Served is what was computed for it, in tokens: a prompt token
   found in memory costs nothing, and what preemption makes us compute again is not charged. A run that comes back after
   a pause is counted as served like the waiting one served least, so nobody saves up (the Virtual Token Counter of Sheng
   et al., 2024);
3. then, within a run, by the conversation's arrival: a prompt that goes on from a finished answer has its place, so an
   agent's next turn does not stand behind thousands of cold prompts while its memory is evicted.

Against starvation by higher priorities, waiting AGING_S seconds makes up for one level: a sequence goes before one of
higher priority that came later by AGING_S for each level between them. Aging never counts within one priority, where it
would undo fairness.

Nothing here takes time in proportion to the queue's length: heaps, from which removed entries are dropped as they surface.
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
    """Sorts sequences by arrival, where AGING_S seconds make up for one level of priority."""
    return (sequence.arrived_s + AGING_S * sequence.priority, *sequence.arrival)


class Heap(Generic[T]):
    """Items by key. Removing one, or pushing it again with another key, leaves a dead entry that is dropped later."""

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
        """Put an item in, or change its key."""
        self._next += 1
        self._tickets[item] = (key, self._next)
        heappush(self._entries, (key, self._next, item))
        self._compact()

    def remove(self, item: T) -> None:
        """Take an item out; it may be absent."""
        if self._tickets.pop(item, None) is not None:
            self._compact()

    def key(self, item: T) -> Key:
        """The key that an item was pushed with."""
        return self._tickets[item][0]

    def first(self) -> T | None:
        """The item with the least key."""
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
    """The sequences of one run at one priority."""

    priority: int
    owner: str
    served: int = 0
    """Tokens computed for it, or credited when it came back from a pause."""
    num_running: int = 0
    waiting: Heap[Sequence] = field(default_factory=Heap)


class WaitingQueue:
    """The waiting sequences of all runs, and how much each run was served."""

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
        """In no order."""
        return iter(self._ranks)

    def add(self, sequence: Sequence) -> None:
        """Let a new sequence wait."""
        self._push(self._activate(sequence), sequence)

    def put_back(self, sequence: Sequence) -> None:
        """Let a running sequence wait again; its run is not thought to have paused."""
        flow = self._flow(sequence)
        flow.num_running -= 1
        self._push(flow, sequence)

    def discard(self, sequence: Sequence) -> None:
        """Let a sequence wait no more; it may not be waiting."""
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
        """Note that a sequence runs from now on, whether it had to wait or not."""
        flow = self._activate(sequence)
        flow.num_running += 1
        self._latest[flow.priority] = flow
        self.discard(sequence)

    def stop(self, sequence: Sequence) -> None:
        """Note that a sequence runs no more."""
        flow = self._flow(sequence)
        flow.num_running -= 1
        self._set_idle(flow)

    def charge(self, sequence: Sequence, end: int) -> None:
        """Note that a running sequence is computed up to there; what was computed before is not charged again."""
        if end > sequence.num_charged:
            self._flow(sequence).served += end - sequence.num_charged
            sequence.num_charged = end

    def first(self) -> Sequence | None:
        """The sequence that is next, by the rules above."""
        if not self._levels:
            return None
        flow = self._first_flow(min(self._levels))
        return self.earlier(_first(self._ranks), _first(flow.waiting))

    def order(self, sequence: Sequence) -> Key:
        """Sorts sequences, waiting and running ones, as long as age does not matter."""
        return (sequence.priority, self._flow(sequence).served, *sequence.place)

    def earlier(self, oldest: Sequence, fairest: Sequence) -> Sequence:
        """Of the first by rank and the first by order the one that is next."""
        return oldest if oldest.priority > fairest.priority else fairest

    def num_running(self, sequence: Sequence) -> int:
        """How many sequences of the same run and priority are running."""
        return self._flow(sequence).num_running

    def _push(self, flow: Flow, sequence: Sequence) -> None:
        flow.waiting.push(sequence, sequence.place)
        self._ranks.push(sequence, rank(sequence))
        self._levels.setdefault(flow.priority, Heap()).push(flow, _key(flow))

    def _flow(self, sequence: Sequence) -> Flow:
        return self._flows[sequence.priority, sequence.owner]

    def _first_flow(self, priority: int) -> Flow:
        """The flow of a level that is next. Keys grow while flows are served, and are brought up to date as they surface."""
        level = self._levels[priority]
        while True:
            flow = _first(level)
            if level.key(flow) == (key := _key(flow)):
                return flow
            level.push(flow, key)

    def _activate(self, sequence: Sequence) -> Flow:
        """The sequence's flow, brought up to the reference if none of its sequences waits."""
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
        """Remember an idle flow for a while: whoever was served beyond its share stays behind when it comes back."""
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
