"""Plans by parts: shapes, memory and operations by hand, bounds and expectations from measurements, and their notes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, ModelFileError
from firsthand.hub.encoder_planner import EncoderPlan, ExpectedTexts, _expect, _tokens_bound, plan_encoder
from firsthand.hub.encoder_planner import _notes as encoder_notes
from firsthand.hub.inspection import Inspection
from firsthand.hub.model_shapes import DecoderShape, shape_from_architecture, shape_from_config
from firsthand.hub.planner import (
    Bound,
    Expected,
    _bound,
    _distance,
    _notes,
    _weight_bytes,
    busy_note,
    expect,
    nearest,
    plan,
)
from firsthand.hub.resource_plan import (
    BITS,
    MachineSpec,
    ServingPlan,
    TrainingNeeds,
    adapter_parameters,
    bits_of,
    forward_flops,
    layer_activations,
    machine_of,
    plan_serving,
    plan_training_memory,
)
from firsthand.measure.machine_speeds import Speeds
from firsthand.measure.measurements import DECODE, EMBEDDED, EMBEDDED_TOKENS, PREFILL, BenchResult, Measured
from firsthand.measure.speed_bounds import SpeedLimits
from firsthand.nn.architecture import Architecture, ExpertSettings, LatentSettings, Rope
from firsthand.nn.matrices import num_active_parameters, num_parameters

S = DecoderShape(10, 8, 3, 4, 2, 5, 7, max_position=100, window=6, windowed_layers=2)
# attention 8 x 5 x 8 + 4 x 5 x 8 = 480, norms 16, MLP 3 x 8 x 7 = 168: a layer has 664, tables 160, the last norm 8
MATRICES = 3 * 664 + 80
MACHINE = MachineSpec("m", 2e-6, 1e-8, 1.0)
"""2,000 bytes and 10,000 operations a second."""


def test_serving_is_bounded_by_the_slower_of_reading_and_products_at_full_context() -> None:
    assert plan_serving(S, "int8", context=20, batch=3, kv_bits=8) == ServingPlan(
        2160, 2160, 2295, 60, 1920, 2 * MATRICES + 4 * 60 * (10 / 3 + 4), 4215, None, None, None
    )
    slow_reads = plan_serving(S, "int8", context=20, batch=3, kv_bits=8, machine=MACHINE)
    assert slow_reads.decode_tokens_s == pytest.approx(3 / ((MATRICES * 8.5 / 8 + 1920) / 2000))
    assert slow_reads.prefill_tokens_s == pytest.approx(1e4 / (2 * MATRICES + 240 * (10 / 3 + 4))) and slow_reads.fits
    slow_products = plan_serving(S, "int8", context=20, batch=3, kv_bits=8, machine=replace(MACHINE, tflop_s=5e-9))
    assert slow_products.decode_tokens_s == pytest.approx(3 / (3 * (2 * MATRICES + 240 * (20 / 3 + 4)) / 5e3))
    number = plan_serving(1000, "float32", context=50, batch=4, machine=MACHINE)
    assert number == ServingPlan(1000, 1000, 4000, 0, 0, 2000.0, 4000, True, 4 / 2.0, 5.0)
    assert plan_serving(1000, "float32", machine=replace(MACHINE, tflop_s=1e-10)).decode_tokens_s == pytest.approx(0.05)
    for memory, fits in ((4000e-9, True), (3999e-9, False)):
        assert plan_serving(1000, "float32", machine=replace(MACHINE, memory_gb=memory)).fits is fits
    assert plan_serving(S).kv_bytes == 60 * 2 // 3 * (4096 + 2 * 6) and plan_serving(S).weight_bytes == 4320
    for options in ({"context": 0}, {"batch": 0}, {"context": 1 << 31}, {"batch": 1 << 31}):
        with pytest.raises(ConfigError, match="expected whole numbers of 1 or more"):
            plan_serving(S, **options)  # type: ignore[arg-type]
    assert plan_serving(S, context=1, batch=1).kv_bytes == 120


def test_training_takes_weights_gradients_moments_and_activations_of_each_method() -> None:
    options: dict[str, Any] = {"context": 20, "batch": 3, "rank": 2}
    flops = 2 * MATRICES + 4 * 60 * (10 / 3 + 4)
    # a layer keeps 6 x 8 + 3 x 20 + 3 x 10 + 4 x 7 = 166 values of each of 60 tokens, and logits take 2 x 4 x 60 x 10
    full = plan_training_memory(S, "full", **options)
    assert full == TrainingNeeds(
        "full", 2160, 4320, 4320, 25920, 3 * 19920 + 4800, 3 * 960 + 19920 + 4800, 3 * flops, 34560 + 64560, 34560 + 27600,
        None, None,
    )  # fmt: skip
    wide = plan_training_memory(S, "full", "float32", **options)
    assert (wide.weight_bytes, wide.gradient_bytes, wide.optimizer_bytes) == (8640, 8640, 17280)
    assert (wide.activation_bytes, wide.checkpointed_bytes) == (3 * 39840 + 4800, 3 * 1920 + 39840 + 4800)
    # adapters: 3 layers x rank 2 x (2 (8 + 20) + 2 (8 + 10) + 3 (8 + 7))
    lora = plan_training_memory(S, "lora", "int8", **options)
    assert adapter_parameters(S, 2) == 822 == lora.trained_parameters
    assert (lora.weight_bytes, lora.gradient_bytes, lora.optimizer_bytes) == (2125 + 170 + 3288, 3288, 6576)
    assert (lora.activation_bytes, lora.flops_per_token) == (64560, 2 * flops)
    qlora = plan_training_memory(S, "qlora", "float32", **options)
    assert qlora.weight_bytes == round(2000 * BITS["nf4"] / 8) + 320 + 3288 == 1032 + 320 + 3288
    assert qlora.activation_bytes == wide.activation_bytes
    needs = full.checkpointed_total_bytes
    for memory, fits in ((needs / 1e9, True), ((needs - 1) / 1e9, False)):
        found = plan_training_memory(S, "full", **options, machine=replace(MACHINE, memory_gb=memory))
        assert (found.fits, found.tokens_s) == (fits, 1e4 / (3 * flops))
    with pytest.raises(ConfigError, match="dtype is int8: weights that are trained need float32, bfloat16 or float16"):
        plan_training_memory(S, "full", "int8")
    with pytest.raises(ConfigError, match="context is 0 and batch 1"):
        plan_training_memory(S, "lora", context=0)
    assert plan_training_memory(S, "lora").trained_parameters == 8 * 822


def test_a_layer_keeps_and_adapts_what_its_mlp_or_its_experts_have() -> None:
    plain = replace(S, gated=False)
    assert (layer_activations(S), layer_activations(plain)) == (166, 48 + 90 + 14)
    mixed = replace(S, num_experts=6, experts_per_token=2, expert_size=3, shared_size=4)
    assert layer_activations(mixed) == 48 + 90 + 4 * (2 * 3 + 4)
    assert adapter_parameters(plain, 1) == 3 * (92 + 2 * 15) and adapter_parameters(mixed, 1) == 3 * (92 + 6 * 3 * 11)
    assert forward_flops(replace(S, window=None), 9) == 2 * MATRICES + 240 * 9
    assert forward_flops(S, 5) == 2 * MATRICES + 240 * 5 and adapter_parameters(S, 65535) == 65535 * 411
    for rank in (0, 65536):
        with pytest.raises(ConfigError, match=f"rank is {rank}: expected 1 or more"):
            adapter_parameters(S, rank)


def test_types_and_machines_are_found_by_name() -> None:
    assert {name: bits_of(name) for name in BITS} == {
        "float32": 32, "bfloat16": 16, "float16": 16, "fp8": 8, "int8": 8.5, "int4": 4.5, "nf4": 4.126953125,
    }  # fmt: skip
    with pytest.raises(ConfigError) as wrong:
        bits_of("int3")
    assert str(wrong.value) == (
        "dtype is 'int3': expected one of float32, bfloat16, float16, fp8, int8, int4, nf4"
    )  # fmt: skip
    assert machine_of("H100") == MachineSpec("h100", 3350, 989, 80)
    assert machine_of("1.5:2:3e2") == MachineSpec("1.5:2:3e2", 1.5, 2.0, 300.0)
    for text in ("1:2", "1:2:3:4", "h101", "a:b:c"):
        with pytest.raises(ConfigError, match=f"no machine '{text}'; "):
            machine_of(text)
    for field in ("read_gb_s", "tflop_s", "memory_gb"):
        for value in (0, 1e9, float("nan")):
            with pytest.raises(ConfigError, match=f"{field} of the machine is "):
                replace(MACHINE, **{field: value})


def architecture(**more: Any) -> Architecture:
    whole: dict[str, Any] = {
        "family": "llama", "vocab_size": 11, "hidden_size": 12, "intermediate_size": 20, "num_layers": 3, "num_heads": 4,
        "num_kv_heads": 2, "head_dim": 6, "max_position": 64, "norm_eps": 1e-5, "windows": (None,) * 3,
        "ropes": (Rope(),) * 3, "tie_embeddings": True,
    }  # fmt: skip
    return Architecture(**{**whole, **more})


def test_the_shape_of_a_loaded_model_counts_what_the_model_has() -> None:
    plain = architecture(windows=(8, None, 6), qkv_bias=True, qk_norm=True, tie_embeddings=False)
    assert shape_from_architecture(plain) == DecoderShape(
        11, 12, 3, 4, 2, 6, 20, max_position=64, tied=False, qkv_bias=True, qk_norm=True, window=8, windowed_layers=2
    )
    biased: dict[str, Any] = {"qkv_bias": True, "o_bias": True, "mlp_bias": True, "norm": "layer", "is_gated": False}
    gpt = architecture(**biased, learned_positions=64)
    experts = ExpertSettings(4, 2, 7, (False, True, True), shared_width=5)
    latent = LatentSettings(rank=8, nope_dim=4, rope_dim=2, value_dim=3, query_rank=5)
    deep = architecture(latent=latent, num_kv_heads=1, head_dim=10, rotary_dim=2, experts=experts)
    for each in (plain, gpt, architecture(experts=experts), deep):
        shape = shape_from_architecture(each)
        assert (shape.parameters, shape.active_parameters) == (num_parameters(each), num_active_parameters(each))
    assert shape_from_architecture(deep) == DecoderShape(
        11, 12, 3, 4, 1, 4, 20, max_position=64, tied=True, num_experts=4, experts_per_token=2, expert_size=7, shared_size=5,
        dense_layers=1, kv_rank=8, q_rank=5, rope_dim=2, value_dim=3,
    )  # fmt: skip
    assert shape_from_architecture(deep).kv_values_per_token == 3 * 10
    biases = ("qkv_bias", "o_bias", "mlp_bias")
    for has, expected in (
        ((True, True, False), (True, False)), ((False, False, True), (False, False)), ((True, False, True), (True, False)),
        ((False, True, True), (False, True)),
    ):  # fmt: skip
        shape = shape_from_architecture(architecture(**dict(zip(biases, has, strict=True))))
        assert (shape.qkv_bias, shape.other_bias) == expected, has
    assert shape_from_architecture(gpt).learned_positions and not shape_from_architecture(gpt).gated


def test_a_configuration_gives_each_size_by_its_first_name_and_its_defaults() -> None:
    least = {"vocab_size": 11, "n_embd": 13, "n_layers": 4, "n_heads": 3}
    assert shape_from_config(least, "c") == DecoderShape(11, 13, 4, 3, 3, 4, 52)
    both = {**least, "hidden_size": 6, "d_model": 9, "num_hidden_layers": 2, "num_attention_heads": 1, "n_ctx": 21,
            "max_seq_len": 22, "ffn_dim": 5}  # fmt: skip
    assert shape_from_config(both, "c") == DecoderShape(11, 6, 2, 1, 1, 6, 5, max_position=21)
    more = {
        **least, "num_key_value_heads": 1, "head_dim": 9, "intermediate_size": 8, "n_inner": 7, "max_position_embeddings": 5,
        "tie_word_embeddings": True, "sliding_window": 3,
    }  # fmt: skip
    whole = DecoderShape(11, 13, 4, 3, 1, 9, 8, max_position=5, tied=True, window=3, windowed_layers=4)
    assert shape_from_config(more, "c") == whole == shape_from_config({"text_config": more}, "c")
    assert shape_from_config({**more, "use_sliding_window": False}, "c") == replace(
        whole, window=None, windowed_layers=0
    )
    kinds = {
        kind: shape_from_config({**more, "model_type": kind}, "c")
        for kind in ("gpt2", "opt", "bloom", "qwen2", "qwen2_moe", "qwen3", "gemma3_text")
    }
    plain = replace(whole, gated=False, qkv_bias=True, other_bias=True)
    assert kinds["bloom"] == plain and kinds["gpt2"] == kinds["opt"] == replace(plain, learned_positions=True)
    assert kinds["qwen2"] == kinds["qwen2_moe"] == replace(whole, qkv_bias=True)
    assert kinds["qwen3"] == kinds["gemma3_text"] == replace(whole, qk_norm=True)
    untied = {name: value for name, value in more.items() if name != "tie_word_embeddings"}
    assert shape_from_config({**untied, "model_type": "gpt2"}, "c").tied and not shape_from_config(untied, "c").tied
    deep = {
        **more, "n_routed_experts": 6, "num_experts_per_token": 2, "moe_intermediate_size": 5, "n_shared_experts": 3,
        "shared_expert_intermediate_size": 99, "first_k_dense_replace": 1, "kv_lora_rank": 4, "q_lora_rank": 2,
        "qk_nope_head_dim": 7, "qk_rope_head_dim": 1, "v_head_dim": 10, "sliding_window": None,
    }  # fmt: skip
    assert shape_from_config(deep, "c") == replace(
        whole, head_dim=7, window=None, windowed_layers=0, num_experts=6, experts_per_token=2, expert_size=5, shared_size=15,
        dense_layers=1, kv_rank=4, q_rank=2, rope_dim=1, value_dim=10,
    )  # fmt: skip
    dense = {name: value for name, value in deep.items() if name not in ("n_routed_experts", "kv_lora_rank")}
    assert shape_from_config(dense, "c") == replace(whole, window=None, windowed_layers=0, experts_per_token=2)
    named = {**more, "num_experts": 4, "num_experts_per_tok": 4, "shared_expert_intermediate_size": 9}
    assert shape_from_config(named, "c") == replace(
        whole, num_experts=4, experts_per_token=4, expert_size=8, shared_size=9
    )
    with pytest.raises(ModelFileError, match=r"^c: experts_per_token is 5: expected 1 to num_experts"):
        shape_from_config({**named, "num_experts_per_tok": 5}, "c")
    with pytest.raises(ModelFileError, match="vocab_size"):
        shape_from_config({"n_embd": 1, "n_layers": 1, "n_heads": 1}, "c")


FACTS = Inspection(
    path=Path("/m"), architecture="x", is_encoder=False, parameters=3000, active_parameters=2500, file_bytes=99,
    tensor_types={}, weight_bytes={}, kv_bytes={}, kv_bytes_per_token=40, window=1500, window_share=0.25,
    decode_parameters=2000, block_bytes=1700, head_parameters=300, attention_width=60, context=9000, vocabulary=11,
    has_chat_template=True, licence=None,
)  # fmt: skip
SPEEDS = Speeds(2, 20.0, 100.0, 200.0, 400.0)
GFLOP = (2 * (2000 - 300) + 4 * 60 * 513 / 2) / 1e9


def measured(*figures: tuple[str, tuple[float, ...]], **more: Any) -> BenchResult:
    made = tuple(Measured(name, "x/s", "x", values) for name, values in figures)
    whole: dict[str, Any] = {
        "model": "n", "path": "/n", "date": "2026-11-25", "command": "c", "machine": {}, "machine_line": "",
        "speeds": SPEEDS, "weights": "int8", "weight_bytes": 1000, "parameters": 900, "prefill_gflop": 1e-5,
        "figures": made, **more,
    }  # fmt: skip
    return BenchResult(**whole)


DECODED, FILLED = (DECODE, (1e6, 2e6, 5e6)), (PREFILL, (1e6, 2e6, 6e6))


def limits(*results: BenchResult, speeds: Speeds = SPEEDS) -> SpeedLimits:
    return SpeedLimits(speeds, results)


def test_a_bound_is_what_memory_and_products_allow_for_each_format() -> None:
    assert _bound(FACTS, limits(), "int8", 1700) == Bound("int8", 1700, 20e9 / 1700, 400 / GFLOP)
    assert _bound(FACTS, limits(), "float16", 4000) == Bound("float16", 4000, 20e9 / 4000, 100 / GFLOP)
    for unknown in ("head_parameters", "attention_width"):
        assert _bound(replace(FACTS, **{unknown: None}), limits(), "int8", 1).prefill is None
    fast = measured((DECODE, (30e6, 40e6)), (PREFILL, (500.0,)), prefill_gflop=1.0)
    assert _bound(FACTS, limits(fast), "int8", 1000) == Bound("int8", 1000, 40e9 / 1000, 500 / GFLOP)
    assert _bound(FACTS, limits(fast), "float16", 1001) == Bound("float16", 1001, 20e9 / 1001, 100 / GFLOP)


def test_expected_speeds_are_the_measured_share_of_the_bounds_or_the_measured_speeds_themselves() -> None:
    result = measured(DECODED, FILLED)
    share, filled = 2e6 * 1000 / 20e9, 2e6 * 1e-5 / 400
    other = Expected("n", "2026-11-25", False, "int8", share, filled, share * 20e9 / 1700, filled * 400 / GFLOP)
    assert expect(FACTS, limits(result), "m") == other
    assert expect(FACTS, limits(result), "n") == replace(other, is_same=True, decode=2e6, prefill=2e6)
    here = expect(replace(FACTS, path=Path("/n")), limits(result), "m")
    assert here == replace(other, is_same=True, decode=2e6, prefill=2e6)
    half = expect(FACTS, limits(replace(result, weights="float16")), "m")
    assert half == Expected("n", "2026-11-25", False, "float16", share, 2e6 * 1e-5 / 100, share * 20e9 / 4000,
                            2e6 * 1e-5 / 100 * 100 / GFLOP)  # fmt: skip
    unfilled = measured(DECODED)
    assert expect(FACTS, limits(unfilled), "m") == replace(other, prefill_share=None, prefill=None)
    shapeless = expect(replace(FACTS, head_parameters=None), limits(result), "m")
    assert shapeless == replace(other, prefill=None)
    assert expect(FACTS, limits(), "m") is expect(FACTS, limits(measured(FILLED)), "n") is None
    quick = replace(result, quick=True, model="m")
    assert expect(FACTS, limits(quick), "m") is None and expect(FACTS, limits(quick, result), "m") == other


def test_the_nearest_measurement_is_of_the_model_or_else_of_the_most_similar_size() -> None:
    small, large = measured(parameters=500, model="s"), measured(parameters=7000, model="l", path="/m")
    assert nearest([small, large], replace(FACTS, path=Path("/x")), "m") == (large, False)  # a factor of 3.5 is below 4
    assert nearest([small, large], FACTS, "s") == (small, True) and nearest([small, large], FACTS, "m") == (large, True)
    assert nearest([], FACTS, "m") == (None, False)
    assert _distance(500, 2000) == _distance(2000, 500) and _distance(0, 1) == 0 == _distance(1, 0)
    weights = {
        kind: _weight_bytes(FACTS, measured(weights=kind)) for kind in ("float32", "float16", "int8", "Q4_K and Q6_K")
    }
    assert weights == {"float32": 8000, "float16": 4000, "int8": 1700, "Q4_K and Q6_K": 1700}
    assert _weight_bytes(replace(FACTS, block_bytes=None), measured(weights="int8")) == 2125


def test_notes_say_where_a_benchmark_beat_what_was_measured_alone() -> None:
    kinds = {"float16": 1000, "int8": 1001}
    assert (
        list(_notes(limits(), kinds))
        == []
        == list(_notes(limits(measured((DECODE, (20e6,)), (PREFILL, (400.0,)), prefill_gflop=1.0)), kinds))
    )
    fast = measured((DECODE, (21.23e6,)), (PREFILL, (41e6,)))
    read = (
        "Weights in float16 are bounded by what a benchmark here read in a second, 21.2 GB: more than reading memory alone "
        "showed."
    )
    products = (
        "Prompts with weights in int8 are bounded by what a benchmark here reached, 410 x 10^9 operations/s: more than "
        "products alone showed."
    )
    assert list(_notes(limits(fast), kinds)) == [read, products]
    busy = (
        "These speeds were measured beside other programs (load 9999.1): the machine may do more. They are measured again "
        "when an hour has passed."
    )
    loaded = replace(SPEEDS, load=9999.12)
    assert list(busy_note(loaded)) == [busy] and list(busy_note(SPEEDS)) == []
    assert list(_notes(limits(fast, speeds=loaded), kinds)) == [busy, read, products]
    made = plan(FACTS, loaded, 150_000, [], "m")
    each = round(40 * (0.75 * 2048 + 0.25 * 1500))
    assert (made.kv_memory_bytes, made.kv_bytes, made.kv_tokens, made.is_busy, made.notes) == (
        150_000, {1: each, 8: 8 * each, 32: 32 * each}, 4500, True, (busy,),
    )  # fmt: skip
    assert [(bound.weights, bound.read_bytes) for bound in made.bounds] == [
        ("float16", 4000), ("int8", 2125), ("the file's blocks", 1700),
    ]  # fmt: skip
    assert made.to_json()["kv_bytes"] == {"1": each, "8": 8 * each, "32": 32 * each} and made.speeds == loaded


ENCODER = replace(FACTS, is_encoder=True)
EMBEDS = ((EMBEDDED, (10.0, 20.0, 60.0)), (EMBEDDED_TOKENS, (1e6, 2e6, 9e6)))


def test_an_encoder_is_expected_to_reach_its_share_of_the_bound_by_products() -> None:
    bound = 200 / ((2 * 2000 + 4 * 60 * 128) / 1e9)  # 16-bit integers are half as fast as those of 8 bits
    assert _tokens_bound(ENCODER, limits()) == pytest.approx(bound)
    assert _tokens_bound(replace(ENCODER, attention_width=None), limits()) is None
    assert _tokens_bound(replace(ENCODER, decode_parameters=0), limits()) is None
    floats = replace(SPEEDS, float32_gflop_s=300.0)
    assert _tokens_bound(ENCODER, limits(speeds=floats)) == pytest.approx(bound * 1.5)
    result = measured(*EMBEDS)
    share = 2e6 * 1e-5 / 200
    other = ExpectedTexts("n", "2026-11-25", False, share, share * bound, None)
    found = _expect(ENCODER, limits(result), "m")
    assert found is not None and found.tokens == pytest.approx(share * bound)
    assert replace(found, tokens=0.0) == replace(other, tokens=0.0)
    assert _expect(ENCODER, limits(result), "n") == ExpectedTexts("n", "2026-11-25", True, share, 2e6, 20.0)
    for useless in (measured(EMBEDS[0]), measured(DECODED), replace(result, quick=True)):
        assert _expect(ENCODER, limits(useless), "n") is None
    assert _expect(replace(ENCODER, attention_width=0), limits(result), "n") is None is _expect(ENCODER, limits(), "n")


def test_an_encoders_plan_says_where_a_benchmark_beat_products_alone() -> None:
    assert list(encoder_notes(limits(measured((EMBEDDED_TOKENS, (200.0,)), weights="int16", prefill_gflop=1.0)))) == []
    fast = measured(*EMBEDS, weights="int16", prefill_gflop=3e-5)
    note = (
        "Texts are bounded by what a benchmark here reached, 270 x 10^9 operations/s: more than products alone showed."
    )
    assert list(encoder_notes(limits(fast))) == [note]
    busy = replace(SPEEDS, load=9999.0)
    found = plan_encoder(ENCODER, busy, [replace(fast, speeds=busy)], "n")
    expected = ExpectedTexts("n", "2026-11-25", True, 2e6 * 3e-5 / 270, 2e6, 20.0)
    texts = 270 / ((2 * 2000 + 4 * 60 * 128) / 1e9) / 128
    assert found == EncoderPlan(busy, 128, texts, expected, True, (*busy_note(busy), note))
    shapeless = plan_encoder(replace(ENCODER, attention_width=None), SPEEDS, [fast], "n")
    assert (shapeless.texts, shapeless.expected, shapeless.is_busy) == (None, None, False)
