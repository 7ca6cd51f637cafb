"""GPT-4 against open models on AgentBench."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="GPT-4 outperforms open-source models by a huge margin on all tasks.",
    source="Liu et al. 2023, arXiv:2308.03688, table 3",
    kind="none",
    cannot=(
        "needs GPT-4 of 2023; the paper has it first in 6 of the 8 environments. `firsthand run agentbench --model "
        "NAME` measures a model of yours"
    ),
)
