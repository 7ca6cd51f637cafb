"""`firsthand run`, killed at random instants and resumed each time, ends with the results of an undisturbed run."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest

import tiny
from firsthand.runs.store import Run, open_run
from run_process import held, results, start
from thorough import repetitions

PATTERNS = ("direct", "cot", "self_consistency:samples=3", "react:max-steps=3", "steps.py")
STEPS = """
import asyncio
from firsthand.message import ToolCall

async def steps(task, ctx, *, wait_s: float = 0.03) -> str:
    '''Branches, turns, scorings and tools, each after a little time.'''
    start = ctx.say(task.prompt)

    async def branch(number):
        here = start.say(f"way {number}")
        for turn in range(2):
            await asyncio.sleep(wait_s)
            here = await here.say(f"turn {turn}").generate(temperature=1.0, max_tokens=6)
        return here.text

    texts = await ctx.group(branch(number) for number in range(3))
    await asyncio.sleep(wait_s)
    likelihoods = await start.score([text or "." for text in texts])
    best = max(range(3), key=lambda i: likelihoods[i].logprob)
    noted = await start.call(ToolCall("1", "note", {"text": texts[best]}))
    await asyncio.sleep(wait_s)
    last = await start.say(noted).generate(max_tokens=6)
    return f"{best} {last.text}"
"""
NOTE = '''
from firsthand.tool import tool

@tool(effect="external")
def note(text: str) -> str:
    """Note a text outside.

    Args:
        text: Any text.
    """
    with open("noted", "a") as file:
        file.write(repr(text) + "\\n")
    return f"noted {len(text)} characters"
'''
QUIZ = """
from firsthand.benchmark import Benchmark
from firsthand.scorers.choice import acc, acc_mutual_info
from firsthand.task import Task

def quiz():
    # choices by log-prob, each after a text of its own, and once more without the question
    tasks = [
        Task(str(n), f"Which is {n}?", choices=("one", "two", "three"), baseline="Answer:", secret={"gold": n % 3},
             requests=tuple((f"It is {word} of {n},", f" the end of {n}") for word in ("one", "two", "three")))
        for n in range(12)
    ]
    return Benchmark("quiz", lambda seed: tasks, scorers=(acc, acc_mutual_info))
"""
WAITING = """
import asyncio
from dataclasses import replace
from firsthand.patterns.direct import direct

async def waiting(task, ctx):
    # what direct does, with so much time before each choice is scored that a kill finds attempts half done
    class Slow(type(ctx)):
        async def score(self, continuations, *, prompt=None):
            await asyncio.sleep(0.06)
            return await super().score(continuations, prompt=prompt)
    return await direct(task, Slow(**vars(ctx)))
"""
SCRIPT = {"turn": "Let me think. The answer is 12.", "Question": "Action: calculator[3 * 4]", "": "The answer is 12."}


def prepare(folder: Path, model: str) -> list[str]:
    """A folder with all that the run needs; gives the words of its command line."""
    folder.mkdir()
    (folder / "steps.py").write_text(STEPS)
    (folder / "note.py").write_text(NOTE)
    if model == "local":
        tiny.write_model(folder / "model", max_position=1024)
    else:
        (folder / "script.json").write_text(json.dumps(SCRIPT))
    return [
        "arithmetic:levels=1:tasks=4", "--model", "model" if model == "local" else "scripted:script.json",
        "--pattern", ",".join(PATTERNS), "--tools", "calculator,note.py", "--max-tokens", "12", "--concurrency", "4",
        "--epochs", "2",
    ]  # fmt: skip


def finish(folder: Path, *words: str) -> None:
    child = start(folder, *words)
    _, err = child.communicate(timeout=240)
    said = [line for line in err.splitlines() if not line.startswith("firsthand: compiling kernels")]
    assert (child.returncode, said) == (0, [])


def killed(folder: Path, rng: random.Random, *words: str) -> bool:
    """Whether a process was killed while it worked on the run, rather than after it had come to its end."""
    before = held(folder, "effects", "traces")
    child = start(folder, *words)
    began = time.monotonic()
    while held(folder, "effects", "traces") <= before and child.poll() is None:
        assert time.monotonic() - began < 60
        time.sleep(0.002)
    time.sleep(rng.uniform(0.0, 0.12))
    child.send_signal(signal.SIGKILL)
    child.communicate()
    with open_run("last", folder / "home") as run:
        assert run.status in ("interrupted", "done")
        return run.status == "interrupted"


def check_records(run: Run, folder: Path) -> None:
    """No attempt twice, one reply for every question, and nothing noted outside twice."""
    attempts = run.database.read("SELECT attempt, count(*) FROM traces GROUP BY attempt")
    assert len(attempts) == 4 * 2 * len(PATTERNS) and all(count == 1 for _, count in attempts)
    in_doubt = interrupted_tools(run)
    outside = {
        (trace.place, call.id) for trace in run.traces() for call in trace.calls if call.detail.get("name") == "note"
    }
    asked = run.database.read(
        "SELECT attempt, effect, request, count(*) FROM effects GROUP BY attempt, effect, request"
    )
    for attempt, effect, _, count in asked:
        expected = 2 if (attempt, effect) in outside else 1  # of these the intent is on record too
        assert count == expected or (attempt in in_doubt and count == 1)
    places = {(attempt, effect) for attempt, effect, _, _ in asked}
    assert len(places) == len(asked)  # no effect was ever asked in two ways
    assert places == {(trace.place, call.id) for trace in run.traces() for call in trace.calls}
    noted = (folder / "noted").read_text().splitlines()
    assert len(noted) <= 8 and run.database.read("PRAGMA integrity_check") == [("ok",)]


def interrupted_tools(run: Run) -> set[str]:
    """The attempts whose tool was interrupted while it ran: it is not repeated, and the model is told so."""
    return {
        trace.place
        for trace in run.traces()
        for call in trace.calls
        if "was interrupted while it ran" in str(call.detail.get("result"))
    }


def compare_with_an_undisturbed_run(tmp_path: Path, model: str, num_kills: int) -> None:
    words = prepare(tmp_path / "undisturbed", model)
    finish(tmp_path / "undisturbed", *words)
    rng, kills, round_number = random.Random(num_kills), 0, 0
    with open_run("last", tmp_path / "undisturbed" / "home") as run:
        expected = results(run)
    assert len(expected) == 4 * 2 * len(PATTERNS)
    while kills < num_kills:  # when a run has come to its end, another one is begun
        folder = tmp_path / f"killed-{round_number}"
        prepare(folder, model)
        begin = words
        while kills < num_kills and killed(folder, rng, *begin):
            kills += 1
            begin = ["--resume"]
        finish(folder, "--resume")
        with open_run("last", folder / "home") as run:
            assert run.status == "done"
            found, in_doubt = results(run), interrupted_tools(run)
            check_records(run, folder)
        assert found.keys() == expected.keys()
        assert [id for id in expected if id not in in_doubt and found[id] != expected[id]] == []
        round_number += 1


@pytest.mark.slow
def test_a_run_killed_twice_gives_the_results_of_an_undisturbed_one(tmp_path: Path) -> None:
    compare_with_an_undisturbed_run(tmp_path, "scripted", 2)


@pytest.mark.slow
def test_log_prob_scoring_killed_many_times_scores_nothing_twice(tmp_path: Path) -> None:
    words = ["quiz.py", "--model", "scripted:echo", "--pattern", "waiting.py", "--concurrency", "2"]

    def prepared(name: str) -> Path:
        (folder := tmp_path / name).mkdir()
        (folder / "quiz.py").write_text(QUIZ)
        (folder / "waiting.py").write_text(WAITING)
        return folder

    undisturbed, folder, rng = prepared("undisturbed"), prepared("killed"), random.Random(5)
    finish(undisturbed, *words)
    kills, begin = 0, words
    while kills < 3 and killed(folder, rng, *begin):
        kills, begin = kills + 1, ["--resume"]
    finish(folder, *begin)
    assert kills >= 2
    with open_run("last", undisturbed / "home") as whole, open_run("last", folder / "home") as run:
        assert run.status == "done" and results(run) == results(whole) and len(results(run)) == 12
        assert sum(call.replayed for trace in run.traces() for call in trace.calls) > 0
        assert all(len(trace.calls) == 4 and len(trace.scores) == 2 for trace in run.traces())
        counted = run.database.read("SELECT count(*) FROM effects GROUP BY attempt, effect, request")
        assert counted == [(1,)] * 48
        scores = {trace.place: trace.scores for trace in run.traces()}
    finish(folder, "--replay", "last")
    with open_run("last", folder / "home") as again:
        assert {trace.place: trace.scores for trace in again.traces()} == scores


@pytest.mark.slow
@pytest.mark.parametrize(("model", "num_kills"), [("scripted", repetitions(20, 4)), ("local", repetitions(8, 2))])
def test_a_run_killed_many_times_gives_the_results_of_an_undisturbed_one(
    tmp_path: Path, model: str, num_kills: int
) -> None:
    compare_with_an_undisturbed_run(tmp_path, model, num_kills)
