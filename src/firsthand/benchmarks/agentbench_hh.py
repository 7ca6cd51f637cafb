"""AgentBench's household tasks: ALFWorld's grammar and six types of task, in generated houses or in ALFWorld's own games.

Without data the houses are generated. With `data=FOLDER`, where `alfworld-download` put `json_2.1.1/`, ALFWorld's games are
read, without those that ALFWorld's own loader leaves out; a list of AgentBench's, `lists=standard.json`, chooses the
paper's 50.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.long_context.lengths import LazyTasks
from firsthand.errors import ConfigError, DataError
from firsthand.system.given_data import held
from firsthand.system.plurals import count_of
from firsthand.task import Task
from firsthand.trace import Score, Trace
from firsthand.worlds.household.alfworld_games import GAME_FILE, is_left_out, listed_games, read_game
from firsthand.worlds.household.house import House, HouseGame
from firsthand.worlds.household.house_generator import HOUSE_LEVELS, HOUSE_VERSION, make_house
from firsthand.worlds.household.household_world import INSTRUCTIONS, HouseholdWorld
from firsthand.worlds.outcomes import world_result, world_score
from firsthand.worlds.world import Actions, WorldEnvironment


def agentbench_hh(
    *,
    level: int = 2,
    tasks: int = 60,
    rounds: int = 35,
    actions: Actions = "text",
    explain: bool = False,
    data: str = "",
    lists: str = "",
    split: str = "valid_unseen",
) -> Benchmark:
    """Return the benchmark: `tasks` generated houses of a `level` (1 to 3), or ALFWorld's games below `data`.

    `lists` is AgentBench's file of chosen games; without it all games of the `split` are taken. With `explain` a refused
    action is answered with its reason, which the paper's world does not tell.
    """
    if level not in HOUSE_LEVELS or not 1 <= tasks <= 100_000 or (lists and not data):
        raise ConfigError(
            f"level is {level}, tasks {tasks} and lists {lists!r}: give level 1 to 3, 1 to 100,000 tasks, and "
            "data with lists"
        )
    found = _games(Path(data).expanduser(), lists, split) if data else []
    paths = [path for path in found if not is_left_out(path)]
    if found and not paths:
        raise DataError(f"the games of {lists or split} are all of kinds that ALFWorld leaves out: choose others")
    source = (
        f"ALFWorld's games, {len(paths)} of {lists or split}"
        + (f", {len(found) - len(paths)} left out as ALFWorld does" if len(paths) < len(found) else "")
        if data
        else f"generated, version {HOUSE_VERSION}, level {level}"
    )
    return Benchmark(
        name="agentbench_hh",
        tasks=lambda seed: LazyTasks(range(len(paths) or tasks), partial(_task, paths, seed, level)),
        scorers=(household_success,),
        description="Household tasks by text actions: find, clean, heat, cool, examine, put (AgentBench, ALFWorld).",
        protocol=f"{source}; {count_of(rounds, 'round')}; success is the goal at the end; {actions} actions"
        + ("; refusals are explained" if explain else ""),
        licence="MIT" if data else "none needed: generated",
        environment=lambda task: WorldEnvironment(
            HouseholdWorld(_house(task), explain=explain), rounds=rounds, actions=actions
        ),
        options={
            "level": level,
            "tasks": len(paths) or tasks,
            "rounds": rounds,
            "actions": actions,
            "version": HOUSE_VERSION,
        },
    )


def household_success(task: Task, trace: Trace) -> Score:
    """Score 1 if the goal held at the end."""
    return world_score("success", world_result(trace).get("won") is True, trace, kind=task.metadata.get("kind"))


def _games(folder: Path, lists: str, split: str) -> list[Path]:
    """The paths of the games, in order; DataError if there are none."""
    if lists:
        found = [folder / game for game in listed_games(Path(lists).expanduser())]
        missing = [path for path in found if not path.is_file()]
        if missing:
            raise DataError(
                f"{len(missing)} of the {len(found)} listed games are missing, such as {missing[0]}: "
                "fill the folder by alfworld-download"
            )
        return [held(path, folder) for path in found]
    found = sorted(held(path, folder) for path in (folder / "json_2.1.1" / split).glob(f"*/*/{GAME_FILE}"))
    if not found:
        raise DataError(
            f"there is no {GAME_FILE} in {folder / 'json_2.1.1' / split}: fill {folder} by alfworld-download, "
            "or leave data out"
        )
    return found


def _house(task: Task) -> House:
    made = task.secret
    return read_game(Path(made["game"])) if "game" in made else make_house(made["seed"], made["index"], made["level"])


def _task(paths: list[Path], seed: int, level: int, index: int) -> Task:
    secret = {"game": str(paths[index])} if paths else {"seed": seed, "index": index, "level": level}
    house = read_game(paths[index]) if paths else make_house(seed, index, level)
    return Task(
        house.id,
        INSTRUCTIONS + HouseGame(house).opening,
        metadata={"kind": house.goal.kind, "stratum": house.goal.kind},
        secret=secret,
    )
