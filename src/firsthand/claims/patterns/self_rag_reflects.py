"""Reflection of Self-RAG."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="Self-RAG: Reflection tokens decide if retrieval helped",
    source="Asai et al. 2023, arXiv:2310.11511",
    kind="sim",
    cost_s=1,
    needs=("model minilm",),
)


def measure(lab: Lab) -> Measurement:
    """Two scripted models that differ in the probability of wanting passages."""
    import math
    from functools import partial

    from firsthand.claims.scripted_rag import answered, searches

    def known(words: dict[str, float], prompt: str, word: str) -> float:
        return math.log(words.get(word, 0.02))

    rows = []
    for wants in (0.9, 0.05):
        words = {"yes": wants, "no": 1 - wants, "relevant": 0.8, "fully": 0.7, "5": 0.9}
        trace = answered(
            lab,
            "self_rag",
            {"": "The mill was built in 1871."},
            score=partial(known, words),
        )
        rows.append((f"wants passages with {wants:.0%}", float(len(searches(trace)))))
    return Measurement(
        rows[0][1] - rows[1][1],
        "searches of a model that wants passages, less those of one that does not",
        columns=("model", "searches"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """One must search, the other not."""
    if m.value >= 1:
        return ruling(
            "holds here",
            "it searches only if the probability of the reflection says so, where standard RAG always does",
        )
    return ruling("does not hold here", "both search as often")
