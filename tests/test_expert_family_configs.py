"""Configs of families with experts, ALiBi or an encoder: the defaults, the keys that count, and what is written back."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ModelFileError
from firsthand.nn.architecture import Architecture, ExpertSettings, LatentSettings, Rope
from firsthand.nn.encoder_decoder_architecture import EncoderDecoderArchitecture
from firsthand.nn.families import bart, bloom, deepseek, gpt_oss, mpt, qwen_moe, t5
from firsthand.nn.model_config import config_architecture, encoder_decoder_architecture, to_config

FILE = Path("models/config.json")
LEAST = {"vocab_size": 70, "hidden_size": 64, "intermediate_size": 90, "num_hidden_layers": 5, "num_attention_heads": 8}
PLAIN = Architecture(
    "llama", 70, 64, 90, 5, 8, num_kv_heads=8, head_dim=8, max_position=2048, norm_eps=1e-6, windows=(None,) * 5,
    ropes=(Rope(),) * 5, tie_embeddings=False,
)  # fmt: skip
FEW = {"moe_intermediate_size": 20, "n_routed_experts": 16, "num_experts_per_tok": 3}
ALL = (True,) * 5


def read(family: str, least: dict[str, Any] | None = None, **more: Any) -> Architecture:
    """The architecture of a config, which its own config gives again."""
    a = config_architecture({"model_type": family, **(LEAST if least is None else least), **more}, FILE)
    assert config_architecture(to_config(a), FILE) == a
    return a


def test_deepseek_v2_and_v3_have_their_own_defaults() -> None:
    second, third = read("deepseek_v2", **FEW), read("deepseek_v3", **FEW)
    whole: dict[str, Any] = dict(
        num_kv_heads=1, head_dim=512 + 64, rotary_dim=64, attention_scale=(128 + 64) ** -0.5,
        latent=LatentSettings(512, 128, 64, 128, 0),
    )  # fmt: skip
    assert second == replace(
        PLAIN, family="deepseek_v2", experts=ExpertSettings(16, 3, 20, ALL, renormalise=False, shared_width=40), **whole
    )
    balanced = ExpertSettings(
        16, 3, 20, (False, False, False, True, True), score="sigmoid", renormalise=True, scale=2.5, num_groups=8,
        groups_per_token=4, group_score="top2", has_correction=True, shared_width=20,
    )  # fmt: skip
    assert third == replace(PLAIN, family="deepseek_v3", max_position=4096, experts=balanced, **whole)
    written = deepseek.to_config(third)
    assert written == {
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "num_key_value_heads": 8, "head_dim": 64,
        "kv_lora_rank": 512, "q_lora_rank": None, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
        "first_k_dense_replace": 3, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "hidden_act": "silu", "num_nextn_predict_layers": 0, "moe_intermediate_size": 20, "n_routed_experts": 16,
        "num_experts_per_tok": 3, "norm_topk_prob": True, "routed_scaling_factor": 2.5, "n_group": 8, "topk_group": 4,
        "n_shared_experts": 1, "topk_method": "noaux_tc",
    }  # fmt: skip
    other = deepseek.to_config(second)
    assert "num_nextn_predict_layers" not in other and other["topk_method"] == "greedy"
    assert other["architectures"] == ["DeepseekV2ForCausalLM"] and other["n_shared_experts"] == 2


def test_each_key_of_deepseek_counts_and_yarn_scales_attention() -> None:
    given = {
        "kv_lora_rank": 24, "q_lora_rank": 40, "qk_nope_head_dim": 12, "qk_rope_head_dim": 4, "v_head_dim": 10,
        "first_k_dense_replace": 2, "topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2,
        "n_shared_experts": 3, "routed_scaling_factor": 1.5, "norm_topk_prob": False, "max_position_embeddings": 300,
        "rope_theta": 500.0,
    }  # fmt: skip
    experts = ExpertSettings(
        16, 3, 20, (False, False, True, True, True), renormalise=False, scale=1.5, num_groups=4, groups_per_token=2,
        shared_width=60,
    )  # fmt: skip
    whole = replace(
        PLAIN, family="deepseek_v2", num_kv_heads=1, head_dim=28, rotary_dim=4, attention_scale=0.25, experts=experts,
        max_position=300, ropes=(Rope(500.0),) * 5, latent=LatentSettings(24, 12, 4, 10, 40),
    )  # fmt: skip
    assert read("deepseek_v2", **FEW, **given) == whole
    assert deepseek.to_config(whole)["topk_method"] == "group_limited_greedy"
    ungrouped = read("deepseek_v2", **FEW, **{**given, "topk_method": "greedy"}).experts
    assert ungrouped is not None and (ungrouped.num_groups, ungrouped.groups_per_token) == (1, 1)
    scaling = {
        "type": "yarn",
        "factor": 4.0,
        "mscale": 0.7,
        "mscale_all_dim": 0.5,
        "original_max_position_embeddings": 75,
    }
    stretched = read("deepseek_v2", **FEW, **given, rope_scaling=scaling)
    assert stretched.attention_scale == pytest.approx(0.25 * (0.1 * 0.5 * math.log(4) + 1) ** 2)
    assert deepseek.to_config(stretched)["rope_parameters"]["mscale_all_dim"] == pytest.approx(0.5)
    linear = {"type": "linear", "factor": 4.0, "mscale_all_dim": 0.5}
    scaled = read("deepseek_v2", **FEW, **given, rope_scaling=linear)
    assert scaled.attention_scale == stretched.attention_scale
    dense = read("deepseek_v2", **{**FEW, "first_k_dense_replace": 5})
    assert dense.experts is None and deepseek.to_config(dense)["moe_intermediate_size"] == 1
    assert deepseek.to_config(dense)["first_k_dense_replace"] == 5
    for key in ("attention_bias", "mlp_bias"):
        with pytest.raises(ModelFileError, match=f"{key} is 'True': expected false"):
            read("deepseek_v3", **FEW, **{key: True})


@pytest.mark.parametrize("stated", [False, None, 0])
def test_deepseek_v3_with_its_rotated_pairs_apart_is_refused(stated: object) -> None:
    with pytest.raises(
        ModelFileError, match="rope_interleave is 'False': expected true, with rotated pairs side by side"
    ):
        read("deepseek_v3", **FEW, rope_interleave=stated)
    assert read("deepseek_v3", **FEW, rope_interleave=True) == read("deepseek_v3", **FEW)
    assert read("deepseek_v2", **FEW, rope_interleave=stated) == read("deepseek_v2", **FEW), "as transformers reads it"


def test_deepseek_in_gguf_states_its_latent_its_groups_and_the_log_of_its_stretch() -> None:
    given = {"kv_lora_rank": 24, "q_lora_rank": 40, "qk_nope_head_dim": 12, "qk_rope_head_dim": 4, "v_head_dim": 10,
             "n_group": 4, "topk_group": 2, "n_shared_experts": 3, "routed_scaling_factor": 1.5}  # fmt: skip
    third = read("deepseek_v3", **FEW, **given)
    told = deepseek.to_gguf(third)
    own = {key: value for key, value in told.items() if "expert" in key or "mla" in key or "lora" in key}
    assert own == {
        "attention.key_length_mla": 16, "attention.value_length_mla": 10, "attention.kv_lora_rank": 24,
        "attention.q_lora_rank": 40, "expert_count": 16, "expert_used_count": 3, "expert_feed_forward_length": 20,
        "expert_shared_count": 3, "expert_weights_scale": 1.5, "expert_weights_norm": True, "expert_gating_func": 2,
        "expert_group_count": 4, "expert_group_used_count": 2,
    }  # fmt: skip
    assert (told["attention.key_length"], told["attention.value_length"], told["rope.dimension_count"]) == (28, 24, 4)
    assert told["leading_dense_block_count"] == 3 and told["general.architecture"] == "deepseek2"
    second = deepseek.to_gguf(read("deepseek_v2", **FEW, **{**given, "q_lora_rank": None}))
    assert "attention.q_lora_rank" not in second and second["expert_gating_func"] == 1
    assert second["expert_weights_norm"] is False and "rope.scaling.yarn_log_multiplier" not in second
    for factor, multiplier in (
        (4.0, 0.05),
        (1.0, None),
    ):  # of 0.1 times mscale_all_dim; a factor of 1 stretches nothing
        yarn = {"type": "yarn", "factor": factor, "mscale": 0.7, "mscale_all_dim": 0.5,
                "original_max_position_embeddings": 75}  # fmt: skip
        stretched = deepseek.to_gguf(read("deepseek_v2", **FEW, **given, rope_scaling=yarn))
        assert stretched.get("rope.scaling.yarn_log_multiplier") == (multiplier and pytest.approx(multiplier))
        assert "rope.scaling.attn_factor" not in stretched


def test_qwens_experts_are_in_every_step_th_layer_but_the_dense_ones() -> None:
    second, third = read("qwen2_moe"), read("qwen3_moe")
    assert second == replace(
        PLAIN, family="qwen2_moe", max_position=32_768, qkv_bias=True, attention_scale=0.0,
        experts=ExpertSettings(60, 4, 1408, ALL, renormalise=False, shared_width=5632, has_shared_gate=True),
    )  # fmt: skip
    assert third == replace(
        PLAIN, family="qwen3_moe", max_position=32_768, qk_norm=True, attention_scale=0.0,
        experts=ExpertSettings(128, 8, 768, ALL, renormalise=False),
    )  # fmt: skip
    given = {"decoder_sparse_step": 2, "mlp_only_layers": [3], "num_experts": 6, "num_experts_per_tok": 3,
             "moe_intermediate_size": 20, "norm_topk_prob": True}  # fmt: skip
    own = {"shared_expert_intermediate_size": 30, "qkv_bias": False, "attention_bias": True}
    a = read("qwen2_moe", **given, **own)
    only = (False, True, False, False, False)
    assert a == replace(second, qkv_bias=False, experts=ExpertSettings(
        6, 3, 20, only, renormalise=True, shared_width=30, has_shared_gate=True))  # fmt: skip
    written = qwen_moe.to_config(a)
    assert written["mlp_only_layers"] == [0, 2, 3, 4] and written["decoder_sparse_step"] == 1
    assert (written["architectures"], written["shared_expert_intermediate_size"], written["qkv_bias"]) == (
        ["Qwen2MoeForCausalLM"], 30, False,
    )  # fmt: skip
    b = read("qwen3_moe", **{**given, "num_experts": None}, num_local_experts=7, attention_bias=True,
             use_sliding_window=True, sliding_window=9)  # fmt: skip
    assert b == replace(third, windows=(9,) * 5, qkv_bias=True, o_bias=True,
                        experts=ExpertSettings(7, 3, 20, only, renormalise=True))  # fmt: skip
    assert (
        read("qwen3_moe", sliding_window=9).windows == (None,) * 5 == read("qwen2_moe", use_sliding_window=True).windows
    )
    assert qwen_moe.to_config(b)["attention_bias"] is True and "qkv_bias" not in qwen_moe.to_config(b)
    with pytest.raises(ModelFileError, match="use_sliding_window is 'True': expected false"):
        read("qwen2_moe", use_sliding_window=True, sliding_window=9)
    told = qwen_moe.to_gguf(replace(second, experts=replace(second.experts, layers=(False, True, True, True, True))))
    assert {key: told[key] for key in told if "expert" in key or "dense" in key or "general" in key} == {
        "general.architecture": "qwen2moe", "expert_count": 60, "expert_used_count": 4,
        "expert_feed_forward_length": 1408, "leading_dense_block_count": 1, "expert_shared_feed_forward_length": 5632,
    }  # fmt: skip
    assert "expert_shared_feed_forward_length" not in qwen_moe.to_gguf(third)
    assert qwen_moe.to_gguf(third)["general.architecture"] == "qwen3moe"


def test_gpt_oss_has_windows_in_even_layers_and_yarn_unless_the_config_says_otherwise() -> None:
    least = read("gpt_oss")
    yarn = Rope(150_000.0, "yarn", 32.0, 4096, attention_factor=0.1 * math.log(32) + 1, truncate=False)
    experts = ExpertSettings(128, 4, 90, ALL, score="softmax_of_chosen", has_bias=True)
    assert least == replace(
        PLAIN, family="gpt_oss", head_dim=64, max_position=131_072, norm_eps=1e-5, windows=(128, None, 128, None, 128),
        ropes=(yarn,) * 5, qkv_bias=True, o_bias=True, activation="clamped_silu", activation_limit=7.0,
        attention_scale=0.0, has_sinks=True, experts=experts,
    )  # fmt: skip
    kinds = ["full_attention"] * 4 + ["sliding_attention"]
    given = {"layer_types": kinds, "sliding_window": 7, "num_local_experts": 6, "num_experts_per_tok": 3,
             "swiglu_limit": 5.0, "head_dim": 16, "rms_norm_eps": 0.01, "rope_theta": 500.0, "num_key_value_heads": 2,
             "rope_parameters": {"rope_type": "default"}}  # fmt: skip
    a = read("gpt_oss", **given)
    assert a == replace(
        least, head_dim=16, norm_eps=0.01, windows=(None, None, None, None, 7), ropes=(Rope(500.0),) * 5, num_kv_heads=2,
        activation_limit=5.0, attention_scale=0.0, experts=replace(experts, num_experts=6, per_token=3),
    )  # fmt: skip
    assert gpt_oss.to_config(a) == {
        "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "num_key_value_heads": 2, "head_dim": 16,
        "num_local_experts": 6, "num_experts_per_tok": 3, "swiglu_limit": 5.0, "sliding_window": 7, "layer_types": kinds,
        "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"},
    }  # fmt: skip
    old = {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    assert read("gpt_oss", **old).ropes == (Rope(500.0, "linear", 2.0),) * 5
    assert read("gpt_oss", rope_theta=500.0).ropes == (replace(yarn, theta=500.0),) * 5
    open_ = replace(a, windows=(None,) * 5)
    assert (gpt_oss.to_config(open_)["sliding_window"], gpt_oss.to_gguf(open_)["attention.sliding_window"]) == (128, 0)
    told = gpt_oss.to_gguf(a)
    assert told["attention.sliding_window"] == 7 and told["general.architecture"] == "gpt-oss"
    assert (told["expert_count"], told["expert_used_count"], told["leading_dense_block_count"]) == (6, 3, 0)
    for key, value, said in (
        ("hidden_act", "gelu", "silu"),
        ("attention_bias", False, "true"),
        ("swiglu_alpha", 1.7, "1.702"),
    ):
        with pytest.raises(ModelFileError, match=f"{key} is .*: expected {said}"):
            read("gpt_oss", **{key: value})
    assert read("gpt_oss", hidden_act="silu", attention_bias=True, swiglu_alpha=1.702) == least


def test_mpt_reads_its_attention_and_its_slopes() -> None:
    least = {"vocab_size": 70, "d_model": 64, "n_layers": 2, "n_heads": 4}
    plain = replace(
        PLAIN, family="mpt", intermediate_size=256, num_layers=2, num_heads=4, num_kv_heads=4, head_dim=16, norm_eps=1e-5,
        windows=(None,) * 2, ropes=(Rope(kind="none"),) * 2, tie_embeddings=True, norm="layer_no_bias", is_gated=False,
        activation="gelu", alibi_slopes=(2**-2, 2**-4, 2**-6, 2**-8), attention_scale=0.0,
    )  # fmt: skip
    assert read("mpt", least) == plain
    attention = {"softmax_scale": 0.125, "clip_qkv": 6.0, "alibi_bias_max": 4, "alibi": True, "qk_ln": False}
    a = read("mpt", least, max_seq_len=300, layer_norm_epsilon=0.01, tie_word_embeddings=False, attn_config=attention)
    assert a == replace(
        plain, max_position=300, norm_eps=0.01, tie_embeddings=False, attention_scale=0.125, clip_qkv=6.0,
        alibi_slopes=(0.5, 0.25, 0.125, 0.0625),
    )  # fmt: skip
    assert mpt.to_config(a) == {
        "architectures": ["MptForCausalLM"], "model_type": "mpt", "d_model": 64, "n_layers": 2, "n_heads": 4,
        "max_seq_len": 300, "expansion_ratio": 4, "layer_norm_epsilon": 0.01,
        "attn_config": {"clip_qkv": 6.0, "softmax_scale": 0.125, "alibi": True, "alibi_bias_max": 4},
    }  # fmt: skip
    told = mpt.to_gguf(a)
    assert (told["attention.max_alibi_bias"], told["attention.clamp_kqv"], told["general.architecture"]) == (
        4.0,
        6.0,
        "mpt",
    )
    assert "attention.clamp_kqv" not in mpt.to_gguf(plain) and mpt.to_gguf(plain)["attention.max_alibi_bias"] == 8.0
    between = read("mpt", least, attn_config={"alibi_bias_max": 6.3})  # not only whole numbers come back
    assert mpt.to_config(between)["attn_config"]["alibi_bias_max"] == 6.3
    # of 3 heads: the odd slopes of 4, then the even ones
    assert mpt.alibi_slopes(3, 8) == (2**-4, 2**-8, 2**-2) and mpt.alibi_slopes(1, 8) == (2**-8,)
    assert mpt.alibi_slopes(2, 4) == (2**-2, 2**-4) and len(mpt.alibi_slopes(5000, 8)) == 4096
    for refused in (
        {"expansion_ratio": 2}, {"no_bias": False}, {"attn_config": {"alibi": False}}, {"attn_config": {"prefix_lm": True}},
        {"attn_config": {"alibi_bias_max": 0}}, {"attn_config": {"alibi_bias_max": 65}}, {"attn_config": {"qk_ln": True}},
        {"attn_config": {"attn_type": "multiquery_attention"}},
    ):  # fmt: skip
        with pytest.raises(ModelFileError, match=r"models/config\.json"):
            read("mpt", least, **refused)
    assert len(read("mpt", least, attn_config={"alibi_bias_max": 64}).alibi_slopes) == 4


def test_bloom_reads_either_name_of_its_width_and_length() -> None:
    least = {"vocab_size": 70, "n_embed": 64, "n_layer": 2, "n_head": 6}
    six = (2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3)
    plain = replace(
        PLAIN, family="bloom", intermediate_size=256, num_layers=2, num_heads=6, num_kv_heads=6, head_dim=10,
        norm_eps=1e-5, windows=(None,) * 2, ropes=(Rope(kind="none"),) * 2, tie_embeddings=True, alibi_slopes=six,
        attention_scale=0.0, **bloom.SWITCHES,
    )  # fmt: skip
    assert read("bloom", least) == plain and plain.embed_norm and plain.qkv_bias and not plain.is_gated
    a = read("bloom", least, hidden_size=32, n_head=2, seq_length=300, max_position_embeddings=400,
             layer_norm_epsilon=0.01, tie_word_embeddings=False)  # fmt: skip
    assert (a.hidden_size, a.intermediate_size, a.head_dim, a.max_position) == (32, 128, 16, 300)
    assert (a.norm_eps, a.tie_embeddings, a.alibi_slopes) == (0.01, False, (2**-4, 2**-8))
    assert read("bloom", least, max_position_embeddings=400).max_position == 400
    assert bloom.to_config(a) == {
        "architectures": ["BloomForCausalLM"], "model_type": "bloom", "n_layer": 2, "n_head": 2, "seq_length": 300,
        "layer_norm_epsilon": 0.01,
    }  # fmt: skip
    assert bloom.to_gguf(a)["general.architecture"] == "bloom"
    assert bloom.alibi_slopes(1) == (2**-8,) and bloom.alibi_slopes(3) == (2**-4, 2**-8, 2**-2)
    with pytest.raises(ModelFileError, match="apply_residual_connection_post_layernorm is 'True': expected false"):
        read("bloom", least, apply_residual_connection_post_layernorm=True)
    with pytest.raises(ModelFileError, match="slow_but_exact is 'True': expected false, or a pretraining_tp of 1"):
        read("bloom", least, slow_but_exact=True, pretraining_tp=2)
    for harmless in ({"slow_but_exact": True, "pretraining_tp": 1}, {"pretraining_tp": 4}, {"slow_but_exact": True}):
        assert read("bloom", least, **harmless) == read("bloom", least)


def pair(family: str, **values: Any) -> EncoderDecoderArchitecture:
    return encoder_decoder_architecture({"model_type": family, "vocab_size": 70, "d_model": 64, **values}, FILE)


def test_t5_reads_each_kind_of_mlp_and_scales_logits_of_a_shared_table() -> None:
    least = pair("t5", num_layers=3, num_heads=8, d_ff=90)
    assert least == EncoderDecoderArchitecture(
        family="t5", vocab_size=70, hidden_size=64, num_encoder_layers=3, num_decoder_layers=3, encoder_heads=8,
        decoder_heads=8, head_dim=64, encoder_width=90, decoder_width=90, positions="relative", max_position=512,
        norm_eps=1e-6, is_t5=True, activation="relu", is_gated=False, num_buckets=32, max_distance=128,
        logit_scale=0.125, decoder_start=0, end=1,
    )  # fmt: skip
    given = {"num_layers": 3, "num_decoder_layers": 2, "num_heads": 4, "d_ff": 90, "d_kv": 16, "n_positions": 99,
             "feed_forward_proj": "gated-gelu", "layer_norm_epsilon": 0.01, "tie_word_embeddings": False,
             "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20, "pad_token_id": 5,
             "eos_token_id": 6}  # fmt: skip
    a = pair("t5", **given)
    assert a == replace(
        least, num_decoder_layers=2, encoder_heads=4, decoder_heads=4, head_dim=16, max_position=99, norm_eps=0.01,
        activation="gelu_tanh", is_gated=True, num_buckets=8, max_distance=20, logit_scale=1.0, decoder_start=5, end=6,
    )  # fmt: skip
    assert pair("t5", **given, decoder_start_token_id=3, scale_decoder_outputs=True) == replace(
        a, decoder_start=3, logit_scale=0.125
    )
    assert t5.to_config(a) == {
        "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_model": 64, "d_kv": 16, "d_ff": 90,
        "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4, "n_positions": 99, "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 20, "feed_forward_proj": "gated-gelu", "layer_norm_epsilon": 0.01,
        "tie_word_embeddings": False, "pad_token_id": 0,
    }  # fmt: skip
    for kind, expected in (("relu", ("relu", False)), ("gated-silu", ("silu", True)), ("gelu", ("gelu", False))):
        b = pair("t5", num_layers=3, num_heads=8, d_ff=90, feed_forward_proj=kind)
        assert (b.activation, b.is_gated) == expected and t5.to_config(b)["feed_forward_proj"] == kind
        assert t5.to_config(b)["tie_word_embeddings"] is True
    names = t5.names(a)
    assert names["decoder.layers.{}.cross_attention.o_proj"] == "decoder.block.{}.layer.1.EncDecAttention.o"
    assert names["decoder.layers.{}.cross_attention_norm"] == "decoder.block.{}.layer.1.layer_norm"
    assert names["decoder.layers.{}.mlp.up_proj"] == "decoder.block.{}.layer.2.DenseReluDense.wi_1"
    assert names["encoder.layers.{}.mlp.gate_proj"] == "encoder.block.{}.layer.1.DenseReluDense.wi_0"
    assert names["encoder.layers.{}.mlp_norm"] == "encoder.block.{}.layer.1.layer_norm"
    assert t5.names(least)["encoder.layers.{}.mlp.up_proj"] == "encoder.block.{}.layer.1.DenseReluDense.wi"
    assert not any("cross" in name for name in names if name.startswith("encoder"))


def test_bart_and_marian_differ_in_positions_norm_and_padding() -> None:
    sizes = {"encoder_layers": 2, "decoder_layers": 3}
    least = pair("bart", **sizes)
    assert least == EncoderDecoderArchitecture(
        family="bart", vocab_size=70, hidden_size=64, num_encoder_layers=2, num_decoder_layers=3, encoder_heads=16,
        decoder_heads=16, head_dim=4, encoder_width=4096, decoder_width=4096, positions="learned", max_position=1024,
        norm_eps=1e-5, activation="gelu", position_offset=2, embed_norm=True, embed_scale=1.0, has_logit_bias=True,
        decoder_start=2, end=2,
    )  # fmt: skip
    given = {**sizes, "encoder_attention_heads": 8, "decoder_attention_heads": 4, "encoder_ffn_dim": 90,
             "decoder_ffn_dim": 80, "max_position_embeddings": 99, "activation_function": "swish",
             "scale_embedding": True, "decoder_start_token_id": 5, "eos_token_id": 6}  # fmt: skip
    a = pair("marian", **{**given, "decoder_attention_heads": 8})
    assert a == replace(
        least, family="marian", encoder_heads=8, decoder_heads=8, head_dim=8, encoder_width=90, decoder_width=80,
        positions="sinusoidal", max_position=99, activation="silu", position_offset=0, embed_norm=False, embed_scale=8.0,
        decoder_start=5, end=6,
    )  # fmt: skip
    assert bart.to_config(a) == {
        "architectures": ["MarianMTModel"], "model_type": "marian", "d_model": 64, "encoder_layers": 2,
        "decoder_layers": 3, "encoder_attention_heads": 8, "decoder_attention_heads": 8, "encoder_ffn_dim": 90,
        "decoder_ffn_dim": 80, "max_position_embeddings": 99, "pad_token_id": 5, "activation_function": "swish",
        "scale_embedding": True, "tie_word_embeddings": True,
    }  # fmt: skip
    b = bart.to_config(least)
    assert (b["architectures"], b["pad_token_id"], b["scale_embedding"]) == (["BartForConditionalGeneration"], 1, False)
    names = bart.names(least)
    assert names["decoder.layers.{}.cross_attention.o_proj"] == "model.decoder.layers.{}.encoder_attn.out_proj"
    assert names["encoder.layers.{}.self_attention_norm"] == "model.encoder.layers.{}.self_attn_layer_norm"
    assert names["encoder.layers.{}.mlp.down_proj"] == "model.encoder.layers.{}.fc2"
    for wrong in (
        {"normalize_before": True},
        {"add_final_layer_norm": True},
        {"share_encoder_decoder_embeddings": False},
    ):
        with pytest.raises(ModelFileError, match="expected"):
            pair("bart", **sizes, **wrong)
