"""Aligns the calls of two attempts and finds where they part: the first difference, what was added and what is missing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from firsthand.trace import Call, Trace

MAX_STEPS = 4000
"""Calls of each attempt that are aligned."""
MAX_MATCHES = 20_000_000
"""Pairs of equal steps, times the steps of the shorter side: an alignment takes a third of a second at most."""
TEXT_CHARS = 400


@dataclass(frozen=True)
class Step:
    """A call, in the words by which it is compared."""

    kind: str
    name: str
    text: str
    """The arguments of a tool, or the answer of the model."""
    ref: str


@dataclass(frozen=True)
class AlignedStep:
    """A step of both attempts, or of one."""

    change: Literal["same", "changed", "removed", "added"]
    a: Step | None
    b: Step | None


@dataclass(frozen=True)
class TraceDifference:
    """The aligned steps of two attempts."""

    steps: tuple[AlignedStep, ...]
    first: int | None
    """The index of the first step that is not the same; None if all are."""

    @property
    def num_same(self) -> int:
        """The number of steps that are the same."""
        return sum(step.change == "same" for step in self.steps)


def trace_difference(a: Trace, b: Trace) -> TraceDifference:
    """The steps of `a` and `b` side by side. Steps of one kind and name are paired in place, though their texts differ."""
    left, right = _steps(a), _steps(b)
    pairs: list[AlignedStep] = []
    for tag, i, j, k, m in _stretches([_key(step) for step in left], [_key(step) for step in right]):
        if tag == "equal":
            pairs += [AlignedStep("same", x, y) for x, y in zip(left[i:j], right[k:m], strict=True)]
        else:
            pairs += _changed(left[i:j], right[k:m])
    first = next((index for index, step in enumerate(pairs) if step.change != "same"), None)
    return TraceDifference(tuple(pairs), first)


def _changed(left: Sequence[Step], right: Sequence[Step]) -> list[AlignedStep]:
    """Steps between two equal stretches: those of one kind and name are the same step, changed."""
    found: list[AlignedStep] = []
    named = [[(step.kind, step.name) for step in side] for side in (left, right)]
    for tag, i, j, k, m in _stretches(*named):
        if tag == "equal":
            found += [AlignedStep("changed", x, y) for x, y in zip(left[i:j], right[k:m], strict=True)]
        else:
            found += [AlignedStep("removed", x, None) for x in left[i:j]]
            found += [AlignedStep("added", None, y) for y in right[k:m]]
    return found


def _stretches(left: Sequence[Hashable], right: Sequence[Hashable]) -> Sequence[tuple[str, int, int, int, int]]:
    """The opcodes that make `right` of `left`. Where too many pairs are equal to align them, steps are paired in place."""
    times = Counter(right)
    if sum(times[each] for each in left) * min(len(left), len(right)) <= MAX_MATCHES:
        return SequenceMatcher(None, left, right, autojunk=False).get_opcodes()
    found = []
    begin, shorter = 0, min(len(left), len(right))
    for end in range(1, shorter + 1):
        is_equal = left[begin] == right[begin]
        if end == shorter or (left[end] == right[end]) != is_equal:
            found.append(("equal" if is_equal else "replace", begin, end, begin, end))
            begin = end
    if len(left) != len(right):
        found.append(("replace", shorter, len(left), shorter, len(right)))
    return found


def _steps(trace: Trace) -> list[Step]:
    return [_step(trace, call, number) for number, call in enumerate(trace.calls[:MAX_STEPS])]


def _step(trace: Trace, call: Call, number: int) -> Step:
    name = str(call.detail.get("name") or "")
    if call.kind == "tool":
        text = json.dumps(call.detail.get("arguments"), ensure_ascii=False, sort_keys=True, default=str)
    elif not call.nodes:
        text = json.dumps(call.detail, ensure_ascii=False, sort_keys=True, default=str)
    else:
        text = " | ".join(trace.nodes[index].message.text for index in call.nodes if 0 <= index < len(trace.nodes))
    return Step(call.kind, name, call.error or text, f"call:{number}")


def _key(step: Step) -> tuple[str, str, str]:
    return step.kind, step.name, step.text
