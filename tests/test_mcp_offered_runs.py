"""Agents, benchmarks and indexes that are offered over MCP, each tool run directly and compared whole."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import mcp_types as types

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.commands.mcp import Config, make_server
from firsthand.errors import ConfigError, ToolError
from firsthand.loop.budget import Limits
from firsthand.message import ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.serve.agents.shared_sources import with_held_sources
from firsthand.serve.mcp import benchmark_offer, index_offer
from firsthand.serve.mcp.agent_offer import CallRecord, agent_tool, approval_request
from firsthand.serve.mcp.benchmark_offer import _resource, _run_tool, described
from firsthand.serve.mcp.index_offer import offer_index
from firsthand.serve.mcp.mcp_server import Offer
from firsthand.system.home import data_home
from firsthand.task import Task
from firsthand.tool import tool_from_function
from mcp_contexts import YES, Heard, said


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


# -- agents --


def answers(agent_name: str = "ann") -> Agent:
    def pay(amount: int) -> str:
        """Pay."""
        return f"paid {amount}"

    async def pattern(task: Any, ctx: Any) -> str:
        if task.question == "fail":
            raise ConfigError("it cannot work")
        if task.question == "nothing":
            return str([await ctx.generate() for _ in range(2)])
        if task.question == "pay":
            return str((await ctx.call(ToolCall("c", "pay", {"amount": 7}))).content)
        await ctx.generate()
        return f"{task.question}!"

    tools = (tool_from_function(pay, effect="irreversible"),)
    return Agent(
        agent_name, Scripted(lambda *given: "x", name="scripted:s"), pattern, tools=tools, limits=Limits(calls=1)
    )


def test_a_question_to_an_agent_is_one_attempt_whose_trace_is_kept() -> None:
    record = CallRecord("named")
    tool = agent_tool(answers(), "ask_ann", record)
    shown = tool.described()
    assert (tool.name, tool.description, tool.as_task, tool.resumes) == (
        "ask_ann", "Asks the agent ann (scripted:s) a question, and returns its answer.", "may", True,
    )  # fmt: skip
    assert list(shown.input_schema["properties"]) == shown.input_schema["required"] == ["question"]
    assert tool.annotations == types.ToolAnnotations(read_only_hint=False, open_world_hint=True)
    wrong = tool.problem({"questions": "x"})
    assert wrong is not None and wrong.is_error
    exchange, paying = Heard(), Heard(YES)
    results = [asyncio.run(tool.run({"question": question}, each)) for question, each in (
        ("hello", exchange), ("pay", paying), ("fail", Heard()), ("nothing", Heard()), ("hello", Heard()),
    )]  # fmt: skip
    assert [said(each) for each in results] == [
        "hello!", "paid 7", "error: ann gave no answer: it cannot work", "error: ann gave no answer: it stopped: calls",
        "hello!",
    ]  # fmt: skip
    assert exchange.told == [(1, None, "asks the model")] and paying.told == [(1, None, "calls pay")]
    ((key, request),) = paying.asked
    assert key.startswith("approval ") and request == approval_request("pay", request.params.message)
    abouts = [each.meta["org.firsthand/trace"] for each in results]
    record.close()
    (run_id,) = {each["run"] for each in abouts}
    assert "named" in run_id and [each["stop_reason"] for each in abouts] == ["done", "done", "error", "calls", "done"]
    with store.open_run(run_id, data_home()) as run:
        traces = list(run.traces())
        assert [trace.id for trace in traces] == [each["trace"] for each in abouts]
        assert list(run.agents()) == ["ann"] and run.agents()["ann"] == traces[0].agent and run.config == {"mcp": {}}
        assert {trace.benchmark for trace in traces} == {"mcp"} and len({trace.task_id for trace in traces}) == 5
        assert all(len(trace.task_id) == 12 for trace in traces)
        assert [getattr(run.task("mcp", each.task_id), "prompt", None) for each in traces] == [
            "hello",
            "pay",
            "fail",
            "nothing",
            "hello",
        ]


class Line:
    """A shared source, which must not be opened twice at a time."""

    name, shared, tools = "the line", True, ()
    opened = closed = reopened = 0
    failures = 0

    async def open(self) -> None:
        assert self.opened == self.closed
        self.opened += 1
        await asyncio.sleep(0.01)
        if self.opened <= self.failures:
            raise ToolError("the line is busy")

    async def reopen(self) -> None:
        self.reopened += 1

    async def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("failures", [0, 1])
def test_calls_and_runs_of_all_agents_have_a_shared_source_open_once(
    failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line()
    line.failures = failures
    own = type("Own", (Line,), {"shared": False})
    agents = [replace(answers(name), tools=(line, own)) for name in ("ann", "bob")]
    monkeypatch.setattr("firsthand.experiment.named_agents.make_agents", lambda settings: agents)
    made = make_server(Config(model="scripted", benchmark=("arithmetic",)), CallRecord())
    tools = {tool.name: tool for tool in made.offer.tools}
    ask = [(tools["ask_ann"], {"question": "a"}), (tools["ask_bob"], {"question": "b"})]

    async def main() -> None:
        if failures:
            busy = [said(await tool.run(call, Heard())) for tool, call in ask[:1]]  # type: ignore[arg-type]
            assert busy == ["error: ann gave no answer: the line is busy"] and line.opened == line.closed == 1
        run = tools["run_benchmark"].run({"benchmark": "arithmetic", "agent": "bob", "limit": 2}, Heard())
        results = await asyncio.gather(*[tool.run(call, Heard()) for tool, call in ask], run)  # type: ignore[arg-type]
        assert [said(each) for each in results[:2]] == ["a!", "b!"] and "2 attempts, 0 errors" in said(results[2])
        assert said(await ask[0][0].run({"question": "again"}, Heard())) == "again!"  # type: ignore[arg-type]
        assert (line.opened, line.closed, line.reopened > 2) == (1 + failures, failures, True)
        await made.close()
        assert line.opened == line.closed == 1 + failures

    asyncio.run(main())
    assert own.opened == 0, "what a class makes is opened by each attempt as before"
    assert agents[0].to_json()["tools"] == with_held_sources(agents)[0][0].to_json()["tools"]


def test_an_attempt_that_fails_after_its_answer_is_told_as_failed() -> None:
    class Clock:
        tools = ()

        async def open(self) -> None: ...

        async def close(self) -> None:
            raise ConfigError("the clock cannot be stopped")

    record = CallRecord()
    result: Any = asyncio.run(
        agent_tool(replace(answers(), tools=(Clock,)), "ask", record).run({"question": "hello"}, Heard())
    )
    record.close()
    about = result.meta["org.firsthand/trace"]
    assert said(result) == "error: ann gave no answer: the clock cannot be stopped" and about["stop_reason"] == "error"
    with store.open_run(about["run"], data_home()) as run:
        (trace,) = run.traces()
        assert (trace.answer, trace.id, trace.error is None) == ("hello!", about["trace"], False)


def test_an_approval_form_asks_for_one_yes_that_is_not_preselected() -> None:
    assert approval_request("pay", "Pay 7?").params.model_dump(by_alias=True, mode="json", exclude_none=True) == {
        "mode": "form",
        "message": "Pay 7?",
        "requestedSchema": {
            "type": "object",
            "properties": {"approve": {"type": "boolean", "title": "Run pay?", "default": False}},
            "required": ["approve"],
        },
    }


def test_a_record_in_a_folder_keeps_journals_and_goes_on_with_its_run(tmp_path: Path) -> None:
    folder = tmp_path / "calls"
    first = CallRecord(folder=folder)
    tasks = first.tasks
    assert tasks is not None and first.journal("place.0") is not None
    tasks.close()
    made: Any = asyncio.run(agent_tool(answers(), "ask", first).run({"question": "pay"}, Heard(YES, task="t-1")))
    with pytest.raises(ConfigError, match="calls is being run by process"):
        CallRecord(folder=folder)
    first.close()
    second = CallRecord(folder=folder)
    again: Any = asyncio.run(agent_tool(answers(), "ask", second).run({"question": "pay"}, Heard(task="t-1")))
    second.close()
    about = [each.meta["org.firsthand/trace"] for each in (made, again)]
    assert said(again) == "paid 7" and about[0]["run"] == about[1]["run"], "the payment is not made twice"
    with store.open_run(folder, data_home()) as run:
        assert run.id == about[0]["run"] and run.path == folder
        assert [[call.replayed for call in trace.calls] for trace in run.tries(next(run.traces()).place)] == [
            [False],
            [True],
        ]
    loose = CallRecord()
    assert loose.tasks is None and loose.journal("p") is None
    loose.close()


# -- benchmarks --


def sums(count: int = 4, **more: Any) -> Benchmark:
    def tasks(seed: int) -> list[Task]:
        return [Task(f"s{seed}-{at}", f"{at} + {at + 1}?", secret={"answer": str(2 * at + 1)}, choices=("a", "b")[:at])
                for at in range(count)]  # fmt: skip

    def right(task: Task, trace: Any) -> float:
        return float(trace.answer == task.secret["answer"])

    return Benchmark(
        "sums", tasks, [right], **{"description": "Adds.\nMore.", "licence": "CC0", "protocol": "ask"} | more
    )


def test_a_benchmark_is_a_resource_and_a_tool_with_checked_arguments() -> None:
    made = sums()
    body = described("sums:x=1", made)
    assert body == {
        "name": "sums:x=1", "description": "Adds.\nMore.", "protocol": "ask", "licence": "CC0", "scorers": ["right"],
        "tasks": 4,
        "examples": [
            {"id": "s0-0", "prompt": "0 + 1?", "choices": []}, {"id": "s0-1", "prompt": "1 + 2?", "choices": ["a"]},
            {"id": "s0-2", "prompt": "2 + 3?", "choices": ["a", "b"]},
        ],
    }  # fmt: skip
    resource = _resource("sums:x=1", made)
    assert (resource.uri, resource.name, resource.description, resource.mime_type) == (
        "firsthand://benchmark/sums:x=1", "sums", "Adds.", "application/json",
    )  # fmt: skip
    assert _resource("s", replace(made, description="")).description == "The benchmark sums."
    (contents,) = asyncio.run(resource.read("u://x", {}))
    assert (contents.uri, contents.mime_type) == ("u://x", "application/json")
    assert json.loads(contents.text) == body  # type: ignore[union-attr]
    tool = _run_tool({"sums": made, "other": made}, {"one": answers("one"), "two": answers("two")}, Offer())
    assert tool.description.endswith(" Benchmarks: sums, other. Agents: one, two.")
    properties = tool.schema["properties"]
    assert {name: each.get("default") for name, each in properties.items()} == {
        "benchmark": None, "agent": "one", "limit": 10, "epochs": 1, "seed": 0,
    }  # fmt: skip
    assert (tool.name, tool.as_task, tool.resumes, tool.annotations) == (
        "run_benchmark", "may", True,
        types.ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False),
    )  # fmt: skip
    for arguments, text in (
        ({"benchmark": "summs"}, "no benchmark 'summs' is served here; did you mean 'sums'? there are sums, other"),
        ({"benchmark": "sums", "agent": "three"}, "no agent 'three' is served here; there are one, two"),
        ({"benchmark": "sums", "limit": -1}, "limit is -1: give 0 or more"),
        ({"benchmark": "sums", "epochs": 0}, "epochs is 0: give 1 or more"),
        ({"benchmark": "sums", "limit": 3, "epochs": 33_334},
         "these are 100,002 attempts, and one call makes at most 100,000: set a limit"),
    ):  # fmt: skip
        with pytest.raises(ToolError) as caught:
            asyncio.run(tool.run(arguments, Heard()))
        assert str(caught.value) == text
    shape = tool.problem({"benchmark": "sums", "limit": "many"})
    assert shape is not None and shape.is_error


@pytest.fixture
def named_sums(tmp_path: Path) -> str:
    """The name of a benchmark in a file."""
    file = tmp_path / "sums.py"
    file.write_text(
        "from firsthand import Benchmark, Task\n"
        "def tasks(seed):\n"
        "    return [Task(f's{seed}-{at}', f'{at} + {at + 1}?', secret={'answer': str(2 * at + 1)}) for at in range(4)]\n"
        "def right(task, trace):\n"
        "    return float(trace.answer == task.secret['answer'])\n"
        "def sums() -> Benchmark:\n"
        "    return Benchmark('sums', tasks, [right])\n"
    )
    return str(file)


def test_an_agent_is_measured_with_its_progress_and_a_stopped_run_goes_on(
    named_sums: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from firsthand import catalog

    def solver(name: str, answer: str) -> Agent:
        async def solve(task: Any, ctx: Any) -> str:
            await ctx.generate()
            return answer

        return Agent(name, Scripted(lambda *given: "x"), solve)

    offer, charged = Offer(), list[int]()
    offer.charge = lambda client, tokens: charged.append(tokens)
    solvers = {"three": solver("three", "3"), "one": solver("one", "1")}
    tool = _run_tool({named_sums: catalog.benchmark(named_sums)}, solvers, offer)
    exchange = Heard()
    given = {"benchmark": named_sums, "agent": "one", "limit": 3, "epochs": 2, "seed": 5}
    monkeypatch.setattr(benchmark_offer, "MAX_ATTEMPTS", 6)
    with pytest.raises(ToolError, match="these are 8 attempts, and one call makes at most 6: set a limit"):
        asyncio.run(tool.run(given | {"limit": 0}, exchange))
    result: Any = asyncio.run(tool.run(given, exchange))
    run_id = result.structured_content["run"]
    assert len(charged) == 6 and min(charged) > 0, "each attempt counts for the client's allowance"
    assert exchange.note == run_id and exchange.told[0] == (0, 6, f"run {run_id}")
    assert [each[:2] for each in exchange.told[1:]] == [(at, 6) for at in range(1, 7)]
    assert sorted(each[2] for each in exchange.told[1:]) == ["s5-0", "s5-0", "s5-1", "s5-1", "s5-2", "s5-2"]
    (row,) = result.structured_content["rows"]
    assert (row["agent"], row["benchmark"], row["attempts"], row["errors"]) == ("one", "sums", 6, 0)
    first, last = said(result).split("\n")
    assert first.startswith("one on sums: 0.333 [") and "] at 95%, 6 attempts, 0 errors, " in first
    assert (
        first.endswith(f" {row['tokens']:.0f} tokens each")
        and last == f"Kept as run {run_id}: `firsthand show {run_id}`"
    )
    score = row["score"]
    assert f"[{score['low']:.3f}, {score['high']:.3f}]" in first
    resumed = Heard()
    resumed.note = run_id
    again: Any = asyncio.run(tool.run(given, resumed))
    assert again.structured_content["run"] == run_id and resumed.told == [(0, 6, f"run {run_id}")]
    assert again.structured_content["rows"] == result.structured_content["rows"]
    halted = asyncio.Event()

    async def halts(task: Any, ctx: Any) -> str:
        if task.question.startswith("2") and not halted.is_set():
            await asyncio.sleep(60)
        return "1"

    half = _run_tool({named_sums: catalog.benchmark(named_sums)}, {"one": Agent("one", Scripted([]), halts)}, Offer())

    async def stopped() -> Heard:
        exchange = Heard()
        running = asyncio.ensure_future(half.run(given, exchange))
        while len(exchange.told) < 5:
            await asyncio.sleep(0.001)
        running.cancel()
        await asyncio.wait({running})
        halted.set()
        return exchange

    before, after = asyncio.run(asyncio.wait_for(stopped(), 10)), Heard()
    assert [each[:2] for each in before.told[1:]] == [(at, 6) for at in range(1, 5)]
    after.note = before.note
    rest: Any = asyncio.run(half.run(given, after))
    assert after.told == [(0, 6, f"run {before.note}"), (5, 6, "s5-2"), (6, 6, "s5-2")]
    assert (rest.structured_content["rows"][0]["attempts"], rest.structured_content["run"]) == (6, before.note)
    whole = Heard()
    every: Any = asyncio.run(tool.run({"benchmark": named_sums, "limit": 0}, whole))
    assert whole.told[0][:2] == (0, 4) and every.structured_content["rows"][0]["agent"] == "three"
    assert said(every).startswith("three on sums: 0.250 [") and "mcp" in every.structured_content["run"]


# -- indexes --


def test_documents_of_an_index_are_listed_one_by_one_up_to_a_number_and_cut_at_a_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "My docs!"
    folder.mkdir()
    for name, text in (("b é.txt", "Bees hum."), ("a.txt", "Ants walk far.")):
        (folder / name).write_text(text)
    offer = Offer()
    offer_index(offer, str(folder), only=True)
    assert [(each.uri, each.name, each.description, each.mime_type) for each in offer.resources] == [
        ("firsthand://index/My_docs/{document}", "My_docs: document",
         "A document of My_docs; the search gives the ids of documents.", "text/plain"),
        ("firsthand://index/My_docs/a.txt", "a.txt", "A document of My_docs.", "text/plain"),
        ("firsthand://index/My_docs/b%20%C3%A9.txt", "b é.txt", "A document of My_docs.", "text/plain"),
    ]  # fmt: skip
    template, first, second = offer.resources
    texts = [asyncio.run(each.read("u://", {}))[0].text for each in (first, second)]  # type: ignore[union-attr]
    assert texts == ["Ants walk far.", "Bees hum."]
    assert asyncio.run(template.read("u://", {"document": "b é.txt"}))[0].uri == "u://"
    search, lookup = offer.tools
    assert (search.name, lookup.name) == ("search", "lookup")
    assert search.annotations is not None and search.annotations.read_only_hint and search.annotations.open_world_hint
    monkeypatch.setattr(index_offer, "MAX_DOCUMENT", 9)
    cut, whole = (asyncio.run(each.read("u://", {}))[0].text for each in (first, second))  # type: ignore[union-attr]
    assert cut == "Ants walk\n[cut after 9 of 14 characters]" and whole == "Bees hum."
    for most, count in ((2, 3), (1, 1)):
        monkeypatch.setattr(index_offer, "MAX_LISTED", most)
        again = Offer()
        offer_index(again, str(folder), only=False)
        assert len(again.resources) == count
    assert [each.name for each in again.tools] == ["search_My_docs", "lookup_My_docs"]
    (folder / "in").mkdir()
    (folder / "in" / "c.txt").write_text("Cats sleep.")
    signs = tmp_path / "!!"
    signs.mkdir()
    (signs / "d.txt").write_text("Dogs run.")
    for where, path, name in ((folder, ".", "My_docs"), (folder / "in", "..", "My_docs"), (folder, "in", "in"),
                              (folder, "../!!", "documents")):  # fmt: skip
        monkeypatch.chdir(where)
        named = Offer()
        offer_index(named, path, only=False)
        assert [each.name for each in named.tools] == [f"search_{name}", f"lookup_{name}"]
        assert named.resources[0].uri == f"firsthand://index/{name}/{{document}}"
