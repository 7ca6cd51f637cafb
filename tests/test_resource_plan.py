"""The planner gives published figures, and the bytes that engine and trainer really take."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_tiny import tiny_engine, tiny_model
from firsthand.cli import main
from firsthand.errors import ConfigError, FirsthandError, ModelFileError
from firsthand.hub.model_shapes import (
    KNOWN_SHAPES,
    DecoderShape,
    find_shape,
    shape_from_architecture,
    shape_from_config,
)
from firsthand.hub.resource_plan import (
    MachineSpec,
    adapter_parameters,
    forward_flops,
    machine_of,
    plan_serving,
    plan_training_memory,
)
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.model_config import to_config
from firsthand.train.adapters.lora_config import LoRAConfig
from firsthand.train.adapters.lora_training import add_lora
from firsthand.train.scaling.flop_counts import forward_flops_per_token

MIXTRAL = KNOWN_SHAPES["mixtral-8x7b"]


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("gpt-2", 124_439_808, 124_439_808),
        ("smollm2-135m", 134_515_008, 134_515_008),
        ("llama-2-7b", 6_738_415_616, 6_738_415_616),
        ("llama-2-70b", 68_976_648_192, 68_976_648_192),
        ("llama-3-8b", 8_030_261_248, 8_030_261_248),
        ("qwen2.5-7b", 7_615_616_512, 7_615_616_512),
        ("mixtral-8x7b", 46_702_792_704, 12_879_925_248),
        ("qwen3-30b-a3b", 30_532_122_624, 3_353_032_704),
        ("deepseek-v3", 671_026_404_352, 37_552_282_624),
    ],
)
def test_published_models_have_their_published_parameters(name: str, total: int, active: int) -> None:
    assert (KNOWN_SHAPES[name].parameters, KNOWN_SHAPES[name].active_parameters) == (total, active)


def test_the_reading_list_s_figures_come_out() -> None:
    assert round(MIXTRAL.parameters / 1e9, 1) == 46.7 and round(MIXTRAL.active_parameters / 1e9, 1) == 12.9
    assert plan_serving(70_000_000_000, "float32").weight_bytes == 280e9
    qlora = plan_training_memory(KNOWN_SHAPES["llama-65b"], "qlora", context=512, rank=16)
    assert qlora.weight_bytes > 30e9 and qlora.checkpointed_total_bytes < 48e9
    full = plan_training_memory(KNOWN_SHAPES["llama-65b"], "full", context=512)
    assert full.total_bytes > 780e9  # QLoRA's paper: regular 16-bit finetuning of 65B takes more than 780 GB
    # 2 layers kv_heads head_dim bytes, for each token
    assert plan_serving(KNOWN_SHAPES["llama-2-7b"], context=1).kv_bytes_per_token == 2 * 32 * 32 * 128 * 2
    assert plan_serving(KNOWN_SHAPES["llama-3-70b"], context=8192, batch=3).kv_bytes == 3 * 8192 * 2 * 80 * 8 * 128 * 2
    assert plan_serving(KNOWN_SHAPES["deepseek-v3"]).kv_bytes_per_token == 61 * (512 + 64) * 2


def test_a_window_bounds_the_kv_cache_and_attention() -> None:
    mistral = KNOWN_SHAPES["mistral-7b"]
    assert mistral.kv_values(4096) == mistral.kv_values(4097) == mistral.kv_values(32768)
    assert mistral.kv_values(4095) < mistral.kv_values(4096)
    half = replace(mistral, windowed_layers=16)
    assert half.kv_values(8192) == mistral.kv_values_per_token // 2 * (8192 + 4096)
    assert forward_flops(mistral, 4096) == forward_flops(mistral, 9999) < forward_flops(half, 9999)


def test_a_larger_batch_reads_more_experts_but_never_more_than_all() -> None:
    one, many = MIXTRAL.read_parameters(1), MIXTRAL.read_parameters(1000)
    assert one == MIXTRAL.active_parameters - 4096 - 32000 * 4096
    assert one < MIXTRAL.read_parameters(2) < many <= MIXTRAL.parameters - 4096 - 32000 * 4096 + 1


def test_the_roofline_is_memory_for_one_answer_and_products_for_many() -> None:
    machine = machine_of("h100")
    shape = KNOWN_SHAPES["llama-3-8b"]
    alone = plan_serving(shape, context=1, machine=machine)
    assert alone.decode_tokens_s == pytest.approx(3350e9 / (2 * shape.read_parameters() + alone.kv_bytes), rel=1e-9)
    crowd = plan_serving(shape, context=1, batch=4096, machine=machine)
    assert crowd.decode_tokens_s == pytest.approx(989e12 / forward_flops(shape, 1), rel=1e-9)
    assert alone.fits and not plan_serving(KNOWN_SHAPES["llama-3-70b"], machine=machine).fits
    assert plan_serving(KNOWN_SHAPES["llama-3-70b"], "int4", machine=machine).fits


def test_counts_and_flops_equal_those_of_a_real_model() -> None:
    for tied in (True, False):
        model = tiny_model(tied=tied)
        shape = shape_from_architecture(model.architecture)
        assert shape.parameters == sum(each.numel() for each in model.parameters())
        assert plan_serving(shape, "float32").weight_bytes == sum(each.nbytes for each in model.parameters())
        norms = (2 * 2 + 0) * 32  # weights, but no matrices
        assert forward_flops(shape, 64) == forward_flops_per_token(model.architecture, 64) + 2 * norms
        assert shape == shape_from_config(to_config(model.architecture), "here")


def test_the_kv_cache_takes_what_the_engine_s_takes() -> None:
    for kind, bits in (("float32", 32), ("float16", 16)):
        engine = tiny_engine(kv_cache=kind)
        shape = shape_from_architecture(engine.runner.model.architecture)
        measured = sum(pages.bytes_per_token for pages in engine.runner.cache.pages)
        assert plan_serving(shape, context=1, kv_bits=bits).kv_bytes_per_token == measured


def test_training_memory_is_that_of_a_real_step() -> None:
    model, tokens = tiny_model(vocab_size=96), 192
    shape = shape_from_architecture(model.architecture)
    plan = plan_training_memory(shape, "full", "float32", context=tokens)
    kept: dict[int, int] = {}
    weights = {each.untyped_storage().data_ptr() for each in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.arange(tokens) % 96
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model.logits(model(ids, torch.arange(tokens), Packed([tokens])))
        loss = torch.nn.functional.cross_entropy(logits, ids)
    assert sum(kept.values()) == pytest.approx(plan.activation_bytes, rel=0.25)
    optimizer = torch.optim.AdamW(model.parameters())
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    gradients = sum(each.grad.nbytes for each in model.parameters() if each.grad is not None)
    moments = sum(state[name].nbytes for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq"))
    assert (plan.gradient_bytes, plan.optimizer_bytes) == (gradients, moments)


def test_an_adapter_has_the_parameters_of_a_real_one() -> None:
    model = add_lora(tiny_model(), LoRAConfig(rank=4))
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    shape = shape_from_architecture(tiny_model().architecture)
    assert adapter_parameters(shape, 4) == trained == plan_training_memory(shape, "lora", rank=4).trained_parameters


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lama-3-8b"], "did you mean llama-3-8b?"),
        (["llama-3-8b", "--machine", "h10"], "did you mean h100?"),
        (["llama-3-8b", "--machine", "0:1:1"], "read_gb_s of the machine is 0"),
        (["llama-3-8b", "--machine", "1:nan:1"], "tflop_s of the machine is nan"),
        (["llama-3-8b", "--machine", "h100", "--dtype", "int3"], "dtype is 'int3'"),
        (["llama-3-8b", "--machine", "h100", "--batch", "0"], "batch is 0: give 1 or more"),
        (["llama-3-8b", "--machine", "h100", "--train", "lora", "--rank", "0"], "rank is 0"),
        (["llama-3-8b", "--machine", "h100", "--train", "full", "--dtype", "int4"], "need float32, bfloat16"),
        (["70B", "--machine", "h100", "--train", "full"], "training needs a configuration"),
    ],
)
def test_wrong_plans_are_told_in_a_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "plan", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_command_prints_a_plan_of_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(to_config(tiny_model().architecture)))
    arguments = ["models", "plan", str(tmp_path), "--machine", "l4", "--train", "qlora"]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["serving"]["parameters"] == shape_from_architecture(tiny_model().architecture).parameters
    assert found["training"]["method"] == "qlora" and found["context"] == 256
    assert main(arguments) == 0
    assert "layers computed again" in capsys.readouterr().out


def test_contradictory_shapes_are_refused() -> None:
    with pytest.raises(ConfigError, match="experts_per_token is 9: expected 1 to num_experts"):
        replace(MIXTRAL, experts_per_token=9)
    with pytest.raises(ModelFileError, match="num_hidden_layers"):
        shape_from_config({"hidden_size": 8, "vocab_size": 9}, "here")
    with pytest.raises(ConfigError, match="memory_gb"):
        MachineSpec("none", 1, 1, -1)
    assert find_shape("1.5b") == 1_500_000_000 and find_shape("GPT-2") is KNOWN_SHAPES["gpt-2"]


_VALUES = st.one_of(st.integers(-2, 2**40), st.floats(), st.text(max_size=3), st.booleans(), st.none(), st.just([]))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.sampled_from([*to_config(tiny_model().architecture), "num_experts", "kv_lora_rank"]), _VALUES)
)
def test_no_configuration_ends_in_anything_but_a_plan_or_a_clear_error(changes: dict[str, object]) -> None:
    try:
        shape = shape_from_config({**to_config(tiny_model().architecture), **changes}, "here")
        plan = plan_serving(shape, machine=machine_of("l4"))
    except FirsthandError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(shape, DecoderShape) and plan.parameters > 0
