"""Tokens that a token attends to in a decoder."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="Each token attends to every other token in the sequence",
    source="Vaswani et al. 2017, arXiv:1706.03762",
    kind="ours",
    cost_s=1,
)


def measure(lab: Lab) -> Measurement:
    """Changes each token in turn, and sees whose hidden states move."""
    import torch

    from firsthand.claims.small_decoders import random_ids, small_decoder
    from firsthand.nn.blocks.attention import Packed

    model, length = small_decoder(lab.seed, std=0.3), 16
    ids = random_ids(length, lab.seed)
    places = torch.arange(length)
    reached = []
    with torch.inference_mode():
        before = model(ids, places, Packed([length]))
        for at in range(length):
            changed = ids.clone()
            changed[at] = (changed[at] + 1) % 128
            moved = (model(changed, places, Packed([length])) - before).abs().amax(-1) > 1e-6
            reached.append((int(moved[:at].sum()), int(moved[at + 1 :].sum())))
    pairs = length * (length - 1) // 2
    earlier, later = sum(a for a, _ in reached), sum(b for _, b in reached)
    rows = (
        ("a change reaches earlier tokens", float(earlier)),
        ("a change reaches later tokens", float(later)),
        ("pairs", float(pairs)),
    )
    return Measurement(
        (earlier + later) / (2 * pairs),
        "share of ordered pairs of tokens in which one reaches the other",
        columns=("direction", "pairs"),
        rows=rows,
    )


def judge(m: Measurement) -> Verdict:
    """All pairs in an encoder, half of them in a decoder."""
    if m.value >= 0.99:
        return ruling("holds here", "every token reaches every other")
    if 0.49 <= m.value <= 0.51:
        return ruling(
            "holds in part",
            "in a decoder a token attends to itself and to all before it, never to later ones; so it does in "
            "encoders alone",
        )
    return ruling("does not hold here", f"only {m.value:.0%} of the pairs reach each other")
