"""Few-shot learning that needs no fine-tuning once a model is large."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="You don't need task-specific fine-tuning if you scale far enough.",
    source="Brown et al. 2020, arXiv:2005.14165",
    kind="none",
    cannot="the largest model of the paper has 175B parameters; few_shot_examples tests the small end of it",
)
