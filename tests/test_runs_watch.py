"""Who listens is told every step, changes nothing, and a terminal shows the attempt while it runs and is left as it was."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import tiny
from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.cli import main
from firsthand.context import Context
from firsthand.loop.budget import Limits
from firsthand.loop.concurrency import Retry
from firsthand.loop.listener import Added, Began, Piece, Step
from firsthand.message import ToolCall, user
from firsthand.model import Sampling
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place, rollout
from firsthand.runs.store import open_run
from firsthand.show.live_tree import Progress, Watch, watching, window
from firsthand.show.trace_tree import StyledText
from firsthand.task import Task
from firsthand.tool import tool
from firsthand.trace import Call, Event, Node, Trace

TASK = Task("1", "Go on.")
HOSTILE = "\x1b[2J\x1b]0;owned\x07 \u202eevil\r\n\x9b31m"


def said(messages: Any, sampling: Sampling, index: int) -> str:
    return f"{len(messages)} {sampling.seed} {index} and more"


@tool(effect="read")
def echo(text: str) -> str:
    """Return the text."""
    return text + HOSTILE


async def everything(task: Task, ctx: Context) -> str:
    """Branches, samples, tools, scores and notes."""
    ctx = ctx.say(task.prompt)

    async def branch(number: int) -> Context:
        end = await ctx.say(f"way {number}").generate()
        ctx.note("branch", name=f"way {number}", at=end.node, status="kept" if number else "pruned", score=number)
        return end

    ends = await ctx.group(branch(number) for number in range(2))
    ctx = ends[1].say(await ends[1].call(ToolCall("1", "echo", {"text": "hello"})))
    chains = await ctx.sample(3, temperature=1.0)
    ctx.note("vote", votes={chain.text: 1 for chain in chains})
    await ctx.score([" yes", " no"])
    return chains[0].text


def attempt(listener: Any = None, model: Any = None, **rest: Any) -> Trace:
    agent = Agent("a", model or Scripted(said), everything, tools=(echo,), retry=Retry(3, 0.001), **rest)
    return asyncio.run(rollout(agent, TASK, listener=listener))


def without_times(trace: Trace) -> Any:
    body = trace.to_json() | {"id": ""}
    for record in [body, *body["calls"], *body["events"]]:
        for key in ("started_at", "duration_s", "started_s", "at_s", "wait_s"):
            record.pop(key, None)
        record.get("data", {}).pop("wait_s", None)
    return body


def test_a_listener_is_told_everything_in_order_and_changes_nothing() -> None:
    steps: list[Step] = []
    trace = attempt(steps.append)
    assert without_times(trace) == without_times(attempt())
    assert [step.node for step in steps if isinstance(step, Added)] == list(trace.nodes)
    assert [step for step in steps if isinstance(step, Call)] == list(trace.calls)
    assert [step for step in steps if isinstance(step, Event)] == list(trace.events)
    for call in trace.calls:
        began = next(i for i, step in enumerate(steps) if isinstance(step, Began) and step.id == call.id)
        assert began < steps.index(call)
        streamed = "".join(step.text for step in steps if isinstance(step, Piece) and step.id == call.id)
        if call.kind == "generate":
            assert streamed == (trace.nodes[call.nodes[0]].message.text if len(call.nodes) == 1 else "")


@pytest.mark.slow
def test_what_our_engine_streams_is_what_it_answers(tmp_path: Path) -> None:
    tiny.write_model(tmp_path / "model", max_position=256)
    model = catalog.model(str(tmp_path / "model"))
    sampling = Sampling(max_tokens=6, temperature=1.0)
    heard: list[Step] = []
    watched, alone = attempt(heard.append, model, sampling=sampling), attempt(None, model, sampling=sampling)
    assert [node.message for node in watched.nodes] == [node.message for node in alone.nodes]
    assert sum(isinstance(step, Piece) for step in heard) >= 2


def test_a_listener_that_fails_is_reported_and_told_no_more(caplog: pytest.LogCaptureFixture) -> None:
    told = []

    def broken(step: Step) -> None:
        told.append(step)
        raise RuntimeError("no eyes")

    trace = attempt(broken)
    assert without_times(trace) == without_times(attempt()) and len(told) == 1
    assert "the listener of an attempt failed" in caplog.text and "no eyes" in caplog.text


def test_a_retry_begins_its_call_again_and_voids_what_was_streamed() -> None:
    steps: list[Step] = []
    trace = attempt(steps.append, Scripted(said, failures=1))
    first = [step for step in steps if isinstance(step, Began)]
    assert trace.error is None and len({began.id for began in first}) == len(first) - 1
    progress = Progress("x", Limits())
    for step in (Began(":0", "generate", None), Piece(":0", "old"), Began(":0", "generate", None), Piece(":0", "new")):
        progress.tell(step)
    assert progress.now() == ["▸ generate: new"]


def place(**rest: Any) -> Place:
    agent = Agent(f"a{HOSTILE}", Scripted(said), everything, tools=(echo,), **rest)
    return Place(agent, Benchmark("b", lambda seed: [TASK], ()), TASK)


def test_lines_say_each_step_and_nothing_drives_the_terminal() -> None:
    file = io.StringIO()
    where = place(limits=Limits(tokens=1000, calls=50, seconds=60))
    with watching(file) as watch:
        trace = attempt(watch.listener(where), limits=where.agent.limits)
        watch.ended(trace)
    text = file.getvalue()
    assert all(char.isprintable() or char == "\n" for char in text) and "\\x1b[2J" in text
    for index in range(len(trace.nodes)):
        assert f"#{index} " in text
    for expected in (
        "b / 1 / a", "  #3 user (after #0) way 1", '→ echo({"text": "hello"})', "← echo: hello", "branch ● way 1 kept 1 (#",
        "vote ", "950 of 1000 tokens left", "45 of 50 calls left", "seconds left", "tokens/s", "score, ", "= '",
    ):  # fmt: skip
        assert re.search(re.escape(expected).replace("950", r"\d+"), text), expected


def test_the_window_of_a_tall_tree_holds_its_newest_message() -> None:
    lines = [StyledText(0, "user", str(i), i if i != 30 else 999) for i in range(100)]
    shown = window(lines, 12)
    assert len(shown) == 12 and any(line.node == 999 for line in shown)
    assert window(lines[:5], 12) == lines[:5]
    assert len(window([StyledText(0, "note", "x")] * 50, 7)) == 7


def test_progress_under_way_can_be_drawn_at_any_step() -> None:
    progress = Progress("t", Limits(tokens=100))
    node = Node(None, user("hi"))
    for step in (Added(0, node), Began("0.1:0", "generate", 0, {"n": 8}), Began(":1", "tool", 0, {"name": "x\x1b"})):
        progress.tell(step)
        progress.status(), progress.now(), progress.trace()
    assert progress.now() == ["▸ generate 8 answers after #0:", "▸ x\\x1b(…)"]


# -- the command --

SLOW = r"""
import asyncio

async def slow(task, ctx):
    for step in range(40):
        ctx = await ctx.say(f"step {step}").generate()
        await asyncio.sleep(0.05)
    return ctx.text
"""


@pytest.fixture
def place_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "script.json").write_text(json.dumps({"": f"I say {HOSTILE}. The answer is 7."}))
    return tmp_path


RUN = ["run", "arithmetic:levels=1", "--limit", "2", "--model", "scripted:script.json", "--watch"]


@pytest.mark.slow
def test_in_a_pipe_there_is_a_line_a_step(place_to_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, "--pattern", "cot,self_consistency:samples=3"]) == 0
    out = capsys.readouterr().out
    assert out.count("= '7' (done), numeric 0") == 4 and out.count("#1 assistant") == 4
    assert re.search(r"votes? 7: 3", out) and "\x1b" not in out
    assert main([*RUN, "--json"]) == 2


@pytest.mark.slow
def test_ctrl_c_on_a_terminal_leaves_it_as_it_was_and_keeps_the_record(place_to_run: Path) -> None:
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "firsthand", *RUN, "--pattern", "slow.py"],
        stdin=child, stdout=child, stderr=child, start_new_session=True, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(child)
    received, began, interrupted = b"", time.monotonic(), False
    while True:
        try:
            piece = os.read(parent, 1 << 16)
        except OSError:  # how Linux says that the terminal was closed
            break
        if not piece:
            break
        received += piece
        assert time.monotonic() - began < 240
        if not interrupted and b"#3 " in received:
            process.send_signal(signal.SIGINT)
            interrupted = True
    os.close(parent)
    assert process.wait(timeout=120) == 130
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # nobody of its session is left
    text = received.decode()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") > 0  # the cursor is back
    assert "\x1b[2J" not in text and "\x1b]0;owned" not in text and "\\x1b[2J" in text
    assert "interrupted with 0 of 2 attempts done" in text
    with open_run("last", place_to_run / "home") as run:
        assert run.status == "interrupted" and len(run.database.read("SELECT 1 FROM effects")) >= 2
    assert main(["run", "--resume", "--json"]) == 0


@pytest.mark.slow
def test_a_reader_that_leaves_does_not_end_the_attempts(place_to_run: Path) -> None:
    command = f"{sys.executable} -m firsthand {' '.join(RUN)} --pattern cot | head -n 2"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""
    with open_run("last", place_to_run / "home") as run:
        assert len(run.done()) == 2


def test_a_watch_follows_one_attempt_after_the_other() -> None:
    file = io.StringIO()
    watch = Watch(file)
    for number in range(2):
        trace = attempt(watch.listener(place()))
        watch.ended(trace)
        assert file.getvalue().count("b / 1 / a") == number + 1
