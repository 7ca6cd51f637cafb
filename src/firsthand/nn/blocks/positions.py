"""Sinusoidal positions of the Transformer of 2017 (Vaswani et al., section 3.5); rotary ones are in `rope`."""

# N packed tokens, D hidden

from __future__ import annotations

import torch
from torch import Tensor


def sinusoidal(positions_N: Tensor, width: int, *, is_interleaved: bool = True) -> Tensor:
    """sin(p / 10000 ** (2i / D)) and the cosine of each pair i, side by side as in the paper, or sines first: N D."""
    pairs = torch.arange(0, width, 2, dtype=torch.float64, device=positions_N.device)
    angles_NP = positions_N[:, None].double() / 10_000.0 ** (pairs / width)
    both_N2P = torch.stack([angles_NP.sin(), angles_NP.cos()], dim=-1 if is_interleaved else -2)
    return both_N2P.flatten(1)[:, :width].float()
