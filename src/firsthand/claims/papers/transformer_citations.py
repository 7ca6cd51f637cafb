"""Citations of the Transformer paper."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="100,000+ citations.",
    source="Vaswani et al. 2017, arXiv:1706.03762",
    kind="none",
    cannot="citations are counted by an index on the network, and no claim asks the network",
)
