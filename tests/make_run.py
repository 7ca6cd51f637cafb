"""Makes a small run with all that a run can hold: python tests/make_run.py FOLDER

`tests/data/run_schema_3` was written by it with firsthand 0.6.0 (run files of schema 3, traces of version 2), together with
`boards.json`, the boards that 0.6.0 made of its traces.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.errors import ModelError
from firsthand.message import Message, ToolCall
from firsthand.patterns.cot import cot
from firsthand.patterns.direct import direct
from firsthand.patterns.react import react
from firsthand.patterns.self_consistency import self_consistency
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place
from firsthand.runs import store
from firsthand.runs.execute import execute
from firsthand.scorers.match import exact
from firsthand.show.board import leaderboard
from firsthand.stats.figures import figure_detail
from firsthand.task import Task
from firsthand.tools.calculator import calculator
from firsthand.trace import Score, Trace


def length(task: Task, trace: Trace) -> Score:
    """A score that is a share of a figure of the corpus."""
    sums = (1, len(trace.answer or "") % 3, 1)
    return Score("length", 0.5, figure_detail("micro_f1", sums))


def sure(task: Task, trace: Trace) -> Score:
    """A score with a stated confidence."""
    right = float(task.secret["answer"] in (trace.answer or ""))
    return Score("sure", right, {"confidence": 0.25 * (len(task.id) % 4), "why": "its length"})


def fails(task: Task, trace: Trace) -> Score:
    """A scorer that fails at one task."""
    if task.id == "t3":
        raise ValueError("no verdict")
    return Score("third", len(trace.nodes) / 7)


def answer(messages: Sequence[Message], sampling: object, index: int) -> Message | str:
    """Calls a tool once where it is told of one; a fault at the task with a 5."""
    question = next(each.text for each in messages if each.role == "user")
    if "5 + " in question and "step" in question:
        raise ModelError("the endpoint is gone")
    if "Thought" in str(messages[0].text) and len(messages) < 3:
        return Message("assistant", (ToolCall("c", "calculator", {"expression": "1+1"}),))
    return f"Answer: {(len(question) + index) % 7}"


def places() -> list[Place]:
    """Every attempt of the run."""
    model = Scripted(answer)
    tasks = [
        Task(f"t{n}", f"{n} + {n}?" + " Think step by step." * (n == 5), secret={"answer": str(2 * n)},
             metadata={"length": n, "cluster": f"c{n // 2}"}) for n in range(8)
    ]  # fmt: skip
    sums = Benchmark("sums", lambda seed: tasks, (exact, length, sure, fails))
    plain = Benchmark("plain", lambda seed: tasks[:4], (exact,))
    agents = [
        Agent("direct", model, direct),
        Agent("cot", model, cot),
        Agent("vote", model, self_consistency, options={"samples": 3}),
        Agent("react", model, react, tools=(calculator,)),
    ]
    return [Place(a, b, t, e) for b, n in ((sums, 2), (plain, 1)) for t in b.tasks(0) for a in agents for e in range(n)]


def make(home: Path) -> Path:
    """The folder of a run under `home`."""
    with store.create(home, {"seed": 3}, "fixture", command=["firsthand", "run"]) as run:
        asyncio.run(execute(run, places(), seed=3))
        asyncio.run(execute(run, places(), seed=3, redo_errors=True))
        for index, (trace, number) in enumerate(list(run.tried(benchmark="plain"))):
            detail = {"judge": "x"} if index % 5 else {"scorer_failed": "no", "unjudged": True}
            score = Score("judged", index / 16, detail)
            run.add_score(trace, number, "judged", "rubric", score)
            run.add_score(trace, number, "judged", "rubric", replace(score, value=score.value / 2))
        return run.path


def main(folder: Path) -> None:
    """Write the run and its boards."""
    path = make(folder)
    with store.open_run(path, folder) as run:
        order = {name: index for index, name in enumerate(run.agents())}
        traces = sorted(run.traces(), key=lambda trace: order[trace.agent_name])
        boards = [asdict(board) for board in leaderboard(traces, clusters=run.clusters())]
    shutil.copy(path / "run.sqlite", folder / "run.sqlite")
    (folder / "boards.json").write_text(json.dumps(boards, indent=1))
    shutil.rmtree(folder / "runs")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
