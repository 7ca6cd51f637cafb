"""A Benchmark: tasks, their scorers, and an optional environment.

Scorers read only (task, trace), so a Run can be scored again from disk, by them or by others.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast, runtime_checkable

from firsthand.errors import ConfigError, FirsthandError
from firsthand.loop.budget import Budget
from firsthand.loop.journal import Journal
from firsthand.message import Json
from firsthand.task import Task
from firsthand.tool_source import ToolSource
from firsthand.trace import Score, Trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

ScorerResult = Score | tuple[Score, ...]
Scorer = Callable[[Task, Trace], ScorerResult | float | Awaitable[ScorerResult | float]]
"""Scores an attempt, once or by several metrics; a number or a bool is a Score under the function's name.

It is pure, or awaits nothing but a judge model; see `Judge`. Its attribute `max_wait_s` bounds the seconds that it is
awaited: an hour without it, None for no bound."""


@runtime_checkable
class Judge(Protocol):
    """A Scorer that asks a model. Its calls are effects of the attempt: recorded, resumed and charged as an agent's are."""

    async def judged(self, task: Task, trace: Trace, journal: Journal, budget: Budget | None = None) -> ScorerResult:
        """The scores. Its calls are recorded in `journal` and charged to `budget`, the run's."""


S = TypeVar("S", bound=Callable[..., Any])


def needing(ready: Callable[[], object]) -> Callable[[S], S]:
    """Decorator: a scorer whose `ready` is asked before a run, and raises a FirsthandError if it cannot work here."""

    def mark(scorer: S) -> S:
        setattr(scorer, "ready", ready)  # noqa: B010
        return scorer

    return mark


@dataclass(frozen=True)
class Figure:
    """A statistic of all of an agent's attempts that is not a mean of scores, such as BLEU or a macro average."""

    name: str
    tasks: tuple[str, ...]
    """The tasks it covers."""
    of: Callable[[NDArray[Any]], NDArray[Any]]
    """Counts of each task, shape (draws, tasks) -> the figure of each draw, shape (draws,)."""
    lower_is_better: bool = False
    method: Literal["bca", "percentile"] = "bca"
    """Of its bootstrap interval: BCa corrects for bias and skew, at the cost of as many computations as there are tasks."""
    slow: bool = False
    """True if it is slow to compute, so that its interval and comparisons use fewer draws."""
    uncertainty: bool = False
    """True if it is itself a measure of uncertainty or spread, such as a standard error: it gets no interval."""
    values: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """The value of each task's attempts by themselves, where there is one."""
    by_chance: Callable[[], NDArray[Any]] | None = None
    """Draws of the figure of an agent without the error that it measures, where that is above 0 by chance: for a calibration
    error, of one whose answers are right as often as it says. An interval below which such draws lie reaches down to 0."""


Figures = Callable[[Sequence[Trace]], Sequence[Figure]]
"""All attempts of one agent -> statistics of them together."""


class Environment(ToolSource, Protocol):
    """State and tools for one attempt at one task: a tool source with a final state.

    An optional attribute `self_contained = True` says that its tools read and change nothing but the state that each `open`
    makes anew, whatever effect they declare to approvals and guards: a simulated payment is `irreversible` and reaches
    nobody. A resumed or forked attempt, whose environment is fresh, then runs each recorded call again. Without it only
    calls of `write` tools are; those of `external` and `irreversible` tools are never run twice.
    """

    async def final_state(self) -> Json:
        """The state that the scorers need to know, asked for after the pattern and before `close`."""


class Setting(Protocol):
    """The part of a Benchmark that an attempt needs: name, scorers and environment."""

    @property
    def name(self) -> str:
        """The benchmark's name in traces."""

    @property
    def scorers(self) -> Sequence[Scorer]:
        """In order; the first gives the figure that leaderboards rank by."""

    @property
    def environment(self) -> Callable[[Task], Environment] | None:
        """Makes the environment of one attempt at a task, if there is one."""


@dataclass(frozen=True)
class NamedSetting:
    """A Setting for attempts at tasks of no benchmark: conversations, judgements, single tasks."""

    name: str
    scorers: tuple[Scorer, ...] = ()
    environment: Callable[[Task], Environment] | None = None


@dataclass(frozen=True)
class Benchmark:
    """A named set of tasks under a named protocol. The first scorer gives the figure that leaderboards rank by."""

    name: str
    tasks: Callable[[int], Sequence[Task]]
    """Seed -> all tasks, in their order. A benchmark that is not generated ignores the seed."""
    scorers: tuple[Scorer, ...]
    description: str = ""
    protocol: str = ""
    """Prompting and scoring in words, so that numbers can be compared: source, shots, extraction, metric."""
    licence: str = ""
    environment: Callable[[Task], Environment] | None = None
    figures: Figures | None = None
    """Figures of all attempts together; None if the means of the scores are enough."""
    reduce: str = ""
    """The reducer of several attempts at a task, such as `max` or `pass_at_2` (`runs.epoch_reducer`); empty for the mean."""
    options: Mapping[str, object] = field(default_factory=dict)
    """The options it was made with, such as the levels of a generated benchmark."""
    files: tuple[Path, ...] = field(default=(), compare=False)
    """The files that its tasks were read from with their answers: no agent with a tool that reads them is attempted."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ConfigError(f"the name of a benchmark is {self.name!r:.80}: a text was expected")
        given = f"the benchmark {self.name!r:.80} has"
        if (
            not callable(self.tasks)
            or inspect.iscoroutinefunction(self.tasks)
            or inspect.isasyncgenfunction(self.tasks)
        ):
            kind = "an async function" if callable(self.tasks) else f"a {type(self.tasks).__name__}"
            raise ConfigError(f"{given} {kind} as tasks: give a function, as in def tasks(seed): return [Task(...)]")
        try:
            inspect.signature(self.tasks).bind(0)
        except TypeError:
            raise ConfigError(f"{given} tasks that take no seed: write the function as def tasks(seed)") from None
        except ValueError:  # one of C that states no signature
            pass
        if not isinstance(self.scorers, list | tuple):
            raise ConfigError(f"{given} {self.scorers!r:.80} as scorers: give a tuple of them, as in scorers=(exact,)")
        for field_, each in (*(("scorers", each) for each in self.scorers), *self._optional()):
            if not callable(each) and not hasattr(each, "judged") and not hasattr(each, "ready"):  # a Judge need not be
                raise ConfigError(f"{given} {each!r:.80} in {field_}: a function was expected")

    def _optional(self) -> list[tuple[str, object]]:
        """Name and value of the functions that it may have."""
        both = (("environment", self.environment), ("figures", self.figures))
        return [(name, each) for name, each in both if each is not None]


def made_tasks(benchmark: Benchmark, seed: int) -> Sequence[Task]:
    """The tasks of a benchmark, those of a generator as a tuple. ConfigError if they cannot be made, or are no tasks."""
    given = f"the tasks of the benchmark {benchmark.name!r:.80}"
    try:
        made: Any = benchmark.tasks(seed)
        made = tuple(made) if isinstance(made, Iterator) else made
    except FirsthandError:
        raise
    except Exception as error:
        raise ConfigError(f"{given} cannot be made: {type(error).__name__}: {error!s:.500}") from error
    if not (hasattr(made, "__len__") and hasattr(made, "__getitem__")) or isinstance(made, str | bytes | Mapping):
        if inspect.iscoroutine(made):
            made.close()
        raise ConfigError(f"{given} are a {type(made).__name__}: return a list of them, as in return [Task(...)]")
    for each in made if isinstance(made, list | tuple) else ():  # others make each task on access
        if not isinstance(each, Task):
            raise ConfigError(f"{given} have {each!r:.80}: make each as Task(id, prompt, secret={{...}})")
        for field_, value in (("id", each.id), ("prompt", each.prompt)):
            if not isinstance(value, str):
                raise ConfigError(f"{given} have one whose {field_} is {value!r:.80}: a text was expected")
    return cast("Sequence[Task]", made)


def with_last_line_answers(benchmark: Benchmark) -> Benchmark:
    """The benchmark whose answers are read from the last line alone, where they are read at all.

    Tasks whose answer is the whole output, or calls of tools, stay as they are; a choice by log-prob reads no text.
    """

    def changed(task: Task) -> Task:
        return task if task.verbatim or task.calls else replace(task, last_line=True)

    return replace(
        benchmark,
        tasks=lambda seed: tuple(map(changed, made_tasks(benchmark, seed))),
        protocol="; ".join(filter(None, (benchmark.protocol, "an answer is read from the last line alone"))),
    )
