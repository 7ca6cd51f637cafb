"""Paging of memory."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="MemGPT: OS-inspired memory management with paging",
    source="Packer et al. 2023, arXiv:2310.08560",
    kind="none",
    cannot=(
        "needs a model that pages by itself: `firsthand run sessions --memory memgpt` measures one of yours, "
        "docs/memory.md has sim:sessions at 1.00 against 0.55 of a plain window"
    ),
)
