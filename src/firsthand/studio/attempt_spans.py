"""The spans of an attempt for its tree and waterfall: a row for each call, event and branch, without their contents.

A row is small, so that an attempt of a hundred thousand calls is sent whole and drawn by the part that is in view; what a
span holds is asked for when it is opened.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from firsthand.message import Json
from firsthand.trace import Call, Event, Trace

LABEL_CHARS = 120
COLUMNS = ("kind", "label", "start", "duration", "depth", "parent", "prompt", "answer", "cached", "trouble", "ref")


@dataclass(frozen=True)
class Span:
    """A row of the tree. Times are milliseconds since the attempt began."""

    kind: str
    """attempt, branch, event, or the kind of a call."""
    label: str
    start: float
    duration: float
    depth: int
    parent: int
    """The row it lies under; -1 for the attempt itself."""
    prompt: int = 0
    answer: int = 0
    cached: int = 0
    trouble: bool = False
    """True if it, or anything under it, failed."""
    ref: str = ""
    """`call:N` or `event:N`, by which its contents are asked for; empty for a branch."""


def spans_of(trace: Trace) -> list[Span]:
    """The rows of a trace's tree, each before those under it; siblings by the time they began."""
    groups: dict[str, list[tuple[float, int, str]]] = {}
    for number, call in enumerate(trace.calls):
        groups.setdefault(_branch(call.id), []).append((call.started_s, number, "call"))
    root = ""
    groups.setdefault(root, [])
    for number, event in enumerate(trace.events):
        path = event.data.get("path")
        branch = path if isinstance(path, str) and path in groups else root
        groups[branch].append((event.at_s, number, "event"))
    children: dict[str, list[str]] = {}
    for branch in sorted(groups, key=_numbers):
        if branch != root:
            children.setdefault(_nearest(branch, groups), []).append(branch)
    rows: list[Span] = [Span("attempt", _label(trace.task_id), 0.0, 1000 * _finite(trace.duration_s), 0, -1)]
    waiting: list[tuple[str, int, int]] = [(root, 0, 1)]
    while waiting:
        branch, parent, depth = waiting.pop()
        items = sorted(groups[branch])
        under = {each: min((at for at, _, _ in groups[each]), default=0.0) for each in children.get(branch, ())}
        if branch != root:
            begin = min((_finite(at) for at, _, _ in items), default=0.0)
            end = max((_finite(at) + _length(trace, what, number) for at, number, what in items), default=begin)
            rows.append(Span("branch", branch, 1000 * begin, 1000 * (end - begin), depth - 1, parent))
            parent = len(rows) - 1
        for at, number, what in items:
            rows.append(_row(trace, what, number, at, depth, parent))
        waiting += [(each, parent, depth + 1) for each in sorted(under, key=lambda each: -under[each])]
    return _with_trouble(rows, trace)


def spans_json(trace: Trace) -> Json:
    """The spans as columns, which are a third of the size of objects."""
    rows = spans_of(trace)
    return {
        "columns": {name: [_compact(getattr(row, name)) for row in rows] for name in COLUMNS},
        "duration": 1000 * _finite(trace.duration_s),
    }


def _row(trace: Trace, what: str, number: int, at: float, depth: int, parent: int) -> Span:
    if what == "event":
        event = trace.events[number]
        trouble = event.kind in ("error", "limit", "failed")
        return Span(
            "event", _event_label(event), 1000 * _finite(at), 0.0, depth, parent, trouble=trouble, ref=f"event:{number}"
        )
    call = trace.calls[number]
    usage = call.usage
    return Span(
        call.kind, _call_label(call), 1000 * _finite(at), 1000 * _finite(call.duration_s), depth, parent,
        usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, _failed(call), f"call:{number}",
    )  # fmt: skip


def _with_trouble(rows: list[Span], trace: Trace) -> list[Span]:
    """The rows with the troubles of those under them: each lies after its parent, so one pass from the end does."""
    troubled = [row.trouble for row in rows]
    troubled[0] = troubled[0] or trace.error is not None
    for number in range(len(rows) - 1, 0, -1):
        if troubled[number]:
            troubled[rows[number].parent] = True
    return [
        row if row.trouble == found else replace(row, trouble=found) for row, found in zip(rows, troubled, strict=True)
    ]


def _failed(call: Call) -> bool:
    return call.error is not None or bool(call.detail.get("is_error"))


def _call_label(call: Call) -> str:
    name = call.detail.get("name")
    return _label(str(name) if name else f"{len(call.nodes)} answers" if len(call.nodes) > 1 else call.kind)


def _event_label(event: Event) -> str:
    words = [f"{key}={value}" for key, value in event.data.items() if isinstance(value, str | int | float)]
    return _label(" ".join([event.kind, *words]))


def _label(text: str) -> str:
    line = " ".join(text[: 4 * LABEL_CHARS].split())
    return line if len(line) <= LABEL_CHARS else line[: LABEL_CHARS - 1] + "…"


def _branch(id: str) -> str:
    return id.rpartition(":")[0]


def _nearest(branch: str, groups: dict[str, Any]) -> str:
    """The closest branch above that has calls of its own."""
    while "." in branch:
        branch = branch.rpartition(".")[0]
        if branch in groups:
            return branch
    return ""


def _numbers(branch: str) -> tuple[tuple[int, str], ...]:
    return tuple(
        (int(part), "") if part.isdecimal() and len(part) < 12 else (1 << 60, part) for part in branch.split(".")
    )


def _length(trace: Trace, what: str, number: int) -> float:
    return _finite(trace.calls[number].duration_s) if what == "call" else 0.0


def _finite(value: float) -> float:
    return value if 0 <= value < 1e12 else 0.0


def _compact(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else int(value) if isinstance(value, bool) else value
