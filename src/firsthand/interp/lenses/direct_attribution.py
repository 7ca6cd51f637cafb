"""Direct logit attribution: the share of each head, MLP and the embedding in a logit difference.

The final norm's scale is held at its value in the run, so the shares add up to the difference (Elhage et al., 2021). They
leave out what a part does through later parts: patching measures that.
"""

# N tokens, D hidden, H heads, K head_dim

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from firsthand.errors import ConfigError
from firsthand.interp.activations import run_with_cache
from firsthand.interp.lenses.final_norm import centred, norm_weight
from firsthand.nn.decoder import Decoder


@dataclass(frozen=True)
class LogitShares:
    """The parts of logit(answer) - logit(other) at the last token."""

    parts: dict[str, float]
    """By part: `embed`, `blocks.0.head.3`, `blocks.0.attn.bias`, `blocks.0.mlp`, `norm.bias`."""
    difference: float
    """The model's own logit difference."""


@torch.no_grad()
def logit_shares(model: Decoder, text: Sequence[int], answer: int, other: int) -> LogitShares:
    """Attributes logit(answer) - logit(other) after a text. ConfigError for models whose residual stream is no plain sum."""
    a = model.architecture
    if a.norm_placement != "pre" or a.latent is not None or a.logit_softcap is not None:
        raise ConfigError(
            f"{a.family} normalises what its layers add, caps its logits or mixes latents: direct attribution needs a sum "
            "of parts, so use patching"
        )
    logits_NV, cache = run_with_cache(model, text)
    last = len(text) - 1
    direction_D, constant = _unembedding(model, cache[f"blocks.{a.num_layers - 1}.resid.post"][last], answer, other)
    parts = {"embed": float(cache["embed"][last].float() @ direction_D)}
    for layer in range(a.num_layers):
        heads_HD, bias_D = head_outputs(model, layer, cache[f"blocks.{layer}.attn.mixed"][last])
        parts |= {f"blocks.{layer}.head.{head}": float(row @ direction_D) for head, row in enumerate(heads_HD)}
        if bias_D is not None:
            parts[f"blocks.{layer}.attn.bias"] = float(bias_D @ direction_D)
        parts[f"blocks.{layer}.mlp"] = float(cache[f"blocks.{layer}.mlp.out"][last].float() @ direction_D)
    if constant:
        parts["norm.bias"] = constant
    return LogitShares(parts, float(logits_NV[last, answer] - logits_NV[last, other]))


def head_outputs(model: Decoder, layer: int, mixed_HK: Tensor) -> tuple[Tensor, Tensor | None]:
    """The output of each head to the residual stream, H D, and the bias of the output projection, in float32."""
    block: Any = model.layers[layer]
    projection = block.attention.o_proj
    heads, head_dim = mixed_HK.shape
    units = torch.zeros(heads, heads, head_dim)
    units[torch.arange(heads), torch.arange(heads)] = mixed_HK.float()
    out_HD = projection(units.flatten(1).to(mixed_HK.dtype)).float()
    bias = getattr(projection, "bias", None)
    return (out_HD, None) if bias is None else (out_HD - bias.float(), bias.float())


def _unembedding(model: Decoder, residual_D: Tensor, answer: int, other: int) -> tuple[Tensor, float]:
    """The direction whose product with a part of the residual stream is its share, and the norm's own constant."""
    head_VD: Tensor = model.lm_head.weight.detach()
    difference_D = (head_VD[answer] - head_VD[other]).float()
    norm = model.norm
    residual_D = centred(norm, residual_D.float())
    scale = torch.rsqrt(residual_D.pow(2).mean() + norm.eps)
    bias_D = getattr(norm, "bias", None)
    constant = 0.0 if bias_D is None else float(bias_D.float() @ difference_D)
    return centred(norm, difference_D * norm_weight(norm) * scale), constant
