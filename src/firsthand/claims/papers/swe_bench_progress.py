"""Progress on SWE-bench from 2023 to 2025."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="In 2023, best models solved ~4% of issues. By 2025, top systems solve over 70%.",
    source="Jimenez et al. 2023, arXiv:2310.06770, table 5",
    kind="none",
    cannot=(
        "needs hosted models; the two numbers are of two sets: 1.96% (4.8% with the right files given) is of all "
        "2,294 issues, 70% of the 500 Verified ones"
    ),
)
