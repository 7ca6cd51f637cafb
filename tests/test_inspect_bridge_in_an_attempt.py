"""Generations of Inspect as effects of our attempt, messages and models between the two, and our sandbox as Inspect's."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.bridges.inspect.sandbox_requirements import RequiredSandbox
from firsthand.errors import ConfigError, ModelError, SandboxError
from firsthand.message import Message, Reasoning, Text, ToolCall, ToolResult, assistant, system, user
from firsthand.model import Completion, ToolSpec, Usage
from firsthand.rollout import rollout
from firsthand.sandbox.dockerfile import BuildStep
from firsthand.task import Task
from namespaces import WHY_NOT

if importlib.util.find_spec("inspect_ai") is None:
    pytest.skip("needs pip install 'firsthand[inspect]'", allow_module_level=True)

from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageTool,
    ChatMessageUser,
    ContentImage,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    get_model,
)
from inspect_ai.tool import ToolCall as InspectCall
from inspect_ai.tool import ToolFunction, ToolInfo, ToolParams
from inspect_ai.util import JSONSchema, store
from inspect_ai.util._sandbox.compose import COMPOSE_FILES
from inspect_ai.util._sandbox.environment import SandboxUnavailableError

from firsthand.bridges.inspect.messages import (
    _call_to,
    _logprobs,
    _text,
    message_from,
    message_to,
    sampling_from,
    specs_from,
    too_long,
)
from firsthand.bridges.inspect.model_provider import model_api
from firsthand.bridges.inspect.sample_scores import restored
from firsthand.bridges.inspect.sandbox_provider import _seconds, open_box, sandbox_environment
from firsthand.bridges.inspect.solver_chain import _bridge, _declared, _enter, _key, _root

needs_bwrap = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


def info(name: str, **properties: str) -> Any:
    params = ToolParams(properties={each: JSONSchema(type=kind) for each, kind in properties.items()})  # type: ignore[arg-type]
    return ToolInfo(name=name, description=f"Do {name}.", parameters=params)


def test_messages_are_whole_in_both_directions() -> None:
    call = ToolCall("c1", "add", {"x": 1})
    both: list[tuple[Message, dict[str, Any]]] = [
        (system("é"), {"role": "system", "content": "é"}), (user(""), {"role": "user", "content": ""}),
        (Message("tool", (ToolResult("c1", "add", "3"),)),
         {"role": "tool", "content": "3", "tool_call_id": "c1", "function": "add"}),
        (Message("tool", (Text("3"),)), {"role": "tool", "content": "3", "tool_call_id": "", "function": ""}),
        (Message("tool", (Text("x"), ToolResult("c2", "sub", "Error: late", True))),
         {"role": "tool", "content": "", "tool_call_id": "c2", "function": "sub",
          "error": {"type": "unknown", "message": "late"}}),
        (assistant("I add", call), {"role": "assistant", "content": "I add", "model": "m", "source": "generate",
          "tool_calls": [{"id": "c1", "function": "add", "arguments": {"x": 1}, "type": "function"}]}),
        (assistant("no"), {"role": "assistant", "content": "no", "model": "m", "source": "generate"}),
    ]  # fmt: skip
    for ours, theirs in both:
        made = message_to(ours, "m").model_dump(exclude_none=True)
        assert {key: value for key, value in made.items() if key != "id"} == theirs
    plain = _call_to(call)
    assert (plain.id, plain.function, plain.arguments, plain.parse_error) == ("c1", "add", {"x": 1}, None)
    assert plain.arguments is not call.arguments
    assert _call_to(ToolCall("c", "f", {}, "{" * 201)).parse_error == f"the arguments are not valid JSON: {'{' * 200}"
    broken = InspectCall(id="c", function="f", arguments={"a": 1}, parse_error="bad")
    given = ChatMessageAssistant(
        content=[ContentReasoning(reasoning="hm"), ContentText(text="so")], tool_calls=[broken]
    )
    assert message_from(given) == Message("assistant", (Text("so"), ToolCall("c", "f", {"a": 1}, "")))
    empty = ChatMessageAssistant(content="", tool_calls=[broken])
    assert message_from(empty).parts == (ToolCall("c", "f", {"a": 1}, ""),)
    assert message_from(ChatMessageTool(content=[ContentText(text="3")], function="f")) == (
        Message("tool", (ToolResult("", "f", "3"),))
    )
    with pytest.raises(ModelError, match=r"^a message holds image: models here are given text only$"):
        _text([ContentText(text="a"), ContentImage(image="x")])


def test_tools_settings_and_outputs_of_a_request_are_read_one_by_one() -> None:
    tools = [info("a", x="string"), info("b", y="integer")]

    def spec(name: str, **properties: Any) -> ToolSpec:
        body = {"type": "object", "properties": properties, "required": [], "additionalProperties": False}
        return ToolSpec(name, f"Do {name}.", body)

    one, two = spec("a", x={"type": "string"}), spec("b", y={"type": "integer"})
    assert specs_from(tools, "auto") == specs_from(tools, "any") == (one, two)
    assert specs_from(tools, ToolFunction("b")) == (two,) and specs_from(tools, "none") == specs_from([], "auto") == ()
    every = {"max_tokens": 9, "temperature": 0.5, "top_p": 0.25, "top_k": 3, "frequency_penalty": 0.125,
             "presence_penalty": 0.75, "seed": 7}  # fmt: skip
    assert sampling_from(GenerateConfig(**every, stop_seqs=["a", "é"])) == {**every, "stop": ("a", "é")}
    assert sampling_from(GenerateConfig(logprobs=True)) == {"max_tokens": 2048, "top_logprobs": 1}
    assert sampling_from(GenerateConfig(top_logprobs=4, stop_seqs=[])) == {"max_tokens": 2048, "top_logprobs": 4}
    long = too_long("m", "70 of 64 tokens")
    assert (long.model, long.completion, long.stop_reason) == ("m", "70 of 64 tokens", "model_length")
    tops = ((("a", -0.5), ("b", -1.0)), (("c", -0.25),))
    found = _logprobs(Completion(assistant("x"), "stop", Usage(), tops)).content
    assert [(each.token, each.logprob, len(each.top_logprobs)) for each in found] == [("a", -0.5, 2), ("c", -0.25, 1)]
    assert _logprobs(Completion(assistant("x"), "stop", Usage())) is None


TASK = Task("t", "Q?", conversation=(system("S"), assistant("before")))
TALK = [ChatMessageUser(content="Q?")]


def attempt(model: Any, pattern: Any, task: Task = TASK) -> Any:
    return asyncio.run(rollout(Agent("agent", model, pattern), task))


class Several:
    """A model whose answers are numbered by request and place."""

    name, fingerprint = "several", "several"

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def complete(self, prompt: Any, sampling: Any, *, tools: Any = (), n: int = 1) -> list[Completion]:
        if prompt[-1].text == "down":
            raise ModelError("the model is down")
        told = (sampling.max_tokens, sampling.temperature, [tool.name for tool in tools], n)
        self.asked.append(([message.text for message in prompt], *told))
        reasons: Any = ("stop", "length")
        return [Completion(assistant(f"{len(self.asked)}.{at}"), reasons[at], Usage(10, 2, 4)) for at in range(n)]


def test_a_generation_of_inspect_is_an_effect_after_the_same_messages_of_our_attempt() -> None:
    model, seen = Several(), dict[str, Any]()

    async def pattern(task: Task, ctx: Any) -> str:
        theirs, api = _bridge(ctx, task)
        seen["root"], seen["limit"] = (api.root.node, ctx.node), api.max_connections()
        config = GenerateConfig(num_choices=2, max_tokens=7, temperature=0.5)
        output = await api.generate(TALK, [info("look")], "auto", config)
        seen["output"] = [(choice.message.text, choice.stop_reason) for choice in output.choices]
        seen["usage"] = (output.model, output.usage.input_tokens, output.usage.output_tokens)
        more = [*TALK, output.choices[1].message, ChatMessageUser(content="go on")]
        again = await api.generate(more, [], "none", GenerateConfig())
        seen["again"] = (again.completion, again.usage.total_tokens)
        with pytest.raises(ModelError):
            await api.generate([ChatMessageUser(content="down")], [], "none", GenerateConfig())
        seen["error"] = str(api.error)
        assert theirs.api is api and _root(ctx, task).node == api.root.node
        return str(again.completion)

    trace = attempt(model, pattern)
    assert trace.error is None, trace.error
    assert model.asked == [(["Q?"], 7, 0.5, ["look"], 2), (["Q?", "1.1", "go on"], 512, 0.0, [], 1)]
    assert seen["usage"] == ("several", 16, 8)  # of 20 tokens of prompts 4 were cached
    assert seen["root"] == (None, 1) and seen["limit"] == 64 and seen["error"] == "the model is down"
    assert seen["output"] == [("1.0", "stop"), ("1.1", "max_tokens")] and seen["again"] == ("2.0", 14)
    texts = [(node.parent, node.message.text) for node in trace.nodes]
    assert texts == [(None, "S"), (0, "before"), (None, "Q?"), (2, "1.0"), (2, "1.1"), (4, "go on"), (5, "2.0"),
                     (None, "down")]  # fmt: skip
    calls = [call for call in trace.calls if call.kind == "generate" and call.nodes]
    assert [(call.at, call.nodes) for call in calls] == [(2, (3, 4)), (5, (6,))]


def test_a_provider_offers_the_tools_that_the_choice_allows_with_the_settings_of_the_request() -> None:
    api = model_api()("scripted:echo")
    api.model = model = Several()
    assert api.model_name == "scripted:echo"

    def ask(choice: Any, **config: Any) -> Any:
        return asyncio.run(api.generate(TALK, [info("look"), info("go")], choice, GenerateConfig(**config)))

    output = ask("auto", num_choices=2, max_tokens=7, temperature=0.5)
    assert [each.message.text for each in output.choices] == ["1.0", "1.1"] and output.model == "scripted:echo"
    ask(ToolFunction("go"))
    ask("none")
    assert model.asked == [
        (["Q?"], 7, 0.5, ["look", "go"], 2), (["Q?"], 2048, 0.0, ["go"], 1), (["Q?"], 2048, 0.0, [], 1),
    ]  # fmt: skip
    api.close()  # a model without a `close` is left alone


def test_a_tool_for_the_prompt_is_not_run_here_and_keys_of_messages_are_their_content() -> None:
    spec = ToolSpec("ls", "List.", {"type": "object"})
    tool = _declared(spec)
    assert (tool.spec, tool.effect, tool.validate({"a": 1})) == (spec, "external", {"a": 1})
    with pytest.raises(ConfigError, match=r"^ls is run by Inspect, not by firsthand$"):
        tool.function(a=1)
    assert _key(user("a")) == _key(Message("user", (Text("a"),))) != _key(user("b"))
    assert _key(assistant("a")) != _key(user("a"))
    assert _key(Message("assistant", (Reasoning("r", {}), Text("a")))) != _key(assistant("a"))


def test_what_inspects_functions_read_is_entered_for_one_task_alone() -> None:
    async def within(name: str) -> Any:
        api = SimpleNamespace(name=name)
        sample = SimpleNamespace(id=name, input="Q", target="t", choices=None, metadata={"a": 1})
        state = restored(None, sample, "m")
        state.store.set("who", name)
        _enter(api, state, GenerateConfig(temperature=0.5))
        await asyncio.sleep(0)
        return store().get("who"), get_model().name

    async def both() -> Any:
        return await asyncio.gather(within("one"), within("two"))

    assert asyncio.run(both()) == [("one", "one"), ("two", "two")]


def test_our_sandbox_reads_compose_files_and_opens_one_box_for_each_service() -> None:
    ours = sandbox_environment()
    assert ours is sandbox_environment() and ours.config_files() == [*COMPOSE_FILES, "Dockerfile"]
    assert ours.is_docker_compatible() is True and ours(None).default_polling_interval() == 0.2
    for command, name in ((["serve", "x"], "serve"), ([], "it")):
        with pytest.raises(NotImplementedError, match=rf"^{name} would keep running in the sandbox, where no process"):
            asyncio.run(ours(None).exec_remote(command))
    late = SimpleNamespace(wall_s=2.5)
    assert [_seconds(late, each) for each in (None, 7, 0)] == ["2.5", "7", "0"]  # type: ignore[arg-type]
    closed: list[str] = []

    class Closing:
        def __init__(self, name: str):
            self.name = name

        async def close(self) -> None:
            closed.append(self.name)

        async def write(self, path: str, raw: bytes = b"", **_: Any) -> Any:
            raise SandboxError("it is gone")

        exec = read = write

    environments = {name: ours(Closing(name)) for name in ("default", "db")}
    asyncio.run(ours.sample_cleanup("task", None, environments, False))
    assert closed == ["default", "db"]
    gone = environments["db"]
    for work in (gone.write_file("f", "x"), gone.read_file("f"), gone.exec(["ls"], input="")):
        with pytest.raises(SandboxUnavailableError, match=r"^it is gone$"):
            asyncio.run(work)


def workers() -> set[str]:
    """The bubblewrap processes that this process has started."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            words = stat.read_text().split()
            found |= {stat.parent.name} if words[1] == "(bwrap)" and int(words[3]) == os.getpid() else set()
    return found


@needs_bwrap
def test_a_box_is_opened_with_its_files_folder_variables_and_commands_in_order() -> None:
    steps = (
        BuildStep(files=(("/data/run.sh", b"#!/bin/sh\necho $A-$B\n", True), ("/data/plain", b"\xff", False))),
        BuildStep(command="pwd > made; echo $A >> made", folder="/data", environment={"A": "build"}),
        BuildStep(command="cat /data/made > /work/copy"),
    )
    service = RequiredSandbox("s", "/work", ("/extra",), {"A": "run", "B": "2"}, 2**28, steps, "Dockerfile")

    async def whole() -> Any:
        box = await open_box(service)
        try:
            ran = await box.exec(["sh", "-c", "pwd; /data/run.sh; test -x /data/plain || echo plain; ls -d /extra"])
            return (
                box.limits.memory_bytes,
                ran.stdout.split(),
                (await box.read("copy")).split(),
                await box.read("/data/plain"),
            )
        finally:
            await box.close()

    memory, said, copied, plain = asyncio.run(whole())
    assert said == ["/work", "run-2", "plain", "/extra"] and (memory, plain) == (2**28, b"\xff")
    assert copied == [b"/data", b"build"]


@pytest.mark.slow
@needs_bwrap
def test_a_step_that_fails_closes_the_boxes_and_tells_its_last_line(tmp_path: Path) -> None:
    before = workers()
    command = "echo 1 >&2; echo 2 >&2; echo " + "w" * 300 + " >&2; false # " + "c" * 100
    with pytest.raises(ConfigError) as failed:
        asyncio.run(open_box(RequiredSandbox(steps=(BuildStep(command=command),), source="D")))
    assert str(failed.value) == f"D: RUN {command[:100]} fails in the sandbox: {'w' * 200}"
    ours = sandbox_environment()
    (tmp_path / "compose.yaml").write_text(
        "services:\n  db: {image: python, working_dir: /db}\n  default: {image: bash, environment: {A: é}}\n"
    )

    async def opened() -> Any:
        environments = await ours.sample_init("task", str(tmp_path / "compose.yaml"), {})
        try:
            there = await environments["db"].exec(["pwd"])
            here = await environments["default"].exec(["sh", "-c", "echo $A; cat"], input="é")
            return list(environments), there.stdout, here.stdout
        finally:
            await ours.sample_cleanup("task", None, environments, False)

    assert asyncio.run(opened()) == (["default", "db"], "/db\n", "é\né")
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN exit 4\n")
    (tmp_path / "compose.yaml").write_text("services:\n  default: {image: bash}\n  db: {build: .}\n")
    with pytest.raises(ConfigError, match=r"Dockerfile: RUN exit 4 fails in the sandbox: error$"):
        asyncio.run(ours.sample_init("task", str(tmp_path / "compose.yaml"), {}))
    assert workers() <= before
