"""Tokens per parameter of large models before Chinchilla."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab
from firsthand.stats.intervals import proportion_interval

CLAIM = Claim(
    quote="Shows most large models were undertrained.",
    source="Hoffmann et al. 2022, arXiv:2203.15556, table 1",
    kind="arithmetic",
    cost_s=1,
)
MODELS = (
    ("LaMDA", 137.0, 168.0),
    ("GPT-3", 175.0, 300.0),
    ("Jurassic-1", 178.0, 300.0),
    ("Gopher", 280.0, 300.0),
    ("MT-NLG", 530.0, 270.0),
    ("Chinchilla", 70.0, 1400.0),
)
"""Name, and billions of parameters and training tokens, from the paper's table 1."""


def measure(lab: Lab) -> Measurement:
    """Sizes and tokens of the paper's table, typed in; the threshold is its rule of some 20 tokens per parameter."""
    rows = tuple((name, size, tokens, tokens / size) for name, size, tokens in MODELS)
    under = sum(row[3] < 20 for row in rows)
    low, high = proportion_interval(under, len(rows))
    return Measurement(
        under / len(rows),
        "share with fewer than 20 tokens per parameter",
        low,
        high,
        len(rows),
        columns=("model", "B parameters", "B tokens", "tokens per parameter"),
        rows=rows,
    )


def judge(m: Measurement) -> Verdict:
    """Most is more than half."""
    if m.value > 0.5:
        return ruling(
            "holds here",
            f"by the figures of Hoffmann et al., table 1, {m.value:.0%} of its models had fewer than 20 "
            "tokens per parameter",
        )
    return ruling(
        "does not hold here",
        f"by the figures of Hoffmann et al., table 1, {m.value:.0%} of its models had fewer than 20 tokens per parameter",
    )
