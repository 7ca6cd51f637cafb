"""The architecture that each family reads from GGUF metadata: every key alone counts, and what is absent has its default."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ModelFileError
from firsthand.formats.fields import Fields
from firsthand.formats.gguf_file import GGUF, read_gguf
from firsthand.formats.gguf_output import PlannedTensor, packed_pair, write_tensors
from firsthand.formats.model_files import TensorInfo
from firsthand.nn.architecture import Architecture, ExpertSettings, LatentSettings, Rope
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
from firsthand.nn.families.rope_config import rope_from_gguf

SIZES = {
    "block_count": 5, "embedding_length": 48, "feed_forward_length": 90, "attention.head_count": 6,
    "attention.head_count_kv": 3, "context_length": 300, "attention.layer_norm_rms_epsilon": 0.01,
    "attention.layer_norm_epsilon": 0.02,
}  # fmt: skip
PLAIN = Architecture(
    "llama", 70, 48, 90, 5, 6, num_kv_heads=3, head_dim=8, max_position=300, norm_eps=0.01, windows=(None,) * 5,
    ropes=(Rope(),) * 5, tie_embeddings=True,
)  # fmt: skip
ALL = (True,) * 5
NONE = Rope(kind="none")
Q_BIAS, O_BIAS, DOWN_BIAS = "blk.0.attn_q.bias", "blk.0.attn_output.bias", "blk.0.ffn_down.bias"


def read(
    family: ModuleType, kind: str, metadata: dict[str, Any] | None = None, *tensors: str, without: str = ""
) -> Architecture:
    """The architecture of a file whose tensors have no values: the vocabulary has 70 rows, and there are 310 positions."""
    shapes = dict.fromkeys(tensors, (48, 48)) | {"token_embd.weight": (70, 48), "position_embd.weight": (310, 48)}
    infos = {name: TensorInfo(name, shape, "F32", 0, 4) for name, shape in shapes.items()}
    pairs = {f"{kind}.{key}": value for key, value in (SIZES | (metadata or {})).items() if key != without}
    found: Architecture = family.from_gguf(
        GGUF(Path("models/a.gguf"), pairs, infos), Fields(pairs, "a.gguf", f"{kind}.")
    )
    return found


def like(**changes: Any) -> Architecture:
    """The plain one with other settings; the scale of attention is worked out from the head's width."""
    return replace(PLAIN, **({"attention_scale": 0.0} | changes))


def test_llama_and_qwen_read_sizes_from_metadata_and_biases_from_tensors() -> None:
    assert read(llama, "llama") == PLAIN
    assert read(llama, "llama", {"attention.key_length": 12}, without="attention.head_count_kv") == like(
        head_dim=12, num_kv_heads=6
    )
    assert read(llama, "llama", {"attention.sliding_window": 7, "rope.freq_base": 500.0}, "output.weight") == like(
        windows=(7,) * 5, ropes=(Rope(500.0),) * 5, tie_embeddings=False
    )
    for tensor, setting in ((Q_BIAS, "qkv_bias"), (O_BIAS, "o_bias"), (DOWN_BIAS, "mlp_bias")):
        assert read(llama, "llama", {}, tensor) == like(**{setting: True})
    assert read(llama, "llama", {"expert_count": 6, "expert_used_count": 2}) == like(
        family="mixtral", experts=ExpertSettings(6, 2, 90, ALL)
    )
    assert read(llama, "llama", {"expert_count": 0, "expert_used_count": 2}) == PLAIN
    with pytest.raises(ModelFileError, match=r"^a\.gguf has no llama\.context_length: expected a whole number"):
        read(llama, "llama", without="context_length")
    for kind in ("qwen2", "qwen3"):
        own = {"family": kind, "qk_norm": kind == "qwen3"}
        assert read(qwen, kind) == like(**own)
        assert read(qwen, kind, {"attention.key_length": 12}, without="attention.head_count_kv") == like(
            **own, head_dim=12, num_kv_heads=6
        )
        assert read(qwen, kind, {"rope.freq_base": 500.0}, "output.weight", Q_BIAS) == like(
            **own, ropes=(Rope(500.0),) * 5, tie_embeddings=False, qkv_bias=True
        )
        assert read(qwen, kind, {"attention.sliding_window": 7}, O_BIAS, DOWN_BIAS) == like(**own, o_bias=True)


def test_qwens_experts_in_gguf_renormalise_in_the_third_and_have_a_gated_shared_one_in_the_second() -> None:
    given = {
        "expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": 20, "leading_dense_block_count": 2,
        "expert_shared_feed_forward_length": 30, "rope.freq_base": 500.0,
    }  # fmt: skip
    layers = (False, False, True, True, True)
    assert read(qwen_moe, "qwen2moe", given, Q_BIAS) == like(
        family="qwen2_moe", qkv_bias=True, ropes=(Rope(500.0),) * 5,
        experts=ExpertSettings(6, 2, 20, layers, renormalise=False, shared_width=30, has_shared_gate=True),
    )  # fmt: skip
    for kind in ("qwen2moe", "qwen3moe"):
        for tensors, settings in (((), (False, False)), ((Q_BIAS, O_BIAS), (True, True)), ((Q_BIAS,), (True, False))):
            found = read(qwen_moe, kind, given, *tensors)
            assert (found.qkv_bias, found.o_bias) == settings, "as the file has them"
    assert read(qwen_moe, "qwen3moe", given, O_BIAS) == like(
        family="qwen3_moe", o_bias=True, qk_norm=True, ropes=(Rope(500.0),) * 5,
        experts=ExpertSettings(6, 2, 20, layers, renormalise=True),
    )  # fmt: skip
    fewer = {**given, "leading_dense_block_count": 0, "expert_shared_feed_forward_length": None}
    assert read(qwen_moe, "qwen2moe", fewer).experts == ExpertSettings(
        6, 2, 20, ALL, renormalise=False, has_shared_gate=True
    )


def test_gemma_2_alternates_windows_and_the_27b_scales_by_its_width_over_its_heads() -> None:
    first = like(family="gemma", activation="gelu_tanh", norm_unit_offset=True, embed_scale=48**0.5)
    assert read(gemma2, "gemma", {"attention.sliding_window": 7, "attn_logit_softcapping": 9.0}) == first
    assert read(gemma2, "gemma", {"rope.freq_base": 500.0, "attention.key_length": 12}, "output.weight") == replace(
        first, ropes=(Rope(500.0),) * 5, head_dim=12, attention_scale=0.0, tie_embeddings=False
    )
    second = replace(
        first, family="gemma2", windows=(4096, None, 4096, None, 4096), attention_softcap=50.0, logit_softcap=30.0,
        norm_placement="sandwich",
    )  # fmt: skip
    assert read(gemma2, "gemma2") == second
    given = {"attention.sliding_window": 7, "attn_logit_softcapping": 9.0, "final_logit_softcapping": 11.0}
    assert read(gemma2, "gemma2", given) == replace(
        second, windows=(7, None, 7, None, 7), attention_softcap=9.0, logit_softcap=11.0
    )
    given = {"attention.sliding_window": 0, "attn_logit_softcapping": 0.0, "final_logit_softcapping": 0.0}
    assert read(gemma2, "gemma2", given) == replace(
        second, windows=(None,) * 5, attention_softcap=None, logit_softcap=None
    )
    for layers, scale in ((45, 12**-0.5), (46, 8**-0.5), (47, 12**-0.5)):
        big = read(gemma2, "gemma2", {"block_count": layers, "attention.key_length": 12})
        assert (big.attention_scale, big.head_dim, len(big.ropes), len(big.windows)) == (scale, 12, layers, layers)


def test_gemma_3_has_a_global_layer_every_so_often_with_a_rope_of_its_own() -> None:
    near, far = Rope(10_000.0), Rope(500.0)
    base = like(
        family="gemma3", head_dim=256, qk_norm=True, activation="gelu_tanh", norm_placement="sandwich",
        norm_unit_offset=True, embed_scale=48**0.5,
    )  # fmt: skip
    assert read(gemma, "gemma3", {"rope.freq_base": 500.0}) == replace(base, ropes=(near,) * 5)
    given = {
        "rope.freq_base": 500.0, "rope.freq_base_swa": 20.0, "attention.sliding_window": 7, "attention.key_length": 12,
        "attention.sliding_window_pattern": 2, "final_logit_softcapping": 11.0,
    }  # fmt: skip
    a = read(gemma, "gemma3", given, "output.weight")
    assert a == replace(
        base, head_dim=12, attention_scale=0.0, windows=(7, None, 7, None, 7), logit_softcap=11.0, tie_embeddings=False,
        ropes=(Rope(20.0), far, Rope(20.0), far, Rope(20.0)),
    )  # fmt: skip
    twelve = read(
        gemma, "gemma3", {"block_count": 12, "attention.sliding_window": 7}, without="attention.head_count_kv"
    )
    assert [layer for layer, window in enumerate(twelve.windows) if window is None] == [5, 11]
    assert twelve.num_kv_heads == 6
    never = read(gemma, "gemma3", {**given, "attention.sliding_window_pattern": 0})
    assert (never.windows, never.ropes) == ((7,) * 5, (far,) * 5)
    for layers, scale in ((61, 12**-0.5), (62, 8**-0.5), (63, 12**-0.5)):
        assert read(gemma, "gemma3", {"block_count": layers, "attention.key_length": 12}).attention_scale == scale


def test_deepseek_reads_its_latent_and_takes_the_stretch_of_yarn_into_the_scores() -> None:
    given = {
        "rope.dimension_count": 4, "attention.kv_lora_rank": 24, "attention.key_length_mla": 16,
        "attention.value_length_mla": 10, "expert_count": 12, "expert_used_count": 3, "expert_feed_forward_length": 20,
        "leading_dense_block_count": 1, "rope.freq_base": 500.0,
    }  # fmt: skip
    layers = (False, True, True, True, True)
    second = like(
        family="deepseek_v2", num_kv_heads=1, head_dim=28, rotary_dim=4, attention_scale=0.25,
        latent=LatentSettings(24, 12, 4, 10, 0, norm_eps=0.01), ropes=(Rope(500.0),) * 5,
        experts=ExpertSettings(12, 3, 20, layers, renormalise=False),
    )  # fmt: skip
    assert read(deepseek_gguf, "deepseek2", given) == second
    more = {
        "expert_gating_func": 2, "expert_weights_norm": True, "expert_weights_scale": 2.5, "expert_group_count": 4,
        "expert_group_used_count": 2, "expert_shared_count": 3, "attention.q_lora_rank": 40,
    }  # fmt: skip
    assert read(deepseek_gguf, "deepseek2", given | more) == replace(
        second, family="deepseek_v3", latent=LatentSettings(24, 12, 4, 10, 40, norm_eps=0.01),
        experts=ExpertSettings(
            12, 3, 20, layers, score="sigmoid", renormalise=True, scale=2.5, num_groups=4, groups_per_token=2,
            group_score="top2", has_correction=True, shared_width=60,
        ),
    )  # fmt: skip
    zeros = {"expert_weights_scale": 0.0, "expert_group_count": 0, "expert_group_used_count": 0}
    assert read(deepseek_gguf, "deepseek2", given | zeros | {"expert_gating_func": 1}) == second
    yarn = {
        "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 75,
        "rope.scaling.yarn_log_multiplier": 0.05, "rope.scaling.yarn_beta_fast": 9.0,
    }  # fmt: skip
    stretched = read(deepseek_gguf, "deepseek2", given | yarn)
    [rope] = set(stretched.ropes)
    assert replace(rope, attention_factor=1.0) == Rope(500.0, "yarn", 4.0, 75, beta_fast=9.0)
    assert rope.attention_factor == pytest.approx(1.0)
    assert stretched.attention_scale == pytest.approx(0.25 * (1 + 0.05 * math.log(4)) ** 2)
    plain = read(deepseek_gguf, "deepseek2", given | yarn | {"rope.scaling.yarn_log_multiplier": None})
    assert plain.attention_scale == 0.25 and plain.ropes == stretched.ropes


def test_gpt_oss_in_gguf_has_windows_in_even_layers_and_experts_with_biases() -> None:
    given = {
        "expert_count": 6,
        "expert_used_count": 2,
        "expert_feed_forward_length": 20,
        "leading_dense_block_count": 1,
    }
    base = like(
        family="gpt_oss", windows=(128, None, 128, None, 128), qkv_bias=True, o_bias=True, has_sinks=True,
        activation="clamped_silu",
        experts=ExpertSettings(6, 2, 20, (False, *ALL[1:]), score="softmax_of_chosen", has_bias=True),
    )  # fmt: skip
    assert read(gpt_oss, "gpt-oss", given) == base
    assert read(gpt_oss, "gpt-oss", {**given, "attention.sliding_window": 0}).windows == (None,) * 5
    a = read(gpt_oss, "gpt-oss", {**given, "attention.sliding_window": 7, "rope.freq_base": 500.0}, "output.weight")
    assert a == replace(base, windows=(7, None, 7, None, 7), ropes=(Rope(500.0),) * 5, tie_embeddings=False)


def test_families_with_layer_norm_read_its_epsilon_and_their_positions() -> None:
    layer: dict[str, Any] = {"norm_eps": 0.02}
    turned = {"rope.freq_base": 500.0}
    assert read(gpt2, "gpt2", turned) == like(
        family="gpt2", learned_positions=310, ropes=(NONE,) * 5, **layer, **gpt2.SWITCHES
    )
    assert read(bloom, "bloom", turned) == like(
        family="bloom", ropes=(NONE,) * 5, alibi_slopes=(2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3), **layer,
        **bloom.SWITCHES,
    )  # fmt: skip
    # six heads take the odd slopes of eight, then the even ones
    eighth = [2 ** -(head + 1) for head in range(8)]
    slopes = (*eighth[1::2], *eighth[::2])[:6]
    base = like(family="mpt", ropes=(NONE,) * 5, alibi_slopes=slopes, **layer, **mpt.SWITCHES)
    assert read(mpt, "mpt") == base == read(mpt, "mpt", {"attention.clamp_kqv": 0.0})
    given = {"attention.clamp_kqv": 6.0, "attention.max_alibi_bias": 64.0}
    assert read(mpt, "mpt", given) == replace(
        base, clip_qkv=6.0, alibi_slopes=tuple(slope**8 for slope in slopes), attention_scale=0.0
    )
    for wrong in (0.0, -8.0, 64.5):
        with pytest.raises(
            ModelFileError,
            match=rf"^a\.gguf: mpt\.attention\.max_alibi_bias is '{wrong}': expected above 0, and 64 at most$",
        ):
            read(mpt, "mpt", {"attention.max_alibi_bias": wrong})
    for tensor, has in (("blk.0.ffn_up.bias", True), (DOWN_BIAS, False)):
        biases = {"qkv_bias": has, "o_bias": has, "mlp_bias": has, "activation": "gelu_tanh"}
        assert read(starcoder2, "starcoder2", {**turned, "attention.sliding_window": 7}, tensor) == like(
            family="starcoder2", ropes=(Rope(500.0),) * 5, **layer, **biases, **starcoder2.SWITCHES
        )


def test_stablelm_turns_a_part_of_each_head_and_refuses_its_larger_variants() -> None:
    base = like(family="stablelm", norm_eps=0.02, norm="layer")
    assert read(stablelm, "stablelm") == base == read(stablelm, "stablelm", {"rope.dimension_count": 8})
    given = {"rope.dimension_count": 2, "use_parallel_residual": False, "rope.freq_base": 500.0}
    assert read(stablelm, "stablelm", given, Q_BIAS, "output.weight") == replace(
        base, rotary_dim=2, qkv_bias=True, ropes=(Rope(500.0),) * 5, tie_embeddings=False
    )
    said = r"^a\.gguf: stablelm\.use_parallel_residual is 'True': expected false, and heads without norms of their own$"
    with pytest.raises(ModelFileError, match=said):
        read(stablelm, "stablelm", {"use_parallel_residual": True})
    with pytest.raises(ModelFileError, match=said):
        read(stablelm, "stablelm", {}, "blk.0.attn_q_norm.weight")


def test_smollm3_has_no_positions_in_every_fourth_layer_and_olmo2_norms_after_its_parts() -> None:
    turned = Rope(500.0)
    given = {"rope.freq_base": 500.0, "block_count": 8}
    assert read(smollm3, "smollm3", given) == like(
        family="smollm3", num_layers=8, windows=(None,) * 8, ropes=(turned, turned, turned, NONE) * 2
    )
    assert read(olmo2, "olmo2", {"rope.freq_base": 500.0}) == like(
        family="olmo2", ropes=(turned,) * 5, norm_placement="post", qk_norm=True, qk_norm_over="projection"
    )


def test_as_many_heads_of_keys_as_of_queries_are_read_where_a_file_of_any_family_does_not_say() -> None:
    mixture = {"expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": 20}
    families: tuple[tuple[ModuleType, str, dict[str, Any]], ...] = (
        (llama, "llama", {}), (qwen, "qwen3", {}), (gemma, "gemma3", {}), (gemma2, "gemma", {}), (gemma2, "gemma2", {}),
        (gpt2, "gpt2", {}), (bloom, "bloom", {}), (mpt, "mpt", {}), (phi3, "phi3", {}), (olmo2, "olmo2", {}),
        (smollm3, "smollm3", {}), (stablelm, "stablelm", {}), (starcoder2, "starcoder2", {}),
        (qwen_moe, "qwen3moe", mixture), (gpt_oss, "gpt-oss", mixture),
    )  # fmt: skip
    for family, kind, given in families:
        for heads in (6, 8):
            wide = {"attention.key_length": 12, **given, "attention.head_count": heads}
            found = read(family, kind, wide, without="attention.head_count_kv")
            assert (found.num_heads, found.num_kv_heads) == (heads, heads), kind
        assert read(family, kind, given).num_kv_heads == 3, kind


def test_a_phi3_file_may_turn_a_part_of_each_head_and_have_divisors_of_two_lengths(tmp_path: Path) -> None:
    assert read(phi3, "phi3", {"attention.sliding_window": 0}) == like(family="phi3")
    given = {"attention.sliding_window": 7, "rope.dimension_count": 4, "rope.freq_base": 500.0}
    part = like(family="phi3", windows=(7,) * 5, rotary_dim=4, ropes=(Rope(500.0),) * 5)
    assert read(phi3, "phi3", given) == part
    values = {"rope_factors_long.weight": [2.0, 3.5], "rope_factors_short.weight": [1.0, 1.25]}

    def written(**changed: list[float]) -> GGUF:
        held = values | changed
        tensors = [PlannedTensor(name, (len(each),), "F32") for name, each in held.items()]
        tensors.append(PlannedTensor("token_embd.weight", (70, 48), "F32"))
        path = tmp_path / "phi.gguf"
        write_tensors(
            path,
            {"general.architecture": packed_pair("phi3")},
            tensors,
            lambda tensor: np.array(held.get(tensor.name, np.zeros((70, 48))), dtype=np.float32),
        )
        return read_gguf(path)

    def long(file: GGUF, **more: Any) -> Architecture:
        return phi3.from_gguf(file, Fields({**SIZES, **given, **more}, "a.gguf"))

    scaling = {"rope.scaling.original_context_length": 120, "rope.scaling.attn_factor": 1.5}
    rope = Rope(500.0, "longrope", 2.5, 120, attention_factor=1.5, divisors=(2.0, 3.5), short_divisors=(1.0, 1.25))
    assert long(written(), **scaling) == replace(part, ropes=(rope,) * 5)
    assert long(written()).ropes == (replace(rope, factor=1.0, original_max_position=300, attention_factor=1.0),) * 5
    for name in values:
        file = written(**{name: [1.0, 2.0, 3.0]})
        with pytest.raises(ModelFileError, match=rf"phi\.gguf: {name} needs 2 values, one for each pair$"):
            long(file)


def test_a_gguf_s_rope_is_scaled_as_it_says_and_turns_whole_heads_unless_a_part_is_allowed() -> None:
    def rope(may_be_partial: bool = False, **given: Any) -> Rope:
        pairs = {f"x.rope.{key.replace('__', '.')}": value for key, value in given.items()} | {"x.context_length": 300}
        fields = Fields(pairs, "a.gguf", "x.")
        return rope_from_gguf(GGUF(Path("a.gguf"), pairs, {}), fields, 8, may_be_partial=may_be_partial)

    assert rope() == Rope() and rope(freq_base=500.0, dimension_count=8) == Rope(500.0)
    assert rope(scale_linear=2.0) == rope(scaling__factor=2.0, scale_linear=3.0) == Rope(kind="linear", factor=2.0)
    assert rope(scaling__type="none", scaling__factor=2.0) == rope(scaling__type="yarn") == Rope()
    grown = 0.1 * math.log(4) + 1
    yarn = {"scaling__type": "yarn", "scaling__factor": 4.0}
    assert rope(**yarn) == Rope(10_000.0, "yarn", 4.0, 300, attention_factor=grown)
    more = {"scaling__attn_factor": 0.5, "scaling__original_context_length": 75, "scaling__yarn_beta_fast": 9.0,
            "scaling__yarn_beta_slow": 2.0}  # fmt: skip
    assert rope(**yarn, **more) == Rope(
        10_000.0, "yarn", 4.0, 75, beta_fast=9.0, beta_slow=2.0, attention_factor=0.5 * grown
    )
    with pytest.raises(ModelFileError) as refused:
        rope(dimension_count=4)
    assert str(refused.value) == "a.gguf: x.rope.dimension_count is '4': expected 8 (all of each head is turned)"
    assert rope(True, dimension_count=4, freq_base=500.0) == Rope(500.0)
