"""An encoder-decoder in the shape of a `Decoder`, so that the engine serves it: its outputs are paged as any other text.

The source is encoded once for each request, and every step reads its keys and values (`Sources`). They come with the step's
`Attend`, which also tells cross-attention from attention to the output so far.
"""

# N packed tokens, S packed source tokens, M rows that need logits, D hidden, H heads, K head_dim, V vocabulary

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from firsthand.errors import ConfigError
from firsthand.kernels.attention.score_terms import ScoreTerms, cross_attention
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.blocks.attention import Attend
from firsthand.nn.decoder import Decoder
from firsthand.nn.encoder_decoder import EncoderDecoder, Sources
from firsthand.nn.encoder_decoder_architecture import EncoderDecoderArchitecture
from firsthand.nn.sites import Tap, Taps


class SourcedAttend:
    """The `Attend` of a step in which each sequence also attends to a source text."""

    def __init__(self, own: Attend, sources: Sources, lengths: list[int]):
        """`own` attends to the outputs so far; `lengths` are the new tokens of each sequence, in the order of sources."""
        self.own, self.sources, self.lengths = own, sources, lengths

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
        """Returns the attention output of the packed tokens: N H K."""
        if terms is not None and terms.source_lengths is not None:
            return cross_attention(q_NHK, k_NGK, v_NGK, self.lengths, scale=scale, terms=terms)
        return self.own(layer, q_NHK, k_NGK, v_NGK, scale=scale, window=window, terms=terms)


class SourcedDecoder(Decoder):
    """The decoder of an encoder-decoder. It shares the weights of the model that it is made of."""

    def __init__(self, model: EncoderDecoder):
        nn.Module.__init__(self)
        a = model.architecture
        self.architecture = decoder_architecture(a)
        if model.lm_head is None:
            self.lm_head = nn.Linear(a.hidden_size, a.vocab_size, bias=False, device="meta")
            self.lm_head.weight = model.embed.weight
        else:
            self.lm_head = model.lm_head
        self.inner = model
        self.embed = model.embed
        self.layers = nn.ModuleList()

    def forward(
        self,
        ids_N: Tensor,
        positions_N: Tensor,
        attend: Attend,
        *,
        taps: Mapping[str, Tap] | Taps | None = None,
    ) -> Tensor:
        """Returns the hidden state of each token of the outputs: N D. `attend` is a `SourcedAttend`."""
        assert isinstance(attend, SourcedAttend), "an encoder-decoder's step has sources"
        hidden_ND: Tensor = self.inner(ids_N, positions_N, attend, attend.sources)
        return hidden_ND

    def checked(self, taps: Mapping[str, Tap] | Taps) -> Taps:
        """ConfigError: an encoder-decoder has no sites."""
        raise ConfigError("an encoder-decoder has no sites: only a decoder's activations can be tapped")

    def logits(self, hidden_MD: Tensor, *, taps: Mapping[str, Tap] | Taps | None = None) -> Tensor:
        """Returns scores of every next token: M V, float32."""
        logits_MV: Tensor = self.lm_head(hidden_MD * self.inner.architecture.logit_scale).float()
        bias_V = self.inner.logit_bias
        return logits_MV if bias_V is None else logits_MV + bias_V.float()

    def sites(self) -> tuple[str, ...]:
        """No activation has a name here."""
        return ()

    @torch.inference_mode()
    def encoded(self, texts: list[tuple[int, ...]]) -> list[Sources]:
        """The keys and values of some source texts, each on its own; they are encoded in one pass."""
        lengths = [len(text) for text in texts]
        ids_S = torch.tensor([token for text in texts for token in text], device=self.embed.weight.device)
        whole = self.inner.sources(self.inner.encode(ids_S, lengths), lengths)
        keys, values = ([torch.split(each, lengths) for each in kind] for kind in (whole.keys, whole.values))
        return [
            Sources(tuple(layer[i] for layer in keys), tuple(layer[i] for layer in values), (length,))
            for i, length in enumerate(lengths)
        ]


def decoder_architecture(a: EncoderDecoderArchitecture) -> Architecture:
    """The sizes of an encoder-decoder's decoder, as the engine plans its KV cache by."""
    layers = a.num_decoder_layers
    return Architecture(
        family=a.family,
        vocab_size=a.vocab_size,
        hidden_size=a.hidden_size,
        intermediate_size=a.decoder_width,
        num_layers=layers,
        num_heads=a.decoder_heads,
        num_kv_heads=a.decoder_heads,
        head_dim=a.attention_width // a.decoder_heads,
        max_position=a.max_position,
        norm_eps=a.norm_eps,
        windows=(None,) * layers,
        ropes=(Rope(kind="none"),) * layers,
        tie_embeddings=a.tie_embeddings,
        activation=a.activation,
        is_gated=a.is_gated,
    )


def joined(sources: list[Sources]) -> Sources:
    """Several sources packed, in order."""
    if len(sources) == 1:
        return sources[0]
    keys, values = (
        tuple(torch.cat(each) for each in zip(*parts, strict=True))
        for parts in ([source.keys for source in sources], [source.values for source in sources])
    )
    return Sources(keys, values, tuple(length for source in sources for length in source.lengths))
