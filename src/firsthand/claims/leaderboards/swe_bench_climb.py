"""Scores of SWE-bench by month."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Watch scores climb month-over-month.",
    source="SWE-bench, swebench.com",
    kind="none",
    cannot="needs the live board; `firsthand board swe_bench FILE --climb` prints the best score by date from a copy",
)
