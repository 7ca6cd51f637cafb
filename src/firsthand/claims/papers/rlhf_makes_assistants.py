"""RLHF as what turns a base model into an assistant."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="The technique that turns a base language model into an assistant. This paper is why ChatGPT is useful.",
    source="Ouyang et al. 2022, arXiv:2203.02155",
    kind="none",
    cannot=(
        "needs a base model, people and their preferences; `firsthand train reward` and `firsthand train ppo` are "
        "the stages, docs/reinforcement.md shows over-optimisation on toy reviews"
    ),
)
