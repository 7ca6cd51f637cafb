"""The architecture of a decoder-only transformer as plain data: `Architecture`, and `Rope` for rotary positions.

One frozen value answers every question about shapes, so planners (memory, cost, scaling) need neither torch nor weights. The
family files (`llama`, `qwen`, `gemma`) read it from model files, and `decoder` builds the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from firsthand.errors import ConfigError

RopeKind = Literal["default", "linear", "llama3", "yarn", "divided"]
Activation = Literal["silu", "gelu_tanh", "gelu"]


@dataclass(frozen=True)
class Rope:
    """Rotary position embeddings (Su et al., 2021) and their scaling beyond the trained length."""

    theta: float = 10_000.0
    """Base of the wavelengths: pair i rotates by theta ** (-2i / head_dim) per position."""
    kind: RopeKind = "default"
    """Scaling of the angles: none, `linear`, `llama3`, `yarn`, or `divided` by a given number for each pair."""
    factor: float = 1.0
    """Context length as a multiple of the trained one (linear, llama3, yarn)."""
    original_max_position: int = 0
    """Trained length (llama3, yarn)."""
    low_freq_factor: float = 1.0
    """llama3: wavelengths above trained length / this are divided by `factor`."""
    high_freq_factor: float = 4.0
    """llama3: wavelengths below trained length / this are kept."""
    beta_fast: float = 32.0
    """yarn: pairs with more turns than this within the trained length are kept."""
    beta_slow: float = 1.0
    """yarn: pairs with fewer turns than this within the trained length are divided by `factor`."""
    attention_factor: float = 1.0
    """yarn: cosines and sines are multiplied by this."""
    truncate: bool = True
    """yarn: round the bounds of the blend to whole pairs."""
    divisors: tuple[float, ...] = ()
    """divided: each pair's frequency is divided by its number (what GGUF files carry in place of llama3's formula)."""

    def __post_init__(self) -> None:
        stretched = self.kind in ("llama3", "yarn")
        checks = [
            ("theta", math.isfinite(self.theta) and self.theta > 1, "above 1"),
            ("factor", math.isfinite(self.factor) and self.factor > 0, "above 0"),
            ("original_max_position", not stretched or self.original_max_position > 0, "the trained length, above 0"),
            (
                "high_freq_factor",
                self.kind != "llama3" or 0 < self.low_freq_factor < self.high_freq_factor < math.inf,
                f"above low_freq_factor ({self.low_freq_factor}), which is above 0",
            ),
            (
                "beta_fast",
                self.kind != "yarn" or 0 < self.beta_slow <= self.beta_fast < math.inf,
                f"at least beta_slow ({self.beta_slow}), which is above 0",
            ),
            ("attention_factor", math.isfinite(self.attention_factor) and self.attention_factor > 0, "above 0"),
            ("divisors", self.kind != "divided" or _all_positive(self.divisors), "a number above 0 for each pair"),
        ]
        for field, good, expected in checks:
            if not good:
                raise ConfigError(f"rope {field} is {getattr(self, field)}: expected {expected}")


@dataclass(frozen=True)
class Architecture:
    """The shapes and arithmetic of a decoder: all of the model but its weights."""

    family: str
    """The family whose conventions it follows: `llama`, `mistral`, `qwen2`, `qwen3`, `gemma3`."""
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    """Query heads."""
    num_kv_heads: int
    """Key and value heads; each serves num_heads / num_kv_heads query heads (Ainslie et al., 2023)."""
    head_dim: int
    max_position: int
    """Context length the model was trained for."""
    norm_eps: float
    windows: tuple[int | None, ...]
    """Attention window of each layer in positions, the token's own included; None is unlimited."""
    ropes: tuple[Rope, ...]
    """The rope of each layer."""
    tie_embeddings: bool
    """The output head is the embedding matrix itself."""
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    """Queries and keys pass an RMSNorm over head_dim, head by head, before rotation."""
    activation: Activation = "silu"
    """Activation of the gate: silu is SwiGLU, gelu GeGLU (Shazeer, 2020)."""
    norm_placement: Literal["pre", "sandwich"] = "pre"
    """Norms before attention and MLP, or before and after each."""
    norm_unit_offset: bool = False
    """RMSNorm multiplies by 1 + weight, in float32 (Gemma)."""
    embed_scale: float = 1.0
    """Embeddings are multiplied by this."""
    attention_scale: float = 0.0
    """Scores are multiplied by this; 0 stands for head_dim ** -0.5."""
    attention_softcap: float | None = None
    """Attention's scaled scores become cap * tanh(score / cap) (Gemma 2)."""
    logit_softcap: float | None = None
    """Logits become cap * tanh(logits / cap)."""

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads")
        for field in (*sizes, "head_dim", "max_position"):
            if not 1 <= getattr(self, field) < 2**31:
                raise ConfigError(f"{field} is {getattr(self, field)}: expected a whole number of 1 or more")
        widest = max(self.vocab_size, self.hidden_size, self.intermediate_size, self.num_heads * self.head_dim)
        if widest >= 2**24:  # above, the sizes of matrices would no longer fit 64 bits, and no model is near it
            raise ConfigError(f"a layer is {widest} wide: expected vocabulary, hidden and head sizes below 2**24")
        checks = [
            ("num_heads", self.num_heads % self.num_kv_heads == 0, f"a multiple of num_kv_heads ({self.num_kv_heads})"),
            ("head_dim", self.head_dim % 2 == 0, "an even number, since rotary positions turn pairs"),
            ("norm_eps", 0 < self.norm_eps < 1, "between 0 and 1"),
            ("windows", len(self.windows) == self.num_layers, f"one for each of {self.num_layers} layers"),
            ("windows", all(w is None or w >= 1 for w in self.windows), "None or 1 and more for each layer"),
            ("ropes", len(self.ropes) == self.num_layers, f"one for each of {self.num_layers} layers"),
            ("ropes", self._divisors_fit(), f"{self.head_dim // 2} divisors, one for each pair"),
            ("attention_scale", 0 <= self.attention_scale < math.inf, "0 (head_dim ** -0.5) or more"),
            ("embed_scale", 0 < self.embed_scale < math.inf, "above 0"),
            (
                "attention_softcap",
                self.attention_softcap is None or 0 < self.attention_softcap < math.inf,
                "None or above 0",
            ),
            ("logit_softcap", self.logit_softcap is None or 0 < self.logit_softcap < math.inf, "None or above 0"),
        ]
        for field, good, expected in checks:
            if not good:
                raise ConfigError(f"{field} is {getattr(self, field)}: expected {expected}")
        if self.attention_scale == 0:
            object.__setattr__(self, "attention_scale", self.head_dim**-0.5)

    def _divisors_fit(self) -> bool:
        return all(rope.kind != "divided" or len(rope.divisors) == self.head_dim // 2 for rope in self.ropes)

    def kv_bytes_per_token(self, bytes_per_value: float = 4) -> int:
        """KV-cache bytes of one token over all layers; windows are not considered."""
        return math.ceil(self.num_layers * 2 * self.num_kv_heads * self.head_dim * bytes_per_value)


def _all_positive(values: tuple[float, ...]) -> bool:
    return bool(values) and all(math.isfinite(value) and value > 0 for value in values)
