"""Zeros, nulls and numbers at the edge in model files: which mean none, which the default, and which are refused by name."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.fields import Fields
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.encoder_decoder_architecture import EncoderDecoderArchitecture
from firsthand.nn.families import (
    bloom,
    deepseek_gguf,
    gemma,
    gemma2,
    gpt2,
    gpt_oss,
    llama,
    mpt,
    olmo2,
    phi3,
    qwen,
    qwen_moe,
    smollm3,
    stablelm,
    starcoder2,
)
from firsthand.nn.families.rope_config import (
    _from_divisors,
    config_length,
    llama3_divisors,
    longest_text,
    mscale,
    rope_divisors,
    rope_from_config,
    rope_tensors,
    rope_to_gguf,
    rotated_values,
)
from firsthand.nn.model_config import config_architecture, encoder_decoder_architecture
from test_gguf_architectures import read as read_gguf

LEAST = {"vocab_size": 70, "hidden_size": 64, "intermediate_size": 90, "num_hidden_layers": 5, "num_attention_heads": 8}
FILE = Path("models/config.json")
NONE = Rope(kind="none")
EXPERTS = {"moe_intermediate_size": 20, "n_routed_experts": 16, "num_experts_per_tok": 3}
GPT2 = {"vocab_size": 70, "n_layer": 5, "n_head": 8, "n_embd": 64}
MPT = {"vocab_size": 70, "n_layers": 5, "n_heads": 8, "d_model": 64}
BLOOM = {"vocab_size": 70, "n_layer": 5, "n_head": 8, "n_embed": 64}
T5 = {"model_type": "t5", "vocab_size": 70, "d_model": 64, "num_layers": 2, "num_heads": 4, "d_ff": 96}
BART = {"model_type": "bart", "vocab_size": 70, "d_model": 64, "encoder_layers": 2, "decoder_layers": 3}


def read(family: str, least: dict[str, Any] | None = None, **more: Any) -> Architecture:
    return config_architecture({"model_type": family, **(LEAST if least is None else least), **more}, FILE)


def pair(least: dict[str, Any], **more: Any) -> EncoderDecoderArchitecture:
    return encoder_decoder_architecture(least | more, FILE)


def refused(family: str, least: dict[str, Any] | None = None, **more: Any) -> str:
    with pytest.raises(ModelFileError) as told:
        read(family, least, **more)
    return str(told.value)


def test_no_heads_and_no_width_are_refused_by_name_in_every_family() -> None:
    sentence = "models/config.json: {} is 0: expected a whole number of 1 or more"
    usual = ("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen2_moe", "gemma", "gemma2", "gemma3_text", "gpt_oss",
             "smollm3", "stablelm", "starcoder2", "phi3", "olmo2", "deepseek_v2")  # fmt: skip
    for family in usual:
        least = read(family, num_key_value_heads=2, **EXPERTS)
        assert {type(each) for each in (least.head_dim, least.num_kv_heads, least.rotary_dim)} == {int}
        more: dict[str, Any] = {"num_key_value_heads": 2, "head_dim": 8, **EXPERTS}
        assert refused(family, num_attention_heads=0, **more) == sentence.format("num_heads"), family
        del more["head_dim"]
        assert refused(family, num_attention_heads=0, **more) == sentence.format("num_heads"), family
        assert refused(family, hidden_size=0, **more) == sentence.format("hidden_size"), family
    for family, least, heads, width in (
        ("gpt2", GPT2, "n_head", "n_embd"), ("mpt", MPT, "n_heads", "d_model"), ("bloom", BLOOM, "n_head", "n_embed"),
    ):  # fmt: skip
        assert refused(family, least, **{heads: 0}) == sentence.format("num_heads")
        assert refused(family, least, **{width: 0}) == sentence.format("hidden_size")
        whole = read(family, least)
        assert {type(each) for each in (whole.head_dim, whole.hidden_size, whole.intermediate_size)} == {int}
        assert (whole.norm_eps, whole.intermediate_size) == (1e-5, 4 * whole.hidden_size)
    for changes, field in (
        ({"d_model": 0}, "hidden_size"), ({"num_heads": 0}, "encoder_heads"), ({"d_kv": 0}, "head_dim"),
    ):  # fmt: skip
        with pytest.raises(ModelFileError, match=rf"^models/config\.json: {field} is 0: expected 1 or more"):
            pair(T5, **changes)
    for changes, field in (
        ({"d_model": 0}, "hidden_size"), ({"encoder_attention_heads": 0}, "encoder_heads"),
        ({"encoder_attention_heads": 5}, "head_dim"), ({"decoder_attention_heads": 0}, "decoder_heads"),
    ):  # fmt: skip
        with pytest.raises(ModelFileError, match=rf"^models/config\.json: {field} is 0: expected 1 or more"):
            pair(BART, **changes)
    kinds: tuple[tuple[Any, str, dict[str, Any]], ...] = (
        (llama, "llama", {}), (qwen, "qwen3", {}), (gemma, "gemma3", {}), (gemma2, "gemma2", {}), (gpt2, "gpt2", {}),
        (bloom, "bloom", {}), (mpt, "mpt", {}), (phi3, "phi3", {}), (olmo2, "olmo2", {}), (smollm3, "smollm3", {}),
        (stablelm, "stablelm", {}), (starcoder2, "starcoder2", {}),
        (qwen_moe, "qwen3moe", {"expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": 20}),
        (gpt_oss, "gpt-oss", {"expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": 20}),
    )  # fmt: skip
    for family, kind, given in kinds:
        for key, field in (("attention.head_count", "num_heads"), ("embedding_length", "hidden_size")):
            with pytest.raises(ConfigError) as told:
                read_gguf(family, kind, {**given, key: 0})
            assert str(told.value) == f"{field} is 0: expected a whole number of 1 or more", kind


def test_a_window_a_cap_or_an_interval_of_nought_is_none_or_the_default() -> None:
    for family in ("mixtral", "phi3", "starcoder2"):
        assert read(family, sliding_window=0).windows == (None,) * 5 == read(family, sliding_window=None).windows
        assert read(family, sliding_window=1).windows == (1,) * 5
    assert "windows is (0, 0, 0, 0, 0): expected None or 1 and more for each layer" in refused(
        "mistral", sliding_window=0
    )
    assert read("qwen2", use_sliding_window=True).windows == (None,) * 5
    assert read("qwen2", sliding_window=9).windows == (None,) * 5
    of_qwen: dict[str, Any] = {"use_sliding_window": True, "sliding_window": 9}
    assert read("qwen2", **of_qwen).windows == (None,) * 5  # from layer 28 on
    assert read("qwen2", **of_qwen, max_window_layers=0).windows == (9,) * 5
    assert read("qwen3", **of_qwen, max_window_layers=3).windows == (None, None, None, 9, 9)
    kinds = ["sliding_attention", *["full_attention"] * 4]
    assert read("qwen3", **of_qwen, max_window_layers=3, layer_types=kinds).windows == (9, None, None, None, None)
    assert refused("qwen3", **of_qwen, layer_types=["chunked_attention"] * 5) == (
        "models/config.json: layer_types is 'chunked_attention': expected full_attention or sliding_attention for each layer"
    )
    third: dict[str, Any] = {"num_key_value_heads": 2}
    assert read("gemma3_text", **third).windows == (4096,) * 5
    assert read("gemma3_text", **third, num_hidden_layers=7).windows == (*[4096] * 5, None, 4096)
    for period, windows in ((0, (None,) * 5), (1, (None,) * 5), (2, (7, None, 7, None, 7)), (5, (7, 7, 7, 7, None))):
        a = read("gemma3_text", **third, sliding_window_pattern=period, sliding_window=7)
        assert a.windows == windows
        assert a.ropes == tuple(Rope(1e6) if window is None else Rope() for window in windows)
    zeros = read("gemma3_text", **third, query_pre_attn_scalar=0, final_logit_softcapping=0)
    assert (zeros.attention_scale, zeros.logit_softcap) == (pytest.approx(1000.0), None)
    second = read("gemma2", query_pre_attn_scalar=0, final_logit_softcapping=0, attn_logit_softcapping=0.0)
    assert (second.attention_scale, second.logit_softcap, second.attention_softcap) == (
        pytest.approx(1000.0),
        None,
        None,
    )
    for interval in (0, 1):
        assert read("smollm3", no_rope_layer_interval=interval).ropes == (NONE,) * 5
    turned = Rope(2e6)
    assert read("smollm3", no_rope_layers=[]).ropes == (turned, turned, turned, NONE, turned)
    assert read("smollm3", no_rope_layers=[0, 2, 0, 0, 1]).ropes == (NONE, turned, NONE, NONE, turned)
    assert "expected one for each of 5 layers" in refused("smollm3", no_rope_layers=[1, 0])
    for step, layers in ((0, (True,) * 5), (1, (True,) * 5), (3, (False, False, True, False, False))):
        found = read("qwen3_moe", decoder_sparse_step=step, mlp_only_layers=None).experts
        assert found is not None and found.layers == layers
    shared = read("qwen2_moe", shared_expert_intermediate_size=0).experts
    assert shared is not None and (shared.shared_width, shared.has_shared_gate) == (0, True)
    clamped = read("mpt", MPT, attn_config={"clip_qkv": 0, "softmax_scale": None, "alibi_bias_max": 64})
    assert (clamped.clip_qkv, clamped.attention_scale, clamped.alibi_slopes[-1]) == (None, 8**-0.5, 2.0**-64)
    assert refused("mpt", MPT, attn_config={"alibi_bias_max": 64.5}) == (
        "models/config.json: attn_config: alibi_bias_max is '64.5': expected above 0, and 64 at most"
    )
    of_t5 = pair(T5, n_positions=0, pad_token_id=3)
    assert (of_t5.max_position, of_t5.decoder_start, of_t5.end, of_t5.logit_scale) == (512, 3, 1, 0.125)
    assert pair(T5, pad_token_id=3, decoder_start_token_id=0).decoder_start == 0
    assert pair(T5, tie_word_embeddings=False).logit_scale == 1.0
    assert pair(T5, tie_word_embeddings=False, scale_decoder_outputs=True).logit_scale == 0.125
    assert (pair(T5).num_decoder_layers, pair(T5, num_decoder_layers=1).num_decoder_layers) == (2, 1)


def test_ropes_of_no_stretch_or_no_length_have_their_own_numbers() -> None:
    def rope(longest: int | None = 4096, **scaling: Any) -> Rope:
        values = {"rope_scaling": scaling} if longest is None else {
            "rope_scaling": scaling, "max_position_embeddings": longest}  # fmt: skip
        return rope_from_config(Fields(values, "c"))

    long = {"rope_type": "longrope", "long_factor": [2.0], "short_factor": [1.0]}
    for trained, factor, grown in (
        (1024, 4.0, math.sqrt(1 + math.log(4) / math.log(1024))), (1024, 1.0, 1.0), (1024, 0.5, 1.0), (1, 4.0, 1.0),
        (2, 4.0, math.sqrt(1 + math.log(4) / math.log(2))),
    ):  # fmt: skip
        found = rope(**long, original_max_position_embeddings=trained, factor=factor)
        assert found == Rope(
            1e4, "longrope", factor, trained, attention_factor=grown, divisors=(2.0,), short_divisors=(1.0,)
        )
    assert rope(**long, original_max_position_embeddings=1024).factor == 4.0
    assert (
        rope(**long, original_max_position_embeddings=1024, attention_factor=1.25, factor=3.0).attention_factor == 1.25
    )
    assert rope(**long).attention_factor == 1.0  # the trained length is the longest
    yarn = {"rope_type": "yarn", "factor": 4.0}
    assert rope(**yarn, mscale=0.0, mscale_all_dim=2.0).attention_factor == pytest.approx(0.1 * math.log(4) + 1)
    assert rope(**yarn, mscale=2.0, mscale_all_dim=2.0).attention_factor == 1.0
    assert [mscale(factor) for factor in (0.5, 1.0)] == [1.0, 1.0]
    assert [mscale(math.e, weight) for weight in (1.0, 0.0, 3.0)] == pytest.approx([1.1, 1.0, 1.3])
    for kind in ("linear", "dynamic", "ntk", "llama3"):
        with pytest.raises(
            ModelFileError, match=r"^c: rope_scaling has no (factor|low_freq_factor): expected a finite number$"
        ):
            rope(rope_type=kind)
    with pytest.raises(ConfigError, match=r"^rope original_max_position is 0: expected the trained length, above 0$"):
        rope(None, rope_type="dynamic", factor=2.0)
    assert rope(None, rope_type="linear", factor=2.0) == Rope(1e4, "linear", 2.0)
    assert rope(rope_type="ntk", factor=3.0) == Rope(1e4, "ntk", 3.0)
    dynamic = Rope(kind="dynamic", factor=2.5, original_max_position=75)
    config = Fields({"max_position_embeddings": 75}, "c")
    assert (longest_text(config, dynamic, 9), longest_text(config, Rope(), 9), longest_text(Fields({}, "c"), Rope(), 9)) == (
        188, 75, 9,
    )  # fmt: skip
    huge = Fields({"max_position_embeddings": 2**30}, "c")
    assert longest_text(huge, Rope(kind="dynamic", factor=9.0, original_max_position=2**30), 9) == 2**31 - 1
    a = read("llama", max_position_embeddings=75, rope_scaling={"type": "dynamic", "factor": 2.5})
    assert (config_length(a), config_length(read("llama"))) == ({"max_position_embeddings": 75}, {})


def test_a_share_of_each_head_is_turned_and_a_file_has_the_divisors_of_its_kind_of_rope() -> None:
    def share(**values: Any) -> int:
        return rotated_values(Fields(values, "c"), 10)

    assert (share(), share(partial_rotary_factor=0.25), share(partial_rotary_factor=1)) == (10, 2, 10)
    assert share(partial_rotary_factor=0.25, rope_parameters={"partial_rotary_factor": 0.5}) == 5
    assert share(partial_rotary_factor=0.25, rope_parameters={"rope_theta": 3.0}) == 2
    assert share(rope_scaling={"partial_rotary_factor": 0.8}) == 8
    half = {"partial_rotary_factor": 0.5}
    assert share(rope_scaling=half, rope_parameters=half) == 5
    with pytest.raises(
        ModelFileError, match=r"^c: rope_scaling is \"\{'partial_rotary_factor': 0\.8\}\": expected all that"
    ):
        share(rope_scaling={"partial_rotary_factor": 0.8}, rope_parameters=half)
    assert share(rope_scaling={"type": "default", "factor": None, **half}, rope_parameters=half) == 5
    for lost in ({"type": "default"}, {"factor": None}):  # read in place of rope_parameters, and turning all
        with pytest.raises(ModelFileError, match=r"^c: rope_scaling is .*'partial_rotary_factor': None"):
            share(rope_scaling=lost, rope_parameters=half)
    for wrong in (0, 1.1, -0.5):
        with pytest.raises(ModelFileError) as told:
            share(partial_rotary_factor=wrong)
        assert str(told.value) == f"c: partial_rotary_factor is '{float(wrong)}': expected above 0, and 1 at most"
    divided = Rope(kind="divided", divisors=(1.0, 2.5))
    llama3 = Rope(1e4, "llama3", 8.0, 512, low_freq_factor=1.5, high_freq_factor=3.0)
    stretched = Rope(1e4, "longrope", 4.0, 64, divisors=(2.0, 3.0), short_divisors=(1.0, 1.5))
    assert rope_divisors(divided, 4) == (1.0, 2.5) and rope_divisors(Rope(), 4) is None
    assert rope_divisors(stretched, 4) is None
    assert rope_tensors(stretched, 4) == {
        "rope_factors_long.weight": (2.0, 3.0),
        "rope_factors_short.weight": (1.0, 1.5),
    }
    assert (rope_tensors(Rope(), 4), rope_tensors(divided, 4)) == ({}, {"rope_freqs.weight": (1.0, 2.5)})
    # pairs turn 512 / 2 pi * 1e4 ** (-i / 3) times: 81.5, 3.78 and 0.176; 3 and more are kept, 1.5 and fewer divided by 8
    assert rope_tensors(llama3, 6) == {"rope_freqs.weight": pytest.approx((1.0, 1.0, 8.0))}
    # of 8 values the pairs turn 81.5, 8.15, 0.81 ... times; of a base of 1e3 the third turns 2.58 times: 0.717 of the way
    between = Rope(1e3, "llama3", 8.0, 512, low_freq_factor=1.5, high_freq_factor=3.0)
    turns = 512 / (2 * math.pi) * 1e3**-0.5
    kept = (turns - 1.5) / 1.5
    assert rope_tensors(between, 8)["rope_freqs.weight"][2] == pytest.approx(1 / ((1 - kept) / 8 + kept))
    assert rope_to_gguf(Rope(5, "linear", 2)) == {
        "rope.freq_base": 5.0, "rope.scaling.type": "linear", "rope.scaling.factor": 2.0,
    }  # fmt: skip
    assert rope_to_gguf(llama3) == rope_to_gguf(divided) == {"rope.freq_base": 10_000.0}
    assert rope_to_gguf(Rope(1e4, "yarn", 1.0, 64, beta_fast=9, beta_slow=2, attention_factor=1.5)) == {
        "rope.freq_base": 1e4, "rope.scaling.type": "yarn", "rope.scaling.factor": 1.0,
        "rope.scaling.original_context_length": 64, "rope.scaling.attn_factor": 1.5, "rope.scaling.yarn_beta_fast": 9.0,
        "rope.scaling.yarn_beta_slow": 2.0,
    }  # fmt: skip


def test_divisors_in_float32_are_those_of_llama_3_up_to_their_rounding() -> None:
    released = Rope(5e5, "llama3", 8.0, 8192)
    exact = llama3_divisors(released, 64)
    assert (len(exact), exact[0], exact[-1]) == (32, 1.0, 8.0) and any(1 < each < 8 for each in exact)
    stored = tuple(struct.unpack("<32f", struct.pack("<32f", *exact)))
    assert stored != tuple(exact) and _from_divisors(stored, 5e5, 64) == released
    for factor, theta in ((1 + 5e-6, 5e5), (1 + 5e-5, 5e5), (1.0, 1e4)):
        changed = (*stored[:16], stored[16] * factor, *stored[17:])
        found = _from_divisors(changed, theta, 64)
        assert found == (released if (factor, theta) == (1 + 5e-6, 5e5) else Rope(theta, "divided", divisors=changed))
    larger = llama3_divisors(Rope(5e5, "llama3", 32.0, 8192), 64)
    assert _from_divisors(tuple(larger), 5e5, 64) == Rope(5e5, "llama3", 32.0, 8192)


def test_alibi_s_slopes_are_powers_for_any_number_of_heads() -> None:
    assert bloom.alibi_slopes(1) == (2**-8,) and bloom.alibi_slopes(2) == (2**-4, 2**-8)
    assert bloom.alibi_slopes(3) == (2**-4, 2**-8, 2**-2)
    assert bloom.alibi_slopes(7) == (2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3, 2**-5)
    assert bloom.alibi_slopes(8) == tuple(2.0 ** -(head + 1) for head in range(8))
    assert mpt.alibi_slopes(1, 8) == (2**-8,) and mpt.alibi_slopes(2, 4) == (2**-2, 2**-4)
    assert mpt.alibi_slopes(3, 8) == (2**-4, 2**-8, 2**-2)
    assert mpt.alibi_slopes(5, 8) == (2**-2, 2**-4, 2**-6, 2**-8, 2**-1)
    assert [len(mpt.alibi_slopes(heads, 8)) for heads in (0, 4096, 4097, 10**9)] == [1, 4096, 4096, 4096]
    assert [len(bloom.alibi_slopes(heads)) for heads in (4096, 4097, 10**9)] == [4096, 4096, 4096]
    assert mpt._largest(read("mpt", MPT, attn_config={"alibi_bias_max": 5})) == 5.0
    assert mpt._largest(read("llama")) == 8.0


def test_periods_and_lengths_of_nought_in_gguf_files() -> None:
    given = {"rope.freq_base": 500.0, "attention.sliding_window": 7, "attention.key_length": 12}
    a = read_gguf(gemma, "gemma3", {**given, "attention.sliding_window_pattern": 1})
    assert (a.windows, a.ropes) == ((None,) * 5, (Rope(500.0),) * 5)
    assert read_gguf(gemma, "gemma3", {**given, "final_logit_softcapping": 0}).logit_softcap is None
    assert read_gguf(llama, "llama", {"attention.sliding_window": 0}).windows == (None,) * 5
    with pytest.raises(ConfigError, match=r"^max_position is 0: expected a whole number of 1 or more$"):
        read_gguf(llama, "llama", {"context_length": 0})
    latent = {
        "rope.dimension_count": 4, "attention.kv_lora_rank": 24, "attention.key_length_mla": 4,
        "attention.value_length_mla": 10, "expert_count": 12, "expert_used_count": 3, "expert_feed_forward_length": 20,
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"^latent attention's nope_dim is 0: expected 1 or more, below 2\*\*20$"):
        read_gguf(deepseek_gguf, "deepseek2", latent)


def test_gemma_3s_ropes_are_written_by_their_layers_wherever_the_first_full_one_is() -> None:
    full, near = "full_attention", "sliding_attention"
    given: dict[str, Any] = {"num_key_value_heads": 2, "sliding_window": 7}
    ropes = {
        full: {"rope_type": "default", "rope_theta": 5e5},
        near: {"rope_type": "default", "rope_theta": 2e4},
    }
    for kinds in ([full, near, near], [near, full, near], [full, full, near], [near, near, near], [full, full, full]):
        a = read("gemma3_text", **given, num_hidden_layers=3, layer_types=kinds, rope_parameters=ropes)
        assert a.ropes == tuple(Rope(5e5) if kind == full else Rope(2e4) for kind in kinds)
        written = gemma.to_config(a)
        wanted = {
            kind: ropes[kind]["rope_theta"] if kind in kinds else usual for kind, usual in ((full, 1e6), (near, 1e4))
        }
        assert {kind: each["rope_theta"] for kind, each in written["rope_parameters"].items()} == wanted, kinds
        assert (written["layer_types"], written["sliding_window"]) == (kinds, 7 if near in kinds else 4096)
        least = {**LEAST, "num_hidden_layers": 3, "max_position_embeddings": a.max_position, "head_dim": a.head_dim}
        assert read("gemma3_text", least, **{k: v for k, v in written.items() if k not in ("model_type", *least)}) == a
