"""Models, judges and tools that answer from a recorded run, and from nothing else."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand import Agent, Benchmark, Experiment, Task
from firsthand.context import Context
from firsthand.errors import ConfigError, ModelError, ToolError
from firsthand.experiment.named_agents import ALLOW_ALL, _expect_replayable, make_agents
from firsthand.experiment.recorded import as_recorded, recorded_models, with_recorded_judges
from firsthand.experiment.settings import RunSettings
from firsthand.loop.concurrency import Retry
from firsthand.loop.tool_call import tool_request
from firsthand.message import ToolCall, user
from firsthand.model import Sampling
from firsthand.patterns.direct import direct
from firsthand.providers.cached import Replay
from firsthand.providers.scripted import Scripted
from firsthand.runs.store import open_run
from firsthand.scorers.match import exact
from firsthand.scorers.model_judge import JudgeScorer, judged_by, rubric
from firsthand.scorers.rag_judgements import RagJudge, faithfulness
from firsthand.system.home import data_home
from firsthand.tool import tool


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))


@tool(effect="external")
def send(text: str) -> str:
    """Send a text."""
    sent.append(text)
    if text == "bad":
        raise ToolError("refused there")
    return f"sent {text}"


sent: list[str] = []


async def sending(task: Task, ctx: Context) -> str:
    for text in ("good", "bad"):
        await ctx.call(ToolCall("1", "send", {"text": text}))
    return (await ctx.say(task.prompt).generate()).text


def test_tools_that_reach_outside_answer_what_was_recorded_and_others_stay() -> None:
    sent.clear()
    agents = [
        Agent("a", Scripted(["one"], name="scripted:1"), sending, tools=(send,)),
        Agent("b", Scripted(["two"], name="scripted:2"), direct, sampling=Sampling(max_tokens=9)),
    ]
    benchmark = Benchmark("own", lambda seed: [Task("t", "Q?")], (exact,))
    with Experiment(agents, benchmark, seed=3).run() as run:
        ref, before = run.id, [trace.answer for trace in run.traces()]
        seeds = [trace.calls[-1].detail["sampling"] for trace in run.traces()]
    assert sorted(filter(None, before)) == ["one", "two"] and sent == ["good", "bad"]
    replayed = as_recorded(send, ref)
    assert replayed.spec == send.spec and replayed is not send
    assert asyncio.run(replayed({"text": "good"})) == "sent good" and sent == ["good", "bad"]
    for text, said in (
        ("bad", "refused there"),
        ("new", "the replayed run holds no result of send with {'text': 'new'}"),
    ):
        with pytest.raises(ToolError) as refused:
            asyncio.run(replayed({"text": text}))
        assert str(refused.value) == said
    for effect, origin, is_same in (
        ("write", None, True),
        ("read", None, True),
        ("read", "web", False),
        ("write", "web", True),
        ("irreversible", None, False),
    ):
        made = replace(send, effect=effect, origin=origin)
        assert (as_recorded(made, ref) is made) is is_same
    models = recorded_models(ref, ["scripted:2", "scripted:1", "scripted:9"])
    assert [model.name for model in models] == ["scripted:2", "scripted:1", "scripted:9"]
    assert [model.fingerprint for model in models] == [agents[1].model.fingerprint, agents[0].model.fingerprint, ""]
    sampling = Sampling(**next(each for each in seeds if each["max_tokens"] == 9))
    (found,) = asyncio.run(models[0].complete([user("Q?")], sampling))
    assert found.message.text == "two"
    with pytest.raises(ModelError):
        asyncio.run(models[0].complete([user("another")], sampling))


def test_a_replayed_result_is_what_the_model_read_then_whole_and_for_the_arguments_as_it_gave_them() -> None:
    @tool(effect="external", name="page")
    def read_page(number: int) -> str:
        """Read a page."""
        return f"page {number} " * 20

    page = replace(read_page, max_chars=30)
    told: list[str] = []

    async def reading(task: Task, ctx: Context) -> str:
        told.append((await ctx.call(ToolCall("1", "page", {"number": "4"}))).content)
        return "done"

    benchmark = Benchmark("own", lambda seed: [Task("t", "Q?")], (exact,))
    with Experiment([Agent("a", Scripted([]), reading, tools=(page,), approval=ALLOW_ALL)], benchmark).run() as run:
        (trace,) = run.traces()
        run.journal(f"{trace.place}/9").record(
            ":7", tool_request(ToolCall("", "page", {"number": 5})), {"started": True}
        )
        ref = run.id
    replayed = as_recorded(page, ref)
    assert told[0] == "page 4 page 4 page 4 page 4 pa\n[cut after 30 of 140 characters]"
    assert asyncio.run(replayed({"number": "4"})) == told[0]
    with pytest.raises(ToolError, match=r"holds no result of page with .'number': 4."):
        asyncio.run(replayed({"number": 4}))
    with pytest.raises(ToolError, match=r"holds no result of page with .'number': 5."):  # it began, and never ended
        asyncio.run(replayed({"number": 5}))


def test_judges_answer_what_was_recorded_and_plain_scorers_stay() -> None:
    retry = Retry(1)
    likely = Scripted(
        score=lambda prompt, text: math.log(0.5 if text.strip() == "[[7]]" else 0.05), name="scripted:judge"
    )
    rated: Any = judged_by(rubric(judge="scripted:echo"), likely, retry=retry)  # type: ignore[arg-type]
    facts: Any = faithfulness(judge="scripted:echo", how="text")
    checker = Scripted(lambda *_: "1. It is.\nyes", name="scripted:facts")
    facts = replace(facts, agent=replace(facts.agent, model=checker, retry=retry))

    async def reads(task: Task, ctx: Context) -> str:
        return (await ctx.say(task.prompt).generate()).text

    benchmark = Benchmark("own", lambda seed: [Task("t", "Q?")], (exact, rated, facts))
    with Experiment([Agent("a", Scripted(["an answer"]), reads)], benchmark).run() as run:
        (trace,) = run.traces()
        ref = run.id
    made = with_recorded_judges(benchmark, ref)
    assert (
        made.scorers[0] is exact and isinstance(made.scorers[1], JudgeScorer) and isinstance(made.scorers[2], RagJudge)
    )
    assert replace(made, scorers=()) == replace(benchmark, scorers=())
    judges = [made.scorers[1].agent, made.scorers[2].agent]
    assert [(each.model.name, each.model.fingerprint) for each in judges] == [
        (each.agent.model.name, each.agent.model.fingerprint) for each in (rated, facts)
    ]
    assert judges[0].retry == retry == judges[1].retry and judges[1].options == facts.agent.options
    assert [type(each.model) for each in judges] == [Replay, Replay]
    asked = len(likely.asked)
    again = asyncio.run(made.scorers[1](Task("t", "Q?"), trace))
    kept = trace.score("rubric")
    assert kept is not None and (again.value, again.failed) == (kept.value, False) and len(likely.asked) == asked > 0
    other = asyncio.run(made.scorers[1](Task("t", "Another?"), trace))
    assert other.unjudged


def test_a_replay_by_names_asks_nobody_and_opens_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = RunSettings(("arithmetic:levels=1:tasks=2",), ("scripted:echo",), approve=("external=deny",))
    with Experiment.from_settings(settings).run() as run:
        ref = run.id
    (agent,) = make_agents(replace(settings, replay=ref))
    assert agent.approval == ALLOW_ALL and agent.model.name == "scripted:echo" and not isinstance(agent.model, Scripted)
    assert [each.name for each in agent.own_tools] == ["calculator"]
    with Experiment.from_settings(replace(settings, replay=ref)).run() as again, open_run(ref, data_home()) as run:
        answers, kept = ({each.task_id: each.answer for each in one.traces()} for one in (again, run))
        assert len(kept) == 2 and answers == kept
        assert again.config["replay"] == ref

    class Source:
        name = "box"
        tools = ()

        async def open(self) -> None: ...

        async def close(self) -> None: ...

    source: Any = Source()
    with pytest.raises(ConfigError) as refused:
        _expect_replayable((send, source))
    assert str(refused.value) == "a replay opens nothing, and box is opened for each attempt: leave it out"


@pytest.mark.slow
def test_what_was_recorded_is_given_whole_and_a_missing_one_named_in_short() -> None:
    @tool(effect="external")
    def whole(page: str, times: int = 1) -> str:
        """Read."""
        return page * times

    read = replace(whole, spec=replace(whole.spec, name="read"), max_chars=9)

    async def reads(task: Task, ctx: Context) -> str:
        return str((await ctx.call(ToolCall("1", "read", {"page": "ab", "times": 20}))).content)

    agent = Agent("a", Scripted([]), reads, tools=(read,), approval=ALLOW_ALL)
    with Experiment([agent], Benchmark("own", lambda seed: [Task("t", "Q?")], ())).run() as run:
        (trace,) = run.traces()
        replayed = as_recorded(read, run.id)
        assert (replayed.max_chars > 10**9, replayed.name, replayed.effect) == (True, "read", "external")
        kept = asyncio.run(replayed({"page": "ab", "times": 20}))
        assert kept == trace.answer and len(kept) > 9, "what was cut then is not cut again"
        for arguments in ({"page": "ab"}, {"page": "x" * 300}):
            with pytest.raises(ToolError) as refused:
                asyncio.run(replayed(arguments))
            assert str(refused.value) == f"the replayed run holds no result of read with {str(arguments)[:200]}"


@pytest.mark.slow
def test_a_replay_asks_no_judge_of_any_of_its_benchmarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.json").write_text('{"": "an answer"}')
    Path("j.json").write_text('{"": "[[3]]"}')
    names = ("one", "two", "three")
    for name in names:
        Path(f"{name}.jsonl").write_text(f'{{"question": "{name}?", "answer": "x"}}\n')
        Path(f"{name}.toml").write_text(
            f'data = "{name}.jsonl"\nprompt = "{{question}}"\ntarget = "{{answer}}"\n'
            'scorer = "rubric:judge=scripted:j.json:low=0:high=4"\n'
        )
    settings = RunSettings(tuple(f"{name}.toml" for name in names), ("scripted:s.json",), tools=("none",))
    with Experiment.from_settings(settings).run() as run:
        ref, before = run.id, {trace.benchmark: trace.value() for trace in run.traces()}
    assert before.keys() == {*names} and None not in before.values()
    for replay, asks in ((None, True), (ref, False)):
        made = Experiment.from_settings(replace(settings, replay=replay))
        assert [each.name for each in made.benchmarks] == list(names)
        judges: list[Any] = [scorer for each in made.benchmarks for scorer in each.scorers]
        assert [isinstance(each.agent.model, Scripted) for each in judges] == [asks] * 3
    with Experiment.from_settings(replace(settings, replay=ref)).run() as again:
        assert {trace.benchmark: trace.value() for trace in again.traces()} == before
