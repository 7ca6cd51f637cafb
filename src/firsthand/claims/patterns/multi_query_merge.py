"""Queries of multi-query RAG."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab
from firsthand.claims.scripted_rag import answered, searches

CLAIM = Claim(
    quote="Multi-query RAG: Rewrite query N ways, merge results",
    source="the list's table of RAG variants",
    kind="sim",
    cost_s=1,
    needs=("model minilm",),
)


def measure(lab: Lab) -> Measurement:
    """The pattern over three short documents under a scripted model; what it searched for is in its trace."""
    trace = answered(
        lab,
        "multi_query",
        {
            "numbered list": "1. year the mill was built\n2. construction of the mill",
            "different": "1. year the mill was built\n2. construction of the mill",
            "": "The mill was built in 1871. [1]",
        },
    )
    asked = searches(trace)
    return Measurement(
        len(set(asked)),
        "different queries of one question",
        columns=("query",),
        rows=tuple((query[:80],) for query in asked),
    )


def judge(m: Measurement) -> Verdict:
    """The order of steps that the list gives."""
    if m.value >= 2:
        return ruling("holds here", f"{m.value:.0f} queries, whose hits are merged by reciprocal rank fusion")
    return ruling("does not hold here", f"{m.value:.0f} query")
