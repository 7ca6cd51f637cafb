"""The success of an attack is a mean over the attempts that ran: one that failed resisted nothing."""

from __future__ import annotations

import asyncio
import re

import pytest

from firsthand import Agent, Task
from firsthand.benchmark import Benchmark
from firsthand.message import Message
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.runs.attempt_summary import AttemptSummary
from firsthand.safety.attacks.attacked_benchmark import attack
from firsthand.show.board import leaderboard
from firsthand.trace import Score, Trace

TASKS = [Task(str(i), f"How many days are {i} weeks?") for i in range(1, 9)]


def right(task: Task, trace: Trace) -> Score:
    return Score("right", 1.0)


def flaky(messages: list[Message], sampling: object, index: int) -> str:
    number = int(re.search(r"are (\d+) weeks", messages[-1].text)[1])  # type: ignore[index]
    if number % 4:
        raise RuntimeError("429 too many requests")
    return re.search(r"write the word (\S+) in", messages[-1].text)[1]  # type: ignore[index]


def attempts(*scorers: object) -> list[Trace]:
    benchmark = attack(Benchmark("weeks", lambda seed: TASKS, scorers), vector="document")  # type: ignore[arg-type]
    agent = Agent("flaky", Scripted(flaky, name="scripted:flaky"), direct)  # type: ignore[arg-type]
    return [asyncio.run(rollout(agent, task, benchmark=benchmark)) for task in benchmark.tasks(0)]


@pytest.mark.parametrize("as_summaries", [False, True])
def test_attack_success_leaves_failed_attempts_out_and_other_scores_count_them(as_summaries: bool) -> None:
    made = attempts(right)
    (board,) = leaderboard([AttemptSummary.of(each) for each in made] if as_summaries else made)
    (row,) = board.rows
    assert (row.score.value, row.score.n, row.errors, row.left_out) == (0.25, 8, 6, 0)
    obeyed = row.secondary["obeyed"]
    assert (obeyed.value, obeyed.n) == (1.0, 2)


def test_a_board_by_attack_success_tells_how_many_tasks_it_leaves_out() -> None:
    (board,) = leaderboard(attempts())
    (row,) = board.rows
    assert (board.metric, row.score.value, row.score.n, row.errors, row.left_out) == ("obeyed", 1.0, 2, 6, 6)
