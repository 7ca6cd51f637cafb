"""Tool use learned without labels."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote=(
        "Shows that LLMs can self-supervise their own tool use — the model learns when and how to call APIs "
        "(calculator, search, calendar) without human-labeled data."
    ),
    source="Schick et al. 2023, arXiv:2302.04761",
    kind="none",
    cannot=(
        "the experiment is here and trains for minutes: `firsthand train toy_bookkeeper`, then `firsthand train "
        "toolformer` with its control of corrupted results (docs/toolformer.md)"
    ),
)
