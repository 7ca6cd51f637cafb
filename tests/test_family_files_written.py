"""What each family writes of an architecture, whole: config.json and GGUF metadata."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.nn.architecture import Architecture, ExpertSettings, LatentSettings, Rope
from firsthand.nn.families import (
    bloom,
    deepseek,
    gemma,
    gemma2,
    gpt2,
    llama,
    mixtral,
    olmo2,
    phi3,
    qwen,
    qwen_moe,
    smollm3,
    stablelm,
    starcoder2,
)
from firsthand.nn.families.rope_config import rope_to_gguf, rope_to_parameters
from firsthand.nn.families.shared_fields import sizes_to_gguf

A = Architecture(
    "llama", 70, 48, 90, 3, 6, num_kv_heads=2, head_dim=12, max_position=300, norm_eps=0.01, windows=(7, None, 9),
    ropes=(Rope(500.0), Rope(600.0), Rope(700.0)), tie_embeddings=True,
)  # fmt: skip
SHARED = {
    "vocab_size": 70, "context_length": 300, "embedding_length": 48, "feed_forward_length": 90, "block_count": 3,
    "attention.head_count": 6, "attention.head_count_kv": 2, "attention.key_length": 12, "attention.value_length": 12,
    "attention.layer_norm_rms_epsilon": 0.01, "rope.dimension_count": 12,
}  # fmt: skip
LAYER_NORM: dict[str, Any] = {
    **{
        key: value
        for key, value in SHARED.items()
        if key not in ("attention.layer_norm_rms_epsilon", "rope.dimension_count")
    },
    "attention.layer_norm_epsilon": 0.01,
}
HEADS = {"num_key_value_heads": 2, "head_dim": 12}
ROPE = {"rope_theta": 500.0, "rope_type": "default"}
KINDS = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
EXPERTS = ExpertSettings(6, 2, 20, (False, True, True), shared_width=60)


def test_llama_s_kin_write_their_heads_biases_and_windows() -> None:
    a = replace(A, qkv_bias=True, o_bias=True, activation="gelu_tanh")
    told = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", **HEADS, "rope_parameters": ROPE,
        "attention_bias": True, "mlp_bias": False, "hidden_act": "gelu_pytorch_tanh",
    }  # fmt: skip
    assert llama.to_config(a) == told
    mistral = llama.to_config(replace(a, family="mistral", qkv_bias=False, mlp_bias=True, activation="gelu"))
    assert mistral == told | {
        "architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 9, "attention_bias": False,
        "mlp_bias": True, "hidden_act": "gelu", **KINDS,
    }  # fmt: skip
    for window in (7, None):
        same = llama.to_config(replace(a, family="mistral", windows=(window,) * 3))
        assert same["sliding_window"] == window and "layer_types" not in same
    stretched = Rope(500.0, "dynamic", 2.5, 120)
    assert llama.to_config(replace(a, ropes=(stretched,) * 3)) == told | {
        "max_position_embeddings": 120,
        "rope_parameters": {"rope_theta": 500.0, "rope_type": "dynamic", "factor": 2.5},
    }
    metadata = {"general.architecture": "llama", **SHARED, "rope.freq_base": 500.0}
    assert llama.to_gguf(A) == metadata | {"attention.sliding_window": 7}
    assert llama.to_gguf(replace(A, windows=(None, 7, 7))) == metadata
    mixed = replace(A, family="mixtral", experts=EXPERTS)
    assert mixtral.to_config(mixed) == told | {
        "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": 6,
        "num_experts_per_tok": 2, "sliding_window": 7, "attention_bias": False, "hidden_act": "silu",
    }  # fmt: skip
    assert mixtral.to_gguf(mixed) == metadata | {
        "attention.sliding_window": 7,
        "expert_count": 6,
        "expert_used_count": 2,
    }
    nowhere = replace(a, family="smollm3", ropes=(Rope(kind="none"), Rope(600.0), Rope(kind="none")))
    assert smollm3.to_config(nowhere) == told | {
        "architectures": ["SmolLM3ForCausalLM"], "model_type": "smollm3", "no_rope_layers": [0, 1, 0],
        "rope_parameters": {"rope_theta": 600.0, "rope_type": "default"},
    }  # fmt: skip
    assert smollm3.to_gguf(nowhere) == metadata | {"general.architecture": "smollm3", "rope.freq_base": 600.0}
    assert smollm3.to_gguf(replace(nowhere, ropes=(Rope(kind="none"),) * 3))["rope.freq_base"] == 2e6
    assert olmo2.to_config(a) == {
        "architectures": ["Olmo2ForCausalLM"], "model_type": "olmo2", **HEADS, "rope_parameters": ROPE,
        "attention_bias": True, "hidden_act": "gelu_pytorch_tanh",
    }  # fmt: skip
    assert olmo2.to_gguf(A) == metadata | {"general.architecture": "olmo2"}


def test_qwen_writes_the_type_of_each_layer_and_its_experts() -> None:
    a = replace(A, family="qwen2", windows=(None, 7, 9), qkv_bias=True)
    told = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", **HEADS, "rope_parameters": ROPE,
        "hidden_act": "silu", "use_sliding_window": True, "sliding_window": 7,
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
    }  # fmt: skip
    assert qwen.to_config(a) == told
    third = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "attention_bias": True}
    assert qwen.to_config(replace(a, family="qwen3")) == told | third
    whole = {"use_sliding_window": False, "sliding_window": None, "layer_types": ["full_attention"] * 3}
    a = replace(a, windows=(None,) * 3, ropes=(Rope(500.0, "dynamic", 2.0, 150),) * 3)
    rope = {"rope_theta": 500.0, "rope_type": "dynamic", "factor": 2.0}
    assert qwen.to_config(a) == told | whole | {"rope_parameters": rope, "max_position_embeddings": 150}
    assert qwen.to_gguf(A) == {"general.architecture": "llama", **SHARED, "rope.freq_base": 500.0}
    second = replace(A, family="qwen2_moe", experts=EXPERTS, windows=(None,) * 3)
    own = {
        "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 20, "mlp_only_layers": [0],
        "decoder_sparse_step": 1, "norm_topk_prob": True,
    }  # fmt: skip
    assert qwen_moe.to_config(second) == told | whole | own | {
        "architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe", "qkv_bias": False,
        "shared_expert_intermediate_size": 60,
    }  # fmt: skip
    third = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "attention_bias": True}
    assert qwen_moe.to_config(replace(second, family="qwen3_moe", qkv_bias=True)) == told | whole | own | third
    assert qwen_moe.to_gguf(second) == {
        "general.architecture": "qwen2moe", **SHARED, "rope.freq_base": 500.0, "expert_count": 6, "expert_used_count": 2,
        "expert_feed_forward_length": 20, "leading_dense_block_count": 1, "expert_shared_feed_forward_length": 60,
    }  # fmt: skip


def test_gemma_writes_both_ropes_and_the_first_window() -> None:
    a = replace(A, family="gemma3", activation="gelu_tanh", attention_scale=1 / 5, logit_softcap=11.0, qkv_bias=True)
    a = replace(a, windows=(7, 7, None), ropes=(Rope(600.0), Rope(600.0), Rope(700.0)))
    near, far = ({"rope_theta": theta, "rope_type": "default"} for theta in (600.0, 700.0))
    told = {
        "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", **HEADS, "attention_bias": True,
        "rope_parameters": {"full_attention": far, "sliding_attention": near}, "query_pre_attn_scalar": 25,
        "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 7, "final_logit_softcapping": 11.0,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    }  # fmt: skip
    assert gemma.to_config(a) == told
    metadata = {
        "general.architecture": "gemma3", **SHARED, "rope.freq_base": 700.0, "rope.freq_base_swa": 600.0,
        "attention.sliding_window": 7, "attention.sliding_window_pattern": 3, "final_logit_softcapping": 11.0,
    }  # fmt: skip
    assert gemma.to_gguf(a) == metadata
    only = replace(a, windows=(7,) * 3, ropes=(Rope(600.0),) * 3)
    assert gemma.to_config(only)["rope_parameters"]["full_attention"]["rope_theta"] == 1e6
    assert gemma.to_gguf(only) == metadata | {"rope.freq_base": 1e6, "attention.sliding_window_pattern": 0}
    none = replace(a, windows=(None,) * 3, ropes=(Rope(700.0),) * 3, logit_softcap=None)
    assert gemma.to_config(none) == told | {
        "rope_parameters": {"full_attention": far, "sliding_attention": {"rope_theta": 10_000.0, "rope_type": "default"}},
        "sliding_window": 4096, "layer_types": ["full_attention"] * 3, "final_logit_softcapping": None,
    }  # fmt: skip
    gone = ("rope.freq_base_swa", "attention.sliding_window", "final_logit_softcapping")
    assert gemma.to_gguf(none) == {key: value for key, value in metadata.items() if key not in gone} | {
        "attention.sliding_window_pattern": 1
    }


def test_gemma_2_writes_its_caps_and_gemma_1_none() -> None:
    a = replace(
        A, family="gemma2", windows=(None, 9, 7), attention_softcap=5.0, logit_softcap=11.0, attention_scale=1 / 7
    )
    first = {
        "architectures": ["GemmaForCausalLM"], "model_type": "gemma", **HEADS, "rope_parameters": ROPE,
        "attention_bias": True, "hidden_act": "gelu", "hidden_activation": "gelu",
    }  # fmt: skip
    a = replace(a, qkv_bias=True, activation="gelu")
    assert gemma2.to_config(replace(a, family="gemma")) == first
    assert gemma2.to_config(a) == first | {
        "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "query_pre_attn_scalar": 49, "sliding_window": 9,
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention"], "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 11.0,
    }  # fmt: skip
    open_ = replace(a, windows=(None,) * 3, attention_softcap=None)
    assert gemma2.to_config(open_)["sliding_window"] == 4096
    metadata = {"general.architecture": "gemma2", **SHARED, "rope.freq_base": 500.0}
    caps = {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 11.0}
    assert gemma2.to_gguf(a) == metadata | caps | {"attention.sliding_window": 9}
    assert gemma2.to_gguf(open_) == metadata | caps | {"attn_logit_softcapping": 0.0}
    assert gemma2.to_gguf(replace(open_, logit_softcap=None))["final_logit_softcapping"] == 0.0
    assert gemma2.to_gguf(replace(a, family="gemma")) == metadata | {
        "general.architecture": "gemma",
        "attention.sliding_window": 9,
    }


def test_families_with_layer_norm_write_its_epsilon_and_a_width_of_their_own_only_if_they_have_one() -> None:
    layer = replace(A, norm="layer", rotary_dim=4, qkv_bias=True)
    rope = {**ROPE, "partial_rotary_factor": 1 / 3}
    assert stablelm.to_config(layer) == {
        "architectures": ["StableLmForCausalLM"], "model_type": "stablelm", **HEADS, "layer_norm_eps": 0.01,
        "rope_parameters": rope, "use_qkv_bias": True, "hidden_act": "silu",
    }  # fmt: skip
    turned = {"rope.freq_base": 500.0, "rope.dimension_count": 4}
    assert stablelm.to_gguf(layer) == {
        "general.architecture": "stablelm",
        "use_parallel_residual": False,
        **LAYER_NORM,
        **turned,
    }
    assert starcoder2.to_config(replace(layer, mlp_bias=True, qkv_bias=False)) == {
        "architectures": ["Starcoder2ForCausalLM"], "model_type": "starcoder2", **HEADS, "norm_epsilon": 0.01,
        "rope_parameters": ROPE, "sliding_window": 7, "use_bias": True, "hidden_act": "silu",
    }  # fmt: skip
    assert starcoder2.to_gguf(layer) == {
        "general.architecture": "starcoder2",
        **LAYER_NORM,
        "rope.freq_base": 500.0,
        "rope.dimension_count": 12,
    }
    even = replace(layer, head_dim=8)
    widths = ("attention.key_length", "attention.value_length")
    assert sizes_to_gguf(even) == {key: value for key, value in LAYER_NORM.items() if key not in widths}
    bare = sizes_to_gguf(replace(A, norm="layer_no_bias"))
    assert bare == LAYER_NORM
    assert sizes_to_gguf(A) == {key: value for key, value in SHARED.items() if key != "rope.dimension_count"}
    assert gpt2.to_gguf(layer) == {"general.architecture": "gpt2", **LAYER_NORM}
    assert bloom.to_gguf(layer) == {"general.architecture": "bloom", **LAYER_NORM}
    told = {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 48, "n_layer": 3, "n_head": 6,
        "n_positions": 300, "n_inner": 90, "layer_norm_epsilon": 0.01, "activation_function": "silu",
    }  # fmt: skip
    assert gpt2.to_config(layer) == told
    assert gpt2.to_config(replace(layer, activation="gelu_tanh")) == told | {"activation_function": "gelu_new"}


def test_phi3_writes_a_long_rope_and_the_share_that_is_turned() -> None:
    long = Rope(500.0, "longrope", 2.5, 120, attention_factor=1.5, divisors=(2.0, 3.5), short_divisors=(1.0, 1.25))
    a = replace(A, rotary_dim=4, ropes=(long,) * 3)
    rope = {
        "rope_theta": 500.0, "rope_type": "longrope", "factor": 2.5, "short_factor": [1.0, 1.25],
        "long_factor": [2.0, 3.5], "attention_factor": 1.5, "original_max_position_embeddings": 120,
        "partial_rotary_factor": 1 / 3,
    }  # fmt: skip
    told = {
        "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", **HEADS, "rope_parameters": rope,
        "original_max_position_embeddings": 120, "hidden_act": "silu", "sliding_window": 7,
    }  # fmt: skip
    assert phi3.to_config(a) == told
    plain = replace(A, windows=(None, 7, 7))
    assert phi3.to_config(plain) == told | {
        "rope_parameters": {**ROPE, "partial_rotary_factor": 1.0}, "original_max_position_embeddings": 300,
        "sliding_window": None,
    }  # fmt: skip
    sizes = sizes_to_gguf(A)
    assert phi3.to_gguf(plain) == {
        "general.architecture": "phi3",
        **sizes,
        "rope.freq_base": 500.0,
        "rope.dimension_count": 12,
    }
    assert phi3.to_gguf(a) == {
        "general.architecture": "phi3", **sizes, "rope.freq_base": 500.0, "rope.dimension_count": 4,
        "rope.scaling.original_context_length": 120, "rope.scaling.attn_factor": 1.5, "attention.sliding_window": 7,
    }  # fmt: skip


def test_yarn_is_written_with_the_growth_of_attention_that_each_kind_of_file_takes_for_granted() -> None:
    yarn = Rope(500.0, "yarn", 4.0, 75, beta_fast=9.0, beta_slow=2.0, attention_factor=1.3, truncate=False)
    assert rope_to_parameters(yarn) == {
        "rope_theta": 500.0, "rope_type": "yarn", "factor": 4.0, "beta_fast": 9.0, "beta_slow": 2.0,
        "attention_factor": 1.3, "truncate": False, "original_max_position_embeddings": 75,
    }  # fmt: skip
    grown = 0.1 * math.log(4) + 1
    assert rope_to_gguf(yarn) == {
        "rope.freq_base": 500.0, "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0,
        "rope.scaling.original_context_length": 75, "rope.scaling.attn_factor": 1.3 / grown,
        "rope.scaling.yarn_beta_fast": 9.0, "rope.scaling.yarn_beta_slow": 2.0,
    }  # fmt: skip
    assert rope_to_gguf(Rope(500.0, "linear", 2.0)) == {
        "rope.freq_base": 500.0,
        "rope.scaling.type": "linear",
        "rope.scaling.factor": 2.0,
    }
    assert rope_to_parameters(Rope(500.0, "linear", 2.0)) == {"rope_theta": 500.0, "rope_type": "linear", "factor": 2.0}
    llama3 = Rope(500.0, "llama3", 8.0, 120, low_freq_factor=2.0, high_freq_factor=5.0)
    assert rope_to_gguf(llama3) == {"rope.freq_base": 500.0}
    assert rope_to_parameters(llama3) == {
        "rope_theta": 500.0, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 2.0, "high_freq_factor": 5.0,
        "original_max_position_embeddings": 120,
    }  # fmt: skip
    for kind in ("ntk", "none"):
        with pytest.raises(ConfigError, match=f"^this rope is '{kind}', which config.json cannot express$"):
            rope_to_parameters(Rope(kind=kind))  # type: ignore[arg-type]
    few = replace(A, norm_eps=1e-6)  # the one eps that latents have in a folder
    latent = LatentSettings(24, 12, 4, 10, 40)
    a = replace(
        few, family="deepseek_v2", num_kv_heads=1, head_dim=28, rotary_dim=4, latent=latent, ropes=(yarn,) * 3,
        attention_scale=0.25 * 1.21, experts=EXPERTS,
    )  # fmt: skip
    sizes = sizes_to_gguf(few) | {
        "attention.head_count_kv": 1,
        "attention.key_length": 28,
        "attention.value_length": 24,
    }
    metadata = {
        "general.architecture": "deepseek2", **sizes, **rope_to_gguf(yarn), "rope.dimension_count": 4,
        "rope.scaling.yarn_log_multiplier": pytest.approx(0.1 / math.log(4)), "attention.key_length_mla": 16,
        "attention.value_length_mla": 10, "attention.kv_lora_rank": 24, "attention.q_lora_rank": 40, "expert_count": 6,
        "expert_used_count": 2, "expert_feed_forward_length": 20, "leading_dense_block_count": 1,
        "expert_shared_count": 3, "expert_weights_scale": 1.0, "expert_weights_norm": True, "expert_gating_func": 1,
        "expert_group_count": 1, "expert_group_used_count": 1,
    }  # fmt: skip
    del metadata["rope.scaling.attn_factor"]
    assert deepseek.to_gguf(a) == metadata
    told = deepseek.to_config(a)
    assert told["rope_parameters"] == rope_to_parameters(yarn) | {
        "mscale_all_dim": pytest.approx(0.1 / (0.1 * math.log(4)))
    }
    assert (told["first_k_dense_replace"], told["n_shared_experts"], told["topk_method"]) == (1, 3, "greedy")
    third = replace(a, family="deepseek_v3", ropes=(Rope(500.0),) * 3, attention_scale=0.25)
    assert deepseek.to_config(third) == {
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "num_key_value_heads": 6, "head_dim": 4,
        "kv_lora_rank": 24, "q_lora_rank": 40, "qk_nope_head_dim": 12, "qk_rope_head_dim": 4, "v_head_dim": 10,
        "first_k_dense_replace": 1, "rope_parameters": ROPE, "hidden_act": "silu", "num_nextn_predict_layers": 0,
        "moe_intermediate_size": 20, "n_routed_experts": 6, "num_experts_per_tok": 2, "norm_topk_prob": True,
        "routed_scaling_factor": 1.0, "n_group": 1, "topk_group": 1, "n_shared_experts": 3, "topk_method": "greedy",
    }  # fmt: skip
    linear = Rope(500.0, "linear", 4.0)
    for rope, stretch in ((linear, {"mscale_all_dim": pytest.approx(0)}), (replace(yarn, factor=1.0), {})):
        plain = replace(third, ropes=(rope,) * 3)  # neither stretches the scores
        assert deepseek.to_config(plain)["rope_parameters"] == rope_to_parameters(rope) | stretch
        assert "rope.scaling.yarn_log_multiplier" not in deepseek.to_gguf(plain)
    assert deepseek.to_gguf(replace(third, latent=replace(latent, query_rank=0))).get("attention.q_lora_rank") is None
