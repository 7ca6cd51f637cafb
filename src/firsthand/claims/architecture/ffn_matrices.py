"""Matrices of a feed-forward network."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab
from firsthand.hub.model_shapes import KNOWN_SHAPES

CLAIM = Claim(
    quote="A position-wise feed-forward network (2 linear layers + activation). Modern models use SwiGLU activation.",
    source="Shazeer 2020, arXiv:2002.05202",
    kind="arithmetic",
    cost_s=2,
)


def measure(lab: Lab) -> Measurement:
    """Counts the matrices of one layer of our decoder."""
    from firsthand.claims.small_decoders import small_decoder

    rows = []
    for name, model in (
        ("SwiGLU (Llama, Mistral, Qwen)", small_decoder(lab.seed)),
        ("GELU (GPT-2, BLOOM)", small_decoder(lab.seed, is_gated=False, activation="gelu")),
    ):
        layer = model.layers[0]
        rows.append((name, float(sum(p.ndim == 2 for part, p in layer.named_parameters() if "mlp" in part))))
    gates = [shape.gated for shape in KNOWN_SHAPES.values()]
    rows.append(("known models with a gate", float(sum(gates))))
    rows.append(("known models", float(len(gates))))
    return Measurement(
        rows[0][1],
        "matrices of the feed-forward network of a model with SwiGLU",
        columns=("what", "count"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """Two, as the list says."""
    if m.value == 2:
        return ruling("holds here", "a SwiGLU network has two matrices")
    return ruling(
        "holds in part",
        f"most models use a gate (Gemma: GeGLU), and with one the network has {m.value:.0f} matrices, not 2",
    )
