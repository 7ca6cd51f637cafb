"""Parts of the bridge to Inspect one by one: messages, settings, outputs, requirements, sandboxes, logs, tasks, scores."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.bridges.inspect import sample_sandboxes, sandbox_requirements
from firsthand.errors import ConfigError, DataError, ModelError, PromptTooLong, ToolError, TransientError
from firsthand.message import Message, Sampled, ToolCall, ToolResult, assistant, system, user
from firsthand.model import Completion, Usage
from firsthand.sandbox.box import FOLDER, Box
from firsthand.sandbox.dockerfile import BuildStep
from firsthand.sandbox.sandbox import Outcome
from firsthand.task import Task

if importlib.util.find_spec("inspect_ai") is None:
    pytest.skip("needs pip install 'firsthand[inspect]'", allow_module_level=True)

from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    ContentText,
    GenerateConfig,
)  # fmt: skip
from inspect_ai.tool import ToolCallError
from inspect_ai.util import OutputLimitExceededError, SandboxEnvironmentSpec, SandboxUserUnsupportedError
from inspect_ai.util._sandbox.compose import parse_compose_yaml
from inspect_ai.util._sandbox.environment import SandboxUnavailableError

from firsthand import errors
from firsthand.bridges.inspect.messages import message_from, message_to, model_of, output_to, sampling_from
from firsthand.bridges.inspect.model_provider import model_api
from firsthand.bridges.inspect.sandbox_provider import boxes, sandbox_environment
from firsthand.bridges.inspect.sandbox_requirements import LenientConfig, RequiredSandbox, required_sandboxes
from firsthand.bridges.inspect.task_samples import _arguments, cluster_key, fixed_sampling, protocol_text, task_of

# -- messages and models --


def test_each_message_keeps_its_role_text_and_calls() -> None:
    assert message_from(ChatMessageSystem(content="S")) == system("S") and message_from(
        ChatMessageUser(content="")
    ) == user("")
    assert message_to(system("S")).role == "system"
    parts = [ContentText(text="a"), ContentText(text="b")]
    assert message_from(ChatMessageUser(content=parts)) == user("ab")
    told = message_to(
        assistant("I add", ToolCall("c1", "add", {"x": 1}), ToolCall("c2", "sub", {}, "{" + "y" * 300)), "m"
    )
    assert (told.model, told.source, told.text) == ("m", "generate", "I add")
    assert [(each.id, each.function, each.arguments) for each in told.tool_calls] == [
        ("c1", "add", {"x": 1}),
        ("c2", "sub", {}),
    ]
    assert told.tool_calls[0].parse_error is None
    assert told.tool_calls[1].parse_error == "the arguments are not valid JSON: {" + "y" * 199
    back = message_from(told)
    assert [part.invalid for part in back.tool_calls] == [None, ""] and back.text == "I add"
    only = message_from(ChatMessageAssistant(content="", tool_calls=told.tool_calls[:1]))
    assert only.parts == (ToolCall("c1", "add", {"x": 1}),)
    assert message_to(assistant("x")).tool_calls is None
    failed = message_to(Message("tool", (ToolResult("c1", "add", "Error: too slow", True),)))
    assert (failed.text, failed.tool_call_id, failed.function) == ("", "c1", "add")
    assert (failed.error.type, failed.error.message) == ("unknown", "too slow")
    fine = message_to(Message("tool", (ToolResult("c1", "add", "3"),)))
    assert (fine.text, fine.error) == ("3", None)
    anonymous = ChatMessageTool(content="3", error=ToolCallError("timeout", "late"))
    assert message_from(anonymous).parts == (ToolResult("", "", "Error: late", True),)


def test_each_setting_has_its_own_value() -> None:
    config = GenerateConfig(temperature=0.0, top_p=0.1, top_k=2, frequency_penalty=0.3, presence_penalty=0.4, seed=0)
    assert sampling_from(config) == {
        "max_tokens": 2048, "temperature": 0.0, "top_p": 0.1, "top_k": 2, "frequency_penalty": 0.3, "presence_penalty": 0.4,
        "seed": 0,
    }  # fmt: skip


def test_an_output_has_usage_cost_reasons_and_log_probs_of_every_completion() -> None:
    sampled = replace(assistant("a"), sampled=Sampled((1,), (-0.5,)))
    usage = Usage(100, 30, 5, 0.25, 20)
    tops = ((("b", -0.2), ("a", -0.5)),)
    made = [Completion(sampled, "stop", usage, tops), Completion(assistant("x"), "content_filter", Usage(0, 0, 7))]
    output = output_to(made, "m")
    assert output.model == "m" and [each.stop_reason for each in output.choices] == ["stop", "content_filter"]
    assert [each.message.text for each in output.choices] == ["a", "x"] and output.choices[1].logprobs is None
    told = output.usage
    assert (told.input_tokens, told.input_tokens_cache_read, told.input_tokens_cache_write) == (50, 30, 20)
    assert (told.output_tokens, told.total_tokens, told.total_cost) == (12, 112, 0.25)
    [token] = output.choices[0].logprobs.content
    assert (token.token, token.logprob) == ("a", -0.5)
    assert [(each.token, each.logprob) for each in token.top_logprobs] == [("b", -0.2), ("a", -0.5)]
    near = (
        (("a", -0.65), ("b", -0.7)),
        (("c", -0.70005), ("d", -0.9)),
        (("e", -0.7002), ("f", -0.6999)),
        (("g", -3.0),),
    )
    several = replace(assistant("bc"), sampled=Sampled((1, 2, 3), (-0.7, -0.7, -0.70005)))
    found = output_to([Completion(several, "length", Usage(), near)], "m").choices[0].logprobs
    assert found is not None and [(each.token, each.logprob) for each in found.content] == [
        ("b", -0.7), ("c", -0.70005), ("", -0.70005), ("g", -3.0),
    ]  # fmt: skip  # within 0.0001; not among the alternatives; sampled without a log-prob
    unknown = output_to([Completion(assistant("a"), "length", Usage(), tops)], "m")
    assert unknown.choices[0].logprobs.content[0].token == "b" and unknown.usage.total_cost is None


class Told:
    """A model that keeps what it is asked and gives as many answers."""

    name = "told"

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.closed = False

    async def complete(self, prompt: Any, sampling: Any, *, tools: Any = (), n: int = 1) -> Sequence[Completion]:
        self.asked.append((prompt, sampling.max_tokens, [tool.name for tool in tools], n))
        if prompt[-1].text == "long":
            raise PromptTooLong("70 of 64 tokens")
        return [Completion(assistant(f"answer {number}"), "stop", Usage()) for number in range(n)]

    def close(self) -> None:
        self.closed = True


def test_what_an_answer_did_not_cost_and_did_not_write_to_a_cache_is_left_open() -> None:
    call = ToolCall("1", "look", {}, invalid="{" * 150 + "z" * 60)
    output = output_to([Completion(assistant("x", call), "stop", Usage(7, 2, 3))], "m")
    assert output.usage is not None and output.usage.model_dump(exclude_none=True) == {
        "input_tokens": 5, "input_tokens_cache_read": 2, "output_tokens": 3, "total_tokens": 10,
    }  # fmt: skip
    (made,) = output.choices[0].message.tool_calls or ()
    assert made.parse_error == f"the arguments are not valid JSON: {'{' * 150}{'z' * 50}" and made.arguments == {}


def test_a_provider_asks_for_as_many_answers_and_says_what_may_be_tried_again() -> None:
    api = model_api()("scripted:echo")
    api.model = told = Told()

    def ask(text: str, **config: Any) -> Any:
        return asyncio.run(api.generate([ChatMessageUser(content=text)], [], "auto", GenerateConfig(**config)))

    model = model_of(api)
    assert (str(model), model.name, model.api, model.config) == (
        "firsthand/scripted:echo", "scripted:echo", api, GenerateConfig(),
    )  # fmt: skip
    output = ask("hi", num_choices=3, max_tokens=9)
    assert [each.message.text for each in output.choices] == ["answer 0", "answer 1", "answer 2"]
    assert len(ask("hi").choices) == 1 and told.asked == [((user("hi"),), 9, [], 3), ((user("hi"),), 2048, [], 1)]
    long = ask("long")
    assert (long.stop_reason, long.completion, long.model) == ("model_length", "70 of 64 tokens", "scripted:echo")
    assert (
        api.should_retry(TransientError("x")) and not api.should_retry(ModelError("x")) and api.max_connections() == 64
    )
    kinds = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)}
    retried = {each for each in kinds if api.should_retry(Exception.__new__(each))}
    assert retried == {each for each in kinds if issubclass(each, TransientError)} and ConfigError in kinds - retried
    others = (TimeoutError("x"), ConnectionError("x"), ValueError("x"), KeyboardInterrupt(), Exception("x"))
    assert not any(map(api.should_retry, others))
    api.close()
    assert told.closed
    with pytest.raises(ConfigError, match="firsthand/scripted:echo takes no arguments: leave out a, b"):
        model_api()("scripted:echo", a=1, b=2)


# -- sandboxes --


class Recorded:
    """A Box that gives outcomes from a list and keeps what it was asked."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes, self.asked = list(outcomes), []  # type: ignore[var-annotated]

    async def exec(self, words: list[str], **about: Any) -> Outcome:
        self.asked.append((words, about))
        return self.outcomes.pop(0)

    async def write(self, path: str, raw: bytes) -> None:
        self.asked.append((path, raw))

    async def read(self, path: str, *, most: int) -> bytes:
        self.asked.append((path, most))
        if path == "large":
            raise ValueError("too large")
        return b"\xffELF\x00" if path == "binary" else b"a\r\n\xc3\xa9"


def outcome(ended: Any = "done", status: int | None = 0, stdout: str = "out", stderr: str = "err") -> Outcome:
    return Outcome(ended, status, stdout, stderr, 2.5, None, None, "none")  # type: ignore[arg-type]


def test_outcomes_of_commands_are_inspects_results_or_its_errors() -> None:
    def run(found: Outcome, **options: Any) -> Any:
        box = Recorded(found)
        result = asyncio.run(sandbox_environment()(box).exec(["ls", "-l"], **options))
        return result, box.asked

    result, asked = run(outcome(), input="é", cwd="/w", env={"A": "1"}, user="sandbox", timeout=7)
    assert (result.success, result.returncode, result.stdout, result.stderr) == (True, 0, "out", "err")
    most = 10 * 1024**2
    assert asked == [(["ls", "-l"], {"stdin": "é".encode(), "folder": "/w", "environment": {"A": "1"}, "wall_s": 7,
                                     "output_bytes": most})]  # fmt: skip
    plain = run(outcome("error", 3), input=b"\xff")
    assert (plain[0].success, plain[0].returncode) == (False, 3)
    assert plain[1][0][1] == {"stdin": b"\xff", "folder": "", "environment": None, "wall_s": None, "output_bytes": most}
    assert run(outcome(), input="é\udcff")[1][0][1]["stdin"] == b"\xc3\xa9\xff", "bytes that are no text come back"
    with pytest.raises(OutputLimitExceededError) as both:
        run(outcome("output", None, "out", "err"))
    assert (both.value.truncated_output, both.value.limit_str) == ("out", "10 MiB")
    memory = run(outcome("memory", None, "", "x"))[0]
    assert memory.stderr == "x\nthe command used too much memory, or made too many files" and not memory.success
    with pytest.raises(TimeoutError, match="did not end within 7 s") as late:
        run(outcome("timeout", None), timeout=7)
    assert late.value.truncated_output == "out\nerr"  # type: ignore[attr-defined]
    with pytest.raises(TimeoutError, match=r"did not end within 2\.5 s"):
        run(outcome("timeout", None))
    with pytest.raises(OutputLimitExceededError) as much:
        run(outcome("output", None, "", "err"))
    assert much.value.truncated_output == "err"
    with pytest.raises(PermissionError, match=r"^sh: 1: \./x: Permission denied$"):
        run(outcome("error", 126, "", "sh: 1: ./x: Permission denied\n"))
    with pytest.raises(PermissionError) as denied:
        run(outcome("error", 126, "", "a" * 200 + " permission denied " + "b" * 280 + "end\n"))
    assert str(denied.value) == " permission denied "[2:] + "b" * 280 + "end"
    assert run(outcome("error", 126, "", "not found"))[0].returncode == 126
    assert run(outcome("error", 127, "", "sh: 1: Permission denied: not found"))[0].returncode == 127
    assert run(outcome("error", 1, "", "Permission denied"))[0].returncode == 1
    with pytest.raises(SandboxUserUnsupportedError, match="not as 'root'"):
        run(outcome(), user="root")
    for name in (None, "", "1000"):
        assert run(outcome(), user=name)[0].success


def test_files_of_a_sandbox_keep_their_bytes() -> None:
    box = Recorded()
    made = sandbox_environment()(box)
    asyncio.run(made.write_file("f", "é\udcff")), asyncio.run(made.write_file("g", b"\x00"))
    assert box.asked == [("f", b"\xc3\xa9\xff"), ("g", b"\x00")]
    assert (
        asyncio.run(made.read_file("f")) == "a\r\né"
        and asyncio.run(made.read_file("f", text=False)) == b"a\r\n\xc3\xa9"
    )
    assert box.asked[-1] == ("f", 100 * 1024**2)
    assert asyncio.run(made.read_file("binary", text=False)) == b"\xffELF\x00"
    with pytest.raises(UnicodeDecodeError, match="can't decode byte 0xff in position 0"):
        asyncio.run(made.read_file("binary"))
    with pytest.raises(OutputLimitExceededError) as large:
        asyncio.run(made.read_file("large"))
    assert (large.value.limit_str, large.value.truncated_output) == ("100 MiB", None)
    with pytest.raises(NotImplementedError, match=r"^serve would keep running"):
        asyncio.run(made.exec_remote(["serve", "x"]))
    assert boxes({"a": made, "b": object()}) == {}
    box_of = object.__new__(Box)
    assert boxes({"a": SimpleNamespace(_sandbox=SimpleNamespace(box=box_of)), "b": SimpleNamespace(box=box_of)}) == {
        "a": box_of, "b": box_of,
    }  # fmt: skip


def test_a_compose_file_says_what_each_service_needs(tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"

    def read(text: str, lenient: bool = False) -> list[RequiredSandbox]:
        path.write_text(text)
        return required_sandboxes(LenientConfig(str(path)) if lenient else str(path))

    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "Dockerfile").write_text("FROM python:3.12\nENV A=1 B=2\nWORKDIR /made\nRUN touch x\n")
    web, first, built = read(
        "services:\n  a:\n    image: ubuntu:24.04\n    working_dir: /w\n    mem_limit: 1.5g\n    environment: [X=1=2, Y]\n"
        "  default:\n    image: python:3.12\n    command: sleep infinity\n    environment: {N: '', M: '3'}\n"
        "  c:\n    build: sub\n    environment: {B: '9'}\n"
    )
    assert (web.name, web.folder, web.environment, web.source) == ("default", FOLDER, {"N": "", "M": "3"}, str(path))
    assert (first.name, first.folder, first.memory_bytes, first.environment) == (
        "a",
        "/w",
        3 * 2**29,
        {"X": "1=2", "Y": ""},
    )
    assert (built.name, built.folder, built.environment) == ("c", "/made", {"A": "1", "B": "9"})
    assert built.source == str(tmp_path / "sub" / "Dockerfile") and [step.command for step in built.steps] == [
        "touch x"
    ]
    (tmp_path / "Other").write_text("FROM debian\nWORKDIR /other\n")
    named = read(
        "services:\n  a: {image: bash}\n  b: {build: {dockerfile: Other}, x-default: true}\n  c: {image: bash}\n"
        "  d: {build: {context: sub}}\n"
    )
    assert [(each.name, each.folder, Path(each.source).name) for each in named] == [
        ("b", "/other", "Other"), ("a", FOLDER, "compose.yaml"), ("c", FOLDER, "compose.yaml"), ("d", "/made", "Dockerfile"),
    ]  # fmt: skip
    with pytest.raises(ConfigError) as refused:
        read(
            "services:\n  a:\n    image: postgres:16@sha256:ab\n    ports: ['80:80']\n    user: root\n"
            "    command: [serve, now]\n"
            "    network_mode: host\n    volumes: ['/x:/y']\n    depends_on: [b]\n"
        )
    said = str(refused.value)
    for lack in ("listens on a port", "runs as another user", "keeps `serve now` running", "is on the network 'host'"):
        assert f"service 'a' {lack}" in said, said
    assert "; and 1 more. To run it, install Docker" in said
    [anyway] = read("services:\n  a:\n    image: postgres:16\n    ports: ['80:80']\n", lenient=True)
    assert anyway.name == "a" and required_sandboxes(str(path), lenient=True) == [anyway]
    made = parse_compose_yaml(str(path))  # as Python makes it, without a file
    lacks = "compose.yaml needs what the sandbox does not have: service 'a' listens on a port; service 'a' is the image"
    for given in (made, LenientConfig(made)):
        assert required_sandboxes(given, lenient=True) == [RequiredSandbox("a", source="compose.yaml")]
    assert required_sandboxes(LenientConfig(made)) == required_sandboxes(made, lenient=True)
    for more in ({}, {"lenient": False}):
        with pytest.raises(ConfigError) as refused:
            required_sandboxes(made, **more)
        assert str(refused.value).startswith(f"{lacks} 'postgres:16'. To run it, ")
    bad = tmp_path / "bad" / "Dockerfile"
    bad.parent.mkdir()
    bad.write_text("FROM postgres:16\nWORKDIR /w\n")
    [kept] = required_sandboxes(str(bad), lenient=True)
    assert (kept.folder, kept.source) == ("/w", str(bad)) and required_sandboxes(LenientConfig(str(bad))) == [kept]
    with pytest.raises(ConfigError, match="Dockerfile needs what the sandbox does not have: "):
        required_sandboxes(str(bad))
    assert required_sandboxes(LenientConfig(None)) == required_sandboxes("", lenient=True) == [RequiredSandbox()]
    with pytest.raises(ConfigError, match=r"is the image 'postgres:16'\. To run"):
        read("services:\n  a:\n    image: postgres:16@sha256:ab\n")
    with pytest.raises(ConfigError):
        read("services: {}\n")
    for size, found in (("512m", 2**29), ("2k", 2048), ("7", 7), ("8b", 8), ("1GB", 2**30), (None, 0), ("much", 0)):
        assert sandbox_requirements._bytes(size) == found
    assert required_sandboxes(None) == [RequiredSandbox()] == required_sandboxes("")
    for name in ("mine.yml", "mine.yaml"):
        (tmp_path / name).write_text("services:\n  a: {image: debian, working_dir: /w}\n")
        assert required_sandboxes(str(tmp_path / name)) == [RequiredSandbox("a", "/w", source=str(tmp_path / name))]
    for text, why in (
        ("services: [", "while parsing"),
        ("[" * 500, "maximum recursion depth"),
        (f"a: !{'x' * 300} 1", "could not determine a constructor for the tag '!xxxx"),
        (None, "Compose file not found"),
    ):
        path.write_text(text) if text is not None else path.unlink()
        with pytest.raises(ConfigError) as broken:
            required_sandboxes(str(path))
        told = str(broken.value)
        assert told.startswith(f"{path} cannot be read: {why}") and len(told) <= len(f"{path} cannot be read: ") + 200
    with pytest.raises(ConfigError, match=r"'values\.json' is neither a compose file nor a Dockerfile"):
        required_sandboxes("values.json")
    [docker] = required_sandboxes(str(tmp_path / "sub" / "Dockerfile"))
    assert (docker.name, docker.folder) == ("default", "/made")
    assert BuildStep(command="x").folder == "/"


def test_commands_that_only_wait_and_images_of_a_plain_system_are_no_requirement() -> None:
    idle = sandbox_requirements._IDLE
    assert all(
        idle.fullmatch(each)
        for each in ("tail -f /dev/null", "sleep 10", "exec sleep infinity", "/bin/bash", "python3")
    )
    assert not any(idle.fullmatch(each) for each in ("sleep 10 && serve", "python3 app.py", "tail -f log"))
    plain = sandbox_requirements.PLAIN
    names = ("python", "docker.io/library/debian:12", "ubuntu@sha256:0af", "aisiuk/inspect-tool-support:latest")
    assert all(plain.fullmatch(each) for each in names)
    assert not any(plain.fullmatch(each) for each in ("pythonic", "me/python", "python:3.12 x", "node"))


def test_a_sample_that_asks_for_docker_gets_it_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    kinds = ("docker", "local", "k8s", "firsthand")
    assert [sample_sandboxes._default_provider(kind) for kind in kinds] == [
        "firsthand",
        "firsthand",
        "k8s",
        "firsthand",
    ]
    (tmp_path / "docker").touch(0o755)
    assert [sample_sandboxes._default_provider(kind) for kind in kinds] == ["docker", "firsthand", "k8s", "firsthand"]


def test_a_sample_takes_its_own_configuration_over_the_tasks_and_docker_only_where_it_is() -> None:
    def layered(whole: Any, own: Any) -> Any:
        found = sample_sandboxes._layered(whole, SimpleNamespace(sandbox=own))
        return None if found is None else (found.type, found.config)

    docker, other = SandboxEnvironmentSpec("docker", "a.yaml"), SandboxEnvironmentSpec("docker", "b.yaml")
    assert layered(None, None) is None and layered(docker, None) == layered(None, docker) == ("docker", "a.yaml")
    assert layered(docker, other) == ("docker", "b.yaml")
    assert layered(docker, SandboxEnvironmentSpec("docker")) == ("docker", "a.yaml")
    assert layered(docker, SandboxEnvironmentSpec("k8s", "c.yaml")) == ("docker", "a.yaml")
    assert (
        sample_sandboxes._default_provider("local") == "firsthand"
        and sample_sandboxes._default_provider("k8s") == "k8s"
    )


def test_errors_of_a_sandbox_are_told_to_the_model() -> None:
    for error, told in (
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), "it is no UTF-8 text"),
        (TimeoutError(), "it did not finish within 120 s and was stopped"),
        (OutputLimitExceededError("1 MiB", None), "it printed or holds too much: more than 1 MiB"),
        (FileNotFoundError(2, "No such file", "x.txt"), "No such file: x.txt"),
        (OSError("odd"), "odd"),
    ):
        with pytest.raises(ToolError) as caught, sample_sandboxes._as_tool_errors():
            raise error
        assert str(caught.value) == told
    with pytest.raises(SandboxUnavailableError), sample_sandboxes._as_tool_errors():
        raise SandboxUnavailableError("gone")


# -- tasks --


def test_arguments_sampling_and_protocol_of_a_task() -> None:
    deep = "[" * 50_000
    assert _arguments(f"deep={deep},,z=[1]") == {"deep": deep, "z": [1]}, "what is no JSON is text"
    assert _arguments("shots=5, name=a=b,flag=true,text=x,none=null,") == {
        "shots": 5, "name": "a=b", "flag": True, "text": "x", "none": None,
    }  # fmt: skip
    for wrong in ("shots", "=5", "a-b=1"):
        with pytest.raises(ConfigError, match="args has"):
            _arguments(wrong)
    config = GenerateConfig(max_tokens=7, temperature=0.0, top_p=0.5, top_k=3, frequency_penalty=0.1, presence_penalty=0.2,
                            stop_seqs=["\n", "x"], seed=4)  # fmt: skip
    assert fixed_sampling(SimpleNamespace(config=config)) == {
        "max_tokens": 7, "temperature": 0.0, "top_p": 0.5, "top_k": 3, "frequency_penalty": 0.1, "presence_penalty": 0.2,
        "stop": ("\n", "x"),
    }  # fmt: skip
    assert fixed_sampling(SimpleNamespace(config=GenerateConfig())) == {}

    def max_(scores: Any) -> Any:
        return scores

    def told(epochs: int | None, reducers: Any = None, **rest: Any) -> list[str]:
        made = SimpleNamespace(epochs=epochs, epochs_reducer=reducers)
        given = {"task": "t", "args": "", "grader": "", "sandboxes": []} | rest
        return protocol_text(made, **given).split("; ")[1:]

    assert told(1) == [] == told(None) and told(3) == ["it asks for --epochs 3"]
    assert told(2, [max_, object()]) == ["it asks for --epochs 2, reduced by max_, reducer"]
    assert told(1, args="a=1", grader="g", sandboxes=["x", "y"]) == [
        "with a=1",
        "graded by g",
        "in the sandbox x and y",
    ]
    assert protocol_text(SimpleNamespace(epochs=1, epochs_reducer=None), "t", "", "", []).endswith(", t")


def test_a_sample_becomes_a_task_with_its_cluster_and_its_secret() -> None:
    from inspect_ai.dataset import Sample

    sample = Sample(input=[ChatMessageSystem(content="S"), ChatMessageUser(content="Q?")], target=["a", "b"], id=7,
                    choices=["x", "y"], metadata={"passage": 3})  # fmt: skip
    task = task_of(sample, "f.py", "a=1", "g", {"top_k": 2}, "passage")
    assert task == Task(
        "7", "Q?", choices=("x", "y"), conversation=(system("S"),), hint="a letter", verbatim=False, sampling={"top_k": 2},
        metadata={"cluster": "3", "inspect": {"task": "f.py", "args": "a=1", "grader": "g"}},
        secret={"target": ["a", "b"], "metadata": {"passage": 3}},
    )  # fmt: skip
    plain = task_of(Sample(input="Q?", target="a", id="i"), "t", "", "")
    assert (plain.hint, plain.verbatim, plain.conversation, plain.cluster) == (None, True, (), None)
    assert plain.secret == {"target": "a", "metadata": {}}
    assert task_of(Sample(input="Q?", id="i", metadata={"p": 1}), "t", "", "", key="other").cluster is None
    with pytest.raises(DataError, match="the sample 'i' does not end with a user message"):
        task_of(Sample(input=[ChatMessageAssistant(content="A")], id="i"), "t", "", "")


def test_tasks_cluster_by_the_one_key_that_their_errors_name() -> None:
    from inspect_ai.scorer import accuracy, includes, stderr

    def key(*metrics: Any) -> str | None:
        return cluster_key(SimpleNamespace(metrics=list(metrics), scorer=[includes()]))

    assert key(accuracy(), stderr(cluster="passage")) == "passage" and key(accuracy(), stderr()) is None
    assert key({"a": [stderr(cluster="p")], "b": [stderr(cluster="p")]}) == "p"
    assert key(stderr(cluster="p"), stderr(cluster="q")) is None
    assert cluster_key(SimpleNamespace(metrics=None, scorer=None)) is None
