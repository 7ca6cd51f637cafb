"""Compares judges with human votes: scorers for tasks whose secret holds `votes`, and the items for agreement statistics.

The answer to such a task is a verdict: `A`, `B` or `tie`, or a text with one label of the task's judge protocol, such as
`[[A]]` or Arena-Hard's `[[A>>B]]`. A text that names two labels has no verdict, and neither has one that denies its label or
says that an answer holds it: a judge quotes what it judges.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from firsthand.patterns.judge import winner
from firsthand.patterns.parts.judge_protocols import judge_protocol
from firsthand.patterns.parts.written_labels import stated_label
from firsthand.scorers.whole_answer import whole_answer
from firsthand.stats.rater_agreement import Judged, majority
from firsthand.task import Task
from firsthand.trace import Score, Trace

_NAMES = {"A": "A", "B": "B", "C": "tie", "tie": "tie"}


def human_agreement(task: Task, trace: Trace) -> Score:
    """Score the share of human votes that agree with the verdict; 0 if there is no verdict."""
    verdict, votes = verdict_of(task, trace), votes_of(task)
    return Score("human_agreement", sum(vote == verdict for vote in votes) / len(votes), {"verdict": verdict})


def majority_agreement(task: Task, trace: Trace) -> Score:
    """Score 1 if the verdict is the majority's; without a majority, the share of votes that agree."""
    most = majority(votes_of(task))
    verdict = verdict_of(task, trace)
    value = float(verdict == most) if most is not None else human_agreement(task, trace).value
    return Score("majority_agreement", value, {"verdict": verdict, "majority": most})


def order_consistency(task: Task, trace: Trace) -> Score:
    """Score 1 if the judge's verdict is the same in both orders; no part of a mean for a trace without two orders."""
    orders = judgement_of(trace).get("orders", ())
    if len(orders) != 2:
        return Score("order_consistency", 0.0, failure="the pair was not judged in both orders", unjudged=True)
    return Score("order_consistency", float(orders[0] == orders[1]))


def verdict_of(task: Task, trace: Trace) -> str | None:
    """Return `A`, `B`, `tie`, or None if the answer has no verdict in the form that the task's judge protocol asks for."""
    answer = whole_answer(trace).strip()
    if answer in _NAMES:
        return _NAMES[answer]
    about = task.metadata.get("judge")
    protocol = judge_protocol(str(about.get("protocol", "pairwise")) if isinstance(about, Mapping) else "pairwise")
    label = stated_label(answer, protocol.labels)
    return next((winner({each.name: 1.0}) for each in protocol.verdicts if each.label == label), None)


def votes_of(task: Task) -> tuple[str, ...]:
    """Return the human votes."""
    return tuple(str(vote) for vote in task.secret["votes"])


def judgement_of(trace: Trace) -> Mapping[str, Any]:
    """Return the pattern `judge`'s record of its last judgement; empty for another pattern."""
    found = [event.data for event in trace.events if event.kind == "judgement"]
    return found[-1] if found else {}


def judged(task: Task, trace: Trace) -> Judged | None:
    """Return the item for the statistics; None if the attempt failed or has no verdict."""
    verdict = verdict_of(task, trace)
    if trace.error is not None or verdict is None:
        return None
    noted = judgement_of(trace)
    orders, first = noted.get("orders", ()), noted.get("first")
    by_model = len(orders) == 2 and not str(noted.get("by", "")).startswith("rule")  # a rule has no bias to speak of
    return Judged(
        task.id,
        votes_of(task),
        verdict,
        task.cluster,
        longer_answer(task),
        float(first) if by_model and isinstance(first, int | float) else None,
        orders[0] == orders[1] if by_model else None,
    )


def judged_items(tasks: Mapping[tuple[str, str], Task], traces: Iterable[Trace]) -> tuple[list[Judged], int]:
    """Return one judge's items on one set, first epoch, by task id, and the number of attempts without one.

    A bootstrap draws by position, so the order must not be that in which attempts were completed.
    """
    found, missing = [], 0
    for trace in traces:
        if trace.epoch == 0:
            item = judged(tasks[trace.benchmark, trace.task_id], trace)
            missing += item is None
            found += [] if item is None else [item]
    return sorted(found, key=lambda each: each.item), missing


def longer_answer(task: Task) -> Literal["A", "B"] | None:
    """Return the answer with more characters, or None for equal lengths."""
    about = task.metadata.get("judge")
    fields = about.get("fields", {}) if isinstance(about, Mapping) else {}
    a, b = len(str(fields.get("answer_a", ""))), len(str(fields.get("answer_b", "")))
    return None if a == b else "A" if a > b else "B"
