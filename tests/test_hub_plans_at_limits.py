"""Plans at their limits: a window of 0, half of the cores busy, a machine that just fits, sizes in words, many results."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, ModelFileError
from firsthand.hub.encoder_planner import encoder_gflop, plan_encoder
from firsthand.hub.inspection import Inspection, _Form, _form_of_config, _form_of_gguf, _kv_heads, _whole
from firsthand.hub.model_shapes import KNOWN_SHAPES, DecoderShape, find_shape, shape_from_config
from firsthand.hub.planner import expect, nearest, plan, prefill_gflop
from firsthand.hub.resource_plan import (
    MachineSpec,
    adapter_parameters,
    as_json,
    forward_flops,
    machine_of,
    plan_serving,
    plan_training_memory,
)
from firsthand.measure.machine import usable_cores
from firsthand.measure.machine_speeds import Speeds
from firsthand.measure.measurements import DECODE, EMBEDDED, EMBEDDED_TOKENS, PREFILL, BenchResult, Measured
from firsthand.measure.speed_bounds import SpeedLimits
from hub_site import refused

S = DecoderShape(10, 8, 3, 4, 2, 5, 7, max_position=100)
FACTS = Inspection(
    path=Path("/m"), architecture="x", is_encoder=False, parameters=3000, active_parameters=2500, file_bytes=99,
    tensor_types={}, weight_bytes={}, kv_bytes={}, kv_bytes_per_token=40, window=None, window_share=0.0,
    decode_parameters=2000, block_bytes=None, head_parameters=300, attention_width=60, context=9000, vocabulary=11,
    has_chat_template=True, licence=None,
)  # fmt: skip
SPEEDS = Speeds(2, 20.0, 100.0, 200.0, 400.0)


def measured(*figures: tuple[str, tuple[float, ...]], **more: Any) -> BenchResult:
    made = tuple(Measured(name, "x/s", "x", values) for name, values in figures)
    whole: dict[str, Any] = {
        "model": "n", "path": "/n", "date": "2026-11-25", "command": "c", "machine": {}, "machine_line": "",
        "speeds": SPEEDS, "weights": "int8", "weight_bytes": 1000, "parameters": 900, "prefill_gflop": 1e-5,
        "figures": made, **more,
    }  # fmt: skip
    return BenchResult(**whole)


def test_half_of_the_usable_cores_may_be_busy_before_a_plan_says_so() -> None:
    half = 0.5 * usable_cores()
    embeds = measured((EMBEDDED, (20.0,)), (EMBEDDED_TOKENS, (2e6,)))
    for load, busy in ((0.0, False), (half, False), (half + 0.01, True)):
        speeds = replace(SPEEDS, load=load)
        made, texts = plan(FACTS, speeds, 1000, [], "m"), plan_encoder(FACTS, speeds, [], "m")
        assert (made.is_busy, texts.is_busy, len(made.notes), len(texts.notes)) == (busy, busy, busy, busy)
        assert texts.expected is None is made.expected and (made.speeds, texts.speeds) == (speeds, speeds)
    assert made.notes == texts.notes and f"(load {half + 0.01:.1f})" in made.notes[0]
    calm = plan_encoder(FACTS, replace(SPEEDS, load=half), [embeds], "n")
    assert calm.expected is not None and calm.expected.is_same and not calm.notes and calm.tokens_per_text == 128
    assert json.loads(json.dumps(calm.to_json())) == {
        **vars(calm), "speeds": json.loads(json.dumps(calm.to_json()["speeds"])), "notes": [],
        "expected": vars(calm.expected),
    }  # fmt: skip
    assert encoder_gflop(3, 5, 7.5) == (6 + 150) / 1e9 and prefill_gflop(9, 2, 5, 7) == (14 + 80) / 1e9


def test_a_plan_s_bounds_are_those_of_the_fastest_speeds_of_all_results_and_its_sizes_those_of_its_facts() -> None:
    fast = measured((DECODE, (1e6,)), speeds=replace(SPEEDS, read_gb_s=70.0))
    made = plan(FACTS, SPEEDS, 4100, [measured((DECODE, (1e6,))), fast], "m")
    assert made.speeds.read_gb_s == 70.0 and [(each.weights, each.read_bytes) for each in made.bounds] == [
        ("float16", 4000), ("int8", 2125),
    ]  # fmt: skip
    assert (made.kv_memory_bytes, made.kv_tokens, made.kv_bytes) == (4100, 102, {n: 40 * 2048 * n for n in (1, 8, 32)})
    none = plan(replace(FACTS, kv_bytes_per_token=None, block_bytes=0), SPEEDS, 4100, [], "m")
    assert (none.kv_tokens, none.kv_bytes, len(none.bounds)) == (None, {}, 2)
    assert plan(replace(FACTS, block_bytes=1), SPEEDS, 0, [], "m").bounds[2].read_bytes == 1
    assert none.to_json()["kv_bytes"] == {} and none.to_json()["notes"] == () and none.to_json()["expected"] is None


def test_of_several_results_the_first_of_the_model_counts_by_name_or_by_path_and_else_the_most_similar() -> None:
    first, second = measured((DECODE, (3e6,)), date="1"), measured((DECODE, (4e6,)), date="2")
    by_path = measured((DECODE, (5e6,)), model="z", path="/m", date="3")
    assert [nearest(results, FACTS, "n")[0] for results in ([first, second], [second, first], [by_path, first])] == [
        first, second, by_path,
    ]  # fmt: skip
    assert nearest([first, by_path], FACTS, "other") == (by_path, True)
    sizes = [measured(parameters=size) for size in (0, 1000, 4000, 2000)]
    assert nearest(sizes, FACTS, "m") == (sizes[3], False) and nearest(sizes[:3], FACTS, "m") == (sizes[1], False)
    assert nearest([sizes[2], sizes[1]], FACTS, "m") == (sizes[2], False), "of equals the first"
    slow = SpeedLimits(SPEEDS, (measured((PREFILL, (1.0,))), measured((DECODE, (2e6,)), quick=True), first, second))
    found = expect(FACTS, slow, "n")
    assert found is not None and (found.measured_on, found.decode, found.prefill, found.is_same) == (
        "1",
        3e6,
        None,
        True,
    )


def test_a_window_of_0_and_one_as_long_as_the_context_are_windows() -> None:
    # 2 x 2 x 5 values of each layer; heads are 4 x 5 wide
    for window, context, values in (
        (None, 9, 540), (0, 9, 180), (1, 9, 220), (8, 9, 500), (9, 9, 540), (10, 9, 540), (0, 1, 20), (1, 1, 60),
    ):  # fmt: skip
        shape = replace(S, window=window, windowed_layers=2)
        assert shape.kv_values(context) == values, (window, context)
        seen = context if window is None else context / 3 + 2 / 3 * min(context, window)
        assert forward_flops(shape, context) == pytest.approx(2 * shape.matrix_parameters + 240 * seen)
        assert plan_serving(shape, context=context, batch=3, kv_bits=4).kv_bytes == round(3 * values / 2)
    latent = replace(S, kv_rank=6, rope_dim=2, window=3, windowed_layers=1)
    assert (latent.kv_values_per_token, latent.kv_values(5)) == (3 * 8, 8 * (2 * 5 + 3))
    assert (latent.attention_width, replace(latent, value_dim=3).attention_width, S.attention_width) == (72, 60, 60)
    assert latent.attention_parameters == 8 * 4 * 7 + 8 * 8 + 6 + 6 * 4 * 10 + 4 * 5 * 8
    low = replace(latent, q_rank=3, value_dim=2)
    assert low.attention_parameters == 8 * 3 + 3 + 3 * 4 * 7 + 8 * 8 + 6 + 6 * 4 * 7 + 4 * 2 * 8
    for name in ("vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim", "max_position"):
        for value in (0, 1 << 31):
            assert refused(ConfigError, replace, S, **{name: value}) == (
                f"{name} is {value}: expected a whole number of 1 or more"
            )
        assert getattr(replace(S, **{name: 1}), name) == 1 == getattr(replace(S, **{name: (1 << 31) - 1}), name) >> 30
    for experts in (0, 4, -1):
        assert refused(ConfigError, replace, S, num_experts=3, experts_per_token=experts) == (
            f"experts_per_token is {experts}: expected 1 to num_experts (3)"
        )
    assert refused(ConfigError, replace, S, intermediate_size=0) == "intermediate_size is 0: expected 1 or more"
    mixed = replace(
        S, num_experts=3, experts_per_token=3, intermediate_size=0, expert_size=2, shared_size=1, dense_layers=1
    )
    assert mixed.read_parameters(1) == mixed.read_parameters(9) == mixed.matrix_parameters
    one = replace(mixed, experts_per_token=1)
    layers = 3 * (480 + 16) + 2 * (3 * 8 * 1 + 8 * 3)
    assert (one.matrix_parameters, mixed.matrix_parameters) == (layers + 2 * 48 + 80, layers + 6 * 48 + 80)
    assert one.read_parameters(2) == pytest.approx(layers + 2 * 48 * 3 * (1 - (2 / 3) ** 2) + 80)
    assert (one.parameters, one.active_parameters) == (layers + 6 * 48 + 160 + 8, layers + 2 * 48 + 160 + 8)

    biased = replace(mixed, shared_size=0, other_bias=True, qkv_bias=True, num_kv_heads=1)
    # biases: of q, k and v 6 x 5, of the output 8, two norms of 16 each; of an MLP 2 x its width + 8; of no shared one
    each = 8 * 30 + 30 + 160 + 8 + 32
    assert biased.attention_parameters == each - 32
    assert biased.parameters == 3 * each + (0 + 8) + 2 * (3 * (48 + 2 * 2 + 8) + 24) + 160 + 16


def test_adapters_fit_a_machine_with_exactly_as_much_memory_and_each_option_counts() -> None:
    options: dict[str, Any] = {"context": 3, "batch": 2, "rank": 1}
    needs = plan_training_memory(S, "lora", "fp8", **options)
    assert needs.fits is None is needs.tokens_s and needs.trained_parameters == adapter_parameters(S, 1)
    machine = MachineSpec("m", 7.0, 2e-8, needs.checkpointed_total_bytes / 1e9)
    just = plan_training_memory(S, "lora", "fp8", **options, machine=machine)
    assert just == replace(needs, fits=True, tokens_s=2e4 / needs.flops_per_token)
    short = replace(machine, memory_gb=(needs.checkpointed_total_bytes - 1) / 1e9)
    assert plan_training_memory(S, "lora", "fp8", **options, machine=short).fits is False
    assert needs.checkpointed_bytes < needs.activation_bytes and needs.total_bytes > needs.checkpointed_total_bytes
    assert needs.weight_bytes == S.parameters + 4 * needs.trained_parameters and as_json(needs) == vars(needs)
    for name, value in {"context": 4, "batch": 3, "rank": 2}.items():
        other = plan_training_memory(S, "lora", "fp8", **{**options, name: value})
        assert other.total_bytes > needs.total_bytes, name
    wide = plan_training_memory(S, "lora", "float32", **options)
    assert wide.activation_bytes - 2 * 4 * 6 * 10 == 2 * (needs.activation_bytes - 2 * 4 * 6 * 10)
    assert plan_serving(S, machine=replace(machine, memory_gb=1.0)).prefill_tokens_s == pytest.approx(
        2e4 / forward_flops(S, 2048)
    )


def test_machines_and_sizes_are_read_in_any_letter_case_and_wrong_ones_are_told_with_the_nearest() -> None:
    assert machine_of("RTX-4090").memory_gb == 24 and machine_of(" 1 : 2:3 ") == MachineSpec(" 1 : 2:3 ", 1.0, 2.0, 3.0)
    for text, said in (("1:2:0", "memory_gb of the machine is 0: expected a number above 0"),
                       ("1:-2:3", "tflop_s of the machine is -2: expected a number above 0"),
                       ("inf:2:3", "read_gb_s of the machine is inf: expected a number above 0")):  # fmt: skip
        assert refused(ConfigError, machine_of, text) == said
    names = "b200, h200, h100, a100, l4, a6000, rtx-4090, rtx-3090, m2-ultra"
    hint = f"there are {names}, or write GB/s:TFLOP/s:GB, as in 3350:990:80"
    assert refused(ConfigError, machine_of, "RTX-4091") == f"no machine 'RTX-4091'; did you mean rtx-4090? {hint}"
    assert refused(ConfigError, machine_of, "1:x:3") == f"no machine '1:x:3'; {hint}"
    sizes = {
        "70B": 7 * 10**10,
        "0.5t": 5 * 10**11,
        "1.25M": 1_250_000,
        "2.3M": 2_300_000,
        "1.1b": 11 * 10**8,
        "4.35T": 435 * 10**10,
        "0M": 0,
        f"1{'0' * 14}m": 10**20,
    }
    assert {text: find_shape(text) for text in sizes} == sizes and find_shape("GPT-2") == KNOWN_SHAPES["gpt-2"]
    models = ", ".join(KNOWN_SHAPES)
    for text, hint in (
        (f"{'9' * 16}M", ""),
        ("7BB", ""),
        ("1.B", ""),
        ("-7B", ""),
        ("LLama-3-8", "did you mean llama-3-8b? "),
    ):
        assert refused(ConfigError, find_shape, text) == (
            f"no model {text!r} to plan for; {hint}give a config.json, a folder, a .gguf file, a size such as 70B, or "
            f"one of {models}"
        )


def test_a_configuration_is_found_as_a_file_of_any_name_or_in_its_folder(tmp_path: Path) -> None:
    values = {
        "vocab_size": 10,
        "hidden_size": 8,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 7,
    }
    (tmp_path / "a.json").write_text(json.dumps(values))
    (tmp_path / "config.json").write_text(json.dumps({**values, "vocab_size": 11}))
    assert find_shape(str(tmp_path / "a.json")) == DecoderShape(10, 8, 3, 4, 4, 2, 7)
    assert find_shape(str(tmp_path)) == DecoderShape(11, 8, 3, 4, 4, 2, 7) == find_shape(str(tmp_path / "config.json"))
    (tmp_path / "config.json").write_text(json.dumps({**values, "num_hidden_layers": 0}))
    assert refused(ModelFileError, find_shape, str(tmp_path)) == (
        f"{tmp_path / 'config.json'}: num_layers is 0: expected a whole number of 1 or more"
    )
    (tmp_path / "bare").mkdir()
    with pytest.raises(ModelFileError):
        find_shape(str(tmp_path / "bare"))
    most = (1 << 31) - 1
    assert plan_serving(S, context=most).kv_bytes == 2 * 60 * most and plan_serving(7, batch=most).total_bytes == 14
    for text in (str(tmp_path / "none.json"), str(tmp_path / "none.gguf")):
        assert text in refused(ModelFileError, find_shape, text)


def test_of_a_size_s_several_names_the_first_in_its_order_counts_and_what_is_left_out_has_its_default() -> None:
    least = {
        "vocab_size": 10,
        "hidden_size": 8,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 7,
    }
    experts = {"num_experts_per_tok": 1, "num_local_experts": 2}
    orders: list[tuple[str, tuple[str, ...], dict[str, Any]]] = [
        ("hidden_size", ("hidden_size", "n_embd", "d_model"), least),
        ("num_heads", ("num_attention_heads", "n_head", "n_heads"), least),
        ("num_layers", ("num_hidden_layers", "n_layer", "n_layers"), least),
        ("intermediate_size", ("intermediate_size", "n_inner", "ffn_dim"), least),
        ("max_position", ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), least),
        ("num_experts", ("num_local_experts", "num_experts", "n_routed_experts"), {**least, **experts}),
        ("experts_per_token", ("num_experts_per_tok", "num_experts_per_token"),
         {**least, **experts, "num_local_experts": 99}),
        ("expert_size", ("moe_intermediate_size", "intermediate_size"), {**least, **experts}),
    ]  # fmt: skip
    for size, names, values in orders:
        for at in range(len(names)):
            given = {name: value for name, value in values.items() if name not in names}
            given |= {name: 5 + names.index(name) for name in reversed(names[at:])}
            assert getattr(shape_from_config(given, "c"), size) == 5 + at, (size, names[at:])
    plain = shape_from_config(least, "c")
    assert plain == DecoderShape(10, 8, 3, 4, 4, 2, 7, max_position=4096)
    mixed = {**least, **experts}
    assert shape_from_config(mixed, "c") == replace(plain, num_experts=2, experts_per_token=1, expert_size=7)
    shared = {**mixed, "n_shared_experts": 0, "shared_expert_intermediate_size": 6, "first_k_dense_replace": 2}
    assert shape_from_config(shared, "c") == replace(
        plain, num_experts=2, experts_per_token=1, expert_size=7, shared_size=6, dense_layers=2
    )
    latent = {**least, "kv_lora_rank": 3, "qk_nope_head_dim": 5, "qk_rope_head_dim": 4, "v_head_dim": 6, "head_dim": 9}
    assert shape_from_config(latent, "c") == replace(plain, head_dim=5, kv_rank=3, rope_dim=4, value_dim=6)
    assert shape_from_config({**latent, "kv_lora_rank": 0, "q_lora_rank": 7}, "c") == replace(plain, head_dim=9)
    assert shape_from_config({**least, "num_attention_heads": 9}, "c").head_dim == 1, "a head has a unit at least"
    for wrong, said in (({"num_attention_heads": 0}, "num_heads is 0"),
                        ({"intermediate_size": 0}, "intermediate_size is 0"),
                        ({"vocab_size": 0}, "vocab_size is 0"),
                        ({"num_key_value_heads": 0}, "num_kv_heads is 0")):  # fmt: skip
        assert refused(ModelFileError, shape_from_config, {**least, **wrong}, "c").startswith(f"c: {said}: expected ")
    for kinds, more in (
        (("gpt2", "opt"), {"qkv_bias": True, "other_bias": True, "gated": False, "tied": True, "learned_positions": True}),
        (("bloom", "mpt", "gpt_neox"), {"qkv_bias": True, "other_bias": True, "gated": False, "tied": True}),
        (("qwen2", "qwen2_moe"), {"qkv_bias": True}), (("qwen3", "qwen3_moe", "gemma3_text"), {"qk_norm": True}),
        (("llama", "GPT2", None, 5), {}),
    ):  # fmt: skip
        for kind in kinds:
            assert shape_from_config({**least, "model_type": kind}, "c") == replace(plain, **more), kind
    assert shape_from_config({**least, "model_type": "llama", "attention_bias": True}, "c") == replace(
        plain, qkv_bias=True
    )
    assert shape_from_config({**least, "model_type": "qwen2", "attention_bias": False}, "c") == plain
    for window, layers in ((0, 0), (None, 0), (5, 3)):
        made = shape_from_config({**least, "sliding_window": window}, "c")
        assert (made.window, made.windowed_layers) == (window or None, layers)


def test_sizes_of_a_header_are_whole_numbers_below_2_to_31_and_others_are_unknown() -> None:
    most = (1 << 31) - 1
    for value, known in (
        (1, 1),
        (most, most),
        (1 << 31, None),
        (0, None),
        (-1, None),
        (True, None),
        (2.0, None),
        ("3", None),
    ):
        assert _whole(value) == known == _kv_heads(value, 1), value
        form = _form_of_config({"max_position_embeddings": value, "vocab_size": value})
        assert (form.context, form.vocabulary) == (known, known)
    assert _kv_heads([1, 0, True, "x", most, 1 << 31, -5], 7) == 1 << 31 and _kv_heads([0, -1], 2) is None
    assert _kv_heads([4, 4], 3) is None is _kv_heads(4, None) and _kv_heads(4, 3) == 12 and _kv_heads([4, 1, 2], 3) == 7
    text = {
        "num_attention_heads": 6, "hidden_size": 48, "num_hidden_layers": 4, "num_key_value_heads": [1, 2, 3, 4],
        "sliding_window": 9, "layer_types": ["sliding_attention", "full_attention"] * 3, "head_dim": 0,
    }  # fmt: skip
    assert _form_of_config(text) == _Form(None, None, 24, 10, 8, 8, 9, 0.5)
    for change in ({"sliding_window": None}, {"layer_types": ["full_attention"] * 4}, {"layer_types": None}):
        assert _form_of_config({**text, **change}) == _Form(None, None, 24, 10, 8, 8)
    assert _form_of_config({**text, "num_hidden_layers": None}) == _Form(None, None, None, None, 8, 8)
    assert _form_of_config({**text, "head_dim": 5, "num_key_value_heads": 2})[2:6] == (24, 8, 5, 5)
    assert _form_of_config({}) == _Form(None, None, None, None, None, None) == _form_of_gguf({})


def test_an_encoder_is_expected_after_measured_encoders_though_a_decoder_has_its_name() -> None:
    decoder = measured((DECODE, (1e6,)), model="n", parameters=2000)
    other = measured((EMBEDDED, (20.0,)), (EMBEDDED_TOKENS, (2e6,)), model="e", path="/e", parameters=9)
    quick = replace(other, model="n", quick=True)
    found = plan_encoder(FACTS, SPEEDS, [decoder, quick, other], "n").expected
    assert found is not None and (found.measured_model, found.is_same, found.texts) == ("e", False, None)
    decodes = expect(FACTS, SpeedLimits(SPEEDS, (replace(other, model="n"), decoder)), "n")
    assert decodes is not None and (decodes.measured_model, decodes.decode) == ("n", 1e6)
