"""The query of HyDE."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab
from firsthand.claims.scripted_rag import answered, searches
from firsthand.trace import Trace

CLAIM = Claim(
    quote="HyDE: Generate hypothetical answer → use it as query",
    source="the list's table of RAG variants",
    kind="sim",
    cost_s=3,
    needs=("model minilm",),
)


def measure(lab: Lab) -> Measurement:
    """The pattern over three short documents under a scripted model; what it searched for is in its trace."""
    trace = answered(
        lab, "hyde", {"passage": "A mill was built in 1850 beside the river.", "": "The mill was built in 1871. [1]"}
    )
    return _measured(trace)


def _measured(trace: Trace) -> Measurement:
    first = next(at for at, call in enumerate(trace.calls) if call.kind == "tool")
    written = sum(len(call.detail.get("finish_reasons", ())) for call in trace.calls[:first])
    vectors = len(searches(trace))
    return Measurement(
        written,
        "hypothetical passages written before the first search",
        columns=("what", "count"),
        rows=(("passages", float(written)), ("searches", float(vectors))),
    )


def judge(m: Measurement) -> Verdict:
    """The order of steps that the list gives."""
    if m.value >= 1:
        return ruling(
            "holds here",
            f"one search, by the mean vector of the question and {m.value:.0f} passages that the model made up",
        )
    return ruling("does not hold here", "the search is made with the question alone")
