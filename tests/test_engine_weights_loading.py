"""Which weights and adapters an engine reads onto its device, and which it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from adapters_tiny import adapter, merged, write
from engine_tiny import tiny_model
from firsthand.engine.compute.adapter_slots import AdapterSlots
from firsthand.engine.compute.device_weights import _sourced, load_weights
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError, ModelFileError
from firsthand.nn import weights


def test_a_model_is_read_with_its_adapter_merged_and_only_onto_a_device_that_is_there(tmp_path: Path) -> None:
    model = tiny_model()
    folder, added = tmp_path / "model", adapter(model, 1, only="q_proj")
    folder.mkdir()
    weights.save(model, folder)
    red = write(tmp_path / "red", model, added)
    name = next(each for each in model.state_dict() if "1" in each and "q_proj.weight" in each)
    plain = load_weights(folder, EngineConfig())
    torch.testing.assert_close(plain.state_dict()[name], model.state_dict()[name])
    assert plain.embed.weight.dtype == torch.float32 and plain.embed.weight.device.type == "cpu"
    changed = load_weights(folder, EngineConfig(weights="float32"), red).state_dict()[name]
    torch.testing.assert_close(changed, merged(tiny_model(), added).state_dict()[name], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(changed, model.state_dict()[name], atol=1e-2)
    with pytest.raises(ConfigError, match=r"^device is 'cuda:999', and there"):
        load_weights(folder, EngineConfig(device="cuda:999", weights="float32"))


def test_an_encoder_decoder_takes_no_adapter_and_no_int8_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    added = Path("red")
    with pytest.raises(ConfigError) as told:
        load_weights(tmp_path, EngineConfig(weights="int8"), added)
    assert str(told.value) == f"{tmp_path} is an encoder-decoder, which takes no LoRA adapters: open it without red"
    with pytest.raises(ConfigError) as told:
        load_weights(tmp_path, EngineConfig(weights="int8"))
    assert (
        str(told.value)
        == f"{tmp_path} is an encoder-decoder: give weights as auto, float16 or float32 in place of int8"
    )
    with pytest.raises(ConfigError, match=r"^device is 'cuda:999'"):
        _sourced(tmp_path, EngineConfig(device="cuda:999"), None)
    for mode in ("auto", "float16", "float32"):
        with pytest.raises(ModelFileError):
            load_weights(tmp_path, EngineConfig(weights=mode))  # type: ignore[arg-type]


def test_an_adapter_is_read_from_memory_or_a_folder_up_to_its_limits(tmp_path: Path) -> None:
    model = tiny_model()
    added = adapter(model, 1, rank=5, only="q_proj")
    folder = write(tmp_path / "red", model, added)
    slots = AdapterSlots(model, EngineConfig(max_adapter_rank=5), tiles_of=None)
    size = 2 * 4 * 5 * (32 + 96)  # two layers, float32, 32 values in and 6 heads of 16 out
    for source in (added, folder, str(folder)):
        packed = slots.read(source)
        assert (packed.size_bytes, packed.rank, len(packed.matrices)) == (size, 5, 2) and not packed.tiles
    a, b = next(iter(packed.matrices.values()))
    delta = next(iter(added.deltas.values()))
    torch.testing.assert_close(a, delta.a)
    torch.testing.assert_close(b, 1.5 * delta.b)
    assert len(slots) == 0, "reading changes nothing"
    assert AdapterSlots(model, EngineConfig(adapter_memory_bytes=size), tiles_of=None).read(added).size_bytes == size
    with pytest.raises(ConfigError) as told:
        AdapterSlots(model, EngineConfig(adapter_memory_bytes=size - 1), tiles_of=None).read(added)
    assert str(told.value) == (
        f"the adapter takes {size} bytes and all together may take {size - 1}: raise adapter_memory_bytes"
    )
    with pytest.raises(ConfigError):
        AdapterSlots(model, EngineConfig(max_adapter_rank=4), tiles_of=None).read(folder)
    tiled = AdapterSlots(model, EngineConfig(), tiles_of="float32").read(added)
    assert len(tiled.tiles) == 2 and not tiled.matrices
