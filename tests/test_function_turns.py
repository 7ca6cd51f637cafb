"""BFCL's multi-turn tasks: with a service of our own, and with the package's simulators beside its own checker."""

import asyncio
import importlib.util
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from firsthand import catalog
from firsthand.benchmark import Benchmark
from firsthand.benchmarks.bfcl_multi_turn import CATEGORIES
from firsthand.errors import ConfigError, DataError
from firsthand.task import Task
from firsthand.trace import Trace
from firsthand.worlds.function_turns import (
    FunctionTurnsWorld,
    Services,
    TurnTask,
    described_functions,
    listed,
    parsed,
)
from firsthand.worlds.players import play
from firsthand.worlds.world import InvalidAction, World, WorldCall

SERVICE = """
class MessageAPI:
    def __init__(self):
        self.sent, self._drafts = [], 0

    def _load_scenario(self, scenario, long_context=False):
        self.sent = scenario["sent"] + ["long"] * long_context

    def send(self, name: str, text: str = "hello") -> dict:
        self.sent.append((name, text))
        return {"sent": len(self.sent)}

    def half(self, of: float) -> float:
        self._drafts += 1
        return of / 2

    def fail(self) -> str:
        raise ValueError("no such user")
"""
FUNCTIONS = [
    {
        "name": "send",
        "description": "Send it.",
        "parameters": {"type": "dict", "properties": {"name": {"type": "string"}}},
    },
    {
        "name": "half",
        "description": "Halve it.",
        "parameters": {"type": "dict", "properties": {"of": {"type": "float"}}},
    },
    {"name": "fail", "description": "Fail.", "parameters": {"type": "dict", "properties": {}}},
]
QUESTION = {
    "id": "multi_turn_base_0",
    "question": [[{"role": "user", "content": "Write to Ann."}], [{"role": "user", "content": "Halve 3."}]],
    "initial_config": {"MessageAPI": {"sent": ["first"]}},
    "involved_classes": ["MessageAPI"],
    "excluded_function": ["fail"],
}
ANSWER = {"id": "multi_turn_base_0", "ground_truth": [["send('Ann')"], ["half(of=3)"]]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package in the place of bfcl-eval, with one service, one task and its answer."""
    package = tmp_path / "bfcl_eval" / "eval_checker" / "multi_turn_eval" / "func_source_code"
    package.mkdir(parents=True)
    for each in (package, *package.parents[:3]):
        (each / "__init__.py").touch()
    (package / "message_api.py").write_text(SERVICE)
    data = tmp_path / "bfcl_eval" / "data"
    for name in ("possible_answer", "multi_turn_func_doc"):
        (data / name).mkdir(parents=True)
    (data / "multi_turn_func_doc" / "message_api.json").write_text("\n".join(map(json.dumps, FUNCTIONS)))
    (data / "BFCL_v4_multi_turn_base.json").write_text(json.dumps(QUESTION))
    (data / "possible_answer" / "BFCL_v4_multi_turn_base.json").write_text(json.dumps(ANSWER))
    kept = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "bfcl_eval"}
    for name in kept:
        del sys.modules[name]
    monkeypatch.syspath_prepend(str(tmp_path))
    yield data
    for name in [name for name in sys.modules if name.partition(".")[0] == "bfcl_eval"]:
        del sys.modules[name]
    sys.modules.update(kept)


def played(folder: Path, *actions: str) -> tuple[Trace, list[str]]:
    """An attempt of these actions and no more, and what was observed."""
    left, benchmark = iter(actions), catalog.benchmark(f"bfcl_multi_turn:rounds={len(actions)}:data={folder}")
    trace = asyncio.run(play(benchmark, benchmark.tasks(0)[0], lambda world, messages: next(left), thought=False))
    return trace, [call.detail["result"] for call in trace.calls if call.kind == "tool"]


SEND, HALF = (
    '{"name": "send", "arguments": {"name": "Ann"}}',
    '{"name": "half", "arguments": {"of": 3}}',
)


def test_turns_are_right_if_state_and_results_are_those_of_the_tasks_own_calls(folder: Path):
    benchmark = catalog.benchmark(f"bfcl_multi_turn:data={folder}")
    task = benchmark.tasks(0)[0]
    assert (
        "send" in task.conversation[0].text
        and "fail" not in task.conversation[0].text
        and task.prompt == "Write to Ann."
    )
    assert asyncio.run(play(benchmark, task, "optimal")).value() == 1
    trace, seen = played(folder, SEND, "Sent.", HALF, "1.5")
    assert trace.value() == 1 and seen[:3] == ['{"sent": 2}', "Halve 3.", "1.5"] and trace.value("passed") == 1

    def why(*actions: str) -> tuple[float | None, str]:
        trace, _ = played(folder, *actions)
        assert trace.value() == 0
        return trace.value("passed"), trace.final_state["result"]["why"]

    assert why("Done.", HALF, "1.5") == (0, "turn 1: no call was made")
    assert why(SEND, SEND, "Sent.", HALF, "1.5") == (0, "turn 1: the services are in another state")
    assert why(SEND, "Sent.", SEND, "Done.") == (0.5, "turn 2: the services are in another state")
    assert why(SEND, "Sent.", '{"name": "half", "arguments": {"of": 4}}', "2") == (0.5, "turn 2: a result is missing")
    assert why(SEND) == (0, ""), "an attempt that stops in the middle has not passed its turns"
    late = played(folder, HALF, SEND, "Sent.", '{"name": "half", "arguments": {"of": 9}}', "1.5")[0]
    assert late.value() == 1, "a result that an earlier turn has brought counts"


@pytest.mark.slow
def test_calls_that_do_not_fit_and_too_many_of_them_are_told(folder: Path):
    _, seen = played(
        folder, '{"name": "fail", "arguments": {}}', '{"name": "send", "arguments": {"x": 1}}', "{", " ",
        '{"name": "half", "arguments": {"of": "many"}}', "Done.",
    )  # fmt: skip
    assert "there is no tool 'fail': there are send, half, end_turn" in seen[0] and "do not fit send" in seen[1]
    assert "is no JSON" in seen[2] and "nothing was written" in seen[3] and "Error during execution" in seen[4]
    trace, seen = played(folder, *[HALF] * 21)
    assert trace.final_state["ended"] == "too many calls in a turn" and "20 calls" in seen[-1] and trace.value() == 0
    answers = folder / "possible_answer" / "BFCL_v4_multi_turn_base.json"
    answers.write_text(json.dumps({**ANSWER, "ground_truth": [["send('Ann')"] * 21, []]}))
    trace, _ = played(folder, *[SEND] * 21, "Sent.", "Done.")
    assert trace.value() == 1, "a task whose own calls are more than 20 can be done"


def test_native_tools_have_the_services_arguments(folder: Path):
    benchmark = catalog.benchmark(f"bfcl_multi_turn:actions=native:data={folder}")
    environment = benchmark.environment(benchmark.tasks(0)[0])  # type: ignore[misc]
    asyncio.run(environment.open())
    tools = {tool.name: tool.spec for tool in environment.tools}
    assert set(tools) == {"send", "half", "end_turn"} and tools["send"].description == "Send it."
    assert tools["send"].parameters["required"] == ["name"]
    assert tools["half"].parameters["properties"]["of"]["type"] == "number"
    assert asyncio.run(play(benchmark, benchmark.tasks(0)[0], "optimal")).value() == 1


def test_a_function_that_comes_with_a_turn_is_offered_and_described_from_then_on(folder: Path):
    turns = [*QUESTION["question"], [], [{"role": "user", "content": "Again."}]]
    question = {**QUESTION, "id": "multi_turn_miss_func_0", "question": turns, "missed_function": {"2": ["half"]}}
    answer = {"id": "multi_turn_miss_func_0", "ground_truth": [["send('Ann')"], [], ["half(of=3)"], ["half(of=3)"]]}
    (folder / "BFCL_v4_multi_turn_miss_func.json").write_text(json.dumps(question))
    (folder / "possible_answer" / "BFCL_v4_multi_turn_miss_func.json").write_text(json.dumps(answer))
    benchmark = catalog.benchmark(f"bfcl_multi_turn:category=miss_func:data={folder}")
    task = benchmark.tasks(0)[0]
    assert '"half"' not in task.conversation[0].text and "send" in task.conversation[0].text
    left = iter([SEND, "Sent.", HALF, "I cannot.", HALF, "1.5", HALF, "1.5"])
    trace = asyncio.run(play(benchmark, task, lambda world, messages: next(left), thought=False))
    seen = [call.detail["result"] for call in trace.calls if call.kind == "tool"]
    assert "there is no tool 'half': there are send, end_turn" in seen[2] and '"Halve it."' in seen[3]
    assert seen[4] == "1.5" and seen[5] == "Again." and trace.value() == 1
    native = catalog.benchmark(f"bfcl_multi_turn:category=miss_func:actions=native:data={folder}")
    trace = asyncio.run(play(native, native.tasks(0)[0], "optimal"))
    names = [call.detail["name"] for call in trace.calls if call.kind == "tool"]
    assert trace.value() == 1 and names == ["send", "end_turn", "end_turn", "half", "end_turn", "half", "end_turn"]


def test_files_that_do_not_fit_are_told(folder: Path):
    with pytest.raises(ConfigError, match="category is 'memory'"):
        catalog.benchmark("bfcl_multi_turn:category=memory")
    with pytest.raises(DataError, match="is missing"):
        catalog.benchmark(f"bfcl_multi_turn:category=miss_param:data={folder}")
    answers = folder / "possible_answer" / "BFCL_v4_multi_turn_base.json"
    for answer, said in (
        ({**ANSWER, "id": "x"}, "the answer x"),
        ({**ANSWER, "ground_truth": []}, "2 turns, 0 answers"),
    ):
        answers.write_text(json.dumps(answer))
        with pytest.raises(DataError, match=said):
            catalog.benchmark(f"bfcl_multi_turn:data={folder}")


HERE = importlib.util.find_spec("bfcl_eval") and importlib.util.find_spec("mpmath")


@pytest.mark.skipif(not HERE, reason="bfcl-eval is not installed")
@pytest.mark.parametrize("category", CATEGORIES)
def test_verdicts_are_those_of_the_leaderboards_own_checker(category: str):
    from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import multi_turn_checker

    benchmark = catalog.benchmark(f"bfcl_multi_turn:category={category}")
    folder = Path(importlib.util.find_spec("bfcl_eval").submodule_search_locations[0]) / "data"  # type: ignore[union-attr, index]
    name = f"BFCL_v4_multi_turn_{category}.json"
    entries = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    right = wrong = 0
    for index in range(0, 200, 25):
        task = benchmark.tasks(0)[index]
        for dropped in (-1, 0, 1):
            made = without(benchmark, task, dropped)
            theirs = multi_turn_checker(
                [[[call] for call in turn] for turn in made], list(map(list, own_calls(benchmark, task))), entries[index],
                f"multi_turn_{category}", f"m{category}{index}_{dropped + 1}",
            )["valid"]  # fmt: skip
            ours = asyncio.run(play(benchmark, task, writes(made), thought=False)).value() == 1
            assert ours == theirs, (task.id, dropped)
            right, wrong = right + ours, wrong + (not ours)
    assert right >= 8 and wrong >= 8


def own_calls(benchmark: Benchmark, task: Task) -> tuple[tuple[str, ...], ...]:
    return benchmark.environment(task).world.task.calls  # type: ignore[misc, union-attr, no-any-return]


def without(benchmark: Benchmark, task: Task, dropped: int) -> list[list[str]]:
    """The task's own calls in turns, without the one of that number."""
    number, made = -1, []
    for turn in own_calls(benchmark, task):
        kept = []
        for call in turn:
            number += 1
            kept += [] if number == dropped else [call]
        made.append(kept)
    return made


def writes(turns: list[list[str]]):  # type: ignore[no-untyped-def]
    """A player that makes these calls, and ends each turn."""
    left = [call for turn in turns for call in (*turn, "It is done.")]

    def next_action(world: World, messages: object) -> str:
        action = left.pop(0)
        if "(" not in action:
            return action
        assert isinstance(world, FunctionTurnsWorld)
        name, given, named = parsed(action)
        bound = inspect.signature(world.services.method(name)).bind(*given, **named).arguments
        return json.dumps({"name": name, "arguments": bound})

    return next_action


def test_services_are_called_by_name_with_floats_and_errors_as_texts(folder: Path):
    task = TurnTask(
        "t", ("one", "two"), ("MessageAPI",), {"MessageAPI": {"sent": ["first"]}}, (), (("send('A')",), ()), long=True
    )
    services, other = Services(task), Services(task)
    own = services.instances["MessageAPI"]
    assert own.sent == ["first", "long"] and task.first_state == {"MessageAPI": {"sent": ["first"]}}
    assert services.equal(other) and services.run("send('Ann', text='hi')") == '{"sent": 3}'
    assert own.sent[-1] == ("Ann", "hi") and not services.equal(other) and not other.equal(services)
    assert other.call("send", ["Ann"], {"text": "hi"}) == '{"sent": 3}' and services.equal(other)
    assert services.run("half(3)") == "1.5" and services.equal(other)  # what begins with _ is not compared
    assert services.run("half(of=-3)") == "-1.5" and services.run("half('x')").startswith(
        "Error during execution: unsupp"
    )
    assert services.run("fail()") == "Error during execution: no such user"
    assert services.run("send()") == "Error during execution: missing a required argument: 'name'"
    assert parsed("f(1, 'a', [2], key={'b': None})") == ("f", [1, "a", [2]], {"key": {"b": None}})
    functions = described_functions(task._replace(excluded=("half",)), folder / "multi_turn_func_doc")
    assert list(functions) == ["send", "fail"]
    assert listed([{**functions["fail"], "response": 5}]) == (
        '{"name": "fail", "description": "Fail.", "parameters": {"type": "dict", "properties": {}}}'
    )
    later = task._replace(later={1: ("half",)})
    assert later.is_later("half") and not later.is_later("send") and not task.is_later("half")


def test_a_world_of_turns_tells_the_first_that_was_wrong_and_counts_those_before_it(folder: Path):
    calls = (("send('Ann')", "half(of=3)"), (), ("send(name='Bo')",))
    task = TurnTask(
        "t", ("Write.", "Thanks.", "Again."), ("MessageAPI",), {"MessageAPI": {"sent": []}}, ("fail",), calls
    )
    functions = described_functions(task, folder / "multi_turn_func_doc")

    def played(*actions: str) -> tuple[list[str], Any, FunctionTurnsWorld]:
        world = FunctionTurnsWorld(task, functions)

        async def play_all() -> tuple[list[str], Any]:
            await world.open()
            told = []
            for action in actions:
                call = world.read(action)
                move = next(each for each in world.moves if each.__name__ == call.name)
                told.append(await move(**call.arguments))
            return told, await world.result()

        told, result = asyncio.run(play_all())
        return told, result, world

    send, half = SEND, HALF
    again = '{"name": "send", "arguments": {"name": "Bo"}}'
    told, result, world = played(send, half, "Done.", "You are welcome.", again, "Done.")
    assert told == ['{"sent": 1}', "1.5", "Thanks.", "Again.", '{"sent": 2}', "The user has no further request."]
    assert result == {"won": True, "passed": 3, "turns": 3, "why": ""} and world.ending == "done"
    assert world.render() == 'turn 3 of 3: Again.\n{"sent": 2}' and world.admissible() is None
    for actions, passed, why in (
        ((send, "Done."), 0, "turn 1: a result is missing"), (("Done.",), 0, "turn 1: no call was made"),
        ((half, "Done.", "x"), 0, "turn 1: the services are in another state"),
        ((send, half, "Done.", send, "x", again, "x"), 1, ""),
        ((send, half, "Done.", "x", "x"), 2, "turn 3: no call was made"),
    ):  # fmt: skip
        _, result, _ = played(*actions)
        assert result["won"] is False
        if why:
            assert (result["passed"], result["why"]) == (passed, why)
    told, _, world = played(*[half] * 20, half)
    assert told[19] == "1.5" and told[20] == "The turn is over: 20 calls are made in one at most."
    assert world.ending == "too many calls in a turn"
    _, _, fresh = played()
    assert [json.loads(fresh.optimal()) for _ in range(2)] == [json.loads(send), json.loads(half)]
    assert fresh.optimal() == "It is done." and fresh.read(" hello ") == WorldCall("end_turn", {"message": "hello"})
    with pytest.raises(InvalidAction, match="nothing was written"):
        fresh.read("``````")
    drawn = {fresh.random(Random(seed)) for seed in range(30)}
    assert "It is done." in drawn and '{"name": "half", "arguments": {"of": "Write"}}' in drawn
