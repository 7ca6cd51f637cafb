"""Causal attention of short sequences in bfloat16 on a CPU, for training: whole score matrices by batched products.

Torch's blockwise kernel for CPUs computes in float32 inside; below some 512 tokens the matrix units are faster, the scores
of all heads in memory at once. Scores and weights are rounded to bfloat16, as where attention is written out under autocast.
"""

# B sequences, T tokens of each, H query heads, G key/value heads, K head_dim; R = H/G heads share a key/value head

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LONGEST = 512
"""Tokens of a sequence up to which it is faster."""


def suits(q_BTHK: Tensor) -> bool:
    """True if this attention is the faster one: a pass of training on a CPU in bfloat16, over sequences that are short.

    Passes under autocast are those of training; a reference's have no gradient and must round as the policy's do.
    """
    is_trained = q_BTHK.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    return is_trained and q_BTHK.dtype == torch.bfloat16 and q_BTHK.shape[1] <= LONGEST


def short_attention(q_BTHK: Tensor, k_BTGK: Tensor, v_BTGK: Tensor, scale: float) -> Tensor:
    """Causal attention in each of B sequences, as (B T) H K."""
    batch, length, heads, head_dim = q_BTHK.shape
    groups = k_BTGK.shape[2]
    q_BTGRK = q_BTHK.reshape(batch, length, groups, heads // groups, head_dim)
    q = q_BTGRK.permute(0, 2, 3, 1, 4).reshape(batch * groups, -1, head_dim)
    k, v = (x.to(q.dtype).transpose(1, 2).reshape(batch * groups, length, head_dim) for x in (k_BTGK, v_BTGK))
    mask = _causal_mask(length, heads // groups, q.dtype)
    mixed: Tensor = _Attention.apply(q, k, v, scale, mask)  # type: ignore[no-untyped-call]
    mixed_BGRTK = mixed.reshape(batch, groups, heads // groups, length, head_dim)
    return mixed_BGRTK.permute(0, 3, 1, 2, 4).reshape(batch * length, heads, head_dim)


def _causal_mask(length: int, repeats: int, dtype: torch.dtype) -> Tensor:
    """Zero where the row's token sees the column's, else minus infinity: (R T) T."""
    return torch.full((length, length), float("-inf"), dtype=dtype).triu(1).repeat(repeats, 1)


class _Attention(torch.autograd.Function):
    """softmax(scale q k' + mask) v of each batch entry, with the backward pass written out."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor) -> Tensor:
        weights = torch.softmax(torch.baddbmm(mask, q, k.transpose(1, 2), alpha=scale), -1)
        ctx.save_for_backward(q, k, v, weights)
        ctx.scale = scale
        mixed: Tensor = weights @ v
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, weights = ctx.saved_tensors
        grad_v = weights.transpose(1, 2) @ grad
        grad_scores = torch._softmax_backward_data(grad @ v.transpose(1, 2), weights, -1, weights.dtype)
        grad_q = torch.baddbmm(q, grad_scores, k, beta=0, alpha=ctx.scale)
        grad_k = torch.baddbmm(k, grad_scores.transpose(1, 2), q, beta=0, alpha=ctx.scale)
        return grad_q, grad_k, grad_v, None, None
