"""Metadata of a GGUF file that llama.cpp computes with is followed in every family, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ModelFileError
from firsthand.formats.gguf_file import GGUF
from firsthand.formats.model_files import TensorInfo
from firsthand.nn.architecture import Architecture
from firsthand.nn.families.gguf_keys import GATES
from firsthand.nn.model_config import families, gguf_architecture

KINDS = [kind for family in families() for kind in family.GGUF_ARCHITECTURES]
SIZES: dict[str, Any] = {
    "block_count": 6, "embedding_length": 48, "feed_forward_length": 90, "attention.head_count": 6,
    "attention.head_count_kv": 3, "context_length": 300, "attention.layer_norm_rms_epsilon": 0.01,
    "attention.layer_norm_epsilon": 0.02, "rope.freq_base": 500.0,
}  # fmt: skip
EXPERTS = {"expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": 20}
LATENT = {
    "rope.dimension_count": 4, "attention.kv_lora_rank": 24, "attention.key_length_mla": 16,
    "attention.value_length_mla": 10,
}  # fmt: skip
MORE = {"qwen2moe": EXPERTS, "qwen3moe": EXPERTS, "gpt-oss": EXPERTS, "deepseek2": EXPERTS | LATENT}
MORE["stablelm"] = {"use_parallel_residual": False}
CHANGED: dict[str, Any] = {
    "attention.scale": 0.3, "attention.output_scale": 0.5, "attention.clamp_kqv": 4.0, "attention.max_alibi_bias": 4.0,
    "attention.temperature_scale": 0.1, "attention.sliding_window": 7, "embedding_scale": 3.0, "residual_scale": 0.5,
    "logit_scale": 0.5, "attn_logit_softcapping": 20.0, "final_logit_softcapping": 20.0, "router_logit_softcapping": 9.0,
    "rope.freq_base_swa": 99.0, "rope.scaling.factor": 4.0, "rope.scale_linear": 4.0, "rope.scaling.alpha": 3.0,
    "rope.scaling.attn_factor": 1.5, "rope.scaling.yarn_log_multiplier": 0.1, "rope.scaling.yarn_ext_factor": 0.5,
    "rope.scaling.yarn_attn_factor": 0.5, "leading_dense_block_count": 1, "expert_weights_scale": 2.5,
    "expert_group_count": 2, "interleave_moe_layer_step": 2, "nextn_predict_layers": 1, "use_parallel_residual": True,
    "moe_every_n_layers": 2, "attention.shared_kv_layers": 2, "swiglu_clamp_exp": 7.0, "swiglu_clamp_shexp": [7.0] * 6,
    "rope.dimension_count_swa": 2, "attention.key_length_swa": 12,
}  # fmt: skip
UNCHANGED: dict[str, Any] = {
    "attention.scale": 0.0, "attention.clamp_kqv": 0.0, "embedding_scale": 1.0, "residual_scale": 1.0,
    "logit_scale": 1.0, "rope.scaling.factor": 1.0, "rope.scaling.attn_factor": 1.0, "rope.scaling.finetuned": False,
    "rope.scaling.type": "none", "rope.scaling.yarn_ext_factor": -1.0, "expert_weights_scale": 1.0, "vocab_size": 70,
    "leading_dense_block_count": 0, "expert_gating_func": 0, "attention.sliding_window": 300, "pooling_type": 1,
    "rope.freq_base_swa": 500.0, "nextn_predict_layers": 0, "tensor_data_layout": "Meta AI original pth",
}  # fmt: skip


WITHOUT_ROPE = ("gpt2", "bloom", "mpt")


def read(kind: str, **more: Any) -> Architecture:
    shapes = {"token_embd.weight": (70, 48), "position_embd.weight": (310, 48)}
    infos = {name: TensorInfo(name, shape, "F32", 0, 4) for name, shape in shapes.items()}
    pairs = {f"{kind}.{key}": value for key, value in (SIZES | MORE.get(kind, {}) | more).items()}
    return gguf_architecture(GGUF(Path("a.gguf"), {"general.architecture": kind, **pairs}, infos))[1]


def changes(kind: str, key: str, value: Any, **more: Any) -> bool:
    """True if a key makes another model, or is refused by name."""
    plain = read(kind, **more)
    try:
        return read(kind, **more, **{key: value}) != plain
    except ModelFileError as error:
        assert f"{kind}.{key} is" in str(error)
        return True


@pytest.mark.parametrize("kind", KINDS)
def test_each_key_that_changes_a_model_is_followed_or_refused_by_name(kind: str) -> None:
    unchanged = [key for key, value in CHANGED.items() if not changes(kind, key, value)]
    assert unchanged == (
        ["rope.scaling.yarn_log_multiplier"] if kind == "deepseek2" else []
    )  # of a rope that is stretched


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_without_effect_is_taken(kind: str) -> None:
    for key, value in UNCHANGED.items():
        if key != "rope.freq_base_swa" or kind not in WITHOUT_ROPE:
            assert read(kind, **{key: value}).num_layers == 6, key


@pytest.mark.parametrize("kind", ["llama", "qwen2moe", "qwen3moe", "gpt-oss", "deepseek2"])
def test_the_gate_and_the_norm_of_experts_are_those_that_the_file_states(kind: str) -> None:
    e = read(kind, **EXPERTS).experts
    assert e is not None
    own = GATES[e.score]
    assert not changes(kind, "expert_weights_norm", e.renormalise, **EXPERTS)
    assert changes(kind, "expert_weights_norm", not e.renormalise, **EXPERTS)
    assert [gate for gate in range(5) if changes(kind, "expert_gating_func", gate, **EXPERTS)] == [
        gate for gate in range(1, 5) if gate != own
    ]


@pytest.mark.parametrize("kind", ["gemma2", "gpt-oss"])
def test_a_pattern_of_windows_is_that_of_the_layers(kind: str) -> None:
    window = {"attention.sliding_window": 7}
    same = [each for each in (0, 1, 2, 3, 6) if not changes(kind, "attention.sliding_window_pattern", each, **window)]
    assert same == [2]
    assert not changes(kind, "attention.sliding_window_pattern", [True, False] * 3, **window)
    for other in ([False, True] * 3, [True, False] * 2, 2.5):
        assert changes(kind, "attention.sliding_window_pattern", other, **window)


def test_a_window_of_other_families_is_refused_unless_it_is_as_long_as_the_context() -> None:
    assert not changes("olmo2", "attention.sliding_window", 300)
    assert changes("olmo2", "attention.sliding_window", 299)


def test_scaling_beside_another_kind_of_rope_is_refused() -> None:
    linear: dict[str, Any] = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
    assert changes("llama", "rope.scaling.attn_factor", 1.5, **linear)
    yarn = linear | {"rope.scaling.type": "yarn", "rope.scaling.original_context_length": 75}
    assert changes("deepseek2", "rope.scaling.yarn_log_multiplier", 0.1, **yarn)
    with pytest.raises(ModelFileError, match=r"deepseek2\.rope\.scaling\.attn_factor is '1\.5'"):
        read("deepseek2", **yarn, **{"rope.scaling.attn_factor": 1.5})
    assert read("deepseek2", **yarn, **{"rope.scaling.attn_factor": 1.0}) == read("deepseek2", **yarn)
