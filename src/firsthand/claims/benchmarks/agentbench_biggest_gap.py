"""The gap between open models and GPT-4 at agents' tasks."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote=(
        "Open-source models score dramatically worse than GPT-4 on multi-step reasoning with tool use. Biggest gap "
        "between frontier and open-source."
    ),
    source="Liu et al. 2023, arXiv:2308.03688",
    kind="none",
    cannot="needs a hosted model that is not on this machine",
)
