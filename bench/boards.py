"""Seconds for a run's boards from the numbers it keeps, and from its decoded traces.

    python bench/boards.py --attempts 10000
    python bench/boards.py --composite

The first makes a run of that many attempts with a scripted model (chain of thought and ReAct with a calculator, two agents,
five epochs), checks that both ways give the same boards, and times each from the closed file. The second makes results of
152 models on 53 benchmarks, two million item scores, and times a query from the file of results to a composite with ranks.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.boards.board_results import BoardResult, ColumnKey, ItemScores, ResultSet
from firsthand.boards.board_spec import BenchmarkEntry, BoardSpec
from firsthand.boards.make_board import make_board
from firsthand.boards.read_results import read_results
from firsthand.boards.result_file import write_result_file
from firsthand.message import Message, ToolCall
from firsthand.patterns.cot import cot
from firsthand.patterns.react import react
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place
from firsthand.runs import store
from firsthand.runs.attempt_summary import AttemptSummary
from firsthand.runs.execute import execute
from firsthand.runs.store import Run
from firsthand.scorers.match import exact
from firsthand.show.board import Board, leaderboard
from firsthand.task import Task
from firsthand.tools.calculator import calculator
from firsthand.trace import Trace

EPOCHS = 5
BENCHMARKS, MODELS, ITEMS = 53, 152, 250
QUESTION = "A farmer sells {n} eggs a day at 2 dollars each and keeps three for breakfast. What does the farm earn? "


def answer(messages: Sequence[Message], sampling: object, index: int) -> Message | str:
    """Two calls of the calculator where there is one, then an answer."""
    if "Answer:" not in messages[0].text and len(messages) < 6:
        return Message("assistant", (ToolCall("c", "calculator", {"expression": f"{len(messages)} * 2"}),))
    return "First we subtract, then we multiply. " * 8 + f"Answer: {len(messages) % 3}"


def fill(run: Run, attempts: int) -> None:
    """Make the attempts."""
    tasks = [
        Task(f"t{n}", QUESTION.format(n=n) * 4, secret={"answer": str(n % 3)}) for n in range(attempts // EPOCHS // 2)
    ]
    benchmark = Benchmark("farm", lambda seed: tasks, (exact,))
    model = Scripted(answer)
    agents = [Agent("cot", model, cot), Agent("react", model, react, tools=(calculator,))]
    places = [Place(agent, benchmark, task, epoch) for epoch in range(EPOCHS) for task in tasks for agent in agents]
    asyncio.run(execute(run, places))


def timed(path: Path, of: Callable[[Run], Iterable[Trace | AttemptSummary]]) -> tuple[float, list[Board]]:
    """Processor seconds and the boards."""
    began = time.process_time()
    with store.open_run(path, path.parent) as run:
        boards = leaderboard(of(run), clusters=run.clusters())
    return time.process_time() - began, boards


def composite(repeats: int) -> None:
    """Time the query of a composite, from the file of results to the ranked board."""
    draw = np.random.default_rng(0)
    models = tuple(f"model-{i}" for i in range(MODELS))
    ability = draw.normal(0, 1, MODELS)
    parts, entries = [], {}
    for number in range(BENCHMARKS):
        difficulty = draw.normal(0, 1.5, ITEMS)
        chance = 1 / (1 + np.exp(difficulty[None, :] - ability[:, None]))
        scores = (draw.random((MODELS, ITEMS)) < chance).astype(np.float32)
        name = f"benchmark-{number}"
        about = tuple(BoardResult(each, name, 0.0, "p", "acc", source="bench", run=f"run-{each}") for each in models)
        tasks = tuple(f"task-{i}" for i in range(ITEMS))
        parts.append(ItemScores(ColumnKey(name, "p", "acc"), models, tasks, scores, abouts=about))
        entries[name] = BenchmarkEntry(f"category-{number % 8}")
    spec = BoardSpec(
        "composite", rule="weighted", benchmarks=entries, categories={f"category-{i}": i + 1 for i in range(8)}
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "all.results"
        write_result_file(path, ResultSet.of([], parts))
        wall, processor = [], []
        for _ in range(repeats):
            began, spent = time.perf_counter(), time.process_time()
            board = make_board(read_results([path], Path(folder)), spec)
            wall.append(time.perf_counter() - began)
            processor.append(time.process_time() - spent)
        size = path.stat().st_size / 1e6
    assert len(board.sections[0].lines) == MODELS
    print(
        f"{BENCHMARKS} benchmarks x {MODELS} models x {ITEMS} items, {BENCHMARKS * MODELS * ITEMS:,} scores, {size:.1f} MB: "
        f"best of {repeats} {min(wall):.2f} s, {min(processor):.2f} processor seconds (load {os.getloadavg()[0]:.0f})"
    )


def main() -> None:
    """Make the run, time both ways, print a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--composite", action="store_true", help="time a composite over 53 benchmarks and 152 models")
    given = parser.parse_args()
    if given.composite:
        composite(given.repeats)
        return
    with tempfile.TemporaryDirectory() as folder:
        with store.create(Path(folder), {}, "boards") as run:
            fill(run, given.attempts)
            path, count = run.path, len(run.done())
        ways: dict[str, Callable[[Run], Iterable[Trace | AttemptSummary]]] = {
            "summaries": Run.summaries,
            "traces": Run.traces,
        }
        results = {name: [timed(path, of) for _ in range(given.repeats)] for name, of in ways.items()}
        assert results["summaries"][0][1] == results["traces"][0][1]
    best = {name: min(seconds for seconds, _ in each) for name, each in results.items()}
    print(
        f"{count:,} attempts, best of {given.repeats}, processor seconds: {best['summaries']:.2f} from summaries, "
        f"{best['traces']:.2f} from traces, {best['traces'] / best['summaries']:.1f} times (load {os.getloadavg()[0]:.0f})"
    )


if __name__ == "__main__":
    main()
