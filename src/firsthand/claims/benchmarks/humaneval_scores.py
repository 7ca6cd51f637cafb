"""GPT-4's score on HumanEval."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="GPT-4 scores ~85%+ on Pass@1.",
    source="Chen et al. 2021, arXiv:2107.03374",
    kind="none",
    cannot="needs a hosted model that is not on this machine; GPT-4's own report gives 67.0 for the first GPT-4",
)
