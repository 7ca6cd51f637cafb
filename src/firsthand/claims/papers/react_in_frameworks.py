"""ReAct as the default of agent frameworks."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Still the default pattern in LangChain, LlamaIndex, and most agent frameworks.",
    source="Yao et al. 2022, arXiv:2210.03629",
    kind="none",
    cannot="a statement about other packages' defaults, which change by release",
)
