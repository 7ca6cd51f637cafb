"""Inspect's tasks: the scores and metrics that `inspect eval` gives on the same model, with our patterns and its solvers."""

import asyncio
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark_rows import facts, said
from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.bridges.inspect.messages import (
    calls_from,
    message_from,
    message_to,
    output_to,
    sampling_from,
    specs_from,
)
from firsthand.errors import ConfigError, DataError, MissingExtra, ModelError
from firsthand.loop.budget import Limits
from firsthand.message import Message, Sampled, ToolCall, ToolResult, assistant, user
from firsthand.model import Completion, Sampling, ToolSpec, Usage
from firsthand.patterns.cot import cot
from firsthand.patterns.direct import direct
from firsthand.patterns.inspect_solver import inspect_solver
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place, rollout, rollouts
from firsthand.runs.execute import execute
from firsthand.runs.store import create
from firsthand.show.board import leaderboard
from firsthand.show.board_words import figure_text
from firsthand.stats.figure_stats import figure_interval
from firsthand.system.described_code import code_digest
from firsthand.task import Task
from firsthand.trace import Failure, Trace

ROOT = Path(__file__).parent.parent
TASKS = Path(__file__).parent / "inspect_tasks.py"
needs_inspect = pytest.mark.skipif(
    importlib.util.find_spec("inspect_ai") is None, reason="needs pip install 'firsthand[inspect]'"
)
CITIES = {"France": "Paris", "Peru": "Lima", "Kenya": "Nairobi", "Japan": "Tokyo", "Cuba": "Havana", "Mali": "Bamako"}


def replies(messages, sampling, index):
    """What the model says: it looks up once where it has a tool, is right by hash, and cuts at its letter for choices."""
    text = "\n".join(message.text for message in messages)
    last = messages[-1].text
    country = next((each for each in CITIES if each in text), "France")
    luck = hashlib.sha256(f"{last}{sampling.temperature}".encode()).digest()[0] % 3
    if "Are you sure?" in last:
        return f"Yes, {CITIES[country]}. STOP and more"
    if "letter" in last.lower() or "ANSWER: $LETTER" in last:
        return "ANSWER: " + "ABBB"[luck]
    return f"{CITIES[country] if luck else 'Rome'}"


def calling(messages, sampling, index):
    """The same, but for a tool call before the first answer."""
    country = next(each for each in CITIES if each in messages[-1].text or each in messages[0].text)
    if len(messages) == 1:
        return assistant("", ToolCall("call_1", "atlas", {"country": country}))
    return replies(messages, sampling, index) if messages[-1].role == "user" else f"It is {messages[-1].text}"


def ours(
    benchmark: Benchmark, model: Scripted, pattern=direct, epochs: int = 1, limits: Limits | None = None
) -> list[Trace]:
    """Our attempts, in the order of the tasks."""

    async def attempt() -> list[Trace]:
        agent = Agent("agent", model, pattern, limits=limits or Limits())
        places = [Place(agent, benchmark, task, epoch) for task in benchmark.tasks(0) for epoch in range(epochs)]
        found = {trace.place: trace async for trace in rollouts(places)}
        return [found[place.id] for place in places]

    return asyncio.run(attempt())


def metrics(benchmark: Benchmark, traces: list[Trace]) -> dict[str, float]:
    """Inspect's metrics by its names."""
    row = leaderboard(traces, figures={benchmark.name: benchmark.figures})[0].rows[0]
    return {name: each.value for name, each in row.secondary.items() if " " in name}


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`inspect eval` on the same model, behind our provider."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSPECT_LOG_DIR", str(tmp_path / "logs"))

    def run(name: str, model: Scripted, grader: str = "", **options):
        from inspect_ai import eval as inspect_eval
        from inspect_ai.model import get_model

        from firsthand.bridges.inspect.messages import model_of
        from firsthand.bridges.inspect.model_provider import model_api

        api = model_api()("scripted:echo")
        api.model = model
        roles = {"grader": get_model(f"firsthand/{grader}")} if grader else None
        (log,) = inspect_eval(f"{TASKS}@{name}", model=model_of(api), display="none", model_roles=roles, **options)
        assert log.status == "success", log.error
        return log

    return run


def results(log) -> dict[str, float]:
    several = len({score.reducer for score in log.results.scores}) > 1
    return {
        f"{score.name}[{score.reducer}] {name}" if several and score.reducer else f"{score.name} {name}": metric.value
        for score in log.results.scores
        for name, metric in score.metrics.items()
    }


@needs_inspect
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["matching", "patterned", "choosing", "graded", "tooled", "repeated", "spoken", "limited"]
)
def test_its_own_solvers_on_our_model_give_what_inspect_eval_gives(name: str, theirs, tmp_path: Path) -> None:
    script = tmp_path / "judge.json"
    script.write_text(json.dumps({"Rome": "It is not so. GRADE: I", "": "The same. GRADE: C"}))
    grader = f"scripted:{script}" if name == "graded" else ""
    named = ":grader=" + grader.replace(":", r"\:") if grader else ""
    reply = calling if name in ("tooled", "limited") else replies
    log = theirs(name, Scripted(reply), grader)
    benchmark = catalog.benchmark(f"inspect:task={TASKS}@{name}{named}")
    epochs = 3 if name == "repeated" else 1
    traces = ours(benchmark, Scripted(reply), inspect_solver, epochs)
    assert [trace.error for trace in traces] == [None] * len(traces)
    assert metrics(benchmark, traces) == pytest.approx(results(log), rel=1e-12)
    by_id = {(str(sample.id), sample.epoch): sample for sample in log.samples}
    for trace in traces:
        sample = by_id[trace.task_id, trace.epoch + 1]
        assert trace.answer == sample.output.completion
        kept = {score.detail["scorer"]: score.detail["inspect"] for score in trace.scores if "inspect" in score.detail}
        assert {key: body["value"] for key, body in kept.items()} == {
            key: score.value for key, score in sample.scores.items()
        }


@needs_inspect
@pytest.mark.slow
def test_our_patterns_are_judged_by_its_scorers(theirs) -> None:
    log = theirs("matching", Scripted(replies))
    benchmark = catalog.benchmark(f"inspect:task={TASKS}@matching")
    traces = ours(benchmark, Scripted(replies))
    assert metrics(benchmark, traces) == pytest.approx(results(log), rel=1e-12)
    assert 0 < results(log)["match accuracy"] < 1
    thinking = ours(benchmark, Scripted(lambda *_: "Let me think. The answer is Paris"), cot)
    assert [trace.score("includes").value for trace in thinking] == [1, 0, 0, 0, 0, 0]


@needs_inspect
def test_another_scorer_of_a_task_has_another_digest(tmp_path: Path) -> None:
    def digest(file: str, old: str, new: str) -> str:
        assert old in TASKS.read_text()
        (tmp_path / file).write_text(TASKS.read_text().replace(old, new))
        return code_digest(catalog.benchmark(f"inspect:task={tmp_path / file}@patterned").scorers[0])

    begun = digest("one.py", "@task", "# as before\n@task")
    assert begun == digest("two.py", "@task", "@task") != digest("three.py", "[a-z]+", "[a-z]*")


@needs_inspect
def test_choices_are_marked_by_the_letter_that_a_pattern_gives() -> None:
    benchmark = catalog.benchmark(f"inspect:task={TASKS}@choosing")
    version = importlib.metadata.version("inspect-ai")
    assert facts(benchmark) == said(
        "inspect:inspect_tasks.py@choosing", "score", f"{TASKS}@choosing, as Inspect has it.",
        f"Inspect {version}, {TASKS}@choosing", "", figures=True, options={"task": f"{TASKS}@choosing", "args": ""},
    )  # fmt: skip
    shots = catalog.benchmark(f"inspect:task={TASKS}@patterned:args=shots=3")
    assert (shots.name, shots.options["args"]) == ("inspect:inspect_tasks.py@patterned:shots=3", "shots=3")
    assert shots.protocol == f"Inspect {version}, {TASKS}@patterned; with shots=3" and len(shots.tasks(0)) == 6
    with pytest.raises(
        ConfigError, match=r"^inspect was given no task: write inspect:task=FILE\.py@NAME, or inspect:task=ins"
    ):
        catalog.benchmark("inspect")
    first = benchmark.tasks(0)[0]
    assert first.choices == ("Lima", "Paris", "Nairobi") and first.secret["target"] == "B" and first.id == "1"
    traces = ours(benchmark, Scripted(["B", "The answer is A", "no idea", "B", "B", "B"]))
    assert [trace.score("choice").value for trace in traces] == [1, 0, 0, 1, 1, 1]


@needs_inspect
def test_a_scorer_sees_the_attempt_as_inspect_counts_it_and_any_value_is_the_number_its_metrics_use() -> None:
    benchmark = catalog.benchmark(f"inspect:task={TASKS}@witnessed")
    traces = ours(benchmark, Scripted(lambda *_: "Paris"), epochs=2)
    told = [trace.score("listed").detail["inspect"]["metadata"] for trace in traces]
    assert told == [{"epoch": trace.epoch + 1, "said": "Paris"} for trace in traces]
    assert {trace.epoch for trace in traces} == {0, 1}
    for trace in traces:
        assert [(score.name, score.value) for score in trace.scores] == [
            ("listed", 1.0), ("partly/known", 1.0), ("partly/half", 0.5),
        ]  # fmt: skip
        assert [bool(score.detail) for score in trace.scores] == [True, True, False]  # Inspect's own is kept once


@needs_inspect
def test_attempts_that_failed_are_in_no_metric_of_inspect() -> None:
    benchmark = catalog.benchmark(f"inspect:task={TASKS}@clustered")
    traces = ours(benchmark, Scripted(["yes", "no", "yes", "no", "yes"]))
    lost = [replace(traces[0], error=Failure("ModelError", "gone")), *traces[1:]]
    among = {figure.name: figure_interval(figure).value for figure in benchmark.figures(lost)}
    without = {figure.name: figure_interval(figure).value for figure in benchmark.figures(traces[1:])}
    assert among == without and among["includes accuracy"] == 0.5
    assert benchmark.figures([lost[0]]) == [] == benchmark.figures([])


@needs_inspect
def test_a_conversation_is_asked_as_it_stands() -> None:
    benchmark = catalog.benchmark(f"inspect:task={TASKS}@spoken")
    for pattern in (direct, inspect_solver):
        model = Scripted(replies)
        (trace,) = ours(benchmark, model, pattern)
        roles = [message.role for message in model.asked[0].prompt]
        assert roles == ["system", "user", "assistant", "user"] and model.asked[0].prompt[-1].text.endswith("Peru?")
        assert not trace.scores[0].failed and len(trace.nodes) <= 8


@needs_inspect
def test_solvers_tools_and_settings_are_effects_of_the_attempt_and_budgets_hold() -> None:
    benchmark = catalog.benchmark(f"inspect:task={TASKS}@tooled")
    model = Scripted(calling)
    traces = ours(replace(benchmark, tasks=lambda seed: benchmark.tasks(0)[:1]), model, inspect_solver)
    generations = [call for call in traces[0].calls if call.kind == "generate"]
    assert len(generations) == 3 and [asked.tools[0].name for asked in model.asked] == ["atlas"] * 3
    settings = generations[2].detail["sampling"]
    assert (settings["temperature"], settings["stop"]) == (0.5, ["STOP"]) and traces[0].answer == "Yes, Paris. "
    assert [node.message.role for node in traces[0].nodes] == [
        "user", "assistant", "tool", "assistant", "user", "assistant",
    ]  # fmt: skip
    mali = next(task for task in benchmark.tasks(0) if task.id == "mali")
    (trace,) = ours(replace(benchmark, tasks=lambda seed: [mali]), Scripted(calling), inspect_solver)
    assert any("no page for Mali" in node.message.text for node in trace.nodes)
    stopped = ours(benchmark, Scripted(calling), inspect_solver, limits=Limits(calls=1))
    assert {trace.stop_reason for trace in stopped} == {"calls"}


@needs_inspect
def test_an_interrupted_run_asks_the_model_nothing_twice_and_is_scored_again_from_disk(tmp_path: Path) -> None:
    benchmark = catalog.benchmark(f"inspect:task={TASKS}@tooled")
    agent = Agent("agent", Scripted(calling, fingerprint="same"), inspect_solver)
    places = [Place(agent, benchmark, task) for task in benchmark.tasks(0)]
    with create(tmp_path, {}, "first") as run:
        asyncio.run(execute(run, places))
        asked = len(agent.model.asked)
        kept = {trace.task_id: trace for trace in run.traces()}
        for place in places:  # the journal alone: an attempt that had ended, but was not kept
            again = Agent("agent", Scripted([], fingerprint="same"), inspect_solver)
            trace = asyncio.run(_again(again, benchmark, place.task, run.journal(place.id)))
            assert trace.error is None and not again.model.asked and trace.answer == kept[place.task.id].answer
        tasks = {task.id: task for _, task in run.tasks().items()}
        fresh = catalog.benchmark(f"inspect:task={TASKS}@tooled")
        for id, trace in kept.items():
            found = asyncio.run(_scored(fresh, tasks[id], trace))
            assert [(score.name, score.value) for score in found] == [(s.name, s.value) for s in trace.scores]
    assert asked == 18


async def _again(agent: Agent, benchmark: Benchmark, task: Task, journal) -> Trace:
    from firsthand.rollout import rollout

    return await rollout(agent, task, benchmark=benchmark, journal=journal)


async def _scored(benchmark: Benchmark, task: Task, trace: Trace):
    return await benchmark.scorers[0](task, trace)


@needs_inspect
def test_a_scorer_that_asks_a_judge_says_which_option_names_one() -> None:
    benchmark = catalog.benchmark(f"inspect:task={TASKS}@graded")
    (score,) = ours(replace(benchmark, tasks=lambda seed: benchmark.tasks(0)[:1]), Scripted(replies))[0].scores
    assert score.failed and ":grader=MODEL" in (score.failure or "")


@needs_inspect
@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("inspect", ConfigError, "was given no task"),
        (f"inspect:task={TASKS}", ConfigError, "name one, as in"),
        (
            f"inspect:task={TASKS}@sandboxed:sandbox=nowhere",
            ConfigError,
            "'nowhere', but Inspect knows no such provider",
        ),
        (f"inspect:task={TASKS}@broken:args=fail=true", DataError, "RuntimeError: no data here"),
        (f"inspect:task={TASKS}@nowhere", DataError, "Inspect could not load|gives 0 tasks"),
        (f"inspect:task={TASKS}@patterned:args=shots", ConfigError, "NAME=VALUE was expected"),
        (f"inspect:task={TASKS}@patterned:args=shots=7", DataError, "AssertionError"),
        ("inspect:task=missing.py@x", ConfigError, "no file 'missing.py'"),
    ],
)
def test_what_cannot_be_run_is_one_sentence(spec: str, error: type[Exception], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message) as caught:
        catalog.benchmark(spec)
    assert isinstance(caught.value, error) and "\n" not in str(caught.value)


@needs_inspect
def test_arguments_reach_the_task() -> None:
    assert len(catalog.benchmark(f"inspect:task={TASKS}@patterned:args=shots=3").tasks(0)) == 6


@needs_inspect
@pytest.mark.slow
def test_plain_inspect_eval_finds_our_models(tmp_path: Path) -> None:
    (tmp_path / "script.json").write_text(json.dumps({"France": "Paris", "": "Rome"}))
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["inspect_ai"]
    assert declared == {
        "firsthand": "firsthand.bridges.inspect.model_provider",
        "firsthand_sandbox": "firsthand.bridges.inspect.sandbox_registry",
    }
    code = (
        "import firsthand.bridges.inspect.model_provider\n"  # what the entry point loads once we are installed
        "import sys; from inspect_ai import eval; from pathlib import Path\n"
        f"(log,) = eval({str(TASKS) + '@matching'!r}, model='firsthand/scripted:script.json', display='none')\n"
        "print(log.status, log.eval.model, log.results.scores[0].metrics['accuracy'].value)\n"
    )
    env = {**os.environ, "INSPECT_LOG_DIR": str(tmp_path / "logs")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.stdout.split() == ["success", "firsthand/scripted:script.json", str(1 / 6)], done.stderr[-500:]


@needs_inspect
def test_requests_and_answers_keep_their_meaning_in_both_directions() -> None:
    from inspect_ai.model import (
        ChatMessageAssistant,
        ChatMessageTool,
        ChatMessageUser,
        ContentImage,
        ContentReasoning,
        ContentText,
        GenerateConfig,
        ResponseSchema,
    )
    from inspect_ai.tool import ToolCallError, ToolFunction, ToolInfo, ToolParam, ToolParams
    from inspect_ai.util import JSONSchema

    call = ToolCall("c1", "add", {"x": 1})
    for message in (assistant("I add.", call), Message("tool", (ToolResult("c1", "add", "3"),)), user("Hello")):
        assert message_from(message_to(message)) == message
    broken = message_to(assistant("", ToolCall("c2", "add", {}, "{x:")))
    assert "not valid JSON: {x:" in broken.tool_calls[0].parse_error
    failed = ChatMessageTool(content="", tool_call_id="c1", function="add", error=ToolCallError("timeout", "too slow"))
    assert message_from(failed).parts == (ToolResult("c1", "add", "Error: too slow", True),)
    thought = ChatMessageAssistant(content=[ContentReasoning(reasoning="hm"), ContentText(text="Yes")])
    assert message_from(thought).text == "Yes"
    with pytest.raises(ModelError, match="holds image: models here are given text only"):
        message_from(ChatMessageUser(content=[ContentImage(image="data:image/png;base64,AA==")]))

    schema = ResponseSchema(name="x", json_schema=JSONSchema(type="object"))
    config = GenerateConfig(
        temperature=0.5, seed=3, stop_seqs=["a"], top_logprobs=2, logprobs=True, response_schema=schema
    )
    settings = Sampling(**sampling_from(config))
    assert (settings.temperature, settings.seed, settings.stop, settings.top_logprobs) == (0.5, 3, ("a",), 2)
    assert settings.grammar is not None and settings.max_tokens == 2048
    assert Sampling(**sampling_from(GenerateConfig(max_tokens=7))).max_tokens == 7
    tops = [(None, None), (False, None), (True, None), (True, 0), (None, 3), (True, 3)]
    asked = [sampling_from(GenerateConfig(logprobs=own, top_logprobs=top)).get("top_logprobs", 0) for own, top in tops]
    assert asked == [0, 0, 1, 1, 3, 3], "log-probs of the tokens alone need the best of each, which holds its text"
    number = ToolParams(properties={"x": ToolParam(type="integer", description="n")}, required=["x"])
    tools = [ToolInfo(name=name, description=f"to {name}", parameters=number) for name in ("add", "add_all", "my_add")]
    form = {"type": "object", "properties": {"x": {"type": "integer", "description": "n"}}, "required": ["x"],
            "additionalProperties": False}  # fmt: skip
    specs = tuple(ToolSpec(name, f"to {name}", form) for name in ("add", "add_all", "my_add"))
    assert specs_from(tools, "auto") == specs_from(tools, "any") == specs and specs_from(tools, "none") == ()
    assert [specs_from(tools, ToolFunction(name=spec.name)) for spec in specs] == [(spec,) for spec in specs]
    assert specs_from(tools, ToolFunction(name="ad")) == () == specs_from([], "auto")
    choices = ("auto", "none", "any", ToolFunction(name="add"))
    assert [calls_from(specs, each) for each in choices] == ["auto", "auto", "required", "add"]
    assert calls_from((), "any") == "auto"
    parallel = [sampling_from(GenerateConfig(parallel_tool_calls=each)) for each in (None, True, False)]
    assert [Sampling(**each).parallel_tool_calls for each in parallel] == [True, True, False]

    sampled = replace(assistant("Yes"), sampled=Sampled((5, 6), (-0.1, -2.0)))
    tops = ((("Yes", -0.1), ("No", -2.4)), (("!", -0.3),))
    output = output_to([Completion(sampled, "length", Usage(10, 4, 2), tops)], "m")
    assert (output.stop_reason, output.usage.input_tokens, output.usage.total_tokens) == ("max_tokens", 6, 12)
    tokens = output.choices[0].logprobs.content
    assert [(each.token, each.logprob) for each in tokens] == [("Yes", -0.1), ("", -2.0)]


@pytest.mark.slow
def test_a_solver_needs_a_sample_and_inspect_must_be_installed() -> None:
    (trace,) = ours(Benchmark("one", lambda seed: [Task("a", "b")], ()), Scripted(["x"]), inspect_solver)
    assert trace.error.kind == "ConfigError" and "no sample of an Inspect task" in trace.error.message
    code = (
        "import sys; sys.modules['inspect_ai'] = None\n"
        "from firsthand import catalog\n"
        "from firsthand.errors import MissingExtra\n"
        "import firsthand.bridges.inspect.model_provider\n"
        "try: catalog.benchmark('inspect:task=inspect_evals/gsm8k')\n"
        "except MissingExtra as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'firsthand[inspect]'" in done.stdout, done.stderr
    assert issubclass(MissingExtra, Exception)


@needs_inspect
def test_the_tasks_cluster_and_sampling_are_ours_and_its_stderr_has_no_interval():
    made = catalog.benchmark(f"inspect:task={TASKS}@clustered")
    tasks = made.tasks(0)
    assert [task.cluster for task in tasks] == ["0", "0", "1", "1", "2"]
    assert all(task.sampling == {"max_tokens": 7, "stop": ("\n",)} for task in tasks)
    asked = []

    def reply(messages, sampling, index):
        asked.append((sampling.max_tokens, sampling.stop))
        return "yes" if "2" in messages[-1].text else "no"

    agent = Agent("direct", Scripted(reply), direct)
    traces = [asyncio.run(rollout(agent, task, benchmark=made)) for task in tasks]
    assert {*asked} == {(7, ("\n",))}
    found = {figure.name: figure_interval(figure) for figure in made.figures(traces)}
    assert found["includes stderr"].method == "none" and found["includes accuracy"].method != "none"
    assert figure_text("stderr", found["includes stderr"]) == f"stderr {found['includes stderr'].value:.2f}"
    assert catalog.benchmark(f"inspect:task={TASKS}@matching").tasks(0)[0].sampling == {}
