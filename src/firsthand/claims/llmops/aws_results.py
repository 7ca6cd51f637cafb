"""Amazon's results of fine-tuning."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote="33% reduction in medication errors, 80% less human review effort in engineering, accuracy from 77% to 96%.",
    source="AWS Machine Learning Blog",
    kind="none",
    cannot="needs Amazon's data and reviewers",
)
