"""Positional encodings of model families."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="RoPE used by: Llama, Mistral, Qwen, Gemma. ALiBi used by: BLOOM, MPT",
    source="configurations of the families",
    kind="arithmetic",
    cost_s=1,
)
EXPECTED = {"llama": "RoPE", "mixtral": "RoPE", "qwen": "RoPE", "gemma": "RoPE", "bloom": "ALiBi", "mpt": "ALiBi"}
"""Mistral is loaded as Llama's family; Mixtral stands for it."""


def measure(lab: Lab) -> Measurement:
    """Positions that each family's loader configures."""
    from pathlib import Path

    from firsthand.nn import families

    folder = Path(families.__file__).parent
    rows = []
    for name, expected in EXPECTED.items():
        text = (folder / f"{name}.py").read_text(encoding="utf-8")
        found = "ALiBi" if "alibi_slopes" in text else "RoPE" if "rope" in text.lower() else "other"
        rows.append((name, expected, found))
    return Measurement(
        sum(a == b for _, a, b in rows) / len(rows),
        "share of the families whose loader uses what the list says",
        columns=("family", "list", "loader"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """All of them."""
    if m.value == 1:
        return ruling(
            "holds here",
            "the loaders of all six use it, and their logits agree with the reference implementations (tests)",
        )
    return ruling("does not hold here", f"only {m.value:.0%} do")
