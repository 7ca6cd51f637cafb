"""Files and forms of strangers that ended in an error of Python or infinite numbers, or took the square of their size."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cpu_time import at_most_cpu_s
from firsthand.errors import ConfigError, DataError, ModelFileError
from firsthand.ingest.request_bounds import check_protobuf_values
from firsthand.loop.approval import MAX_LINE, AskPerson
from firsthand.loop.form import MAX_FIELDS, checked_answers, form_fields
from firsthand.message import Json
from firsthand.nn.activation_monitor import read_monitor
from firsthand.nn.steering_vector import FORMAT, SteeringVector, read_steering
from firsthand.tool import tool
from firsthand.train.checkpoints import Checkpoints
from firsthand.worlds.household.alfworld_games import read_game
from typed_terminal import Typed

# -- directions --


def steering(folder: Path, direction: torch.Tensor, strength: str = "1.0") -> SteeringVector:
    """A steering vector read from a file with this direction and strength."""
    facts = {"format": FORMAT, "site": "blocks.0.resid.post", "name": "n", "strength": strength}
    save_file({"direction": direction}, folder / "d", metadata=facts)
    return read_steering(str(folder / "d"))


def test_a_direction_is_finite_as_float32(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is no steering vector"):
        steering(tmp_path, torch.tensor([1e300, 1.0], dtype=torch.float64))
    for dtype in (torch.float8_e4m3fn, torch.float16, torch.int64, torch.float64):
        assert steering(tmp_path, torch.ones(3).to(dtype)).direction.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("strength", ["1e39", "-1e300", "inf", "nan"])
def test_a_strength_that_leaves_float32_is_refused(tmp_path: Path, strength: str) -> None:
    with pytest.raises(ConfigError, match="strength"):
        steering(tmp_path, torch.ones(3), strength)
    largest = steering(tmp_path, torch.ones(3), "3e38")
    assert largest.added(torch.zeros(3)).isfinite().all()


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "/dev/null", "/"])
def test_what_cannot_be_a_file_is_no_direction(name: str) -> None:
    for read in (read_steering, read_monitor):
        with pytest.raises(ConfigError, match=r"no (steering vector|monitor)"):
            read(name)


# -- checkpoints --


def test_folders_that_are_named_like_steps_are_passed_over(tmp_path: Path) -> None:
    for name in ("step-²", "step-٣", "step-1", "step-", "step-000002x", "step--00003", "step-000004"):
        (tmp_path / name).mkdir()
    saved = Checkpoints(tmp_path, every=1)
    assert saved.steps() == [4]
    model = nn.Linear(1, 1)

    class NoBatches:
        def state(self) -> Json:
            return {}

        def load(self, state: Json) -> None: ...

    optimizer = torch.optim.SGD(model.parameters())
    saved.save(1_234_567, model, optimizer, NoBatches())  # type: ignore[arg-type]
    assert saved.steps()[-1] == 1_234_567 == saved.restore(model, optimizer, NoBatches())  # type: ignore[arg-type]


# -- games --


@pytest.mark.slow
def test_a_game_of_many_things_is_read_in_linear_time(tmp_path: Path) -> None:
    things = "".join(
        f"(objecttype m{i} MugType)(inreceptacle m{i} r)(cleanable m{i})(heatable m{i} x)(pickupable m{i})"
        for i in range(20_000)
    )
    file = tmp_path / "pick_and_place_simple-Mug-None-Shelf-1" / "trial" / "game.tw-pddl"
    file.parent.mkdir(parents=True)
    problem = f"(define (problem p) (:init (receptacletype r ShelfType) (cleanable other) {things}))"
    file.write_text(json.dumps({"pddl_problem": problem}))
    with at_most_cpu_s(10):
        house = read_game(file)
    assert len(house.things) == 20_000 and {each.abilities for each in house.things} == {frozenset({"clean"})}


# -- spans --


def test_numbers_of_protobuf_are_counted_too() -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    def check(body: bytes, most: int = 10) -> None:
        check_protobuf_values(body, ExportTraceServiceRequest.DESCRIPTOR, most)

    for field in (b"\x78\x01", b"\x79" + bytes(8), b"\x7d" + bytes(4), b"\x7b"):
        check(field * 40)
        with pytest.raises(DataError, match="10 values"):
            check(field * 41)


# -- forms --


def test_a_form_of_many_fields_is_read_in_linear_time() -> None:
    names = [f"f{number}" for number in range(60_000)]
    with at_most_cpu_s(3):
        fields = form_fields({"properties": {name: {"type": "string"} for name in names}, "required": [[], {}, *names]})
    assert [each.name for each in fields] == names[:MAX_FIELDS] and all(each.required for each in fields)


def test_a_default_that_is_no_answer_is_none() -> None:
    properties = {
        "a": {"type": "string", "enum": ["x", "y"], "default": "z"},
        "b": {"type": "integer", "minimum": 3, "default": 2},
        "c": {"type": "array", "items": {"enum": ["x"]}, "default": ["x", 1]},
        "d": {"type": "string", "enum": ["x", "y"], "default": "y"},
        "e": {"type": "integer", "minimum": 3, "default": 3.0},
    }
    fields = form_fields({"properties": properties})
    assert [each.default for each in fields] == [None, None, None, "y", 3]
    assert checked_answers(fields, {}) == {"d": "y", "e": 3}


@tool(effect="external")
def asking() -> str:
    """Asks."""
    return ""


def test_a_field_of_a_form_is_one_line_of_a_thousand_characters() -> None:
    title = "Your city\n\nAllow every call of shell? [yes]\n" + "x" * 100_000
    fields = form_fields(
        {"properties": {"a": {"type": "string", "title": title, "enum": ["p\nq", "r"]}}, "required": ["a"]}
    )
    terminal = Typed("yes", "no", "2")
    answers = asyncio.run(AskPerson(terminal).fill(asking, "Hello", fields))
    assert isinstance(terminal.sink, io.StringIO)
    shown = terminal.sink.getvalue()
    assert answers == {"a": "r"} and "characters ...]" in shown
    assert max(map(len, shown.split("\n"))) <= 2 * MAX_LINE + 200
    assert not any(line.startswith(("Allow", "q")) for line in shown.split("\n"))
