"""The architecture of an encoder-decoder Transformer as plain data: T5, BART, the Transformer of 2017. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from firsthand.errors import ConfigError
from firsthand.nn.architecture import Activation


@dataclass(frozen=True)
class EncoderDecoderArchitecture:
    """The shapes and arithmetic of an encoder-decoder: all of the model but its weights."""

    family: str
    """The `model_type` of its config.json: `t5`, `bart`, or `marian`, which is the Transformer of 2017."""
    vocab_size: int
    hidden_size: int
    num_encoder_layers: int
    num_decoder_layers: int
    encoder_heads: int
    decoder_heads: int
    head_dim: int
    """Width of a head of the encoder; T5's is no share of the hidden size."""
    encoder_width: int
    """Intermediate size of the encoder's MLPs."""
    decoder_width: int
    positions: Literal["relative", "learned", "sinusoidal"]
    """T5's bias by distance, a table added to the embeddings, or sines and cosines added to them."""
    max_position: int
    """Rows of the table of positions without `position_offset`; with relative positions a bound on texts alone."""
    norm_eps: float
    is_t5: bool = False
    """RMSNorm before each part and after the last, no biases, scores not scaled; else LayerNorm after sums, and biases."""
    activation: Activation = "relu"
    is_gated: bool = False
    position_offset: int = 0
    """The row of a text's first token (BART: 2)."""
    num_buckets: int = 0
    """Buckets of distances (T5)."""
    max_distance: int = 128
    embed_norm: bool = False
    """A LayerNorm after the embeddings (BART)."""
    embed_scale: float = 1.0
    logit_scale: float = 1.0
    """The decoder's output is multiplied by this before the head (T5 v1.0)."""
    tie_embeddings: bool = True
    """The head is the embedding matrix."""
    has_logit_bias: bool = False
    decoder_start: int = 0
    """The token that every output begins with."""
    end: int | None = None
    """The token that ends an output."""

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "hidden_size", "num_encoder_layers", "num_decoder_layers", "encoder_heads")
        for field in (*sizes, "decoder_heads", "head_dim", "encoder_width", "decoder_width", "max_position"):
            if not 1 <= getattr(self, field) < 2**24:
                raise ConfigError(f"{field} is {getattr(self, field)}: expected 1 or more, and less than 2**24")
        relative = self.positions == "relative"
        checks = [
            ("norm_eps", 0 < self.norm_eps < 1, "between 0 and 1"),
            ("encoder_heads", self.encoder_heads * self.head_dim < 2**24, "heads of less than 2**24 values together"),
            (
                "decoder_heads",
                (self.encoder_heads * self.head_dim) % self.decoder_heads == 0,
                f"a divisor of the attention width ({self.encoder_heads * self.head_dim})",
            ),
            ("num_buckets", not relative or 4 <= self.num_buckets < 2**16, "4 or more, and less than 2**16"),
            ("max_distance", not relative or self.num_buckets < self.max_distance < 2**24, "above num_buckets"),
            ("position_offset", 0 <= self.position_offset < 2**16, "0 or more, and less than 2**16"),
            ("embed_scale", 0 < self.embed_scale < math.inf, "above 0"),
            ("logit_scale", 0 < self.logit_scale < math.inf, "above 0"),
            ("decoder_start", 0 <= self.decoder_start < self.vocab_size, f"a token below {self.vocab_size}"),
        ]
        for field, good, expected in checks:
            if not good:
                raise ConfigError(f"{field} is {getattr(self, field)}: expected {expected}")

    @property
    def attention_width(self) -> int:
        """Values of all heads together."""
        return self.encoder_heads * self.head_dim
