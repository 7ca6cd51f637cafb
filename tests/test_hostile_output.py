"""A run whose every text is hostile: no command lets it steer the terminal, and its JSON still says what was said."""

from __future__ import annotations

import asyncio
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.padding import Padding
from rich.text import Text

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.context import Context
from firsthand.message import ToolCall, assistant
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place
from firsthand.runs import store
from firsthand.runs.execute import execute
from firsthand.system.terminal import console, print_as_json, print_table, progress
from firsthand.task import Task
from firsthand.trace import Score, Trace

HOSTILE = (
    "\x1b]52;c;cm0gLXJm\x07\x1b]0;title\x1b\\\x1b[2J\x1b[1A\x1bP$q\x1b\\\x9b31m\x9d8;;x\x9c\x7f\x08\r\x00"
    "\u202egnp\u2066\u200f\ufeff[/red][link=http://x]y[/link]"
)
"""Clipboard, title, clearing, moving, a device query, C1 controls, DEL, directions, and markup of rich."""
OURS = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[[0-9]*[AGK]|\r")
"""Colours, the cursor and what redraws a progress bar."""

Cli = Callable[..., tuple[int, str, str]]


async def pattern(task: Task, ctx: Context) -> str:
    """Asks once, under a role that is none, notes something, and calls a tool that is not there."""
    ctx = ctx.say(task.question).say(HOSTILE, HOSTILE)  # type: ignore[arg-type]  # as a stored trace may have it
    ctx, message = await ctx.generate()
    ctx.note(HOSTILE, **{HOSTILE: HOSTILE})
    ctx.note("branch", name=HOSTILE, at=0, status=HOSTILE, score=0.5, text=HOSTILE)
    return message.text


def graded(task: Task, trace: Trace) -> Score:
    """Differs between the agents and the epochs."""
    return Score(HOSTILE, float((trace.epoch + len(trace.agent_name)) % 2), {"why": HOSTILE, "confidence": 0.5})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two agents, one of whose models fails, at four tasks in two epochs."""
    home = tmp_path_factory.mktemp("home")

    def reply(messages: object, sampling: object, index: int) -> object:
        if index == 3:
            raise RuntimeError(HOSTILE)
        return assistant(HOSTILE, ToolCall(HOSTILE, HOSTILE, {HOSTILE: HOSTILE}))

    tasks = [
        Task(f"{n}{HOSTILE}", HOSTILE, metadata={"kind": HOSTILE, "cluster": f"{n % 2}{HOSTILE}"}) for n in range(4)
    ]
    sums = Benchmark(HOSTILE, lambda seed: tasks, (graded,))
    agents = [Agent(f"{name}{HOSTILE}", Scripted(reply, name=f"scripted{HOSTILE}"), pattern) for name in ("a", "bb")]
    with store.create(home, {"model": HOSTILE}, "hostile", command=["firsthand", HOSTILE]) as run:
        places = [Place(agent, sums, task, epoch) for agent in agents for task in tasks for epoch in range(2)]
        asyncio.run(execute(run, places))
    return home


COMMANDS = [
    "runs", "runs last", "show last", "show last TRACE", "show last TRACE --full", "summary last", "summary last --by kind",
    "compare last", "compare last last --agent-a A --agent-b BB",
    "compare last last --agent-a A --agent-b BB --diff --flaky",
    "gate last last --agent-a A --agent-b BB --max-drop 1%", "show none", "summary last --by none",
]  # fmt: skip


@pytest.fixture
def words(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], list[str]]]:
    """The words of a command line about the run."""
    monkeypatch.setenv("FIRSTHAND_HOME", str(home))
    with store.open_run("last", home) as run:
        trace = next(run.traces())
        agents = list(run.agents())
    named = {"TRACE": trace.id, "A": agents[0], "BB": agents[1]}
    yield lambda command: [named.get(word, word) for word in command.split()]


def steering(text: str) -> set[str]:
    return {char for char in text if not char.isprintable() and char not in "\n\t"}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_lets_a_text_steer_the_terminal(cli: Cli, words: Callable[[str], list[str]], command: str) -> None:
    code, out, err = cli(*words(command))
    assert code in (0, 1, 2, 4) and (out or err) and "Traceback" not in err
    assert not steering(out) | steering(err)
    if code in (0, 4):
        assert r"\x1b" in out or r"\u202e" in out or "?" in out, "the texts are shown, escaped"


@pytest.mark.parametrize("command", [each for each in COMMANDS if not re.search("diff|none|full", each)])
def test_json_is_inert_and_says_what_was_said(cli: Cli, words: Callable[[str], list[str]], command: str) -> None:
    code, out, err = cli(*words(command), "--json")
    assert code in (0, 1, 4), err
    assert not steering(out) | steering(err)
    assert json.dumps(HOSTILE)[1:20] in json.dumps(json.loads(out))


def test_json_stays_the_same_data(capsys: pytest.CaptureFixture[str]) -> None:
    body = {HOSTILE: [HOSTILE, "\U000e0041\u2028é漢 \ud800", 1.5, None]}
    print_as_json(body)
    out = capsys.readouterr().out
    assert json.loads(out) == body and "é漢" in out and not steering(out)


def test_whatever_our_console_prints_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    console().print(Text(HOSTILE, "bold"), HOSTILE, Padding(HOSTILE), markup=False, soft_wrap=True)
    out = capsys.readouterr().out
    assert not steering(out) and out.count(r"\x1b]52;c;cm0gLXJm") == 3


def test_a_name_of_a_megabyte_is_cut_in_tables(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("t" * 10**6, ["h" * 10**6, HOSTILE], [["c" * 10**6, HOSTILE]])
    out = capsys.readouterr().out
    assert len(out) < 20_000 and out.count("more") >= 2 and not steering(out)


class Screen(io.StringIO):
    """A terminal's stand-in."""

    def isatty(self) -> bool:
        return True


@pytest.mark.slow
def test_on_a_terminal_only_our_own_sequences_are_left(
    words: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from firsthand.cli import main

    monkeypatch.setenv("TERM", "xterm-256color")
    for command in COMMANDS:
        screen = Screen()
        monkeypatch.setattr(sys, "stdout", screen)
        main(words(command))
        assert not steering(OURS.sub("", screen.getvalue())), command


def test_a_progress_bar_reads_no_markup_and_obeys_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "400")
    with progress(HOSTILE, 3) as update:
        for done in range(4):
            update(done, note=HOSTILE + "\n")
    left = OURS.sub("", screen.getvalue())
    assert not steering(left) and "[/red]" in left and "\x1b]" not in screen.getvalue()
