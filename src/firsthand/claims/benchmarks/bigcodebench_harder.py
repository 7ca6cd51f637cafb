"""BigCodeBench beside HumanEval and SWE-bench."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Much harder than HumanEval — tests real-world programming knowledge. Less brittle than SWE-bench.",
    source="Zhuo et al. 2024, arXiv:2406.15877",
    kind="none",
    cannot="needs a model that solves some of all three, and models that run here are at the floor of two of them",
)
