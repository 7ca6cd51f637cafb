"""Adapters in PEFT's layout give PEFT's own logits, merged and beside the weights; a bad one is refused in a sentence."""

from __future__ import annotations

import asyncio
import json
import shutil
import struct
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file

from firsthand import catalog
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError, ModelFileError
from firsthand.model import Sampling
from firsthand.nn import weights
from firsthand.nn.batched_lora import PackedAdapter, spans_of
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.decoder import Decoder
from firsthand.nn.lora import LoRALinear, attach, read_adapter
from firsthand.providers.local import Local
from lora_tiny import base
from tiny import write_tokenizer

GOLDEN = Path(__file__).parent / "data" / "lora"
TOLERANCE = 2e-5
"""Of a logit, absolute, in float32: PEFT adds the adapter's product, we add its matrix."""
KEY = "base_model.model.model.layers.0.self_attn.q_proj"


def logits(model: Decoder, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(torch.tensor(ids), torch.arange(len(ids)), Packed([len(ids)])))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    weights.save(base(), tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN, tmp_path / "adapter"))


def change(adapter: Path, **settings: Any) -> Path:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return adapter


def rewrite(adapter: Path, tensors: dict[str, torch.Tensor]) -> Path:
    path = adapter / "adapter_model.safetensors"
    save_file({**load_file(path), **tensors}, path)
    return adapter


# -- what it computes --


def test_a_merged_adapter_gives_the_logits_that_peft_gives(folder: Path) -> None:
    golden = json.loads((GOLDEN / "logits.json").read_text())
    ours = logits(weights.load(folder, adapter=GOLDEN), golden["ids"])
    assert golden["change"] > 1  # the adapter matters
    assert (ours - torch.tensor(golden["logits"])).abs().max() < TOLERANCE
    assert (logits(weights.load(folder), golden["ids"]) - ours).abs().max() > 1


def test_an_adapter_beside_the_weights_gives_the_same_and_is_all_that_is_trained(folder: Path) -> None:
    golden = json.loads((GOLDEN / "logits.json").read_text())
    model = weights.load(folder)
    attach(model, read_adapter(GOLDEN, model))
    assert (logits(model, golden["ids"]) - torch.tensor(golden["logits"])).abs().max() < TOLERANCE
    q_proj = model.layers[0].attention.q_proj  # type: ignore[union-attr]
    assert isinstance(q_proj, LoRALinear)
    trained = [name for name, parameter in q_proj.named_parameters() if parameter.requires_grad]
    assert trained == ["a", "b"]
    with pytest.raises(ConfigError, match="LoRALinear: attach adapters to a model that has none"):
        attach(model, read_adapter(GOLDEN, base()))


def test_rank_stabilised_scales_and_patterns_are_peft_s(folder: Path, adapter: Path) -> None:
    model = weights.load(folder)
    scales = {name: delta.scale for name, delta in read_adapter(adapter, model).deltas.items()}
    assert scales["layers.0.attention.q_proj.weight"] == 10 / 4
    assert scales["layers.1.attention.q_proj.weight"] == 3 / 4  # alpha_pattern
    assert scales["layers.0.mlp.down_proj.weight"] == 10 / 2  # rank_pattern
    scales = {name: d.scale for name, d in read_adapter(change(adapter, use_rslora=True), model).deltas.items()}
    assert scales["layers.0.attention.q_proj.weight"] == 10 / 2


def test_a_pattern_names_whole_parts_of_a_module_and_the_first_that_fits_counts(folder: Path, adapter: Path) -> None:
    patterns = {
        "proj": 99,
        "self_attn.v": 98,
        "0.self_attn.q_proj": 7,
        "q_proj": 5,
        "model.layers.1.self_attn.q_proj": 6,
    }
    read = read_adapter(change(adapter, lora_alpha=10, alpha_pattern=patterns), weights.load(folder))
    scales = {name: delta.scale * delta.a.shape[0] for name, delta in read.deltas.items()}
    assert scales.pop("layers.0.attention.q_proj.weight") == 7 and scales.pop("layers.1.attention.q_proj.weight") == 5
    assert scales and set(scales.values()) == {10.0}


def test_an_adapter_may_have_the_largest_rank_and_size_that_are_allowed(folder: Path) -> None:
    model, size = weights.load(folder), (GOLDEN / "adapter_model.safetensors").stat().st_size
    most = max(delta.a.shape[0] for delta in read_adapter(GOLDEN, model, max_bytes=size).deltas.values())
    assert read_adapter(GOLDEN, model, max_rank=most).deltas
    with pytest.raises(ConfigError, match=f"has rank {most}: at most {most - 1} is allowed here"):
        read_adapter(GOLDEN, model, max_rank=most - 1)
    with pytest.raises(ConfigError, match=f"has {size} bytes: an adapter of at most {size - 1} is allowed here"):
        read_adapter(GOLDEN, model, max_bytes=size - 1)


def test_rows_of_one_adapter_are_one_span_only_if_nothing_stands_between_them() -> None:
    one, other = (cast(PackedAdapter, object()) for _ in range(2))
    adapters = [None, one, one, None, one, other, other, one]
    spans = spans_of(adapters, [1, 2, 3, 1, 4, 2, 0, 5])
    assert spans == [(1, 6, one), (7, 11, one), (11, 13, other), (13, 18, one)]
    assert spans_of([one, other, one], [2, 0, 3]) == [(0, 5, one)] and spans_of([None], [4]) == [] == spans_of([], [])


def test_an_engine_changes_adapters_between_steps_and_caches_nothing_across(folder: Path) -> None:
    plain, adapted = weights.load(folder), weights.load(folder, adapter=GOLDEN)
    config = EngineConfig(kv_memory_bytes=1 << 21, kv_cache="float32", weights="float32")
    engine = Engine(weights.load(folder), config)
    for version, model in enumerate((plain, adapted, plain), 1):
        engine.load(model.state_dict(), version)
        (scored,) = asyncio.run(_score(engine, [5, 17, 90], [3, 3]))
        expected = torch.log_softmax(logits(model, [5, 17, 90, 3, 3]).double(), -1)
        wanted = [expected[2, 3].item(), expected[3, 3].item()]
        assert scored == pytest.approx(wanted, abs=1e-3)


async def _score(engine: Engine, prompt: list[int], ids: list[int]) -> list[tuple[float, ...]]:
    from firsthand.engine.core.engine_thread import EngineWorker

    with EngineWorker(engine) as worker:
        return [result.logprobs for result in await worker.score(tuple(prompt), [ids])]


# -- by name --


@pytest.mark.slow
def test_a_model_with_an_adapter_has_a_name_and_a_fingerprint_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    model = base(vocab_size=write_tokenizer(folder))
    weights.save(model, folder)
    adapter = shutil.copytree(GOLDEN, tmp_path / "a")
    tensors = load_file(adapter / "adapter_model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "lm_head" not in name}
    save_file(kept, adapter / "adapter_model.safetensors")
    adapted, plain = catalog.model(f"{folder}+lora:{adapter}"), catalog.model(str(folder))
    assert isinstance(adapted, Local) and adapted.name == f"{folder}+lora:{adapter}"
    assert adapted.fingerprint != plain.fingerprint
    texts = [asyncio.run(each.complete("What", Sampling(max_tokens=8)))[0].message.text for each in (adapted, plain)]
    assert texts[0] != texts[1]
    for each in (adapted, plain):
        each.close()  # type: ignore[union-attr]


def test_a_missing_adapter_is_told_of_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(
        ModelFileError, match=r"nowhere is not a folder: an adapter is a folder with adapter_config\.json"
    ):
        catalog.model(f"smollm2+lora:{tmp_path / 'nowhere'}")
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelFileError, match=r"adapter_model\.bin is a pickle, which is never read"):
        catalog.model(f"smollm2+lora:{tmp_path}")


# -- hostile and unfit --


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA': expected one of LORA"),
        ({"use_dora": True}, "has no lora_magnitude_vector, which DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is set"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is 'True'"),
        ({"r": "4"}, "r is '4'"),
        ({"r": 0}, "says that .* has rank 0, and its tensors have 4"),
        ({"lora_alpha": None}, "has no lora_alpha"),
        ({"lora_alpha": 1e300}, "lora_alpha is"),
        ({"alpha_pattern": {"(a+)+$": 1}}, "plain names of modules"),
        ({"alpha_pattern": {"q_proj": "x"}}, "alpha_pattern.*q_proj is 'x'"),
        ({"rank_pattern": {"down_proj": 2, "q_proj": 8}}, "has rank 8, and its tensors have 4"),
        ({"rank_pattern": [1]}, "rank_pattern is"),
    ],
)
def test_settings_that_are_wrong_or_not_read_are_refused(adapter: Path, settings: Any, expected: str) -> None:
    with pytest.raises(ModelFileError, match=expected):
        read_adapter(change(adapter, **settings), base())


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({f"{KEY}.lora_A.weight": torch.zeros(4, 31)}, r"lora_A \(4, 31\) .* expected \(r, 32\)"),
        ({f"{KEY}.lora_A.weight": torch.zeros(0, 32)}, "with r from 1 to"),
        ({f"{KEY}.lora_B.weight": torch.zeros(32)}, r"lora_B \(32,\)"),
        ({f"{KEY}.lora_A.weight": torch.full((4, 32), float("nan"))}, "no finite numbers"),
        ({f"{KEY}.lora_A.weight": torch.zeros(4, 32, dtype=torch.int8)}, "is I8: expected F32"),
        ({f"{KEY}.lora_magnitude_vector": torch.zeros(32)}, "belongs to DoRA"),
        ({"base_model.model.model.embed_tokens.lora_embedding_A": torch.zeros(4, 96)}, "changes an embedding"),
        ({"base_model.model.model.layers.9.mlp.up_proj.lora_A.weight": torch.zeros(4, 32)}, "no matrix of this model"),
        ({"x" * 3000: torch.zeros(1)}, "no matrix of this model"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(adapter: Path, tensors: dict[str, torch.Tensor], expected: str) -> None:
    with pytest.raises(ModelFileError, match=expected) as raised:
        read_adapter(rewrite(adapter, tensors), base())
    assert len(str(raised.value)) < 700


def test_half_an_adapter_an_empty_one_and_one_for_a_tied_head_are_refused(adapter: Path) -> None:
    with pytest.raises(ModelFileError, match="changes an embedding or a head that is tied"):
        read_adapter(adapter, base(tied=True))
    path = adapter / "adapter_model.safetensors"
    save_file({f"{KEY}.lora_A.weight": torch.zeros(4, 32)}, path)
    with pytest.raises(ModelFileError, match="has only one of lora_A and lora_B"):
        read_adapter(adapter, base())
    save_file({}, path)
    with pytest.raises(ModelFileError, match="holds no adapter"):
        read_adapter(adapter, base())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff" * 64,
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 2) + b"{}" + b"tail",
        struct.pack("<Q", 76)
        + b'{"a":{"dtype":"F32","shape":[1099511627776,1],"data_offsets":[0,4398046511104]}}'[:76],
        b"\x80\x04\x95" + b"pickle" * 20,
    ],
)
def test_a_file_that_lies_about_itself_is_refused(adapter: Path, body: bytes) -> None:
    (adapter / "adapter_model.safetensors").write_bytes(body)
    with pytest.raises(ModelFileError):
        read_adapter(adapter, base())
