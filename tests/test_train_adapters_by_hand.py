"""Adapters by hand: as they are drawn, put beside a model, merged into it, and written with their settings."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from engine_tiny import in_blocks_of_4_bits, tiny_model
from firsthand.errors import ConfigError
from firsthand.nn import weights
from firsthand.nn.lora import LoRALinear, read_adapter
from firsthand.nn.routed_lora import RoutedLinear
from firsthand.tokens import pretrained
from firsthand.train.adapters.adapter_memory import training_memory
from firsthand.train.adapters.adapter_settings import AdapterSettings
from firsthand.train.adapters.export_gguf import export_gguf
from firsthand.train.adapters.lora_config import LoRAConfig
from firsthand.train.adapters.lora_training import (
    adapted,
    adapter_of,
    add_lora,
    fresh_adapter,
    frozen,
    merged,
    merged_state,
    with_adapter,
)
from firsthand.train.adapters.save_adapter import _settings, save_adapter, write_adapter
from firsthand.train.reference_policy import ReferencePolicy
from tiny import write_model
from train_tiny import model


def test_an_adapter_begins_as_nothing_and_is_drawn_in_the_models_order() -> None:
    decoder = tiny_model(tied=False)
    config = LoRAConfig(rank=3, alpha=6.0, targets=("v_proj", "lm_head", "layers.1.mlp.up_proj"), seed=5)
    names = ["layers.0.attention.v_proj", "layers.1.attention.v_proj", "layers.1.mlp.up_proj", "lm_head"]
    assert adapted(decoder, config.targets) == names
    assert adapted(decoder, ("lm_head", "all")) == [*decoder.matrices(), "lm_head"], "all leaves the head out"
    assert adapted(decoder, ("attention.o_proj",)) == [f"layers.{layer}.attention.o_proj" for layer in (0, 1)]
    generator = torch.Generator().manual_seed(5)
    for name, (place, update) in zip(names, fresh_adapter(decoder, config).deltas.items(), strict=True):
        outputs, inputs = decoder.get_submodule(name).weight.shape
        expected = (torch.rand(3, inputs, generator=generator) * 2 - 1) / math.sqrt(inputs)
        assert place == f"{name}.weight" and torch.equal(update.a, expected) and update.b.shape == (outputs, 3)
        assert not update.b.any() and (update.scale, update.magnitude) == (2.0, None)
    drawn = fresh_adapter(
        decoder, LoRAConfig(rank=4, init="gaussian", targets=("lm_head",), kind="dora", rank_stabilised=True)
    )
    (update,) = drawn.deltas.values()
    assert torch.equal(update.a, torch.randn(4, 32, generator=torch.Generator().manual_seed(0)) / 4)
    assert torch.allclose(update.magnitude, decoder.lm_head.weight.norm(dim=1)) and update.scale == 32 / 2
    leaves = "down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj"
    for target, text in (
        ("qproj", f"the model has no matrix 'qproj'; did you mean 'q_proj'? it has {leaves}, or all"),
        ("xyz", f"the model has no matrix 'xyz'; it has {leaves}, or all"),
        ("j", f"the model has no matrix 'j'; it has {leaves}, or all"),
        ("", f"the model has no matrix ''; it has {leaves}, or all"),
        ("ayers.0.attention.q_proj", f"the model has no matrix 'ayers.0.attention.q_proj'; it has {leaves}, or all"),
    ):
        with pytest.raises(ConfigError) as refused:
            adapted(decoder, (target,))
        assert str(refused.value) == text
    with pytest.raises(ConfigError) as refused:
        adapted(model(), ("lm_head",))
    assert (
        str(refused.value) == "lm_head shares its matrix with the embedding in this model: it cannot be adapted alone"
    )


def test_freezing_keeps_the_weights_or_rounds_them_and_refuses_a_second_adapter() -> None:
    decoder = frozen(model(), LoRAConfig())
    assert not any(weight.requires_grad for weight in decoder.parameters()) and isinstance(
        decoder.layers[0].mlp.up_proj, nn.Linear
    )
    four = frozen(model(), LoRAConfig(base="nf4"))
    assert type(four.layers[0].mlp.up_proj).__name__ == "FourBitLinear"
    with pytest.raises(ConfigError) as refused:
        frozen(add_lora(model(), LoRAConfig(rank=1)), LoRAConfig())
    assert str(refused.value) == (
        "layers.0.attention.q_proj is a LoRALinear: merge the model's adapter before you add another"
    )
    with pytest.raises(ConfigError) as packed:
        frozen(in_blocks_of_4_bits(model()), LoRAConfig(base="int4"))
    assert str(packed.value).endswith("is quantised already: base='int4' needs a model with float weights")


def test_settings_decide_which_adapters_a_model_has_and_what_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = model()
    assert with_adapter(plain, AdapterSettings(), seed=3) is plain and capsys.readouterr().out == ""
    lora = AdapterSettings("lora", rank=2, targets=("q_proj",))
    one = with_adapter(model(), lora, seed=3)
    assert capsys.readouterr().out == f"{training_memory(one)}\n"
    with_adapter(model(), lora, seed=3, verbose=False)
    assert capsys.readouterr().out == ""
    for dropout in (0.0, 0.25):
        alone = with_adapter(
            model(), AdapterSettings("lora", targets=("q_proj",), dropout=dropout), seed=3, verbose=False
        )
        found = [module.dropout for module in alone.modules() if isinstance(module, LoRALinear)]
        assert found == [dropout, dropout], "one of each layer"
    expected = fresh_adapter(model(), LoRAConfig(rank=2, targets=("q_proj",), seed=3)).deltas
    for name, update in adapter_of(one).deltas.items():
        assert torch.equal(update.a, expected[name].a)
    routed = with_adapter(model(), lora, seed=3, agents=("lead", "worker"), verbose=False)
    for at, agent in enumerate(("lead", "worker")):
        own = fresh_adapter(model(), LoRAConfig(rank=2, targets=("q_proj",), seed=3 + at)).deltas
        assert all(
            torch.equal(update.a, own[name].a) for name, update in adapter_of(routed, agent=agent).deltas.items()
        )
    with pytest.raises(ConfigError, match="no agent 'x' has an adapter: there are lead, worker"):
        adapter_of(routed, agent="x")
    with pytest.raises(ConfigError, match="the model has no adapter: put one beside it with add_lora"):
        adapter_of(model())
    for module in routed.modules():
        if isinstance(module, LoRALinear):
            nn.init.normal_(module.b)
    for agent in ("lead", "worker"):
        save_adapter(routed, tmp_path / "adapters" / agent, agent=agent)
    other = with_adapter(model(), lora, seed=77, agents=("lead", "worker"), verbose=False)
    save_adapter(other, tmp_path / "lead", agent="lead")  # that of a run stands before one of the same name beside it
    for folder in (tmp_path, tmp_path / "adapters"):
        begun = AdapterSettings("lora", rank=9, targets=("q_proj",), begin_with=folder)
        again = with_adapter(model(), begun, seed=8, agents=("worker", "lead"), verbose=False)
        for agent in ("lead", "worker"):
            first, second = (adapter_of(each, agent=agent).deltas for each in (again, routed))
            assert all(torch.equal(first[name].b, second[name].b) for name in second)
    with pytest.raises(ConfigError) as refused:
        with_adapter(model(), AdapterSettings("lora", base_weights="blocks"), seed=0)
    assert str(refused.value).startswith(
        "base_weights is 'blocks', which needs an adapter and a GGUF file with quantised"
    )
    for settings in (AdapterSettings(), AdapterSettings("dora"), AdapterSettings("lora", dropout=0.1)):
        with pytest.raises(ConfigError) as agents:
            with_adapter(model(), settings, seed=0, agents=("lead", "worker"))
        assert str(agents.value) == (
            "agents are lead, worker, and each has an adapter beside shared weights: give --adapter lora or rslora, without "
            "dropout"
        )
    assert not any(isinstance(module, RoutedLinear) for module in one.modules())


def test_an_adapter_to_begin_with_is_of_the_kind_and_the_matrices_that_are_asked_for(tmp_path: Path) -> None:
    for kind in ("lora", "dora"):
        save_adapter(add_lora(model(), LoRAConfig(kind=kind, rank=2, targets=("q_proj",))), tmp_path / kind)

    def begun(adapter: Any, folder: str, **more: Any) -> Any:
        settings = AdapterSettings(adapter, begin_with=tmp_path / folder, **more)
        return adapter_of(with_adapter(model(), settings, seed=0, verbose=False)).deltas

    for given, folder in (("lora", "lora"), ("rslora", "lora"), ("dora", "dora")):
        for targets in (("all",), ("q_proj",), ("attention.q_proj",)):
            assert len(begun(given, folder, targets=targets)) == 2, "all is what is given by default"
    for given, folder in (("lora", "dora"), ("rslora", "dora"), ("dora", "lora")):
        with pytest.raises(ConfigError) as kind_refused:
            begun(given, folder)
        assert str(kind_refused.value) == (
            f"adapter is {given}, and begin_with is an adapter of the kind {folder}: give --adapter {folder}"
        )
    for targets in (("v_proj",), ("q_proj", "v_proj"), ("layers.0.attention.q_proj",)):
        with pytest.raises(ConfigError) as targets_refused:
            begun("lora", "lora", targets=targets)
        assert str(targets_refused.value) == (
            f"targets are {', '.join(targets)}, and begin_with is an adapter of other matrices (q_proj): leave targets out"
        )


def drawn(decoder: Any) -> Any:
    torch.manual_seed(1)
    for module in decoder.modules():
        if isinstance(module, LoRALinear):
            nn.init.normal_(module.b)
    return decoder


def test_a_merged_model_has_the_product_in_its_weights_and_the_model_keeps_its_own() -> None:
    base, decoder = (
        model().state_dict(),
        drawn(add_lora(model(), LoRAConfig(rank=2, alpha=3.0, targets=("q_proj", "up_proj")))),
    )
    state, plain = merged_state(decoder), merged_state(decoder, adapted=False)
    updates = adapter_of(decoder).deltas
    assert (
        set(state)
        == set(plain)
        == {name for name in base if name != "lm_head.weight"} | (set(state) & {"lm_head.weight"})
    )
    for name, weight in state.items():
        assert torch.equal(plain[name], base[name])
        if name in updates:
            assert torch.allclose(weight, base[name] + 1.5 * updates[name].b @ updates[name].a, atol=1e-5)
        else:
            assert torch.equal(weight, base[name])
    own = {weight.untyped_storage().data_ptr() for weight in decoder.parameters()}
    for weight in (*state.values(), *plain.values()):
        assert weight.untyped_storage().data_ptr() not in own and not weight.requires_grad, "a copy"
    whole = merged(decoder.eval())
    assert not whole.training and all(weight.requires_grad for weight in whole.parameters())
    assert torch.equal(whole.layers[1].attention.q_proj.weight, state["layers.1.attention.q_proj.weight"])
    assert whole.lm_head.weight is whole.embed.weight and torch.equal(
        decoder.layers[0].mlp.up_proj.base.weight, base["layers.0.mlp.up_proj.weight"]
    )
    routed = drawn(with_adapter(model(), AdapterSettings("lora", rank=2), seed=0, agents=("a", "b"), verbose=False))
    assert all(torch.equal(weight, base[name]) for name, weight in merged_state(routed).items())
    with torch.no_grad():
        for weight in merged(routed.train()).parameters():
            weight.add_(1)
    assert all(torch.equal(weight, base[name]) for name, weight in merged_state(routed).items()), "it keeps its own"
    assert merged(routed.train()).training


def test_an_adapters_settings_name_each_rank_and_scale_that_differs(tmp_path: Path) -> None:
    decoder = drawn(add_lora(model(), LoRAConfig(rank=2, alpha=3.0, targets=("q_proj", "k_proj"))))
    updates = adapter_of(decoder).deltas
    names = ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj", "model.layers.1.self_attn.q_proj"]
    q, k, last = (updates[f"layers.{n}.attention.{p}_proj.weight"] for n, p in ((0, "q"), (0, "k"), (1, "q")))
    larger = type(q)(torch.ones(5, 32), torch.ones(96, 5), 0.5)
    steeper = type(k)(k.a, k.b, 4.0)
    body = _settings(dict(zip(names, (q, steeper, larger), strict=True)), decoder, LoRAConfig(dropout=0.25))
    assert body == {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "inference_mode": True, "r": 2, "lora_alpha": 3,
        "rank_pattern": {names[2]: 5}, "alpha_pattern": {names[1]: 8.0, names[2]: 2.5}, "use_rslora": False,
        "lora_dropout": 0.25, "target_modules": sorted(names), "bias": "none", "fan_in_fan_out": False,
        "init_lora_weights": True,
    }  # fmt: skip
    stabilised = _settings({names[0]: last}, decoder, LoRAConfig(rank_stabilised=True))
    assert stabilised["lora_alpha"] == pytest.approx(1.5 * math.sqrt(2)) and stabilised["use_rslora"]
    assert _settings({names[0]: q}, decoder, None)["lora_dropout"] == 0.0
    larger_first = _settings({names[2]: larger, names[0]: q}, decoder, None)
    assert (larger_first["r"], larger_first["rank_pattern"], larger_first["alpha_pattern"]) == (
        5, {names[0]: 2}, {names[0]: 3.0}
    )  # fmt: skip
    saved = save_adapter(decoder, tmp_path / "a", base="org/base", config=LoRAConfig(rank=2, alpha=3.0))
    settings = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert (settings["target_modules"], settings["use_dora"], settings["base_model_name_or_path"]) == (
        ["k_proj", "q_proj"], False, "org/base"
    )  # fmt: skip
    assert {each.name for each in (tmp_path / "a").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    tensors = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert len(tensors) == 8 and torch.equal(tensors[f"base_model.model.{names[0]}.lora_A.weight"], q.a)
    again = read_adapter(tmp_path / "a", model())
    assert all(
        torch.equal(again.deltas[name].b, update.b) and again.deltas[name].scale == 1.5
        for name, update in updates.items()
    )
    assert saved.deltas.keys() == updates.keys()
    write_adapter(saved, decoder, tmp_path / "not" / "there")
    assert (
        json.loads((tmp_path / "not" / "there" / "adapter_config.json").read_text())["base_model_name_or_path"] is None
    )
    with torch.no_grad():
        decoder.layers[1].attention.k_proj.b[0, 0] = math.inf
    with pytest.raises(ConfigError) as refused:
        save_adapter(decoder, tmp_path / "c")
    assert str(refused.value) == (
        "layers.1.attention.k_proj.weight of the adapter has values that are no finite numbers: it is not saved"
    )


def test_a_saved_adapter_has_the_settings_it_was_made_with_and_is_replaced_whole(tmp_path: Path) -> None:
    config = LoRAConfig(rank=4, alpha=3.0, rank_stabilised=True, dropout=0.25, targets=("q_proj",))
    decoder = drawn(add_lora(model(), config))
    expected = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "inference_mode": True, "r": 4, "lora_alpha": 3,
        "rank_pattern": {}, "alpha_pattern": {}, "use_rslora": True, "lora_dropout": 0.25,
        "target_modules": ["q_proj"], "bias": "none", "fan_in_fan_out": False, "init_lora_weights": True,
        "use_dora": False, "base_model_name_or_path": "org/b",
    }  # fmt: skip
    plain = expected | {
        "use_rslora": False, "lora_alpha": 6, "lora_dropout": 0.0, "base_model_name_or_path": None
    }  # fmt: skip
    for folder in (tmp_path / "a", str(tmp_path / "a")):
        save_adapter(decoder, folder)
        assert json.loads((tmp_path / "a" / "adapter_config.json").read_text()) == plain
        returned = save_adapter(decoder, folder, base="org/b", config=config)
        assert json.loads((tmp_path / "a" / "adapter_config.json").read_text()) == expected
        assert returned.deltas.keys() == adapter_of(decoder).deltas.keys()
    assert {each.name for each in (tmp_path / "a").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    (update, *_) = read_adapter(tmp_path / "a", model()).deltas.values()
    assert update.scale == 1.5, "3 / sqrt(4)"
    fat = drawn(add_lora(model(), LoRAConfig(kind="dora", rank=2, targets=("v_proj",), dropout=0.5)))
    write_adapter(adapter_of(fat), fat, tmp_path / "a", base="x", config=LoRAConfig(kind="dora", rank=2, dropout=0.5))
    again = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert [again[key] for key in ("use_dora", "lora_dropout", "target_modules", "r", "base_model_name_or_path")] == [
        True, 0.5, ["v_proj"], 2, "x"
    ]  # fmt: skip
    assert {name.rpartition("v_proj.")[2] for name in load_file(tmp_path / "a" / "adapter_model.safetensors")} == {
        "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"
    }  # fmt: skip


@pytest.mark.slow
def test_an_exported_file_has_the_merged_weights_and_a_name_for_every_row(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "base")
    known = pretrained.load(folder).vocab_size
    decoder = drawn(add_lora(tiny_model(4, vocab_size=known + 2), LoRAConfig(rank=2, targets=("v_proj",))))
    export_gguf(decoder, tmp_path / "named.gguf", dtype="F32", tokenizer=folder)
    export_gguf(decoder, tmp_path / "bare.gguf", dtype="F16")
    whole = merged(decoder).state_dict()
    for name, tolerance in (("named", 1e-6), ("bare", 2e-2)):
        loaded = weights.load(tmp_path / f"{name}.gguf").state_dict()
        assert loaded.keys() == whole.keys()
        assert all(torch.allclose(loaded[key], value, atol=tolerance) for key, value in whole.items())
    fields = gguf.GGUFReader(tmp_path / "named.gguf").fields
    tokens, kinds = (fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "token_type"))
    assert len(tokens) == len(kinds) == known + 2 and tokens[:3] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert (
        tokens[known:] == [f"[PAD{known}]", f"[PAD{known + 1}]"] and kinds[known:] == [5, 5] and kinds[known - 1] == 1
    )
    assert not any(key.startswith("tokenizer.") for key in gguf.GGUFReader(tmp_path / "bare.gguf").fields)


def scaled(decoder: Any, factor: float) -> None:
    with torch.no_grad():
        for weight in decoder.parameters():
            if weight.requires_grad:
                weight.mul_(factor)


def test_a_reference_is_the_model_as_it_was_and_leaves_the_model_as_it_is() -> None:
    plain = model()
    before = ReferencePolicy(plain)
    was = plain.embed.weight.detach().clone()
    scaled(plain, 2.0)
    with before.there() as there:
        assert there is not plain and not there.training and torch.equal(there.embed.weight, was)
    fresh = add_lora(model(), LoRAConfig(rank=2, targets=("q_proj",)))
    before = ReferencePolicy(fresh)
    layer = fresh.layers[0].attention.q_proj
    with pytest.raises(KeyboardInterrupt), before.there() as there:
        assert there is fresh and not layer.is_on
        raise KeyboardInterrupt
    assert layer.is_on and before.copy is None and before.beginning == []
    begun = drawn(fresh)
    before, was = ReferencePolicy(begun, is_fresh=False), layer.b.detach().clone()
    assert before.copy is None and len(before.beginning) == 4, "frozen weights are not kept twice"
    scaled(begun, 3.0)
    with pytest.raises(KeyboardInterrupt), before.there() as there:
        assert there is begun and layer.is_on and torch.equal(layer.b, was)
        raise KeyboardInterrupt
    assert torch.allclose(layer.b, 3 * was)
    assert ReferencePolicy(model(), is_fresh=False).copy is not None
