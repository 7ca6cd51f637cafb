"""The architecture of RAG systems since 2020."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Every RAG system you've seen is based on this architecture.",
    source="Lewis et al. 2020, arXiv:2005.11401",
    kind="none",
    cannot=(
        "a statement about all systems; most put passages into a prompt, where the paper sums over documents and "
        "trains retriever and generator together"
    ),
)
