"""The decoder-only transformer: embedding, blocks, final norm, head, for every family that `Architecture` can express.

Tokens come packed, without batch dimension or padding, and an `Attend` says what each of them sees, so one definition
serves generation from a paged cache, scoring and training. Projections are plain `nn.Linear` modules named q_proj,
k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj and lm_head: quantisation and LoRA swap them by name.
"""

# N packed tokens, M rows that need logits, D hidden, V vocabulary, P pairs

from __future__ import annotations

import torch
from torch import Tensor, nn

from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.blocks.attention import Attend, Attention
from firsthand.nn.blocks.mlp import MLP
from firsthand.nn.blocks.norm import RMSNorm
from firsthand.nn.blocks.rope import Rotation, frequencies, rotation


class Block(nn.Module):
    """One layer: attention, then the MLP, each added to the residual stream."""

    def __init__(self, architecture: Architecture, layer: int):
        super().__init__()
        self.attention_norm = _norm(architecture)
        self.attention = Attention(architecture, layer)
        self.mlp_norm = _norm(architecture)
        self.mlp = MLP(architecture)
        sandwich = architecture.norm_placement == "sandwich"
        self.attention_out_norm = _norm(architecture) if sandwich else nn.Identity()
        self.mlp_out_norm = _norm(architecture) if sandwich else nn.Identity()

    def forward(self, x_ND: Tensor, by: Rotation, attend: Attend) -> Tensor:
        """The residual stream after this layer: N D."""
        x_ND = x_ND + self.attention_out_norm(self.attention(self.attention_norm(x_ND), by, attend))
        out_ND: Tensor = x_ND + self.mlp_out_norm(self.mlp(self.mlp_norm(x_ND)))
        return out_ND


class Decoder(nn.Module):
    """A language model. Its weights start as torch's defaults: `initialise` for training, `weights.load` for the rest."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.architecture = architecture
        self.embed = nn.Embedding(architecture.vocab_size, architecture.hidden_size)
        self.layers = nn.ModuleList(Block(architecture, layer) for layer in range(architecture.num_layers))
        self.norm = _norm(architecture)
        self.lm_head = nn.Linear(architecture.hidden_size, architecture.vocab_size, bias=False)
        self.tie()
        self._frequencies: dict[tuple[Rope, torch.device], Tensor] = {}

    def tie(self) -> None:
        """Make the head share the embedding matrix, if this architecture does; needed after parameters are replaced."""
        if self.architecture.tie_embeddings and isinstance(self.lm_head, nn.Linear):
            self.lm_head.weight = self.embed.weight

    def forward(self, ids_N: Tensor, positions_N: Tensor, attend: Attend) -> Tensor:
        """The hidden state of each token after the final norm: N D."""
        x_ND = self.embed(ids_N)
        if self.architecture.embed_scale != 1.0:  # rounded to the dtype first, as Gemma was trained
            x_ND = x_ND * torch.tensor(self.architecture.embed_scale, dtype=x_ND.dtype).item()
        rotations = self.rotations(positions_N, x_ND.dtype)
        for layer, rope in zip(self.layers, self.architecture.ropes, strict=True):
            x_ND = layer(x_ND, rotations[rope], attend)
        hidden_ND: Tensor = self.norm(x_ND)
        return hidden_ND

    def logits(self, hidden_MD: Tensor) -> Tensor:
        """Scores of every next token: M V, float32."""
        logits_MV: Tensor = self.lm_head(hidden_MD).float()
        cap = self.architecture.logit_softcap
        return logits_MV if cap is None else cap * torch.tanh(logits_MV / cap)

    def rotations(self, positions_N: Tensor, dtype: torch.dtype) -> dict[Rope, Rotation]:
        """Cosines and sines for these positions, for each of the architecture's ropes."""
        return {
            rope: rotation(
                self._frequencies_on(rope, positions_N.device), positions_N, scale=rope.attention_factor, dtype=dtype
            )
            for rope in dict.fromkeys(self.architecture.ropes)
        }

    def _frequencies_on(self, rope: Rope, device: torch.device) -> Tensor:
        """A rope's frequencies on a device, in float32: not a buffer, since `model.to(bfloat16)` would round it."""
        if (rope, device) not in self._frequencies:
            self._frequencies[rope, device] = frequencies(rope, self.architecture.head_dim).to(device)
        return self._frequencies[rope, device]


def initialise(model: Decoder, *, seed: int = 0, std: float = 0.02) -> Decoder:
    """The model with fresh weights: normal, with what writes to the residual stream scaled by 1 / sqrt(2 layers) (GPT-2)."""
    generator = torch.Generator().manual_seed(seed)
    residual_std = std / (2 * model.architecture.num_layers) ** 0.5
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() < 2:
                parameter.fill_(1.0 if "norm" in name and not model.architecture.norm_unit_offset else 0.0)
                continue
            deviation = residual_std if name.endswith(("o_proj.weight", "down_proj.weight")) else std
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation)
    return model


def _norm(a: Architecture) -> RMSNorm:
    return RMSNorm(a.hidden_size, a.norm_eps, unit_offset=a.norm_unit_offset)
