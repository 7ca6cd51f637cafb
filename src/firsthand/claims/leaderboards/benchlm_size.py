"""Models and benchmarks of BenchLM."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Aggregates 152 models across 53 benchmarks. Updated continuously.",
    source="BenchLM",
    kind="none",
    cannot="a count on a live site; composite_score tests what one score over many benchmarks says",
)
