"""Self-RAG against RAG."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Significantly outperforms RAG on factual tasks.",
    source="Asai et al. 2023, arXiv:2310.11511",
    kind="none",
    cannot=(
        "needs the authors' 7B model or a training run: `firsthand train selfrag` trains one of yours, `firsthand "
        "run BENCHMARK --pattern naive,self_rag` compares; self_rag_reflects tests when it searches"
    ),
)
