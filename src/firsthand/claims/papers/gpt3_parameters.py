"""Parameters of GPT-3."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="Introduces GPT-3 (175B parameters)",
    source="Brown et al. 2020, arXiv:2005.14165, table 2.1",
    kind="arithmetic",
    cost_s=1,
)
TABLE = {"GPT-3 Small": (12, 768, 12, 64), "GPT-3 XL": (24, 2048, 24, 128), "GPT-3 175B": (96, 12288, 96, 128)}
"""Model -> layers, width, heads and width of a head, as the paper's table 2.1 has them."""
VOCABULARY, CONTEXT = 50_257, 2048


def measure(lab: Lab) -> Measurement:
    """Counts the matrices, biases, norms and positions of a GPT-2-like decoder of the published sizes."""
    from firsthand.hub.model_shapes import DecoderShape

    rows = []
    for name, (layers, width, heads, head) in TABLE.items():
        shape = DecoderShape(
            VOCABULARY, width, layers, heads, heads, head, 4 * width, max_position=CONTEXT, tied=True, gated=False,
            qkv_bias=True, other_bias=True, learned_positions=True,
        )  # fmt: skip
        rows.append((name, shape.parameters / 1e9))
    return Measurement(
        rows[-1][1],
        "parameters of a decoder of GPT-3's published sizes",
        unit="billion",
        columns=("model", "billion parameters"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """Within one per cent, which is more than rounding takes."""
    if abs(m.value - 175) <= 1.75:
        return ruling("holds here", f"{m.value:.1f} billion by the sizes of the paper; its weights are not public")
    return ruling("does not hold here", f"the sizes of the paper make {m.value:.1f} billion")
