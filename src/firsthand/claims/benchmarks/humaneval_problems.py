"""Problems of HumanEval, and pass@k."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="164 Python programming problems. Pass@1 and Pass@10 metrics.",
    source="Chen et al. 2021, arXiv:2107.03374",
    kind="arithmetic",
    cost_s=1,
    needs=("data code/humaneval",),
)


def measure(lab: Lab) -> Measurement:
    """Reads the problems."""
    from firsthand import catalog
    from firsthand.scorers.code import pass_at_k

    tasks = catalog.benchmark("humaneval").tasks(0)
    rows = tuple((f"pass@{k} of 3 right in 20", float(pass_at_k(20, 3, k))) for k in (1, 10))
    return Measurement(len(tasks), "problems", columns=("metric", "value"), rows=rows)


def judge(m: Measurement) -> Verdict:
    """Exactly 164."""
    if m.value == 164:
        return ruling("holds here", "164 problems; pass@10 is estimated without bias from more than ten samples")
    return ruling("does not hold here", f"{m.value:.0f} problems")
