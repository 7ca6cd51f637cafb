"""The conversation window as memory."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="In-context (working memory): Current conversation window",
    source="the list's memory kinds",
    kind="arithmetic",
    cost_s=1,
)
TURN = 200
"""Tokens of a turn."""


def measure(lab: Lab) -> Measurement:
    """Windows of published shapes."""
    from firsthand.hub.model_shapes import KNOWN_SHAPES

    rows = tuple(
        (name, float(shape.max_position), float(shape.max_position // TURN)) for name, shape in KNOWN_SHAPES.items()
    )
    return Measurement(
        rows[1][2],
        f"turns of {TURN} tokens that SmolLM2's window holds",
        columns=("model", "window", "turns"),
        rows=rows,
    )


def judge(m: Measurement) -> Verdict:
    """A window is a memory of bounded size."""
    if m.value < 1000:
        return ruling(
            "holds here", f"it holds {m.value:.0f} turns and then forgets; the memory `working` keeps the newest"
        )
    return ruling("holds in part", f"it holds {m.value:.0f} turns, more than most conversations have")
