"""What if: an attempt goes on from any of its steps, with the parent's replies up to there and none asked again."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tiny
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.loop.approval import Approval
from firsthand.loop.budget import Limits
from firsthand.loop.journal import MemoryJournal
from firsthand.message import Json, ToolCall, assistant
from firsthand.model import Sampling
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.runs.forking import Fork, fork, kept_calls
from firsthand.runs.store import open_run
from firsthand.task import Task
from firsthand.tool import Tool, tool
from firsthand.trace import Score, Trace

ALLOW = Approval({"irreversible": "allow"})
TASK = Task("1", "Go.", secret={"answer": "x"})


def said(messages: Any, sampling: Sampling, index: int) -> str:
    return f"{len(messages)} {sampling.seed} {index}"


def other(messages: Any, sampling: Sampling, index: int) -> str:
    return f"other {len(messages)} {messages[0].text}"


@tool(effect="irreversible")
def send(text: str) -> str:
    """Send a text."""
    SENT.append(text)
    return f"sent {text}"


SENT: list[str] = []


class Ledger:
    """An Environment whose `write` tool changes what it holds."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @property
    def tools(self) -> Sequence[Tool]:
        @tool(effect="write")
        def book(text: str) -> str:
            """Book a line."""
            self.lines.append(text)
            return str(len(self.lines))

        return (book,)

    async def open(self) -> None: ...

    async def final_state(self) -> Json:
        return {"lines": self.lines}

    async def close(self) -> None: ...


BENCHMARK = Benchmark(
    "b", lambda seed: [TASK], (lambda task, trace: Score("lines", len(trace.final_state["lines"])),),
    environment=lambda task: Ledger(),
)  # fmt: skip


async def busy(task: Task, ctx: Context) -> str:
    """Think, book, branch, send, and end."""
    ctx = await ctx.say(task.prompt).generate()
    ctx = ctx.say(await ctx.call(ToolCall("1", "book", {"text": "first"})))

    async def branch(number: int) -> Context:
        here = ctx.say(f"way {number}")
        for _ in range(2):
            here = await here.generate(temperature=1.0)
        return here

    ends = await ctx.group(branch(number) for number in range(2))
    ctx = ctx.say(await ctx.call(ToolCall("2", "send", {"text": ends[0].text})))
    ctx = ctx.say(await ctx.call(ToolCall("3", "book", {"text": "second"})))
    return (await ctx.generate()).text


def agent(model: Any = None, pattern: Any = busy, **rest: Any) -> Agent:
    return Agent("a", model or Scripted(said), pattern, tools=(send,), approval=ALLOW, **rest)


@pytest.fixture
def parent() -> Trace:
    SENT.clear()
    return asyncio.run(rollout(agent(), TASK, benchmark=BENCHMARK, seed=4))


def forked(parent: Trace, at: int, who: Agent, **rest: Any) -> Trace:
    journal = rest.pop("journal", None)
    return asyncio.run(fork(Fork(parent, at, who, **rest), TASK, benchmark=BENCHMARK, journal=journal))


def plain(trace: Trace) -> Any:
    return [(call.id, call.kind, call.request, call.detail, call.usage) for call in trace.calls]


@pytest.mark.slow
def test_a_fork_that_changes_nothing_is_the_parent_from_any_step_and_asks_for_no_kept_call(parent: Trace) -> None:
    for at in range(len(parent.nodes)):
        model = Scripted(said)
        again = forked(parent, at, agent(model))
        kept = kept_calls(parent, at)
        assert plain(again) == plain(parent) and again.nodes == parent.nodes and again.answer == parent.answer
        assert {call.id for call in again.calls if call.replayed} == kept.keys()
        assert len(model.asked) == sum(call.kind == "generate" for call in parent.calls if call.id not in kept)
        assert again.scores == parent.scores and again.final_state == {"lines": ["first", "second"]}
        assert again.origin is not None and (again.origin.trace, again.origin.at) == (parent.id, at)
        assert again.place != parent.place and again.id != parent.id


def test_another_model_goes_on_after_what_the_parent_had_said(parent: Trace) -> None:
    at = next(call for call in parent.calls if call.id == "0.1:0").nodes[0]
    SENT.clear()
    model = Scripted(other, name="scripted:other")
    trace = forked(parent, at, agent(model))
    assert [message.text for message in trace.messages(at)] == [message.text for message in parent.messages(at)]
    assert trace.answer is not None and trace.answer.startswith("other")
    assert all(asked.prompt[1].text == parent.nodes[1].message.text for asked in model.asked)  # type: ignore[union-attr]
    assert len(SENT) == 1  # it came after the step, so it is what this attempt does itself


def test_what_was_sent_before_the_step_is_not_sent_again(parent: Trace) -> None:
    assert len(SENT) == 1
    after = next(i for i, node in enumerate(parent.nodes) if node.message.text.startswith("sent"))
    for changes in ({"model": Scripted(other)}, {"pattern": reply}, {"system": "Be brief."}):
        trace = forked(parent, after, agent(**changes))
        assert len(SENT) == 1 and trace.error is None


def test_another_pattern_begins_where_the_conversation_stands_and_in_its_world(parent: Trace) -> None:
    async def ask_on(task: Task, ctx: Context, *, words: str) -> str:
        assert task.secret == {}
        return (await ctx.say(words).generate()).text

    at = len(parent.nodes) - 2
    model = Scripted(other)
    trace = forked(parent, at, agent(model, ask_on, options={"words": "And now?"}))
    (asked,) = model.asked
    assert [message for message in asked.prompt[:-1]] == list(parent.messages(at))  # type: ignore[union-attr]
    assert asked.prompt[-1].text == "And now?"  # type: ignore[union-attr]
    assert trace.final_state == {"lines": ["first", "second"]}  # booked again, by the replayed `write` calls
    assert trace.agent["pattern"] == "ask_on" and trace.nodes[: at + 1] != ()


def test_words_are_put_in_and_a_system_message_is_exchanged(parent: Trace) -> None:
    model = Scripted(other)
    trace = forked(parent, 1, agent(model, reply, system="You are brief."), say="Shorter!")
    assert [message.text for message in model.asked[0].prompt] == [  # type: ignore[union-attr]
        "You are brief.", "Go.", parent.nodes[1].message.text, "Shorter!",
    ]  # fmt: skip
    assert trace.answer == "other 4 You are brief."


def test_limits_count_what_the_parent_had_used_and_another_seed_changes_what_follows(parent: Trace) -> None:
    at = parent.calls[0].nodes[0]
    other_seed = forked(parent, at, agent(), seed=9)
    assert other_seed.nodes[at] == parent.nodes[at] and other_seed.answer != parent.answer
    short = forked(parent, at, agent(limits=Limits(calls=3)))
    assert short.stop_reason == "calls" and len(short.calls) == 3


def test_a_fork_of_a_fork(parent: Trace) -> None:
    first = forked(parent, 1, agent(Scripted(other)))
    second = forked(first, len(first.nodes) - 1, agent(Scripted(other)))
    assert second.nodes == first.nodes and second.origin is not None and second.origin.trace == first.id


def test_an_interrupted_fork_asks_nothing_twice(parent: Trace) -> None:
    journal = MemoryJournal()
    whole = forked(parent, 3, agent(Scripted(other)), journal=journal)
    model = Scripted(other)
    again = forked(parent, 3, agent(model), journal=journal)
    assert model.asked == [] and plain(again) == plain(whole) and again.place == whole.place


@pytest.mark.parametrize("at", [-1, 99])
def test_a_step_that_is_not_there_is_refused(parent: Trace, at: int) -> None:
    with pytest.raises(ConfigError, match=rf"has no step {at}: its steps are 0 to {len(parent.nodes) - 1}"):
        Fork(parent, at, agent())


def test_a_step_whose_results_are_still_to_come_is_refused_where_words_follow(parent: Trace) -> None:
    async def native(task: Task, ctx: Context) -> str:
        return ctx.say("go").say(assistant("", ToolCall("1", "send", {"text": "x"}))).text

    trace = asyncio.run(rollout(Agent("a", Scripted(), native), TASK))
    assert Fork(trace, 1, Agent("a", Scripted(), native)).again
    with pytest.raises(ConfigError, match="at step 1 the result of send is still to come"):
        Fork(trace, 1, agent(pattern=reply))


def test_a_pattern_that_has_changed_since_is_noticed(parent: Trace) -> None:
    async def changed(task: Task, ctx: Context) -> str:
        return (await ctx.say("Something else.").generate()).text

    changed.__name__ = "busy"
    with pytest.raises(ConfigError, match="did not come to the fork by the parent's way"):
        forked(parent, len(parent.nodes) - 1, agent(pattern=changed))


def test_our_engine_computes_no_prefix_of_the_parent_twice(tmp_path: Path) -> None:
    from firsthand import catalog

    tiny.write_model(tmp_path / "model", max_position=512)
    model = catalog.model(str(tmp_path / "model"))

    async def turns(task: Task, ctx: Context) -> str:
        for turn in range(4):
            ctx = await ctx.say(f"turn {turn}").generate(temperature=1.0, max_tokens=12)
        return ctx.text

    async def both() -> tuple[Trace, Trace]:
        who = Agent("a", model, turns)
        parent = await rollout(who, TASK)
        return parent, await fork(Fork(parent, 5, replace(who, pattern=reply), say="Why?"), TASK)

    parent, trace = asyncio.run(both())
    (call,) = trace.calls
    assert [node.message for node in trace.nodes[:6]] == [node.message for node in parent.nodes[:6]]
    assert all(trace.nodes[i].message.sampled for i in (1, 3, 5))
    assert call.usage.cached_tokens >= parent.calls[2].usage.prompt_tokens
    assert call.usage.prompt_tokens - call.usage.cached_tokens < 30


# -- the command --


@pytest.fixture
def cli(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run of react and cot is there; runs a command line and gives exit code, output and errors."""
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    script = {"Shorter": "12", "step by step": "The answer is 50.", "Observation": "Final Answer: 7"}
    Path("script.json").write_text(json.dumps(script | {"Question": "Action: calculator[3 * 4]"}))

    model = ["--model", "scripted:script.json"]
    assert cli("run", "arithmetic:levels=1:tasks=3", "--pattern", "react,cot", *model)[0] == 0
    return cli


@pytest.mark.slow
def test_the_command_forks_shows_compares_and_forks_again(cli: Any, tmp_path: Path) -> None:
    with open_run("last", tmp_path / "home") as run:
        parent = run.trace("arithmetic/seed0-level1-0000/react")
        last_step = len(parent.nodes) - 1
    code, out, err = cli("fork", "arithmetic/seed0-level1-0000/react", "--at", str(last_step), "--say", "Shorter!")
    assert (code, err) == (0, "")
    assert f"forked from {run.id} {parent.id} at step {last_step}" in out and "Shorter!" in out
    assert "parent   react: '7' (done), numeric 0" in out and "fork     reply: '12' (done), numeric 0" in out
    compare = re.search(r"^compare  firsthand (compare .*)$", out, re.MULTILINE)
    assert compare is not None
    code, out, _ = cli(*compare[1].split())
    assert code == 0 and "inconclusive" in out
    with open_run("last", tmp_path / "home") as run:
        (trace,) = run.traces()
        assert trace.origin is not None and trace.origin.trace == parent.id and run.status == "done"
    code, out, _ = cli("fork", trace.place[:8], "--at", "9", "--pattern", "cot", "--json")
    assert code == 0 and json.loads(out)["origin"]["trace"] == trace.id and json.loads(out)["answer"] == "50"
    code, out, _ = cli("show", "last", "arithmetic")
    assert code == 0 and f"forked from {run.id} {trace.id} at step 9" in out
    code, out, _ = cli("fork", trace.place[:8], "--run-that-is-not", "--at", "9")
    assert code == 2
    code, out, _ = cli("fork", run.id, trace.place[:8], "--at", "9", "--pattern", "cot", "--watch")
    assert code == 0 and out.startswith("arithmetic / seed0-level1-0000 / cot / epoch 0\n#0 user")
    assert cli("fork", "--resume")[0] == 0 and cli("runs")[0] == 0


MISTAKES = [
    ("fork", "name an attempt: firsthand fork RUN TRACE --at STEP"),
    ("fork arithmetic/seed0-level1-0000/cot", "no step was given: add --at STEP; `firsthand show arithmetic/"),
    ("fork arithmetic/seed0-level1-0000/cot --at 7", "has no step 7: its steps are 0 to 1"),
    ("fork nothing --at 0", "no attempt 'nothing'"),
    ("fork missing nothing --at 0", "no run 'missing'"),
    ("fork arithmetic/seed0-level1-0000/cot --at 0 --pattern coot", "did you mean 'cot'"),
    ("fork --resume --at 3", "leave the other settings out"),
    ("fork --resume", "is no fork: `firsthand run --resume"),
]


@pytest.mark.slow
def test_a_mistake_is_one_line_and_leaves_no_run(cli: Any, tmp_path: Path) -> None:
    for words, expected in MISTAKES:
        code, _, err = cli(*words.split())
        assert (code, err.count("\n")) == (2, 1) and expected in err, words
    assert len(list((tmp_path / "home" / "runs").glob("*/"))) == 1


@pytest.mark.slow
def test_ctrl_c_keeps_what_a_fork_has_done_and_resume_finishes_it(cli: Any, tmp_path: Path) -> None:
    Path("slow.py").write_text(
        "import asyncio, os\n\nasync def slow(task, ctx):\n"
        "    for step in range(6):\n"
        "        ctx = await ctx.say(f'Question {step}').generate()\n"
        "        if step == 3 and os.path.exists('wait'):\n            await asyncio.sleep(60)\n"
        "    return ctx.text\n"
    )
    Path("wait").touch()
    words = ["fork", "arithmetic/seed0-level1-0000/cot", "--at", "1", "--pattern", "slow.py", "--watch"]
    child = subprocess.Popen(
        [sys.executable, "-m", "firsthand", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    for line in child.stdout:
        if "#9 assistant" in line:
            break
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    with open_run("last", tmp_path / "home") as run:
        assert run.status == "interrupted" and f"`firsthand fork --resume {run.id}` finishes it" in err
        assert child.returncode == 130 and len(run.database.read("SELECT 1 FROM effects")) == 4
    Path("wait").unlink()
    assert cli("fork", "--resume")[0] == 0
    with open_run("last", tmp_path / "home") as run:
        (trace,) = run.traces()
        assert run.status == "done" and [call.replayed for call in trace.calls] == [True] * 4 + [False] * 2
        assert len(run.database.read("SELECT 1 FROM effects")) == 6


@pytest.mark.slow
def test_a_benchmark_that_is_gone_is_named(cli: Any) -> None:
    Path("mine.py").write_text(
        "from firsthand.benchmarks.arithmetic import arithmetic\n\ndef mine():\n    return arithmetic(tasks=1)\n"
    )
    assert cli("run", "mine.py", "--pattern", "cot", "--model", "scripted:script.json")[0] == 0
    Path("mine.py").unlink()
    code, _, err = cli("fork", "arithmetic", "--at", "0")
    assert code == 2 and "no file 'mine.py'" in err


@pytest.mark.slow
def test_run_leaves_forks_to_fork(cli: Any) -> None:
    assert cli("fork", "arithmetic/seed0-level1-0000/cot", "--at", "0")[0] == 0
    code, _, err = cli("run", "--resume")
    assert code == 2 and "is a fork: `firsthand fork --resume" in err


# -- the pattern that goes on --


def test_reply_asks_the_question_first_where_nothing_was_said_and_calls_tools_only_where_some_were() -> None:
    model = Scripted(["It is 7."])
    trace = asyncio.run(rollout(Agent("a", model, reply, tools=(send,), system="Be brief."), TASK))
    assert trace.answer == "It is 7." and [node.message.role for node in trace.nodes] == ["system", "user", "assistant"]
    assert model.asked[0].tools == ()


def test_reply_goes_on_with_tools_and_ends_when_its_steps_do() -> None:
    SENT.clear()

    async def native(task: Task, ctx: Context) -> str:
        ctx = await ctx.say("go").generate(tools=ctx.tools)
        return ctx.say(await ctx.call(ctx.last.tool_calls[0])).text

    call = assistant("", ToolCall("1", "send", {"text": "x"}))
    parent = asyncio.run(rollout(Agent("a", Scripted([call]), native, tools=(send,), approval=ALLOW), TASK))
    model = Scripted([call, call, "Enough."])
    who = Agent("a", model, reply, {"max_steps": 2}, tools=(send,), approval=ALLOW)
    trace = asyncio.run(fork(Fork(parent, 2, who), TASK))
    assert trace.answer == "Enough." and SENT == ["x"] * 3
    assert [len(asked.tools) for asked in model.asked] == [1, 1, 0]
    assert trace.messages(len(trace.nodes) - 1)[-2].text == "No steps are left. Give the answer now."
    with pytest.raises(ConfigError, match="max_steps is 0"):
        asyncio.run(reply(TASK, None, max_steps=0))  # type: ignore[arg-type]
