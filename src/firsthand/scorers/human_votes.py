"""Judges held to human votes: scorers for tasks whose secret holds `votes`, and what a run says of a judge as a whole.

The answer to such a task is a verdict: `A`, `B` or `tie`, or a text whose last `[[A]]`, `[[B]]` or `[[C]]` counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from firsthand.stats.rater_agreement import Judged, majority
from firsthand.task import Task
from firsthand.trace import Score, Trace

_WRITTEN = re.compile(r"\[\[([ABC])\]\]")
_NAMES = {"A": "A", "B": "B", "C": "tie", "tie": "tie"}


def human_agreement(task: Task, trace: Trace) -> Score:
    """The share of the people's votes that the verdict agrees with; 0 where there is no verdict."""
    verdict, votes = verdict_of(trace), votes_of(task)
    return Score("human_agreement", sum(vote == verdict for vote in votes) / len(votes), {"verdict": verdict})


def majority_agreement(task: Task, trace: Trace) -> Score:
    """1 if the verdict is what most people said; where they have no majority, the share that agrees."""
    most = majority(votes_of(task))
    verdict = verdict_of(trace)
    value = float(verdict == most) if most is not None else human_agreement(task, trace).value
    return Score("majority_agreement", value, {"verdict": verdict, "majority": most})


def order_consistency(task: Task, trace: Trace) -> Score:
    """1 if the judge said the same in both orders; a trace without two orders has no such score."""
    orders = judgement_of(trace).get("orders", ())
    if len(orders) != 2:
        return Score("order_consistency", 0.0, failure="the pair was not judged in both orders")
    return Score("order_consistency", float(orders[0] == orders[1]))


def verdict_of(trace: Trace) -> str | None:
    """`A`, `B`, `tie`, or None if the answer holds no verdict."""
    answer = (trace.answer or "").strip()
    if answer in _NAMES:
        return _NAMES[answer]
    written = _WRITTEN.findall(answer[-20_000:])
    return _NAMES[written[-1]] if written else None


def votes_of(task: Task) -> tuple[str, ...]:
    """What the people said."""
    return tuple(str(vote) for vote in task.secret["votes"])


def judgement_of(trace: Trace) -> Mapping[str, Any]:
    """What the pattern `judge` noted of its last judgement; empty if another pattern made the attempt."""
    found = [event.data for event in trace.events if event.kind == "judgement"]
    return found[-1] if found else {}


def judged(task: Task, trace: Trace) -> Judged | None:
    """The item as the statistics take it; None where the attempt failed or has no verdict."""
    verdict = verdict_of(trace)
    if trace.error is not None or verdict is None:
        return None
    noted = judgement_of(trace)
    orders, first = noted.get("orders", ()), noted.get("first")
    asked = len(orders) == 2 and not str(noted.get("by", "")).startswith("rule")  # a rule has no bias to speak of
    return Judged(
        task.id,
        votes_of(task),
        verdict,
        task.cluster,
        longer_answer(task),
        float(first) if asked and isinstance(first, int | float) else None,
        orders[0] == orders[1] if asked else None,
    )


def judged_items(tasks: Mapping[tuple[str, str], Task], traces: Iterable[Trace]) -> tuple[list[Judged], int]:
    """The items of the first epoch of one judge on one set, and how many attempts gave none."""
    found, missing = [], 0
    for trace in traces:
        if trace.epoch == 0:
            item = judged(tasks[trace.benchmark, trace.task_id], trace)
            missing += item is None
            found += [] if item is None else [item]
    return found, missing


def longer_answer(task: Task) -> Literal["A", "B"] | None:
    """Which answer of a pair has more characters."""
    about = task.metadata.get("judge")
    fields = about.get("fields", {}) if isinstance(about, Mapping) else {}
    a, b = len(str(fields.get("answer_a", ""))), len(str(fields.get("answer_b", "")))
    return None if a == b else "A" if a > b else "B"
