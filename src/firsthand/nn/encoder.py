"""The BERT encoder (Devlin et al., 2019), which turns texts into vectors.

LayerNorm after each sum, learned positions, token types, attention in both directions. Tokens come packed, as in `decoder`,
and an `Attend` says what each of them sees. The pooler and the head of classes are in `pair_classifier.py`. Left out: the
head of masked words, relative positions.
"""

# N packed tokens, D hidden, F intermediate, H heads, K head_dim, B equally long texts, T their length

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional

from firsthand.errors import ConfigError
from firsthand.kernels.attention.score_terms import BucketBias, ScoreTerms, attend_plainly
from firsthand.nn.blocks.attention import Attend
from firsthand.nn.blocks.embedding_table import table
from firsthand.nn.blocks.mlp import activate
from firsthand.nn.families.bert import BertArchitecture


class Together:
    """An `Attend` for packed texts: each token sees all of its own text."""

    def __init__(self, lengths: Sequence[int]):
        if not all(length > 0 for length in lengths):
            raise ConfigError(f"lengths are {list(lengths)}: every text needs 1 token or more")
        self.runs = [(length, len(list(run))) for length, run in groupby(lengths)]

    def __call__(
        self,
        layer: int,
        q_NHK: Tensor,
        k_NGK: Tensor,
        v_NGK: Tensor,
        *,
        scale: float,
        window: int | None,
        terms: ScoreTerms | None = None,
    ) -> Tensor:
        """Returns the attention output, N H K; adjacent texts of equal length are computed as one batch."""
        assert window is None and (terms is None or terms.source_lengths is None), "texts see all of themselves"
        parts, start = [], 0
        for length, count in self.runs:
            rows = slice(start, start + length * count)
            q, k, v = (x[rows].reshape(count, length, *x.shape[1:]).transpose(1, 2) for x in (q_NHK, k_NGK, v_NGK))
            if terms is None:
                mixed_BHTK = functional.scaled_dot_product_attention(
                    q, k, v, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
                )
            else:
                seen_TT = torch.ones(length, length, dtype=torch.bool, device=q.device)
                places_T = torch.arange(length, device=q.device)
                distance_TT = places_T - places_T[:, None]
                mixed_BHTK = attend_plainly(q, k, v, seen_TT, distance_TT, scale=scale, terms=terms)
            parts.append(mixed_BHTK.transpose(1, 2).flatten(0, 1))
            start = rows.stop
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class EncoderBlock(nn.Module):
    """One layer: attention, then the MLP, each added to what came in and then normalised."""

    def __init__(self, architecture: BertArchitecture, layer: int):
        super().__init__()
        a = architecture
        self.layer, self.num_heads, self.head_dim, self.activation = layer, a.num_heads, a.head_dim, a.activation
        self.q_proj = nn.Linear(a.hidden_size, a.hidden_size)
        self.k_proj = nn.Linear(a.hidden_size, a.hidden_size)
        self.v_proj = nn.Linear(a.hidden_size, a.hidden_size)
        self.o_proj = nn.Linear(a.hidden_size, a.hidden_size)
        self.attention_norm = nn.LayerNorm(a.hidden_size, a.norm_eps)
        self.up_proj = nn.Linear(a.hidden_size, a.intermediate_size)
        self.down_proj = nn.Linear(a.intermediate_size, a.hidden_size)
        self.mlp_norm = nn.LayerNorm(a.hidden_size, a.norm_eps)

    def forward(self, x_ND: Tensor, attend: Attend, terms: ScoreTerms | None = None) -> Tensor:
        """The hidden states after this layer: N D."""
        q, k, v = (
            proj(x_ND).unflatten(-1, (self.num_heads, self.head_dim))
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        more = {} if terms is None else {"terms": terms}
        mixed_NHK = attend(self.layer, q, k, v, scale=self.head_dim**-0.5, window=None, **more)
        x_ND = self.attention_norm(x_ND + self.o_proj(mixed_NHK.flatten(1)))
        out_ND: Tensor = self.mlp_norm(x_ND + self.down_proj(activate(self.up_proj(x_ND), self.activation)))
        return out_ND


class Encoder(nn.Module):
    """A BERT. Its weights start as torch's defaults: `weights.load_encoder` reads those of a folder."""

    def __init__(self, architecture: BertArchitecture):
        super().__init__()
        a = architecture
        self.architecture = a
        self.words = table(a.vocab_size, a.hidden_size)
        self.positions = table(a.max_position, a.hidden_size)
        self.types = table(a.num_types, a.hidden_size) if a.num_types else None
        self.buckets = table(a.num_buckets, a.num_heads) if a.num_buckets else None
        self.norm = nn.LayerNorm(a.hidden_size, a.norm_eps)
        self.layers = nn.ModuleList(EncoderBlock(a, layer) for layer in range(a.num_layers))

    def forward(self, ids_N: Tensor, positions_N: Tensor, attend: Attend, types_N: Tensor | None = None) -> Tensor:
        """The hidden state of each token after the last layer: N D. Positions count from 0 in each text; without token
        types every token is of type 0."""
        places_N = positions_N + self.architecture.first_position
        embedded_ND = self.words(ids_N)
        if self.types is not None:
            embedded_ND = embedded_ND + (self.types.weight[0] if types_N is None else self.types(types_N))
        x_ND: Tensor = self.norm(embedded_ND + self.positions(places_N))
        terms = None
        if self.buckets is not None:
            terms = ScoreTerms(bias=BucketBias(self.buckets.weight, is_causal=False))
        for layer in self.layers:
            x_ND = layer(x_ND, attend, terms)
        return x_ND
