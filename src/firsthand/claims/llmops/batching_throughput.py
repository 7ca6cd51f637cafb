"""Throughput of continuous batching."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="PagedAttention + continuous batching enables 24x higher throughput than naive serving.",
    source="Kwon et al. 2023, arXiv:2309.06180",
    kind="ours",
    cost_s=5,
)
WIDTHS = (1, 4, 16, 32)


def measure(lab: Lab) -> Measurement:
    """Our engine with paged blocks, at one and at many requests together, in CPU time."""
    import time

    from firsthand.claims.generated_tokens import generated
    from firsthand.claims.small_decoders import small_decoder

    model = small_decoder(lab.seed, hidden_size=256, intermediate_size=512, num_heads=4, head_dim=64, num_layers=4)
    prompts = [tuple((17 * i + j) % 128 for j in range(24)) for i in range(max(WIDTHS))]
    generated(model, prompts[:1], 4)
    rows = []
    for width in WIDTHS:
        start, made = time.process_time(), 0
        for first in range(0, len(prompts), width):
            answers, _ = generated(model, prompts[first : first + width], 24)
            made += sum(map(len, answers))
        rows.append((str(width), made / (time.process_time() - start)))
    return Measurement(
        rows[-1][1] / rows[0][1],
        f"tokens per CPU second with {WIDTHS[-1]} requests at a time over one at a time",
        columns=("requests at a time", "tokens per CPU second"),
        rows=tuple(rows),
        curves={"our engine": [(float(r[0]), r[1]) for r in rows]},
        axes=("requests at a time", "tokens per CPU second"),
    )


def judge(m: Measurement) -> Verdict:
    """The list's factor."""
    if m.value >= 24:
        return ruling("holds here", f"{m.value:.0f} times")
    if m.value > 1.5:
        return ruling(
            "holds in part",
            f"{m.value:.1f} times here; 24 is the paper's largest, against a server that batches nothing, on a GPU",
        )
    return ruling("does not hold here", f"{m.value:.1f} times")
