"""The linear part of a model's final norm: what it does to a direction of the residual stream, up to the norm's scale.

With the scale left out or held, a direction's logits are `centred(norm, direction) * norm_weight(norm)` times the head. Both
factors are symmetric, so the head's rows may be weighted and centred in place of the direction.
"""

# F directions, D hidden

from __future__ import annotations

import torch
from torch import Tensor, nn

from firsthand.nn.blocks.norm import RMSNorm


def norm_weight(norm: RMSNorm | nn.LayerNorm) -> Tensor:
    """The factor of each dimension, in float32: D; where the norm has no weight 1 alone, for a direction on any device."""
    weight: Tensor | None = norm.weight
    if weight is None:
        return torch.ones(())
    return 1 + weight.float() if isinstance(norm, RMSNorm) and norm.unit_offset else weight.float()


def centred(norm: RMSNorm | nn.LayerNorm, rows_FD: Tensor) -> Tensor:
    """The rows less their means, which LayerNorm takes away; of RMSNorm as they are."""
    return rows_FD if isinstance(norm, RMSNorm) else rows_FD - rows_FD.mean(-1, keepdim=True)
