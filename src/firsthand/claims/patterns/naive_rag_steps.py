"""Steps of naive RAG."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab
from firsthand.claims.scripted_rag import QUESTION, answered, searches

CLAIM = Claim(
    quote="Naive RAG: Chunk → Embed → Retrieve → Generate",
    source="the list's table of RAG variants",
    kind="sim",
    cost_s=6,
    needs=("model minilm",),
)


def measure(lab: Lab) -> Measurement:
    """The pattern over three short documents under a scripted model; what it searched for is in its trace."""
    trace = answered(lab, "naive", {"": "The mill was built in 1871. [1]"})
    asked = searches(trace)
    rows = (
        ("searches", float(len(asked))),
        ("generations", float(sum(call.kind == "generate" for call in trace.calls))),
    )
    return Measurement(
        float(asked == [QUESTION] and rows[1][1] == 1),
        "1 if one search with the question comes before one generation",
        columns=("step", "count"),
        rows=rows,
    )


def judge(m: Measurement) -> Verdict:
    """The order of steps that the list gives."""
    if m.value == 1:
        return ruling("holds here", "one search with the question as it is, then one answer")
    return ruling("does not hold here", "the steps are others")
