"""Play a world by hand in the terminal, or let its optimal, random or idle player do it and see how often that wins."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from firsthand.config import confidence, refuse_given
from firsthand.errors import ConfigError, UnknownName, nearest
from firsthand.message import Json, Message
from firsthand.system import interruption
from firsthand.system.plurals import count_of
from firsthand.system.terminal import console, print_as_json, printable

if TYPE_CHECKING:
    from firsthand.benchmark import Benchmark
    from firsthand.task import Task
    from firsthand.trace import Trace
    from firsthand.worlds.players import PlayerName
    from firsthand.worlds.world import World

EXAMPLES = """
firsthand play agentbench_dcg
firsthand play agentbench_os --task std-001-stock-00000
firsthand play agentbench_dcg --player random --limit 20 --seed 3
firsthand play tau_airline --player optimal,random,idle      # what luck and doing nothing earn
firsthand play agentbench_ltp --player optimal --limit 10 --json
"""
AT_ONCE = 8
MAX_LISTED = 60
LEAVE = ("quit", "exit", ":q")


@dataclass(frozen=True)
class Config:
    """The world, the tasks and who plays."""

    world: str = field(metadata={"positional": True})
    """A benchmark with a world, such as agentbench_dcg or agentbench_db:split=dev."""
    player: tuple[Literal["person", "optimal", "random", "idle"], ...] = ("person",)
    """The player: you, the world's scripted optimal player, one that draws its actions, or one that does nothing. Several
    of the last three are compared, as in optimal,random,idle."""
    task: str = ""
    """The id of one task; without, the first ones."""
    limit: int = 0
    """Only the first N tasks; 0 is one for a person, and all for the others."""
    seed: int = 0
    """The seed of generated worlds and of the random player."""
    confidence: str = "95%"
    """Confidence level of the interval."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ConfigError(f"limit is {self.limit}: give 1 or more, or leave it out")
        if "person" in self.player and (self.json or len(self.player) > 1):
            raise ConfigError(
                "a person plays alone and prints no JSON: name the players optimal, random or idle with --player"
            )


def main(config: Config) -> int:
    """Play the tasks and print the scores."""
    from firsthand import catalog
    from firsthand.experiment.preflight import check_ready
    from firsthand.worlds.world import WorldEnvironment

    if config.task:
        refuse_given(config, {"limit"}, "--task names the one task")
    if "person" in config.player:
        refuse_given(config, {"confidence"}, "it is for the scores of scripted players")
    level = confidence(config.confidence)
    benchmark = catalog.benchmark(config.world)
    tasks = _chosen(benchmark, config)
    made = None if benchmark.environment is None else benchmark.environment(tasks[0])
    if not isinstance(made, WorldEnvironment):
        raise ConfigError(f"{benchmark.name} has no world to play: give one such as agentbench_dcg")
    check_ready((), [(benchmark, tasks)])
    if "person" in config.player:
        return interruption.run(_by_hand(benchmark, tasks, config.seed))
    players: list[PlayerName] = [player for player in config.player if player != "person"]
    found = [
        _PlayedWorld(player, interruption.run(_by_player(benchmark, tasks, player, config.seed))) for player in players
    ]
    if config.json:
        bodies = [each.to_json(benchmark, config.seed, level) for each in found]
        print_as_json(bodies[0] if len(bodies) == 1 else bodies)
        return 0
    for each in found:
        each.print(benchmark, config.seed, level)
    return 0


def _chosen(benchmark: Benchmark, config: Config) -> Sequence[Task]:
    tasks = benchmark.tasks(config.seed)
    if config.task:
        found = [task for task in tasks if task.id == config.task]
        if not found:
            close = nearest(config.task, [task.id for task in tasks])
            hint = f"did you mean {close!r}?" if close else f"the first one is {tasks[0].id!r}"
            raise UnknownName(f"{benchmark.name} has no task {config.task!r}; {hint}")
        return found
    return tasks[: config.limit or (1 if "person" in config.player else len(tasks))]


async def _by_player(benchmark: Benchmark, tasks: Sequence[Task], player: PlayerName, seed: int) -> list[Trace]:
    """The traces of a scripted player, several at a time."""
    from firsthand.worlds.players import play

    gate = asyncio.Semaphore(AT_ONCE)

    async def one(task: Task) -> Trace:
        async with gate:
            return await play(benchmark, task, player, seed=seed)

    return list(await asyncio.gather(*map(one, tasks)))


@dataclass(frozen=True)
class _PlayedWorld:
    """The attempts of a player: the mean score with its interval, tasks won, rounds, and the reasons of failure."""

    player: PlayerName
    traces: list[Trace]

    @property
    def values(self) -> list[float]:
        return [0.0 if (value := trace.value()) is None else value for trace in self.traces]

    @property
    def won(self) -> int:
        return sum(value >= 1 for value in self.values)

    @property
    def rounds(self) -> list[int]:
        return [trace.final_state.get("rounds", 0) for trace in self.traces]

    @property
    def reasons(self) -> Counter[str]:
        return Counter(str(trace.scores[0].detail["reason"]) for trace in self.traces if _failed(trace))

    @property
    def errors(self) -> list[str]:
        return [trace.error.message for trace in self.traces if trace.error is not None]

    def to_json(self, benchmark: Benchmark, seed: int, level: float) -> Json:
        from firsthand.stats.intervals import mean_interval, proportion_interval

        found, wins = mean_interval(self.values, level), proportion_interval(self.won, len(self.traces), level)
        return {
            "world": benchmark.name, "options": dict(benchmark.options), "player": self.player, "seed": seed,
            "tasks": len(self.traces), "score": found.value, "low": found.low, "high": found.high,
            "interval": found.method, "won": self.won, "won_low": wins.low, "won_high": wins.high,
            "rounds": sum(self.rounds), "longest": max(self.rounds, default=0), "reasons": dict(self.reasons),
            "errors": self.errors, "protocol": benchmark.protocol,
        }  # fmt: skip

    def print(self, benchmark: Benchmark, seed: int, level: float) -> None:
        body, out = self.to_json(benchmark, seed, level), console()
        name = self.traces[0].scores[0].name if self.traces and self.traces[0].scores else "score"
        out.print(
            f"{benchmark.name}, {self.player} player, {count_of(len(self.traces), 'task')}, seed {seed}", markup=False
        )
        out.print(
            f"{name} {body['score']:.3f}, {level:.0%} interval {body['low']:.3f} to {body['high']:.3f} "
            f"({body['interval']})",
            markup=False,
        )
        out.print(
            f"{self.won} of {count_of(len(self.traces), 'task')} won, {level:.0%} interval {body['won_low']:.1%} to "
            f"{body['won_high']:.1%}"
        )
        out.print(f"{sum(self.rounds) / max(len(self.rounds), 1):.1f} rounds for each task, {body['longest']} at most")
        for reason, count in self.reasons.most_common():
            out.print(f"  {printable(reason)}: {count}", markup=False)
        for error in dict.fromkeys(self.errors):
            out.print(f"  error: {printable(error)}", markup=False)


def _failed(trace: Trace) -> bool:
    return bool(trace.scores) and "reason" in trace.scores[0].detail


async def _by_hand(benchmark: Benchmark, tasks: Sequence[Task], seed: int) -> int:
    """Each task, with a person at the keyboard."""
    from firsthand.worlds.players import play

    out = console()
    for task in tasks:
        for text in (*(each.text for each in task.conversation if each.role == "system"), task.prompt):
            out.print(printable(text), markup=False, highlight=False, soft_wrap=True)
        out.print(f"\n(task {task.id}; {' or '.join(LEAVE)} leaves, \\n in a line is a new line)", markup=False)
        trace = await play(benchmark, task, _asking(out), seed=seed)
        if trace.error is not None:
            out.print(printable(trace.error.message), markup=False)
            return 0 if LEFT in trace.error.message else 1
        last = next((message.text for message in reversed(trace.messages(len(trace.nodes) - 1))), "")
        out.print(printable(last), markup=False, highlight=False)
        for score in trace.scores:
            out.print(f"{score.name} {score.value:.3f}", markup=False)
    return 0


LEFT = "the game was left"


def _asking(out: object) -> Callable[[World, Sequence[Message]], str]:
    """The next action that a person types: a line, or the number of a listed action."""

    def ask(world: World, messages: Sequence[Message]) -> str:
        show = out.print  # type: ignore[attr-defined]
        if messages and messages[-1].text.startswith("Observation"):
            show(printable(messages[-1].text), markup=False, highlight=False, soft_wrap=True)
        show(printable(world.render()), markup=False, highlight=False, soft_wrap=True)
        listed = list(world.admissible() or ())
        for number, action in enumerate(listed[:MAX_LISTED], 1):
            show(f"{number:>3} {printable(action)}", markup=False, highlight=False)
        try:
            line = input("> ").strip()
        except EOFError:
            line = LEAVE[0]
        if line.lower() in LEAVE:
            raise ConfigError(f"{LEFT} before its end")
        if listed and line.isdecimal() and 1 <= int(line) <= len(listed):
            return listed[int(line) - 1]
        typed = getattr(world, "typed", None)
        said = line.replace("\\n", "\n")
        return str(typed(said)) if typed is not None else said

    return ask
