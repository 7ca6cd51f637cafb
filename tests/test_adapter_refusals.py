"""Adapters that are refused: settings of other methods, files that change while they are read, ranks that are too high."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.fields import Fields
from firsthand.formats.safetensors_file import Safetensors, read_safetensors
from firsthand.nn.lora import _Config, _delta, read_adapter
from lora_tiny import base

K = "base_model.model.model.layers.1.self_attn.k_proj"
Q = "base_model.model.model.layers.0.self_attn.q_proj"
OTHERS = {
    "lora_bias": "biases of its own", "modules_to_save": "whole modules kept beside the adapter",
    "trainable_token_indices": "embeddings of single tokens",
    "target_parameters": "parameters that are no matrices of their own", "use_qalora": "QA-LoRA",
    "alora_invocation_tokens": "activated LoRA", "arrow_config": "Arrow's routing between adapters",
    "use_bdlora": "block-diagonal LoRA", "kasa_config": "KaSA", "monteclora_config": "MonteCLoRA",
    "layer_replication": "layers that are repeated",
}  # fmt: skip


def settings(**more: Any) -> _Config:
    return _Config(Fields({"peft_type": "LORA", "r": 3, "lora_alpha": 6, **more}, "a.json"))


def written(folder: Path, tensors: dict[str, torch.Tensor], **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 3, "lora_alpha": 6, **more}))
    return folder


def test_every_setting_of_another_method_is_refused_by_its_name_unless_it_is_off() -> None:
    for key, what in OTHERS.items():
        for value in (True, [0], {"a": 1}, "x"):
            with pytest.raises(ModelFileError) as told:
                settings(**{key: value})
            assert str(told.value) == f"a.json: {key} is set, which asks for {what}: only LoRA and DoRA are read"
        for off in (None, False, [], {}, ""):
            assert settings(**{key: off}).rank == 3
    for start in ("pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga"):
        with pytest.raises(ModelFileError) as told:
            settings(init_lora_weights=start)
        assert str(told.value) == (
            f"a.json: init_lora_weights is '{start}', which changes the base's own weights: convert the adapter to plain "
            "LoRA when saving it (PEFT: path_initial_model_for_weight_conversion)"
        )
    for start in (True, False, None, "gaussian", "eva", "orthogonal", "mypissa"):
        assert settings(init_lora_weights=start).alpha == 6.0


def test_a_file_that_changes_after_its_header_was_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"

    def opened() -> Safetensors:
        save_file({"a": torch.ones(3, 32), "b": torch.ones(16, 3), "m": torch.ones(16)}, path)
        return read_safetensors(path)

    def said(file: Safetensors, config: _Config | None = None, **pair: str) -> str:
        with pytest.raises(ModelFileError) as told:
            _delta(file, "x.k_proj", pair, (16, 32), config or settings())
        return str(told.value)

    file = opened()
    path.unlink()
    assert said(file, A="a", B="b").startswith(f"{path} changed while it was read: No such file or directory")
    file = opened()
    path.write_bytes(b"\xff" * 64)
    assert said(file, A="a", B="b").startswith(f"{path} changed while it was read: ")
    file = opened()
    save_file({"a": torch.ones(3, 32)}, path)
    assert said(file, A="a", B="b").startswith(f"{path} changed while it was read: ")
    file = opened()
    save_file({"a": torch.ones(3, 32), "b": torch.ones(3, 16)}, path)
    assert said(file, A="a", B="b") == f"{path} changed while it was read: x.k_proj has another shape now"
    dora = settings(use_dora=True)
    for values, wrong in (
        (torch.tensor([torch.nan] * 16), "x.k_proj has values that are no finite numbers"),
        (torch.ones(16, dtype=torch.int32), "tensor 'm' is I32: expected F32, F16, BF16, F64"),
        (torch.ones(16, 1), "x.k_proj has lora_magnitude_vector (16, 1): expected (16,)"),
    ):
        save_file({"a": torch.ones(3, 32), "b": torch.ones(16, 3), "m": values}, path)
        assert said(read_safetensors(path), dora, A="a", B="b", magnitude_vector="m") == f"{path}: {wrong}"
    save_file({"a": torch.ones(3, 32).double(), "b": torch.ones(16, 3).bfloat16()}, path)
    found = _delta(read_safetensors(path), "x.k_proj", {"A": "a", "B": "b"}, (16, 32), settings(use_rslora=True, r=3))
    assert (found.a.dtype, found.b.dtype, found.scale) == (torch.float64, torch.bfloat16, 6 / 3**0.5)


def test_the_highest_rank_of_all_matrices_is_what_may_be_too_high(tmp_path: Path) -> None:
    model = base()
    tensors = {
        f"{K}.lora_A.weight": torch.ones(5, 32), f"{K}.lora_B.weight": torch.ones(16, 5),
        f"{Q}.lora_B.weight": torch.ones(32, 3), f"{Q}.lora_A.weight": torch.ones(3, 32),
    }  # fmt: skip
    folder = written(
        tmp_path / "two", tensors, rank_pattern={"k_proj": 5}, alpha_pattern={"layers.1.self_attn.k_proj": 9}
    )
    file = folder / "adapter_model.safetensors"
    found = read_adapter(folder, model, max_rank=5)
    ours = {"layers.0.attention.q_proj.weight": (3, 6 / 3), "layers.1.attention.k_proj.weight": (5, 9 / 5)}
    assert {name: (len(delta.a), delta.scale) for name, delta in found.deltas.items()} == ours
    for most in (4, 2):
        with pytest.raises(ConfigError) as told:
            read_adapter(folder, model, max_rank=most)
        assert str(told.value) == f"{file} has rank 5: at most {most} is allowed here"
    size = file.stat().st_size
    with pytest.raises(ConfigError, match=f"has {size} bytes: an adapter of at most 7 is allowed here$"):
        read_adapter(folder, model, max_rank=1, max_bytes=7)
    half = written(tmp_path / "half", {f"{K}.lora_B.weight": torch.ones(16, 3)})
    with pytest.raises(ModelFileError, match=r"layers\.1\.self_attn\.k_proj has only one of lora_A and lora_B$"):
        read_adapter(half, model, max_rank=1)
    huge = {f"{K}.lora_A.weight": torch.ones(4097, 32).half(), f"{K}.lora_B.weight": torch.ones(16, 4097).half()}
    with pytest.raises(ModelFileError) as wrong:
        read_adapter(written(tmp_path / "huge", huge, r=4097), model, max_rank=4)
    assert str(wrong.value) == (
        f"{tmp_path / 'huge' / 'adapter_model.safetensors'}: model.layers.1.self_attn.k_proj has lora_A (4097, 32) and "
        "lora_B (16, 4097): expected (r, 32) and (16, r) with r from 1 to 4096"
    )
    most = {name: values[:, :4096] if values.shape[0] == 16 else values[:4096] for name, values in huge.items()}
    whole = read_adapter(
        written(tmp_path / "most", {name: each.contiguous() for name, each in most.items()}, r=4096), model
    )
    assert len(whole.deltas["layers.1.attention.k_proj.weight"].a) == 4096


def test_a_scale_that_is_no_finite_number_is_refused_where_it_is_set(tmp_path: Path) -> None:
    tensors = {f"{K}.lora_A.weight": torch.ones(3, 32), f"{K}.lora_B.weight": torch.ones(16, 3)}
    model = base()
    for value, shown in (("1e400", "inf"), ("-Infinity", "-inf"), ("NaN", "nan"), ("1e30", "1e+30"), ('"6"', "6")):
        for number, (key, more) in enumerate((("lora_alpha", {}), ("k_proj", {"alpha_pattern": {"k_proj": 1}}))):
            folder = written(tmp_path / f"{number}", tensors, **more)
            config = folder / "adapter_config.json"
            text = config.read_text()
            config.write_text(text.replace(f'"{key}": {1 if more else 6}', f'"{key}": {value}'))
            with pytest.raises(ModelFileError, match=rf"{key} is '{re.escape(shown)}': expected a finite number$"):
                read_adapter(folder, model)
    largest = written(tmp_path / "largest", tensors, lora_alpha=9e29, use_rslora=True)
    (found,) = read_adapter(largest, model).deltas.values()
    assert found.scale == 9e29 / 3**0.5
    for kind in ("A", "B"):
        for value in (torch.inf, -torch.inf, torch.nan):
            bad = {name: each.clone() for name, each in tensors.items()}
            bad[f"{K}.lora_{kind}.weight"][-1, -1] = value
            with pytest.raises(
                ModelFileError, match=r"layers\.1\.self_attn\.k_proj has values that are no finite numbers$"
            ):
                read_adapter(written(tmp_path / "bad", bad), model)
