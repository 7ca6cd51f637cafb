"""Sums up what the tree of an attempt holds: its votes, its branches kept and pruned, and what it used of its budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from firsthand.show.board_words import amount, money, seconds
from firsthand.show.trace_shape import marks, tally
from firsthand.trace import Trace

MAX_NOTES = 40
MAX_ANSWER_CHARS = 200


@dataclass(frozen=True)
class BranchNote:
    """The last note of a pattern on one of its branches."""

    words: str
    node: int | None
    """The message that it stands at, if it names one."""


@dataclass(frozen=True)
class AttemptFacts:
    """Facts beside the answer of an attempt."""

    votes: tuple[tuple[tuple[str, float], ...], ...]
    """For each vote its answers with their counts, the most frequent first."""
    fates: tuple[tuple[str, int], ...]
    """Each fate of a branch, such as kept or pruned, with the number of branches that had it."""
    branches: tuple[BranchNote, ...]
    budget: tuple[str, ...]
    """Such as `1.4k of 2.5k tokens`."""


def attempt_facts(trace: Trace) -> AttemptFacts:
    """The facts of a trace."""
    at_nodes, elsewhere = marks(trace)
    noted = [(mark, node) for node, found in at_nodes.items() for mark in found] + [(mark, None) for mark in elsewhere]
    votes = [sorted(found.items(), key=lambda each: -each[1]) for event in trace.events if (found := tally(event))]
    return AttemptFacts(
        tuple(tuple((answer[:MAX_ANSWER_CHARS], count) for answer, count in vote[:MAX_NOTES]) for vote in votes[:MAX_NOTES]),
        tuple(Counter(mark.status for mark, _ in noted if mark.status).most_common()),
        tuple(BranchNote(str(mark), node) for mark, node in noted[:MAX_NOTES]),
        tuple(_budget(trace)),
    )  # fmt: skip


def _budget(trace: Trace) -> list[str]:
    limits = trace.agent.get("limits")
    if not isinstance(limits, Mapping):
        return []
    usage = trace.usage
    used: dict[str, tuple[float, Callable[[float], str], str]] = {
        "tokens": (usage.total_tokens, amount, " tokens"),
        "calls": (
            sum(call.kind in ("generate", "tool", "score") for call in trace.calls),
            amount,
            " calls",
        ),
        "seconds": (trace.duration_s, seconds, ""),
        "cost_usd": (usage.cost_usd, money, ""),
    }
    known = {name: each for name, each in limits.items() if type(each) in (int, float) and 0 < each < 1e15}
    return [
        f"{show(value)} of {show(known[name])}{unit}" for name, (value, show, unit) in used.items() if name in known
    ]
