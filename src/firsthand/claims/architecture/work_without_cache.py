"""Keys and values computed while generating, with and without a cache."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote=(
        "Without optimization every new token requires re-computing Keys and Values for all previous tokens — O(n²) "
        "total work. The KV Cache computes K,V once per token and stores them."
    ),
    source="Raschka, Coding the KV Cache",
    kind="ours",
    cost_s=4,
)
LENGTHS = (8, 16, 32, 64)


def measure(lab: Lab) -> Measurement:
    """Counts the tokens that pass through a layer while a text is generated."""
    import math

    import torch

    from firsthand.claims.small_decoders import random_ids, small_decoder
    from firsthand.nn.blocks.attention import Packed
    from firsthand.nn.textbook_cache import TextbookCache

    model = small_decoder(lab.seed)
    counted = [0]
    for layer in model.layers:
        layer.register_forward_pre_hook(lambda module, given: counted.__setitem__(0, counted[0] + len(given[0])))
    rows: list[tuple[str, float, float]] = []
    with torch.inference_mode():
        for length in LENGTHS:
            ids, used = random_ids(length, lab.seed), []
            counted[0] = 0
            for end in range(1, length + 1):
                model(ids[:end], torch.arange(end), Packed([end]))
            used.append(counted[0] / 2)
            counted[0], cache = 0, TextbookCache()
            for at in range(length):
                model(ids[at : at + 1], torch.tensor([at]), cache)
            rows.append((str(length), used[0], counted[0] / 2))
    span = math.log(LENGTHS[-1] / LENGTHS[0])
    growth = [math.log(rows[-1][1] / rows[0][1]) / span, math.log(rows[-1][2] / rows[0][2]) / span]
    return Measurement(
        growth[0],
        f"exponent of the work without a cache in the length (with it: {growth[1]:.2f})",
        columns=("tokens", "tokens through a layer, no cache", "with cache"),
        rows=tuple(rows),
        curves={"no cache": [(float(r[0]), r[1]) for r in rows], "cache": [(float(r[0]), r[2]) for r in rows]},
        axes=("tokens generated", "tokens through a layer"),
    )


def judge(m: Measurement) -> Verdict:
    """Quadratic is exponent 2."""
    if 1.7 <= m.value <= 2.1:
        return ruling(
            "holds here",
            f"the work grows with the length to the power {m.value:.2f}; attention's own part even to the third",
        )
    return ruling("does not hold here", f"the work grows with the length to the power {m.value:.2f}")
