"""GPT-4 as a mixture of experts."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Mixtral 8x7B and GPT-4 are believed to be MoE models.",
    source="Jiang et al. 2024, arXiv:2401.04088",
    kind="none",
    cannot="Mixtral's weights show that it is one (mixtral_parameters); GPT-4's architecture is not published",
)
