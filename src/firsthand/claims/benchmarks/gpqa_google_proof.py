"""Questions that a search does not answer."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="Designed to be Google-proof — you can't look up the answer.",
    source="Rein et al. 2023, arXiv:2311.12022",
    kind="none",
    cannot="needs skilled people with the web: the paper's non-experts reach 34% after half an hour of search",
)
