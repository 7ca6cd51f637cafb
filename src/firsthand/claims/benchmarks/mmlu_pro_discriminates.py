"""MMLU-Pro beside MMLU for the best models."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Better discriminator for frontier models than original MMLU.",
    source="Wang et al. 2024, arXiv:2406.01574",
    kind="none",
    cannot="needs frontier models at both; mmlu_pro_choices tests the part that ten options play",
)
