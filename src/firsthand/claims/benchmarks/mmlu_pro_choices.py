"""Chance scores of MMLU-Pro and MMLU."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab
from firsthand.stats.intervals import proportion_interval

CLAIM = Claim(
    quote="Harder version of MMLU with 10-choice questions. Resists guessing strategies.",
    source="Wang et al. 2024, arXiv:2406.01574",
    kind="sim",
    cost_s=1,
)
DRAWS = 4000


def measure(lab: Lab) -> Measurement:
    """Guesses at random."""
    from random import Random

    from firsthand.benchmarks.mmlu_pro import OPTIONS

    rng = Random(lab.seed)
    scores = {options: sum(rng.randrange(options) == 0 for _ in range(DRAWS)) for options in (4, OPTIONS)}
    rows = tuple((f"{options} choices", hits / DRAWS) for options, hits in scores.items())
    low, high = proportion_interval(scores[OPTIONS], DRAWS)
    return Measurement(
        rows[1][1],
        f"score of guessing among {OPTIONS} choices",
        low,
        high,
        DRAWS,
        columns=("questions", "score of guessing"),
        rows=rows,
    )


def judge(m: Measurement) -> Verdict:
    """Well below MMLU's 25%."""
    if m.bounds[1] < 0.15:
        return ruling(
            "holds here", f"guessing scores {m.value:.1%} and not 25%; some questions have fewer than ten choices left"
        )
    return ruling("does not hold here", f"guessing scores {m.value:.1%}")
