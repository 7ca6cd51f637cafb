"""The BERT family of encoders (Devlin et al., 2019): BERT, MiniLM, RoBERTa, XLM-RoBERTa.

LayerNorm after each sum, learned positions, token types, attention in both directions. Tokens come packed, as in `decoder`,
and an `Attend` says what each of them sees. Left out: the pooler, the heads (masked words, classes), relative positions.
"""

# N packed tokens, D hidden, F intermediate, H heads, K head_dim, B equally long texts, T their length

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional

from firsthand.errors import ConfigError
from firsthand.formats.fields import Fields
from firsthand.nn.architecture import Activation
from firsthand.nn.blocks.attention import Attend
from firsthand.nn.blocks.mlp import activate
from firsthand.nn.families.llama import ACTIVATIONS

MODEL_TYPES = ("bert", "roberta", "xlm-roberta")


@dataclass(frozen=True)
class BertArchitecture:
    """Everything that fixes an encoder's shape and arithmetic; weights aside, it is the model."""

    family: str
    """Its `model_type`: `bert`, `roberta` or `xlm-roberta`."""
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    max_position: int
    """Rows of the table of positions."""
    first_position: int
    """The row of a text's first token: 0, and in RoBERTa one more than the id of its padding."""
    num_types: int
    """Rows of the table of token types; every token here is of type 0."""
    norm_eps: float
    activation: Activation = "gelu"

    def __post_init__(self) -> None:
        sizes = (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_layers",
            "num_heads",
            "max_position",
            "num_types",
        )
        for field in sizes:
            if not 1 <= getattr(self, field) < 2**24:
                raise ConfigError(f"{field} is {getattr(self, field)}: expected 1 or more, and less than 2**24")
        checks = [
            ("num_heads", self.hidden_size % self.num_heads == 0, f"a divisor of hidden_size ({self.hidden_size})"),
            ("first_position", 0 <= self.first_position < self.max_position, f"below {self.max_position}"),
            ("norm_eps", 0 < self.norm_eps < 1, "between 0 and 1"),
        ]
        for field, good, expected in checks:
            if not good:
                raise ConfigError(f"{field} is {getattr(self, field)}: expected {expected}")

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.hidden_size // self.num_heads

    @property
    def max_tokens(self) -> int:
        """The longest text that has a position for each of its tokens."""
        return self.max_position - self.first_position


class Together:
    """An `Attend` for texts packed one after another: each token sees all of its own text."""

    def __init__(self, lengths: Sequence[int]):
        if not all(length > 0 for length in lengths):
            raise ConfigError(f"lengths are {list(lengths)}: every text needs 1 token or more")
        self.runs = [(length, len(list(run))) for length, run in groupby(lengths)]

    def __call__(
        self, layer: int, q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, *, scale: float, window: int | None
    ) -> Tensor:
        """Attention in N H K; neighbours of equal length go through as one batch."""
        parts, start = [], 0
        for length, count in self.runs:
            rows = slice(start, start + length * count)
            q, k, v = (x[rows].reshape(count, length, *x.shape[1:]).transpose(1, 2) for x in (q_NHK, k_NGK, v_NGK))
            mixed_BHTK = functional.scaled_dot_product_attention(q, k, v, scale=scale)
            parts.append(mixed_BHTK.transpose(1, 2).flatten(0, 1))
            start = rows.stop
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class Block(nn.Module):
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

    def forward(self, x_ND: Tensor, attend: Attend) -> Tensor:
        """The hidden states after this layer: N D."""
        q, k, v = (
            proj(x_ND).unflatten(-1, (self.num_heads, self.head_dim))
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed_NHK = attend(self.layer, q, k, v, scale=self.head_dim**-0.5, window=None)
        x_ND = self.attention_norm(x_ND + self.o_proj(mixed_NHK.flatten(1)))
        out_ND: Tensor = self.mlp_norm(x_ND + self.down_proj(activate(self.up_proj(x_ND), self.activation)))
        return out_ND


class Encoder(nn.Module):
    """A BERT. Its weights start as torch's defaults: `weights.load_encoder` reads those of a folder."""

    def __init__(self, architecture: BertArchitecture):
        super().__init__()
        a = architecture
        self.architecture = a
        self.words = nn.Embedding(a.vocab_size, a.hidden_size)
        self.positions = nn.Embedding(a.max_position, a.hidden_size)
        self.types = nn.Embedding(a.num_types, a.hidden_size)
        self.norm = nn.LayerNorm(a.hidden_size, a.norm_eps)
        self.layers = nn.ModuleList(Block(a, layer) for layer in range(a.num_layers))

    def forward(self, ids_N: Tensor, positions_N: Tensor, attend: Attend) -> Tensor:
        """The hidden state of each token after the last layer: N D. Positions count from 0 in each text."""
        places_N = positions_N + self.architecture.first_position
        x_ND: Tensor = self.norm(self.words(ids_N) + self.types.weight[0] + self.positions(places_N))
        for layer in self.layers:
            x_ND = layer(x_ND, attend)
        return x_ND


def from_config(config: Fields) -> BertArchitecture:
    """The architecture in a Hugging Face config.json."""
    family = config.text("model_type")
    kind = config.text("position_embedding_type", "absolute")
    if kind != "absolute":
        raise config.error("position_embedding_type", kind, "'absolute', the only kind that is read")
    if config.flag("is_decoder", False):
        raise config.error("is_decoder", True, "false: the model is to see both ways")
    return BertArchitecture(
        family=family,
        vocab_size=config.integer("vocab_size"),
        hidden_size=config.integer("hidden_size"),
        intermediate_size=config.integer("intermediate_size"),
        num_layers=config.num_layers("num_hidden_layers"),
        num_heads=config.integer("num_attention_heads"),
        max_position=config.integer("max_position_embeddings"),
        first_position=0 if family == "bert" else config.integer("pad_token_id", 1) + 1,
        num_types=config.integer("type_vocab_size", 2),
        norm_eps=config.number("layer_norm_eps", 1e-12),
        activation=config.choice("hidden_act", ACTIVATIONS, "gelu"),
    )
