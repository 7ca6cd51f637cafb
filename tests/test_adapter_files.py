"""What is read of an adapter's settings and tensors, and the product with one beside the weights."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.fields import Fields
from firsthand.formats.safetensors_file import read_safetensors
from firsthand.nn.adapter_modules import FileModule, file_modules
from firsthand.nn.lora import (
    Adapter,
    LoRALinear,
    LowRankUpdate,
    _Config,
    _delta,
    _found,
    _what_is,
    adapter_files,
    read_adapter,
    row_lengths,
)
from lora_tiny import base

KEY = "base_model.model.model.layers.1.self_attn.k_proj"
"""Our layers.1.attention.k_proj: 16 x 32."""
OURS = "layers.1.attention.k_proj.weight"


def settings(**more: Any) -> _Config:
    return _Config(Fields({"peft_type": "LORA", "r": 3, "lora_alpha": 6, **more}, "a.json"))


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def written(folder: Path, tensors: dict[str, torch.Tensor] | None = None, **more: Any) -> Path:
    """An adapter of rank 3 of one matrix, or of the given tensors."""
    folder.mkdir(exist_ok=True)
    pair = {f"{KEY}.lora_A.weight": numbers(3, 32), f"{KEY}.lora_B.weight": numbers(16, 3, seed=1)}
    save_file(pair if tensors is None else tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, **more}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_the_settings_of_an_adapter_have_peft_s_defaults_and_a_scale_for_each_module() -> None:
    least = settings()
    assert vars(least) == {
        "where": "a.json", "rank": 3, "alpha": 6.0, "is_stabilised": False, "is_dora": False, "base": "", "ranks": {},
        "alphas": {},
    }  # fmt: skip
    given = {"use_rslora": True, "use_dora": True, "base_model_name_or_path": "some/base", "rank_pattern": {"q_proj": 5},
             "alpha_pattern": {"k_proj": 8.5}, "bias": "none", "fan_in_fan_out": False, "modules_to_save": [],
             "lora_bias": False, "init_lora_weights": True}  # fmt: skip
    assert vars(settings(**given)) == {
        "where": "a.json", "rank": 3, "alpha": 6.0, "is_stabilised": True, "is_dora": True, "base": "some/base",
        "ranks": {"q_proj": 5.0}, "alphas": {"k_proj": 8.5},
    }  # fmt: skip
    assert least.made_for() == ""
    assert settings(base_model_name_or_path="b" * 130).made_for() == (
        f"; the adapter says that it was made for '{'b' * 120}'"
    )
    config = settings(rank_pattern={"q_proj": 5}, alpha_pattern={"k_proj": 9})
    assert (config.scale("x.q_proj", 5), config.scale("x.k_proj", 3), config.scale("x.v_proj", 3)) == (1.2, 3.0, 2.0)
    assert settings(use_rslora=True).scale("x.v_proj", 3) == 6 / math.sqrt(3)
    with pytest.raises(ModelFileError, match=r"^a\.json says that x\.q_proj has rank 5, and its tensors have 3$"):
        config.scale("x.q_proj", 3)
    values = {"q_proj": 1.0, "b.k_proj": 2.0, "k_proj": 3.0}
    assert [_found(values, name, 7.0) for name in ("a.q_proj", "a.b.k_proj", "ab.k_proj", "a.xq_proj", "q_proj")] == [
        1.0, 2.0, 3.0, 7.0, 1.0
    ]  # fmt: skip


def test_a_dot_in_a_pattern_is_any_character_as_in_peft() -> None:
    names = (
        "q_pro.",
        "a.q_proj",
        "layers.1.q_proj",
        ".",
        "......",
        ".q_proj",
        "q_proj",
        "q.proj",
        "a..q_proj",
        "x_proj.",
    )
    modules = (
        "a.q_proj",
        "q_proj",
        "layers.1.q_proj",
        "layers.11.q_proj",
        "a.b.q_proj",
        "a.xq_proj",
        "a.w1",
        "ab.q",
        "q",
    )
    for name in names:
        for module in modules:
            peft = re.match(rf"(.*\.)?({name})$", module) is not None  # peft.utils.other.get_pattern_key
            assert (_found({name: 9.0}, module, 2.0) == 9.0) == peft, (name, module)
    assert settings(alpha_pattern={"q_pro.": 9}).scale("a.q_proj", 3) == 3


def test_settings_that_change_the_arithmetic_are_refused_by_name() -> None:
    for more, said in (
        ({"peft_type": "IA3"}, "a.json: peft_type is 'IA3': expected one of LORA"),
        ({"lora_bias": True}, "a.json: lora_bias is set, which asks for biases of its own: only LoRA and DoRA are read"),
        ({"layer_replication": [[0, 1]]},
         "a.json: layer_replication is set, which asks for layers that are repeated: only LoRA and DoRA are read"),
        ({"init_lora_weights": "pissa_niter_4"},
         "a.json: init_lora_weights is 'pissa_niter_4', which changes the base's own weights: convert the adapter to plain "
         "LoRA when saving it (PEFT: path_initial_model_for_weight_conversion)"),
        ({"bias": "all"}, "a.json: bias is 'all': expected none, for an adapter of matrices alone"),
        ({"fan_in_fan_out": True},
         "a.json: fan_in_fan_out is 'True': expected false: this model's files have no transposed matrices"),
        ({"alpha_pattern": {"q|k": 3}},
         "a.json: alpha_pattern is 'q|k': expected plain names of modules; a pattern of another kind is not read"),
        ({"rank_pattern": {"q_proj": "3"}}, "a.json: rank_pattern: q_proj is '3': expected a finite number"),
        ({"r": None}, "a.json has no r: expected a whole number from 0 to 2**31"),
    ):  # fmt: skip
        with pytest.raises(ModelFileError) as refused:
            settings(**more)  # type: ignore[arg-type]
        assert str(refused.value).replace("4294967296", "2**32") == said
    assert settings(init_lora_weights="gaussian").rank == settings(init_lora_weights="eva").rank == 3


def test_each_matrix_is_known_by_its_name_in_the_file_with_its_shape_and_a_head_only_if_it_is_its_own() -> None:
    model = base()
    found = file_modules(model)
    a = model.architecture
    assert found["model.layers.1.self_attn.k_proj"] == FileModule((OURS,), ((16, 32),))
    assert found["model.layers.0.mlp.down_proj"] == FileModule(("layers.0.mlp.down_proj.weight",), ((32, 64),))
    assert found["lm_head"] == FileModule(("lm_head.weight",), ((96, 32),)) and len(found) == 7 * a.num_layers + 1
    tied = file_modules(base(tied=True))
    assert "lm_head" not in tied and len(tied) == 7 * a.num_layers
    names = {"a": 1, "b": 2, "c": 3, "d": 4}
    head = "base_model.model.lm_head.lora_A.weight"
    changes = "changes an embedding or a head that is tied to it: only other matrices are changed here"
    assert [_what_is(name, names) for name in ("x.lora_magnitude_vector", head, "y.lora_embedding_A", "z" * 130)] == [
        "'x.lora_magnitude_vector' belongs to DoRA, and the settings do not say use_dora",
        f"'{head}' {changes}",
        f"'y.lora_embedding_A' {changes}",
        f"'{'z' * 120}' belongs to no matrix of this model, which has a, b, c ...",
    ]


def test_the_pair_of_a_module_is_read_with_its_scale_and_each_thing_wrong_with_it_has_a_sentence(
    tmp_path: Path,
) -> None:
    a, b, m = numbers(3, 32), numbers(16, 3, seed=1), numbers(16, seed=2)
    cases = {
        "whole": torch.arange(48), "tall": numbers(16, 4), "wide": numbers(3, 31), "none": torch.zeros(0, 32),
        "low": numbers(16, 2), "wider": numbers(3, 33),
        "long": numbers(17), "outputs": numbers(17, 3), "few": numbers(15, 3),
        "short": numbers(15), "wrong": torch.full((3, 32), torch.inf), "scalar": torch.tensor(1.0),
        "ints": torch.ones(3, 32, dtype=torch.int32),
    }  # fmt: skip
    path = tmp_path / "w.safetensors"
    save_file({"a": a, "b": b, "m": m, **cases}, path)
    file = read_safetensors(path)

    def delta(config: _Config | None = None, **pair: str) -> LowRankUpdate:
        return _delta(file, "x.k_proj", pair, (16, 32), config or settings())

    found = delta(A="a", B="b")
    assert torch.equal(found.a, a) and torch.equal(found.b, b) and (found.scale, found.magnitude) == (2.0, None)
    dora = settings(use_dora=True)
    with_m = delta(dora, A="a", B="b", magnitude_vector="m")
    assert with_m.magnitude is not None and torch.equal(with_m.magnitude, m)
    made_for = settings(base_model_name_or_path="my/base")
    end = ": expected (r, 32) and (16, r) with r from 1 to 4096"
    for config, pair, said in (
        (None, {"A": "a"}, "x.k_proj has only one of lora_A and lora_B"),
        (None, {"B": "b"}, "x.k_proj has only one of lora_A and lora_B"),
        (dora, {"A": "a", "B": "b"}, "x.k_proj has no lora_magnitude_vector, which DoRA (use_dora) needs"),
        (None, {"A": "wide", "B": "b"}, f"x.k_proj has lora_A (3, 31) and lora_B (16, 3){end}"),
        (None, {"A": "wider", "B": "b"}, f"x.k_proj has lora_A (3, 33) and lora_B (16, 3){end}"),
        (None, {"A": "a", "B": "tall"}, f"x.k_proj has lora_A (3, 32) and lora_B (16, 4){end}"),
        (None, {"A": "a", "B": "low"}, f"x.k_proj has lora_A (3, 32) and lora_B (16, 2){end}"),
        (None, {"A": "a", "B": "outputs"}, f"x.k_proj has lora_A (3, 32) and lora_B (17, 3){end}"),
        (None, {"A": "a", "B": "few"}, f"x.k_proj has lora_A (3, 32) and lora_B (15, 3){end}"),
        (None, {"A": "none", "B": "b"}, f"x.k_proj has lora_A (0, 32) and lora_B (16, 3){end}"),
        (made_for, {"A": "scalar", "B": "b"},
         f"x.k_proj has lora_A () and lora_B (16, 3){end}; the adapter says that it was made for 'my/base'"),
        (dora, {"A": "a", "B": "b", "magnitude_vector": "short"},
         "x.k_proj has lora_magnitude_vector (15,): expected (16,)"),
        (dora, {"A": "a", "B": "b", "magnitude_vector": "long"},
         "x.k_proj has lora_magnitude_vector (17,): expected (16,)"),
        (None, {"A": "ints", "B": "b"}, "tensor 'ints' is I32: expected F32, F16, BF16, F64"),
        (None, {"A": "wrong", "B": "b"}, "x.k_proj has values that are no finite numbers"),
    ):  # fmt: skip
        with pytest.raises(ModelFileError) as refused:
            delta(config, **pair)
        assert str(refused.value) == f"{path}: {said}"


def test_an_adapter_is_read_from_its_folder_or_from_the_run_that_trained_it(tmp_path: Path) -> None:
    model = base()
    run = tmp_path / "run"
    run.mkdir()
    made = written(run / "adapter")
    assert (
        adapter_files(run)
        == adapter_files(made)
        == (
            made / "adapter_config.json",
            made / "adapter_model.safetensors",
        )
    )
    found = read_adapter(str(made), model)
    assert found.path == made and list(found.deltas) == [OURS]
    assert (found.deltas[OURS].scale, found.deltas[OURS].magnitude) == (2.0, None)
    assert torch.equal(found.deltas[OURS].a, numbers(3, 32))
    size = (made / "adapter_model.safetensors").stat().st_size
    assert list(read_adapter(made, model, max_rank=3, max_bytes=size).deltas) == [OURS]
    weights = made / "adapter_model.safetensors"
    with pytest.raises(ConfigError) as refused:
        read_adapter(made, model, max_bytes=size - 1)
    assert str(refused.value) == f"{weights} has {size} bytes: an adapter of at most {size - 1} is allowed here"
    with pytest.raises(ConfigError) as refused:
        read_adapter(made, model, max_rank=2)
    assert str(refused.value) == f"{weights} has rank 3: at most 2 is allowed here"
    (run / "adapter_config.json").write_text("{}")  # the run's own folder is an adapter then, and lacks its weights
    (run / "notes.bin").write_bytes(b"")
    with pytest.raises(ModelFileError) as wrong:
        adapter_files(run)
    assert str(wrong.value) == (
        f"{run} has no adapter_model.safetensors (notes.bin is a pickle, which is never read: save it as safetensors)"
    )
    with pytest.raises(ModelFileError) as wrong:
        adapter_files(tmp_path / "gone")
    assert str(wrong.value) == (
        f"{tmp_path / 'gone'} is not a folder: an adapter is a folder with adapter_config.json and adapter_model.safetensors"
    )
    head = {"base_model.model.lm_head.base_layer.weight": numbers(2, 2)}
    with pytest.raises(ModelFileError) as wrong:
        read_adapter(written(made, head), model)
    assert str(wrong.value) == (
        f"{weights} holds no adapter: expected tensors such as base_model.model.<module>.lora_A.weight"
    )
    pair = {f"{KEY}.lora_A.weight": numbers(3, 32), f"{KEY}.lora_B.weight": numbers(16, 3)}
    assert list(read_adapter(written(made, pair | head), model).deltas) == [OURS]
    vector = {f"{KEY}.lora_magnitude_vector": numbers(16)}
    dora = read_adapter(written(made, pair | vector, use_dora=True), model).deltas[OURS]
    assert dora.magnitude is not None and torch.equal(dora.magnitude, numbers(16))
    for tensors, said in (
        (pair | vector, f"'{KEY}.lora_magnitude_vector' belongs to DoRA, and the settings do not say use_dora"),
        (pair | {f"{KEY}.lora_C.weight": numbers(2)}, f"'{KEY}.lora_C.weight' belongs to no matrix of this model, which has "
         "model.layers.0.self_attn.q_proj, model.layers.0.self_attn.k_proj, model.layers.0.self_attn.v_proj ..."),
    ):  # fmt: skip
        with pytest.raises(ModelFileError) as wrong:
            read_adapter(written(made, tensors, base_model_name_or_path="my/base"), model)
        assert str(wrong.value) == f"{weights}: {said}; the adapter says that it was made for 'my/base'"


def test_a_product_with_an_adapter_beside_it_is_the_product_with_the_changed_matrix() -> None:
    plain = nn.Linear(4, 3)
    x = numbers(5, 4, seed=3)
    a, b, m = numbers(2, 4), numbers(3, 2, seed=1), torch.tensor([1.0, 2.0, 3.0])
    changed = plain.weight + 1.5 * b @ a
    off = plain(x)
    one = LoRALinear(plain, LowRankUpdate(a, b, 1.5))
    assert torch.allclose(one(x), x @ changed.T + plain.bias, atol=1e-5)
    lengths = changed.square().sum(1).sqrt()
    dora = LowRankUpdate(a, b, 1.5, m)
    rows = changed * (m / lengths)[:, None]
    assert torch.allclose(LoRALinear(plain, dora)(x), x @ rows.T + plain.bias, atol=1e-5)
    assert (
        torch.allclose(dora.applied(plain.weight), rows, atol=1e-6)
        and dora.applied(plain.weight.half()).dtype == torch.half
    )
    bare = nn.Linear(4, 3, bias=False)
    bare.weight = nn.Parameter(plain.weight.detach().clone())
    two = LoRALinear(bare, dora)
    assert torch.allclose(two(x), x @ rows.T, atol=1e-5)
    two.is_on = False
    assert torch.equal(two(x), bare(x))
    kept = two.update()
    with torch.no_grad():
        two.a.zero_()
        a = numbers(2, 4)
    assert torch.equal(kept.a, a) and torch.equal(kept.b, b) and kept.scale == 1.5
    assert kept.magnitude is not None and torch.equal(kept.magnitude, m)
    assert [name for name, each in two.named_parameters() if each.requires_grad] == ["a", "b", "magnitude"]
    assert torch.allclose(LowRankUpdate(a, b, 1.5).product(), 1.5 * b @ a, atol=1e-6)
    assert row_lengths(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist() == [5.0, torch.finfo(torch.float32).tiny]
    always = LoRALinear(plain, LowRankUpdate(a, b, 1.5), dropout=1.0)
    assert torch.allclose(always.train()(x), off, atol=1e-5) and torch.allclose(
        always.eval()(x), x @ changed.T + plain.bias, atol=1e-5
    )
    adapter = Adapter(Path("a"), {"head.weight": LowRankUpdate(a, b, 1.5, m)})
    assert torch.allclose(adapter.merged("head.weight", plain.weight), rows, atol=1e-6)
    assert adapter.merged("other.weight", plain.weight) is plain.weight
