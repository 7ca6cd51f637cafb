"""GPT-3's context window."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="GPT-3 (4K) → GPT-4 Turbo (128K) → Claude 3.5 (200K) → Gemini 1.5 Pro (1M).",
    source="Brown et al. 2020, arXiv:2005.14165, section 2.1",
    kind="arithmetic",
    cost_s=1,
)
PUBLISHED = {
    "GPT-3 (2020)": 2048,
    "GPT-3.5 (2022)": 4096,
    "GPT-4 Turbo": 128_000,
    "Claude 3.5": 200_000,
    "Gemini 1.5 Pro": 1_000_000,
}
"""As the makers state them."""


def measure(lab: Lab) -> Measurement:
    """Windows as the papers and makers state them."""
    rows = tuple((name, float(size)) for name, size in PUBLISHED.items())
    return Measurement(
        PUBLISHED["GPT-3 (2020)"], "tokens of GPT-3's context in its paper", columns=("model", "tokens"), rows=rows
    )


def judge(m: Measurement) -> Verdict:
    """The list's 4K for GPT-3 against its paper."""
    if m.value == 4096:
        return ruling("holds here", "GPT-3's window is 4,096 by the figures of its paper")
    return ruling(
        "does not hold here",
        f"GPT-3's window is {m.value:,.0f} by the figures of Brown et al. 2020; 4K came with GPT-3.5. The others are as "
        "their makers state them, and none is measured here",
    )
