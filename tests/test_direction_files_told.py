"""Monitors and steering vectors as they lie in their files: every fact, what may be left out, and each refusal in full."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from firsthand.errors import ConfigError, ModelFileError
from firsthand.nn.activation_monitor import ActivationMonitor, read_monitor, write_monitor
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.direction_file import Direction, is_file, read_direction, write_direction
from firsthand.nn.steering_vector import SteeringVector, read_steering, write_steering

SITE = "blocks.3.resid.post"
MONITOR = "firsthand.monitor.1"
STEERING = "firsthand.steering.1"


def facts(file: Path) -> dict[str, str]:
    """The metadata of a safetensors file."""
    raw = file.read_bytes()
    found: dict[str, str] = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    return found


def test_a_monitor_s_file_holds_every_number_to_the_last_digit(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    direction = torch.tensor([[1.0, 9.0], [-2.5, 9.0], [0.1, 9.0]]).half()[:, 0]  # every other number of a tensor
    monitor = ActivationMonitor(SITE, direction, 0.1, -1 / 3, "é calm", 1e-7)
    write_monitor(monitor, file)
    assert facts(file) == {
        "format": MONITOR, "site": SITE, "name": "é calm", "bias": "0.1", "threshold": "-0.3333333333333333",
        "false_alarms": "1e-07",
    }  # fmt: skip
    assert list(load_file(file)) == ["direction"] and load_file(file)["direction"].dtype == torch.float32
    found = read_monitor(str(file))
    assert (found.site, found.bias, found.threshold, found.name, found.false_alarms) == (
        SITE,
        0.1,
        -1 / 3,
        "é calm",
        1e-7,
    )
    assert torch.equal(found.direction, direction.float())
    unmeasured = ActivationMonitor(SITE, torch.ones(2))
    assert (unmeasured.bias, unmeasured.threshold, unmeasured.name) == (0.0, 0.0, "monitor")
    assert math.isnan(unmeasured.false_alarms)
    write_monitor(unmeasured, file)
    assert facts(file)["false_alarms"] == "nan" and math.isnan(read_monitor(file).false_alarms)
    for changes in ({"bias": math.nan}, {"threshold": math.inf}, {"bias": -math.inf}):
        write_monitor(replace(monitor, **changes), file)  # type: ignore[arg-type]
        with pytest.raises(ModelFileError) as told:
            read_monitor(file)
        assert str(told.value) == f"{file} has a bias or a threshold that is no number: make the monitor again"
    values = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 4.0], [1.0, -1.0, 10.0]], dtype=torch.float64)
    assert replace(monitor, direction=torch.tensor([1.0, -2.0, 0.5]), bias=0.25).scores(values) == [0.25, 2.25, 8.25]
    assert found.scores(torch.zeros(0, 3)) == []


def test_what_is_no_monitor_or_one_of_another_model_is_told_with_the_command_that_makes_one(tmp_path: Path) -> None:
    file, missing = tmp_path / "v", tmp_path / "none"
    by = "give a file that `firsthand interp probe --out FILE` wrote"
    write_steering(SteeringVector(SITE, torch.ones(2)), file)
    for path, kind, said in (
        (missing, ConfigError, f"no monitor '{missing}': {by}"),
        (tmp_path, ConfigError, f"no monitor '{tmp_path}': {by}"),
        (file, ModelFileError, f"{file} is no monitor: {by}"),
    ):
        with pytest.raises(kind) as told:
            read_monitor(path)
        assert str(told.value) == said
    long = "x" * 300 + "/" + "y" * 300
    with pytest.raises(ConfigError) as told:
        read_monitor(long)
    assert str(told.value) == f"no monitor {long[:500]!r}: {by}"
    a = Architecture("llama", 50, 32, 48, 1, 4, 4, 8, 64, 1e-5, (None,), (Rope(),), True)
    ActivationMonitor(SITE, torch.ones(32)).expect_fits(a)
    for width in (31, 48):
        with pytest.raises(ConfigError) as told:
            ActivationMonitor(SITE, torch.ones(width), name="calm").expect_fits(a)
        assert str(told.value) == (
            f"the monitor calm reads {width} values, and this model's hidden states have 32: make one for this model with "
            "`firsthand interp probe`"
        )


def test_a_file_may_leave_out_a_name_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "d"

    def read(values: torch.Tensor | None, **given: str) -> Direction:
        tensors = {"other": torch.ones(1)} if values is None else {"direction": values}
        save_file(tensors, file, metadata=given)
        return read_direction(file, "f.1", "thing", "make it", ("a",))

    whole = {"format": "f.1", "site": "here", "name": "north", "a": "-2.5e-3", "b": "7"}
    found = read(torch.tensor([3, -4]), **whole)
    assert (found.site, found.values.tolist(), found.name, found.numbers) == (
        "here",
        [3.0, -4.0],
        "north",
        {"a": -0.0025},
    )
    assert found.values.dtype == torch.float32
    assert read(torch.ones(1), **{key: value for key, value in whole.items() if key != "name"}).name == "thing"
    for values, changes in (
        (None, {}), (torch.tensor(1.0), {}), (torch.ones(0), {}), (torch.ones(2, 1), {}), (torch.tensor([math.inf]), {}),
        (torch.ones(1), {"format": "f.10"}), (torch.ones(1), {"format": ""}), (torch.ones(1), {"site": ""}),
        (torch.ones(1), {"a": "many"}), (torch.ones(1), {"a": ""}),
    ):  # fmt: skip
        with pytest.raises(ModelFileError) as told:
            read(values, **whole | changes)
        assert str(told.value) == f"{file} is no thing: give a file that `make it` wrote"
    for key in ("format", "site", "a"):
        with pytest.raises(ModelFileError, match="is no thing"):
            read(torch.ones(1), **{name: value for name, value in whole.items() if name != key})
    write_direction(file, "f.1", Direction("s", torch.ones(2), "n", {}))
    assert (facts(file), read_direction(str(file), "f.1", "thing", "x").numbers) == (
        {"format": "f.1", "site": "s", "name": "n"},
        {},
    )
    assert (is_file(file), is_file(tmp_path), is_file(tmp_path / "no")) == (True, False, False)
    assert (is_file(Path("n" * 5000)), is_file(Path("a\0b"))) == (False, False)


def test_a_steering_vector_s_strength_stands_in_its_file_and_behind_its_name(tmp_path: Path) -> None:
    vector = SteeringVector(SITE, torch.tensor([1.5, -2.0]).half(), -0.3, "calm")
    file, named = tmp_path / "calm", tmp_path / "calm@4"
    write_steering(vector, file)
    assert facts(file) == {"format": STEERING, "site": SITE, "name": "calm", "strength": "-0.3"}
    found = read_steering(str(file))
    assert (found.site, found.direction.tolist(), found.strength, found.name) == (SITE, [1.5, -2.0], -0.3, "calm")
    assert [read_steering(f"{file}@{times}").strength for times in ("1", "-2", "1e1", " 0.5 ", "0")] == [
        -0.3, 0.6, -3.0, -0.15, 0.0,
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=rf"^no steering vector '{named}': give a file that"):
        read_steering(f"{named}@2")
    write_steering(replace(vector, strength=2.0), named)
    assert [read_steering(f"{named}{times}").strength for times in ("", "@3")] == [2.0, 6.0]
    assert read_steering(f"{file}@4").strength == 2.0  # the file of that name, and not four times the other
    by = "give a file that `firsthand interp steer --out FILE` wrote"
    write_monitor(ActivationMonitor(SITE, torch.ones(2)), tmp_path / "m")
    for text, kind, said in (
        (f"{file}@", ConfigError, "the strength '' of a steering vector is no number: write FILE@0.5"),
        (f"{file}@1,5", ConfigError, "the strength '1,5' of a steering vector is no number: write FILE@0.5"),
        (f"{file}@inf", ConfigError, "the strength of a steering vector is -inf: give a finite number"),
        (f"{file}@nan", ConfigError, "the strength of a steering vector is nan: give a finite number"),
        (f"{file}@1e39", ConfigError,
         "the strength -3e+38 of calm is more than float32 can hold: give a smaller one"),
        (f"{tmp_path / 'm'}@2", ModelFileError, f"{tmp_path / 'm'} is no steering vector: {by}"),
        (str(tmp_path / "none"), ConfigError, f"no steering vector '{tmp_path / 'none'}': {by}"),
    ):  # fmt: skip
        with pytest.raises(kind) as told:
            read_steering(text)
        assert str(told.value) == said
    SteeringVector(SITE, torch.tensor([1.0, 3e38]), 1.0)
    SteeringVector(SITE, torch.tensor([60_000.0]).half(), 3.0)  # beyond float16, and not beyond float32
    SteeringVector(SITE, torch.tensor([math.nan]), 3.0)  # refused where it is read
    with pytest.raises(ConfigError, match=r"^the strength 2 of steering is more than float32 can hold"):
        SteeringVector(SITE, torch.tensor([1.0, 3e38]), 2.0)
    values = torch.tensor([[1.0, 1.0], [0.0, 4.0]], dtype=torch.bfloat16)
    added = SteeringVector(SITE, torch.tensor([1.5, -2.0]), 2.0).added(values)
    assert added.tolist() == [[4.0, -3.0], [3.0, 0.0]] and added.dtype == torch.bfloat16
    assert values.tolist() == [[1.0, 1.0], [0.0, 4.0]]
    assert (
        SteeringVector(SITE, torch.ones(2)).strength == 1.0 and SteeringVector(SITE, torch.ones(2)).name == "steering"
    )
    double = replace(vector, direction=vector.direction.double())
    assert double.digest == vector.digest == found.digest and len(found.digest) == 16
