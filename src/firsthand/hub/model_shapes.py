"""The sizes of a model for planning, and its parameter counts, from a config.json or a known name; no weights, no torch.

Covers decoders with grouped-query or multi-head latent attention (DeepSeek), gated or plain MLPs, and mixtures of experts
with shared experts. A configuration of any such family is read by the names that transformers gives its values, also where
our engine does not load it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firsthand.errors import ConfigError, ModelFileError, nearest
from firsthand.formats.fields import Fields
from firsthand.formats.model_files import read_json
from firsthand.nn.architecture import Architecture

_MAX = 1 << 31


@dataclass(frozen=True)
class DecoderShape:
    """A decoder's sizes."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    """Width of a dense MLP."""
    max_position: int = 4096
    tied: bool = False
    """The head is the embedding."""
    gated: bool = True
    """The MLP has three matrices (SwiGLU, GeGLU), else two."""
    qkv_bias: bool = False
    other_bias: bool = False
    """Biases of the output projection and the MLP, and of the norms."""
    qk_norm: bool = False
    learned_positions: bool = False
    num_experts: int = 0
    """Routed experts of a layer; 0 is a dense model."""
    experts_per_token: int = 0
    expert_size: int = 0
    """Width of one routed expert."""
    shared_size: int = 0
    """Width of all shared experts together."""
    dense_layers: int = 0
    """First layers with a dense MLP in a mixture of experts."""
    kv_rank: int = 0
    """Latent width of keys and values (MLA); 0 is grouped-query attention."""
    q_rank: int = 0
    rope_dim: int = 0
    """Rotated part of a head (MLA), one key for all heads."""
    value_dim: int = 0
    """Width of a value head (MLA)."""
    window: int | None = None
    """Positions that a layer with a sliding window keeps."""
    windowed_layers: int = 0

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim", "max_position")
        for name in sizes:
            if not 1 <= getattr(self, name) < _MAX:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected a whole number of 1 or more")
        if self.num_experts and not 1 <= self.experts_per_token <= self.num_experts:
            raise ConfigError(
                f"experts_per_token is {self.experts_per_token}: expected 1 to num_experts ({self.num_experts})"
            )
        if not self.num_experts and self.intermediate_size < 1:
            raise ConfigError(f"intermediate_size is {self.intermediate_size}: expected 1 or more")

    @property
    def attention_parameters(self) -> int:
        """Weights of a layer's attention, its norms of heads included."""
        h, d = self.hidden_size, self.head_dim
        if self.kv_rank:
            key, value = d + self.rope_dim, self.value_dim or d
            q = h * self.num_heads * key
            if self.q_rank:
                q = h * self.q_rank + self.q_rank + self.q_rank * self.num_heads * key
            kv = h * (self.kv_rank + self.rope_dim) + self.kv_rank + self.kv_rank * self.num_heads * (d + value)
            return q + kv + self.num_heads * value * h
        inputs = (self.num_heads + 2 * self.num_kv_heads) * d
        return inputs * (h + self.qkv_bias) + self.num_heads * d * h + self.other_bias * h + self.qk_norm * 2 * d

    def mlp_parameters(self, width: int) -> int:
        """Weights of one MLP of that width."""
        biases = self.other_bias * ((1 + self.gated) * width + self.hidden_size)
        return (2 + self.gated) * self.hidden_size * width + biases

    def _layers(self, experts: float) -> float:
        """Weights of all layers, with so many routed experts of each."""
        norms = (2 + 2 * self.other_bias) * self.hidden_size
        dense = self.dense_layers if self.num_experts else self.num_layers
        total: float = self.num_layers * (self.attention_parameters + norms)
        total += dense * self.mlp_parameters(self.intermediate_size)
        if self.num_experts:
            shared = self.mlp_parameters(self.shared_size) if self.shared_size else 0
            router = self.hidden_size * self.num_experts
            total += (self.num_layers - dense) * (experts * self.mlp_parameters(self.expert_size) + shared + router)
        return total

    @property
    def embedding_parameters(self) -> int:
        """Weights of the embedding, of a head of its own, and of learned positions."""
        tables = self.vocab_size * (1 if self.tied else 2) + self.learned_positions * self.max_position
        return tables * self.hidden_size

    @property
    def parameters(self) -> int:
        """All weights."""
        final = (1 + self.other_bias) * self.hidden_size
        return int(self._layers(self.num_experts)) + self.embedding_parameters + final

    @property
    def active_parameters(self) -> int:
        """Weights that one token passes, embedding and head included, as model cards count them."""
        final = (1 + self.other_bias) * self.hidden_size
        return int(self._layers(self.experts_per_token)) + self.embedding_parameters + final

    def read_parameters(self, batch: int = 1) -> float:
        """Weights that a decode step of so many sequences reads: the head, and the experts that any of them is sent to.

        Tokens are taken to choose experts independently and evenly, so E (1 - (1 - k/E)^batch) are read.
        """
        experts: float = self.num_experts
        if experts:
            experts *= 1 - (1 - self.experts_per_token / self.num_experts) ** batch
        return self._layers(experts) + self.vocab_size * self.hidden_size

    @property
    def matrix_parameters(self) -> int:
        """Weights that multiply each token: those of its layers, and the head."""
        return int(self._layers(self.experts_per_token)) + self.vocab_size * self.hidden_size

    @property
    def kv_values_per_token(self) -> int:
        """Numbers that the KV cache keeps of one token in all layers: 2 layers kv_heads head_dim, or the latents of MLA."""
        if self.kv_rank:
            return self.num_layers * (self.kv_rank + self.rope_dim)
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim

    def kv_values(self, context: int) -> int:
        """Numbers that the KV cache keeps of one sequence; layers with a window keep no more than that."""
        each = self.kv_values_per_token // self.num_layers
        kept = context if self.window is None else min(context, self.window)
        return each * ((self.num_layers - self.windowed_layers) * context + self.windowed_layers * kept)

    @property
    def attention_width(self) -> int:
        """Query heads x head_dim, summed over layers, for scores and for values on average."""
        key, value = self.head_dim + self.rope_dim, self.value_dim or self.head_dim
        return self.num_layers * self.num_heads * (key + value) // 2


def shape_from_architecture(a: Architecture) -> DecoderShape:
    """The shape of a model that our engine loads."""
    windows = [window for window in a.windows if window is not None]
    experts, latent = a.experts, a.latent
    return DecoderShape(
        a.vocab_size, a.hidden_size, a.num_layers, a.num_heads, a.num_kv_heads, latent.nope_dim if latent else a.head_dim,
        a.intermediate_size, max_position=a.max_position, tied=a.tie_embeddings, gated=a.is_gated, qkv_bias=a.qkv_bias,
        other_bias=a.o_bias and a.mlp_bias, qk_norm=a.qk_norm, learned_positions=a.learned_positions > 0,
        num_experts=experts.num_experts if experts else 0, experts_per_token=experts.per_token if experts else 0,
        expert_size=experts.width if experts else 0, shared_size=experts.shared_width if experts else 0,
        dense_layers=experts.layers.count(False) if experts else 0,
        kv_rank=latent.rank if latent else 0, q_rank=latent.query_rank if latent else 0,
        rope_dim=latent.rope_dim if latent else 0, value_dim=latent.value_dim if latent else 0,
        window=max(windows, default=None), windowed_layers=len(windows),
    )  # fmt: skip


def shape_from_config(values: Mapping[str, Any], source: str) -> DecoderShape:
    """The shape that a config.json states; ModelFileError if it leaves out what planning needs."""
    inner = values.get("text_config")
    config = Fields(inner if isinstance(inner, dict) else values, source)

    def whole(*names: str, default: int | None = None) -> int:
        name = next((each for each in names if config.has(each)), names[0])
        return config.integer(name) if default is None else config.integer(name, default)

    hidden, layers = whole("hidden_size", "n_embd", "d_model"), whole("num_hidden_layers", "n_layer", "n_layers")
    heads = whole("num_attention_heads", "n_head", "n_heads")
    plain = config.values.get("model_type") in ("gpt2", "bloom", "mpt", "opt", "gpt_neox")
    experts = whole("num_local_experts", "num_experts", "n_routed_experts", default=0)
    width = whole("intermediate_size", "n_inner", "ffn_dim", default=4 * hidden)
    expert_size = whole("moe_intermediate_size", "intermediate_size", default=width) if experts else 0
    shared = whole("n_shared_experts", default=0) * expert_size or whole("shared_expert_intermediate_size", default=0)
    rank = whole("kv_lora_rank", default=0)
    window = whole("sliding_window", default=0) if config.values.get("use_sliding_window", True) else 0
    try:
        return DecoderShape(
            whole("vocab_size"), hidden, layers, heads, whole("num_key_value_heads", default=heads),
            whole("qk_nope_head_dim") if rank else whole("head_dim", default=max(1, hidden // max(1, heads))), width,
            max_position=whole("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", default=4096),
            tied=config.flag("tie_word_embeddings", plain), gated=not plain,
            qkv_bias=plain or config.flag("attention_bias", config.values.get("model_type") in ("qwen2", "qwen2_moe")),
            other_bias=plain, qk_norm=config.values.get("model_type") in ("qwen3", "qwen3_moe", "gemma3_text"),
            learned_positions=config.values.get("model_type") in ("gpt2", "opt"),
            num_experts=experts, experts_per_token=whole("num_experts_per_tok", "num_experts_per_token", default=0),
            expert_size=expert_size, shared_size=shared if experts else 0,
            dense_layers=whole("first_k_dense_replace", default=0) if experts else 0,
            kv_rank=rank, q_rank=whole("q_lora_rank", default=0) if rank else 0,
            rope_dim=whole("qk_rope_head_dim") if rank else 0, value_dim=whole("v_head_dim") if rank else 0,
            window=window or None, windowed_layers=layers if window else 0,
        )  # fmt: skip
    except ConfigError as error:
        raise ModelFileError(f"{source}: {error}") from None


_LLAMA_70B = DecoderShape(32000, 8192, 80, 64, 8, 128, 28672)
KNOWN_SHAPES: dict[str, DecoderShape] = {
    "gpt-2": DecoderShape(
        50257, 768, 12, 12, 12, 64, 3072, max_position=1024, tied=True, gated=False, qkv_bias=True, other_bias=True,
        learned_positions=True,
    ),
    "smollm2-135m": DecoderShape(49152, 576, 30, 9, 3, 64, 1536, max_position=8192, tied=True),
    "llama-65b": DecoderShape(32000, 8192, 80, 64, 64, 128, 22016, max_position=2048),
    "llama-2-7b": DecoderShape(32000, 4096, 32, 32, 32, 128, 11008),
    "llama-2-70b": _LLAMA_70B,
    "llama-3-8b": DecoderShape(128256, 4096, 32, 32, 8, 128, 14336, max_position=8192),
    "llama-3-70b": DecoderShape(128256, 8192, 80, 64, 8, 128, 28672, max_position=8192),
    "llama-3.1-405b": DecoderShape(128256, 16384, 126, 128, 8, 128, 53248, max_position=131072),
    "mistral-7b": DecoderShape(
        32000, 4096, 32, 32, 8, 128, 14336, max_position=32768, window=4096, windowed_layers=32
    ),
    "mixtral-8x7b": DecoderShape(
        32000, 4096, 32, 32, 8, 128, 14336, max_position=32768, num_experts=8, experts_per_token=2, expert_size=14336
    ),
    "qwen2.5-7b": DecoderShape(152064, 3584, 28, 28, 4, 128, 18944, max_position=32768, qkv_bias=True),
    "qwen3-30b-a3b": DecoderShape(
        151936, 2048, 48, 32, 4, 128, 6144, max_position=40960, qk_norm=True, num_experts=128, experts_per_token=8,
        expert_size=768,
    ),
    "deepseek-v3": DecoderShape(
        129280, 7168, 61, 128, 128, 128, 18432, max_position=163840, num_experts=256, experts_per_token=8,
        expert_size=2048, shared_size=2048, dense_layers=3, kv_rank=512, q_rank=1536, rope_dim=64, value_dim=128,
    ),
}  # fmt: skip
"""Published configurations by name; any other is read from its config.json."""


def find_shape(text: str) -> DecoderShape | int:
    """The shape of a known name, a config.json, a folder or a .gguf file; or the number in a plain size such as `70B`."""
    size = re.fullmatch(r"(\d+(?:\.\d+)?)([MBT])", text, re.IGNORECASE)
    if size and len(size[1]) < 16:
        return round(float(size[1]) * {"M": 1e6, "B": 1e9, "T": 1e12}[size[2].upper()])
    if text.lower() in KNOWN_SHAPES:
        return KNOWN_SHAPES[text.lower()]
    path = Path(text)
    if path.suffix == ".json" or (path / "config.json").is_file():
        path = path if path.suffix == ".json" else path / "config.json"
        return shape_from_config(read_json(path), str(path))
    if path.suffix == ".gguf" or path.exists():
        from firsthand.nn.model_config import architecture_of

        return shape_from_architecture(architecture_of(path))
    close = nearest(text.lower(), KNOWN_SHAPES)
    hint = f"did you mean {close}? " if close else ""
    raise ConfigError(
        f"no model {text!r} to plan for; {hint}give a config.json, a folder, a .gguf file, a size such as 70B, or one of "
        f"{', '.join(KNOWN_SHAPES)}"
    )
