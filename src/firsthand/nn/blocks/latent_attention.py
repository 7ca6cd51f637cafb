"""Multi-head latent attention (DeepSeek-V2, 2024, section 2.1): one small latent for all heads is what the cache keeps.

The matrices that make keys and values of the latent are multiplied into the queries and the output instead (the paper's
"absorbed" form), so attention itself is that of one KV head of `rank + rope_dim` values, and any `Attend` computes it. The
cache holds the latent twice, as key and as value, the value with zeros in place of the rotated part.
"""

# N packed tokens, D hidden, H heads, R rank of the latent, P values without positions, T rotated values, V value_dim

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from firsthand.nn.architecture import Architecture
from firsthand.nn.blocks.attention import Attend
from firsthand.nn.blocks.norm import RMSNorm
from firsthand.nn.blocks.rope import Rotation, rotate


class LatentAttention(nn.Module):
    """Self-attention over latents, for one layer."""

    def __init__(self, architecture: Architecture, layer: int):
        super().__init__()
        a, m = architecture, architecture.latent
        assert m is not None, "this architecture has no latents"
        self.layer, self.settings = layer, m
        self.num_heads, self.scale, self.window = a.num_heads, a.attention_scale, a.windows[layer]
        queries = a.num_heads * (m.nope_dim + m.rope_dim)
        if m.query_rank:
            self.q_down = nn.Linear(a.hidden_size, m.query_rank, bias=False)
            self.q_latent_norm = RMSNorm(m.query_rank, m.norm_eps)
        self.q_proj = nn.Linear(m.query_rank or a.hidden_size, queries, bias=False)
        self.kv_down = nn.Linear(a.hidden_size, m.rank + m.rope_dim, bias=False)
        self.latent_norm = RMSNorm(m.rank, m.norm_eps)
        self.k_up = nn.Parameter(torch.empty(a.num_heads, m.nope_dim, m.rank))
        self.v_up = nn.Parameter(torch.empty(a.num_heads, m.value_dim, m.rank))
        self.o_proj = nn.Linear(a.num_heads * m.value_dim, a.hidden_size, bias=False)

    def forward(self, x_ND: Tensor, by: Rotation | None, attend: Attend) -> Tensor:
        """Returns the attention output of each token: N D."""
        m = self.settings
        q_NHK = self.q_proj(self.q_latent_norm(self.q_down(x_ND)) if m.query_rank else x_ND)
        q_NHP, q_NHT = q_NHK.unflatten(-1, (self.num_heads, -1)).split([m.nope_dim, m.rope_dim], dim=-1)
        latent_NR, k_NT = self.kv_down(x_ND).split([m.rank, m.rope_dim], dim=-1)
        latent_N1R, k_N1T = self.latent_norm(latent_NR)[:, None], rotate(k_NT[:, None], by)
        q_NHR = torch.einsum("nhp,hpr->nhr", q_NHP, self.k_up)
        mixed_NHR = attend(
            self.layer,
            torch.cat([q_NHR, rotate(q_NHT, by)], dim=-1),
            torch.cat([latent_N1R, k_N1T], dim=-1),
            functional.pad(latent_N1R, (0, m.rope_dim)),
            scale=self.scale,
            window=self.window,
        )[..., : m.rank]
        mixed_NHV = torch.einsum("nhr,hvr->nhv", mixed_NHR, self.v_up)
        out_ND: Tensor = self.o_proj(mixed_NHV.flatten(1))
        return out_ND
