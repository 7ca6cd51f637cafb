"""The BERT family's configurations: BERT, MiniLM, RoBERTa, XLM-RoBERTa, DistilBERT, MPNet. The model is `nn/encoder.py`.

DistilBERT has no token types; MPNet has none either, and adds T5's bias by distance to the scores. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from firsthand.errors import ConfigError
from firsthand.formats.fields import Fields
from firsthand.nn.architecture import Activation
from firsthand.nn.families.llama import ACTIVATIONS

MODEL_TYPES = ("bert", "roberta", "xlm-roberta", "distilbert", "mpnet")
BUCKETS = "relative_attention_num_buckets"
FIRST = {"bert": 0, "mpnet": 2}
"""The row of the first position where it does not follow from the padding's id."""


@dataclass(frozen=True)
class BertArchitecture:
    """The shapes and arithmetic of an encoder: all of the model but its weights."""

    family: str
    """Its `model_type`: `bert`, `roberta`, `xlm-roberta`, `distilbert` or `mpnet`."""
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    max_position: int
    """Rows of the table of positions."""
    first_position: int
    """The row of a text's first token: 0, in MPNet 2, and in RoBERTa one more than the id of its padding."""
    num_types: int
    """Rows of the table of token types; 0 is no table."""
    norm_eps: float
    activation: Activation = "gelu"
    num_buckets: int = 0
    """Buckets of distances whose bias is added to scores, shared by all layers (MPNet); 0 is none."""

    def __post_init__(self) -> None:
        sizes = (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_layers",
            "num_heads",
            "max_position",
        )
        for field in sizes:
            if not 1 <= getattr(self, field) < 2**24:
                raise ConfigError(f"{field} is {getattr(self, field)}: expected 1 or more, and less than 2**24")
        checks = [
            ("num_types", 0 <= self.num_types < 2**24, "0 or more, and less than 2**24"),
            ("num_buckets", self.num_buckets == 0 or 8 <= self.num_buckets < 128, "0, or 8 and more below 128"),
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


def from_config(config: Fields) -> BertArchitecture:
    """The architecture in a Hugging Face config.json."""
    family = config.text("model_type")
    kind = config.text("position_embedding_type", "absolute")
    if kind != "absolute":
        raise config.error("position_embedding_type", kind, "'absolute', the only kind that is read")
    if config.flag("is_decoder", False):
        raise config.error("is_decoder", True, "false: the model is to see both ways")
    if family == "mpnet" and config.integer(BUCKETS, 32) != 32:
        raise config.error(BUCKETS, config.values[BUCKETS], "32, which transformers computes whatever the table's rows")
    if family == "distilbert":
        return _distilbert(config)
    return BertArchitecture(
        family=family,
        vocab_size=config.integer("vocab_size"),
        hidden_size=config.integer("hidden_size"),
        intermediate_size=config.integer("intermediate_size"),
        num_layers=config.num_layers("num_hidden_layers"),
        num_heads=config.integer("num_attention_heads"),
        max_position=config.integer("max_position_embeddings"),
        first_position=FIRST[family] if family in FIRST else config.integer("pad_token_id", 1) + 1,
        num_types=0 if family == "mpnet" else config.integer("type_vocab_size", 2),
        norm_eps=config.number("layer_norm_eps", 1e-12),
        activation=config.choice("hidden_act", ACTIVATIONS, "gelu"),
        num_buckets=32 if family == "mpnet" else 0,
    )


def _distilbert(config: Fields) -> BertArchitecture:
    """DistilBERT (Sanh et al., 2019), which has names of its own for the sizes."""
    return BertArchitecture(
        family="distilbert",
        vocab_size=config.integer("vocab_size"),
        hidden_size=config.integer("dim"),
        intermediate_size=config.integer("hidden_dim"),
        num_layers=config.num_layers("n_layers"),
        num_heads=config.integer("n_heads"),
        max_position=config.integer("max_position_embeddings"),
        first_position=0,
        num_types=0,
        norm_eps=1e-12,
        activation=config.choice("activation", ACTIVATIONS, "gelu"),
    )
