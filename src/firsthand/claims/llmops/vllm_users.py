"""Users of vLLM."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="The standard open-source inference engine for self-hosted models. Used by Anyscale, Databricks, and others.",
    source="Kwon et al. 2023, arXiv:2309.06180",
    kind="none",
    cannot="a statement about companies",
)
