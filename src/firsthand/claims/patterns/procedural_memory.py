"""Skills as memory."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Procedural memory: Learned skills, tool schemas, few-shot examples",
    source="the list's memory kinds",
    kind="none",
    cannot=(
        "a definition; the memory `procedural` keeps skills, and `bench/memory_kinds.py` measures what kinds of "
        "memory bring"
    ),
)
