"""Word order without positional encodings."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab
from firsthand.nn.architecture import RopeKind

CLAIM = Claim(
    quote="Transformers have no inherent notion of word order — positional encodings inject position information.",
    source="Vaswani et al. 2017, arXiv:1706.03762; Haviv et al. 2022, arXiv:2203.16634",
    kind="ours",
    cost_s=1,
)
SETTINGS: tuple[tuple[str, int, RopeKind], ...] = (
    ("1 layer, no positions", 1, "none"),
    ("2 layers, no positions", 2, "none"),
    ("2 layers, RoPE", 2, "default"),
)
"""Name, layers, and the kind of rotation."""


def measure(lab: Lab) -> Measurement:
    """Shuffles all words but the last, and compares the last word's state."""
    import torch

    from firsthand.claims.small_decoders import random_ids, small_decoder
    from firsthand.nn.architecture import Rope
    from firsthand.nn.blocks.attention import Packed

    length, rows = 12, []
    ids = random_ids(length, lab.seed)
    order = torch.randperm(length - 1, generator=torch.Generator().manual_seed(lab.seed))
    shuffled = torch.cat([ids[:-1][order], ids[-1:]])
    with torch.inference_mode():
        for name, layers, kind in SETTINGS:
            model = small_decoder(lab.seed, std=0.3, num_layers=layers, ropes=(Rope(kind=kind),) * layers)
            one, two = (model(x, torch.arange(length), Packed([length]))[-1] for x in (ids, shuffled))
            rows.append((name, float((one - two).norm() / one.norm())))
    return Measurement(
        rows[1][1],
        "change of a decoder's last state when the words before are shuffled, two layers without positions",
        columns=("model", "relative change"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """No notion of order means no change at all."""
    if m.value < 1e-4:
        return ruling("holds here", "without positions a decoder of two layers gives the same state for any order")
    why = (
        f"shuffling moves the last state by {m.value:.0%} without positions: the causal mask itself tells order from "
        "the second layer on"
    )
    return ruling("holds in part", f"{why}; one layer, and an encoder, cannot know of it")
