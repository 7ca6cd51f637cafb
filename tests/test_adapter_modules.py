"""Adapters of families whose files hold several matrices in one module, or transposed ones: names, joining and parting."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from firsthand.errors import ConfigError, ModelFileError
from firsthand.nn import weights
from firsthand.nn.adapter_modules import FileModule, file_modules, parted
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.layout_reader import huggingface_layout, laid_out
from firsthand.nn.lora import LoRALinear, LowRankUpdate, read_adapter
from firsthand.nn.model_config import config_architecture
from firsthand.train import training_run
from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.adapters.lora_config import LoRAConfig
from firsthand.train.adapters.lora_training import adapter_of, add_lora, merged_state
from firsthand.train.adapters.save_adapter import joined, save_adapter, with_row_lengths, write_adapter

torch.set_num_threads(1)
PLAIN = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "phi3": PLAIN | {"hidden_act": "silu"},
    "starcoder2": PLAIN | {"hidden_act": "gelu_pytorch_tanh", "use_bias": True},
    "gpt2": {"vocab_size": 40, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "bloom": {"vocab_size": 40, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mpt": {
        "vocab_size": 40,
        "d_model": 32,
        "n_layers": 2,
        "n_heads": 4,
        "max_seq_len": 64,
        "no_bias": True,
        "attn_config": {"alibi": True},
    },
}
FUSED = {
    "phi3": ("model.layers.1.self_attn.qkv_proj", "model.layers.1.mlp.gate_up_proj"),
    "starcoder2": ("model.layers.1.mlp.c_fc", "model.layers.1.self_attn.v_proj"),
    "gpt2": ("transformer.h.1.attn.c_attn", "transformer.h.1.mlp.c_proj"),
    "bloom": ("transformer.h.1.self_attention.query_key_value", "transformer.h.1.self_attention.dense"),
    "mpt": ("transformer.blocks.1.attn.Wqkv", "transformer.blocks.1.ffn.down_proj"),
}
IDS = torch.randint(3, 40, (12,), generator=torch.Generator().manual_seed(0))


def base(family: str) -> Decoder:
    values = CONFIGS[family] | {"model_type": family}
    return initialise(Decoder(config_architecture(values, Path("config.json"))), seed=0, std=0.3)


def drawn(model: Decoder) -> Decoder:
    """The model with an adapter that changes it."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, LoRALinear):
            module.b.data.copy_(torch.randn(module.b.shape, generator=generator) * 0.2)
            if module.magnitude is not None:
                module.magnitude.data.mul_(torch.rand(module.magnitude.shape, generator=generator) + 0.5)
    return model.eval()


def in_file(model: Decoder, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The matrices as a file has them, outputs x inputs."""
    layout = huggingface_layout(model.architecture)
    assert layout is not None
    modules = file_modules(model)
    found = {name.removesuffix(".weight"): each for name, each in laid_out(layout, state)}
    return {name: each.T if modules[name].is_transposed else each for name, each in found.items() if name in modules}


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("family", CONFIGS)
def test_an_adapter_is_saved_for_the_modules_of_the_files_and_read_back_as_it_was(
    family: str, kind: Any, tmp_path: Path
) -> None:
    targets = ("q_proj", "v_proj", "up_proj", "o_proj") if kind == "dora" else ("all",)
    model = drawn(add_lora(base(family), LoRAConfig(kind=kind, rank=3, alpha=6, targets=targets)))
    save_adapter(model, tmp_path / "a")
    tensors = load_file(tmp_path / "a" / "adapter_model.safetensors")
    settings = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert settings["fan_in_fan_out"] == (family == "gpt2")
    before, after = in_file(model, base(family).state_dict()), in_file(model, merged_state(model))
    assert set(FUSED[family]) - {"model.layers.1.self_attn.v_proj"} <= before.keys()
    names = {name.removeprefix("base_model.model.").partition(".lora_")[0] for name in tensors}
    assert names == {name for name in before if not torch.equal(before[name], after[name])} and names & set(
        FUSED[family]
    )
    for name in names:
        a, b = (tensors[f"base_model.model.{name}.lora_{each}.weight"] for each in "AB")
        rank = settings["rank_pattern"].get(name, settings["r"])
        scale = settings["alpha_pattern"].get(name, settings["lora_alpha"]) / rank
        magnitude = tensors.get(f"base_model.model.{name}.lora_magnitude_vector")
        assert torch.allclose(LowRankUpdate(a, b, scale, magnitude).applied(before[name]), after[name], atol=1e-5)
    again = read_adapter(tmp_path / "a", base(family))
    changed = merged_state(model)
    for ours, update in again.deltas.items():
        assert torch.allclose(update.applied(base(family).state_dict()[ours]), changed[ours], atol=1e-5)
    if kind == "lora":
        for ours, update in adapter_of(model).deltas.items():
            assert torch.equal(again.deltas[ours].a, update.a) and torch.equal(again.deltas[ours].b, update.b)


def test_ranks_and_scales_of_a_module_s_matrices_may_differ_and_one_may_have_none() -> None:
    model = base("phi3")
    module = file_modules(model)[FUSED["phi3"][0]]
    assert (module.shape, module.shapes) == ((64, 32), ((32, 32), (16, 32), (16, 32)))
    q, v = module.ours[0], module.ours[2]
    updates = {q: LowRankUpdate(torch.randn(2, 32), torch.randn(32, 2), -0.5),
               v: LowRankUpdate(torch.randn(5, 32), torch.randn(16, 5), 3.0)}  # fmt: skip
    found = joined(module, updates)
    assert found.a.shape == (7, 32) and found.scale == 3.0
    expected = torch.cat([updates[q].product(), torch.zeros(16, 32), updates[v].product()])
    assert torch.allclose(found.product(), expected, atol=1e-5)
    off = joined(module, {q: LowRankUpdate(torch.ones(1, 32), torch.ones(32, 1), 0.0)})
    assert off.scale == 0 and not off.product().any()


def test_a_fresh_adapter_is_parted_into_what_it_was_joined_of(tmp_path: Path) -> None:
    model = add_lora(base("phi3"), LoRAConfig(rank=3))
    save_adapter(model, tmp_path / "a")
    again = read_adapter(tmp_path / "a", base("phi3"), max_rank=3)
    for ours, update in adapter_of(model).deltas.items():
        assert torch.equal(again.deltas[ours].a, update.a) and not again.deltas[ours].b.any()
    module = FileModule(("x", "y", "z"), ((2, 4), (1, 4), (1, 4)))
    assert [len(a) for a, _ in parted(torch.ones(2, 4), torch.zeros(4, 2), module)] == [1, 1, 1]
    b = torch.tensor([[0.0, 1], [0, 0], [2, 0], [0, 0]])
    assert [part.tolist() for _, part in parted(torch.ones(2, 4), b, module)] == [[[1], [0]], [[2]], [[0.0]]]


@pytest.mark.parametrize("weights_in", ["kept", "nf4"])
def test_rows_of_a_matrix_without_an_adapter_have_the_lengths_of_its_weights_with_dora(
    weights_in: Any, tmp_path: Path
) -> None:
    model = drawn(add_lora(base("phi3"), LoRAConfig(kind="dora", rank=3, targets=("k_proj",), base=weights_in)))
    save_adapter(model, tmp_path / "a")
    fused = FUSED["phi3"][0]
    attention = model.get_submodule("layers.1.attention")
    saved = load_file(tmp_path / "a" / "adapter_model.safetensors")[f"base_model.model.{fused}.lora_magnitude_vector"]
    q, k, v = saved.split([32, 16, 16])
    assert torch.allclose(q, attention.q_proj.weight.detach().norm(dim=1)), "the rows stay as long as they are"
    assert torch.allclose(v, attention.v_proj.weight.detach().norm(dim=1))
    assert torch.equal(k, attention.k_proj.magnitude)


def test_weights_are_read_for_dora_before_the_first_process_writes_alone(tmp_path: Path) -> None:
    model = drawn(add_lora(base("phi3"), LoRAConfig(kind="dora", rank=3, targets=("q_proj", "lm_head"))))
    found = adapter_of(model)
    whole = with_row_lengths(found, model)
    assert set(whole.deltas) - set(found.deltas) == {
        f"layers.{layer}.attention.{name}.weight" for layer in (0, 1) for name in ("k_proj", "v_proj")
    }
    write_adapter(whole, model.to("meta"), tmp_path / "a")  # where every weight is gathered already
    assert set(read_adapter(tmp_path / "a", base("phi3")).deltas) == set(whole.deltas)
    plain = adapter_of(add_lora(base("phi3"), LoRAConfig(rank=3, targets=("q_proj",))))
    assert with_row_lengths(plain, model) is plain


def test_each_process_of_a_run_reads_the_weights_for_dora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = drawn(add_lora(base("phi3"), LoRAConfig(kind="dora", rank=3, targets=("q_proj",))))
    seen = []
    monkeypatch.setattr(training_run, "is_first", lambda: False)
    monkeypatch.setattr(training_run, "with_row_lengths", lambda adapter, model: seen.append(model) or adapter)
    run: Any = SimpleNamespace(spread=lambda model: None, loop=SimpleNamespace(seed=0), folder=tmp_path)
    training_run.TrainingRun.save(run, model, None, adapter=AdapterSettings("dora"))  # type: ignore[arg-type]
    assert seen == [model] and not list(tmp_path.iterdir()), "gathered, and written by another process"


def test_every_rank_that_can_be_trained_is_read_again(tmp_path: Path) -> None:
    fused, _ = FUSED["phi3"]
    for rank, is_read in ((3 * 4096, True), (3 * 4096 + 1, False)):
        part = pair(fused, rank, 64)
        b = part[f"{fused}.lora_B.weight"].zero_()
        for rows, ranks in zip(
            (range(32), range(32, 48), range(48, 64)), torch.arange(rank).tensor_split(3), strict=True
        ):
            b[rows.start : rows.stop, ranks] = 1
        folder = given(tmp_path / str(rank), part, r=rank)
        if is_read:
            assert [len(each.a) for each in read_adapter(folder, base("phi3")).deltas.values()] == [4096] * 3
            with pytest.raises(ConfigError, match="has rank 12288: at most 4095 is allowed here"):
                read_adapter(folder, base("phi3"), max_rank=4095)
        else:
            with pytest.raises(ModelFileError, match="with r from 1 to 12288"):
                read_adapter(folder, base("phi3"))
    wide = given(tmp_path / "wide", pair(fused, 4097, 64), r=4097)
    with pytest.raises(ConfigError, match="has rank 4097: at most 4096 is allowed here"):
        read_adapter(wide, base("phi3"))


def given(folder: Path, tensors: dict[str, torch.Tensor], **settings: Any) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(
        {f"base_model.model.{name}": each for name, each in tensors.items()}, folder / "adapter_model.safetensors"
    )
    body = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, **settings}
    (folder / "adapter_config.json").write_text(json.dumps(body))
    return folder


def pair(name: str, rank: int, outputs: int) -> dict[str, torch.Tensor]:
    return {f"{name}.lora_A.weight": torch.ones(rank, 32), f"{name}.lora_B.weight": torch.ones(outputs, rank)}


def test_an_adapter_of_a_module_changes_each_matrix_in_it_and_its_rank_is_bounded_for_each(tmp_path: Path) -> None:
    fused, _ = FUSED["phi3"]
    module = file_modules(base("phi3"))[fused]
    folder = given(tmp_path / "a", pair(fused, 4, 64))
    found = read_adapter(folder, base("phi3"), max_rank=4).deltas
    assert set(found) == set(module.ours) and all((len(each.a), each.scale) == (4, 2.0) for each in found.values())
    for most in (3, 1):  # as a whole it might be three matrices of 3 each, and is not; or it cannot be
        with pytest.raises(ConfigError, match=f"has rank 4: at most {most} is allowed here"):
            read_adapter(folder, base("phi3"), max_rank=most)
    half = pair(fused, 4, 64)
    half[f"{fused}.lora_B.weight"][32:] = 0
    assert set(read_adapter(given(tmp_path / "half", half), base("phi3")).deltas) == {module.ours[0]}
    older = given(tmp_path / "older", pair("model.layers.1.self_attn.q_proj", 4, 32))
    assert set(read_adapter(older, base("phi3")).deltas) == {module.ours[0]}, "as saved until 0.26.0"
    twice = given(tmp_path / "twice", pair(fused, 4, 64) | pair("model.layers.1.self_attn.k_proj", 4, 16))
    with pytest.raises(ModelFileError, match="is changed twice, by itself and by its parts"):
        read_adapter(twice, base("phi3"))
    with pytest.raises(ModelFileError, match=r"has lora_A \(4, 32\) and lora_B \(60, 4\)"):
        read_adapter(given(tmp_path / "short", pair(fused, 4, 60)), base("phi3"))
    with pytest.raises(ModelFileError, match="fan_in_fan_out"):
        read_adapter(given(tmp_path / "a", pair(fused, 4, 64), fan_in_fan_out=True), base("phi3"))
    for flag in (True, False):
        columns = given(tmp_path / "gpt2", pair(FUSED["gpt2"][0], 4, 96), fan_in_fan_out=flag)
        assert len(read_adapter(columns, base("gpt2")).deltas) == 3


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")
@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("family", CONFIGS)
def test_peft_computes_the_same_with_adapters_of_these_families_in_both_directions(
    family: str, kind: Any, tmp_path: Path
) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    weights.save(base(family), tmp_path / "m")
    model = drawn(add_lora(base(family), LoRAConfig(kind=kind, rank=3, alpha=6)))
    save_adapter(model, tmp_path / "a")
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "m"), tmp_path / "a").eval()

    def ours(decoder: Decoder) -> torch.Tensor:
        with torch.no_grad():
            hidden = decoder(IDS, torch.arange(len(IDS)), Packed([len(IDS)]))
            return torch.log_softmax(decoder.logits(hidden), -1)

    with torch.no_grad():
        assert (torch.log_softmax(theirs(IDS[None]).logits[0], -1) - ours(model)).abs().max() < 5e-5
    leaves = [name.rpartition(".")[2] for name in FUSED[family]]
    made = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tmp_path / "m"),
        LoraConfig(r=4, lora_alpha=8, target_modules=leaves, use_dora=kind == "dora", task_type="CAUSAL_LM"),
    ).eval()
    with torch.no_grad():
        for name, values in made.named_parameters():
            if "lora_B" in name:
                values.copy_(torch.randn_like(values) * 0.2)
        made.save_pretrained(tmp_path / "b")
        expected = torch.log_softmax(made(IDS[None]).logits[0], -1)
    assert (expected - ours(weights.load(tmp_path / "m", adapter=tmp_path / "b"))).abs().max() < 5e-5
