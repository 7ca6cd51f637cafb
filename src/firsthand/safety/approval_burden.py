"""Counts the questions that stored attempts asked before calls, who answered them, and which rules asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from firsthand.trace import Trace


@dataclass(frozen=True)
class ApprovalBurden:
    """The questions of some attempts."""

    attempts: int
    asked_in: int
    """Attempts with a question."""
    questions: int
    allowed: int
    by: dict[str, int]
    """Questions by who answered them: a name, `model`, `time-out`, or `nobody`."""
    rules: dict[str, int]
    """Questions by the rules that asked; `approval` are the rules of `--approve`."""
    most: int
    """The most questions of one attempt."""


def approval_burden(traces: Iterable[Trace]) -> ApprovalBurden:
    """The burden of these attempts. A call that a guard and `--approve` ask about is one question."""
    by, rules, counts = Counter[str](), Counter[str](), list[int]()
    allowed = 0
    for trace in traces:
        agreed = Counter[str]()
        asked = 0
        for event in trace.events:
            data, detail = event.data, event.data.get("detail") or {}
            if event.kind == "guard" and "asked" in detail:
                rules.update(rule for rule, action in detail.get("rulings", ()) if action == "ask")
                agreed[data["tool"]] += bool(detail["allowed"])
                yes, who = detail["allowed"], detail["by"]
            elif event.kind == "approval" and data["by"] != "rule":
                if agreed[data["tool"]]:  # the guard's own question, which is not asked again
                    agreed[data["tool"]] -= 1
                    continue
                rules["approval"] += 1
                yes, who = data["allowed"], data["by"]
            else:
                continue
            asked += 1
            by[who] += 1
            allowed += bool(yes)
        counts.append(asked)
    return ApprovalBurden(
        len(counts), sum(map(bool, counts)), sum(counts), allowed, dict(by), dict(rules), max(counts, default=0)
    )
