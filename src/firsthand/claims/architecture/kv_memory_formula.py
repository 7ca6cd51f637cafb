"""Bytes of the KV cache that our engine allocates, against the list's formula."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="Memory: [layers x 2 x seq_len x kv_heads x head_dim]",
    source="Raschka, Coding the KV Cache",
    kind="ours",
    cost_s=1,
)
LENGTHS = (64, 128, 512)


def measure(lab: Lab) -> Measurement:
    """Values that the cache keeps for one sequence over the formula's, and bytes at 2 and 4 bytes a value."""
    import torch

    from firsthand.claims.small_decoders import random_ids, small_decoder
    from firsthand.nn.textbook_cache import TextbookCache

    model = small_decoder(lab.seed, num_layers=3)
    a = model.architecture
    rows = []
    with torch.inference_mode():
        for length in LENGTHS:
            cache = TextbookCache()
            model(random_ids(length, lab.seed), torch.arange(length), cache)
            kept = sum(x.numel() for store in (cache._keys, cache._values) for x in store.values())
            formula = a.num_layers * 2 * length * a.num_kv_heads * a.head_dim
            rows.append((str(length), float(kept), float(formula), float(a.kv_bytes_per_token(2) * length)))
    columns = ("tokens", "values kept", "formula", "bytes at float16")
    return Measurement(rows[-1][1] / rows[-1][2], "values kept over the formula's", columns=columns, rows=tuple(rows))


def judge(m: Measurement) -> Verdict:
    """Exactly the formula, which counts values; bytes and batch are missing from it."""
    if m.value == 1:
        return ruling(
            "holds here", "it counts values of one sequence: multiply by bytes per value (2 at float16) and by batch"
        )
    return ruling("does not hold here", f"the cache keeps {m.value:.2f} times the formula's values")
