"""The command line as a user meets it: what is printed, exit codes, one sentence for every mistake, nothing lost."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firsthand import catalog
from firsthand.commands.completion import complete
from firsthand.commands.run import Config
from firsthand.config import make_parser, parse, settings_of
from firsthand.runs.store import Run, create, open_run
from firsthand.trace import Trace
from thorough import part

SCRIPT = {"\\+": "The answer is 50.", "calculate|Question": "Final Answer: 7", "": "I think it is 12."}
RUN = ["run", "arithmetic:levels=1:tasks=6"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for runs, and a folder to work in that holds a script."""
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.json").write_text(json.dumps(SCRIPT))
    return tmp_path / "home"


def scripted(*words: str) -> list[str]:
    return [*RUN, "--model", "scripted:script.json", *words]


def last(home: Path) -> Run:
    return open_run("last", home)


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """What a command does in bash, with an output that Python buffers as it does for a user."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, env=environment)


FIRSTHAND = f"{sys.executable} -m firsthand"


# -- from run to comparison --


@pytest.mark.slow
def test_a_run_is_printed_listed_shown_and_compared(cli: Any, home: Path) -> None:
    code, out, err = cli(*scripted("--pattern", "direct,cot,self_consistency:samples=3,react"))
    assert (code, err) == (0, "")
    for expected in ("arithmetic: numeric, 6 tasks", "direct", "cot", "react", "report", "firsthand show", "--pattern"):
        assert expected in out
    with last(home) as run:
        assert len(run.done()) == 24 and run.status == "done"
        trace = next(run.traces(agent="react"))
    code, out, _ = cli("runs")
    assert code == 0 and run.id in out and "done" in out
    code, out, _ = cli("runs", "last", "--limit", "3")
    assert code == 0 and out.count("arithmetic/seed0") == 3
    code, out, _ = cli("show", "last")
    assert code == 0 and "arithmetic: numeric, 6 tasks" in out
    code, out, _ = cli("show", "last", trace.place[:8])
    assert code == 0 and trace.task_id in out and "What is" in out
    code, out, _ = cli("compare", "last", "last", "--agent-a", "direct", "--agent-b", "cot")
    assert code == 0 and "arithmetic" in out and "inconclusive" in out


@pytest.mark.slow
def test_json_is_one_document_with_its_fields(cli: Any, home: Path) -> None:
    code, out, err = cli(*scripted("--pattern", "direct,cot", "--json"))
    body = json.loads(out)
    assert (code, err) == (0, "") and body.keys() == {"run", "path", "status", "protocols", "boards"}
    assert body["status"] == "done" and Path(body["path"]).is_dir()
    [board] = body["boards"]
    assert (board["benchmark"], board["metric"], board["tasks"], board["baseline"]) == (
        "arithmetic",
        "numeric",
        6,
        "direct",
    )
    assert {row["agent"] for row in board["rows"]} == {"direct", "cot"}
    assert all({"score", "versus", "cost", "attempts", "errors"} <= row.keys() for row in board["rows"])
    assert json.loads(cli("show", "last", "--json")[1]) == body["boards"]
    listed = json.loads(cli("runs", "--json")[1])
    assert [each["id"] for each in listed] == [body["run"]] and listed[0]["num_traces"] == 12
    attempts = json.loads(cli("runs", "last", "--json")[1])
    assert len(attempts) == 12 and {"id", "benchmark", "task_id", "agent", "score", "tokens"} <= attempts[0].keys()
    shown = json.loads(cli("show", "last", attempts[0]["id"], "--json")[1])
    with last(home) as run:
        assert Trace.from_json(shown) == run.trace(attempts[0]["id"])
    [comparison, _] = json.loads(cli("compare", "last", "last", "--json")[1])
    fields = {
        "a",
        "b",
        "benchmarks",
        "tasks",
        "only_a",
        "only_b",
        "changed",
        "unscored",
        "flaky",
        "unmade",
        "evened",
        "retried",
    }
    assert fields == comparison.keys()
    kinds = json.loads(cli("list", "--json")[1])
    assert kinds.keys() == {
        "patterns", "benchmarks", "boards", "scorers", "tools", "guards", "memories", "models", "data", "chunkers",
        "options",
    }  # fmt: skip
    assert "gsm8k" in kinds["benchmarks"]


def test_the_report_is_one_file_that_needs_no_other(cli: Any, home: Path) -> None:
    cli(*scripted("--pattern", "direct,cot"))
    html = (last(home).path / "report.html").read_text()
    assert html.startswith("<!doctype html>") or html.startswith("<!DOCTYPE html>")
    assert "direct" in html and "firsthand run arithmetic" in html
    for outside in ("http://", "https://", "<script src", "<link", "@import", "url("):
        assert outside not in html.replace("http://www.w3.org", ""), outside


def test_attempts_that_fail_are_counted_told_in_a_line_and_exit_with_3(cli: Any, home: Path) -> None:
    Path("script.json").write_text(json.dumps({"\\+": "The answer is 50."}))
    code, out, err = cli(*scripted("--pattern", "direct"))
    assert code == 3 and "arithmetic: numeric" in out
    assert (
        err.count("\n") == 1 and "attempts failed, the first with ModelError: scripted:script.json has no reply" in err
    )
    with last(home) as run:
        assert 0 < sum(trace.error is not None for trace in run.traces()) < 6
    Path("script.json").write_text(json.dumps(SCRIPT))
    assert cli("run", "--resume", "--retry-errors")[0] == 1  # another script is another model
    code, _, err = cli("run", "--resume")
    assert code == 1 and "agent 'direct' is not the one" in err


@pytest.mark.slow
def test_errors_can_be_attempted_again(cli: Any, home: Path) -> None:
    Path("flaky.py").write_text(
        "import os\n"
        "async def flaky(task, ctx):\n"
        "    if os.path.exists('broken'):\n"
        "        raise ValueError('a fault\\nthat \\x1b[31mpasses')\n"
        "    return (await ctx.say(task.prompt).generate()).text\n"
    )
    Path("broken").touch()
    code, _, err = cli(*scripted("--pattern", "flaky.py"))
    assert (
        code == 3
        and err == "firsthand: 6 of 6 attempts failed, the first with ValueError: a fault that \\x1b[31mpasses\n"
    )
    Path("broken").unlink()
    assert cli("run", "--resume")[0] == 3  # what ended is not attempted again unless asked
    assert cli("run", "--resume", "--retry-errors")[0] == 0
    with last(home) as run:
        assert len(run.done(errors=False)) == 6


@pytest.mark.slow
def test_epochs_are_attempts_and_seeds_other_tasks(cli: Any, home: Path) -> None:
    cli(*scripted("--epochs", "3"))
    with last(home) as run:
        traces = list(run.traces())
        assert len(traces) == 18 and {trace.epoch for trace in traces} == {0, 1, 2}
        prompts = {task.prompt for task in run.tasks().values()}
    assert len(prompts) == 6
    cli(*scripted("--seed", "5", "--limit", "4"))
    with last(home) as run:
        assert len(run.done()) == 4 and not prompts & {task.prompt for task in run.tasks().values()}
        assert {trace.seed for trace in run.traces()} == {5}


def test_agents_of_several_models_are_named_after_both(cli: Any, home: Path) -> None:
    Path("other.json").write_text('{"": "12"}')
    words = [*RUN, "--model", "scripted:script.json,scripted:other.json", "--pattern", "direct,cot", "--limit", "2"]
    assert cli(*words)[0] == 0
    with last(home) as run:
        assert list(run.agents()) == [
            f"{pattern}@scripted:{script}.json" for script in ("script", "other") for pattern in ("direct", "cot")
        ]
        assert len(run.done()) == 8


@pytest.mark.slow
def test_the_quickstart_runs_four_agents_on_two_benchmarks(cli: Any, home: Path) -> None:
    code, out, err = cli("quickstart", "--model", "scripted:script.json", "--limit", "2")
    assert code == 0 and "arithmetic: numeric, 2 tasks" in out and "arc_easy" in out
    assert "firsthand run 'arithmetic" in err or "firsthand run arithmetic" in err
    with last(home) as run:
        assert len(run.done()) == 4 * 2 * 2 and "quickstart" in run.id
    board = json.loads(cli("quickstart", "--model", "scripted:script.json", "--limit", "1", "--json")[1])["boards"]
    assert [each["benchmark"] for each in board] == ["arithmetic", "arc_easy"]


def test_settings_come_from_toml_and_flags_override_them(cli: Any, home: Path) -> None:
    Path("run.toml").write_text(
        'benchmarks = ["arithmetic:levels=1:tasks=9"]\nmodel = ["scripted:script.json"]\nlimit = 5\nmax-tokens = 3\n'
    )
    assert cli("run", "--config", "run.toml", "--limit", "2")[0] == 0
    with last(home) as run:
        assert len(run.done()) == 2 and run.config["max_tokens"] == 3
    for text, expected in [
        ("benchmarks = 5", "benchmarks is 5: a list of words was expected"),
        ("limitt = 5", "did you mean 'limit'"),
        ("limit = [1]", "limit is [1]"),
        ("limit = ", "not valid TOML"),
        (f"limit = {'[' * 100_000}", "not valid TOML"),
    ]:
        Path("run.toml").write_text(text)
        code, out, err = cli("run", "--config", "run.toml")
        assert (code, out, err.count("\n")) == (2, "", 1) and expected in err


# -- resume and replay --


@pytest.mark.slow
def test_a_replay_gives_the_same_leaderboard_without_the_model(cli: Any, home: Path) -> None:
    patterns = "direct,cot,self_consistency:samples=3,react"
    first = json.loads(cli(*scripted("--pattern", patterns, "--json"))[1])
    Path("script.json").unlink()
    code, out, err = cli("run", "--replay", "last", "--json")
    again = json.loads(out)
    assert (code, err) == (0, "") and again["run"] != first["run"]
    assert without_seconds(again["boards"]) == without_seconds(first["boards"])
    code, out, _ = cli("run", "--replay", again["run"], "--json")  # a replay can be replayed
    assert code == 0 and without_seconds(json.loads(out)["boards"]) == without_seconds(first["boards"])


def without_seconds(boards: list[Any]) -> Any:
    """The boards without what depends on the moment: seconds, and which tokens another attempt had left in the cache."""

    def cleaned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: cleaned(each) for key, each in value.items() if not re.search("second|cached", key)}
        return [cleaned(each) for each in value] if isinstance(value, list) else value

    return cleaned(boards)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [["--seed", "4"], ["--temperature", "0.5"], ["--max-tokens", "9"], ["--system", "Hi"]]
)
def test_a_replay_of_something_else_fails_loudly(cli: Any, home: Path, change: list[str]) -> None:
    cli(*scripted())
    code, _, err = cli("run", "--replay", "last", *change)
    assert code == 3 and "6 of 6 attempts failed" in err and "holds no reply to" in err


def test_a_replay_can_be_narrowed(cli: Any, home: Path) -> None:
    cli(*scripted("--pattern", "direct,cot"))
    assert cli("run", "--replay", "last", "--limit", "2", "--pattern", "cot")[0] == 0
    with last(home) as run:
        assert len(run.done()) == 2 and list(run.agents()) == ["cot"]


SEND = '''
from firsthand.errors import ToolError
from firsthand.tool import tool

@tool(effect="irreversible")
def send(text: str) -> str:
    """Send a text for good."""
    with open("sent", "a") as file:
        file.write(text + "\\n")
    if "50" in text:
        raise ToolError("refused")
    return "sent"
'''
SENDER = """
from firsthand.message import ToolCall

async def sender(task, ctx, *, again: str = "") -> str:
    ctx = await ctx.say(task.prompt).generate()
    return (await ctx.call(ToolCall("1", "send", {"text": ctx.text + again}))).content
"""


@pytest.mark.slow
def test_a_replay_does_not_do_again_what_reached_outside(cli: Any, home: Path) -> None:
    Path("send.py").write_text(SEND)
    Path("sender.py").write_text(SENDER)
    assert cli(*scripted("--pattern", "sender.py", "--tools", "send.py", "--approve", "allow"))[0] == 0
    with last(home) as run:
        first = {trace.place: trace.answer for trace in run.traces()}
    assert len(Path("sent").read_text().splitlines()) == 6 and set(first.values()) == {"sent", "Error: refused"}
    assert cli("run", "--replay", run.id)[0] == 0
    with last(home) as again:
        assert {trace.place: trace.answer for trace in again.traces()} == first
    assert cli("run", "--replay", run.id, "--pattern", "sender.py:again=!")[0] == 0
    with last(home) as other:
        assert all((trace.answer or "").startswith("Error: the replayed run holds no") for trace in other.traces())
    assert len(Path("sent").read_text().splitlines()) == 6


SLOW = """
import asyncio, os, signal

async def slow(task, ctx, *, steps: int = 2) -> str:
    for step in range(steps):
        ctx = await ctx.say(f"{task.prompt} {step}").generate()
        while task.id[-1] > "1" and os.path.exists("hold"):  # all but the first two wait to be interrupted
            await asyncio.sleep(0.01)
        if os.path.exists("interrupt") and task.id.endswith("3"):
            os.remove("interrupt")
            os.kill(os.getpid(), signal.SIGINT)
    return ctx.text
"""


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_names_the_way_on_and_resume_finishes(cli: Any, home: Path) -> None:
    Path("slow.py").write_text(SLOW)
    Path("hold").touch()
    child = subprocess.Popen(
        [sys.executable, "-m", "firsthand", *RUN, "--model=scripted:script.json", "--pattern=slow.py:steps=9",
         "--concurrency=2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    began = time.monotonic()
    while not finished(home):
        assert time.monotonic() - began < 120 and child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=120)
    Path("hold").unlink()
    assert child.returncode == 130
    with last(home) as run:
        done = {trace.place: trace for trace in run.traces()}
        assert run.status == "interrupted" and 1 <= len(done) < 6
    assert f"interrupted with {len(done)} of 6 attempts done: `firsthand run --resume {run.id}` finishes them" in err
    assert err.count("\n") == 1 and "arithmetic: numeric" in out
    for change, expected in [(["--seed", "3"], "begun with seed 0, not 3"), (["--pattern", "cot"], "not cot")]:
        code, out, err = cli("run", "--resume", *change)
        assert code == 2 and expected in err
    code, out, err = cli("run", "--resume", run.id, "--concurrency", "3")
    assert (code, err) == (0, "")
    with last(home) as run:
        assert len(run.done()) == 6 and run.status == "done"
        assert all(run.trace(id) == trace for id, trace in done.items())
        assert len(run.database.read("SELECT DISTINCT attempt, effect, request FROM effects")) == 6 * 9
        assert len(run.database.read("SELECT 1 FROM effects")) == 6 * 9  # no reply was asked for twice


def finished(home: Path) -> int:
    """How many attempts the only run has finished."""
    for folder in (home / "runs").glob("*/"):
        if (folder / "report.html").exists():
            return 99
        try:
            with open_run(folder, home) as run:
                return len(run.done())
        except Exception:  # it is just being made
            return 0
    return 0


@pytest.mark.slow
def test_an_interrupted_replay_can_be_finished(cli: Any, home: Path) -> None:
    Path("slow.py").write_text(SLOW)
    assert cli(*scripted("--pattern", "slow.py"))[0] == 0
    Path("interrupt").touch()
    child = subprocess.run(
        [*FIRSTHAND.split(), "run", "--replay", "last", "--concurrency", "1", "--json"], capture_output=True, text=True
    )
    assert child.returncode == 130 and "--resume" in child.stderr
    body = json.loads(child.stdout)
    assert body["status"] == "interrupted"
    assert cli("run", "--resume", body["run"])[0] == 0


def test_a_run_that_another_process_works_on_is_left_alone(cli: Any, home: Path) -> None:
    cli(*scripted("--limit", "2"))
    with last(home) as run, run.working():
        code, out, err = cli("run", "--resume")
    assert (code, out, err.count("\n")) == (2, "", 1) and f"is being run by process {os.getpid()} on" in err


# -- mistakes --


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("rnu arithmetic", "no command 'rnu'; did you mean 'run'?"),
        ("run arithmetic --modle x", "did you mean --model?"),
        ("run arithmetic --scorer f1", "a scorer belongs to the data: write it in its TOML file"),
        ("run arithmetic --prompt=Why?", "a prompt belongs to the data: write it in its TOML file"),
        ("run arithmetic --pattern reakt", "no pattern 'reakt'; did you mean 'react'?"),
        ("run arithmetik", "no benchmark 'arithmetik'; did you mean 'arithmetic'?"),
        ("run arithmetic --tools calculater", "no tool 'calculater'; did you mean 'calculator'?"),
        ("run arithmetic --model smolm2", "smollm2"),
        ("run arithmetic --model scriptd:x.json", "did you mean 'scripted'?"),
        ("run arithmetic --model scripted:nowhere.json", "'nowhere.json' cannot be read"),
        ("run arithmetic:level=1", "did you mean 'levels'?"),
        ("run arithmetic:levels=9", "give levels from 1 to 4"),
        ("run arithmetic --pattern cot:shots=many", "a whole number was expected"),
        ("run arithmetic --pattern __init__", "no pattern '__init__'"),
        ("run arithmetic --pattern direct,direct", "name each one once"),
        ("run arithmetic --pattern ,", "pattern is empty"),
        ("run arithmetic --model=", "model is empty"),
        ("run", "no benchmark was named"),
        ("run arithmetic --limit 0", "limit is 0: give 1 or more"),
        ("run arithmetic --limit x", "limit is 'x': a whole number was expected"),
        ("run arithmetic --epochs -1", "epochs is -1"),
        ("run arithmetic --temperature nan", "temperature is nan"),
        ("run arithmetic --budget-tokens 0", "the limit tokens is 0"),
        ("run --resume --replay last", "resume and replay do not go together"),
        ("run arithmetic --retry-errors", "retry_errors goes with resume"),
        ("run --resume last", "no runs"),
        ("run --replay nope", "no run 'nope'"),
        ("show", "no runs"),
        ("list patern", "'patern'"),
        ("runs --limit 0", "limit is 0"),
        ("compare last last --limit 0", "limit is 0"),
        ("completion bsh", "one of bash, zsh, fish"),
        ("completion", "SHELL"),
        ("quickstart --limit 0", "limit is 0"),
        ("models inspekt", "inspekt"),
    ],
)
def test_a_mistake_is_one_line_with_exit_code_2_and_leaves_no_run(
    cli: Any, home: Path, words: str, expected: str
) -> None:
    code, out, err = cli(*words.split(" "))
    assert (code, out) == (2, "")
    assert err.startswith("firsthand: ") and err.count("\n") == 1 and expected in err
    assert not (home / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("show lats", "no run 'lats'; did you mean 'last'?"),
        ("show last nope", "no attempt 'nope'"),
        ("show last arithmetic/seed0-level1-0009", "did you mean 'arithmetic/seed0-level1-000"),
        ("show last arithmetic", "names 2 attempts"),
        ("compare last lats", "did you mean 'last'"),
        ("compare last last --agent-a direkt --agent-b direct", "no agent 'direkt'; did you mean 'direct'?"),
        ("compare last last --score numerik", "no score 'numerik'; did you mean 'numeric'?"),
        ("compare last last --benchmark arithmetik", "no benchmark 'arithmetik'; did you mean 'arithmetic'?"),
        ("run --resume last --limit 3", "was begun with limit 2, not 3"),
        ("run arithmetic --resume last", "was begun with benchmarks arithmetic:levels=1:tasks=6, not arithmetic"),
    ],
)
def test_a_mistake_about_a_run_is_one_line_too(cli: Any, home: Path, words: str, expected: str) -> None:
    cli(*scripted("--limit", "2"))
    code, out, err = cli(*words.split(" "))
    assert (code, out) == (2, "")
    assert err.startswith("firsthand: ") and err.count("\n") == 1 and expected in err


@pytest.mark.slow
def test_a_score_is_compared_only_where_it_was_given(cli: Any, home: Path) -> None:
    cli("run", "arithmetic:levels=1", "arc_easy", "--model", "scripted:script.json", "--limit", "2")
    [everywhere] = json.loads(cli("compare", "last", "last", "--json")[1])
    assert everywhere["benchmarks"].keys() == {"arithmetic", "arc_easy"}
    [exact] = json.loads(cli("compare", "last", "last", "--score", "exact", "--json")[1])
    assert exact["benchmarks"].keys() == {"arithmetic"} and len(exact["tasks"]) == 2


@pytest.mark.parametrize("what", ["model", "pattern", "benchmark"])
def test_a_name_too_long_for_any_file_is_one_line(cli: Any, what: str) -> None:
    name = "x" * 5000
    words = {
        "model": ["run", "arithmetic", "--model", name],
        "pattern": ["run", "arithmetic", "--model", "scripted:echo", "--pattern", f"{name}.py"],
        "benchmark": ["run", f"{name}.py"],
    }[what]
    code, out, err = cli(*words)
    assert (code, out) == (2, "") and err.count("\n") == 1


OWN_FILES = [
    ("async def own(task, ctx: Context) -> str:\n    return '1'\n", "--pattern", "NameError|does not import"),
    ("own = 3\n", "--pattern", "is a int: write it as async def"),
    ("own = 3\n", "BENCHMARK", "gives a int: write it as def"),
    ("def own():\n    return 3\n", "BENCHMARK", "gives a int"),
    ("def own(x):\n    return x\n", "--tools", "decorate the function with @tool"),
    ("def other(): pass\n", "--pattern", "no pattern 'own'"),
    ("import sys\nsys.exit(0)\n", "--pattern", "does not import: SystemExit"),
    ("import nowhere_to_be_found\n", "--pattern", "does not import: ModuleNotFoundError"),
]


@pytest.mark.parametrize(("text", "flag", "expected"), OWN_FILES)
def test_a_file_of_ones_own_that_holds_no_such_thing_is_one_line(
    cli: Any, home: Path, text: str, flag: str, expected: str
) -> None:
    Path("own.py").write_text(text)
    words = ["run", "own.py"] if flag == "BENCHMARK" else [*scripted(), flag, "own.py"]
    code, _, err = cli(*words)
    assert code == 2 and err.count("\n") == 1
    assert any(each in err for each in expected.split("|"))
    assert not (home / "runs").exists()


def test_a_pattern_may_be_annotated_with_what_only_a_type_checker_imports(cli: Any) -> None:
    Path("own.py").write_text(
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from firsthand.context import Context\n"
        "async def own(task, ctx: Context) -> str:\n    return '1'\n"
    )
    assert cli(*scripted("--pattern", "own.py"))[0] == 0


# -- bad surroundings --


@pytest.mark.parametrize("where", ["a file", "a dead link", "/proc"])
def test_a_home_that_cannot_be_written_is_one_line(
    cli: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    (tmp_path / "a file").write_text("")
    (tmp_path / "a dead link").symlink_to("/nowhere/at/all")
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / where))
    code, out, err = cli(*scripted())
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "no run can be made in" in err and "set FIRSTHAND_HOME to a folder with room" in err
    assert cli("runs")[0] == 0 or where == "a file"


@pytest.mark.slow
def test_a_report_that_cannot_be_written_loses_nothing(cli: Any, home: Path) -> None:
    cli(*scripted("--limit", "2"))
    report = last(home).path / "report.html"
    report.unlink()
    notes = home / "notes.txt"
    notes.write_text("mine")
    report.symlink_to(notes)
    assert cli("run", "--resume")[0] == 0 and notes.read_text() == "mine" and not report.is_symlink()
    report.unlink()
    report.mkdir()
    code, _, err = cli("run", "--resume")
    assert code == 1 and "cannot be written: Is a directory; the run is kept" in err and err.count("\n") == 1
    assert len(last(home).done()) == 2


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_is_one_line_and_what_was_recorded_stays(home: Path, tmp_path: Path) -> None:
    home.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(home)], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        Path("long.py").write_text(
            "import hashlib\n"
            "async def long(task, ctx):\n"
            "    text = ''.join(hashlib.sha256(f'{task.id}{i}'.encode()).hexdigest() for i in range(500))\n"
            "    return (await ctx.say(text).generate()).text\n"
        )
        words = ["run", "arithmetic:levels=1:tasks=60", "--model", "scripted:echo", "--pattern", "long.py"]
        done = subprocess.run([*FIRSTHAND.split(), *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
        assert "is full" in done.stderr and "make room, then resume the run" in done.stderr
        with last(home) as run:
            assert len(list(run.traces())) == len(run.done())
        subprocess.run(["mount", "-o", "remount,size=40m", str(home)], check=True)
        done = subprocess.run([*FIRSTHAND.split(), "run", "--resume"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        with last(home) as run:
            assert len(run.done()) == 60
    finally:
        subprocess.run(["umount", "-l", str(home)], check=False)


@pytest.mark.slow
def test_text_that_no_encoding_knows_is_printed_all_the_same(cli: Any, home: Path) -> None:
    Path("odd.json").write_text('["lone \\ud800 and \\u001b[31m red"]')
    words = [*FIRSTHAND.split(), "run", "arithmetic:tasks=1", "--model", "scripted:odd.json"]
    assert subprocess.run(words, capture_output=True, timeout=60).returncode == 0
    for more in ([], ["--json"]):
        shown = subprocess.run(
            [*FIRSTHAND.split(), "show", "last", "arithmetic", *more], capture_output=True, timeout=60
        )
        assert shown.returncode == 0 and b"\x1b[31m red" not in shown.stdout and shown.stderr == b""
        if more:
            assert Trace.from_json(json.loads(shown.stdout)).answer is not None


def test_brackets_are_printed_as_they_are(cli: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "[bold]"))
    Path("[red]x.py").write_text("async def x(task, ctx):\n    return '[green]1[link]'\n")
    code, out, err = cli(*scripted("--pattern", "[red]x.py:x", "--limit", "1"))
    assert (code, err) == (0, "") and "[red]x.py" in out and "[bold]" in out
    for words in ("runs", "runs last", "show last", "compare last last", "show last arithmetic"):
        code, out, err = cli(*words.split())
        assert (code, err) == (0, "") and ("[red]x" in out or "[bold]" in out or "[green]" in out), words


@pytest.mark.slow
@pytest.mark.parametrize("words", part(["--help", "list patterns --json", "show last"], 2))
def test_a_reader_that_leaves_early_is_no_error(cli: Any, words: str) -> None:
    cli(*scripted("--limit", "1"))
    for reader in ("head -1", "true"):
        done = shell(f"{FIRSTHAND} {words} | {reader}; exit ${{PIPESTATUS[0]}}")
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_closed_or_full_output_is_no_traceback(cli: Any) -> None:
    assert shell(f"{FIRSTHAND} list >&-").stderr == ""
    done = shell(f"{FIRSTHAND} list > /dev/full")
    assert done.returncode == 1 and done.stderr == "firsthand: No space left on device\n"


# -- bad models, end to end --


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("random.gguf", "b'GGUF' was expected"),
        ("empty.gguf", "is empty"),
        ("truncated.gguf", "truncated.gguf"),
        ("untokenized", "holds no tokenizer.json"),
        ("hostile", "TemplateError"),
        ("pickle.bin", "reading a pickle runs the code inside it"),
        ("empty", "no config.json"),
        ("short", "PromptTooLong"),
        ("nowhere.gguf", "there is no file or folder 'nowhere.gguf'"),
    ],
)
def test_a_bad_model_is_one_line_and_no_hang(cli: Any, home: Path, name: str, expected: str) -> None:
    make_bad_model(name)
    code, _, err = cli("run", "arithmetic:levels=1:tasks=2", "--model", name, "--max-tokens", "4")
    assert code in (1, 2, 3) and err.count("\n") == 1 and expected in err and "Traceback" not in err
    assert cli("runs")[0] == 0


def make_bad_model(name: str) -> None:
    import tiny

    path = Path(name)
    match name:
        case "random.gguf":
            path.write_bytes(bytes(range(255, 0, -1)) * 20)
        case "truncated.gguf":
            path.write_bytes(
                b"GGUF" + (3).to_bytes(4, "little") + (9).to_bytes(8, "little") + (9).to_bytes(8, "little")
            )
        case "empty.gguf":
            path.touch()
        case "pickle.bin":
            path.write_bytes(b"\x80\x04\x95" + b"x" * 100)
        case "empty":
            path.mkdir()
        case "untokenized":
            (tiny.write_model(path) / "tokenizer.json").unlink()
        case "hostile":
            tiny.write_model(path, template="{{ ''.__class__.__mro__[1].__subclasses__() }}")
        case "short":
            tiny.write_model(path, max_position=16)


@pytest.mark.slow
def test_a_tiny_model_of_ours_runs_and_replays(cli: Any, home: Path) -> None:
    import tiny

    tiny.write_model(Path("model"), max_position=1024)
    words = ["run", "arithmetic:levels=1:tasks=2", "--model", "model", "--max-tokens", "5", "--json"]
    code, out, err = cli(*words, "--pattern", "direct,self_consistency:samples=3")
    assert code == 0 and all(line.startswith("firsthand: compiling kernels") for line in err.splitlines())
    first = json.loads(out)
    code, out, _ = cli(*words, "--pattern", "direct,self_consistency:samples=3")  # the same seed, the same tokens
    assert without_seconds(json.loads(out)["boards"]) == without_seconds(first["boards"])
    code, out, err = cli("run", "--replay", first["run"], "--json")
    assert (code, err) == (0, "")
    assert without_seconds(json.loads(out)["boards"]) == without_seconds(first["boards"])


def test_an_endpoint_that_is_not_there_is_one_line(cli: Any) -> None:
    Path("hasty.py").write_text(
        "from dataclasses import replace\nfrom firsthand.loop.concurrency import Retry\n"
        "async def hasty(task, ctx):\n"
        "    ctx.attempt.agent = replace(ctx.attempt.agent, retry=Retry(1))\n"
        "    return (await ctx.say(task.prompt).generate()).text\n"
    )
    code, _, err = cli(
        "run", "arithmetic:tasks=2", "--model", "openai:x@http://127.0.0.1:9/v1", "--pattern", "hasty.py"
    )
    assert code == 3 and err.count("\n") == 1 and "check that the server runs" in err


# -- completion, version, config --


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("firsthand ru", "run runs"),
        ("firsthand run --patt", "--pattern"),
        ("firsthand run --pattern self_c", "self_consistency"),
        ("firsthand run --pattern cot,self_c", "cot,self_consistency"),
        ("firsthand run --pattern=cot,self_c", "--pattern=cot,self_consistency"),
        ("firsthand run --pattern self_consistency:sa", "self_consistency:samples="),
        ("firsthand run gsm", "gsm8k"),
        ("firsthand run gsm8k --watch arit", "arithmetic"),
        ("firsthand run --resume first-r", "first-run-k2m4"),
        ("firsthand show la", "last"),
        ("firsthand serve --kv-cache f", "float16 float32"),
        ("firsthand score last --wit", "--with"),
        ("firsthand completion ", "bash fish zsh"),
        ("firsthand models i", "inspect"),
        ("firsthand models ", "inspect list look plan pull quantize remove"),
        ("firsthand memory ", "export forget import junk list show"),
        ("firsthand safety ", "burden explain label office table tests"),
        ("firsthand studio ", "account export import"),
        ("firsthand arena smollm2 sm", "smollm2"),
        ("firsthand board open_l", "open_llm"),
        ("firsthand play agentbench_d", "agentbench_db agentbench_dcg"),
        ("firsthand tour n", "next"),
        ("firsthand claims kv_cache_c", "kv_cache_cost"),
        ("firsthand claims run kv_cache_c", "kv_cache_cost"),
        ("firsthand train di", "distill"),
        ("firsthand train doc", "doctor"),
        ("firsthand train doctor la", "last"),
        ("firsthand train nothing --", ""),
        ('firsthand run "gsm', "gsm8k"),
        ("firsthand run --limit 5", ""),
        ("firsthand nothing --of this", ""),
        ("firsthand run --pattern nothing:", ""),
    ],
)
def test_completion_knows_commands_flags_values_and_names(
    line: str, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cli: Any
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    with create(tmp_path, {}, "first-run") as run:
        path = run.path
    path.rename(path.parent / "first-run-k2m4")
    monkeypatch.setenv("_FIRSTHAND_COMPLETE", line)
    code, out, err = cli()
    assert (code, out.split(), err) == (0, expected.split(), "")


@pytest.mark.parametrize(
    "name", ["last$(touch x)", "last`x`", "last;x", "last x", "last*", "last\nx", "last'", "laſt|x"]
)
def test_names_that_a_shell_would_run_are_not_offered(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A shell puts the one word that fits on the line as it is, and a run's folder may have come from anyone."""
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    for each in (name, "-last", "last-1_k.2"):
        (tmp_path / "runs" / each).mkdir(parents=True)
        (tmp_path / "runs" / each / "run.sqlite").touch()
    model = tmp_path / "models" / "hf" / "org" / "name@main"
    model.mkdir(parents=True)
    (model / "firsthand.json").write_text(json.dumps({"name": f"hf:{name}", "files": {}}))
    assert complete("firsthand show ") == ["last", "last-1_k.2"]
    assert name not in str(complete("firsthand run --model hf"))


@pytest.mark.slow
def test_a_closed_set_of_words_is_offered_whole() -> None:
    """`models` once offered four of its seven actions, and `safety` and `studio` those of `models`."""
    found = 0
    for name in catalog.names("command"):
        module = importlib.import_module(f"firsthand.commands.{name}")
        for each in settings_of(module.Config):
            if each.field.metadata.get("positional") and typing.get_origin(each.hint) is typing.Literal:
                assert complete(f"firsthand {name} ") == sorted(typing.get_args(each.hint))
                found += 1
    assert found >= 5


def test_every_flag_that_completion_offers_exists() -> None:
    for name in catalog.names("command"):
        config_class = importlib.import_module(f"firsthand.commands.{name}").Config
        known = make_parser(config_class, prog="x").format_help()
        offered = complete(f"firsthand {name} --")
        assert "--help" in offered
        assert all(f"{flag} " in known or f"{flag}," in known or f"{flag}\n" in known for flag in offered), offered


BASH = """
source <(firsthand completion bash)
complete -p firsthand
try() { COMP_LINE="$1"; COMP_POINT=${#1}; COMP_WORDBREAKS="$BREAKS"; _firsthand; echo "${COMPREPLY[@]}"; }
BREAKS=$' \\t\\n"\\'><=;|&(:'
try "firsthand ru"; try "firsthand run --pattern self_consistency:sa"
try "firsthand serve --kv-cache=i"; try "firsthand x y"
"""
ZSH = """
compdef() { echo "compdef $@" }; compadd() { shift $(( ${@[(i)--]} )); (( $# )) && echo "$@" }; _files() { echo files }
source <(firsthand completion zsh)
words=(firsthand ru); CURRENT=2; _firsthand
words=(firsthand run --pattern self_consistency:sa); CURRENT=4; _firsthand
words=(firsthand run --pattern cot,self_c gsm8k); CURRENT=4; _firsthand
words=(firsthand x y); CURRENT=3; _firsthand
"""
FISH = """
firsthand completion fish | source
for line in "firsthand ru" "firsthand run --pattern self_consistency:sa" "firsthand run --pattern cot,self_c"
    complete -C $line | string join ' '
end
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "script", "expected"),
    [
        ("bash", BASH, ["complete -o default -F _firsthand firsthand", "run runs", "samples=", "int8", ""]),
        (
            "zsh",
            ZSH,
            ["compdef _firsthand firsthand", "run runs", "self_consistency:samples=", "cot,self_consistency", "files"],
        ),
        ("fish", FISH, ["run runs", "self_consistency:samples=", "cot,self_consistency"]),
    ],
)
def test_the_completion_script_runs_in_its_shell(name: str, script: str, expected: list[str], tmp_path: Path) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    (tmp_path / "firsthand").write_text(f'#!/bin/sh\nexec {sys.executable} -m firsthand "$@"\n')
    (tmp_path / "firsthand").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run([name, "-c", script], capture_output=True, text=True, env=environment, timeout=120)
    assert done.stderr == ""
    assert done.stdout.splitlines() == expected


def test_version_and_help(cli: Any) -> None:
    assert cli("--version")[1].startswith("firsthand 0.")
    assert cli()[1] == cli("--help")[1] == cli("help")[1]
    assert "compare" in cli()[1]


words = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters=", ()"), min_size=1, max_size=8)
composed = st.lists(words.map(str.strip).filter(bool), min_size=1, max_size=3).map(
    lambda inner: f"lead({','.join(inner)})"
)
names = st.lists(
    words.map(str.strip).filter(lambda word: word and word[0] != "-"), min_size=1, max_size=3, unique=True
).map(tuple)


@pytest.mark.slow
@settings(max_examples=40)
@given(
    st.builds(
        Config,
        benchmarks=names,
        model=names,
        pattern=st.tuples(names, st.lists(composed, max_size=2, unique=True)).map(lambda both: (*both[0], *both[1])),
        limit=st.none() | st.integers(1, 99),
        seed=st.integers(-99, 99),
        temperature=st.floats(0, 2),
        system=st.none() | st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=9),
        budget_tokens=st.none() | st.integers(1, 99),
    )
)
def test_the_command_a_run_prints_gives_its_settings_again(config: Config) -> None:
    import shlex

    assert parse(Config, shlex.split(config.command())[2:], prog="firsthand run") == config
