"""The spans of an attempt for its tree and waterfall: a row for each call, event and branch, without their contents.

A row is small, so that an attempt of a hundred thousand calls is sent whole and drawn by the part that is in view; what a
span holds is asked for when it is opened.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from firsthand.message import Json

LABEL_CHARS = 120
COLUMNS = ("kind", "label", "start", "duration", "depth", "parent", "prompt", "answer", "cached", "trouble", "ref")


class Span(NamedTuple):
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


def spans_of(body: Json) -> list[Span]:
    """The rows of the tree of a trace as JSON (`Trace.to_json`), each before those under it; siblings by their beginning.

    The JSON is read as it is stored: to make objects of a hundred thousand calls would take longer than all the rest.
    """
    return [Span(*row) for row in zip(*_columns(body).values(), strict=True)]


def spans_json(body: Json) -> Json:
    """The spans as columns, which are a third of the size of objects."""
    return {"columns": _columns(body), "duration": 1000 * _finite(body["duration_s"])}


def first_spans_json(body: Json, most: int) -> Json:
    """The first spans, as `spans_json` has them but for troubles below them, with the number of all as `total`."""
    columns = _columns(body, most)
    branches = {call["id"].rpartition(":")[0] for call in body["calls"]} - {_ROOT}
    total = 1 + len(branches) + len(body["calls"]) + len(body["events"])
    return {"columns": columns, "duration": 1000 * _finite(body["duration_s"]), "total": total}


_Item = tuple[str, str, float, float, int, int, int, bool, str]
"""A row but for its place in the tree: the values of _ITEM. Named tuples take twice as long to make."""
_ITEM = ("kind", "label", "start", "duration", "prompt", "answer", "cached", "trouble", "ref")


def _columns(body: Json, most: int = sys.maxsize) -> dict[str, list[Any]]:
    """The rows, the first so many of them, as lists by the names of COLUMNS."""
    calls, events = body["calls"], body["events"]
    whole = _milliseconds(body["duration_s"])
    items: list[_Item] = [("attempt", _label(body["task_id"]), 0.0, whole, 0, 0, 0, body["error"] is not None, "")]
    depths, parents = [0], [-1]
    groups = _by_branch(calls, events)
    children: dict[str, list[str]] = {}
    for branch in sorted(groups, key=_numbers):
        if branch != _ROOT:
            children.setdefault(_nearest(branch, groups), []).append(branch)
    labels: dict[str, str] = {}
    waiting: list[tuple[str, int, int]] = [(_ROOT, 0, 1)]
    while waiting and len(items) < most:
        branch, parent, depth = waiting.pop()
        here = sorted(groups[branch])
        under = {each: min((at for at, _ in groups[each]), default=0.0) for each in children.get(branch, ())}
        if branch != _ROOT:
            begin = min((_milliseconds(at) for at, _ in here), default=0.0)
            lasting = (_milliseconds(calls[number]["duration_s"]) if number < len(calls) else 0.0 for _, number in here)
            end = max((_milliseconds(at) + each for (at, _), each in zip(here, lasting, strict=True)), default=begin)
            items.append(("branch", branch, begin, round(end - begin, 3), 0, 0, 0, False, ""))
            depths.append(depth - 1)
            parents.append(parent)
            parent = len(items) - 1
        del here[max(0, most - len(items)) :]
        items += [
            _of_call(calls[number], number, labels)
            if number < len(calls)
            else _of_event(events[number - len(calls)], number - len(calls))
            for _, number in here
        ]
        depths += [depth] * len(here)
        parents += [parent] * len(here)
        begun = sorted(under, key=lambda each: under[each])
        waiting += [(each, parent, depth + 1) for each in reversed(begun)]  # the first is taken first
    kept = dict(zip(_ITEM, map(list, zip(*items, strict=True)), strict=True))
    troubled = list(map(bool, kept["trouble"]))
    for number in range(len(items) - 1, 0, -1):  # each lies after its parent
        if troubled[number]:
            troubled[parents[number]] = True
    kept |= {"depth": depths, "parent": parents, "trouble": troubled}
    return {name: kept[name] for name in COLUMNS}


_ROOT = ""
_Groups = dict[str, list[tuple[float, int]]]
"""Branch -> when each of its calls and events began, in seconds, and its number; events come after all calls."""


def _by_branch(calls: list[Json], events: list[Json]) -> _Groups:
    groups: _Groups = {_ROOT: []}
    for number, call in enumerate(calls):
        branch = call["id"].rpartition(":")[0]
        if branch not in groups:
            groups[branch] = []
        groups[branch].append((call["started_s"], number))
    for number, event in enumerate(events, len(calls)):
        path = event["data"].get("path")
        groups[path if isinstance(path, str) and path in groups else _ROOT].append((event["at_s"], number))
    return groups


def _of_call(call: Json, number: int, labels: dict[str, str]) -> _Item:
    usage, detail, kind = call["usage"], call["detail"], call["kind"]
    many, name = len(call["nodes"]), detail.get("name")
    title = str(name) if name else f"{many} answers" if many > 1 else kind
    if title not in labels:
        labels[title] = _label(title)
    return (
        kind, labels[title], _milliseconds(call["started_s"]), _milliseconds(call["duration_s"]), usage["prompt_tokens"],
        usage["completion_tokens"], usage["cached_tokens"], call["error"] is not None or bool(detail.get("is_error")),
        f"call:{number}",
    )  # fmt: skip


def _of_event(event: Json, number: int) -> _Item:
    kind = event["kind"]
    if kind == "branch":
        return (
            "event",
            _label(_note(event["data"])),
            _milliseconds(event["at_s"]),
            0.0,
            0,
            0,
            0,
            False,
            f"event:{number}",
        )
    words = [f"{key}={value}" for key, value in event["data"].items() if isinstance(value, str | int | float)]
    failed = kind in ("error", "limit", "failed")
    return (
        "event",
        _label(" ".join([kind, *words])),
        _milliseconds(event["at_s"]),
        0.0,
        0,
        0,
        0,
        failed,
        f"event:{number}",
    )


def _note(data: Json) -> str:
    """A pattern's note on a branch, its fate first: `pruned 1.2 0.3: the sum is odd`."""
    fate = " ".join(str(data[name]) for name in ("status", "name", "score") if data.get(name) not in (None, ""))
    return f"{fate}: {data['text']}" if data.get("text") else f"branch {fate}"


def _label(text: str) -> str:
    line = " ".join(text[: 4 * LABEL_CHARS].split())
    return line if len(line) <= LABEL_CHARS else line[: LABEL_CHARS - 1] + "…"


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


def _milliseconds(seconds: float) -> float:
    return round(1000.0 * seconds, 3) if 0 <= seconds < 1e12 else 0.0


def _finite(value: float) -> float:
    return value if 0 <= value < 1e12 else 0.0
