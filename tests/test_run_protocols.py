"""A run's protocols and what is wrong with its data stay with it, and its first agent stays the baseline."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from firsthand import Agent, Benchmark, Experiment, Task
from firsthand.cli import main
from firsthand.commands.print_run import protocol_lines
from firsthand.patterns.cot import cot
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.runs.store import open_run
from firsthand.scorers.match import exact
from firsthand.show.board import leaderboard

LEAK = "LEAK: the prompt contains the target in 1 of 2 rows (line 2)"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    Path("leaky.csv").write_text("country,capital\nParis in France,Paris\nPeru,Lima\n")
    Path("leaky.toml").write_text(
        'data = "leaky.csv"\nprompt = "What is the capital of {country}?"\ntarget = "{capital}"\n'
    )
    return tmp_path / "home"


@pytest.mark.slow
def test_every_view_of_a_run_tells_its_protocol_and_its_leaks(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "./leaky.toml", "--model", "scripted:echo"]) == 0
    with open_run("last", home) as run:
        report = (run.path / "report.html").read_text()
        protocol = run.protocols["leaky"]
    assert LEAK in protocol and "leaky.csv, 2 rows" in protocol

    def shown(*words: str) -> str:
        capsys.readouterr()
        assert main([*words]) == 0
        return capsys.readouterr().out

    assert report.count(LEAK) == 2  # below the board and in the foot
    for words in (["show", "last"], ["summary", "last"], ["summary", "last", "--by", "country"]):
        assert f"protocol  leaky: {protocol}" in shown(*words)
    assert [board["protocol"] for board in json.loads(shown("show", "last", "--json"))] == [protocol]
    assert [line["protocol"] for line in json.loads(shown("summary", "last", "--json"))] == [protocol]
    assert json.loads(shown("summary", "last", "--by", "country", "--json"))["protocols"] == {"leaky": protocol}


def test_an_experiment_from_python_keeps_its_protocols(home: Path) -> None:
    benchmark = Benchmark("mine", lambda seed: [Task("1", "?", secret={"answer": "x"})], (exact,), protocol="as said")
    with Experiment([Agent("a", Scripted(lambda *_: "x"), direct)], benchmark).run() as run:
        assert run.protocols == {"mine": "as said"}


def test_the_agent_named_first_is_the_baseline_whichever_attempt_came_first() -> None:
    import asyncio

    benchmark = Benchmark("b", lambda seed: [], (exact,))
    task = Task("1", "?", secret={"answer": "x"})

    def trace(name: str, pattern: Any) -> Any:
        return asyncio.run(rollout(Agent(name, Scripted(lambda *_: "x"), pattern), task, benchmark=benchmark))

    second, first = trace("cot", cot), trace("direct", direct)
    (board,) = leaderboard([second, first], order=["direct", "cot", "react"])
    assert board.baseline == "direct"
    (board,) = leaderboard([second, first])
    assert board.baseline == "cot"


def test_after_an_interruption_the_baseline_is_still_the_agent_named_first(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first agent's attempt at the first task is the one that is still missing when Ctrl-C comes."""
    from firsthand.commands import run as command

    Path("script.json").write_text(json.dumps({"step by step": "The answer is 1", "": "2"}))
    words = ["run", "arithmetic", "--limit", "3", "--model", "scripted:script.json", "--pattern", "direct,cot"]

    async def interrupted(experiment: Experiment, run: Any, config: Any) -> None:
        await experiment.attempt_async(run)
        with run.database.write() as connection:
            first = experiment.places()[0].id
            connection.execute("DELETE FROM traces WHERE attempt = ?", (first,))
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "attempt", interrupted)
    assert main([*words, "--json"]) == 130
    body = json.loads(capsys.readouterr().out)
    assert [(board["baseline"], len(board["rows"])) for board in body["boards"]] == [("direct", 2)]


@pytest.mark.slow
@pytest.mark.parametrize("columns", [40, 80])
def test_a_protocol_is_folded_at_words_on_a_terminal(
    columns: int, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["run", "./leaky.toml", "--model", "scripted:echo"]) == 0
    capsys.readouterr()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["show", "last"]) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    protocol = text[text.index("protocol") : text.index(" is done;")].splitlines()[:-1]
    assert all(len(line) <= columns for line in protocol) and len(protocol) > 1
    assert LEAK in " ".join(line.strip() for line in protocol)
    stream.seek(0)
    stream.truncate()
    assert main(["summary", "last"]) == 0 and main(["board", "last"]) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    for told in ("An attempt without a score", "Ranks hold together"):
        line = next(line for line in text.splitlines() if line.startswith(told))
        assert len(line) <= columns


@pytest.mark.slow
def test_one_task_is_called_this_one(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for limit, end in (("1", "this one.\n"), ("2", "these.\n")):
        capsys.readouterr()
        assert main(["run", "arithmetic", "--model", "scripted:echo", "--limit", limit]) == 0
        assert f"Brackets are 95% CIs of the true score on tasks like {end}" in capsys.readouterr().out


def test_a_benchmark_that_does_not_say_its_protocol_has_no_empty_line() -> None:
    assert protocol_lines({"mine": "", "sums": "0-shot"}) == ["protocol  sums: 0-shot"]
