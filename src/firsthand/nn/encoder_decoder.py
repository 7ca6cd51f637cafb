"""The encoder-decoder Transformer (Vaswani et al., 2017), as T5, BART and Marian's translation models have it.

The encoder reads a source text in both directions; the decoder writes an output, and in each layer attends to its own tokens
and to the encoder's. Keys and values of the source are computed once (`sources`), so a step of decoding costs one token.
Tokens come packed, as in `decoder`.
"""

# N packed tokens, S packed source tokens, D hidden, F intermediate, H heads, K head_dim, V vocabulary

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from firsthand.errors import ConfigError
from firsthand.kernels.attention.score_terms import BucketBias, ScoreTerms
from firsthand.nn.blocks.attention import Attend
from firsthand.nn.blocks.embedding_table import table
from firsthand.nn.blocks.mlp import activate
from firsthand.nn.blocks.norm import RMSNorm
from firsthand.nn.blocks.positions import sinusoidal
from firsthand.nn.encoder import Together
from firsthand.nn.encoder_decoder_architecture import EncoderDecoderArchitecture
from firsthand.nn.textbook_cache import TextbookCache


class Sources(NamedTuple):
    """The cross-attention cache: all that the decoder needs of the encoded texts."""

    keys: tuple[Tensor, ...]
    """S H K for each layer."""
    values: tuple[Tensor, ...]
    lengths: tuple[int, ...]
    """Tokens of each source."""


class ProjectedAttention(nn.Module):
    """Attention with its projections: to the queries' own text, or to a source whose keys and values come made."""

    def __init__(self, a: EncoderDecoderArchitecture, layer: int, heads: int):
        super().__init__()
        self.layer, self.num_heads = layer, heads
        self.scale = 1.0 if a.is_t5 else (a.attention_width // heads) ** -0.5
        self.q_proj = nn.Linear(a.hidden_size, a.attention_width, bias=not a.is_t5)
        self.k_proj = nn.Linear(a.hidden_size, a.attention_width, bias=not a.is_t5)
        self.v_proj = nn.Linear(a.hidden_size, a.attention_width, bias=not a.is_t5)
        self.o_proj = nn.Linear(a.attention_width, a.hidden_size, bias=not a.is_t5)

    def keys_and_values(self, x_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of some hidden states: N H K each."""
        k_NHK, v_NHK = (proj(x_ND).unflatten(-1, (self.num_heads, -1)) for proj in (self.k_proj, self.v_proj))
        return k_NHK, v_NHK

    def forward(self, x_ND: Tensor, kv: tuple[Tensor, Tensor], attend: Attend, terms: ScoreTerms | None) -> Tensor:
        """Returns the attention output of each token: N D."""
        q_NHK = self.q_proj(x_ND).unflatten(-1, (self.num_heads, -1))
        mixed_NHK = attend(self.layer, q_NHK, *kv, scale=self.scale, window=None, terms=terms)
        out_ND: Tensor = self.o_proj(mixed_NHK.flatten(1))
        return out_ND


class FeedForward(nn.Module):
    """down(activation(up(x))), or with a gate down(activation(gate(x)) * up(x)) (T5 v1.1)."""

    def __init__(self, a: EncoderDecoderArchitecture, width: int):
        super().__init__()
        self.activation = a.activation
        self.gate_proj = nn.Linear(a.hidden_size, width, bias=False) if a.is_gated else None
        self.up_proj = nn.Linear(a.hidden_size, width, bias=not a.is_t5)
        self.down_proj = nn.Linear(width, a.hidden_size, bias=not a.is_t5)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Transforms each token on its own: N D."""
        if self.gate_proj is None:
            inner_NF = activate(self.up_proj(x_ND), self.activation)
        else:
            inner_NF = activate(self.gate_proj(x_ND), self.activation) * self.up_proj(x_ND)
        out_ND: Tensor = self.down_proj(inner_NF)
        return out_ND


class StackBlock(nn.Module):
    """One layer of either stack: self-attention, in the decoder cross-attention, then the MLP."""

    def __init__(self, a: EncoderDecoderArchitecture, layer: int, *, is_decoder: bool):
        super().__init__()
        heads = a.decoder_heads if is_decoder else a.encoder_heads
        self.is_pre_norm = a.is_t5
        self.self_attention = ProjectedAttention(a, layer, heads)
        self.self_attention_norm = _norm(a)
        self.cross_attention = ProjectedAttention(a, layer, heads) if is_decoder else None
        self.cross_attention_norm = _norm(a) if is_decoder else nn.Identity()
        self.mlp = FeedForward(a, a.decoder_width if is_decoder else a.encoder_width)
        self.mlp_norm = _norm(a)

    def forward(self, x_ND: Tensor, attend: Attend, terms: ScoreTerms | None, sources: Sources | None = None) -> Tensor:
        """Returns the residual stream after this layer: N D."""
        in_ND = self._before(self.self_attention_norm, x_ND)
        own = self.self_attention
        x_ND = self._after(self.self_attention_norm, x_ND + own(in_ND, own.keys_and_values(in_ND), attend, terms))
        if self.cross_attention is not None and sources is not None:
            layer, in_ND = self.cross_attention.layer, self._before(self.cross_attention_norm, x_ND)
            kv, across = (sources.keys[layer], sources.values[layer]), ScoreTerms(source_lengths=sources.lengths)
            x_ND = self._after(self.cross_attention_norm, x_ND + self.cross_attention(in_ND, kv, attend, across))
        return self._after(self.mlp_norm, x_ND + self.mlp(self._before(self.mlp_norm, x_ND)))

    def _before(self, norm: nn.Module, x_ND: Tensor) -> Tensor:
        out_ND: Tensor = norm(x_ND) if self.is_pre_norm else x_ND
        return out_ND

    def _after(self, norm: nn.Module, x_ND: Tensor) -> Tensor:
        out_ND: Tensor = x_ND if self.is_pre_norm else norm(x_ND)
        return out_ND


class LayerStack(nn.Module):
    """The layers of the encoder or the decoder, with the positions and norms around them."""

    def __init__(self, a: EncoderDecoderArchitecture, *, is_decoder: bool):
        super().__init__()
        self.architecture, self.is_decoder = a, is_decoder
        count, heads = (
            (a.num_decoder_layers, a.decoder_heads) if is_decoder else (a.num_encoder_layers, a.encoder_heads)
        )
        rows = a.max_position + a.position_offset
        self.positions = table(rows, a.hidden_size) if a.positions == "learned" else None
        self.buckets = table(a.num_buckets, heads) if a.positions == "relative" else None
        self.embed_norm = _norm(a) if a.embed_norm else nn.Identity()
        self.layers = nn.ModuleList(StackBlock(a, layer, is_decoder=is_decoder) for layer in range(count))
        self.norm = _norm(a) if a.is_t5 else nn.Identity()

    def forward(self, x_ND: Tensor, positions_N: Tensor, attend: Attend, sources: Sources | None = None) -> Tensor:
        """The hidden states of embedded tokens after the last layer: N D."""
        a = self.architecture
        if self.positions is not None:
            x_ND = x_ND + self.positions(positions_N + a.position_offset)
        if a.positions == "sinusoidal":
            x_ND = x_ND + sinusoidal(positions_N, a.hidden_size, is_interleaved=False).to(x_ND.dtype)
        x_ND = self.embed_norm(x_ND)
        terms = None
        if self.buckets is not None:  # one table for all layers
            bias = BucketBias(self.buckets.weight, a.max_distance, is_causal=self.is_decoder)
            terms = ScoreTerms(bias=bias)
        for layer in self.layers:
            x_ND = layer(x_ND, attend, terms, sources)
        out_ND: Tensor = self.norm(x_ND)
        return out_ND


class EncoderDecoder(nn.Module):
    """A model with torch's default weights; `encoder_decoder_weights.load_encoder_decoder` reads those of a folder."""

    def __init__(self, architecture: EncoderDecoderArchitecture):
        super().__init__()
        a = architecture
        self.architecture = a
        self.embed = table(a.vocab_size, a.hidden_size)
        self.encoder = LayerStack(a, is_decoder=False)
        self.decoder = LayerStack(a, is_decoder=True)
        self.lm_head = None if a.tie_embeddings else nn.Linear(a.hidden_size, a.vocab_size, bias=False)
        self.logit_bias = nn.Parameter(torch.zeros(a.vocab_size)) if a.has_logit_bias else None

    def encode(self, ids_S: Tensor, lengths: Sequence[int]) -> Tensor:
        """The encoder's hidden states of packed source texts of these lengths: S D."""
        hidden_SD: Tensor = self.encoder(self._embedded(ids_S), self._positions(lengths, ids_S), Together(lengths))
        return hidden_SD

    def sources(self, hidden_SD: Tensor, lengths: Sequence[int]) -> Sources:
        """Keys and values of encoded texts, which every step of decoding reads."""
        crosses = [layer.cross_attention for layer in self.decoder.layers]
        made = [cross.keys_and_values(hidden_SD) for cross in crosses if isinstance(cross, ProjectedAttention)]
        return Sources(tuple(keys for keys, _ in made), tuple(values for _, values in made), tuple(lengths))

    def forward(self, ids_N: Tensor, positions_N: Tensor, attend: Attend, sources: Sources) -> Tensor:
        """The decoder's hidden states: N D. `attend` keeps the outputs so far apart, `sources` has one text for each."""
        hidden_ND: Tensor = self.decoder(self._embedded(ids_N), positions_N, attend, sources)
        return hidden_ND

    def logits(self, hidden_MD: Tensor) -> Tensor:
        """Returns scores of every next token: M V, float32."""
        hidden_MD = hidden_MD * self.architecture.logit_scale
        head_VD = self.embed.weight if self.lm_head is None else self.lm_head.weight
        logits_MV = nn.functional.linear(hidden_MD, head_VD).float()
        return logits_MV if self.logit_bias is None else logits_MV + self.logit_bias.float()

    @torch.inference_mode()
    def generate(self, source: Sequence[int], *, max_tokens: int) -> list[int]:
        """The most probable output token by token, with both caches: up to `max_tokens`, or to the end token.

        Raises ConfigError for an empty source, or one with tokens or a length that the model does not have.
        """
        a = self.architecture
        if not source or len(source) > a.max_position or not all(0 <= token < a.vocab_size for token in source):
            raise ConfigError(
                f"the source has {len(source)} tokens: expected 1 to {a.max_position} of them, each below {a.vocab_size}"
            )
        device = self.embed.weight.device
        ids_S = torch.tensor(list(source), device=device)
        sources, cache = self.sources(self.encode(ids_S, [len(source)]), [len(source)]), TextbookCache()
        token, found = a.decoder_start, list[int]()
        while len(found) < min(max_tokens, a.max_position) and (not found or token != a.end):
            at = torch.tensor([len(found)], device=device)
            hidden_1D = self(torch.tensor([token], device=device), at, cache, sources)
            token = int(self.logits(hidden_1D).argmax())
            found.append(token)
        return found

    def _embedded(self, ids_N: Tensor) -> Tensor:
        x_ND: Tensor = self.embed(ids_N)
        return x_ND * self.architecture.embed_scale if self.architecture.embed_scale != 1.0 else x_ND

    def _positions(self, lengths: Sequence[int], like: Tensor) -> Tensor:
        return torch.cat([torch.arange(length, device=like.device) for length in lengths])


def _norm(a: EncoderDecoderArchitecture) -> RMSNorm | nn.LayerNorm:
    return RMSNorm(a.hidden_size, a.norm_eps) if a.is_t5 else nn.LayerNorm(a.hidden_size, a.norm_eps)
