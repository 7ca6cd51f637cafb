"""Bytes of quantized weights against float16."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="Quantization reduces precision to cut memory: INT8 (half), INT4 (quarter).",
    source="llama.cpp, GGUF block formats",
    kind="ours",
    cost_s=1,
)


def measure(lab: Lab) -> Measurement:
    """Weights packed in GGUF's blocks and read back."""
    import torch

    weights = torch.randn(256, 1024, generator=torch.Generator().manual_seed(lab.seed)) * 0.02
    rows = []
    for kind in ("Q8_0", "Q4_0", "Q4_1"):
        packed, back = _round_trip(weights, kind)
        error = float((back - weights).norm() / weights.norm())
        rows.append((kind, 8 * packed / weights.numel(), packed / (2 * weights.numel()), error))
    return Measurement(
        rows[1][2],
        "bytes of 4-bit blocks (Q4_0) over float16",
        columns=("format", "bits a weight", "of float16", "relative error"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """A quarter of float16 is 0.25."""
    if m.value <= 0.255:
        return ruling("holds here", f"{m.value:.3f} of float16")
    if m.value <= 0.33:
        return ruling(
            "holds in part",
            f"{m.value:.2f} of float16 and not 0.25, since each block of 32 has a scale; of float32 it is an eighth",
        )
    return ruling("does not hold here", f"{m.value:.2f} of float16")


def _round_trip(weights, kind: str):  # type: ignore[no-untyped-def]
    """Bytes of the blocks, and the weights read back from them."""
    import gguf
    import torch

    packed = gguf.quants.quantize(weights.numpy(), gguf.GGMLQuantizationType[kind])
    return packed.nbytes, torch.from_numpy(gguf.quants.dequantize(packed, gguf.GGMLQuantizationType[kind]))
