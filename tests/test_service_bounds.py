"""Calls of simulated services have bounds: places, numbers as texts, the state that they leave, the process's precision."""

import asyncio
import decimal
import json
import sys
import types
from typing import Any

import pytest

from firsthand.worlds.function_turns import FunctionTurnsWorld, Services, TurnTask
from firsthand.worlds.service_bounds import MAX_PLACES, MAX_STATE_CHARS, is_too_large
from firsthand.worlds.world import MAX_ACTION_CHARS, InvalidAction

PLACE = "bfcl_eval.eval_checker.multi_turn_eval.func_source_code"


class MathAPI:
    """A calculator as the leaderboard's: it sets the precision of the process."""

    def logarithm(self, value: float, base: float, precision: int) -> dict[str, Any]:
        decimal.getcontext().prec = precision
        if mpmath := sys.modules.get("mpmath"):
            mpmath.mp.dps = precision
        return {"result": decimal.Decimal(value).ln() / decimal.Decimal(base).ln()}

    def total(self, numbers: list[float]) -> dict[str, float]:
        return {"result": sum(numbers)}

    def third(self) -> str:
        return str(decimal.Decimal(1) / 3)


class Folder:
    """A folder as the leaderboard's file system has them."""

    def __init__(self, contents: dict[str, "Folder"]) -> None:
        self.contents = contents


class GorillaFileSystem:
    """A file system whose copies of folders share what is in them."""

    def __init__(self) -> None:
        self.root = Folder({})

    def twice(self) -> str:
        self.root = Folder({"a": self.root, "b": self.root})
        return "done"

    def itself(self) -> str:
        self.root.contents["a"] = self.root
        return "done"

    def echo(self, content: str) -> str:
        return content


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> FunctionTurnsWorld:
    for each, name in ((MathAPI, "math_api"), (GorillaFileSystem, "gorilla_file_system")):
        module = types.ModuleType(f"{PLACE}.{name}")
        setattr(module, each.__name__, each)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    described = {
        name: {"name": name, "description": "", "parameters": {"properties": {}}}
        for name in ("logarithm", "total", "third", "twice", "itself", "echo")
    }
    made = FunctionTurnsWorld(TurnTask("t", ("x",), ("MathAPI", "GorillaFileSystem"), {}, (), ((),)), described)
    asyncio.run(made.open())
    return made


def told(world: FunctionTurnsWorld, name: str, **given: Any) -> str:
    return asyncio.run(next(each for each in world.moves if each.__name__ == name)(**given))


@pytest.mark.parametrize("places", [MAX_PLACES + 1, 300_000, 10**400, 3e5, "300000", -(10**6), float("inf")])
def test_more_places_than_are_computed_are_a_failed_call_and_the_task_goes_on(world: FunctionTurnsWorld, places: Any):
    said = told(world, "logarithm", value=3, base=2, precision=places)
    assert said.startswith("Error during execution: precision is ") and "at most 1,000 places" in said
    assert world.ending is None and "1.58" in told(world, "logarithm", value=3, base=2, precision=4)


def test_the_most_places_are_computed(world: FunctionTurnsWorld):
    assert len(told(world, "logarithm", value=3, base=2, precision=MAX_PLACES)) > MAX_PLACES


@pytest.mark.parametrize("text", ["1e1000000000", "1/1e999999999", "9" * 81, "1e100", "1e-999999999"])
def test_a_text_that_becomes_a_huge_number_is_not_computed_with(world: FunctionTurnsWorld, text: str):
    said = told(world, "logarithm", value=text, base=2, precision=4)
    assert said.endswith("and a number was expected: give it without quotes"), said


@pytest.mark.parametrize("text", ["3", "3.5", "1e9", "-2", " 3 "])
def test_a_plain_number_as_a_text_is_given_to_the_service_as_it_came(text: str, world: FunctionTurnsWorld):
    assert "without quotes" not in told(world, "logarithm", value=text, base=2, precision=4)


def test_a_precision_that_a_call_sets_holds_for_that_call_alone(world: FunctionTurnsWorld):
    mpmath = pytest.importorskip("mpmath")
    before = decimal.getcontext().prec, mpmath.mp.prec
    with decimal.localcontext(prec=50):
        third = told(world, "third")
        told(world, "logarithm", value=3, base=2, precision=2)
        assert told(world, "third") == third == "0." + "3" * 28 and decimal.getcontext().prec == 50
    Services(world.task).call("logarithm", (), {"value": 3, "base": 2, "precision": 3})
    assert (decimal.getcontext().prec, mpmath.mp.prec) == before


def test_a_result_of_too_many_digits_is_a_failed_call(world: FunctionTurnsWorld):
    assert told(world, "total", numbers=[9 * 10**4299] * 2).startswith("Error during execution: Exceeds the limit")


def test_folders_that_share_or_hold_each_other_end_the_task_before_a_search_walks_through_them(
    world: FunctionTurnsWorld,
):
    for _ in range(10):
        assert told(world, "twice") == "done"
    for _ in range(10):
        world.steps, said = 0, told(world, "twice")
    assert "hold more than" in said and world.ending == "too large a state"
    asyncio.run(world.open())
    assert "a folder holds itself" in told(world, "itself")


def test_the_largest_state_is_kept() -> None:
    def held(chars: int) -> bool:
        return is_too_large([types.SimpleNamespace(a="x" * (chars - 2))])

    assert held(MAX_STATE_CHARS + 1) and not held(MAX_STATE_CHARS)
    deep = Folder({})
    for _ in range(100):
        deep = Folder({"x" * 1_000: deep})
    assert is_too_large([types.SimpleNamespace(root=deep)]), (
        "a search lists each folder with the names of all around it"
    )


def test_arguments_that_are_as_long_as_no_action_is_are_refused(world: FunctionTurnsWorld):
    room = MAX_ACTION_CHARS - len(json.dumps({"content": ""}))
    assert told(world, "echo", content="x" * room) == "x" * room
    with pytest.raises(InvalidAction, match="20,001 characters: at most 20,000 are read"):
        told(world, "echo", content="x" * (room + 1))
