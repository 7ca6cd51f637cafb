"""When to use RAG or fine-tuning."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote=(
        "Recommended when: RAG docs change often, need citations, broad knowledge base; fine-tuning consistent "
        "format, specialized domain"
    ),
    source="the list's table of RAG and fine-tuning",
    kind="none",
    cannot="a recommendation; `firsthand claims table rag` fills the rows that it rests on",
)
