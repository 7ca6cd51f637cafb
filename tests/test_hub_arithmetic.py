"""Sizes, memory and bounds of small models against arithmetic by hand: shapes, serving, training, inspection, plans."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from firsthand.errors import ConfigError, ModelFileError
from firsthand.hub.inspection import Inspection, _form_of_config, _form_of_gguf, _kv_heads, inspect
from firsthand.hub.model_shapes import DecoderShape, find_shape, shape_from_config
from firsthand.hub.planner import plan
from firsthand.hub.resource_plan import (
    BITS,
    MACHINES,
    MachineSpec,
    ServingPlan,
    TrainingNeeds,
    adapter_parameters,
    as_json,
    bits_of,
    forward_flops,
    layer_activations,
    machine_of,
    plan_serving,
    plan_training_memory,
)
from test_commands_bench import SPEEDS

SMALL = DecoderShape(11, 6, 4, 3, 1, 5, 7, max_position=13)
GPT = replace(SMALL, tied=True, gated=False, qkv_bias=True, other_bias=True, learned_positions=True)
EXPERTS = replace(SMALL, num_experts=8, experts_per_token=2, expert_size=5, shared_size=9, dense_layers=1)
LATENT = replace(SMALL, kv_rank=4, rope_dim=2, value_dim=4)
WINDOW = replace(SMALL, window=3, windowed_layers=1)


def test_parameters_are_those_of_every_matrix_bias_and_norm():
    assert SMALL.attention_parameters == 5 * 5 * 6 + 3 * 5 * 6 == 240 and SMALL.mlp_parameters(7) == 126
    assert SMALL.parameters == SMALL.active_parameters == 4 * (240 + 12 + 126) + 2 * 11 * 6 + 6 == 1650
    assert SMALL.matrix_parameters == 1512 + 66 == SMALL.read_parameters(5) and SMALL.embedding_parameters == 132
    assert GPT.attention_parameters == 25 * 7 + 90 + 6 and GPT.mlp_parameters(7) == 84 + 7 + 6
    assert GPT.parameters == 4 * (271 + 24 + 97) + (11 + 13) * 6 + 12 == 1724
    assert replace(SMALL, other_bias=True).mlp_parameters(7) == 126 + 2 * 7 + 6
    assert (
        replace(SMALL, qk_norm=True).parameters == 1650 + 4 * 10 and replace(SMALL, tied=True).parameters == 1650 - 66
    )
    # three layers of experts: the experts, the shared one, and the router
    assert EXPERTS.parameters == 4 * 252 + 126 + 3 * (8 * 90 + 162 + 48) + 138 == 4062
    assert EXPERTS.active_parameters == 4 * 252 + 126 + 3 * (2 * 90 + 162 + 48) + 138 == 2442
    assert EXPERTS.matrix_parameters == 2304 + 66 and EXPERTS.read_parameters(1) == 2370.0
    assert EXPERTS.read_parameters(2) == pytest.approx(1764 + 270 * 3.5 + 66)
    assert replace(EXPERTS, shared_size=0).parameters == 4062 - 3 * 162
    assert LATENT.attention_parameters == 6 * 3 * 7 + (6 * 6 + 4 + 4 * 3 * 9) + 3 * 4 * 6 == 346
    assert replace(LATENT, q_rank=2).attention_parameters == (6 * 2 + 2 + 2 * 3 * 7) + 148 + 72
    assert replace(LATENT, value_dim=0).attention_parameters == 126 + (36 + 4 + 4 * 3 * 10) + 3 * 5 * 6
    assert (SMALL.attention_width, LATENT.attention_width) == (60, 4 * 3 * (7 + 4) // 2)
    assert (SMALL.kv_values_per_token, LATENT.kv_values_per_token) == (40, 24)
    assert [WINDOW.kv_values(n) for n in (2, 3, 5)] == [80, 120, 180] and SMALL.kv_values(5) == 200
    for name, value in (("vocab_size", 0), ("head_dim", 1 << 31), ("max_position", -1)):
        with pytest.raises(ConfigError, match=f"{name} is {value}: expected a whole number of 1 or more"):
            replace(SMALL, **{name: value})
    for wrong in (0, 9):
        with pytest.raises(ConfigError, match=rf"experts_per_token is {wrong}: expected 1 to num_experts \(8\)"):
            replace(EXPERTS, experts_per_token=wrong)
    with pytest.raises(ConfigError, match="intermediate_size is 0: expected 1 or more"):
        replace(SMALL, intermediate_size=0)
    assert replace(EXPERTS, intermediate_size=0, experts_per_token=8).active_parameters == 4062 - 126


def test_serving_takes_weights_and_keys_and_is_bounded_by_the_slower_of_reading_and_computing():
    machine = MachineSpec("m", 2, 0.5, 2.953e-6)
    made = plan_serving(SMALL, "int8", context=10, batch=3, kv_bits=8, machine=machine)
    assert made == ServingPlan(
        1650, 1650, 1753, 40, 1200, 2 * 1578 + 4 * 60 * 5, 2953, True,
        pytest.approx(3 * 2e9 / (1578 * 8.5 / 8 + 1200)), pytest.approx(0.5e12 / 4356),
    )  # fmt: skip
    assert (
        plan_serving(SMALL, "int8", context=10, batch=3, kv_bits=8, machine=replace(machine, memory_gb=2.952e-6)).fits
        is False
    )
    slow = plan_serving(SMALL, context=10, batch=3, machine=MachineSpec("m", 2e5, 0.5, 1))
    assert slow.decode_tokens_s == pytest.approx(0.5e12 / (2 * 1578 + 4 * 60 * 10)) and slow.kv_bytes_per_token == 80
    assert plan_serving(1008, "int4", batch=2) == ServingPlan(1008, 1008, 567, 0, 0, 2016.0, 567, None, None, None)
    plain = plan_serving(1008, "int4", batch=2, machine=MachineSpec("m", 1e-3, 1e-6, 1e-3))
    assert plain.decode_tokens_s == pytest.approx(2 / max(567 / 1e6, 2 * 2016 / 1e6)) and plain.fits
    experts = plan_serving(EXPERTS, "float32", batch=2, context=1, machine=MachineSpec("m", 1, 1e6, 1))
    assert experts.decode_tokens_s == pytest.approx(2e9 / (2775 * 4 + 2 * 40 * 2)) and experts.active_parameters == 2442
    assert as_json(made)["weight_bytes"] == 1753 and plan_serving(SMALL).kv_bytes == 4096 * 80
    for wrong in ({"context": 0}, {"batch": 0}, {"context": 1 << 31}, {"batch": 1 << 31}):
        with pytest.raises(ConfigError, match="expected whole numbers of 1 or more"):
            plan_serving(SMALL, **wrong)


def test_training_takes_weights_gradients_moments_and_activations():
    machine = MachineSpec("m", 1, 0.5, 37_920 / 1e9)
    full = plan_training_memory(SMALL, "full", context=10, batch=3, machine=machine)
    layer, logits, inputs = (36 + 45 + 15 + 28) * 30 * 2, 2 * 4 * 30 * 11, 6 * 30 * 2
    assert full == TrainingNeeds(
        "full", 1650, 3300, 3300, 19_800, 4 * layer + logits, 4 * inputs + layer + logits, 3 * 4356.0, 26_400 + 32_400,
        26_400 + 11_520, True, pytest.approx(0.5e12 / 13_068),
    )  # fmt: skip
    assert not plan_training_memory(
        SMALL, "full", context=10, batch=3, machine=replace(machine, memory_gb=37_919 / 1e9)
    ).fits
    exact = plan_training_memory(SMALL, "full", "float32", context=10, batch=3)
    assert (exact.weight_bytes, exact.gradient_bytes, exact.optimizer_bytes) == (6600, 6600, 13_200)
    assert exact.activation_bytes == 8 * layer + logits and exact.fits is None is exact.tokens_s
    lora = plan_training_memory(SMALL, "lora", "int8", context=10, batch=3, rank=2)
    assert lora.trained_parameters == adapter_parameters(SMALL, 2) == 4 * 2 * (2 * 21 + 2 * 11 + 3 * 13) == 824
    assert (lora.weight_bytes, lora.gradient_bytes, lora.optimizer_bytes) == (1613 + 140 + 3296, 3296, 6592)
    assert lora.flops_per_token == 2 * 4356.0 and lora.method == "lora"
    qlora = plan_training_memory(SMALL, "qlora", "float32", context=10, batch=3, rank=2)
    assert qlora.weight_bytes == 783 + 264 + 3296 and qlora.activation_bytes == exact.activation_bytes
    assert adapter_parameters(EXPERTS, 2) == 4 * 2 * (64 + 8 * 3 * 11) and adapter_parameters(GPT, 1) == 4 * (
        64 + 2 * 13
    )
    assert layer_activations(EXPERTS) == 36 + 45 + 15 + 4 * 19 and layer_activations(GPT) == 96 + 14
    assert forward_flops(WINDOW, 10) == 3156 + 240 * (0.75 * 10 + 0.25 * 3) and forward_flops(WINDOW, 2) == 3156 + 480
    with pytest.raises(ConfigError, match="dtype is int8: weights that are trained need float32, bfloat16 or float16"):
        plan_training_memory(SMALL, "full", "int8")
    for rank in (0, 1 << 16):
        with pytest.raises(ConfigError, match=f"rank is {rank}: expected 1 or more"):
            adapter_parameters(SMALL, rank)
    assert bits_of("nf4") == 4 + 1 / 8 + 1 / 512 and BITS["int4"] == 4.5
    with pytest.raises(
        ConfigError, match="dtype is 'int3': expected one of float32, bfloat16, float16, fp8, int8, int4, nf4"
    ):
        bits_of("int3")


def test_a_machine_is_a_name_in_any_case_or_three_numbers():
    assert machine_of("H100") is MACHINES["h100"] and machine_of("3350:990:80") == MachineSpec(
        "3350:990:80", 3350, 990, 80
    )
    names = "b200, h200, h100, a100, l4, a6000, rtx-4090, rtx-3090, m2-ultra"
    for text, hint in (("RTX-4091", "did you mean rtx-4090? "), ("1:2", ""), ("1:2:x", "")):
        with pytest.raises(ConfigError) as raised:
            machine_of(text)
        assert str(raised.value) == (
            f"no machine {text!r}; {hint}there are {names}, or write GB/s:TFLOP/s:GB, as in 3350:990:80"
        )
    for text, name in (
        ("0:1:1", "read_gb_s"),
        ("1:-1:1", "tflop_s"),
        ("1:1:1e9", "memory_gb"),
        ("nan:1:1", "read_gb_s"),
    ):
        with pytest.raises(ConfigError, match=rf"{name} of the machine is .*: expected a number above 0"):
            machine_of(text)


LLAMA = {"vocab_size": 11, "hidden_size": 6, "num_hidden_layers": 4, "num_attention_heads": 3}


def test_a_configuration_is_read_by_the_names_of_its_family(tmp_path):
    assert shape_from_config(LLAMA, "c") == DecoderShape(11, 6, 4, 3, 3, 2, 24)
    whole = {
        **LLAMA, "num_key_value_heads": 1, "head_dim": 5, "intermediate_size": 7, "max_position_embeddings": 13,
        "tie_word_embeddings": True, "attention_bias": True, "sliding_window": 3,
    }  # fmt: skip
    expected = replace(SMALL, tied=True, qkv_bias=True, window=3, windowed_layers=4)
    assert shape_from_config(whole, "c") == expected == shape_from_config({"text_config": whole, "vocab_size": 1}, "c")
    assert shape_from_config({**whole, "use_sliding_window": False}, "c").window is None
    gpt = {"model_type": "gpt2", "vocab_size": 11, "n_embd": 6, "n_layer": 4, "n_head": 3, "n_positions": 13}
    assert shape_from_config(gpt, "c") == replace(GPT, num_kv_heads=3, head_dim=2, intermediate_size=24)
    qwen = (
        shape_from_config({**LLAMA, "model_type": "qwen2"}, "c"),
        shape_from_config({**LLAMA, "model_type": "qwen3"}, "c"),
    )
    assert [(each.qkv_bias, each.qk_norm) for each in qwen] == [(True, False), (False, True)]
    mixtral = {**whole, "num_local_experts": 8, "num_experts_per_tok": 2}
    assert shape_from_config(mixtral, "c") == replace(expected, num_experts=8, experts_per_token=2, expert_size=7)
    deepseek = {
        **whole, "sliding_window": None, "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 5,
        "n_shared_experts": 3, "first_k_dense_replace": 1, "kv_lora_rank": 4, "q_lora_rank": 2, "qk_nope_head_dim": 9,
        "qk_rope_head_dim": 2, "v_head_dim": 8,
    }  # fmt: skip
    assert shape_from_config(deepseek, "c") == replace(
        expected, window=None, windowed_layers=0, num_experts=8, experts_per_token=2, expert_size=5, shared_size=15,
        dense_layers=1, kv_rank=4, q_rank=2, rope_dim=2, value_dim=8, head_dim=9,
    )  # fmt: skip
    shared = {**mixtral, "shared_expert_intermediate_size": 10}
    assert shape_from_config(shared, "c").shared_size == 10
    with pytest.raises(ModelFileError, match=r"^c: experts_per_token is 0"):
        shape_from_config({**mixtral, "num_experts_per_tok": 0}, "c")
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert find_shape(str(tmp_path)) == find_shape(str(tmp_path / "config.json")) == DecoderShape(11, 6, 4, 3, 3, 2, 24)


def test_a_size_in_words_is_a_number_and_a_wrong_name_has_a_hint():
    assert [find_shape(text) for text in ("70B", "1.5m", "2T", "0.5b")] == [
        70 * 10**9,
        1_500_000,
        2 * 10**12,
        5 * 10**8,
    ]
    assert find_shape("LLAMA-3-8b").num_kv_heads == 8
    for text, hint in (("llama-3-9b", "did you mean llama-3-8b? "), ("70", ""), ("70B ", ""), ("zzzzzzzz", "")):
        with pytest.raises(ConfigError) as raised:
            find_shape(text)
        assert str(raised.value).startswith(f"no model {text!r} to plan for; {hint}give a config.json, a folder"), text


FACTS = Inspection(
    path=Path("/m"), architecture="x", is_encoder=False, parameters=3000, active_parameters=2500, file_bytes=99,
    tensor_types={"F32": 2}, weight_bytes={"int8": 3000}, kv_bytes={2048: 5}, kv_bytes_per_token=40, window=3000,
    window_share=0.25, decode_parameters=2000, block_bytes=1700, head_parameters=300, attention_width=60, context=9000,
    vocabulary=11, has_chat_template=True, licence="MIT",
)  # fmt: skip


def test_layers_with_a_window_keep_no_more_than_that():
    assert FACTS.keys_and_values(2000) == 80_000 and FACTS.keys_and_values(3000) == 120_000
    assert FACTS.keys_and_values(4000) == 40 * (0.75 * 4000 + 0.25 * 3000)
    assert FACTS.tokens_in(119_999) == 2999 and FACTS.tokens_in(120_000) == 3000 and FACTS.tokens_in(150_000) == 4000
    assert (
        replace(FACTS, window=None).tokens_in(150_039) == 3750
        and replace(FACTS, window=None).keys_and_values(4000) == 160_000
    )
    assert (
        replace(FACTS, window_share=1.0).tokens_in(150_000) == 9000
        and replace(FACTS, window_share=1.0).tokens_in(40) == 1
    )
    unknown = replace(FACTS, kv_bytes_per_token=None)
    assert unknown.tokens_in(9) is None is unknown.keys_and_values(9)
    body = FACTS.to_json()
    assert (body["path"], body["kv_bytes"], body["tensor_types"]) == ("/m", {"2048": 5}, {"F32": 2})
    assert json.loads(json.dumps(body))["window_share"] == 0.25


def test_a_plan_counts_each_conversation_with_its_own_window():
    facts = replace(FACTS, window=1500)
    made = plan(facts, SPEEDS, 150_000, [], "m")
    each = round(40 * (0.75 * 2048 + 0.25 * 1500))
    assert made.kv_bytes == {1: each, 8: 8 * each, 32: 32 * each}
    assert made.kv_tokens == facts.tokens_in(150_000) and made.kv_memory_bytes == 150_000
    assert [(bound.weights, bound.read_bytes) for bound in made.bounds] == [
        ("float16", 4000), ("int8", math.ceil(2000 * 8.5 / 8)), ("the file's blocks", 1700),
    ]  # fmt: skip
    gflop = (2 * (2000 - 300) + 4 * 60 * 513 / 2) / 1e9
    assert [bound.decode for bound in made.bounds] == pytest.approx([20e9 / 4000, 20e9 / 2125, 20e9 / 1700])
    assert made.bounds[0].prefill == pytest.approx(100 / gflop)
    assert made.expected is None and not made.is_busy and made.notes == ()
    bare = plan(replace(facts, kv_bytes_per_token=None, block_bytes=None, head_parameters=None), SPEEDS, 1, [], "m")
    assert bare.kv_bytes == {} and len(bare.bounds) == 2 and bare.bounds[0].prefill is None
    busy = plan(facts, replace(SPEEDS, load=5.0), 1, [], "m")
    assert busy.is_busy and busy.notes[0].startswith("These speeds were measured beside other programs (load 5.0)")


def test_the_sizes_of_another_family_are_those_that_its_header_states():
    metadata = {
        "general.architecture": "new", "new.attention.head_count": 6, "new.embedding_length": 48, "new.block_count": 3,
        "new.context_length": 100, "new.attention.head_count_kv": [2, 0, 4], "new.attention.key_length": 10,
        "new.vocab_size": 70,
    }  # fmt: skip
    assert _form_of_gguf(metadata) == (100, 70, 18, 6, 10, 8, None, 0.0, 0)
    tokens = {
        **metadata,
        "tokenizer.ggml.tokens": ["a"] * 9,
        "new.attention.value_length": 7,
        "new.attention.head_count_kv": 2,
    }
    assert _form_of_gguf(tokens)[1:6] == (9, 18, 6, 10, 7) and _form_of_gguf({})[:6] == (None,) * 6
    config = {
        "num_attention_heads": 6, "hidden_size": 48, "num_hidden_layers": 4, "num_key_value_heads": 2, "vocab_size": 70,
        "max_position_embeddings": 100, "sliding_window": 5,
        "layer_types": ["sliding_attention", "full_attention", "full_attention", "full_attention", "sliding_attention"],
    }  # fmt: skip
    assert _form_of_config(config) == (100, 70, 24, 8, 8, 8, 5, 0.25, 0)
    assert _form_of_config({**config, "head_dim": 3, "layer_types": None})[4:8] == (3, 3, None, 0.0)
    assert _form_of_config({**config, "num_key_value_heads": None})[3] is None
    plain = {name: value for name, value in config.items() if name != "num_key_value_heads"}
    assert _form_of_config(plain)[3] == 24
    assert _kv_heads([2, 3], 3) is None and _kv_heads([2, True, -1], 3) == 2 and _kv_heads([0], 1) is None
    assert _kv_heads(2, None) is None and _kv_heads(2, 3) == 6 and _kv_heads(True, 3) is None


def safetensors(path, **tensors):
    header, at = {}, 0
    for name, shape in tensors.items():
        size = 4 * math.prod(shape)
        header[name.replace("__", ".")] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    body = json.dumps(header).encode()
    path.write_bytes(len(body).to_bytes(8, "little") + body + bytes(at))


def test_a_folder_of_another_family_is_counted_from_its_headers(tmp_path):
    config = {
        "model_type": "new" * 40, "num_attention_heads": 6, "hidden_size": 48, "num_hidden_layers": 4,
        "num_key_value_heads": 2, "vocab_size": 70, "max_position_embeddings": 3000,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    safetensors(tmp_path / "a.safetensors", model__embed_tokens__weight=[7, 3], x__weight=[2, 5])
    safetensors(tmp_path / "b.safetensors", lm_head__weight=[7, 4], y=[9])
    facts = inspect(tmp_path)
    assert (facts.parameters, facts.active_parameters, facts.decode_parameters) == (68, 68, 47)
    assert (facts.head_parameters, facts.attention_width, facts.kv_bytes_per_token) == (28, 24 * 8, 2 * 8 * 16)
    assert facts.kv_bytes == {2048: 2048 * 256, 3000: 3000 * 256} and facts.context == 3000
    assert facts.weight_bytes == {"float32": 272, "float16": 136, "int8": 68, "4-bit": 34} and facts.block_bytes is None
    assert facts.file_bytes == sum(each.stat().st_size for each in tmp_path.glob("*.safetensors"))
    assert facts.architecture == ("new" * 40)[:80] and not facts.has_chat_template and facts.licence is None
    (tmp_path / "LICENSE.txt").write_text("\n  MIT licence \nmore")
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    assert (inspect(tmp_path).licence, inspect(tmp_path).has_chat_template) == ("MIT licence", True)
    index = {"weight_map": {"x": "b.safetensors", "y": "c.safetensors", "z": "d.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelFileError, match=r"lacks 2 of 3 weight files, such as 'c\.safetensors'"):
        inspect(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"x": "b.safetensors"}}')
    assert inspect(tmp_path).parameters == 37
    assert inspect(tmp_path).decode_parameters == 37 and inspect(tmp_path).head_parameters == 28
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    encoder = inspect(tmp_path)
    assert encoder.is_encoder and encoder.kv_bytes == {} and encoder.kv_bytes_per_token is None
    assert (encoder.decode_parameters, encoder.head_parameters) == (28, None)


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_training_takes_whole_numbers_of_sequences_and_tokens(method):
    for wrong in ({"context": 0}, {"batch": 0}, {"context": 1 << 31}, {"batch": 1 << 31}, {"batch": -1},
                  {"context": 10, "batch": 0}, {"context": 0, "batch": 10}):  # fmt: skip
        with pytest.raises(ConfigError, match="expected whole numbers of 1 or more"):
            plan_training_memory(SMALL, method, **wrong)  # type: ignore[arg-type]
    least, twice = (plan_training_memory(SMALL, method, context=1, batch=batch) for batch in (1, 2))
    assert twice.activation_bytes == 2 * least.activation_bytes and twice.weight_bytes == least.weight_bytes
