"""AgentBench's lateral thinking puzzles: find out the truth behind a story by yes-or-no questions (Liu et al., 2023)."""

from __future__ import annotations

from typing import Literal

from firsthand import catalog
from firsthand.benchmark import Benchmark
from firsthand.benchmarks.sources.datasets import located
from firsthand.benchmarks.sources.xlsx_rows import xlsx_rows
from firsthand.errors import ConfigError, DataError
from firsthand.system.plurals import count_of
from firsthand.task import Task
from firsthand.trace import Score, Trace
from firsthand.worlds.outcomes import world_score
from firsthand.worlds.puzzles.puzzle import Puzzle, read_puzzle
from firsthand.worlds.puzzles.puzzle_judge import ModelHost, PuzzleHost, RuleHost
from firsthand.worlds.puzzles.puzzle_world import PuzzleWorld
from firsthand.worlds.world import Actions, WorldEnvironment

ROUNDS = 25
FOLDERS = {"en": "lateralthinkingpuzzle", "zh": "lateralthinkingpuzzle_zh"}
RULES = """You are a game player, and you are playing Lateral Thinking Puzzle, also known as Situation Puzzle.
Lateral Thinking Puzzle is a deductive reasoning game, and here are the game rules:
1. At the beginning of the game, you will receive a narrative, referred to as "story". Based on the story, you need to ask \
questions that can be answered with "yes", "no", or "irrelevant" to guess out the "truth".
2. By asking questions, you narrow down the range of possibilities until you eventually guess out the truth.
3. Each time, you can only ask one question.
4. Remember that your role is a player. You cannot declare the end of the game, give up on reasoning, or request a new game.
5. You cannot directly repeat information already provided in the story.
6. You cannot directly ask for details about the story in the form of "why" questions; you need to make your own guesses.
7. You cannot directly inquire about the story; you must make your own deductions.

{how}Here is your story:
{story}

You can start guessing the content of the truth, and I will answer your questions. Please note that your questions should \
be answerable with "yes", "no", or "irrelevant"."""
"""The paper's instructions to the player (AgentBench 0.2, Apache-2.0)."""
HOW = {
    "text": "Write each turn as two lines: Thought: and your reasoning, then Action: and your question.\n",
    "native": "",
}


def agentbench_ltp(
    *,
    split: Literal["dev", "standard"] = "standard",
    language: Literal["en", "zh"] = "en",
    judge: str = "rules",
    actions: Actions = "text",
    rounds: int = ROUNDS,
    data: str = "",
) -> Benchmark:
    """Return the benchmark: 50 (standard) or 20 (dev) real puzzles.

    `judge` is `rules` or the name of a model that hosts the game; `data` is a folder with
    `lateralthinkingpuzzle/standard.xlsx`.
    """
    if split not in ("dev", "standard") or language not in FOLDERS:
        raise ConfigError(f"split is {split!r} and language {language!r}: give dev or standard, and en or zh")
    name = f"{FOLDERS[language]}/{split}.xlsx"
    path = located(f"agents/agentbench/{name}", data, name)
    if path is None:
        raise DataError(
            f"{name} of AgentBench is in no data folder: get it from github.com/THUDM/AgentBench and give data=FOLDER"
        )
    rows = xlsx_rows(path)[1:]
    if not rows:
        raise DataError(f"{path} has no puzzles below its header")
    puzzles = [read_puzzle(row, f"{path}, row {number}") for number, row in enumerate(rows, 2)]
    tasks = [
        Task(
            f"{language}-{split}-{number:02d}",
            RULES.format(story=puzzle.story, how=HOW[actions]),
            secret={"puzzle": puzzle.to_json()},
        )
        for number, puzzle in enumerate(puzzles)
    ]
    host: PuzzleHost = RuleHost() if judge == "rules" else ModelHost(catalog.model(judge))
    return Benchmark(
        name="agentbench_ltp",
        tasks=lambda seed: tasks,
        scorers=(progress,),
        description="AgentBench's lateral thinking puzzles: find out the truth behind a story by yes-or-no questions.",
        protocol=f"AgentBench 0.2, ltp-{split}, {language}, {count_of(len(tasks), 'puzzle')}; {actions} actions; {rounds} "
        f"rounds; hosted by {'our rules' if judge == 'rules' else judge} (the paper: gpt-3.5-turbo-0613); game progress: "
        "the share of the truth's points that were found",
        licence="Apache-2.0",
        environment=lambda task: WorldEnvironment(
            PuzzleWorld(Puzzle.from_json(task.secret["puzzle"]), host, rounds), rounds=rounds, actions=actions
        ),
        options={"split": split, "language": language, "judge": judge, "actions": actions, "rounds": rounds},
    )


def progress(task: Task, trace: Trace) -> Score:
    """The paper's game progress; the detail has single game accuracy, round efficiency and query relevance."""
    result, rounds = trace.final_state["result"], _rounds(trace)
    return world_score(
        "progress",
        result["found"] / max(result["points"], 1),
        trace,
        accuracy=result["yes"] / rounds,
        efficiency=1 - result["finish_round"] / rounds,
        relevance=(result["yes"] + result["no"]) / rounds,
    )


def _rounds(trace: Trace) -> int:
    """The rounds that the game allowed."""
    return max(int(trace.final_state.get("limit", ROUNDS)), 1)
