"""TextWorld: text games that its package makes from a seed, with a quest as the goal (Côté et al., 2018)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from firsthand.benchmark import Benchmark, needing
from firsthand.benchmarks.long_context.lengths import LazyTasks
from firsthand.errors import ConfigError
from firsthand.system.plurals import count_of
from firsthand.task import Task
from firsthand.trace import Score, Trace
from firsthand.worlds.outcomes import world_result, world_score
from firsthand.worlds.textworld_game import GAME_LEVELS, TEXTWORLD_VERSION, TextWorldGame, make_game, ready
from firsthand.worlds.world import Actions, WorldEnvironment

INSTRUCTIONS = """You play a text game by short commands, one in a turn, such as: go east | open chest |
take lamp from table | put lamp on shelf | insert coin into box | unlock door with key | examine lamp | look | inventory

"""


def textworld(*, level: int = 2, tasks: int = 20, rounds: int = 30, actions: Actions = "text") -> Benchmark:
    """Return the benchmark: `tasks` games of a `level` (1 to 3: one room and 2 commands, to eight rooms and 7 commands)."""
    if level not in GAME_LEVELS or not 1 <= tasks <= 10_000:
        raise ConfigError(f"level is {level} and tasks {tasks}: give level 1 to 3 and 1 to 10,000 tasks")
    size = GAME_LEVELS[level]
    return Benchmark(
        name="textworld",
        tasks=lambda seed: LazyTasks(range(tasks), partial(_task, seed, level)),
        scorers=(quest_done, quest_score),
        description="Text games with a quest, made and played by TextWorld (Côté et al., 2018).",
        protocol=f"made by the package textworld, version {TEXTWORLD_VERSION}, level {level} "
        f"({count_of(size.rooms, 'room')}, {count_of(size.objects, 'object')}, a quest of "
        f"{count_of(size.quest, 'command')}); {count_of(rounds, 'round')}; success is the quest; {actions} actions",
        licence="MIT, and generated",
        environment=lambda task: WorldEnvironment(
            TextWorldGame(Path(task.secret["path"])), rounds=rounds, actions=actions
        ),
        options={"level": level, "tasks": tasks, "rounds": rounds, "actions": actions, "version": TEXTWORLD_VERSION},
    )


@needing(ready)
def quest_done(task: Task, trace: Trace) -> Score:
    """Score 1 if the quest is done."""
    return world_score("done", world_result(trace).get("won") is True, trace)


def quest_score(task: Task, trace: Trace) -> Score:
    """Score the share of the game's own points."""
    result = world_result(trace)
    return Score("points", result.get("score", 0) / max(result.get("max_score", 0), 1))


def _task(seed: int, level: int, index: int) -> Task:
    game = make_game(seed, index, level)
    return Task(
        f"seed{seed}-level{level}-{index:04d}", f"{INSTRUCTIONS}{game.objective}", secret={"path": str(game.path)}
    )
