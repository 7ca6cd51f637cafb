"""The recommendation at the end of the table of RAG and fine-tuning: its six reasons, each by the claim that tests it."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote=(
        "Recommended when: RAG docs change often, need citations, broad knowledge base; fine-tuning consistent "
        "format, specialized domain"
    ),
    source="the list's table of RAG and fine-tuning",
    kind="ours",
    cost_s=45,
)


def measure(lab: Lab) -> Measurement:
    """The claims on the table's rows; models that they have trained already are not trained again."""
    from firsthand.claims.claim import POINTS
    from firsthand.claims.llmops import (
        fine_tuning_specialises,
        fine_tuning_style,
        rag_cites,
        rag_is_fresh,
        rag_size_unlimited,
        rag_update_cost,
    )

    reasons = {
        "docs change often: freshness": rag_is_fresh,
        "docs change often: cost to update": rag_update_cost,
        "need citations": rag_cites,
        "broad knowledge base": rag_size_unlimited,
        "consistent format": fine_tuning_style,
        "specialized domain": fine_tuning_specialises,
    }
    verdicts = {name: claim.judge(claim.measure(lab)) for name, claim in reasons.items()}
    rows = tuple((name, each.word, each.why) for name, each in verdicts.items())
    points = [POINTS[each.word] or 0.0 for each in verdicts.values()]
    what = "reasons for the recommendation that hold here, one in part as half"
    return Measurement(sum(points), what, n=len(rows), columns=("reason", "verdict", "why"), rows=rows)


def judge(m: Measurement) -> Verdict:
    """All six reasons hold; more than half of them is part of it."""
    told = f"{m.value:g} of {m.n} reasons hold on facts that one passage answers, one in part counted as half"
    if m.value >= m.n:
        return ruling("holds here", told)
    return ruling("holds in part" if m.value > m.n / 2 else "does not hold here", told)
