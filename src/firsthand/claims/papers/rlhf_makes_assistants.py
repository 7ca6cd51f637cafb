"""RLHF as what turns a base model into an assistant."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="The technique that turns a base language model into an assistant. This paper is why ChatGPT is useful.",
    source="Ouyang et al. 2022, arXiv:2203.02155",
    kind="none",
    cannot=(
        "needs a base model of an assistant's size, people and their preferences; training_stages takes a toy model through "
        "the stages"
    ),
)
