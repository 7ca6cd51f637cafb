"""BFCL's turns over two small simulators: calls, what a turn is judged by, and what the agent is told."""

import asyncio
import inspect
import json
import sys
import types
from typing import Any

import pytest

from firsthand.worlds.function_turns import (
    MAX_STEPS,
    FunctionTurnsWorld,
    Services,
    TurnTask,
    described_functions,
    listed,
    parsed,
)
from firsthand.worlds.world import InvalidAction, WorldCall

PLACE = "bfcl_eval.eval_checker.multi_turn_eval.func_source_code"


class MathAPI:
    """A simulator without a first state."""

    def half(self, number: float, times: int = 1) -> dict[str, float]:
        return {"result": number / 2**times, "kind": type(number).__name__}  # type: ignore[dict-item]

    def given(self, count: int, share: "float", *, most: float = 1, name=0) -> list[object]:  # type: ignore[no-untyped-def]
        return [count, share, most, name, None, "a"]

    def told(self, what: str) -> object:
        ring: dict[str, object] = {}
        ring["itself"] = ring
        return {"ring": ring, "none": None, "text": "é", "object": {"é": [1, True]}}[what]

    def fail(self, why: str) -> str:
        raise ValueError(why)


class TicketAPI:
    """A simulator that is loaded."""

    def __init__(self) -> None:
        self.tickets: list[str] = []
        self._secret = 0

    def _load_scenario(self, scenario: dict[str, Any], long_context: bool = False) -> None:
        self.tickets = scenario.get("tickets", [])
        self.long = long_context

    def add(self, title, level=3):  # type: ignore[no-untyped-def]
        self.tickets.append(f"{title}/{level}")
        self._secret += 1
        return len(self.tickets)

    def odd(self) -> dict[int, object]:
        return {1: {2}}


@pytest.fixture
def simulators(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, made in (("math_api", MathAPI), ("ticket_api", TicketAPI)):
        module = types.ModuleType(name)
        setattr(module, made.__name__, made)
        monkeypatch.setitem(sys.modules, f"{PLACE}.{name}", module)


def described(name: str, *properties: str) -> dict[str, Any]:
    listed = {each: {"type": "string", "description": f"The {each}."} for each in properties[1:]}
    listed |= {each: {"type": "string"} for each in properties[:1]}
    return {"name": name, "description": f"Does {name}.", "parameters": {"properties": listed}, "response": 1}


FUNCTIONS = {
    "half": described("half", "number", "times"),
    "add": described("add", "title", "level"),
    "fail": described("fail", "why"),
    "odd": described("odd"),
}
FIRST = {"TicketAPI": {"tickets": ["old"]}}


def task(**changes: Any) -> TurnTask:
    made: dict[str, Any] = {
        "services": ("MathAPI", "TicketAPI"), "turns": ("halve 8", "", "add it"), "first_state": FIRST,
        "calls": (("half(8)",), ("odd()", "add('x', level=2)"), ()), "excluded": (), "later": {1: ("add", "odd")},
    }  # fmt: skip
    return TurnTask("t", **{**made, **changes})


def test_results_are_texts_and_whole_numbers_become_floats_where_they_are_wanted(simulators):
    services = Services(task(long=True))
    assert vars(services.instances["TicketAPI"]) == {"tickets": ["old"], "_secret": 0, "long": True}
    assert not Services(task()).instances["TicketAPI"].long
    assert services.run("half(9, times=2)") == '{"result": 2.25, "kind": "float"}'
    assert services.call("half", (), {"number": 4}) == '{"result": 2.0, "kind": "float"}'
    assert services.run("add('a')") == "2"
    assert services.instances["TicketAPI"].tickets == ["old", "a/3"]
    assert FIRST == {"TicketAPI": {"tickets": ["old"]}}
    assert services.run("odd()") == "{1: {2}}"
    assert services.run("given(3, 4, most=5, name=6)") == "[3, 4.0, 5.0, 6, None, 'a']"
    assert services.run("given(count=-3, share=0)") == "[-3, 0.0, 1, 0, None, 'a']"
    assert services.call("given", (3.5, 4.5), {"most": "5"}) == "[3.5, 4.5, '5', 0, None, 'a']"
    assert services.run("given(1, 2, 3)") == "Error during execution: too many positional arguments"
    assert services.run("given(1, 2, least=3)") == "Error during execution: got an unexpected keyword argument 'least'"
    assert services.run("told('object')") == '{"\\u00e9": [1, true]}'
    assert (services.run("told('none')"), services.run("told('text')")) == ("None", "é")
    assert services.run("told('ring')") == "{'itself': {...}}"
    assert services.run("told('x')") == "Error during execution: 'x'"
    assert services.run("fail('no é')") == "Error during execution: no é"
    assert services.run("half()") == "Error during execution: missing a required argument: 'number'"
    assert services.method("add") == services.instances["TicketAPI"].add
    other = Services(task(long=True))
    assert not services.equal(other)
    other.run("add('a')")
    other.instances["TicketAPI"]._secret = 9
    assert services.equal(other)
    other.instances["TicketAPI"].more = 1
    assert not services.equal(other)
    assert other.equal(services)
    assert parsed("f(1, 'b', c=[2, {'d': None}])") == ("f", [1, "b"], {"c": [2, {"d": None}]})


def test_functions_are_described_by_their_files_but_for_the_excluded_ones(tmp_path):
    for name, lines in (("math_api", ["half", "fail"]), ("ticket_api", ["add"])):
        (tmp_path / f"{name}.json").write_text("\n".join(json.dumps(FUNCTIONS[each]) for each in lines), "utf-8")
    found = described_functions(task(excluded=("fail",)), tmp_path)
    assert found == {"half": FUNCTIONS["half"], "add": FUNCTIONS["add"]}
    assert listed(found.values()).splitlines() == [
        json.dumps({key: FUNCTIONS[name][key] for key in ("name", "description", "parameters")})
        for name in ("half", "add")
    ]
    odd = FUNCTIONS["add"] | {"description": "one\u2028two"}
    (tmp_path / "ticket_api.json").write_text(json.dumps(odd, ensure_ascii=False) + "\n", "utf-8")
    assert described_functions(task(), tmp_path)["add"]["description"] == "one\u2028two"
    assert (task().is_later("add"), task().is_later("half"), task(later={}).is_later("add")) == (True, False, False)


def opened(**changes: Any) -> FunctionTurnsWorld:
    world = FunctionTurnsWorld(task(**changes), FUNCTIONS)
    asyncio.run(world.open())
    return world


def call(world: FunctionTurnsWorld, name: str, **arguments: Any) -> str:
    move = next(each for each in world.moves if each.__name__ == name)
    return asyncio.run(move(**arguments))  # type: ignore[arg-type]


def test_a_task_whose_turns_are_all_right_is_won_and_tells_of_new_functions(simulators):
    world = opened()
    assert [move.__name__ for move in world.moves] == ["half", "fail", "end_turn"]
    half = world.moves[0]
    assert half.__doc__ == "Does half.\n\nArgs:\n    times: The times.\n    number: "
    assert str(inspect.signature(half)) == "(number: float, times: int = 1)"
    assert half.__annotations__ == {"number": float, "times": int}
    assert world.render() == "turn 1 of 3: halve 8\n"
    assert world.optimal() == '{"name": "half", "arguments": {"number": 8}}'
    assert world.optimal() == "It is done."
    assert call(world, "half", number=8) == '{"result": 4.0, "kind": "float"}'
    assert world.render() == 'turn 1 of 3: halve 8\n{"result": 4.0, "kind": "float"}'
    told = call(world, "end_turn", message="4")
    assert told == f"There are more functions now:\n{listed([FUNCTIONS['add'], FUNCTIONS['odd']])}\nDo it now."
    assert [move.__name__ for move in world.moves] == ["half", "fail", "add", "odd", "end_turn"]
    assert world.moves[2].__annotations__ == {"title": str, "level": str}
    assert (world.turn, world.steps, world.passed) == (1, 0, 1)
    assert [world.optimal() for _ in range(3)] == [
        '{"name": "odd", "arguments": {}}', '{"name": "add", "arguments": {"title": "x", "level": 2}}', "It is done."
    ]  # fmt: skip
    call(world, "add", title="x", level=2)
    call(world, "odd")
    assert call(world, "end_turn", message="so") == "add it"
    assert world.ending is None
    assert call(world, "end_turn", message="so") == "The user has no further request."
    assert world.ending == "done"
    assert asyncio.run(world.result()) == {"won": True, "passed": 3, "turns": 3, "why": ""}
    assert world.render() == "turn 3 of 3: add it\n{1: {2}}"


def test_the_first_turn_that_differs_is_told_and_later_ones_count_no_more(simulators):
    world = opened()
    call(world, "end_turn", message="no")
    assert (world.failed, world.passed) == ("turn 1: no call was made", 0)
    call(world, "odd")
    call(world, "add", title="x", level=2)
    call(world, "end_turn", message="no")
    assert (world.failed, world.passed) == ("turn 1: no call was made", 0)
    call(world, "end_turn", message="no")
    assert asyncio.run(world.result()) == {"won": False, "passed": 0, "turns": 3, "why": "turn 1: no call was made"}
    state = opened()
    call(state, "half", number=8)
    call(state, "end_turn", message="")
    call(state, "odd")
    call(state, "add", title="x", level=1)
    call(state, "end_turn", message="")
    assert (state.failed, state.passed) == ("turn 2: the services are in another state", 1)
    idle = opened(turns=("a", "b"), calls=((), ("half(8)",)))
    call(idle, "half", number=3)
    call(idle, "end_turn", message="")
    assert (idle.failed, idle.passed) == ("", 1)  # a turn that wants no call is right whatever was done
    free = opened(turns=("a",), calls=((),), later={})
    call(free, "add", title="z")
    call(free, "end_turn", message="")
    assert (free.failed, free.passed, free.ending) == ("", 1, "done")
    missing = opened(calls=(("half(8)", "half(8)"), ("add('x')",), ()))
    call(missing, "half", number=8)
    call(missing, "end_turn", message="")
    assert (missing.failed, missing.passed) == ("turn 1: a result is missing", 0)


def test_one_call_more_than_a_turn_may_have_ends_the_attempt(simulators):
    world = opened()
    for _ in range(MAX_STEPS):
        assert call(world, "half", number=2) == '{"result": 1.0, "kind": "float"}'
    assert world.ending is None
    assert call(world, "half", number=2) == "The turn is over: 20 calls are made in one at most."
    assert world.ending == "too many calls in a turn"
    assert asyncio.run(world.result())["won"] is False
    longer = opened(calls=(("half(8)",) * 21, (), ()))
    for _ in range(21):
        call(longer, "half", number=8)
    assert longer.ending is None
    assert call(longer, "half", number=8) == "The turn is over: 21 calls are made in one at most."


def test_json_is_a_call_and_any_other_text_ends_the_turn(simulators):
    world = opened()
    assert world.read(' {"name": "half", "arguments": {"number": 3}} ') == WorldCall("half", {"number": 3})
    assert world.read(" It is 4. ") == WorldCall("end_turn", {"message": "It is 4."})
    with pytest.raises(InvalidAction, match=r"^nothing was written: write \{.*\} or a message to the user$"):
        world.read("  \n")
    assert world.admissible() is None
