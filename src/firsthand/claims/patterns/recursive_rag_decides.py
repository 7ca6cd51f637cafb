"""Searches of recursive RAG."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab
from firsthand.claims.scripted_rag import answered, searches

CLAIM = Claim(
    quote="Recursive RAG: Agent decides when retrieval is needed",
    source="the list's table of RAG variants",
    kind="sim",
    cost_s=1,
    needs=("model minilm",),
)


def measure(lab: Lab) -> Measurement:
    """The pattern over three short documents under a scripted model; what it searched for is in its trace."""
    trace = answered(lab, "recursive", {"write DONE": "DONE", "": "The mill was built in 1871. [1]"})
    asked = searches(trace)
    again = searches(
        answered(lab, "recursive", {"write DONE": "who owned the mill", "": "The mill was built in 1871. [1]"})
    )
    return Measurement(
        float(len(asked) != len(again)),
        "1 if the model's words change the number of searches",
        columns=("model", "searches"),
        rows=(("has enough", float(len(asked))), ("asks on", float(len(again)))),
    )


def judge(m: Measurement) -> Verdict:
    """The order of steps that the list gives."""
    if m.value == 1:
        return ruling(
            "holds here",
            "a model that asks on searches more often; the first search is made always, so `when` is half of it",
        )
    return ruling("does not hold here", "the number of searches is the same whatever the model says")
