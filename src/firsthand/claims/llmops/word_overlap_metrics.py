"""ROUGE against meaning."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="LLM evals include: exact match, ROUGE/BLEU, LLM-as-judge, human preference, and task-specific metrics.",
    source="Hamel Husain, Your AI product needs evals",
    kind="arithmetic",
    cost_s=1,
)
REFERENCE = "the patient must not take the drug before surgery"
ANSWERS = {
    "wrong, same words": "the patient must take the drug before surgery",
    "right, other words": "prior to an operation this medicine is forbidden",
}


def measure(lab: Lab) -> Measurement:
    """Overlap of two answers with a reference."""
    from firsthand.scorers.text import rouge_l_of

    rows = tuple((name, rouge_l_of(said, REFERENCE)) for name, said in ANSWERS.items())
    return Measurement(
        rows[0][1] - rows[1][1],
        "ROUGE-L of a wrong answer in the same words, less that of a right one in others",
        columns=("answer", "ROUGE-L"),
        rows=rows,
    )


def judge(m: Measurement) -> Verdict:
    """A metric of quality would prefer the right one."""
    if m.value > 0:
        return ruling(
            "holds in part",
            "all of them can be computed, but word overlap prefers a wrong answer in the same words to a right "
            "one in others",
        )
    return ruling("holds here", "overlap prefers the right answer here")
