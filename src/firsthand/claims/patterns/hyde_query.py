"""The query of HyDE."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab
from firsthand.claims.scripted_rag import QUESTION, answered, searches

CLAIM = Claim(
    quote="HyDE: Generate hypothetical answer → use it as query",
    source="the list's table of RAG variants",
    kind="sim",
    cost_s=4,
    needs=("model minilm",),
)


def measure(lab: Lab) -> Measurement:
    """The pattern over three short documents under a scripted model; what it searched for is in its trace."""
    trace = answered(
        lab, "hyde", {"passage": "A mill was built in 1850 beside the river.", "": "The mill was built in 1871. [1]"}
    )
    asked = searches(trace)
    away = sum(query != QUESTION for query in asked)
    return Measurement(
        away / max(1, len(asked)),
        "share of searches whose query was written by the model",
        columns=("query",),
        rows=tuple((query[:80],) for query in asked),
    )


def judge(m: Measurement) -> Verdict:
    """The order of steps that the list gives."""
    if m.value >= 0.5:
        return ruling("holds here", "the search is made with a passage that the model made up")
    return ruling("does not hold here", "the search is made with the question")
