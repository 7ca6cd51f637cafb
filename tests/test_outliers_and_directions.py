"""Products with outliers in floats, files of one direction, and the small parts of models that everything is built of."""

import hashlib
from pathlib import Path

import gguf
import pytest
import torch
from torch import nn

from engine_tiny import tiny_model
from firsthand.errors import ConfigError, ModelFileError
from firsthand.nn.activation_monitor import ActivationMonitor
from firsthand.nn.blocks.norm import RMSNorm
from firsthand.nn.direction_file import Direction, read_direction, write_direction
from firsthand.nn.gguf_recipes import FILE_TYPES, RecipeShape, shape_of
from firsthand.nn.int8_outliers import OutlierLinear, to_int8_outliers
from firsthand.nn.sites import Taps
from firsthand.nn.steering_vector import SteeringVector, read_steering, write_steering


def test_features_at_or_above_the_threshold_are_multiplied_in_floats_and_the_others_in_bytes() -> None:
    weight = torch.tensor([[127.0, -63.5, 1.0, 0.4], [2.54, 0.0, -1.27, 0.02]])
    linear = OutlierLinear(weight, torch.tensor([0.5, -1.0]))
    assert linear.codes.tolist() == [[127, -64, 1, 0], [127, 0, -64, 1]]  # halves go to the even number
    assert linear.scales.tolist() == pytest.approx([1.0, 0.02])
    assert (linear.threshold, linear.size_bytes) == (6.0, 8 + 8)
    assert linear.extra_repr() == "in_features=4, out_features=2, outliers from 6"
    dequantised = torch.tensor([[127.0, -64.0, 1.0, 0.0], [2.54, 0.0, -1.28, 0.02]])
    torch.testing.assert_close(linear.weight, dequantised)

    rows = torch.tensor([[6.0, 1.27, -0.5, 0.013], [0.004, -2.54, 5.99, 0.0], [0.0, 0.0, 0.0, 0.0]])
    whole = torch.tensor([[0.0, 127.0, -50.0, 1.0], [0.0, -54.0, 127.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    steps = torch.tensor([1.27, 5.99, 0.0]) / 127
    rounded = whole * steps[:, None]
    rounded[:, 0] = rows[:, 0]  # an outlier in one token: exact for all
    expected = rounded @ dequantised.T
    torch.testing.assert_close(linear.product(rows), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(linear(rows[None])[0], expected + torch.tensor([0.5, -1.0]), rtol=1e-5, atol=1e-5)
    alone = linear.product(rows[1:])  # without the first token no feature is in floats, and 0.004 is less than a step
    torch.testing.assert_close(alone, (whole[1:] * steps[1:, None]) @ dequantised.T, rtol=1e-5, atol=1e-5)
    with pytest.raises(ConfigError, match="cannot be rounded to 8 bits"):
        OutlierLinear(torch.tensor([[1.0, torch.inf]]), None)


def test_the_linears_of_blocks_or_those_named_are_replaced_with_the_threshold_given() -> None:
    model = tiny_model(tied=False)
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    assert to_int8_outliers(model, threshold=2.5) is model
    found = {name: module for name, module in model.named_modules() if isinstance(module, OutlierLinear)}
    assert list(found) == [name for name in linears if name.startswith("layers.")] != linears
    assert {module.threshold for module in found.values()} == {2.5}
    named = to_int8_outliers(tiny_model(tied=False), ["lm_head", "layers.1.mlp.up_proj", "embed"])
    found = {name: module for name, module in named.named_modules() if isinstance(module, OutlierLinear)}
    assert sorted(found) == ["layers.1.mlp.up_proj", "lm_head"]
    assert {module.threshold for module in found.values()} == {6.0}


def test_a_steering_vector_is_added_by_its_strength_and_hashed_by_all_that_it_changes(tmp_path: Path) -> None:
    direction = torch.tensor([1.0, -2.0, 0.5])
    plain, strong = (
        SteeringVector("blocks.0.resid.post", direction),
        SteeringVector("blocks.0.resid.post", direction, -3.0),
    )
    values = torch.tensor([[[1.0, 1.0, 1.0], [0.0, 2.0, 4.0]]])
    assert plain.added(values).tolist() == [[[2.0, -1.0, 1.5], [1.0, 0.0, 4.5]]]
    assert strong.added(values.half()).tolist() == [[[-2.0, 7.0, -0.5], [-3.0, 8.0, 2.5]]]
    assert strong.added(values.half()).dtype == torch.float16
    raw = b"|".join([b"blocks.0.resid.post", b"1.0", direction.numpy().tobytes()])
    assert plain.digest == hashlib.sha256(raw).hexdigest()[:16]
    others = [
        strong,
        SteeringVector("blocks.1.resid.post", direction),
        SteeringVector("blocks.0.resid.post", -direction),
    ]
    assert len({each.digest for each in (plain, *others)}) == 4
    assert SteeringVector("blocks.0.resid.post", direction, name="another").digest == plain.digest
    with pytest.raises(ConfigError) as told:
        plain.added(values[..., :2])
    assert str(told.value) == (
        "the steering vector steering has 3 values, and blocks.0.resid.post of this model has 2: make one for this model "
        "with `firsthand interp steer --out FILE`"
    )
    write_steering(strong, file := tmp_path / "a@2")
    assert [read_steering(f"{file}{more}").strength for more in ("", "@0.5", "@-1", "@0")] == [-3.0, -1.5, 3.0, 0.0]
    with pytest.raises(ConfigError, match=r"the strength 'much' of a steering vector is no number: write FILE@0\.5"):
        read_steering(f"{file}@much")


def test_a_monitor_scores_each_token_by_direction_and_bias() -> None:
    monitor = ActivationMonitor("blocks.0.resid.post", torch.tensor([1.0, -2.0]))
    assert (monitor.bias, monitor.threshold, monitor.name) == (0.0, 0.0, "monitor")
    values = torch.tensor([[3.0, 1.0], [0.0, 0.5]])
    assert monitor.scores(values) == [1.0, -1.0]
    assert ActivationMonitor("a", monitor.direction, bias=0.25).scores(values.half()) == [1.25, -0.75]
    architecture = tiny_model().architecture
    ActivationMonitor("a", torch.zeros(32)).expect_fits(architecture)
    with pytest.raises(ConfigError, match=r"reads 2 values, and this model.s hidden states have 32"):
        monitor.expect_fits(architecture)


def test_a_direction_file_has_one_format_all_its_numbers_and_a_vector(tmp_path: Path) -> None:
    def read(written: Direction, format: str = "kind.1") -> Direction:
        write_direction(tmp_path / "file", format, written)
        return read_direction(tmp_path / "file", "kind.1", "pointer", "make it", ("size", "weight"))

    numbers = {"weight": 0.1, "size": -3.0, "other": 7.0}
    found = read(Direction("here", torch.tensor([1, 2]), "north", numbers))
    assert (found.site, found.values.tolist(), found.name) == ("here", [1.0, 2.0], "north")
    assert (found.values.dtype, dict(found.numbers)) == (torch.float32, {"size": -3.0, "weight": 0.1})
    whole = Direction("here", torch.ones(2), "north", numbers)
    wrong = [
        (whole, "kind.2"),
        (whole._replace(numbers={"size": 1.0}), "kind.1"),
        (whole._replace(values=torch.ones(0)), "kind.1"),
        (whole._replace(values=torch.tensor([1.0, torch.nan])), "kind.1"),
        (whole._replace(site=""), "kind.1"),
    ]
    for each, format in wrong:
        with pytest.raises(ModelFileError) as told:
            read(each, format)
        assert str(told.value) == f"{tmp_path / 'file'} is no pointer: give a file that `make it` wrote"
    with pytest.raises(ConfigError, match=r"has the shape \(1, 2\): a file holds one vector"):
        read(whole._replace(values=torch.ones(1, 2)))
    with pytest.raises(ConfigError) as missing:
        read_direction(tmp_path / "none", "kind.1", "pointer", "make it")
    assert str(missing.value) == f"no pointer '{tmp_path / 'none'}': give a file that `make it` wrote"


def test_file_types_have_llama_cpps_numbers_and_a_shape_its_defaults() -> None:
    theirs = {each.name: each.value for each in gguf.LlamaFileType}
    names = {name: f"{'ALL' if name == 'F32' else 'MOSTLY'}_{name}" for name in FILE_TYPES}
    assert {name: theirs[full] for name, full in names.items()} == FILE_TYPES
    assert RecipeShape(3) == RecipeShape(num_layers=3, heads_per_kv=1, num_experts=0, family="llama")
    assert shape_of({"general.architecture": "qwen3"}) == RecipeShape(1, 1, 0, "qwen3")
    about = {"block_count": 80, "attention.head_count": [64, 8], "attention.head_count_kv": 8, "expert_count": 4}
    metadata = {"general.architecture": "llama", **{f"llama.{key}": value for key, value in about.items()}}
    shape = shape_of({**metadata, "qwen3.block_count": 5})
    assert shape == RecipeShape(80, 8, 4, "llama")
    assert [RecipeShape(*each).is_70b for each in ((80, 8), (80, 1), (79, 8), (80, 8, 0, "qwen2"))] == [
        True, False, False, False
    ]  # fmt: skip


def test_taps_are_those_of_the_call_and_norms_have_no_offset_unless_told() -> None:
    given = {"blocks.0.resid.post": lambda values: values + 1}
    taps = Taps.of(given, ["blocks.0.resid.post", "blocks.0.mlp.in"])
    given.clear()
    within = taps.within("blocks.").within("0.")
    assert (within("resid.post", torch.zeros(1)).item(), within("mlp.in", torch.zeros(1)).item()) == (1.0, 0.0)
    plain, offset = RMSNorm(2, 0.5), RMSNorm(2, 0.5, unit_offset=True)
    assert (plain.weight.tolist(), offset.weight.tolist(), plain.unit_offset) == ([1.0, 1.0], [0.0, 0.0], False)
    x = torch.tensor([3.0, -4.0])
    for norm in (plain, offset):
        with torch.no_grad():
            norm.weight += torch.tensor([0.0, 1.0])
        expected = x / (12.5 + 0.5) ** 0.5 * torch.tensor([1.0, 2.0])
        torch.testing.assert_close(norm(x), expected)
        with torch.no_grad():
            torch.testing.assert_close(norm(x), expected)
