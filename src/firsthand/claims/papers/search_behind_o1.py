"""Tree of Thoughts as the basis of o1 and o3."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="The basis for o1/o3-style thinking models.",
    source="Yao et al. 2023, arXiv:2305.10601",
    kind="none",
    cannot=(
        "OpenAI has not published how o1 and o3 work; what is known (one long chain, trained by reinforcement) is no "
        "tree search"
    ),
)
