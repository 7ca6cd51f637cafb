"""The part of a step's cost that grows with the length of the sequence."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="This is why inference cost is dominated by sequence length.",
    source="Pope et al. 2022, arXiv:2211.05102",
    kind="arithmetic",
    cost_s=1,
)
MODELS = ("llama-2-7b", "llama-3-8b", "llama-3-70b")
BATCHES = (1, 32)
LENGTHS = (1024, 8192, 131_072, 1_048_576)


def measure(lab: Lab) -> Measurement:
    """Bytes that a step reads at float16: the weights once, and the cache of each sequence."""
    from firsthand.hub.model_shapes import KNOWN_SHAPES

    rows, curves = list[tuple[str | float, ...]](), dict[str, list[tuple[float, float]]]()
    for name in MODELS:
        shape = KNOWN_SHAPES[name]
        for batch in BATCHES:
            weights = shape.read_parameters(batch)
            shares = [
                batch * shape.kv_values(length) / (batch * shape.kv_values(length) + weights) for length in LENGTHS
            ]
            even = weights / (batch * shape.kv_values_per_token)
            arm = f"{name}, {batch} at once"
            rows.append((arm, float(round(even)), *(round(share, 3) for share in shares)))
            curves[arm] = [(float(length), share) for length, share in zip(LENGTHS, shares, strict=True)]
    found = Measurement(0.0, columns=("model", "tokens"), rows=tuple(row[:2] for row in rows))
    return Measurement(
        found.cell("llama-3-8b, 1 at once", "tokens"),
        "tokens of context at which a step of Llama 3 8B reads as much cache as weights, one sequence at a time",
        unit="tokens",
        columns=("model, sequences", "tokens for an even share", *(f"cache at {length:,}" for length in LENGTHS)),
        rows=tuple(rows),
        curves={name: line for name, line in curves.items() if name.startswith("llama-3-8b")},
        axes=("tokens of context", "share of the bytes read"),
    )


def judge(m: Measurement) -> Verdict:
    """It holds if the cache is the greater part of a step at 8,192 tokens, and in part if it is below a million."""
    crowd = m.cell("llama-3-8b, 32 at once", "tokens for an even share")
    told = (
        f"the cache is half of what a step reads from {m.value:,.0f} tokens on, and with 32 sequences from {crowd:,.0f}"
    )
    if m.value <= 8192:
        return ruling("holds here", told)
    if m.value <= 1_048_576 or crowd <= 8192:
        return ruling("holds in part", f"{told}; below that the weights are the greater part")
    return ruling("does not hold here", told)
