"""The architecture of a decoder-only transformer as plain data: `Architecture`, and `Rope` for rotary positions.

One frozen value answers every question about shapes, so planners (memory, cost, scaling) need neither torch nor weights. The
family files (`llama`, `qwen`, `gemma`) read it from model files, and `decoder` builds the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from firsthand.errors import ConfigError

RopeKind = Literal["default", "linear", "ntk", "dynamic", "llama3", "yarn", "longrope", "divided", "none"]
Activation = Literal["silu", "gelu_tanh", "gelu", "relu", "solu", "clamped_silu"]
RouterScore = Literal["softmax", "sigmoid", "softmax_of_chosen"]


@dataclass(frozen=True)
class Rope:
    """Rotary position embeddings (Su et al., 2021) and their scaling beyond the trained length."""

    theta: float = 10_000.0
    """Base of the wavelengths: pair i rotates by theta ** (-2i / head_dim) per position."""
    kind: RopeKind = "default"
    """Scaling of the angles (`blocks/rope.py` has the formulas); `none` is a layer without positions (NoPE)."""
    factor: float = 1.0
    """Context length as a multiple of the trained one (linear, ntk, dynamic, llama3, yarn)."""
    original_max_position: int = 0
    """Trained length (dynamic, llama3, yarn, longrope)."""
    low_freq_factor: float = 1.0
    """llama3: wavelengths above trained length / this are divided by `factor`."""
    high_freq_factor: float = 4.0
    """llama3: wavelengths below trained length / this are kept."""
    beta_fast: float = 32.0
    """yarn: pairs with more turns than this within the trained length are kept."""
    beta_slow: float = 1.0
    """yarn: pairs with fewer turns than this within the trained length are divided by `factor`."""
    attention_factor: float = 1.0
    """yarn, longrope: cosines and sines are multiplied by this."""
    truncate: bool = True
    """yarn: round the bounds of the blend to whole pairs."""
    divisors: tuple[float, ...] = ()
    """divided, longrope: each pair's frequency is divided by its number (GGUF files carry these in place of llama3's
    formula; longrope's are for texts beyond the trained length)."""
    short_divisors: tuple[float, ...] = ()
    """longrope: the divisors of a model that is used within its trained length."""

    def __post_init__(self) -> None:
        stretched = self.kind in ("llama3", "yarn", "dynamic", "longrope")
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
            (
                "divisors",
                self.kind not in ("divided", "longrope") or _all_positive(self.divisors),
                "a number above 0 for each pair",
            ),
            (
                "short_divisors",
                self.kind != "longrope" or (_all_positive(self.short_divisors) and self._divisors_match()),
                f"{len(self.divisors)} numbers above 0, as many as there are divisors",
            ),
        ]
        for field, good, expected in checks:
            if not good:
                raise ConfigError(f"rope {field} is {getattr(self, field)}: expected {expected}")

    def _divisors_match(self) -> bool:
        return len(self.short_divisors) == len(self.divisors)


@dataclass(frozen=True)
class ExpertSettings:
    """A mixture of experts in place of a layer's MLP, and how its router chooses among them (Shazeer et al., 2017)."""

    num_experts: int
    per_token: int
    """Experts that compute each token."""
    width: int
    """Intermediate size of one expert."""
    layers: tuple[bool, ...]
    """The layers that have experts; the others have an MLP of `intermediate_size`."""
    score: RouterScore = "softmax"
    """Scores of all experts by softmax or sigmoid, or a softmax over the logits of the chosen alone (gpt-oss)."""
    renormalise: bool = True
    """The weights of a token's experts are divided by their sum."""
    scale: float = 1.0
    """The weights are multiplied by this last."""
    num_groups: int = 1
    """Groups of experts of which a token uses only `groups_per_token` (DeepSeek-V2)."""
    groups_per_token: int = 1
    group_score: Literal["max", "top2"] = "max"
    """A group is scored by its best expert, or by the sum of its best two (DeepSeek-V3)."""
    has_correction: bool = False
    """A bias for each expert that takes part in the choice and not in the weights (DeepSeek-V3's balance without a loss)."""
    shared_width: int = 0
    """Intermediate size of the expert that computes every token; 0 is none."""
    has_shared_gate: bool = False
    """The shared expert's output is multiplied by a sigmoid of the token (Qwen2-MoE)."""
    has_bias: bool = False
    """The router and the experts have biases (gpt-oss)."""

    def __post_init__(self) -> None:
        groups = max(self.num_groups, 1)
        checks = [
            ("num_experts", 1 <= self.num_experts <= 4096, "1 to 4096"),
            ("per_token", 1 <= self.per_token <= self.num_experts, f"1 to num_experts ({self.num_experts})"),
            ("width", 1 <= self.width < 2**24, "1 or more, and less than 2**24"),
            ("layers", any(self.layers), "a layer that has experts"),
            ("scale", 0 < self.scale < math.inf, "above 0"),
            ("num_groups", 1 <= groups == self.num_groups, "1 or more"),
            ("num_groups", self.num_experts % groups == 0, f"a divisor of num_experts ({self.num_experts})"),
            ("groups_per_token", 1 <= self.groups_per_token <= groups, f"1 to num_groups ({groups})"),
            (
                "per_token",
                self.per_token <= self.groups_per_token * (self.num_experts // groups),
                f"no more than the {self.groups_per_token} groups of a token hold",
            ),
            ("shared_width", 0 <= self.shared_width < 2**24, "0 or more, and less than 2**24"),
            (
                "group_score",
                self.group_score == "max" or self.num_experts // groups >= 2 or groups == 1,
                "max where a group has a single expert",
            ),
        ]
        for field, good, expected in checks:
            if not good:
                raise ConfigError(f"experts' {field} is {getattr(self, field)}: expected {expected}")


@dataclass(frozen=True)
class LatentSettings:
    """Multi-head latent attention (DeepSeek-V2, 2024): keys and values of all heads are made of one cached latent.

    An architecture with it has one KV head of `rank + rope_dim` values, which is what the cache keeps of a token.
    """

    rank: int
    """Values of the latent that keys and values are made of."""
    nope_dim: int
    """Values of a head's query and key without positions."""
    rope_dim: int
    """Values with rotary positions; the key's are shared by all heads."""
    value_dim: int
    query_rank: int = 0
    """Values of the latent that queries are made of; 0: queries are made of the hidden state."""
    norm_eps: float = 1e-6
    """Of the latents' own norms, which a config.json does not state; in GGUF it is the model's."""

    def __post_init__(self) -> None:
        for field in ("rank", "nope_dim", "rope_dim", "value_dim"):
            if not 1 <= getattr(self, field) < 2**20:
                raise ConfigError(
                    f"latent attention's {field} is {getattr(self, field)}: expected 1 or more, below 2**20"
                )
        if not 0 <= self.query_rank < 2**24:
            raise ConfigError(f"latent attention's query_rank is {self.query_rank}: expected 0 or more, below 2**24")


@dataclass(frozen=True)
class Architecture:
    """The shapes and arithmetic of a decoder: all of the model but its weights."""

    family: str
    """The family whose conventions it follows: the `model_type` of its config.json, such as `llama` or `qwen3_moe`."""
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
    """Activation of the gate: silu is SwiGLU, gelu GeGLU (Shazeer, 2020); without a gate, of the inner layer."""
    norm_placement: Literal["pre", "sandwich", "post"] = "pre"
    """Norms before attention and MLP, before and after each, or after each alone (OLMo 2); sums are never normalised."""
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
    norm: Literal["rms", "layer", "layer_no_bias"] = "rms"
    """RMSNorm, or LayerNorm with or without a bias (Ba et al., 2016)."""
    is_gated: bool = True
    """The MLP multiplies by a gate; else it is down(activation(up(x)))."""
    qk_norm_over: Literal["head", "projection"] = "head"
    """`qk_norm` normalises each head, or the whole projection (OLMo 2)."""
    rotary_dim: int = 0
    """Values of a head that are rotated, the first ones; 0 stands for head_dim."""
    learned_positions: int = 0
    """Rows of a learned table of positions that is added to the embeddings; 0 is none."""
    alibi_slopes: tuple[float, ...] = ()
    """ALiBi: each head's scores fall by its slope for each position of distance; empty is none."""
    embed_norm: bool = False
    """The embeddings pass a norm before the first layer (BLOOM)."""
    has_sinks: bool = False
    """Each head has a learned logit that takes part in the softmax and has no value (gpt-oss)."""
    clip_qkv: float | None = None
    """Queries, keys and values are clamped to this size (MPT)."""
    activation_limit: float = 7.0
    """clamped_silu: the gate is clamped from above, and the other factor to both sides."""
    experts: ExpertSettings | None = None
    latent: LatentSettings | None = None
    is_causal: bool = True
    """A token sees itself and those before it; False: it sees all of its text, as in embedders made of decoders."""

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
            ("ropes", self._divisors_fit(), f"{self.rotated // 2} divisors, one for each pair"),
            ("attention_scale", 0 <= self.attention_scale < math.inf, "0 (head_dim ** -0.5) or more"),
            ("embed_scale", 0 < self.embed_scale < math.inf, "above 0"),
            (
                "attention_softcap",
                self.attention_softcap is None or 0 < self.attention_softcap < math.inf,
                "None or above 0",
            ),
            ("logit_softcap", self.logit_softcap is None or 0 < self.logit_softcap < math.inf, "None or above 0"),
            *self._checks_of_parts(),
        ]
        for field, good, expected in checks:
            if not good:
                raise ConfigError(f"{field} is {getattr(self, field)}: expected {expected}")
        if self.attention_scale == 0:
            object.__setattr__(self, "attention_scale", self.head_dim**-0.5)

    @property
    def rotated(self) -> int:
        """Values of a head that are rotated."""
        return self.rotary_dim or self.head_dim

    def _checks_of_parts(self) -> list[tuple[str, bool, str]]:
        """The needs of parts other than plain attention and MLP: field, whether it holds, what is expected."""
        slopes, latent, experts = self.alibi_slopes, self.latent, self.experts
        return [
            (
                "rotary_dim",
                0 <= self.rotary_dim <= self.head_dim and self.rotary_dim % 2 == 0,
                f"an even number of at most head_dim ({self.head_dim})",
            ),
            (
                "alibi_slopes",
                not slopes or (len(slopes) == self.num_heads and all(map(math.isfinite, slopes))),
                f"{self.num_heads} numbers, one for each head",
            ),
            ("learned_positions", 0 <= self.learned_positions < 2**24, "0 or more, and less than 2**24"),
            (
                "learned_positions",
                not self.learned_positions or self.max_position <= self.learned_positions,
                f"a row for each of max_position ({self.max_position}) or more",
            ),
            (
                "is_causal",
                self.is_causal or not any(self.windows),
                "true, or no sliding windows: programs disagree on windows in both directions",
            ),
            ("clip_qkv", self.clip_qkv is None or 0 < self.clip_qkv < math.inf, "None or above 0"),
            ("activation_limit", 0 < self.activation_limit < math.inf, "above 0"),
            (
                "experts",
                experts is None or len(experts.layers) == self.num_layers,
                f"a choice for each of {self.num_layers} layers",
            ),
            (
                "latent",
                latent is None or (self.num_kv_heads == 1 and self.head_dim == latent.rank + latent.rope_dim),
                "one KV head of rank + rope_dim values",
            ),
            ("latent", latent is None or self.rotary_dim == latent.rope_dim, "rope_dim values that are rotated"),
        ]

    def has_experts(self, layer: int) -> bool:
        """True if a layer has experts in place of an MLP."""
        return self.experts is not None and self.experts.layers[layer]

    def _divisors_fit(self) -> bool:
        pairs = self.rotated // 2
        return all(rope.kind not in ("divided", "longrope") or len(rope.divisors) == pairs for rope in self.ropes)

    def kv_bytes_per_token(self, bytes_per_value: float = 4) -> int:
        """KV-cache bytes of one token over all layers; windows are not considered."""
        return math.ceil(self.num_layers * 2 * self.num_kv_heads * self.head_dim * bytes_per_value)


def _all_positive(values: tuple[float, ...]) -> bool:
    return bool(values) and all(math.isfinite(value) and value > 0 for value in values)
