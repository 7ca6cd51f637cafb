"""Adapters, weights and devices of an engine, one function at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine_tiny import in_blocks_of_4_bits, tiny_model
from firsthand.engine.compute.adapter_slots import AdapterSlots, LoadedAdapter, check_adapter_name
from firsthand.engine.compute.devices import on_device_of, pick_device, torch_name
from firsthand.engine.compute.packing import block_bytes, fitting_state, kv_dtype, pack_model
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError
from firsthand.nn.batched_lora import PackedAdapter

CPU = torch.device("cpu")


def packed(size: int) -> PackedAdapter:
    return PackedAdapter({}, np.zeros(0, np.int64), {}, 4, size)


def test_adapters_have_ids_and_room_and_are_freed_with_their_last_sequence() -> None:
    slots = AdapterSlots(tiny_model(), EngineConfig(max_adapters=2, adapter_memory_bytes=100), tiles_of=None)
    assert slots.add("red", packed(60), 3) is None and slots.add("blue", packed(40), 0) is None
    red, blue = slots.get("red"), slots.get("blue")
    assert (red.id, red.name, red.version, red.packed.size_bytes, blue.id) == (1, "red", 3, 60, 2)
    assert (slots.versions, slots.size_bytes, len(slots)) == ({"red": 3, "blue": 0}, 100, 2)
    with pytest.raises(ConfigError) as told:
        slots.add("red", packed(1), 4)
    assert str(told.value) == "an adapter 'red' is loaded already: unload it first, or ask for it to be replaced"
    with pytest.raises(ConfigError) as told:
        slots.add("green", packed(1), 4)
    assert str(told.value) == (
        "no room for the adapter 'green' of 1 bytes: 2 take 100 bytes; unload one, or raise max_adapters (2) or "
        "adapter_memory_bytes (100)"
    )
    with pytest.raises(ConfigError, match="of 61 bytes"):
        slots.add("red", packed(61), 4, replace=True)
    assert slots.add("red", packed(60), 4, replace=True) is red and slots.get("red").id == 3 and red.is_leaving
    slots.enter(blue, 2)
    with pytest.raises(ConfigError, match="2 take 100 bytes; unload"):
        slots.add("blue", packed(10), 1, replace=True)
    assert slots.remove("blue") is None and slots.versions == {"red": 4} and (len(slots), slots.size_bytes) == (2, 100)
    with pytest.raises(ConfigError, match="2 take 100 bytes, 1 of them unloaded but in use by requests; unload one"):
        slots.add("blue", packed(10), 1)
    assert slots.leave(blue) is None and len(slots) == 2
    assert slots.leave(blue) is blue and (len(slots), slots.size_bytes) == (1, 60)
    assert slots.add("blue", packed(40), 1) is None and slots.get("blue").id == 4
    assert slots.remove("red") is not None and slots.versions == {"blue": 1}
    idle = slots.get("blue")
    slots.enter(idle, 1)
    with pytest.raises(ConfigError, match="'blue' of 70 bytes: 1 take 40 bytes; unload one"):
        slots.add("blue", packed(70), 2, replace=True)
    assert slots.leave(idle) is None and slots.get("blue") is idle, "it is loaded still"
    for name, says in (
        ("red", "no adapter 'red' is loaded: there are blue"),
        (3, "no adapter 3 is loaded: there are blue"),
    ):
        with pytest.raises(ConfigError) as told:
            slots.get(name)  # type: ignore[arg-type]
        assert str(told.value) == says
    assert LoadedAdapter(1, "a", 2, packed(3)).num_live == 0
    for good in ("a", "a" * 256, "A-z_0.9@x:/+"):
        check_adapter_name(good)
    for bad in ("", "a" * 257, "a b", "é", None, "a\n"):
        with pytest.raises(ConfigError, match=r"give 1 to 256 letters, digits and \. _ @ : / \+ -"):
            check_adapter_name(bad)


def test_weights_are_packed_and_replaced_as_they_fit() -> None:
    model = tiny_model()
    state = dict(model.state_dict())
    state.pop("lm_head.weight", None)
    fitting = fitting_state(state, model)
    assert torch.equal(fitting["lm_head.weight"], state["embed.weight"]) and "lm_head.weight" not in state
    own = torch.zeros(96, 32)
    assert fitting_state(state | {"lm_head.weight": own}, model)["lm_head.weight"] is own
    untied = tiny_model(tied=False)
    for changed, count, first in (
        ({**state, "zz": own, "embed.weight": own[:5]}, 3, "embed.weight"),
        ({key: value for key, value in state.items() if "layers.0" not in key}, None, "layers.0"),
    ):
        with pytest.raises(ConfigError) as told:
            fitting_state(changed, model)
        said = str(told.value)
        assert (
            first in said
            and said.endswith("'")
            and (count is None or said.startswith(f"{count} tensors are missing, unknown or of"))
        )
    with pytest.raises(ConfigError, match=r"^1 tensors .* the first is 'lm_head.weight'"):
        fitting_state(state, untied)
    embed = torch.zeros(2, 2)
    for kv, mode, weight, dtype in (
        ("auto", "float32", embed, torch.float32), ("auto", "float16", embed, torch.float16),
        ("auto", "int8", embed, torch.float16),
        ("auto", "float16", embed.bfloat16(), torch.bfloat16), ("int8", "float32", embed, torch.int8),
        ("float16", "float32", embed, torch.float16), ("float32", "float16", embed, torch.float32),
    ):  # fmt: skip
        assert kv_dtype(EngineConfig(kv_cache=kv), mode, weight) == dtype  # type: ignore[arg-type]
    assert block_bytes(model.architecture, EngineConfig(block_size=8), torch.float16) == 8 * 2 * 2 * 2 * 16 * 2
    assert pack_model(tiny_model(), EngineConfig(weights="float32")) == "float32"
    blocks = in_blocks_of_4_bits(tiny_model())
    for asked in ("float16", "float32"):
        with pytest.raises(ConfigError) as told:
            pack_model(blocks, EngineConfig(weights=asked))  # type: ignore[arg-type]
        assert str(told.value) == f"weights is {asked!r}, but the model's are blockwise: load it without keep_blocks"
    for asked in ("auto", "int8"):
        assert pack_model(blocks, EngineConfig(weights=asked)) == "int8"  # type: ignore[arg-type]
    assert pack_model(tiny_model(), EngineConfig()) == "float16"
    large = tiny_model()
    large.layers[0].attention.q_proj.weight.data[0, 0] = 1e6
    assert pack_model(large, EngineConfig()) == "float32" and isinstance(large.lm_head, torch.nn.Linear)
    with pytest.raises(ConfigError, match="and float16 ends at 65504: use weights='float32'"):
        pack_model(large, EngineConfig(weights="float16"))


def test_a_device_is_picked_by_name_and_missing_ones_are_refused() -> None:
    assert pick_device("cpu") == "cpu" and pick_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigError, match=r"^device is 'cuda:999', and there"):
        pick_device("cuda:999")
    assert torch_name(CPU) == f"torch {torch.__version__} on {torch.backends.cpu.get_cpu_capability()}"
    with on_device_of(torch.zeros(1)):
        assert torch.zeros(1).device == CPU
