"""BFCL's multi-turn categories: calls to simulated services over the turns of a user (Patil et al., 2025).

Covers the categories base, miss_param, miss_func and long_context, with the simulators of the package `bfcl-eval`. Left out:
memory and web search.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from firsthand.benchmark import Benchmark, needing
from firsthand.benchmarks.long_context.lengths import LazyTasks
from firsthand.benchmarks.sources.datasets import Source, read
from firsthand.errors import ConfigError, DataError
from firsthand.message import Json, system
from firsthand.system.given_data import held
from firsthand.system.plurals import count_of
from firsthand.task import Task
from firsthand.trace import Score, Trace
from firsthand.worlds.function_turns import (
    END_TURN,
    MAX_STEPS,
    MODULES,
    FunctionTurnsWorld,
    TurnTask,
    described_functions,
    listed,
    ready,
)
from firsthand.worlds.outcomes import world_result, world_score
from firsthand.worlds.world import Actions, WorldEnvironment

CATEGORIES = ("base", "miss_param", "miss_func", "long_context")
FORM = """You serve a user by calls of functions. To call one write one JSON object, {"name": NAME, "arguments": {...}}, and
nothing else. Any other text ends the turn, and the user's next request comes. The functions are:
"""
NATIVE = f"You serve a user by calls of functions. Once a request is done, call {END_TURN}, and the next one comes."


def bfcl_multi_turn(
    *, category: str = "base", rounds: int = 100, actions: Actions = "text", data: str = ""
) -> Benchmark:
    """Return the benchmark: 200 tasks of a category. `data` is a folder with the leaderboard's files."""
    if category not in CATEGORIES:
        raise ConfigError(f"category is {category!r}: give one of {', '.join(CATEGORIES)}")
    folder = _folder(data)
    name = f"BFCL_v4_multi_turn_{category}.json"
    rows, answers = (_rows(held(folder / each, folder)) for each in (name, f"possible_answer/{name}"))
    if len(rows) != len(answers):
        raise DataError(f"{name} has {count_of(len(rows), 'task')} and {len(answers)} answers: fetch both files again")
    found = [
        _turn_task(row, answer, f"{name}, line {number}")
        for number, (row, answer) in enumerate(zip(rows, answers, strict=True), 1)
    ]
    return Benchmark(
        name="bfcl_multi_turn",
        tasks=lambda seed: LazyTasks(range(len(found)), partial(_task, found, folder, actions)),
        scorers=(turns_right, turns_passed),
        description="Calls to simulated services over several turns of a user (BFCL, multi-turn).",
        protocol=f"the leaderboard's {category}, {len(found)} tasks; one call in a round, {MAX_STEPS} in a turn, "
        f"{count_of(rounds, 'round')}; state and results are compared after each turn; {actions} actions",
        licence="Apache-2.0",
        environment=lambda task: WorldEnvironment(
            FunctionTurnsWorld(
                found[task.metadata["index"]], described_functions(found[task.metadata["index"]], _docs(folder))
            ),
            rounds=rounds,
            actions=actions,
        ),
        options={"category": category, "rounds": rounds, "actions": actions},
    )


@needing(ready)
def turns_right(task: Task, trace: Trace) -> Score:
    """Score 1 if each turn left the services as the task's own calls do, and gave their results."""
    result = world_result(trace)
    return world_score("right", float(result.get("won") is True), trace, why=result.get("why", ""))


def turns_passed(task: Task, trace: Trace) -> Score:
    """Score the share of turns before the first that was not right."""
    result = world_result(trace)
    return Score("passed", result.get("passed", 0) / max(result.get("turns", 1), 1))


def _task(found: list[TurnTask], folder: Path, actions: Actions, index: int) -> Task:
    each = found[index]
    functions = described_functions(each, _docs(folder))
    shown = listed(function for name, function in functions.items() if not each.is_later(name))
    return Task(
        each.id,
        each.turns[0],
        conversation=(system(FORM + shown if actions == "text" else NATIVE),),
        metadata={"index": index, "stratum": "+".join(sorted(each.services))},
    )


def _turn_task(row: Json, answer: Json, where: str) -> TurnTask:
    """A task of its line in the two files; DataError that names the place."""
    try:
        if row["id"] != answer["id"]:
            raise DataError(
                f"{where}: the question is {row['id']} and the answer {answer['id']}: fetch both files again"
            )
        turns = tuple("\n".join(message["content"] for message in turn) for turn in row["question"])
        services, calls = tuple(row["involved_classes"]), tuple(map(tuple, answer["ground_truth"]))
        first_state = row["initial_config"]
    except (KeyError, TypeError) as error:
        raise DataError(f"{where}: no task of the multi-turn categories ({error})") from None
    if (unknown := set(services) - MODULES.keys()) or len(turns) != len(calls):
        raise DataError(f"{where}: {len(turns)} turns, {len(calls)} answers, unknown services {sorted(unknown)}")
    excluded = tuple(row.get("excluded_function", ()))
    later = {int(turn): tuple(names) for turn, names in row.get("missed_function", {}).items()}
    is_long = "long_context" in row["id"]
    return TurnTask(row["id"], turns, services, first_state, excluded, calls, is_long, later)


def _rows(path: Path) -> Sequence[Json]:
    if not path.is_file():
        raise DataError(f"{path} is missing: it is in bfcl-eval's folder data")
    return read(path, Source(path.name, 0, "Apache-2.0", "", "", "", from_hub=lambda row: row), path.name).rows


def _docs(folder: Path) -> Path:
    """The folder of the functions' descriptions."""
    return folder / "multi_turn_func_doc"


def _folder(data: str) -> Path:
    if data:
        return Path(data).expanduser()
    package = importlib.util.find_spec("bfcl_eval")
    if package is None or not package.submodule_search_locations:
        raise ConfigError("BFCL's multi-turn tasks need pip install --no-deps bfcl-eval and pip install mpmath")
    return Path(package.submodule_search_locations[0]) / "data"
