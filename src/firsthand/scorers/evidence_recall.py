"""Scores what a memory found for a question against the sessions or messages that hold its answer.

Read from the trace: the items of the last `recall` before the answer. The evidence is `secret["evidence"]`, ids of sessions
(LongMemEval) or of messages (LoCoMo), which items name in their provenance as `session` and `turn`.
"""

from __future__ import annotations

from firsthand.task import Task
from firsthand.trace import Score, Trace


def evidence_recall(task: Task, trace: Trace) -> Score:
    """Score the share of the evidence that was found; 1 for a question without evidence."""
    found, evidence = _found(task, trace)
    return Score(
        "evidence_recall", len(evidence & found) / len(evidence) if evidence else 1.0, {"found": sorted(found)[:50]}
    )


def evidence_all(task: Task, trace: Trace) -> Score:
    """Score 1 if all of the evidence was found."""
    found, evidence = _found(task, trace)
    return Score("evidence_all", float(evidence <= found))


def _found(task: Task, trace: Trace) -> tuple[set[str], set[str]]:
    evidence = {str(each) for each in task.secret.get("evidence", ())}
    recalls = [call for call in trace.calls if call.kind == "memory" and call.detail.get("operation") == "recall"]
    reply = recalls[-1].detail.get("reply") if recalls else None
    found = set()
    for item in reply if isinstance(reply, list) else ():
        provenance = item.get("provenance", {})
        found |= {str(provenance[key]) for key in ("session", "turn") if key in provenance}
    return found, evidence
