"""Computes the shape of a trace's tree for display: notes of branches, and which messages of a large tree to show.

Takes a Trace alone, in time linear in its size; prints nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from firsthand.trace import Event, Trace

SHOWN_BRANCHES = 12
"""Of a fork with more branches these many are shown."""
SHOWN_CHAIN = 60
"""Of a longer conversation without a fork the middle is left out."""
SHOWN_MESSAGES = 400
_SIGNS = {"open": "○", "kept": "●", "pruned": "✗", "done": "✓", "failed": "!"}


@dataclass(frozen=True)
class Mark:
    """The last note of a pattern on a branch."""

    name: str = ""
    status: str = ""
    """`open`, `kept`, `pruned`, `done` or `failed`."""
    score: float | None = None
    text: str = ""

    def __str__(self) -> str:
        score = "" if self.score is None else f"{self.score:.4g}"
        words = " ".join(word for word in (_SIGNS.get(self.status, "·"), self.name, self.status, score) if word)
        text = " ".join(self.text[:400].split())
        return f"{words}: {text}" if text else words


def marks(trace: Trace) -> tuple[dict[int, list[Mark]], list[Mark]]:
    """The marks of each node that a branch was noted at, and those of branches that stand at no node.

    Of several notes about one branch, which its name tells (and its `path`, if they have one), the last word of each field
    counts.
    """
    known: dict[tuple[str, str], dict[str, object]] = {}
    for number, event in enumerate(trace.events):
        if event.kind == "branch":
            name = event.data.get("name")
            told = {key: value for key, value in event.data.items() if value is not None}
            known.setdefault((str(name), str(event.data.get("path"))) if name else ("", str(number)), {}).update(told)
    at_node: dict[int, list[Mark]] = defaultdict(list)
    elsewhere = []
    for data in known.values():
        at, score = data.get("at"), data.get("score")
        value = float(score) if _is_number(score) else None
        mark = Mark(str(data.get("name", "")), str(data.get("status", "")), value, str(data.get("text", "")))
        if type(at) is int and 0 <= at < len(trace.nodes):
            at_node[at].append(mark)
        else:
            elsewhere.append(mark)
    return dict(at_node), elsewhere


def tally(event: Event) -> dict[str, float]:
    """The votes for each answer, if the event is a vote: its counts, wherever in its data they are."""
    if event.kind not in ("vote", "votes"):
        return {}
    held = (value for value in event.data.values() if isinstance(value, Mapping))
    for counts in (*held, event.data):
        if counts and all(map(_is_number, counts.values())):
            extra = {key: value for key, value in event.data.items() if _is_number(value) and value}
            return {str(answer): float(count) for answer, count in (extra | dict(counts)).items()}
    return {}


def _is_number(value: object) -> TypeGuard[int | float]:
    """True for a number that a float can hold."""
    return isinstance(value, int | float) and abs(value) < 1e300


class Outline:
    """The messages of a tree to show, and the placeholders for the others."""

    def __init__(self, trace: Trace, marked: Mapping[int, list[Mark]], full: bool):
        self.full = full
        self.room = len(trace.nodes) if full else SHOWN_MESSAGES
        self._marked = marked
        self._children: dict[int | None, list[int]] = defaultdict(list)
        self._size = [1] * len(trace.nodes)
        for index, node in enumerate(trace.nodes):
            parent = node.parent
            self._children[parent if parent is not None and 0 <= parent < index else None].append(index)
        for index in range(len(trace.nodes) - 1, -1, -1):
            self._size[index] += sum(self._size[child] for child in self._children.get(index, ()))
        self.along: dict[int, list[Mark]] = {}
        """The marks of the branch that a node begins: the first there are on the way to its end or its next fork."""
        for index in range(len(trace.nodes) - 1, -1, -1):
            below = self._children.get(index, ())
            found = marked.get(index) or (self.along.get(below[0]) if len(below) == 1 else None)
            if found:
                self.along[index] = found
        self.folded: dict[int, str] = {}
        """Branches that are shown in a line, and how much lies below it."""
        self.skips: dict[int, tuple[int, str]] = {}
        """After which node a conversation goes on much later, where, and words for what is left out."""
        if not full:
            self._fold()
            self._skip()

    def num_children(self, at: int | None) -> int:
        """The number of branches that begin at a node."""
        return len(self._children.get(at, ()))

    def children(self, at: int | None) -> tuple[dict[int, int], str]:
        """The branches to show at a node, by their place among all, and words for the others."""
        everyone = self._children.get(at, [])
        if len(everyone) == 1:
            return {0: everyone[0]}, ""
        if self.full or len(everyone) <= SHOWN_BRANCHES:
            return dict(enumerate(everyone, 1)), ""
        best = sorted(everyone, key=lambda child: (-self._interest(child), child))[:SHOWN_BRANCHES]
        shown = set(best)
        left = [child for child in everyone if child not in shown]
        fates = Counter(self._fate(child) for child in left)
        told = ", ".join(f"{count} {fate}" for fate, count in fates.items() if fate)
        total = sum(self._size[child] for child in left)
        note = f"… {len(left)} more branches{f' ({told})' if told else ''} of {total} messages; --full shows them"
        return {place: child for place, child in enumerate(everyone, 1) if child in shown}, note

    def _interest(self, index: int) -> float:
        """Living branches before dead ones, large ones before small ones."""
        dead = self._fate(index) in ("pruned", "failed")
        return self._size[index] - (1e12 if dead else 0)

    def _fate(self, index: int) -> str:
        return next((mark.status for mark in self.along.get(index, ())), "")

    def _fold(self) -> None:
        for index in self._marked:
            below = self._size[index] - 1
            if self._fate(index) == "pruned" and below:
                self.folded[index] = f"  ({below} more message{'s' if below > 1 else ''} below)"

    def _skip(self) -> None:
        heads = [below for at, below in self._children.items() if at is None or len(below) > 1]
        for children in heads:
            for child in children:
                chain = [child]
                while self.num_children(chain[-1]) == 1:
                    chain.append(self._children[chain[-1]][0])
                if len(chain) > SHOWN_CHAIN:
                    half = SHOWN_CHAIN // 2
                    left = len(chain) - 2 * half
                    self.skips[chain[half - 1]] = chain[-half], f"… {left} more messages; --full shows them"


def outline(trace: Trace, marked: Mapping[int, list[Mark]], *, full: bool) -> Outline:
    """The outline of a trace's tree."""
    return Outline(trace, marked, full)
