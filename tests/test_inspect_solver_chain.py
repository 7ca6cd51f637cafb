"""The solvers of an Inspect task in our attempt: their store, settings, limits, samples and errors."""

from __future__ import annotations

import asyncio
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.errors import ConfigError, DataError, ModelError
from firsthand.message import Message, assistant, user
from firsthand.model import Completion, Usage
from firsthand.patterns.inspect_solver import inspect_solver
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place, rollout, rollouts

if importlib.util.find_spec("inspect_ai") is None:
    pytest.skip("needs pip install 'firsthand[inspect]'", allow_module_level=True)

from firsthand.bridges.inspect.sample_sandboxes import sandbox_specs
from firsthand.bridges.inspect.sample_scores import STATE
from firsthand.bridges.inspect.solver_chain import _declared
from firsthand.bridges.inspect.task_samples import load
from firsthand.model import ToolSpec

TASKS = """
import asyncio
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, GenerateConfig, get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, solver
from inspect_ai.log import transcript
from inspect_ai.model._model import model_usage
from inspect_ai.solver._task_state import sample_state
from inspect_ai.util import store

@solver
def prepared():
    async def solve(state, generate):
        store().set("prepared", len(state.messages))
        state.messages.append(ChatMessageUser(content="set up"))
        return state
    return solve

@solver
def stored(times=1):
    async def solve(state, generate):
        store().set("seen", store().get("prepared"))
        for number in range(times):
            state = await generate(state, temperature=0.25 * (number + 1))
            state.metadata["said"] = state.output.completion
        return state
    return solve

@solver
def several():
    async def solve(state, generate):
        output = await get_model().generate(state.messages, config=GenerateConfig(num_choices=3))
        state.messages.append(output.choices[2].message)
        state.messages.append(ChatMessageUser(content="go on"))
        state.output = output
        return await generate(state)
    return solve

@solver
def raising():
    async def solve(state, generate):
        raise KeyError("lost")
    return solve

ROW = Sample(input="Q?", target="a", id=1)

@task
def kept():
    return Task(dataset=[Sample(input="other", id=2), ROW], setup=prepared(), solver=[stored(2)], scorer=includes(),
                config=GenerateConfig(max_tokens=9, temperature=0.75, top_p=0.5))

@task
def talk():
    row = Sample(input=[ChatMessageSystem(content="S"), ChatMessageUser(content="first"),
                        ChatMessageAssistant(content="yes"), ChatMessageUser(content="Q?")], target="a", id=1)
    return Task(dataset=[row], solver=[several()], scorer=includes())

@task
def short():
    return Task(dataset=[ROW], solver=[stored(5)], scorer=includes(), message_limit=3)

@task
def broken():
    return Task(dataset=[ROW], solver=[raising()], scorer=includes())

@task
def plain():
    return Task(dataset=[ROW], solver=generate(), scorer=includes())

@solver
def waiting():
    async def solve(state, generate):
        await asyncio.sleep(30)
        return state
    return solve

@task
def timed():
    return Task(dataset=[ROW], setup=[prepared(), prepared()], solver=[waiting()], scorer=includes(), time_limit=0.05)

@solver
def cached():
    async def solve(state, generate):
        for cache in (None, False):
            state = await generate(state, tool_calls="none", cache=cache, max_tokens=5)
        return state
    return solve

@task
def calling():
    return Task(dataset=[ROW], setup=[prepared()], solver=cached(), scorer=includes(), config=GenerateConfig(max_tokens=9))

@solver
def looking():
    async def solve(state, generate):
        transcript().info(state.input_text)
        await asyncio.sleep(0)
        state.metadata["is_state"] = sample_state() is state
        await get_model().generate("other")
        state = await generate(state)
        state.metadata["events"] = [each.data for each in transcript().events if each.event == "info"]
        state.metadata["tokens"] = {name: each.total_tokens for name, each in model_usage().items()}
        return state
    return solve

@task
def looked():
    return Task(dataset=[ROW, Sample(input="R?", id=2)], solver=looking(), scorer=includes(),
                config=GenerateConfig(max_tokens=9))

@task
def numbered():
    return Task(dataset=[Sample(input="a"), Sample(input="b", id="x"), Sample(input="c")], scorer=includes())

@task
def twice():
    return Task(dataset=[Sample(input="a", id=1), Sample(input="b", id="1")], scorer=includes())

@task
def boxed(config="", kind="k8s"):
    rows = [Sample(input="a", id=1), Sample(input="b", id=2, sandbox=(kind, config) if config else kind)]
    return Task(dataset=rows, scorer=includes())
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inspect") / "solver_tasks.py"
    path.write_text(TASKS)
    return path


def attempt(file: Path, name: str, model: Any, id: str = "1") -> Any:
    benchmark = catalog.benchmark(f"inspect:task={file}@{name}")
    task = next(each for each in benchmark.tasks(0) if each.id == id)
    return asyncio.run(rollout(Agent("agent", model, inspect_solver), task, benchmark=benchmark))


def state_of(trace: Any) -> Any:
    return next(event.data for event in trace.events if event.kind == STATE)


def test_solvers_share_one_store_and_a_generation_has_the_tasks_settings_and_its_own(file: Path) -> None:
    model = Scripted(["first a", "second a"])
    trace = attempt(file, "kept", model)
    state = state_of(trace)
    assert state["store"] == {"prepared": 1, "seen": 1} and state["metadata"] == {"said": "second a"}
    assert trace.answer == "second a" and [score.value for score in trace.scores] == [1.0]
    asked = [(each.sampling.max_tokens, each.sampling.temperature, each.sampling.top_p) for each in model.asked]
    assert asked == [(9, 0.25, 0.5), (9, 0.5, 0.5)]
    assert model.asked[1].prompt == (user("Q?"), user("set up"), assistant("first a"))
    assert [node.message.text for node in trace.nodes] == ["Q?", "set up", "first a", "second a"]
    assert [node.parent for node in trace.nodes] == [None, 0, 1, 2]
    assert not [event for event in trace.events if event.kind == "limit"]
    other = Scripted(["x"] * 2)
    attempt(file, "kept", other, "2")
    assert other.asked[0].prompt[0] == user("other")


class Counted:
    """A model whose every request costs 10 tokens and whose answers are numbered."""

    name, fingerprint = "counted", "counted"

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[Message, ...], int, int]] = []

    async def complete(self, prompt: Any, sampling: Any, *, tools: Any = (), n: int = 1) -> list[Completion]:
        self.asked.append((tuple(prompt), n, sampling.max_tokens))
        reasons = ("stop", "length", "stop")
        return [Completion(assistant(f"{len(self.asked)}.{at}"), reasons[at], Usage(10, 0, 4)) for at in range(n)]  # type: ignore[arg-type]


def test_several_samples_are_one_call_and_a_conversation_goes_on_from_the_sampled_one(file: Path) -> None:
    model = Counted()
    trace = attempt(file, "talk", model)
    assert trace.error is None, trace.error
    assert [(len(prompt), n) for prompt, n, _ in model.asked] == [(4, 3), (6, 1)]
    assert [message.text for message in model.asked[1][0]] == ["S", "first", "yes", "Q?", "1.2", "go on"]
    given, texts = ["S", "first", "yes"], [node.message.text for node in trace.nodes]
    assert texts == [
        *given,
        *given,
        "Q?",
        "1.0",
        "1.1",
        "1.2",
        "go on",
        "2.0",
    ]  # the solvers begin before what was given
    assert [node.parent for node in trace.nodes] == [None, 0, 1, None, 3, 4, 5, 6, 6, 6, 9, 10]
    assert trace.answer == "2.0" and trace.usage == Usage(40, 0, 16)
    assert [call.detail["finish_reasons"] for call in trace.calls if call.kind == "generate"] == [
        ["stop", "length", "stop"], ["stop"],
    ]  # fmt: skip


def test_a_limit_of_the_task_ends_its_solvers_and_is_noted(file: Path) -> None:
    trace = attempt(file, "short", Counted())
    [limit] = [event for event in trace.events if event.kind == "limit"]
    assert trace.error is None and limit.data["limit"] == "message" and "3" in limit.data["message"]
    assert len(state_of(trace)["messages"]) <= 3 and state_of(trace)["store"] == {"seen": None}


def test_a_time_limit_ends_the_solvers_after_all_steps_of_the_setup_and_the_state_so_far_is_kept(file: Path) -> None:
    trace = attempt(file, "timed", Counted())
    [limit] = [event for event in trace.events if event.kind == "limit"]
    assert trace.error is None and limit.data["limit"] == "time" and "0.05" in limit.data["message"]
    state = state_of(trace)
    assert [message["content"] for message in state["messages"]] == ["Q?", "set up", "set up"]
    assert state["store"] == {"prepared": 2} and (trace.answer, [score.value for score in trace.scores]) == ("", [0.0])


def test_a_solvers_own_settings_go_before_those_of_its_task(file: Path) -> None:
    model = Counted()
    trace = attempt(file, "calling", model)
    assert trace.error is None and trace.answer == "2.0"
    assert [most for _, _, most in model.asked] == [5, 5]
    assert [message.text for message in model.asked[1][0]] == ["Q?", "set up", "1.0"]
    assert [each["content"] for each in state_of(trace)["messages"]] == ["Q?", "set up", "1.0", "2.0"]


def test_errors_of_a_solver_a_model_and_a_sample_keep_their_kind(file: Path) -> None:
    assert attempt(file, "broken", Scripted(["a"])).error.kind == "KeyError"

    class Down(Counted):
        async def complete(self, prompt: Any, sampling: Any, *, tools: Any = (), n: int = 1) -> Any:
            raise ModelError("the model is down")

    error = attempt(file, "plain", Down()).error
    assert (error.kind, error.message) == ("ModelError", "the model is down")
    benchmark = catalog.benchmark(f"inspect:task={file}@plain")
    lost = replace(benchmark.tasks(0)[0], id="9")
    trace = asyncio.run(rollout(Agent("agent", Scripted(["a"]), inspect_solver), lost))
    assert trace.error is not None and trace.error.message.startswith("'9' is not a sample of")
    tool = _declared(ToolSpec("ls", "lists", {"type": "object"}))
    assert (tool.name, tool.spec.description, tool.effect) == ("ls", "lists", "external")
    assert tool.validate({"a": 1}) == {"a": 1}
    with pytest.raises(ConfigError, match=r"^ls is run by Inspect, not by firsthand$"):
        tool.function(a=1)


def test_attempts_side_by_side_have_stores_of_their_own(file: Path) -> None:
    benchmark = catalog.benchmark(f"inspect:task={file}@kept")
    agent = Agent("agent", Scripted(lambda messages, sampling, index: f"to {messages[0].text}"), inspect_solver)

    async def attempts() -> dict[str, Any]:
        places = [Place(agent, benchmark, task) for task in benchmark.tasks(0)]
        return {trace.task_id: trace async for trace in rollouts(places)}

    found = asyncio.run(attempts())
    assert {id: state_of(trace)["metadata"]["said"] for id, trace in found.items()} == {"1": "to Q?", "2": "to other"}
    assert all(state_of(trace)["store"] == {"prepared": 1, "seen": 1} for trace in found.values())


def test_attempts_see_their_own_events_state_and_usage_whatever_was_before_and_is_beside_them(file: Path) -> None:
    from inspect_ai.log import transcript

    benchmark, model = catalog.benchmark(f"inspect:task={file}@looked"), Counted()
    places = [Place(Agent("agent", model, inspect_solver), benchmark, task) for task in benchmark.tasks(0)]

    async def attempts() -> list[Any]:
        transcript().info("before")
        found = [trace async for trace in rollouts(places)]
        return [*found, *[trace async for trace in rollouts(places[:1])]]

    found = asyncio.run(attempts())
    assert sorted((each.task_id, str(state_of(each)["metadata"])) for each in found) == [
        (id, str({"is_state": True, "events": [text], "tokens": {"firsthand/counted": 28}}))
        for id, text in (("1", "Q?"), ("1", "Q?"), ("2", "R?"))
    ]
    assert [most for _, _, most in model.asked] == [9] * 6


def test_samples_without_ids_are_numbered_and_equal_ids_are_refused(file: Path, tmp_path: Path) -> None:
    theirs, samples = load(f"{file}@numbered", "", "")
    assert [sample.id for sample in samples] == [1, "x", 3] and theirs.name == "numbered"
    with pytest.raises(DataError, match="has two samples with the id '1': ids must differ"):
        load(f"{file}@twice", "", "")
    with pytest.raises(ConfigError, match=r"no file '.*none\.py': give the path of the Python file"):
        load(f"{tmp_path / 'none.py'}@kept", "", "")
    several = tmp_path / "several_tasks.py"
    several.write_text(TASKS.partition("@task\ndef short")[0])
    with pytest.raises(ConfigError, match=r"gives 2 tasks \(kept, talk\): name one, as in inspect:task=FILE"):
        load(str(several), "", "")
    bad = tmp_path / "bad_tasks.py"
    bad.write_text(
        TASKS.partition("@task")[0] + "@task\ndef empty():\n    raise ValueError('no\\n  data' + 'x' * 400)\n"
    )
    with pytest.raises(DataError) as told:
        load(f"{bad}@empty", "", "")
    assert f"task '{bad}@empty' (ValueError: no data" + "x" * 293 + ")" in str(told.value)
    with pytest.raises(ConfigError, match="args has 'x'"):
        load(f"{file}@kept", "x", "")


def test_only_samples_that_ask_for_a_sandbox_get_one_and_an_unknown_kind_is_refused(file: Path) -> None:
    def specs(name: str, args: str = "", wanted: str = "") -> Any:
        theirs, samples = load(f"{file}@{name}", args, "")
        found = sandbox_specs(theirs, samples, "the task", wanted)
        return {id: (spec.type, spec.config) for id, spec in found.items()}

    assert specs("plain") == {} == specs("plain", wanted="firsthand")
    with pytest.raises(
        ConfigError, match="the sample 2 of 'the task' needs the sandbox 'mainframe', but Inspect knows"
    ):
        specs("boxed", "kind=local", "mainframe")
    assert specs("boxed", "kind=local") == {"2": ("firsthand", None)} == specs("boxed", "kind=local", "firsthand")
    assert specs("boxed", "kind=docker", "local") == {"2": ("local", None)}
    compose = file.parent / "compose.yaml"
    compose.write_text("services:\n  default:\n    image: postgres:16\n")
    with pytest.raises(ConfigError, match=r"the sample 2 of 'the task' cannot run here: .*postgres:16"):
        specs("boxed", "kind=local,config=compose.yaml")
    [(kind, config)] = specs("boxed", "kind=docker,config=compose.yaml", "firsthand").values()
    assert kind == "firsthand" and type(config).__name__ == "LenientConfig" and str(compose) in repr(config)
    compose.write_text("services:\n  default:\n    image: python:3.12\n")
    assert specs("boxed", "kind=local,config=compose.yaml") == {"2": ("firsthand", str(compose))}
    assert specs("boxed", "kind=docker,config=compose.yaml", "local") == {"2": ("local", str(compose))}
