"""Facts in feed-forward weights."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote='FFNs store "factual knowledge" in their weights.',
    source="Geva et al. 2020, arXiv:2012.14913; Meng et al. 2022, arXiv:2202.05262",
    kind="none",
    cannot=(
        "needs a model that knows facts well: 135M parameters know too few; docs/interpretability.md patches "
        "activations of models of yours"
    ),
)
