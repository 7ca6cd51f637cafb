"""Scores of an embedder whose products are rounded to bfloat16, on a machine without the tiles that round so.

    python bench/embedding_rounding.py float32 run mteb_stsb --model embedder:minilm --pattern embed
    python bench/embedding_rounding.py bfloat16 run scifact --model scripted:echo --pattern retrieve:variant=dense

The encoder runs in torch, in float32. At bfloat16 both factors of every product are rounded to bfloat16 first, in attention
too, and the sums stay in float32: what a CPU with AMX does for `precision="bfloat16"`, but for the order of its sums. The
benchmark, its scores and its intervals are those of `firsthand run`.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.nn import functional

from firsthand.cli import main as firsthand
from firsthand.embed import embedding


def rounded(values: torch.Tensor) -> torch.Tensor:
    return values.to(torch.bfloat16).to(torch.float32)


def round_products() -> None:
    """Round the factors of every linear layer and of attention."""
    linear = functional.linear

    def rounded_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return linear(rounded(x), rounded(weight), bias)

    def rounded_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, scale: float, **_: Any) -> torch.Tensor:
        scores = rounded(q) @ rounded(k).transpose(-1, -2) * scale
        weights = (scores - scores.amax(-1, keepdim=True)).exp()
        return rounded(weights) @ rounded(v) / weights.sum(-1, keepdim=True)

    patched: Any = functional
    patched.linear, patched.scaled_dot_product_attention = rounded_linear, rounded_attention


def main() -> int:
    if len(sys.argv) < 3 or sys.argv[1] not in ("float32", "bfloat16"):
        raise SystemExit(__doc__)
    patched: Any = embedding
    patched.is_fast_here = lambda: False
    if sys.argv[1] == "bfloat16":
        round_products()
    return firsthand(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
