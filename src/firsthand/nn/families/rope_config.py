"""Reads rotary positions from model files: old config.json (`rope_theta`, `rope_scaling`), new (`rope_parameters`,
transformers 5), and GGUF. An unknown kind is an error, since wrong angles are a wrong model. Imports no torch.
"""

from __future__ import annotations

import math
from typing import Any

from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.fields import Fields
from firsthand.formats.gguf_file import GGUF
from firsthand.nn.architecture import Architecture, Rope, RopeKind

KINDS: dict[str, RopeKind] = {
    "default": "default",
    "linear": "linear",
    "llama3": "llama3",
    "yarn": "yarn",
    "dynamic": "dynamic",
    "longrope": "longrope",
    "ntk": "ntk",
}

LENGTH = "original_max_position_embeddings"


def rope_from_config(config: Fields, *, theta: float = 10_000.0, may_be_partial: bool = False) -> Rope:
    """The rope of a config whose layers all share one; `theta` stands in when the file has none."""
    return rope_from_parameters(
        shared_parameters(config), config, theta=config.number("rope_theta", theta), may_be_partial=may_be_partial
    )


def shared_parameters(config: Fields) -> Fields:
    """The rope's parameters: `rope_parameters`, or the older `rope_scaling`; ModelFileError if both differ."""
    if not config.has("rope_parameters"):
        return config.section("rope_scaling")
    parameters = config.section("rope_parameters")
    refuse_other_scaling(config, parameters)
    scaling = config.section("rope_scaling")
    if scaling.values:  # transformers reads it in place of all of rope_parameters
        read = {"rope_type": "default", "rope_theta": config.values.get("rope_theta"), **_stated(scaling)}
        for key, value in _stated(parameters).items():
            if read.get(key) != value:
                raise _two_ropes(config, key, read.get(key))
    return parameters


def refuse_other_scaling(config: Fields, parameters: Fields) -> None:
    """Raise ModelFileError if `rope_scaling` states what these parameters of `rope_parameters` do not."""
    kept = {"rope_type": "default", **_stated(parameters)}
    for key, value in _stated(config.section("rope_scaling")).items():
        if kept.get(key) != value:
            raise _two_ropes(config, key, value)


def _two_ropes(config: Fields, key: str, value: Any) -> ModelFileError:
    scaling = config.section("rope_scaling")
    if key == "rope_type" and scaling.has("type") and not scaling.has("rope_type"):
        key = "type"  # as the file spells it
    return config.error(
        "rope_scaling",
        {key: value},
        "all that rope_parameters states, and no more (put all of the rope's settings there, with its rope_theta, and "
        "remove rope_scaling)",
    )


def _stated(parameters: Fields) -> dict[str, Any]:
    """The settings of a rope that are not null, with its kind under its new name."""
    found = {"rope_type": parameters.values.get("type"), **parameters.values}
    return {key: value for key, value in found.items() if key != "type" and value is not None}


def rotated_values(config: Fields, head_dim: int, share: float = 1.0) -> int:
    """Values of a head that are rotated, where a config may give a share of them; `share` stands in when it does not."""
    share = shared_parameters(config).number("partial_rotary_factor", config.number("partial_rotary_factor", share))
    if not 0 < share <= 1:
        raise config.error("partial_rotary_factor", share, "above 0, and 1 at most")
    return int(head_dim * share)


def longest_text(config: Fields, rope: Rope, default: int) -> int:
    """The context of a model with this rope; dynamic scaling stretches what the config states."""
    stated = config.integer("max_position_embeddings", default)
    return round(min(stated * rope.factor, 2**31 - 1)) if rope.kind == "dynamic" else stated


def config_length(a: Architecture) -> dict[str, int]:
    """The fields that `longest_text` reads back as this context, where the config would not state it anyway."""
    rope = a.ropes[0]
    return {"max_position_embeddings": rope.original_max_position} if rope.kind == "dynamic" else {}


def rope_from_parameters(parameters: Fields, config: Fields, *, theta: float, may_be_partial: bool = False) -> Rope:
    """The rope in one set of parameters; `config` supplies the lengths that it leaves out."""
    for name, value in parameters.values.items():
        if isinstance(value, dict):
            raise parameters.error(name, value, "one set of parameters for all layers in this family")
    share = parameters.number("partial_rotary_factor", config.number("partial_rotary_factor", 1.0))
    if share != 1.0 and not may_be_partial:
        raise parameters.error("partial_rotary_factor", share, "1 (all of each head is turned)")
    renamed: dict[str, RopeKind] = {"su": "longrope"}  # Phi-3's old names
    if parameters.has("long_factor"):
        renamed["yarn"] = "longrope"
    kind = parameters.choice("rope_type", KINDS | renamed, parameters.text("type", "default"))
    theta = parameters.number("rope_theta", theta)
    if kind == "default":
        return Rope(theta)
    longest = config.integer("max_position_embeddings", 0)
    trained = parameters.integer(LENGTH, config.integer(LENGTH, longest))
    if config.integer(LENGTH, trained) != trained:
        raise config.error(LENGTH, config.values[LENGTH], f"{trained}, as in {parameters.where.rsplit(' ', 1)[-1]}")
    if kind in ("linear", "ntk"):
        return Rope(theta, kind, factor=parameters.number("factor"))
    if kind == "dynamic":
        return Rope(theta, kind, parameters.number("factor"), longest)
    if kind == "longrope":
        return _longrope(parameters, theta, trained, longest)
    if kind == "llama3":
        low, high = parameters.number("low_freq_factor"), parameters.number("high_freq_factor")
        return Rope(theta, kind, parameters.number("factor"), trained, low_freq_factor=low, high_freq_factor=high)
    factor = parameters.number("factor", longest / max(trained, 1))
    return Rope(
        theta,
        kind,
        factor,
        trained,
        beta_fast=parameters.number("beta_fast", 32.0) or 32.0,
        beta_slow=parameters.number("beta_slow", 1.0) or 1.0,
        attention_factor=parameters.number("attention_factor", _yarn_attention_factor(parameters, factor)),
        truncate=parameters.flag("truncate", "truncate" not in parameters.values),  # null is false, for transformers
    )


def _longrope(parameters: Fields, theta: float, trained: int, longest: int) -> Rope:
    """LongRoPE (Ding et al., 2024): divisors for texts within and beyond the trained length."""
    factor = parameters.number("factor", longest / max(trained, 1))
    stretched = math.sqrt(1 + math.log(factor) / math.log(trained)) if factor > 1 and trained > 1 else 1.0
    return Rope(
        theta,
        "longrope",
        factor,
        trained,
        attention_factor=parameters.number("attention_factor", stretched),
        divisors=tuple(parameters.numbers("long_factor") or ()),
        short_divisors=tuple(parameters.numbers("short_factor") or ()),
    )


def rope_to_parameters(rope: Rope) -> dict[str, Any]:
    """The `rope_parameters` that transformers 5 reads back as this rope."""
    if rope.kind == "divided":
        raise ConfigError("this rope divides each frequency by a number of its own, which config.json cannot express")
    if rope.kind in ("ntk", "none"):
        raise ConfigError(f"this rope is {rope.kind!r}, which config.json cannot express")
    parameters: dict[str, Any] = {"rope_theta": rope.theta, "rope_type": rope.kind}
    if rope.kind != "default":
        parameters["factor"] = rope.factor
    if rope.kind == "llama3":
        parameters["low_freq_factor"] = rope.low_freq_factor
        parameters["high_freq_factor"] = rope.high_freq_factor
    if rope.kind == "yarn":
        parameters["beta_fast"], parameters["beta_slow"] = rope.beta_fast, rope.beta_slow
        parameters["attention_factor"], parameters["truncate"] = rope.attention_factor, rope.truncate
    if rope.kind == "longrope":
        parameters["short_factor"], parameters["long_factor"] = list(rope.short_divisors), list(rope.divisors)
        parameters["attention_factor"] = rope.attention_factor
    if rope.kind in ("llama3", "yarn", "longrope"):
        parameters["original_max_position_embeddings"] = rope.original_max_position
    return parameters


def rope_from_gguf(file: GGUF, fields: Fields, head_dim: int, *, may_be_partial: bool = False) -> Rope:
    """The rope of a GGUF file; llama3 is recognised by the divisors that the file has instead."""
    turned = fields.integer("rope.dimension_count", head_dim)
    if turned != head_dim and not may_be_partial:
        raise fields.error("rope.dimension_count", turned, f"{head_dim} (all of each head is turned)")
    head_dim = turned
    theta = fields.number("rope.freq_base", 10_000.0)
    if "rope_freqs.weight" in file.tensors:
        if file.shape("rope_freqs.weight") != (head_dim // 2,):  # asked before reading: the file chose its size
            raise ModelFileError(f"{file.path}: rope_freqs.weight needs {head_dim // 2} values, one for each pair")
        return _from_divisors(tuple(file.dequantise("rope_freqs.weight").tolist()), theta, head_dim)
    factor = fields.number("rope.scaling.factor", fields.number("rope.scale_linear", 0.0))
    kinds: dict[str, RopeKind] = {"none": "default", "linear": "linear", "yarn": "yarn"}
    kind = fields.choice("rope.scaling.type", kinds, "linear" if factor else "none")
    if kind == "default" or factor == 0:
        return Rope(theta)
    if kind == "linear":
        return Rope(theta, kind, factor)
    attention_factor = fields.number("rope.scaling.attn_factor", 1.0) * mscale(factor)
    return Rope(
        theta,
        kind,
        factor,
        fields.integer("rope.scaling.original_context_length", fields.integer("context_length")),
        beta_fast=fields.number("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=fields.number("rope.scaling.yarn_beta_slow", 1.0),
        attention_factor=attention_factor,
    )


def rope_to_gguf(rope: Rope) -> dict[str, Any]:
    """The metadata that `rope_from_gguf` reads back as this rope; `rope_divisors` go to a tensor."""
    found: dict[str, Any] = {"rope.freq_base": float(rope.theta)}
    if rope.kind in ("linear", "yarn"):
        found |= {"rope.scaling.type": rope.kind, "rope.scaling.factor": float(rope.factor)}
    if rope.kind == "yarn":
        found |= {
            "rope.scaling.original_context_length": rope.original_max_position,
            "rope.scaling.attn_factor": rope.attention_factor / mscale(rope.factor),
            "rope.scaling.yarn_beta_fast": float(rope.beta_fast),
            "rope.scaling.yarn_beta_slow": float(rope.beta_slow),
        }
    return found


def rope_divisors(rope: Rope, head_dim: int) -> tuple[float, ...] | None:
    """The tensor `rope_freqs.weight` of a GGUF file with this rope; None if it needs none."""
    if rope.kind == "llama3":
        return tuple(llama3_divisors(rope, head_dim))
    return rope.divisors if rope.kind == "divided" else None


def rope_tensors(rope: Rope, rotated: int) -> dict[str, tuple[float, ...]]:
    """The tensors that a GGUF file has for this rope."""
    if rope.kind == "longrope":
        return {"rope_factors_long.weight": rope.divisors, "rope_factors_short.weight": rope.short_divisors}
    divisors = rope_divisors(rope, rotated)
    return {} if divisors is None else {"rope_freqs.weight": divisors}


def shared_gguf(a: Architecture) -> dict[str, Any]:
    """The metadata that all families have."""
    return {
        "vocab_size": a.vocab_size,
        "context_length": a.max_position,
        "embedding_length": a.hidden_size,
        "feed_forward_length": a.intermediate_size,
        "block_count": a.num_layers,
        "attention.head_count": a.num_heads,
        "attention.head_count_kv": a.num_kv_heads,
        "attention.key_length": a.head_dim,
        "attention.value_length": a.head_dim,
        "attention.layer_norm_rms_epsilon": a.norm_eps,
        "rope.dimension_count": a.head_dim,
    }


def _yarn_attention_factor(parameters: Fields, factor: float) -> float:
    """The default factor of cosines and sines (Peng et al., 2023; DeepSeek's mscale)."""
    of_pairs, of_all = parameters.number("mscale", 0.0), parameters.number("mscale_all_dim", 0.0)
    return mscale(factor, of_pairs) / mscale(factor, of_all) if of_pairs > 0 and of_all > 0 else mscale(factor)


def mscale(factor: float, weight: float = 1.0) -> float:
    """YaRN's growth of attention with the factor, and DeepSeek's with a weight."""
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _from_divisors(divisors: tuple[float, ...], theta: float, head_dim: int) -> Rope:
    """Llama 3.1's rope if these are its divisors, else one that divides by them."""
    released = Rope(theta, "llama3", max(divisors), 8192, low_freq_factor=1.0, high_freq_factor=4.0)
    expected = llama3_divisors(released, head_dim)
    if all(math.isclose(one, other, rel_tol=1e-5) for one, other in zip(divisors, expected, strict=True)):
        return released
    return Rope(theta, "divided", divisors=divisors)


def llama3_divisors(rope: Rope, head_dim: int) -> list[float]:
    """The divisor of each pair's frequency under the llama3 formula; `blocks/rope.py` computes the frequencies."""
    divisors = []
    for pair in range(head_dim // 2):
        turns = rope.original_max_position * rope.theta ** (-2 * pair / head_dim) / (2 * math.pi)
        kept = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
        kept = min(max(kept, 0.0), 1.0)
        divisors.append(1 / ((1 - kept) / rope.factor + kept))
    return divisors
