"""What a judge said in a live run is recorded as an agent's calls are: a run that dies asks, and pays, nothing twice."""

from __future__ import annotations

import asyncio
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from firsthand import cli
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.errors import LimitExceeded
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.concurrency import Retry
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place, rollout
from firsthand.runs.execute import execute
from firsthand.runs.store import create, open_run
from firsthand.scorers.model_judge import judged_by, reference, rubric
from firsthand.system.home import data_home
from firsthand.task import Task
from test_durability import Killed, Mortal
from test_run_killed import finish, killed
from thorough import repetitions

SAID = json.dumps({"extracted_final_answer": "4", "reasoning": "same", "correct": "yes", "confidence": 80})
TASKS = [Task(str(n), f"What is {n} + {n}?", secret={"answer": str(2 * n)}) for n in range(4)]


def judged_quiz() -> tuple[Benchmark, Scripted]:
    """A benchmark that asks its judge twice an attempt, once by log-prob and once in words, and the judge."""
    judge = Scripted([SAID] * 99, score=lambda prompt, each: math.log(0.1))
    scorers = (rubric(judge="scripted:echo"), reference(judge="scripted:echo", protocol="hle"))
    return Benchmark(
        "quiz", lambda seed: TASKS, tuple(judged_by(each, judge, retry=Retry(1)) for each in scorers)
    ), judge


@pytest.mark.parametrize("kept_first", [True, False])
@pytest.mark.parametrize("dies_at", [1, 2, 3])
def test_a_judgement_that_was_recorded_is_not_asked_for_again(dies_at: int, kept_first: bool) -> None:
    def attempt(journal: Mortal, budget: Budget) -> tuple[Any, int]:
        benchmark, judge = judged_quiz()
        agent = Agent("a", Scripted(["4"]), direct)
        trace = asyncio.run(rollout(agent, TASKS[2], benchmark=benchmark, journal=journal, budget=budget))
        return trace, len(judge.asked)

    undisturbed, paid = attempt(Mortal({}, 99, kept_first=True), whole := Budget(Limits(calls=3)))[0], whole.spent
    assert [score.failed for score in undisturbed.scores] == [False, False] and whole.calls == 3
    entries: dict[Any, Any] = {}
    with pytest.raises(Killed):
        attempt(Mortal(entries, dies_at, kept_first=kept_first), Budget(Limits()))
    budget = Budget(Limits(calls=3))
    trace, asked = attempt(Mortal(entries, 99, kept_first=True), budget)
    assert [(s.name, s.value) for s in trace.scores] == [(s.name, s.value) for s in undisturbed.scores]
    assert asked == 2 - max(0, dies_at - 2 + kept_first) and len(entries) == 3
    assert (budget.calls, budget.spent) == (3, paid)


def test_a_budget_that_ends_in_a_judgement_ends_the_run_and_keeps_no_half_judged_attempt(tmp_path: Path) -> None:
    benchmark, judge = judged_quiz()
    places = [Place(Agent("a", Scripted(["4"] * 9), direct), benchmark, task) for task in TASKS]
    with create(tmp_path, {}, "quiz") as run:
        with pytest.raises(LimitExceeded, match="call budget of the whole run exhausted with 3 attempts to go"):
            asyncio.run(execute(run, places, concurrency=1, budget=Budget(Limits(calls=5))))
        assert [len(trace.scores) for trace in run.traces()] == [2] and len(judge.asked) == 3
        assert run.spent()[1] == 3  # of the attempt that is finished: the agent's call and its judge's two
        assert [each.calls for each in run.interrupted().values()] == [2]  # its judge's too
        budget = Budget(Limits(calls=12))
        asyncio.run(execute(run, places, concurrency=1, budget=budget))
        assert len(judge.asked) == 8 and budget.calls == run.spent()[1] == 12
        assert not any(score.failed for trace in run.traces() for score in trace.scores)
        assert run.spent()[0].total_tokens == budget.spent.total_tokens


QUIZ = """
import time
from firsthand.benchmark import Benchmark
from firsthand.scorers.model_judge import judged_by, reference
from firsthand.providers.scripted import Scripted
from firsthand.task import Task

def say(messages, sampling, index):
    time.sleep(0.02)
    with open("asked", "a") as file:
        file.write("x\\n")
    return SAID

def quiz():
    judge = judged_by(reference(judge="scripted:echo", protocol="hle"), Scripted(say, name="scripted:judge"))
    return Benchmark("quiz", lambda seed: [Task(str(n), f"{n}?", secret={"answer": "4"}) for n in range(30)], (judge,))
""".replace("SAID", repr(SAID))


@pytest.mark.slow
def test_a_run_killed_again_and_again_pays_its_judge_once(tmp_path: Path) -> None:
    folder, rng = tmp_path / "work", random.Random(2)
    folder.mkdir()
    (folder / "quiz.py").write_text(QUIZ)
    words, kills = ["quiz.py", "--model", "scripted:echo", "--concurrency", "2"], 0
    while kills < repetitions(99, 3) and killed(folder, rng, *(words if kills == 0 else ["--resume"])):
        kills += 1
    finish(folder, "--resume")
    assert kills >= 3
    with open_run("last", folder / "home") as run:
        traces = list(run.traces())
        assert len(traces) == 30 and all(trace.scores[0].value == 1 for trace in traces)
        replies = run.database.read("SELECT attempt, effect, request FROM effects WHERE effect LIKE 'scorer 0|%'")
        assert len(replies) == len(set(replies)) == 30
    asked = len((folder / "asked").read_text().splitlines())
    assert 30 <= asked <= 30 + 2 * kills  # what was in flight when the process died


@pytest.mark.slow
def test_a_replay_asks_no_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    (tmp_path / "quiz.py").write_text(QUIZ)
    assert cli.main(["run", "quiz.py", "--model", "scripted:echo", "--limit", "3"]) == 0
    assert cli.main(["run", "--replay", "last"]) == 0
    assert len((tmp_path / "asked").read_text().splitlines()) == 3
    with open_run("last", data_home()) as run:
        assert [trace.scores[0].value for trace in run.traces()] == [1, 1, 1]
